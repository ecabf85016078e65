// SPDX-License-Identifier: Apache-2.0
//! Commands that end in every way, under real observation: their status is mirrored, and the report
//! is there and adds up. Without observation, and in more detail: `tests/command.rs`.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::program::Program;
use crate::program::lacuna;
use crate::report;
use crate::report::Report;
use crate::report::ns;
use crate::report::run;

#[test]
fn root_a_command_that_cannot_be_run_is_126_or_127() {
    for (command, code, why) in [
        ("/etc", 126, "lacuna: /etc: Permission denied"),
        (
            "/nowhere/at/all",
            127,
            "lacuna: /nowhere/at/all: No such file",
        ),
    ] {
        let mut lacuna = lacuna();
        lacuna.args(["run", "--", command]);
        let (status, said) = Program::start(lacuna).end();
        assert_eq!(status.code(), Some(code), "{said}");
        assert!(said.starts_with(why), "{said}");
    }
}

#[test]
fn root_a_command_that_leaves_a_daemon_is_not_waited_for() {
    let script = "setsid sleep 30 </dev/null >/dev/null 2>&1 & echo daemon $!; exit 7";
    let ran = run(&[], &["bash", "-c", script]);
    let daemon = ran
        .said
        .strip_prefix("daemon ")
        .and_then(|pid| pid.trim().parse().ok());
    let daemon = daemon
        .and_then(rustix::process::Pid::from_raw)
        .expect("its pid");
    rustix::process::kill_process(daemon, Signal::KILL).expect("it outlived its parent");

    assert_eq!(ran.status.code(), Some(7), "{}", ran.said);
    assert_eq!(ran.report.0["exit_status"], 7);
    assert!(ns(&ran.report.0["wall_ns"]) < 25_000_000_000);
    let pid = daemon.as_raw_nonzero().get();
    let is_daemon = |thread: &&serde_json::Value| thread["pid"] == pid;
    assert!(ran.report.threads().iter().any(|thread| is_daemon(&thread)));
}

#[test]
fn root_a_command_that_is_killed_takes_lacuna_along_and_is_reported() {
    let ran = run(&[], &["bash", "-c", "kill -KILL $$"]);
    assert_eq!(ran.status.signal(), Some(Signal::KILL.as_raw()));
    assert_eq!(ran.report.0["exit_status"], 128 + Signal::KILL.as_raw());
}

#[test]
fn root_a_signal_is_passed_on_and_the_report_still_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("report.json");
    let script = "trap 'exit 42' TERM; echo ready; while :; do read -r -t 0.01; done";
    let words = ["bash", "-c", script];
    let mut running = Program::start(report::command(&file, &[], &words));
    running.line("ready");
    running.signal(Signal::TERM);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(42), "{said}");
    assert_eq!(Report::read(&file, &said).0["exit_status"], 42);
}

#[test]
fn root_a_command_with_200_threads_is_reported_thread_by_thread() {
    let script = "
import threading, time
threads = [threading.Thread(target=time.sleep, args=(0.5,)) for _ in range(200)]
for thread in threads: thread.start()
for thread in threads: thread.join()
";
    let ran = run(&[], &["python3", "-c", script]);
    assert!(ran.status.success(), "{}", ran.said);
    let slept = |thread: &&serde_json::Value| {
        let causes = thread["causes"].as_array().expect("causes");
        let sleep = causes.iter().find(|cause| cause["cause"] == "wait.sleep");
        // The deadline is an instant: who comes late to its sleep sleeps less.
        sleep.is_some_and(|cause| ns(&cause["ns"]) >= 100_000_000)
    };
    let sleepers: Vec<_> = ran.report.threads().iter().filter(slept).collect();
    assert_eq!(sleepers.len(), 200, "{:#}", ran.report.0);
    let tids: BTreeSet<u64> = sleepers.iter().map(|thread| ns(&thread["tid"])).collect();
    assert_eq!(tids.len(), 200);
}

#[test]
fn root_faults_are_those_that_the_kernel_counts() {
    let script = "
import os
pid = os.posix_spawn('/bin/true', ['true'], {})
usage = os.wait4(pid, 0)[2]
print('child', pid, usage.ru_minflt, usage.ru_majflt)
";
    let ran = run(&[], &["python3", "-c", script]);
    let line = ran
        .said
        .lines()
        .find_map(|line| line.strip_prefix("child "));
    let words = line.expect("it says").split(' ').map(str::parse);
    let own: Vec<u64> = words.map(|word| word.expect("a number")).collect();
    let is_child = |thread: &&serde_json::Value| ns(&thread["tid"]) == own[0];
    let child = ran
        .report
        .threads()
        .iter()
        .find(is_child)
        .expect("the child");
    let faults = &child["faults"];
    assert_eq!(
        (ns(&faults["minor"]), ns(&faults["major"])),
        (own[1], own[2])
    );
}

#[test]
fn root_a_command_begins_after_it_was_let_go() {
    // It never waits, so nothing but the way in could.
    let ran = run(&[], &["true"]);
    let causes = ran.report.0["total"]["causes"].as_array().expect("causes");
    let waits = |cause: &&serde_json::Value| cause["cause"].as_str() == Some("wait.pipe");
    assert!(causes.iter().find(waits).is_none(), "{:#}", ran.report.0);
}
