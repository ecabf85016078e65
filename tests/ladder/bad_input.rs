// SPDX-License-Identifier: Apache-2.0
//! Who cannot be looked at, or only in part: a clear message, the right exit status, and no verdict that
//! rests on nothing. What needs no process at all is in tests/cli.rs.

use std::process::Command;
use std::process::Output;

use rustix::process::Signal;

use crate::program::as_nobody;
use crate::program::lacuna;
use crate::until;
use crate::worker::Worker;
use crate::worker::ladder;
use crate::worker::ladder_by;

const SHORT_MS: u64 = 600;

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn a_thread_of_the_kernel_is_refused() {
    // kthreadd is 2 wherever it can be seen at all.
    let comm = std::fs::read_to_string("/proc/2/comm").expect("a host, not a PID namespace");
    assert_eq!(comm, "kthreadd\n");
    let output = lacuna()
        .args(["ladder", "--pid", "2"])
        .output()
        .expect("lacuna starts");
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    assert!(
        said.contains("2 is kthreadd, a thread of the kernel"),
        "{said}"
    );
}

#[test]
fn a_process_that_ends_within_the_window_is_said_at_once() {
    let worker = Worker::start(&[], "idle", &[]);
    let mut command = lacuna();
    command.args([
        "ladder",
        "--window",
        "1h",
        "--pid",
        &worker.pid().to_string(),
    ]);
    let mut ladder = crate::program::Program::start(command);
    ladder.line("python3 (pid ");
    // Until it has begun to look, an ended process is one that does not exist: it says so, too.
    let looks = || {
        let children = std::fs::read_dir(format!("/proc/{}/fd", ladder.pid())).ok()?;
        let links = children.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let pidfd = |link: &std::path::PathBuf| link.to_string_lossy().contains("pidfd");
        links.into_iter().any(|link| pidfd(&link)).then_some(())
    };
    until("that it looks", looks);
    drop(worker);
    let (status, said) = ladder.end();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("ended within the window"), "{said}");
    assert!(said.contains("take a shorter --window"), "{said}");
    assert!(!said.contains("=>"), "no conclusion: {said}");
}

#[test]
fn a_process_that_nobody_takes_away_has_ended_all_the_same() {
    let worker = Worker::start(&[], "idle", &[]);
    let pid = worker.pid().to_string();
    let begin = || {
        let mut command = lacuna();
        command.args(["ladder", "--window", "1h", "--pid", &pid]);
        crate::program::Program::start(command)
    };
    let mut ladder = begin();
    ladder.line("python3 (pid ");
    worker.signal(Signal::KILL);
    let (status, said) = ladder.end();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("ended"), "{said}");
    // Whoever comes later is told that there is nothing to look at.
    let (status, said) = begin().end();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("has ended; only its parent"), "{said}");
    let mut events = lacuna();
    events.args(["events", "--for", "1h", "--pid", &pid]);
    let (status, said) = crate::program::Program::start(events).end();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("has ended; only its parent"), "{said}");
}

#[test]
fn root_what_the_machine_does_not_count_is_said() {
    let worker = Worker::start(&[], "idle", &[]);
    let answer = ladder(worker.pid(), SHORT_MS);
    let step = answer.step("perf-counters");
    let why = step["why"].as_str().expect("why");
    let counted = step["values"]["perf_cycles"].is_u64();
    assert_eq!(step["values"]["hardware_counters"], counted, "{step}");
    assert_ne!(counted, why.contains("hardware counters"), "{step}");
}

#[test]
fn the_process_of_a_thread_is_meant() {
    let crowd = Worker::start(&[], "crowd", &["3"]);
    crowd.line("all");
    let pid = crowd.pid();
    let thread = until("a thread", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let tids = tasks.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        tids.into_iter().find(|tid: &u32| *tid != pid)
    });
    let answer = ladder(thread, 50);
    assert_eq!(answer.report["pid"], pid);
    let threads = &answer.step("context-switches")["values"]["threads"];
    assert_eq!(threads, 3);
}

#[test]
fn a_stopped_process_is_stuck_and_says_by_whom() {
    let worker = Worker::start(&[], "idle", &[]);
    worker.signal(Signal::STOP);
    until("that it stops", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.pid())).ok()?;
        stat.contains(") T ").then_some(())
    });
    let answer = ladder(worker.pid(), SHORT_MS);
    assert_eq!((answer.cause(), answer.status), ("wait.stopped", 1));
    assert_eq!(answer.verdict("stuck-threads"), "cause");
}

#[test]
fn steps_are_in_their_order_and_every_void_source_says_why() {
    let worker = Worker::start(&[], "idle", &[]);
    let answer = ladder(worker.pid(), SHORT_MS);
    let steps = answer.report["steps"].as_array().expect("steps");
    let names: Vec<&str> = steps
        .iter()
        .filter_map(|step| step["name"].as_str())
        .collect();
    let order = ["context-switches", "throttling", "tcp", "perf-counters"];
    assert_eq!(names[..4], order);
    assert_eq!(names.len(), 10);
    for (place, step) in (1..).zip(steps) {
        assert_eq!(step["step"], place);
        assert!(
            step["why"].as_str().is_some_and(|why| !why.is_empty()),
            "{step}"
        );
        if step["verdict"] == "not-available" {
            assert!(
                step["next"].as_str().is_some_and(|next| !next.is_empty()),
                "{step}"
            );
        }
    }
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/task_delayacct");
    if sysctl.is_ok_and(|text| text.trim() == "0") {
        assert_eq!(answer.verdict("delay-accounting"), "not-available");
        let step = answer.step("delay-accounting");
        assert!(
            step["why"]
                .as_str()
                .unwrap()
                .contains("kernel.task_delayacct is 0")
        );
        assert_eq!(answer.report["conclusion"]["sure"], "unclear");
    }
}

