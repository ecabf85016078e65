// SPDX-License-Identifier: Apache-2.0
//! What is left behind when the agent or `run` ends, politely or not: nothing in the kernel.
//!
//! Programs, maps and links live as long as somebody holds them. So their numbers are read while the
//! program under test lives, and after its end no process of the host may hold any of them, and none
//! may be pinned.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use rustix::process::Signal;

use crate::agent::Agent;
use crate::program::Program;
use crate::report;
use crate::report::Report;
use crate::until;

/// Kinds of objects by the word that names them in `/proc/PID/fdinfo`.
const KINDS: [&str; 3] = ["prog_id:", "map_id:", "link_id:"];

/// What of the kernel that process holds: kind and number.
fn held_by(process: &Path) -> BTreeSet<(&'static str, u32)> {
    let mut held = BTreeSet::new();
    // A process may end while it is looked at, and then holds nothing.
    for entry in fs::read_dir(process.join("fdinfo"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines() {
            let kind = KINDS.iter().find(|kind| line.starts_with(**kind));
            let number = line
                .split_whitespace()
                .nth(1)
                .and_then(|word| word.parse().ok());
            held.extend(kind.copied().zip(number));
        }
    }
    held
}

/// What the process holds, which must be something of each kind.
fn held_by_pid(pid: u32) -> BTreeSet<(&'static str, u32)> {
    let held = held_by(Path::new(&format!("/proc/{pid}")));
    for kind in KINDS {
        assert!(
            held.iter().any(|one| one.0 == kind),
            "no {kind} in {held:?}"
        );
    }
    held
}

/// Waits until no process of this host holds any of these.
#[track_caller]
fn assert_gone(ours: &BTreeSet<(&'static str, u32)>) {
    until("the kernel is rid of its programs", || {
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let mut held = processes.flat_map(|entry| held_by(&entry.path()));
        (!held.any(|one| ours.contains(&one))).then_some(())
    });
    let pins = fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten();
    let names: Vec<_> = pins.map(|entry| entry.file_name()).collect();
    let is_ours = |name: &std::ffi::OsString| name.to_string_lossy().contains("lacuna");
    assert!(!names.iter().any(is_ours), "pinned: {names:?}");
}

#[test]
fn root_an_agent_that_is_told_to_end_leaves_nothing() {
    let mut agent = Agent::start();
    let held = held_by_pid(agent.pid());
    assert!(agent.socket().exists());
    let status = agent.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{}", agent.said());
    assert!(!agent.socket().exists(), "the socket is left");
    assert_gone(&held);
}

#[test]
fn root_an_agent_that_is_killed_leaves_a_socket_that_the_next_takes_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("api.sock");
    let mut agent = Agent::start_at(socket.clone());
    let held = held_by_pid(agent.pid());
    let status = agent.end_by(Signal::KILL);
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    assert_gone(&held);
    assert!(socket.exists(), "nobody could remove it");

    let mut next = Agent::start_at(socket.clone());
    next.assert_well();
    assert_eq!(next.end_by(Signal::INT).code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn root_a_run_that_is_ended_leaves_nothing() {
    for signal in [Signal::TERM, Signal::KILL] {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("report.json");
        let words = ["bash", "-c", "echo ready; exec cat"];
        let mut run = Program::start(report::command(&file, &[], &words));
        run.line("ready");
        let held = held_by_pid(run.pid());
        run.signal(signal);
        let (status, said) = run.end();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{said}");
        assert_gone(&held);
        if signal == Signal::TERM {
            // It could still speak, and has: of the command's end, and of a sum that holds.
            let report = Report::read(&file, &said);
            assert_eq!(report.0["exit_status"], 128 + signal.as_raw());
        }
    }
}
