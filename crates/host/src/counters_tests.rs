// SPDX-License-Identifier: Apache-2.0
//! Counters in the words of several kernels, in hostile words, and those of this very process, held
//! against what it has just done.

use super::Faults;
use super::Io;
use super::Switches;
use super::Tcp;
use super::grown;
use super::migrations;
use super::migrations_of;
use crate::mutate::mutations;
use crate::process::ProcessError;
use crate::root::Root;
use std::io::Read;
use std::process::Command;
use std::time::Duration;

/// The files of one process, as a kernel told them: `===== NAME`, then its text. The process had set
/// its own name to `a) R 1 (`, the end of a line, and `b c`.
struct Kernel {
    release: &'static str,
    files: &'static str,
    switches: (u64, u64),
    faults: (u64, u64),
    io: (u64, u64, u64, u64),
    migrations: u64,
    tcp: (u64, u64, u64),
}

const KERNELS: [Kernel; 4] = [
    Kernel {
        release: "5.10",
        files: include_str!("fixtures/counters/5.10.txt"),
        switches: (826, 13),
        faults: (2_911, 101),
        io: (721, 31, 0, 0),
        migrations: 9,
        tcp: (0, 0, 0),
    },
    Kernel {
        release: "6.1",
        files: include_str!("fixtures/counters/6.1.txt"),
        switches: (1_204, 30),
        faults: (2_837, 101),
        io: (722, 31, 0, 0),
        migrations: 4,
        tcp: (0, 0, 0),
    },
    Kernel {
        release: "6.18",
        files: include_str!("fixtures/counters/6.18.txt"),
        switches: (31, 28),
        faults: (2_928, 4),
        io: (949, 47, 339_968, 4_096),
        migrations: 8,
        tcp: (4_600_460, 4_588_895, 1_886),
    },
    Kernel {
        release: "7.2",
        files: include_str!("fixtures/counters/7.2.txt"),
        switches: (1_191, 13),
        faults: (2_807, 87),
        io: (722, 31, 0, 0),
        migrations: 7,
        tcp: (0, 0, 0),
    },
];

impl Kernel {
    fn file(&self, name: &str) -> &str {
        let (_, rest) = self.files.split_once(&format!("===== {name}\n")).unwrap();
        rest.split("=====").next().unwrap()
    }
}

#[test]
fn every_kernel_is_read_whatever_a_process_calls_itself() {
    for kernel in &KERNELS {
        let switches = Switches::parse(kernel.file("status")).unwrap();
        let faults = Faults::parse(kernel.file("stat")).unwrap();
        let io = Io::parse(kernel.file("io")).unwrap();
        let tcp = Tcp::parse(kernel.file("net/snmp")).unwrap();
        let read = (
            (switches.voluntary, switches.involuntary),
            (faults.minor, faults.major),
            (
                io.read_calls,
                io.write_calls,
                io.read_bytes,
                io.written_bytes,
            ),
            migrations_of(kernel.file("sched")).unwrap(),
            (tcp.segments_in, tcp.segments_out, tcp.retransmits),
        );
        let told = (
            kernel.switches,
            kernel.faults,
            kernel.io,
            kernel.migrations,
            kernel.tcp,
        );
        assert_eq!(read, told, "{}", kernel.release);
    }
}

#[test]
fn what_a_kernel_does_not_count_is_none() {
    for text in [
        "",
        "voluntary_ctxt_switches:\t1\n",
        "voluntary_ctxt_switches:\t\nnonvoluntary_ctxt_switches:\t1\n",
    ] {
        assert_eq!(Switches::parse(text), None, "{text:?}");
    }
    for text in [
        "",
        "1 (x",
        "1 (x) S 1 2 3 4 5 6 7 8",
        "1 (x) S 1 2 3 4 5 6 -7 8 9 10",
    ] {
        assert_eq!(Faults::parse(text), None, "{text:?}");
    }
    for text in [
        "",
        "syscr: 1\nsyscw: 2\nread_bytes: 3\n",
        "syscr: x\nsyscw: 2\nread_bytes: 3\nwrite_bytes: 4\n",
    ] {
        assert_eq!(Io::parse(text), None, "{text:?}");
    }
    for text in [
        "",
        "Tcp: InSegs OutSegs RetransSegs\n",
        "Tcp: InSegs OutSegs\nTcp: 1 2\n",
        "Tcp: InSegs OutSegs RetransSegs\nTcp: 1 2\n",
    ] {
        assert_eq!(Tcp::parse(text), None, "{text:?}");
    }
    for text in [
        "",
        "se.nr_migrations\n",
        "se.nr_migrations : x",
        "xse.nr_migrations : 1",
    ] {
        assert_eq!(migrations_of(text), None, "{text:?}");
    }
}

