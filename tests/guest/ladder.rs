// SPDX-License-Identifier: Apache-2.0
//! `lacuna ladder` where it takes a machine of one's own: a CPU limit by control groups of version 2, and
//! delay accounting, which is switched on for a whole machine.
//!
//! A guest's window is longer than what was asked for, so everything is compared within the report.

use std::process::Command;

use serde_json::Value;

use crate::machine::Machine;
use crate::machine::Setting;
use crate::machine::output;
use crate::machine::shell;
use crate::program::Program;
use crate::program::lacuna;
use crate::report::ns;
use crate::throttle::Limited;
use crate::throttle::Version;

const SWITCH: &str = "/proc/sys/kernel/task_delayacct";

/// Reads storage past the page cache, for ever, once it has read some.
const READER: &str = "import mmap,os,sys\n\
    file=os.open(sys.argv[1],os.O_RDONLY|os.O_DIRECT)\n\
    room=mmap.mmap(-1,1<<20)\n\
    os.preadv(file,[room],0)\n\
    print(\"reads\",flush=True)\n\
    while True: os.preadv(file,[room],0)";

/// What the ladder says of a process.
fn ladder(pid: u32) -> Value {
    let mut command = lacuna();
    command.args(["ladder", "--format", "json", "--window", "3s", "--pid"]);
    let said = command.arg(pid.to_string()).output().expect("it starts");
    let report: Value = serde_json::from_slice(&said.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&said.stderr)));
    report["processes"][0].clone()
}

fn step<'a>(process: &'a Value, name: &str) -> &'a Value {
    let steps = process["steps"].as_array().expect("steps");
    let step = steps.iter().find(|step| step["name"] == name);
    step.expect("each step is there")
}

#[test]
#[ignore = "only in a guest"]
fn guest_v2_the_ladder_names_the_cpu_limit_of_a_process() {
    let _machine = Machine::alone();
    let limited = Limited::create("lacuna-ladder");
    assert_eq!(limited.version, Version::V2);
    let spinning = Program::start(shell("while :; do :; done", &[]));
    limited.write("cgroup.procs", &spinning.pid().to_string());
    let before_ns = limited.throttled_ns();
    let process = ladder(spinning.pid());
    let most_ns = limited.throttled_ns() - before_ns;
    let throttling = step(&process, "throttling");
    assert_eq!(throttling["verdict"], "cause", "{process:#}");
    assert_eq!(process["conclusion"]["cause"], "throttle", "{process:#}");
    let group = &throttling["values"]["groups"][0];
    assert_eq!(group["cgroup"], "/lacuna-ladder", "{group:#}");
    assert_eq!(group["limit_cpus"], 0.25, "{group:#}");
    let throttled_ns = ns(&group["throttled_ns"]);
    assert!(
        (1..=most_ns).contains(&throttled_ns),
        "{most_ns}: {group:#}"
    );
    // And the pressure of its own group is there, as only version 2 has it.
    let stalls = &step(&process, "pressure")["values"]["stalls"];
    let own = stalls.as_array().expect("stalls").iter();
    let waits = own.filter(|one| one["of"] == "cgroup" && one["resource"] == "cpu");
    assert!(
        waits.map(|one| ns(&one["some_ns"])).sum::<u64>() > 0,
        "{stalls:#}"
    );
}

#[test]
#[ignore = "only in a guest"]
fn guest_v2_delays_are_told_of_processes_that_are_younger_than_the_switch() {
    let _machine = Machine::alone();
    let storage = output(shell(
        "modprobe loop; truncate -s 4M \"$1\" && losetup -f --show \"$1\"",
        &["/dev/shm/lacuna-storage"],
    ));
    let read = || {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", READER, storage.trim()]);
        let reader = Program::start(command);
        reader.line("reads");
        reader
    };
    // Before 5.14 there is no switch, and every thread is counted.
    if std::path::Path::new(SWITCH).exists() {
        let old = read();
        let off = ladder(old.pid());
        let why = step(&off, "delay-accounting")["why"].as_str().expect("why");
        assert!(why.contains("kernel.task_delayacct is 0"), "{why}");
        let _on = Setting::set(SWITCH, "1");
        let on = ladder(old.pid());
        let delays = step(&on, "delay-accounting");
        assert_eq!(delays["verdict"], "not-available", "{on:#}");
        let why = delays["why"].as_str().expect("why");
        assert!(why.contains("older than the switch"), "{why}");
        drop(old);
        assert_delays_of(&read());
    } else {
        assert_delays_of(&read());
    }
    output(shell(
        "losetup -d \"$1\"; rm \"$2\"",
        &[storage.trim(), "/dev/shm/lacuna-storage"],
    ));
}

/// It waits for storage, and nothing else.
fn assert_delays_of(reader: &Program) {
    let process = ladder(reader.pid());
    let delays = step(&process, "delay-accounting");
    assert_eq!(delays["cause"], "disk.read", "{process:#}");
    let waited_ns = ns(&delays["values"]["block_io_ns"]);
    let window_ns = ns(&process["window_ns"]);
    assert!(waited_ns > window_ns / 100, "{waited_ns} of {window_ns}");
    let read_bytes = &step(&process, "block-io")["values"]["storage_read_bytes"];
    assert!(ns(read_bytes) > 0, "{process:#}");
}
