// SPDX-License-Identifier: Apache-2.0
//! What this kernel is like, as far as the programs must be told: which tracepoints exist, with which
//! arguments, and where some things lie. Read from BTF and kallsyms, by existence, never by version.

use crate::config::KernelFacts;
use crate::config::LimitClock;
use crate::error::Error;
use crate::skel::types::drop_kind;
use crate::skel::types::record_limits;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::BtfType;
use libbpf_rs::btf::types::Composite;
use libbpf_rs::btf::types::DataSec;
use libbpf_rs::btf::types::Enum;
use libbpf_rs::btf::types::Func;
use libbpf_rs::btf::types::FuncProto;
use libbpf_rs::btf::types::MemberAttr;
use libbpf_rs::btf::types::Ptr;
use libbpf_rs::btf::types::Typedef;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;

const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";
const KALLSYMS: &str = "/proc/kallsyms";
/// The function that gives an address a type.
const TYPED_LOAD: &str = "bpf_rdonly_cast";
/// Threads that the table holds where it is needed.
const THREADS_MAX: u32 = record_limits::THREAD_TABLE_MAX.0;
/// Of the kernel's reasons for dropping a packet.
const DROP_REASONS_MAX: usize = record_limits::DROP_REASONS_MAX.0 as usize;

/// What a reason of the kernel is to us (`enum skb_drop_reason`, without its prefix). Those that are not
/// here drop what is no segment of a connection, or what its end did not want.
fn drop_kind_of(reason: &str) -> drop_kind {
    match reason {
        "QDISC_DROP" | "QDISC_OVERLIMIT" | "QDISC_CONGESTED" | "CAKE_FLOOD" | "FQ_BAND_LIMIT"
        | "FQ_HORIZON_LIMIT" | "FQ_FLOW_LIMIT" | "DUALPI2_STEP_DROP" => drop_kind::DROP_QUEUE,
        "TC_EGRESS" => drop_kind::DROP_TC_OUT,
        "TC_INGRESS" => drop_kind::DROP_TC_IN,
        "NETFILTER_DROP" => drop_kind::DROP_FILTER,
        "CPU_BACKLOG" | "XDP" | "FULL_RING" | "DEV_HDR" | "DEV_READY" | "TAP_FILTER"
        | "TAP_TXFILTER" | "SKB_GSO_SEG" | "NO_TX_TARGET" => drop_kind::DROP_DEVICE,
        "BPF_CGROUP_EGRESS" | "SECURITY_HOOK" | "SOCKET_FILTER" | "XFRM_POLICY" => {
            drop_kind::DROP_POLICY
        }
        "NEIGH_CREATEFAIL" | "NEIGH_FAILED" | "NEIGH_QUEUEFULL" | "NEIGH_DEAD"
        | "NEIGH_HH_FILLFAIL" => drop_kind::DROP_NEIGHBOUR,
        "IP_OUTNOROUTES" | "IP_INNOROUTES" | "IP_RPFILTER" => drop_kind::DROP_ROUTE,
        "SOCKET_RCVBUFF" | "SOCKET_BACKLOG" | "TCP_OFO_DROP" | "TCP_OFO_QUEUE_PRUNE" => {
            drop_kind::DROP_SOCKET
        }
        "TCP_CSUM" | "IP_CSUM" | "SKB_CSUM" => drop_kind::DROP_CHECKSUM,
        "NOMEM" | "PROTO_MEM" => drop_kind::DROP_MEMORY,
        _ => drop_kind::DROP_NONE,
    }
}

/// Addresses of what the programs cannot name themselves; 0 where not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Symbols {
    /// The functions that a restart block may point to.
    pub(crate) poll: u64,
    pub(crate) futex: u64,
    pub(crate) sleep: u64,
    /// Per-CPU variables, for kernels whose BTF has none.
    runqueues: u64,
    preempt_count: u64,
    current_task: u64,
}

/// Offsets of per-CPU variables from one common place; the first two are 0 where one is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerCpuOffsets {
    pub(crate) runqueues: u64,
    pub(crate) preempt_count: u64,
    /// The pointer to the running task; 0 where not known.
    pub(crate) current_task: u64,
}

/// What the running kernel can do.
///
/// # Errors
///
/// If it carries no type information, or that cannot be read.
pub fn kernel_facts() -> Result<KernelFacts, Error> {
    Ok(Features::read()?.facts())
}

/// The types of the running kernel.
pub(crate) struct Features {
    btf: Btf<'static>,
}