#[test]
fn names_of_tcp_counters_may_stand_in_any_order() {
    let tcp = Tcp::parse("Tcp: RetransSegs New OutSegs InSegs\nTcp: 1 2 3 18446744073709551615\n");
    let tcp = tcp.unwrap();
    assert_eq!(
        (tcp.segments_in, tcp.segments_out, tcp.retransmits),
        (u64::MAX, 3, 1)
    );
}

#[test]
fn counters_wrap_and_other_counters_are_refused() {
    assert_eq!(grown(7, 7), Some(0));
    assert_eq!(grown(7, 12), Some(5));
    assert_eq!(grown(u64::MAX - 1, 3), Some(5));
    assert_eq!(grown(12, 7), None);
    assert_eq!(grown(0, u64::MAX), None);
}

#[test]
fn no_text_makes_the_parsers_fail() {
    let newest = &KERNELS[KERNELS.len() - 1];
    for text in mutations(newest.file("status")) {
        let _any = Switches::parse(&text);
    }
    for text in mutations(newest.file("stat")) {
        let _any = Faults::parse(&text);
    }
    for text in mutations(newest.file("io")) {
        let _any = Io::parse(&text);
    }
    for text in mutations(newest.file("sched")) {
        let _any = migrations_of(&text);
    }
    let good = mutations(newest.file("net/snmp")).filter_map(|text| Tcp::parse(&text));
    assert!(good.count() > 100, "some are still good");
}

#[test]
fn this_process_is_counted() {
    let root = Root::host();
    let (tgid, tid) = (std::process::id(), rustix::thread::gettid());
    let tid = u32::try_from(tid.as_raw_nonzero().get()).unwrap();
    let look = || {
        (
            Switches::read(&root, tgid, tid).unwrap(),
            Faults::read(&root, tgid).unwrap(),
            Io::read(&root, tgid).unwrap(),
        )
    };
    let before = look();
    let fresh = vec![1_u8; 8 << 20];
    for _ in 0..20 {
        std::thread::sleep(Duration::from_micros(100));
        let mut byte = [0];
        std::fs::File::open("/proc/self/stat")
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
    }
    let after = look();
    assert!(after.0.voluntary - before.0.voluntary >= 20);
    assert!(
        after.1.minor > before.1.minor,
        "{} bytes were touched",
        fresh.len()
    );
    assert!(after.2.read_calls - before.2.read_calls >= 20);
    assert!(Tcp::read(&root, tgid).is_ok());
    let moved = migrations(&root, tgid, tid).unwrap();
    assert_eq!(moved.is_some(), root.exists("/proc/self/sched"));
}

#[test]
fn what_has_ended_is_gone() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let root = Root::host();
    let gone = |error| matches!(error, Some(ProcessError::Gone));
    assert!(gone(Switches::read(&root, pid, pid).err()));
    assert!(gone(Faults::read(&root, pid).err()));
    assert!(gone(Io::read(&root, pid).err()));
    assert!(gone(migrations(&root, pid, pid).err()));
    assert!(gone(Tcp::read(&root, pid).err()));
}

#[test]
fn a_kernel_without_a_file_is_no_thread_that_ended() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::at(base.path());
    std::fs::create_dir_all(base.path().join("proc/7/task/7")).unwrap();
    assert!(matches!(migrations(&root, 7, 7), Ok(None)));
    assert!(matches!(migrations(&root, 7, 8), Err(ProcessError::Gone)));
}
