// SPDX-License-Identifier: Apache-2.0
//! 2,000 threads: each has its account, and an agent that meets them answers as ever.

use std::process::Command;

use serde_json::Value;

use crate::agent::Agent;
use crate::machine::Machine;
use crate::machine::script;
use crate::program::Program;
use crate::report;
use crate::report::Report;
use crate::report::ns;
use crate::spans;

const THREADS: usize = 2_000;

#[test]
#[ignore = "only in a guest"]
fn guest_any_2000_threads_are_accounted_for() {
    let _machine = Machine::alone();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("report.json");
    let (workers, count) = (script("workers.py"), THREADS.to_string());
    let words = ["python3", &workers, "crowd", &count];
    let mut run = Program::start(report::command(&file, &[], &words));
    run.line("crowded");
    run.say("go");
    let (status, said) = run.end();
    assert!(status.success(), "{said}");

    let report = Report::read(&file, &said);
    let waited = |thread: &&Value| {
        let causes = thread["causes"].as_array().expect("causes");
        let mut names = causes.iter().map(|cause| &cause["cause"]);
        names.any(|name| name == "wait.notify")
    };
    // The first thread joins them, which is the same kind of wait. Where `python3` is a script, what it
    // starts on its way is in the report, too.
    let threads = report.threads().iter();
    let threads: Vec<&Value> = threads
        .filter(|thread| thread["comm"] == "python3")
        .collect();
    assert_eq!(threads.len(), THREADS + 1);
    let waited = threads.into_iter().filter(waited).count();
    let unknown: u64 = report.unknown().iter().map(|(_, ns)| ns).sum();
    eprintln!(
        "{waited} waited, {unknown} ns of {} unknown",
        report.total_ns()
    );
    if report.lost_records() == 0 {
        assert_eq!(waited, THREADS + 1);
        assert!(unknown < report.total_ns() / 100, "{:?}", report.unknown());
    } else {
        // An emulated CPU may be too slow to read the ring as fast as the others fill it. Then what was
        // lost is said to be unknown.
        assert!(unknown > 0, "{} lost", report.lost_records());
    }
    assert!(ns(&report.0["wall_ns"]) > 0);
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_an_agent_meets_2000_threads() {
    let _machine = Machine::alone();
    let mut command = Command::new("python3");
    command.args([&script("workers.py"), "crowd", &THREADS.to_string()]);
    let mut crowd = Program::start(command);
    crowd.line("crowded");

    let agent = Agent::start();
    spans::is_explained(&agent);
    crowd.say("go");
    let (status, said) = crowd.end();
    assert!(status.success() && said.contains("gone"), "{said}");
    spans::is_explained(&agent);
    assert!(agent.count("/recorder/threads") > THREADS as u64);
    agent.assert_well();
}