impl Features {
    pub(crate) fn read() -> Result<Features, Error> {
        if !Path::new(VMLINUX_BTF).exists() {
            return Err(Error::NoBtf);
        }
        let btf = Btf::from_vmlinux().map_err(|error| Error::Refused {
            what: "reading the kernel's BTF".to_owned(),
            why: format!("{error:#}"),
        })?;
        Ok(Features { btf })
    }

    /// The arguments of a tracepoint, without the context pointer; `None`: it does not exist.
    fn arguments(&self, tracepoint: &str) -> Option<Vec<BtfType<'_>>> {
        let name = format!("btf_trace_{tracepoint}");
        let typedef = self.btf.type_by_name::<Typedef<'_>>(&name)?;
        let pointer = Ptr::try_from(typedef.next_type()?).ok()?;
        let proto = FuncProto::try_from(pointer.next_type()?).ok()?;
        let argument = |id| self.btf.type_by_id::<BtfType<'_>>(id);
        proto
            .iter()
            .skip(1)
            .map(|param| argument(param.ty))
            .collect()
    }

    /// Whether the kernel has this tracepoint.
    pub(crate) fn has_tracepoint(&self, tracepoint: &str) -> bool {
        self.arguments(tracepoint).is_some()
    }

    /// 5.18 on: `sched_switch` says the state that the thread leaves in.
    pub(crate) fn switch_says_state(&self) -> bool {
        self.arguments("sched_switch")
            .is_some_and(|args| args.len() >= 4)
    }

    /// 5.12 on: tracing programs can keep something with a task (`has_task_storage` of compat.bpf.h
    /// asks for the same field).
    pub(crate) fn has_task_storage(&self) -> bool {
        self.has_member("task_struct", "bpf_storage")
    }

    fn has_member(&self, composite: &str, member: &str) -> bool {
        self.btf
            .type_by_name::<Composite<'_>>(composite)
            .is_some_and(|composite| self.member_offset(&composite, member).is_some())
    }

    /// How limits are measured; the same questions as in compat.bpf.h.
    fn limits(&self) -> LimitClock {
        if !self.has_member("task_group", "cfs_bandwidth") {
            LimitClock::NoLimits
        } else if self.has_member("task_struct", "throttled") {
            LimitClock::Task
        } else if self.has_member("cfs_rq", "throttled_clock_self_time") {
            LimitClock::Queue
        } else {
            LimitClock::Estimated
        }
    }

    /// What answers depend on.
    pub(crate) fn facts(&self) -> KernelFacts {
        let offsets = self.per_cpu_offsets(&Symbols::read());
        KernelFacts {
            threads_max: (!self.has_task_storage()).then_some(THREADS_MAX),
            switch_says_state: self.switch_says_state(),
            limits: self.limits(),
            wakers: offsets != PerCpuOffsets::default()
                && self.has_member("sched_entity", "cfs_rq"),
            drop_reasons: self.says_drop_reason(),
            typed_loads: self.btf.type_by_name::<Func<'_>>(TYPED_LOAD).is_some(),
        }
    }

    /// 5.17 on (c504e5c2f964 "net: skb: introduce kfree_skb_reason()"): a dropped packet says why.
    pub(crate) fn says_drop_reason(&self) -> bool {
        self.arguments("kfree_skb")
            .is_some_and(|args| args.len() >= 3)
    }

    /// Which of our kinds each of the kernel's reasons for dropping a packet is. They are found by name:
    /// the numbers differ between versions.
    pub(crate) fn drop_classes(&self) -> [u8; DROP_REASONS_MAX] {
        let mut classes = [0; DROP_REASONS_MAX];
        let Some(reasons) = self.btf.type_by_name::<Enum<'_>>("skb_drop_reason") else {
            return classes;
        };
        for reason in reasons.iter() {
            let name = reason.name.map(std::ffi::OsStr::to_string_lossy);
            let name = name.unwrap_or_default();
            let kind = drop_kind_of(name.trim_start_matches("SKB_DROP_REASON_"));
            if let Some(slot) = classes.get_mut(reason.value as usize) {
                *slot = kind.0 as u8;
            }
        }
        classes
    }

    /// 7.2 on: direct reclaim names the allocation flags before the order.
    pub(crate) fn order_is_second(&self) -> bool {
        self.arguments("mm_vmscan_direct_reclaim_begin")
            .and_then(|args| args.first()?.name().map(|name| name == "gfp_t"))
            .unwrap_or(false)
    }

    /// Where `runqueues`, the preempt count and the current task lie in the per-CPU section. From 6.2 to
    /// 6.14 the latter two are fields of `pcpu_hot`. The BTF of some kernels (Debian's 5.10) has no
    /// per-CPU variables; there the symbols tell. Without either, no waker is named.
    pub(crate) fn per_cpu_offsets(&self, symbols: &Symbols) -> PerCpuOffsets {
        let find = || {
            let section = self.btf.type_by_name::<DataSec<'_>>(".data..percpu")?;
            let offset = |wanted: &str| {
                section.iter().find_map(|entry| {
                    let variable = self.btf.type_by_id::<BtfType<'_>>(entry.ty)?;
                    (variable.name()? == wanted).then_some(u64::from(entry.offset))
                })
            };
            let hot = |member| Some(offset("pcpu_hot")? + self.hot_offset(member)?);
            Some(PerCpuOffsets {
                runqueues: offset("runqueues")?,
                preempt_count: offset("__preempt_count").or_else(|| hot("preempt_count"))?,
                current_task: offset("current_task")
                    .or_else(|| hot("current_task"))
                    .unwrap_or(0),
            })
        };
        find().unwrap_or_else(|| symbols.per_cpu_offsets())
    }

    fn hot_offset(&self, member: &str) -> Option<u64> {
        let hot = self.btf.type_by_name::<Composite<'_>>("pcpu_hot")?;
        self.member_offset(&hot, member)
    }

    /// The offset of a member in bytes, also where it lies in unnamed structs or unions.
    fn member_offset(&self, composite: &Composite<'_>, wanted: &str) -> Option<u64> {
        composite.iter().find_map(|member| {
            let bits = match member.attr {
                MemberAttr::Normal { offset } | MemberAttr::BitField { offset, .. } => offset,
            };
            let at = u64::from(bits) / 8;
            match member.name {
                Some(name) if !name.is_empty() => (name == wanted).then_some(at),
                _ => {
                    let inner = self.btf.type_by_id::<Composite<'_>>(member.ty)?;
                    Some(at + self.member_offset(&inner, wanted)?)
                }
            }
        })
    }
}

