// SPDX-License-Identifier: Apache-2.0
//! The checks of facts that files tell: each a function from the host to one [`Check`].
//!
//! A check never guesses: what cannot be read is said to be not known, and only what is known to
//! cost a cause says so.

use lacuna_host::Root;
use lacuna_host::caps::Capabilities;
use lacuna_host::caps::Capability;
use lacuna_host::cgroup::Cgroups;
use lacuna_host::cgroup::Version;
use lacuna_host::symbols::Kallsyms;
use lacuna_host::symbols::kallsyms;
use lacuna_host::sys;
use lacuna_host::sys::KernelVersion;
use lacuna_host::sys::Lockdown;
use lacuna_host::sys::Memlock;
use lacuna_timeline::Cause;

use super::Check;
use super::every_cause;

/// Below this, BPF memory on a kernel before 5.11 does not fit: the largest ring, and its maps.
const MEMLOCK_BYTES_MIN: u64 = 64 << 20;

/// A clock offset that is known less exactly than this makes joins by timestamps less certain.
const CLOCK_ERROR_NS_MAX: u64 = 100_000;

/// Clock sources that are read without leaving the CPU; the others cost a microsecond or more, at
/// every switch.
const FAST_CLOCK_SOURCES: [&str; 6] = [
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
    "xen",
    "tsc-early",
];

/// Causes that only a function on the kernel stack can prove (`lacuna_timeline`'s table of them).
const CAUSES_BY_STACK: [Cause; 6] = [
    Cause::MemOom,
    Cause::DiskDirty,
    Cause::DiskLimit,
    Cause::MemSwap,
    Cause::MemFault,
    Cause::LockKernel,
];

/// Ring buffers and the task iterator came with 5.8; 5.10 is the oldest kernel that tests run on.
pub(super) fn kernel_version(kernel: Option<&KernelVersion>) -> Check {
    const NAME: &str = "kernel version";
    const FIX: &str = "boot a kernel of 5.10 or later";
    let Some(kernel) = kernel else {
        return Check::degraded(
            NAME,
            "cannot be read from /proc/sys/kernel/osrelease; the hooks below are tried all the same",
            "mount /proc",
        );
    };
    if kernel.at_least(5, 10) {
        return Check::ok(NAME, format!("{kernel}: 5.10 or later"));
    }
    if kernel.at_least(5, 8) {
        return Check::degraded(
            NAME,
            format!(
                "{kernel}: older than any that was tested; the hooks below are tried all the same"
            ),
            FIX,
        );
    }
    Check::missing(
        NAME,
        format!("{kernel} lacks BPF ring buffers (5.8)"),
        every_cause(),
        FIX,
    )
}

/// The probes find the fields of kernel structures by the kernel's own description of them.
pub(super) fn type_information(root: &Root) -> Check {
    const NAME: &str = "type information";
    if sys::has_btf(root) {
        return Check::ok(NAME, "/sys/kernel/btf/vmlinux is there");
    }
    Check::missing(
        NAME,
        "no /sys/kernel/btf/vmlinux: the probes cannot find the kernel's fields",
        every_cause(),
        "use a kernel built with CONFIG_DEBUG_INFO_BTF (those of the distributions are, from about \
         5.10 on); in a container, mount the host's /sys",
    )
}

/// Under `confidentiality` BPF may not read kernel memory; under `integrity` tracepoints work.
pub(super) fn lockdown(root: &Root) -> Check {
    const NAME: &str = "lockdown";
    match Lockdown::read(root) {
        None => Check::ok(
            NAME,
            "not told (no /sys/kernel/security/lockdown: not built in, or securityfs is not \
             mounted); the hooks below are tried for real",
        ),
        Some(Lockdown::Confidentiality) => Check::missing(
            NAME,
            "confidentiality: BPF programs may not read kernel memory",
            every_cause(),
            "boot with lockdown=integrity (or, where Secure Boot forces it, use a kernel whose \
             default under Secure Boot is integrity)",
        ),
        Some(Lockdown::Integrity) => Check::ok(
            NAME,
            "integrity: tracepoint programs are let through, and nothing else is used",
        ),
        Some(Lockdown::None) => Check::ok(NAME, Lockdown::None.name()),
    }
}

/// The capabilities without which no probe loads.
pub(super) fn capabilities(root: &Root, kernel: Option<&KernelVersion>) -> Check {
    const NAME: &str = "capabilities";
    let Some(has) = own_capabilities(root) else {
        return Check::degraded(
            NAME,
            "cannot be read from /proc/self/status; the hooks below are tried all the same",
            "mount /proc",
        );
    };
    if has.has(Capability::SysAdmin) {
        return Check::ok(NAME, "CAP_SYS_ADMIN: probes may be loaded");
    }
    // Before 5.8 the two did not exist, and only CAP_SYS_ADMIN would do.
    let needed: &[Capability] = match kernel {
        Some(kernel) if !kernel.at_least(5, 8) => &[Capability::SysAdmin],
        _ => &[Capability::Bpf, Capability::Perfmon],
    };
    let missing = has.missing(needed);
    if missing.is_empty() {
        return Check::ok(NAME, "CAP_BPF and CAP_PERFMON: probes may be loaded");
    }
    let could = missing.iter().all(|&capability| has.may_have(capability));
    let hint = if could {
        " (permitted, but not effective)"
    } else {
        ""
    };
    Check::missing(
        NAME,
        format!("{} missing{hint}: no probe can be loaded", listed(&missing)),
        every_cause(),
        "run as root, or give the program its capabilities: setcap \
         cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_syslog=ep /path/to/lacuna",
    )
}

