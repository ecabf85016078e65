// SPDX-License-Identifier: Apache-2.0
//! Hostile OTLP at the real agent, over both transports: each request gets its status, each span is
//! counted for what it was, and afterwards the agent is small, ready and right.
//!
//! What the decoders do with every kind of bad byte is tested beside them, in `src/otlp/tests/`.

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;
use serde_json::json;
use tonic::Code;

use crate::agent::Agent;
use crate::exporter::Exporter;
use crate::exporter::STAY;
use crate::grpc::Grpc;
use crate::grpc::framed;
use crate::http::Connection;
use crate::http::GZIP;
use crate::http::JSON;
use crate::http::PROTOBUF;
use crate::otlp::gzip;
use crate::otlp::now_unix_ns;
use crate::otlp::past_span;
use crate::otlp::request;
use crate::until;

const LARGE_BYTES: usize = 100_000_000;
const MANY_SPANS: usize = 10_000;
/// Resident memory of the whole agent with its defaults (docs/overhead.md): 160 MiB.
const RESIDENT_BYTES_MAX: u64 = 160 << 20;

#[test]
fn root_hostile_otlp_is_refused_counted_and_survived() {
    let agent = Agent::start();
    let at_start = agent.resident_bytes();
    hostile_http(&agent);
    let http = agent.health()["otlp"]["requests"]["http"].take();
    assert_eq!(http, requests(1, 1, 4, 4, 2), "over HTTP");
    hostile_grpc(&agent);
    let grpc = agent.health()["otlp"]["requests"]["grpc"].take();
    assert_eq!(grpc, requests(1, 1, 2, 2, 1), "over gRPC");
    many(&agent);

    // Every span that came is one of these, and every one that was taken is answered.
    let health = agent.health();
    let refused = json!({
        "trace-id": 2, "span-id": 2, "zero-time": 4, "end-before-start": 2, "future": 4,
        "duplicate": 2, "too-many": 0,
    });
    let otlp = &health["otlp"];
    assert_eq!(otlp["spans_refused"], refused, "{health:#}");
    assert_eq!(otlp["spans_accepted"], 4 + 3 * MANY_SPANS, "{health:#}");
    assert_eq!(
        otlp["spans_received"],
        4 + 16 + 3 * MANY_SPANS,
        "{health:#}"
    );
    assert_eq!(otlp["spans_dropped"], 0, "{health:#}");
    until("every span is answered", || {
        let health = agent.health();
        let spans = &health["spans"];
        let all = spans["received"] == 4 + 3 * MANY_SPANS
            && spans["repeated"] == MANY_SPANS
            && spans["answered"] == 4 + 2 * MANY_SPANS;
        all.then_some(())
    });

    let resident = agent.resident_bytes();
    eprintln!("resident: {at_start} bytes at the start, {resident} after it all");
    assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes");
    let mut after = Exporter::start(agent.http_port, STAY);
    after.export();
    after.assert_explained(&agent.explained(&after.trace));
    agent.assert_well();
}

/// What `/healthz` says of a transport's requests.
fn requests(
    accepted: u64,
    partial: u64,
    malformed: u64,
    too_large: u64,
    unsupported: u64,
) -> Value {
    json!({
        "accepted": accepted, "partial": partial, "malformed": malformed, "too-large": too_large,
        "unsupported": unsupported, "overloaded": 0, "unfinished": 0,
    })
}

/// A request that ends in the middle of a span.
fn truncated() -> Vec<u8> {
    let mut bytes = request("hostile", None, vec![past_span("cut")]);
    bytes.truncate(bytes.len() - 3);
    bytes
}

