// SPDX-License-Identifier: Apache-2.0
//! Pressure stall information: for how long some, or all, threads of the host or of a control group
//! waited for CPU, memory or storage.
//!
//! The files of the host are `/proc/pressure/{cpu,memory,io}`, those of a group `cpu.pressure` and so
//! on in its directory (version 2 only). They say of nobody which thread waited, and a group's include
//! those of the groups below it. Off by default on some kernels: then reading says so (`EOPNOTSUPP`).

use crate::root::Root;
use std::io;
use std::path::Path;

/// Sums since boot, or since the group was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pressure {
    /// Time in which at least one thread waited, nanoseconds.
    pub some_ns: u64,
    /// Time in which every thread that was not idle waited, nanoseconds; 0 where the kernel does not
    /// tell it (CPU before 5.13).
    pub full_ns: u64,
}

impl Pressure {
    /// Of the host; `resource` is `cpu`, `memory` or `io`.
    ///
    /// # Errors
    /// The kernel has no such file, or it is switched off.
    pub fn of_host(root: &Root, resource: &str) -> io::Result<Self> {
        Self::read(root, Path::new(&format!("/proc/pressure/{resource}")))
    }

    /// From a file.
    ///
    /// # Errors
    /// It is not there, or it is switched off.
    pub fn read(root: &Root, file: &Path) -> io::Result<Self> {
        let unclear = || io::Error::new(io::ErrorKind::InvalidData, "not in a known form");
        Self::parse(&root.read(file)?).ok_or_else(unclear)
    }

    /// `some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS`, and the same with `full`.
    pub fn parse(text: &str) -> Option<Self> {
        let total_ns = |kind: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
            let total_us: u64 = line.rsplit_once("total=")?.1.trim().parse().ok()?;
            Some(total_us.saturating_mul(1_000))
        };
        Some(Self {
            some_ns: total_ns("some ")?,
            full_ns: total_ns("full ").unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Pressure;
    use crate::mutate::mutations;
    use crate::root::Root;

    /// 5.10 has no `full` line for the CPU.
    const CPU_5_10: &str = "some avg10=19.60 avg60=32.62 avg300=20.83 total=11659972972\n";
    const MEMORY: &str = "some avg10=0.51 avg60=2.55 avg300=2.18 total=292\n\
        full avg10=0.15 avg60=1.76 avg300=1.75 total=103\n";

    #[test]
    fn totals_are_read_in_both_forms() {
        let cpu = Pressure::parse(CPU_5_10).unwrap();
        assert_eq!((cpu.some_ns, cpu.full_ns), (11_659_972_972_000, 0));
        let memory = Pressure::parse(MEMORY).unwrap();
        assert_eq!((memory.some_ns, memory.full_ns), (292_000, 103_000));
        for text in [
            "",
            "some",
            "some avg10=0.00",
            "some total=x",
            "full total=1",
        ] {
            assert_eq!(Pressure::parse(text), None, "{text:?}");
        }
        assert!(Pressure::of_host(&Root::at("/nowhere"), "cpu").is_err());
    }

    #[test]
    fn no_text_makes_the_parser_fail() {
        let known = mutations(MEMORY).filter_map(|text| Pressure::parse(&text));
        assert!(known.count() > 100, "some are still good");
    }
}