/// Those without which facts about other users' processes are missing.
pub(super) fn more_capabilities(root: &Root) -> Check {
    const NAME: &str = "capabilities for facts";
    const WANTED: [(Capability, &str); 4] = [
        (
            Capability::SysPtrace,
            "whose a connection is; without it spans of services that run as another user are not \
             joined",
        ),
        (
            Capability::DacReadSearch,
            "files of other users' processes by name",
        ),
        (
            Capability::Syslog,
            "names of kernel functions, where kernel.kptr_restrict is 1",
        ),
        (
            Capability::SysAdmin,
            "what the probes themselves cost, by the kernel's own count",
        ),
    ];
    let Some(has) = own_capabilities(root) else {
        return Check::degraded(NAME, "cannot be read from /proc/self/status", "mount /proc");
    };
    let lost: Vec<String> = WANTED
        .iter()
        .filter(|(capability, _)| !has.has(*capability))
        .map(|(capability, what)| format!("{capability} ({what})"))
        .collect();
    if lost.is_empty() {
        return Check::ok(
            NAME,
            "processes, files and sockets of other users can be looked at",
        );
    }
    Check::degraded(
        NAME,
        format!("missing: {}", lost.join(", ")),
        "run as root, or add them with setcap",
    )
}

fn own_capabilities(root: &Root) -> Option<Capabilities> {
    Capabilities::parse(&root.read("/proc/self/status").ok()?)
}

fn listed(capabilities: &[Capability]) -> String {
    let names: Vec<&str> = capabilities
        .iter()
        .map(|capability| capability.name())
        .collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(" and "))
}

/// Before 5.11 the memory of maps counts as locked memory.
pub(super) fn locked_memory(root: &Root, kernel: Option<&KernelVersion>) -> Check {
    const NAME: &str = "locked memory";
    let limit = match sys::memlock_bytes_max(root) {
        None => "not told".to_owned(),
        Some(Memlock::Unlimited) => "unlimited".to_owned(),
        Some(Memlock::Bytes(bytes)) => format!("{} KiB", bytes >> 10),
    };
    if kernel.is_none_or(|kernel| kernel.at_least(5, 11)) {
        return Check::ok(
            NAME,
            format!("{limit}; BPF memory does not count to it from 5.11 on"),
        );
    }
    let fits = match sys::memlock_bytes_max(root) {
        Some(Memlock::Bytes(bytes)) => bytes >= MEMLOCK_BYTES_MIN,
        Some(Memlock::Unlimited) => true,
        None => false,
    };
    let raises = own_capabilities(root).is_some_and(|has| has.has(Capability::SysResource));
    if fits || raises {
        return Check::ok(NAME, limit);
    }
    Check::degraded(
        NAME,
        format!("{limit}: BPF memory counts to it before 5.11, and may not fit"),
        "ulimit -l unlimited, LimitMEMLOCK=infinity, or CAP_SYS_RESOURCE",
    )
}

/// The kernel side knows processes by their numbers in the initial pid namespace.
pub(super) fn processes(root: &Root) -> Check {
    const NAME: &str = "processes";
    if sys::in_initial_pid_namespace(root) == Some(false) {
        return Check::missing(
            NAME,
            "this is not the initial pid namespace: the numbers that the kernel side records mean \
             other processes here, or none",
            every_cause(),
            "run on the host itself, or in a container with the host's pid namespace (hostPID: \
             true, --pid=host)",
        );
    }
    if sys::hides_processes(root) {
        return Check::degraded(
            NAME,
            "/proc is mounted with hidepid: other users' processes cannot be joined",
            "run as root, or with the group that the mount option gid= names",
        );
    }
    Check::ok(
        NAME,
        "this host's processes are visible under their own numbers",
    )
}

/// What a wait was in the kernel is told by the functions on its stack.
pub(super) fn kernel_symbols(root: &Root) -> Check {
    const NAME: &str = "kernel symbols";
    match kallsyms(root) {
        Kallsyms::Readable => Check::ok(NAME, "/proc/kallsyms tells addresses"),
        Kallsyms::Hidden => Check::missing(
            NAME,
            "/proc/kallsyms hides addresses: stacks of waits have no names",
            CAUSES_BY_STACK,
            "CAP_SYSLOG with kernel.kptr_restrict at 0 or 1 (at 2 they are hidden from everybody)",
        ),
        Kallsyms::Missing => Check::missing(
            NAME,
            "no /proc/kallsyms: stacks of waits have no names",
            CAUSES_BY_STACK,
            "use a kernel built with CONFIG_KALLSYMS",
        ),
    }
}

