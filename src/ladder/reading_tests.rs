// SPDX-License-Identifier: Apache-2.0
//! Two readings of made-up hosts: threads that vanish, begin, are replaced and whose counters wrap
//! between them; control groups of version 1, of version 2 and of both.
//!
//! The ids are above any that a kernel gives, so that nothing of this machine is read for them.

use std::path::Path;

use lacuna_host::Root;
use lacuna_host::process::ProcessFacts;
use tempfile::TempDir;

use super::First;
use super::Host;
use crate::ladder::facts::Facts;
use crate::ladder::looks::Looks;

const PID: u32 = 40_000_000;
/// Long before now, in ticks since the host booted; and long after.
const OLD: u64 = 1;
const LATER: u64 = u64::MAX / 4;

fn write(base: &Path, file: &str, text: &str) {
    let file = base.join(file);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

/// What a thread counted: on a CPU, waiting for it, slices; voluntary and involuntary switches.
fn thread(base: &Path, tid: u32, start: u64, counted: [u64; 5]) {
    let [on_cpu, waited, slices, voluntary, involuntary] = counted;
    let directory = format!("proc/{PID}/task/{tid}");
    let file = |name: &str| format!("{directory}/{name}");
    write(
        base,
        &file("schedstat"),
        &format!("{on_cpu} {waited} {slices}\n"),
    );
    let status = format!(
        "Name:\ta b\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t{voluntary}\n\
         nonvoluntary_ctxt_switches:\t{involuntary}\n"
    );
    write(base, &file("status"), &status);
    let stat = format!("{tid} (a) S 1 (b\n) S 1 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 5 0 {start} 0 0\n");
    write(base, &file("stat"), &stat);
}

/// A host with one process, in that group of these mounts.
fn host(mounts: &str, cgroup: &str) -> (TempDir, Root) {
    let base = tempfile::tempdir().unwrap();
    write(base.path(), "proc/self/mountinfo", mounts);
    thread(base.path(), PID, OLD, [100, 50, 10, 5, 1]);
    let directory = format!("proc/{PID}");
    let stat = base.path().join(format!("{directory}/task/{PID}/stat"));
    std::fs::copy(stat, base.path().join(format!("{directory}/stat"))).unwrap();
    let status = format!("Tgid:\t{PID}\nPid:\t{PID}\nUid:\t0\t0\t0\t0\nNSpid:\t{PID}\n");
    write(base.path(), &format!("{directory}/status"), &status);
    write(base.path(), &format!("{directory}/cgroup"), cgroup);
    let root = Root::at(base.path());
    (base, root)
}

/// Reads, lets `change` change the host, and reads again.
fn read_around(root: &Root, change: impl FnOnce()) -> Option<Facts> {
    let process = ProcessFacts::read(root, PID).unwrap();
    let host = Host::look(root.clone());
    let first = First::take(&host, process);
    change();
    first.grow(&host, &Looks::default())
}

#[test]
fn threads_that_vanish_begin_wrap_and_are_replaced_are_told_apart() {
    let (base, root) = host("", "0::/\n");
    let base = base.path();
    let before = [100, 50, 10, 5, 1];
    for tid in [1, 3, 5] {
        thread(base, PID + tid, OLD, before);
    }
    let end = u64::MAX;
    thread(base, PID + 4, OLD, [end - 9, end, end, end - 1, 7]);
    let facts = read_around(&root, || {
        thread(base, PID, OLD, [300, 60, 20, 9, 7]);
        std::fs::remove_dir_all(base.join(format!("proc/{PID}/task/{}", PID + 1))).unwrap();
        thread(base, PID + 2, LATER, [1, 1, 1, 1, 0]);
        // The same number for another thread, which has counted more and less than the one before.
        thread(base, PID + 3, LATER, [900, 900, 900, 900, 900]);
        thread(base, PID + 4, OLD, [10, 4, 2, 1, 7]);
        thread(base, PID + 5, LATER, [1, 1, 1, 1, 0]);
    });
    let mut threads = facts.expect("it lives").threads.expect("threads");
    assert_eq!((threads.started, threads.ended), (3, 3));
    threads.both.sort_by_key(|thread| thread.tid);
    let counted = threads.both.iter().map(|t| {
        assert_eq!(t.comm, "a) S 1 (b\n", "names are what they are");
        let switches = [t.slices, t.voluntary, t.involuntary];
        (t.tid, t.on_cpu_ns, t.run_delay_ns, switches)
    });
    let expected = [(PID, 200, 10, [10, 4, 6]), (PID + 4, 20, 5, [3, 3, 0])];
    assert_eq!(counted.collect::<Vec<_>>(), expected);
}

#[test]
fn a_process_that_ends_between_two_readings_is_none() {
    let (base, root) = host("", "0::/\n");
    let directory = base.path().join(format!("proc/{PID}"));
    assert_eq!(
        read_around(&root, || std::fs::remove_dir_all(directory).unwrap()),
        None
    );
    // Another process has its number by now.
    let (base, root) = host("", "0::/\n");
    let replace = || thread(base.path(), PID, LATER, [1, 1, 1, 1, 1]);
    assert_eq!(read_around(&root, replace), None);
}

const V1: &str = "\
27 25 0:24 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
28 25 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";
const UNIFIED: &str = "26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=";

/// A limit of half a CPU on the group around that of the process, and what it did so far.
fn limit_v1(base: &Path, periods: u64, throttled: u64, failures: u64) {
    for group in ["pods", "pods/payments"] {
        let limited = group == "pods";
        let cpu = |file: &str| format!("sys/fs/cgroup/cpu/{group}/{file}");
        let quota = if limited { "50000\n" } else { "-1\n" };
        write(base, &cpu("cpu.cfs_quota_us"), quota);
        write(base, &cpu("cpu.cfs_period_us"), "100000\n");
        let stat = format!(
            "nr_periods {periods}\nnr_throttled {periods}\nthrottled_time {throttled}000\n"
        );
        write(base, &cpu("cpu.stat"), &stat);
        let memory = |file: &str| format!("sys/fs/cgroup/memory/{group}/{file}");
        write(base, &memory("memory.failcnt"), &format!("{failures}\n"));
        write(base, &memory("memory.oom_control"), "oom_kill 0\n");
        let bytes = if limited {
            "1048576\n"
        } else {
            "9223372036854771712\n"
        };
        write(base, &memory("memory.limit_in_bytes"), bytes);
    }
}

fn limit_v2(base: &Path, periods: u64, throttled: u64, failures: u64) {
    for group in ["pods", "pods/payments"] {
        let limited = group == "pods";
        let file = |file: &str| format!("sys/fs/cgroup/{group}/{file}");
        let quota = if limited {
            "50000 100000\n"
        } else {
            "max 100000\n"
        };
        write(base, &file("cpu.max"), quota);
        let stat = format!(
            "usage_usec 1\nnr_periods {periods}\nnr_throttled {periods}\nthrottled_usec {throttled}\n"
        );
        write(base, &file("cpu.stat"), &stat);
        write(
            base,
            &file("memory.events"),
            &format!("high 0\nmax {failures}\noom_kill 0\n"),
        );
        write(base, &file("memory.high"), "max\n");
        let bytes = if limited { "1048576\n" } else { "max\n" };
        write(base, &file("memory.max"), bytes);
    }
}

fn pressure(base: &Path, directory: &str, suffix: &str, total_us: u64) {
    for resource in ["cpu", "memory", "io"] {
        let file = format!("{directory}/{resource}{suffix}");
        write(base, &file, &format!("{PRESSURE}{total_us}\n"));
    }
}

/// The one group with limits is the one around, and it grew by what was written.
fn assert_limits(facts: &Facts) {
    let [limited] = facts.limits.as_deref().expect("limits") else {
        panic!("one group is limited: {:?}", facts.limits);
    };
    assert_eq!((&*limited.path, limited.cpus), ("/pods", 0.5));
    assert_eq!((limited.periods, limited.throttled_periods), (5, 5));
    assert_eq!(
        limited.throttled_ns, 70_000,
        "within the window, not since boot"
    );
    let [memory] = facts.memory.as_deref().expect("limits") else {
        panic!("one group is limited: {:?}", facts.memory);
    };
    assert_eq!((&*memory.path, memory.max), ("/pods", 4));
    assert_eq!(memory.limit_bytes, Some(1 << 20));
}

#[test]
fn limits_of_version_1_have_no_pressure() {
    let (base, root) = host(V1, "4:cpu:/pods/payments\n3:memory:/pods/payments\n");
    limit_v1(base.path(), 100, 10, 3);
    pressure(base.path(), "proc/pressure", "", 10);
    let facts = read_around(&root, || limit_v1(base.path(), 105, 80, 7)).expect("it lives");
    assert_limits(&facts);
    let stalls = facts.stalls.expect("the host's");
    assert!(stalls.iter().all(|stall| !stall.own_group), "{stalls:?}");
}

#[test]
fn limits_of_version_2_have_pressure_of_their_own() {
    let (base, root) = host(V2, "0::/pods/payments\n");
    write(
        base.path(),
        "sys/fs/cgroup/cgroup.controllers",
        "cpu memory\n",
    );
    limit_v2(base.path(), 100, 10, 3);
    pressure(base.path(), "proc/pressure", "", 10);
    let own = "sys/fs/cgroup/pods/payments";
    pressure(base.path(), own, ".pressure", 10);
    let facts = read_around(&root, || {
        limit_v2(base.path(), 105, 80, 7);
        pressure(base.path(), own, ".pressure", 12);
    });
    let facts = facts.expect("it lives");
    assert_limits(&facts);
    let stalls = facts.stalls.expect("of the group, too");
    let own = stalls.iter().filter(|stall| stall.own_group);
    assert_eq!(own.map(|stall| stall.some_ns).sum::<u64>(), 3 * 2_000);
}

#[test]
fn a_hybrid_host_has_limits_of_version_1_and_pressure_of_version_2() {
    let groups = "4:cpu:/pods/payments\n3:memory:/pods/payments\n0::/pods/payments\n";
    let (base, root) = host(&format!("{V1}{UNIFIED}"), groups);
    write(
        base.path(),
        "sys/fs/cgroup/unified/cgroup.controllers",
        "\n",
    );
    limit_v1(base.path(), 100, 10, 3);
    pressure(base.path(), "proc/pressure", "", 10);
    let own = "sys/fs/cgroup/unified/pods/payments";
    pressure(base.path(), own, ".pressure", 10);
    let facts = read_around(&root, || limit_v1(base.path(), 105, 80, 7)).expect("it lives");
    assert_limits(&facts);
    let stalls = facts.stalls.expect("of the group, too");
    assert_eq!(stalls.iter().filter(|stall| stall.own_group).count(), 3);
}

#[test]
fn what_is_missing_is_void_and_says_what_would_help() {
    let (_base, root) = host("", "0::/\n");
    let facts = read_around(&root, || ()).expect("it lives");
    let fix = facts.stalls.expect_err("no PSI").fix;
    assert_eq!(fix, "boot with psi=1");
    assert!(
        facts
            .limits
            .expect_err("no mounts")
            .why
            .contains("cpu controller")
    );
    assert!(
        facts
            .delays
            .expect_err("no such kernel")
            .why
            .contains("delay accounting")
    );
    assert!(facts.tcp.is_err() && facts.io.is_err() && facts.memory.is_err());
    assert!(facts.threads.is_ok() && facts.counters.is_ok());
}
