// SPDX-License-Identifier: Apache-2.0
//! Capabilities: which this process has, which are missing by name, and giving them up.
//!
//! Only named capabilities are spoken about; a kernel may know more. Dropping is for one thread and
//! for good: threads that read hostile bytes (rule 25) call it before they read the first.

use rustix::thread::CapabilitySet;
use rustix::thread::CapabilitySets;
use rustix::thread::capabilities;
use rustix::thread::clear_ambient_capability_set;
use rustix::thread::set_capabilities;
use rustix::thread::set_no_new_privs;
use std::fmt;
use std::io;

/// A capability that this project has a use for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Capability {
    /// Load BPF programs and maps (5.8 on).
    Bpf,
    /// Attach them to tracepoints; read kernel memory from them (5.8 on).
    Perfmon,
    /// Before 5.8, both of the above; at any version, the kernel's statistics of BPF programs.
    SysAdmin,
    /// Read `/proc/PID/{exe,fd,ns}` of other users.
    SysPtrace,
    /// Read files and directories of other users.
    DacReadSearch,
    /// Read kernel symbol addresses where `kptr_restrict` is 1.
    Syslog,
    /// Raise `RLIMIT_MEMLOCK` (needed for BPF memory before 5.11).
    SysResource,
}

/// Each with its bit and name.
const TABLE: [(Capability, CapabilitySet, &str); 7] = [
    (Capability::Bpf, CapabilitySet::BPF, "CAP_BPF"),
    (Capability::Perfmon, CapabilitySet::PERFMON, "CAP_PERFMON"),
    (
        Capability::SysAdmin,
        CapabilitySet::SYS_ADMIN,
        "CAP_SYS_ADMIN",
    ),
    (
        Capability::SysPtrace,
        CapabilitySet::SYS_PTRACE,
        "CAP_SYS_PTRACE",
    ),
    (
        Capability::DacReadSearch,
        CapabilitySet::DAC_READ_SEARCH,
        "CAP_DAC_READ_SEARCH",
    ),
    (Capability::Syslog, CapabilitySet::SYSLOG, "CAP_SYSLOG"),
    (
        Capability::SysResource,
        CapabilitySet::SYS_RESOURCE,
        "CAP_SYS_RESOURCE",
    ),
];

const _: () = {
    let mut at = 0;
    while at < TABLE.len() {
        assert!(
            TABLE[at].0 as usize == at,
            "the table must be in the order of the enum"
        );
        at += 1;
    }
};

impl Capability {
    /// The name that `capabilities(7)` gives it.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].2
    }

    fn bit(self) -> CapabilitySet {
        TABLE[self as usize].1
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The capabilities of a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    effective: CapabilitySet,
    permitted: CapabilitySet,
}

impl Capabilities {
    /// Those of the calling thread.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn of_this_thread() -> io::Result<Self> {
        let sets = capabilities(None)?;
        Ok(Self {
            effective: sets.effective,
            permitted: sets.permitted,
        })
    }

    /// From the `CapEff` and `CapPrm` lines of a `/proc/PID/status`.
    pub fn parse(status: &str) -> Option<Self> {
        let set = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key))?;
            Some(CapabilitySet::from_bits_retain(
                u64::from_str_radix(value.trim(), 16).ok()?,
            ))
        };
        Some(Self {
            effective: set("CapEff:")?,
            permitted: set("CapPrm:")?,
        })
    }

    /// Whether it can be used now.
    pub fn has(&self, capability: Capability) -> bool {
        self.effective.contains(capability.bit())
    }

    /// Whether it could be made effective.
    pub fn may_have(&self, capability: Capability) -> bool {
        self.permitted.contains(capability.bit())
    }

    /// Those of `needed` that are not effective.
    pub fn missing(&self, needed: &[Capability]) -> Vec<Capability> {
        needed
            .iter()
            .copied()
            .filter(|&capability| !self.has(capability))
            .collect()
    }
}

/// Gives up all capabilities of the calling thread but these, for good: also those that a program
/// started from it could have gained.
///
/// # Errors
/// The kernel refused; then the thread must not go on with hostile input.
pub fn keep_only(kept: &[Capability]) -> io::Result<()> {
    let kept = kept.iter().fold(CapabilitySet::empty(), |set, capability| {
        set | capability.bit()
    });
    // Not to gain by `execve` what is given up here; for a user id of 0 that is the default.
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let now = capabilities(None)?;
    let kept = CapabilitySets {
        effective: now.effective & kept,
        permitted: now.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, kept)?)
}

#[cfg(test)]
mod tests {
    use super::Capabilities;
    use super::Capability;
    use super::keep_only;

    #[test]
    fn sets_are_read_from_a_status() {
        let status = "Name:\tx\nCapInh:\t0\nCapPrm:\t000000c000080000\nCapEff:\t0000008000080000\n";
        let capabilities = Capabilities::parse(status).unwrap();
        assert!(capabilities.has(Capability::Bpf) && capabilities.has(Capability::SysPtrace));
        assert!(!capabilities.has(Capability::Perfmon));
        assert!(capabilities.may_have(Capability::Perfmon));
        let needed = [Capability::Bpf, Capability::Perfmon, Capability::Syslog];
        let missing = capabilities.missing(&needed);
        assert_eq!(missing, [Capability::Perfmon, Capability::Syslog]);
        assert_eq!(missing[0].to_string(), "CAP_PERFMON");
    }

    #[test]
    fn a_status_without_sets_says_nothing() {
        assert_eq!(Capabilities::parse("Name:\tx\n"), None);
        assert_eq!(Capabilities::parse("CapPrm:\tzz\nCapEff:\t0\n"), None);
    }

    #[test]
    fn a_thread_gives_up_what_is_not_named_and_others_do_not() {
        let before = Capabilities::of_this_thread().unwrap();
        let within = std::thread::spawn(|| {
            let before = Capabilities::of_this_thread().unwrap();
            keep_only(&[Capability::Syslog]).unwrap();
            (before, Capabilities::of_this_thread().unwrap())
        });
        let (started_with, left_with) = within.join().unwrap();
        let kept = [Capability::Syslog];
        for capability in [Capability::Bpf, Capability::SysAdmin, Capability::SysPtrace] {
            assert!(!left_with.has(capability) && !left_with.may_have(capability));
        }
        assert_eq!(left_with.missing(&kept), started_with.missing(&kept));
        assert_eq!(Capabilities::of_this_thread().unwrap(), before);
    }
}
