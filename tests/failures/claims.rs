// SPDX-License-Identifier: Apache-2.0
//! Forged claims: anybody could send a span with somebody else's process or thread. None is
//! honoured, each is counted, and an honest one still is.

use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;

use crate::agent::Agent;
use crate::exporter;
use crate::exporter::Exporter;
use crate::exporter::STAY;
use crate::exporter::new_trace;
use crate::http::Connection;
use crate::http::PROTOBUF;
use crate::otlp::now_unix_ns;
use crate::otlp::number;
use crate::otlp::request;
use crate::otlp::span;
use crate::otlp::trace_id;
use crate::program::Program;
use crate::program::as_nobody;

/// Honest claims of a kind before one is believed are fewer.
const HONEST: usize = 40;
/// Forged claims of each sort.
const FORGED: usize = 5;

fn own_tid() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}

/// Sleeps a moment in a span of this thread, which claims to be the thread `tid`.
fn sleep_as(name: &str, tid: u32) -> Span {
    let start = now_unix_ns();
    thread::sleep(Duration::from_millis(2));
    let mut span = span(name, start, now_unix_ns());
    span.attributes = vec![number("thread.native_id", tid.into())];
    span
}

/// Sends spans and waits for their answers.
fn answers(agent: &Agent, connection: &mut Connection, spans: Vec<Span>) -> Vec<Value> {
    let traces: Vec<String> = spans.iter().map(trace_id).collect();
    let reply = connection.post(&[PROTOBUF], &request("claims", None, spans));
    assert_eq!(reply.status, 200, "{}", reply.text());
    traces.iter().map(|trace| agent.explained(trace)).collect()
}

/// A process of another user that does nothing.
fn victim() -> Program {
    let mut command = Command::new("bash");
    command.args(["-c", "echo ready; read -r line"]);
    let victim = Program::start(as_nobody(command));
    victim.line("ready");
    victim
}

#[test]
fn root_a_thread_is_believed_only_where_the_records_bear_it_out() {
    let agent = Agent::start();
    let victim = victim();
    // A thread of this process that is asleep all the while.
    let (told, tid) = mpsc::channel();
    let (wake, woken) = mpsc::channel::<()>();
    let idle = thread::spawn(move || {
        told.send(own_tid()).expect("the test listens");
        woken.recv()
    });
    let idle_tid = tid.recv().expect("a tid");
    let mut connection = Connection::open(agent.http_port);

    // The first of a kind are only learned from.
    for learned in [false, true] {
        let honest = (0..HONEST).map(|_| sleep_as("honest", own_tid())).collect();
        for answer in answers(&agent, &mut connection, honest) {
            if !learned && answer["join"]["how"] == "process" {
                continue;
            }
            assert_eq!(answer["join"]["how"], "attribute", "{answer:#}");
            assert_eq!(answer["join"]["tid"], own_tid(), "{answer:#}");
        }
    }
    assert_eq!(agent.count("/claims_refused"), 0);
    let believed = agent.count("/joins/attribute");

    let sorts = [
        ("of another process", victim.pid()),
        ("of nobody", 1 << 29),
        ("asleep then", idle_tid),
        // Also where claims of the kind have been believed so far.
        ("honest", idle_tid),
    ];
    let mut refused = 0;
    for (name, claimed) in sorts {
        let forged = (0..FORGED).map(|_| sleep_as(name, claimed)).collect();
        for answer in answers(&agent, &mut connection, forged) {
            assert_ne!(answer["join"]["tid"], claimed, "{name}: {answer:#}");
            assert_eq!(answer["join"]["how"], "process", "{name}: {answer:#}");
            assert_eq!(answer["explained_ns"], 0, "{name}: {answer:#}");
            assert_eq!(answer["causes"][0]["reason"], "no-thread", "{answer:#}");
        }
        refused += FORGED as u64;
        assert_eq!(agent.count("/claims_refused"), refused, "{name}");
    }
    assert_eq!(agent.count("/joins/attribute"), believed);
    agent.assert_well();
    drop(wake);
    assert!(idle.join().expect("it slept").is_err());
}

#[test]
fn root_a_process_of_another_user_cannot_be_claimed() {
    let agent = Agent::start();
    let victim = victim();
    // Root is no exception over the network, where a process speaks for its like and no others.
    let mut refused = 0;
    for claims_thread in [false, true] {
        let mut connection = Connection::open(agent.http_port);
        let start = now_unix_ns();
        let mut forged = span("forged", start - 5_000_000, start);
        if claims_thread {
            forged.attributes = vec![number("thread.native_id", victim.pid().into())];
        }
        let trace = trace_id(&forged);
        let body = request("claims", Some(victim.pid()), vec![forged]);
        assert_eq!(connection.post(&[PROTOBUF], &body).status, 200);
        refused += 1;
        assert_nobodys(&agent, &trace, refused);
    }

    // The other way round: another user's process claims the agent itself, and this process.
    for claimed in [agent.pid(), std::process::id(), 1] {
        let trace = new_trace();
        let command = exporter::command(agent.http_port, &trace, Some(claimed), STAY);
        let mut forger = Exporter::start_as(as_nobody(command), trace);
        forger.export();
        assert_eq!(forger.program.line("sent "), "HTTP/1.1 200 OK");
        refused += 1;
        assert_nobodys(&agent, &forger.trace, refused);
    }

    // And claims itself: that is honoured.
    let trace = new_trace();
    let command = exporter::command(agent.http_port, &trace, None, STAY);
    let mut honest = Exporter::start_as(as_nobody(command), trace);
    honest.export();
    honest.assert_explained(&agent.explained(&honest.trace));
    agent.assert_well();
}

/// Nobody is named for that span, and that is the `refused`th claim that was not honoured.
fn assert_nobodys(agent: &Agent, trace: &str, refused: u64) {
    let answer = agent.explained(trace);
    assert_eq!(answer["join"]["how"], "none", "{answer:#}");
    assert_eq!(answer["join"]["pid"], 0, "{answer:#}");
    assert_eq!(answer["join"]["tid"], 0, "{answer:#}");
    assert_eq!(answer["causes"][0]["reason"], "no-thread", "{answer:#}");
    assert_eq!(agent.count("/unknown_processes/claim-refused"), refused);
    assert_eq!(agent.count("/joins/none"), refused);
}