/// Which groups there are to name as the culprits of limits.
pub(super) fn control_groups(root: &Root) -> Check {
    const NAME: &str = "control groups";
    let cgroups = Cgroups::discover(root).unwrap_or_default();
    if cgroups.hierarchies.is_empty() {
        return Check::degraded(
            NAME,
            "none are mounted: containers and units have no names, and a CPU limit has no owner",
            "mount the host's /sys/fs/cgroup",
        );
    }
    let unified = match cgroups.unified() {
        None => "v2 not mounted".to_owned(),
        Some(unified) if unified.controllers.is_empty() => "v2 without controllers".to_owned(),
        Some(unified) => format!("v2 ({})", unified.controllers.join(", ")),
    };
    let legacy = cgroups
        .hierarchies
        .iter()
        .filter(|h| h.version == Version::V1);
    let legacy: Vec<String> = legacy
        .map(|hierarchy| hierarchy.controllers.join("+"))
        .collect();
    let legacy = match legacy.as_slice() {
        [] => String::new(),
        names => format!(", v1 ({})", names.join(", ")),
    };
    let found = format!("{unified}{legacy}");
    if cgroups.with("cpu").is_some() {
        return Check::ok(NAME, found);
    }
    Check::degraded(
        NAME,
        format!("{found}: no CPU controller, so the group whose CPU limit it was has no name"),
        "mount the hierarchy with the cpu controller, or enable it in cgroup.subtree_control",
    )
}

/// What is seen and not told apart from waiting behind others (rule 4).
pub(super) fn scheduler(root: &Root) -> Check {
    const NAME: &str = "scheduler";
    if sys::sched_ext_is_on(root) == Some(true) {
        return Check::degraded(
            NAME,
            "a scheduler loaded as BPF (sched_ext) decides who runs: what it delays on purpose \
             shows as runq.*",
            "unload it to see the kernel's own scheduler; nothing else needs to be done",
        );
    }
    let throttled = match sys::rt_runtime_us(root) {
        // The whole period is the default where a fair server (6.8) keeps some for the others.
        Some(-1 | 1_000_000..) => "real-time threads are not throttled".to_owned(),
        Some(us) => {
            format!("real-time threads beyond {us} microseconds of each second wait in runq.*")
        }
        None => "whether real-time threads are throttled is not known".to_owned(),
    };
    Check::ok(
        NAME,
        format!("the kernel's own; {throttled}, as does what core scheduling delays"),
    )
}

/// Spans and kernel events have different clocks; and every switch reads one.
pub(super) fn clocks(root: &Root, error_ns: &Result<u64, String>) -> Check {
    const NAME: &str = "clocks";
    let source = sys::clock_source(root);
    let source = source.as_deref().unwrap_or("an unknown source");
    let error_ns = match error_ns {
        Ok(error_ns) => *error_ns,
        Err(error) => {
            return Check::degraded(
                NAME,
                format!("{source}; settings of the clock cannot be noticed: {error}"),
                "raise the limit of open files",
            );
        }
    };
    let found = format!("{source}; spans are placed to within {error_ns} ns");
    if source != "an unknown source" && !FAST_CLOCK_SOURCES.contains(&source) {
        return Check::degraded(
            NAME,
            format!("{found}; reading this source is slow, so every switch costs more"),
            "let the kernel use tsc or kvm-clock (dmesg says why it does not)",
        );
    }
    if error_ns > CLOCK_ERROR_NS_MAX {
        let why = format!("{found}: too coarse to tell threads apart by timestamps");
        return Check::degraded(
            NAME,
            why,
            "give this host's CPUs less to do, or a faster clock source",
        );
    }
    Check::ok(NAME, found)
}

/// Which process sent a span is told by the connection it came over.
pub(super) fn connection_owner(found: &Result<(), String>) -> Check {
    const NAME: &str = "connection owners";
    match found {
        Ok(()) => Check::ok(
            NAME,
            "the process at the other end of a connection is found",
        ),
        Err(error) => Check::degraded(
            NAME,
            format!(
                "tried, and failed: {error}; spans are joined only where they name their process"
            ),
            "use a kernel with CONFIG_INET_DIAG (module tcp_diag) and a /proc that shows processes",
        ),
    }
}

/// Not needed; said because people look for it.
pub(super) fn delay_accounting(root: &Root) -> Check {
    let state = match sys::delay_accounting(root) {
        Some(true) => "on",
        Some(false) => "off (kernel.task_delayacct is 0)",
        None => "not built in, or not told",
    };
    Check::ok(
        "delay accounting",
        format!("{state}; no cause depends on it"),
    )
}

/// Not needed; said because people look for it.
pub(super) fn pressure(root: &Root) -> Check {
    let state = if sys::has_psi(root) {
        "can be read"
    } else {
        "cannot be read"
    };
    Check::ok(
        "pressure stall information",
        format!("{state}; no cause depends on it"),
    )
}