#[test]
fn root_of_another_users_process_is_said_what_can_be_said() {
    let worker = Worker::start(&[], "spin", &[]);
    let answer = ladder_by(as_nobody(lacuna()), worker.pid(), SHORT_MS);
    for void in ["tcp", "perf-counters", "block-io", "delay-accounting"] {
        assert_eq!(answer.verdict(void), "not-available", "{:#}", answer.report);
    }
    let why = answer.step("tcp")["why"].as_str().expect("why");
    assert!(why.contains("it is the process of user 0"), "{why}");
    // Switches, run-queue delay, limits, memory events and stuck threads are everybody's to read.
    for known in [
        "context-switches",
        "throttling",
        "run-queue",
        "memory",
        "stuck-threads",
    ] {
        assert_ne!(
            answer.verdict(known),
            "not-available",
            "{:#}",
            answer.report
        );
    }
    let values = &answer.step("run-queue")["values"];
    assert!(
        values["on_cpu_ns"].as_u64().is_some_and(|ns| ns > 0),
        "{values}"
    );
    assert!(answer.step("tcp")["values"]["namespace_retransmits"].is_u64());
}

#[test]
fn root_a_user_is_told_everything_of_a_process_of_his_own_but_what_needs_root() {
    let through = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    let listener = "import socket,time\ns=socket.create_server((\"127.0.0.1\",0))\n\
        print(\"port\",s.getsockname()[1],flush=True)\ntime.sleep(3600)";
    let mut command = Command::new(through[0]);
    // The distribution's, which every user may run.
    command.args(&through[1..]);
    command.args(["/usr/bin/python3", "-c", listener]);
    let server = crate::program::Program::start(command);
    let port = server.line("port ");
    let mut command = as_nobody(lacuna());
    let output = command
        .args([
            "ladder", "--format", "json", "--window", "50ms", "--port", &port,
        ])
        .output()
        .expect("lacuna starts");
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let process = &report["processes"][0];
    assert_eq!(process["pid"], server.pid());
    let step = |at: usize| &process["steps"][at];
    assert_eq!(step(2)["verdict"], "ok", "its own sockets: {process:#}");
    assert_eq!(step(7)["verdict"], "ok", "its own bytes: {process:#}");
    assert_eq!(step(3)["verdict"], "not-available", "perf: {process:#}");
    assert!(
        step(3)["why"]
            .as_str()
            .unwrap()
            .contains("perf_event_paranoid")
    );
    assert_eq!(step(3)["values"]["major_faults"], 0);
}

/// The processes that are looked at by that option.
fn looked_at(option: &str, value: &str) -> Vec<u32> {
    let output = lacuna()
        .args(["ladder", "--format", "json", "--window", "50ms"])
        .args([option, value])
        .output()
        .expect("lacuna starts");
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let processes = report["processes"].as_array().expect("processes");
    let pid = |process: &serde_json::Value| process["pid"].as_u64()?.try_into().ok();
    let mut pids: Vec<u32> = processes.iter().filter_map(pid).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn every_process_that_is_meant_is_looked_at() {
    // One socket, two processes that may accept from it, as a server has that forks its workers.
    let script = "import os,socket,time\n\
        open(\"/proc/self/comm\",\"w\").write(\"lacuna-%d\" % os.getpid())\n\
        s=socket.create_server((\"127.0.0.1\",0))\n\
        ending,held=os.pipe()\n\
        child=os.fork()\n\
        if not child:\n\x20 os.close(held); os.read(ending,1); os._exit(0)\n\
        print(\"child\",child,s.getsockname()[1],flush=True)\n\
        time.sleep(3600)";
    let mut command = Command::new("python3");
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.args(["-c", script]);
    let server = crate::program::Program::start(command);
    let line = server.line("child ");
    let (child, port) = line.split_once(' ').expect("two numbers");
    let mut both = [server.pid(), child.parse().expect("a pid")];
    both.sort_unstable();
    assert_eq!(looked_at("--port", port), both);
    assert_eq!(
        looked_at("--comm", &format!("lacuna-{}", server.pid())),
        both
    );
}

#[test]
fn root_in_a_pid_namespace_processes_have_their_own_numbers() {
    let script = "sleep 3600 & \"$0\" ladder --format json --window 600ms --pid $!; kill $!";
    let mut command = Command::new("unshare");
    command.args([
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        script,
    ]);
    let output = command.arg(lacuna().get_program()).output();
    let output = output.expect("unshare");
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let process = &report["processes"][0];
    // The shell is 1 there.
    assert_eq!(
        (&process["pid"], &process["comm"]),
        (&2.into(), &"sleep".into())
    );
    let values = |at: usize| &process["steps"][at]["values"];
    assert_eq!(values(0)["threads"], 1, "{process:#}");
    assert_eq!(values(3)["perf_threads"], 1, "{process:#}");
    assert_eq!(process["steps"][9]["verdict"], "ok", "{process:#}");
    let next = process["conclusion"]["next"].as_str().expect("a command");
    assert!(next.contains("--watch pid:2"), "{next}");
}
