// SPDX-License-Identifier: Apache-2.0
//! What this kernel is like, as far as the programs must be told: which tracepoints exist, with which
//! arguments, and where some things lie. Read from BTF and kallsyms, by existence, never by version.

use crate::error::Error;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::BtfType;
use libbpf_rs::btf::types::Composite;
use libbpf_rs::btf::types::DataSec;
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

/// Addresses of the functions that a restart block may point to; 0 where not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RestartFunctions {
    pub(crate) poll: u64,
    pub(crate) futex: u64,
    pub(crate) sleep: u64,
}

/// Offsets of per-CPU variables within their section; the first two are 0 where one is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerCpuOffsets {
    pub(crate) runqueues: u64,
    pub(crate) preempt_count: u64,
    /// The pointer to the running task; 0 where not known.
    pub(crate) current_task: u64,
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
        self.btf
            .type_by_name::<Composite<'_>>("task_struct")
            .is_some_and(|task| self.member_offset(&task, "bpf_storage").is_some())
    }

    /// 7.2 on: direct reclaim names the allocation flags before the order.
    pub(crate) fn order_is_second(&self) -> bool {
        self.arguments("mm_vmscan_direct_reclaim_begin")
            .and_then(|args| args.first()?.name().map(|name| name == "gfp_t"))
            .unwrap_or(false)
    }

    /// Where `runqueues`, the preempt count and the current task lie in the per-CPU section. From 6.2
    /// to 6.14 the latter two are fields of `pcpu_hot`.
    pub(crate) fn per_cpu_offsets(&self) -> PerCpuOffsets {
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
        find().unwrap_or_default()
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

/// Reads the addresses from kallsyms; without the right to see them they are 0, and an interrupted
/// call stays `restart_syscall`.
pub(crate) fn restart_functions() -> RestartFunctions {
    let mut found = RestartFunctions::default();
    let Ok(file) = File::open(KALLSYMS) else {
        return found;
    };
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let slot = match name {
            "do_restart_poll" => &mut found.poll,
            "futex_wait_restart" => &mut found.futex,
            "hrtimer_nanosleep_restart" => &mut found.sleep,
            _ => continue,
        };
        *slot = u64::from_str_radix(address, 16).unwrap_or(0);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::Error;
    use super::Features;

    #[test]
    fn root_this_kernel_has_what_the_scheduler_programs_need() -> Result<(), Error> {
        let features = Features::read()?;
        for tracepoint in ["sched_switch", "sched_waking", "sched_wakeup_new"] {
            assert!(features.has_tracepoint(tracepoint), "{tracepoint}");
        }
        assert!(!features.has_tracepoint("no_such_tracepoint"));
        let offsets = features.per_cpu_offsets();
        assert!(
            offsets.runqueues > 0 && offsets.preempt_count > 0 && offsets.current_task > 0,
            "{offsets:?}"
        );
        Ok(())
    }
}
