// SPDX-License-Identifier: Apache-2.0
//! Killed without warning: nothing of it stays in the kernel, attached, pinned or merely loaded.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rustix::process::Signal;

use crate::agent::Agent;
use crate::machine::Machine;
use crate::machine::output;
use crate::machine::script;
use crate::program::Program;
use crate::report;
use crate::spans;
use crate::until;

/// Every BPF object of this kernel, by kind and number; the guest has no others than ours and those
/// that it booted with.
fn objects() -> BTreeSet<String> {
    let mut command = Command::new("python3");
    command.arg(script("objects.py"));
    output(command).lines().map(str::to_owned).collect()
}

/// What of the kernel's objects came since; there must be something of each kind.
fn made_since(before: &BTreeSet<String>) -> BTreeSet<String> {
    let made: BTreeSet<String> = objects().difference(before).cloned().collect();
    for kind in ["prog ", "map ", "link "] {
        let is_it = |object: &String| object.starts_with(kind);
        assert!(made.iter().any(is_it), "no {kind}in {made:?}");
    }
    made
}

/// Waits until the kernel has only those objects that it had.
fn assert_gone(before: &BTreeSet<String>) {
    until("the kernel is rid of its programs", || {
        (objects() == *before).then_some(())
    });
    let pinned = std::fs::read_dir("/sys/fs/bpf").into_iter().flatten();
    let pinned: Vec<_> = pinned.flatten().map(|entry| entry.file_name()).collect();
    let is_ours = |name: &std::ffi::OsString| name.to_string_lossy().contains("lacuna");
    assert!(!pinned.iter().any(is_ours), "pinned: {pinned:?}");
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_a_killed_agent_leaves_nothing_in_the_kernel() {
    let _machine = Machine::alone();
    let before = objects();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("api.sock");
    let mut agent = Agent::start_at(socket.clone());
    made_since(&before);
    let status = agent.end_by(Signal::KILL);
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    assert_gone(&before);

    let next = Agent::start_at(socket);
    spans::is_explained(&next);
    next.assert_well();
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_a_killed_run_leaves_nothing_in_the_kernel() {
    let _machine = Machine::alone();
    let before = objects();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("report.json");
    let words = ["bash", "-c", "echo ready; exec cat"];
    let mut run = Program::start(report::command(&file, &[], &words));
    run.line("ready");
    made_since(&before);
    run.signal(Signal::KILL);
    let (status, said) = run.end();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{said}");
    assert_gone(&before);
}
