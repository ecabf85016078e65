// SPDX-License-Identifier: Apache-2.0
//! Processes that die while they are explained, and pids that are used again.

use std::fs;
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::agent::Agent;
use crate::exporter::DIE;
use crate::exporter::Exporter;
use crate::exporter::LEAVE;
use crate::exporter::SCRIPT;
use crate::exporter::STAY;
use crate::exporter::assert_waited_for_a_line;
use crate::exporter::new_trace;
use crate::program::Program;
use crate::until;

/// How many processes die before anybody can see whose their connection was.
const SUDDEN_DEATHS: u64 = 8;

#[test]
fn root_a_process_that_dies_is_explained_or_nobodys() {
    let agent = Agent::start();
    dies_while_it_is_explained(&agent);
    dies_before_it_can_be_found(&agent);
    agent.assert_well();
}

fn dies_while_it_is_explained(agent: &Agent) {
    let mut exporter = Exporter::start(agent.http_port, STAY);
    // Asked before its span is even known, so that its death falls into the explaining.
    let (status, said) = thread::scope(|scope| {
        let arguments = [exporter.trace.clone(), "--format".into(), "json".into()];
        let asking = scope.spawn(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            agent.explain(&arguments)
        });
        exporter.export();
        until("its span came in", || {
            (agent.count("/spans/received") == 1).then_some(())
        });
        exporter.program.signal(Signal::KILL);
        exporter.program.end();
        asking.join().expect("it is asked")
    });
    assert!(status.success(), "{said}");
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    exporter.assert_explained(&answer["spans"][0]);
    // And as long as the recorder reaches.
    exporter.assert_explained(&agent.explained(&exporter.trace));
}

fn dies_before_it_can_be_found(agent: &Agent) {
    let answered = agent.count("/spans/answered");
    let mut joined = 0;
    for _ in 0..SUDDEN_DEATHS {
        let mut exporter = Exporter::start(agent.http_port, DIE);
        exporter.export();
        exporter.program.end();
        let answer = agent.explained(&exporter.trace);
        if answer["join"]["how"] == "none" {
            assert_eq!(answer["join"]["pid"], 0, "{answer:#}");
            assert_eq!(answer["causes"][0]["reason"], "no-thread", "{answer:#}");
        } else {
            exporter.assert_explained(&answer);
            joined += 1;
        }
    }
    eprintln!("{joined} of {SUDDEN_DEATHS} processes that died at once were still found");
    assert_eq!(agent.count("/spans/answered"), answered + SUDDEN_DEATHS);
    assert_eq!(
        agent.count("/unknown_processes/no-owner"),
        SUDDEN_DEATHS - joined
    );
}

/// Two processes with one pid, one after the other: in a pid namespace of their own, where the next
/// pid can be chosen without touching the host's. Both say that pid of themselves.
#[test]
fn root_a_pid_that_is_used_again_is_another_process() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["first", "second"] {
        fs::copy("/bin/bash", directory.path().join(name)).expect("a copy");
    }
    let script = r#"
        for name in first second; do
            echo 99 >/proc/sys/kernel/ns_last_pid
            trace=$3; [ $name = first ] && trace=$2
            "$0/$name" -c "$1" exporter "$4" "$trace" "" "$5"
            echo "$name ended"
        done"#;
    let agent = Agent::start();
    let traces = [new_trace(), new_trace()];
    let mut command = Command::new("unshare");
    command.args([
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "bash",
        "-c",
        script,
    ]);
    command.arg(directory.path()).arg(SCRIPT).args(&traces);
    command.args([&agent.http_port.to_string(), LEAVE]);
    let mut program = Program::start(command);
    let mut answers = Vec::new();
    for (trace, ended) in traces.iter().zip(["first ended", "second ended"]) {
        until("the next one is ready", || {
            let ready = program.said().matches("ready 100").count();
            (ready > answers.len()).then_some(())
        });
        thread::sleep(std::time::Duration::from_millis(150));
        program.say("go");
        program.line(ended);
        answers.push(agent.explained(trace));
    }
    for (answer, name) in answers.iter().zip(["first", "second"]) {
        assert_eq!(answer["join"]["comm"], name, "{answer:#}");
        assert_waited_for_a_line(answer);
    }
    assert_ne!(answers[0]["join"]["pid"], answers[1]["join"]["pid"]);
    agent.assert_well();
}