impl Symbols {
    /// Reads the addresses from kallsyms; without the right to see them they are 0, and an interrupted
    /// call stays `restart_syscall`.
    pub(crate) fn read() -> Symbols {
        match File::open(KALLSYMS) {
            Ok(file) => Symbols::parse(BufReader::new(file)),
            Err(_) => Symbols::default(),
        }
    }

    fn parse(table: impl BufRead) -> Symbols {
        let mut found = Symbols::default();
        for line in table.lines().map_while(Result::ok) {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let slot = match name {
                "do_restart_poll" => &mut found.poll,
                "futex_wait_restart" => &mut found.futex,
                "hrtimer_nanosleep_restart" => &mut found.sleep,
                "runqueues" => &mut found.runqueues,
                "__preempt_count" => &mut found.preempt_count,
                "current_task" => &mut found.current_task,
                _ => continue,
            };
            *slot = u64::from_str_radix(address, 16).unwrap_or(0);
        }
        found
    }

    fn per_cpu_offsets(&self) -> PerCpuOffsets {
        if self.runqueues == 0 || self.preempt_count == 0 {
            return PerCpuOffsets::default();
        }
        PerCpuOffsets {
            runqueues: self.runqueues,
            preempt_count: self.preempt_count,
            current_task: self.current_task,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;
    use super::Features;
    use super::PerCpuOffsets;
    use super::Symbols;

    #[test]
    fn root_this_kernel_has_what_the_scheduler_programs_need() -> Result<(), Error> {
        let features = Features::read()?;
        for tracepoint in ["sched_switch", "sched_waking", "sched_wakeup_new"] {
            assert!(features.has_tracepoint(tracepoint), "{tracepoint}");
        }
        assert!(!features.has_tracepoint("no_such_tracepoint"));
        let offsets = features.per_cpu_offsets(&Symbols::read());
        assert!(
            offsets.runqueues > 0 && offsets.preempt_count > 0 && offsets.current_task > 0,
            "{offsets:?}"
        );
        Ok(())
    }
    #[test]
    fn symbols_stand_in_for_per_cpu_variables_only_together() {
        let table = "000000000001fb40 A runqueues\n\
                     0000000000014e0c A __preempt_count\n\
                     ffffffff8112 t do_restart_poll\n\
                     bad line\n";
        let symbols = Symbols::parse(table.as_bytes());
        assert_eq!(symbols.poll, 0xffff_ffff_8112);
        let both = PerCpuOffsets {
            runqueues: 0x1fb40,
            preempt_count: 0x14e0c,
            current_task: 0,
        };
        assert_eq!(symbols.per_cpu_offsets(), both);
        let hidden = Symbols::parse(&b"0000 A runqueues\n14e0c A __preempt_count\n"[..]);
        assert_eq!(hidden.per_cpu_offsets(), PerCpuOffsets::default());
    }
}
