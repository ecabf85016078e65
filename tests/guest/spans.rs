// SPDX-License-Identifier: Apache-2.0
//! Spans that are sent over OTLP, and asked about in a file: explained, end to end.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::agent::Agent;
use crate::counters::near;
use crate::exporter::Exporter;
use crate::exporter::STAY;
use crate::exporter::new_trace;
use crate::machine::Machine;
use crate::machine::shell;
use crate::pool;
use crate::pool::Pool;
use crate::program::Program;
use crate::report::ns;

/// How long a program waits in its span.
const WAIT: Duration = Duration::from_millis(300);

/// Waits for a line in a span, and tells when that was.
const NOTES_A_SPAN: &str = r#"
export LC_ALL=C
echo ready
start=${EPOCHREALTIME/./}000
read -r line
end=${EPOCHREALTIME/./}000
echo "span $start $end"
read -r line"#;

/// A program sends a span in which it waited for a line, and that is what the agent says of it.
pub(crate) fn is_explained(agent: &Agent) {
    let mut exporter = Exporter::start(agent.http_port, STAY);
    exporter.export();
    let answer = agent.explained(&exporter.trace);
    assert_eq!(answer["join"]["pid"], exporter.program.pid(), "{answer:#}");
    assert_waited_for_a_line(&answer);
}

/// The only thread there is waited, for the most part of its span, for a line from its pipe.
pub(crate) fn assert_waited_for_a_line(answer: &Value) {
    assert_eq!(answer["status"], "complete", "{answer:#}");
    assert_eq!(answer["join"]["how"], "single-thread", "{answer:#}");
    let gap_ns = ns(&answer["gap_ns"]);
    let causes = answer["causes"].as_array().expect("causes");
    let sum: u64 = causes.iter().map(|cause| ns(&cause["ns"])).sum();
    assert_eq!(sum, gap_ns, "{answer:#}");
    let of = |name: &str| {
        let causes = causes.iter().filter(|cause| cause["cause"] == name);
        causes.map(|cause| ns(&cause["ns"])).sum::<u64>()
    };
    assert!(near(of("unknown"), 0), "{answer:#}");
    assert!(of("wait.pipe") > gap_ns / 2, "{answer:#}");
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_a_span_over_otlp_is_explained() {
    let _machine = Machine::alone();
    let agent = Agent::start();
    is_explained(&agent);

    // As a person asks.
    let mut exporter = Exporter::start(agent.http_port, STAY);
    exporter.export();
    exporter.program.line("sent HTTP/1.1 200");
    let (status, said) = agent.explain(&[&exporter.trace]);
    assert!(status.success(), "{said}");
    let thread = format!("thread {} bash", exporter.program.pid());
    for words in [&*thread, "pipe or local socket"] {
        assert!(said.contains(words), "{words} in: {said}");
    }
    agent.assert_well();
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_a_span_of_several_threads_finds_its_own() {
    let _machine = Machine::alone();
    let agent = Agent::start();
    Pool::of(pool::start(), &agent).serve_until_joined();
    agent.assert_well();
}

/// A thread of it has slept since before there was anybody to see it.
#[test]
#[ignore = "only in a guest"]
fn guest_any_a_span_of_a_program_that_was_there_before_finds_its_thread() {
    let _machine = Machine::alone();
    let program = pool::start();
    let agent = Agent::start();
    Pool::of(program, &agent).serve_until_joined();
    agent.assert_well();
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_a_span_in_a_file_is_explained() {
    let _machine = Machine::alone();
    let agent = Agent::start();
    let mut waiting = Program::start(shell(NOTES_A_SPAN, &[]));
    waiting.line("ready");
    // The wait is what its span is about.
    thread::sleep(WAIT);
    waiting.say("go");
    let noted = waiting.line("span ");
    let (start, end) = noted.split_once(' ').expect("two instants");

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("spans.json");
    let spans = file_of(waiting.pid(), start, end);
    fs::write(&file, spans.to_string()).expect("a file");
    let path = file.to_str().expect("UTF-8");
    let (status, said) = agent.explain(&["--spans", path, "--format", "json"]);
    assert!(status.success(), "{said}");
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    let answer = &answer["spans"][0];
    assert_eq!(answer["join"]["pid"], waiting.pid(), "{answer:#}");
    assert_waited_for_a_line(answer);
    agent.assert_well();
}

/// A request with one span of that process.
fn file_of(pid: u32, start_unix_ns: &str, end_unix_ns: &str) -> Value {
    let attributes = json!([
        {"key": "service.name", "value": {"stringValue": "guest"}},
        {"key": "process.pid", "value": {"intValue": pid.to_string()}},
    ]);
    let span = json!({
        "traceId": new_trace(), "spanId": "b7ad6b7169203331", "name": "waited", "kind": 1,
        "startTimeUnixNano": start_unix_ns,
        "endTimeUnixNano": end_unix_ns,
    });
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes},
        "scopeSpans": [{"spans": [span]}],
    }]})
}
