// SPDX-License-Identifier: Apache-2.0
//! Questions that have no good answer: `lacuna explain` says so, with status 2 where there is none
//! at all, and as `unknown` where there is one that cannot say more.

use std::fs;

use serde_json::Value;
use serde_json::json;

use crate::agent::Agent;
use crate::http::Connection;
use crate::http::PROTOBUF;
use crate::otlp::now_unix_ns;
use crate::otlp::past_span;
use crate::otlp::request;
use crate::otlp::span;
use crate::otlp::trace_id;

const SECOND_NS: u64 = 1_000_000_000;

/// A file with one span of the process with that pid.
fn file_of(pid: u32, length_ns: u64) -> Value {
    let end = now_unix_ns();
    let attributes = json!([
        {"key": "service.name", "value": {"stringValue": "questions"}},
        {"key": "process.pid", "value": {"intValue": pid.to_string()}},
    ]);
    let span = json!({
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
        "name": "asked", "kind": 1,
        "startTimeUnixNano": (end - length_ns).to_string(),
        "endTimeUnixNano": end.to_string(),
    });
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes},
        "scopeSpans": [{"spans": [span]}],
    }]})
}

#[test]
fn root_questions_without_an_answer() {
    let mut agent = Agent::start();
    let refused = |arguments: &[&str], words: &[&str]| {
        let (status, said) = agent.explain(arguments);
        assert_eq!(status.code(), Some(2), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    };
    let unknown = "0af7651916cd43dd8448eb211c80319c";
    let nobody_knows = format!("no span of trace {unknown} is known here");
    refused(&[unknown, "--wait", "0.1"], &[&nobody_knows]);

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("spans.json");
    let path = file.to_str().expect("UTF-8");
    for (text, why) in [
        ("not JSON", "not OTLP trace requests in JSON"),
        ("[1, 2]", "not OTLP trace requests in JSON"),
        ("{}", "there is no span to explain"),
        ("", "there is no span to explain"),
    ] {
        fs::write(&file, text).expect("a file");
        refused(&["--spans", path], &[why]);
    }
    let mut backwards = file_of(std::process::id(), SECOND_NS);
    backwards["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["endTimeUnixNano"] = json!("5");
    fs::write(&file, backwards.to_string()).expect("a file");
    refused(&["--spans", path], &["1 ending before they start"]);

    // Nobody has this pid: it is beyond what any kernel gives.
    fs::write(&file, file_of(1 << 30, 1_000_000).to_string()).expect("a file");
    let (status, said) = agent.explain(&["--spans", path, "--format", "json"]);
    assert!(status.success(), "{said}");
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    assert_nobody(&answer["spans"][0], 1_000_000);
    let (status, said) = agent.explain(&["--spans", path]);
    assert!(status.success() && said.contains("unknown"), "{said}");
    assert_eq!(agent.count("/unknown_processes/no-owner"), 2);

    agent.assert_well();
    agent.end_by(rustix::process::Signal::TERM);
    let (status, said) = agent.explain(&[unknown]);
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(
        said.contains("lacuna agent") && said.contains("api.sock"),
        "{said}"
    );
}

#[test]
fn root_what_the_recorder_does_not_reach_is_expired() {
    let before = now_unix_ns();
    let agent = Agent::start();
    let mut connection = Connection::open(agent.http_port);
    let spans = [
        span(
            "before the agent",
            before - 2 * SECOND_NS,
            before - SECOND_NS,
        ),
        span("from 1970 on", 1, past_span("").end_time_unix_nano),
        span(
            "in an hour",
            before + 3_600 * SECOND_NS,
            before + 3_601 * SECOND_NS,
        ),
    ];
    let body = request("questions", None, spans.to_vec());
    assert_eq!(connection.post(&[PROTOBUF], &body).status, 200);
    for span in &spans {
        let answer = agent.explained(&trace_id(span));
        let length_ns = span.end_time_unix_nano - span.start_time_unix_nano;
        assert_eq!(answer["status"], "expired", "{answer:#}");
        assert_eq!(answer["gap_ns"], length_ns, "{answer:#}");
        assert_eq!(answer["explained_ns"], 0, "{answer:#}");
        assert_eq!(answer["causes"][0]["cause"], "unknown", "{answer:#}");
        assert_eq!(answer["causes"][0]["ns"], length_ns, "{answer:#}");
    }
    agent.assert_well();
}

/// Not even the process is known: all of it is unknown, and says why.
fn assert_nobody(answer: &Value, length_ns: u64) {
    assert_eq!(answer["join"]["how"], "none", "{answer:#}");
    assert_eq!(answer["join"]["pid"], 0, "{answer:#}");
    assert_eq!(answer["explained_ns"], 0, "{answer:#}");
    let causes = answer["causes"].as_array().expect("causes");
    assert_eq!(causes.len(), 1, "{answer:#}");
    assert_eq!(causes[0]["cause"], "unknown");
    assert_eq!(causes[0]["reason"], "no-thread");
    assert_eq!(causes[0]["ns"], length_ns);
}
