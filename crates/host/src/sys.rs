// SPDX-License-Identifier: Apache-2.0
//! Facts about the kernel that runs: version, BTF, lockdown, accounting, limits.
//!
//! All through files below a [`Root`], so that tests can present kernels that they do not run on.
//! A fact that cannot be read is `None`, never a guess.

use crate::root::Root;
use rustix::process::Resource;
use rustix::process::getrlimit;
use std::fmt;

/// A kernel's version; compares by age.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KernelVersion {
    /// 6 of `6.18.44-1-amd64`.
    pub major: u32,
    /// 18.
    pub minor: u32,
    /// 44; 0 if it is not told.
    pub patch: u32,
    /// All of it.
    pub release: Box<str>,
}

impl KernelVersion {
    /// From `/proc/sys/kernel/osrelease`.
    pub fn read(root: &Root) -> Option<Self> {
        Self::parse(root.read("/proc/sys/kernel/osrelease").ok()?.trim())
    }

    /// `MAJOR.MINOR[.PATCH][-ANYTHING]`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
        let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let patch = numbers
            .next()
            .and_then(|patch| patch.parse().ok())
            .unwrap_or(0);
        Some(Self {
            major,
            minor,
            patch,
            release: release.into(),
        })
    }

    /// Whether it is that version or a later one.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.release)
    }
}

/// How far the kernel is locked down against its own root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// The running kernel may not be changed.
    Integrity,
    /// Nor may its memory be read: BPF programs may not read kernel memory.
    Confidentiality,
}

impl Lockdown {
    /// From `/sys/kernel/security/lockdown`; `None` where that is not mounted or not built in.
    pub fn read(root: &Root) -> Option<Self> {
        Self::parse(&root.read("/sys/kernel/security/lockdown").ok()?)
    }

    /// `none [integrity] confidentiality`: the one in brackets holds.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once('[')?;
        match rest.split_once(']')?.0 {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }

    /// The kernel's own word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

/// Whether the kernel describes its own types, which the probes need to find their fields.
pub fn has_btf(root: &Root) -> bool {
    root.exists("/sys/kernel/btf/vmlinux")
}

/// The id of this boot; recordings of two boots never mix.
pub fn boot_id(root: &Root) -> Option<Box<str>> {
    Some(
        root.read("/proc/sys/kernel/random/boot_id")
            .ok()?
            .trim()
            .into(),
    )
}

/// `kernel.task_delayacct`: whether per-thread delays are counted; `None` where not built in.
pub fn delay_accounting(root: &Root) -> Option<bool> {
    Some(root.read("/proc/sys/kernel/task_delayacct").ok()?.trim() != "0")
}

/// Whether pressure stall information can be read (it may be built in and off).
pub fn has_psi(root: &Root) -> bool {
    root.read("/proc/pressure/cpu").is_ok()
}

/// Whether a thread's time on CPUs and in run queues is counted.
pub fn has_schedstat(root: &Root) -> bool {
    root.read("/proc/self/schedstat").is_ok()
}

/// What the kernel's clocks are computed from: `tsc`, `kvm-clock`, `hpet`, ...
pub fn clock_source(root: &Root) -> Option<Box<str>> {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    Some(root.read(path).ok()?.trim().into())
}

/// How much memory this process may lock, bytes; `None`: without limit.
pub fn memlock_limit() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// The controllers that the kernel was built with and that are on, from `/proc/cgroups`.
pub fn cgroup_controllers(root: &Root) -> Vec<Box<str>> {
    let text = root.read("/proc/cgroups").unwrap_or_default();
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[name, .., "1"] = fields.as_slice() else {
            return None;
        };
        Some(name.into())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::KernelVersion;
    use super::Lockdown;

    #[test]
    fn versions_compare_by_number_and_keep_their_release() {
        let old = KernelVersion::parse("4.19.0-27-amd64").unwrap();
        let new = KernelVersion::parse("6.18.44-fc-v657").unwrap();
        assert!(old < new && new.at_least(6, 18) && !new.at_least(6, 19) && !old.at_least(5, 10));
        assert_eq!((new.major, new.minor, new.patch), (6, 18, 44));
        assert_eq!(new.to_string(), "6.18.44-fc-v657");
        assert_eq!(
            KernelVersion::parse("7.2-rc1").unwrap().patch,
            0,
            "rc is no patch level"
        );
    }

    #[test]
    fn what_is_no_version_is_none() {
        for text in ["", "6", "six.one", "6.", ".1", "99999999999.1"] {
            assert_eq!(KernelVersion::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_lockdown_in_brackets_holds() {
        assert_eq!(
            Lockdown::parse("[none] integrity confidentiality\n"),
            Some(Lockdown::None)
        );
        assert_eq!(
            Lockdown::parse("none [integrity] confidentiality"),
            Some(Lockdown::Integrity)
        );
        let strictest = Lockdown::parse("none integrity [confidentiality]").unwrap();
        assert!(strictest > Lockdown::Integrity);
        for text in ["", "none", "[", "[none", "[unheard-of]"] {
            assert_eq!(Lockdown::parse(text), None, "{text:?}");
        }
    }
}
