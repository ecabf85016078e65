// SPDX-License-Identifier: Apache-2.0
//! The host's own memory: compaction and direct reclaim, which only a machine that nobody else needs can
//! be brought to. A cgroup's limit can be met anywhere: `crates/probes/tests/memory.rs`.

use std::fs;
use std::fs::File;
use std::io;

use serde_json::Value;

use crate::machine::Machine;
use crate::machine::Setting;
use crate::machine::read;
use crate::report::Ran;
use crate::report::ns;
use crate::report::run;

/// Pages of files that are read into memory, so that there is something to reclaim, MiB.
const CACHE_MIB: u64 = 256;
/// How much the program then uses of memory that the kernel wants to keep free, MiB.
const USED_MIB: u64 = 64;

/// The sum of the kernel's counters whose names begin so.
fn counted(name: &str) -> u64 {
    let text = read("/proc/vmstat");
    let rows = text.lines().filter(|line| line.starts_with(name));
    let values = rows.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

/// A row of `/proc/meminfo`, KiB.
fn kib(name: &str) -> u64 {
    let text = read("/proc/meminfo");
    let row = text.lines().find_map(|line| line.strip_prefix(name));
    let number = row.and_then(|row| row.split_whitespace().nth(1)?.parse().ok());
    number.expect(name)
}

fn python(script: &str) -> Ran {
    let ran = run(&[], &["/usr/bin/python3", "-c", script]);
    assert!(ran.status.success(), "{}", ran.said);
    ran
}

fn cause<'a>(ran: &'a Ran, name: &str) -> &'a Value {
    let causes = ran.report.0["total"]["causes"].as_array().expect("causes");
    let cause = causes.iter().find(|cause| cause["cause"] == name);
    cause.unwrap_or_else(|| panic!("no {name}: {:#}", ran.report.0))
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_compaction_takes_as_long_as_who_asked_for_it_says() {
    let _machine = Machine::alone();
    let before = counted("compact_migrate_scanned ");
    let ran = python(
        "
import time
control = open('/proc/sys/vm/compact_memory', 'w')
control.write('1')
begun = time.monotonic_ns()
control.flush()
print('took', time.monotonic_ns() - begun)
",
    );
    assert!(counted("compact_migrate_scanned ") > before);
    let took = ran.said.lines().find_map(|line| line.strip_prefix("took "));
    let took: u64 = took
        .and_then(|took| took.parse().ok())
        .expect("its own clock");
    let compaction = cause(&ran, "mem.compaction");
    let state = &compaction["state"];
    assert_eq!(state["runnable_ns"], 0, "{compaction:#}");
    // Before it, the pages that each CPU has at hand are handed over; within it, it may be preempted.
    let told = ns(&compaction["ns"]);
    eprintln!("compaction {told} ns, by its own clock {took} ns");
    assert!(told <= took, "{took}: {compaction:#}");
    assert!(told > took / 4, "{took}: {:#}", ran.report.0);
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_direct_reclaim_is_told_where_the_kernel_counts_it() {
    let _machine = Machine::alone();
    fill_cache();
    let stalls = counted("allocstall_");
    let kept = kib("MemFree:") + (USED_MIB << 10);
    let ran = {
        let _scarce = Setting::set("/proc/sys/vm/min_free_kbytes", &kept.to_string());
        python(&format!(
            "
import mmap
room = mmap.mmap(-1, {USED_MIB} << 20)
for page in range(0, len(room), 4096): room[page] = 1
"
        ))
    };
    let stalls = counted("allocstall_") - stalls;
    assert!(stalls > 0, "memory was not scarce");
    let reclaim = cause(&ran, "mem.reclaim");
    eprintln!("{stalls} times, {reclaim}");
    assert!(ns(&reclaim["ns"]) > 0, "{stalls}: {reclaim:#}");
    assert_eq!(reclaim["state"]["runnable_ns"], 0, "{reclaim:#}");
}

/// Reads the programs that lie beside this one.
fn fill_cache() {
    let own = std::env::current_exe().expect("its path");
    let folder = own.parent().expect("a folder");
    let mut bytes = 0;
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if bytes >= CACHE_MIB << 20 {
            return;
        }
        let file = File::open(entry.path()).expect("readable");
        let mut file = io::BufReader::with_capacity(1 << 20, file);
        bytes += io::copy(&mut file, &mut io::sink()).unwrap_or(0);
    }
}