/// One good span among eight that cannot be.
fn impossible() -> Vec<Span> {
    let changed = |change: fn(&mut Span)| {
        let mut span = past_span("impossible");
        change(&mut span);
        span
    };
    let good = past_span("good");
    vec![
        good.clone(),
        changed(|span| span.end_time_unix_nano = span.start_time_unix_nano - 1),
        changed(|span| span.start_time_unix_nano = 0),
        changed(|span| span.end_time_unix_nano = 0),
        changed(|span| span.end_time_unix_nano = now_unix_ns() + 2 * 86_400_000_000_000),
        changed(|span| span.end_time_unix_nano = u64::MAX),
        changed(|span| span.trace_id.clear()),
        changed(|span| span.span_id = vec![0; 8]),
        good,
    ]
}

fn hostile_http(agent: &Agent) {
    let port = agent.http_port;
    let post = |headers: &[_], body: &[u8]| Connection::open(port).post(headers, body);
    let good = request("hostile", None, vec![past_span("good")]);
    let bomb = gzip(&vec![0; LARGE_BYTES]);
    let large = vec![b' '; LARGE_BYTES];
    let noise: Vec<u8> = (0..999_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let text = ("content-type", "text/plain");
    let cases: [(&[_], &[u8], u16, &str); 10] = [
        (&[PROTOBUF], &good, 200, ""),
        (&[PROTOBUF], &truncated(), 400, "middle of a field"),
        (&[PROTOBUF], &noise, 400, "not an OTLP trace request"),
        (&[JSON], b"{\"resourceSpans\":[{", 400, "EOF"),
        (&[PROTOBUF, GZIP], &good, 400, "not valid gzip"),
        (&[PROTOBUF, GZIP], &bomb, 413, "larger than 16777216 bytes"),
        (&[PROTOBUF], &large, 413, "send smaller batches"),
        (&[JSON], &large, 413, "send smaller batches"),
        (&[text], &good, 415, "text/plain"),
        (&[], &good, 415, "expected content-type"),
    ];
    for (headers, body, status, why) in cases {
        let reply = post(headers, body);
        assert_eq!(reply.status, status, "{headers:?}: {}", reply.text());
        assert!(
            reply.text().contains(why),
            "{why:?} is not in: {}",
            reply.text()
        );
    }
    let mut connection = Connection::open(port);
    let reply = connection.post_chunked(&[PROTOBUF], &large[..100_000], LARGE_BYTES / 100_000);
    assert_eq!(reply.status, 413, "{}", reply.text());
    let reply = post(&[PROTOBUF], &request("hostile", None, impossible()));
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains("8 spans refused"), "{}", reply.text());
}

fn hostile_grpc(agent: &Agent) {
    let good = request("hostile", None, vec![past_span("good")]);
    let bomb = gzip(&vec![0; LARGE_BYTES]);
    let cases = [
        (framed(false, &good), Code::Ok, ""),
        (
            framed(false, &truncated()),
            Code::InvalidArgument,
            "middle of a field",
        ),
        (framed(true, &good), Code::InvalidArgument, "not valid gzip"),
        (framed(true, &bomb), Code::ResourceExhausted, "larger than"),
        (
            framed(false, &vec![0; LARGE_BYTES]),
            Code::ResourceExhausted,
            "smaller batches",
        ),
        (
            framed(false, &request("hostile", None, impossible())),
            Code::Ok,
            "",
        ),
    ];
    for (body, code, why) in cases {
        let status = Grpc::open(agent.grpc_port).export(body);
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(why), "{status:?}");
    }
    let body = framed(false, &good);
    let (status, _) = Grpc::open(agent.grpc_port).send("application/x-protobuf", body);
    assert_eq!(status, 415);
}

/// Many spans in one request, over each transport, and the same once more.
fn many(agent: &Agent) {
    let many = || (0..MANY_SPANS).map(|_| past_span("many")).collect();
    let first = request("hostile", None, many());
    let mut connection = Connection::open(agent.http_port);
    for _ in 0..2 {
        let reply = connection.post(&[PROTOBUF], &first);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    Grpc::open(agent.grpc_port).take(&request("hostile", None, many()));
}
