// SPDX-License-Identifier: Apache-2.0
//! Requests that are wrong, huge or meant to hurt: each gets a clear answer, and the receiver goes on.

use std::time::Duration;

use axum::body::Bytes;
use hyper::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use super::support::Chance;
use super::support::JSON;
use super::support::PROTOBUF;
use super::support::Pieces;
use super::support::Receivers;
use super::support::Reply;
use super::support::good;
use super::support::gzip;
use super::support::request;
use super::support::span;
use super::support::text;
use crate::otlp::Outcome;
use crate::otlp::REQUEST_BYTES_MAX;
use crate::otlp::Refusal;
use crate::otlp::Transport;
use crate::serve::BodyReader;
use crate::serve::Limits;

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// The reply has this status, and says why in the given words, in the request's own format.
fn assert_refused(reply: &Reply, status: StatusCode, why: &str) {
    assert_eq!(reply.status, status);
    let message = match reply.header("content-type") {
        "application/x-protobuf" => Status::decode(&reply.body[..]).unwrap().message,
        _ => reply.json()["message"].as_str().unwrap().to_string(),
    };
    assert!(message.contains(why), "{message:?} does not say {why:?}");
}

/// Still there, after whatever was done to it.
async fn assert_alive(receivers: &mut Receivers) {
    while receivers.batches.try_recv().is_ok() {}
    receivers.grpc_client().await.export(good(2)).await.unwrap();
    assert_eq!(receivers.batch().await.spans.len(), 2);
    assert_eq!(
        receivers
            .post(&[PROTOBUF], good(3).encode_to_vec())
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(receivers.batch().await.spans.len(), 3);
}

#[tokio::test]
async fn malformed_bodies_are_400_and_say_why() {
    let mut receivers = Receivers::start();
    let mut cut = good(3).encode_to_vec();
    cut.truncate(cut.len() - 7);
    let reply = receivers.post(&[PROTOBUF], cut.clone()).await;
    assert_refused(
        &reply,
        StatusCode::BAD_REQUEST,
        "it ends in the middle of a field",
    );
    let reply = receivers
        .post(&[JSON], b"{\"resourceSpans\":".to_vec())
        .await;
    assert_refused(&reply, StatusCode::BAD_REQUEST, "EOF while parsing");
    assert_eq!(reply.json()["code"], Code::InvalidArgument as i32);
    let gzipped = ("content-encoding", "gzip");
    let reply = receivers
        .post(&[PROTOBUF, gzipped], good(1).encode_to_vec())
        .await;
    assert_refused(&reply, StatusCode::BAD_REQUEST, "not valid gzip");
    let mut half = gzip(&good(30).encode_to_vec());
    half.truncate(half.len() / 2);
    let reply = receivers.post(&[PROTOBUF, gzipped], half).await;
    assert_refused(&reply, StatusCode::BAD_REQUEST, "not valid gzip");
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Http, Outcome::Malformed),
        4
    );

    let status = raw_grpc(&receivers, &framed(0, &cut), None).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status
            .message()
            .contains("it ends in the middle of a field"),
        "{status:?}"
    );
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Grpc, Outcome::Malformed),
        1
    );
    assert_eq!(receivers.counters.spans_received(), 0);
    assert_alive(&mut receivers).await;
}

/// A message as gRPC frames it.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], message].concat()
}

/// Sends any bytes as the body of an export call; the status that comes back.
async fn raw_grpc(receivers: &Receivers, body: &[u8], encoding: Option<&str>) -> tonic::Status {
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let reply = http2(receivers, path, "application/grpc", encoding, body).await;
    tonic::Status::from_header_map(reply.headers()).expect("no grpc-status")
}

async fn http2(
    receivers: &Receivers,
    path: &str,
    content_type: &str,
    encoding: Option<&str>,
    body: &[u8],
) -> hyper::Response<hyper::body::Incoming> {
    let stream = tokio::net::TcpStream::connect(receivers.grpc)
        .await
        .unwrap();
    stream.set_nodelay(true).unwrap();
    let stream = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, stream).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let mut request = hyper::Request::post(format!("http://localhost{path}"))
        .header("content-type", content_type)
        .header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let body = http_body_util::Full::new(Bytes::copy_from_slice(body));
    sender
        .send_request(request.body(body).unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn grpc_that_is_framed_wrong_is_refused() {
    let mut receivers = Receivers::start();
    let message = good(1).encode_to_vec();
    let mut long = framed(0, &message);
    long.push(0);
    let short = &framed(0, &message)[..20];
    let cases = [
        (
            &b""[..],
            None,
            Code::InvalidArgument,
            "before its prefix does",
        ),
        (
            b"\0\0\0",
            None,
            Code::InvalidArgument,
            "before its prefix does",
        ),
        (
            short,
            None,
            Code::InvalidArgument,
            "not what its prefix says",
        ),
        (
            &long,
            None,
            Code::InvalidArgument,
            "not what its prefix says",
        ),
        (
            &framed(2, &message),
            None,
            Code::InvalidArgument,
            "unknown compression flag",
        ),
        (
            &framed(1, &message),
            None,
            Code::Unimplemented,
            "grpc-encoding gzip",
        ),
        (
            &framed(1, &message),
            Some("zstd"),
            Code::Unimplemented,
            "grpc-encoding gzip",
        ),
        (
            &framed(1, &message),
            Some("gzip"),
            Code::InvalidArgument,
            "not valid gzip",
        ),
    ];
    for (body, encoding, code, why) in cases {
        let status = raw_grpc(&receivers, body, encoding).await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(why), "{status:?}");
    }
    assert_alive(&mut receivers).await;
}

#[tokio::test]
async fn what_is_not_served_here_is_said_to_be_so() {
    let mut receivers = Receivers::start();
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
        "application/jsonx",
    ] {
        let reply = receivers
            .post(&[("content-type", content_type)], b"x".to_vec())
            .await;
        let why = "expected content-type application/x-protobuf or application/json";
        assert_refused(&reply, StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
    }
    let reply = receivers.post(&[], b"x".to_vec()).await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let reply = receivers
        .post(&[PROTOBUF, ("content-encoding", "br")], b"x".to_vec())
        .await;
    assert_refused(
        &reply,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "expected content-encoding gzip",
    );
    for method in ["GET", "PUT", "DELETE"] {
        let reply = receivers
            .send(method, "/v1/traces", &[PROTOBUF], Vec::new())
            .await;
        assert_refused(&reply, StatusCode::METHOD_NOT_ALLOWED, "sent with POST");
        assert_eq!(reply.header("allow"), "POST");
    }
    let reply = receivers
        .send("POST", "/v1/metrics", &[PROTOBUF], Vec::new())
        .await;
    assert_refused(&reply, StatusCode::NOT_FOUND, "only /v1/traces");
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Http, Outcome::Unsupported),
        10
    );

    let service = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    let response = http2(&receivers, service, "application/grpc", None, b"").await;
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::Unimplemented);
    let export = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let response = http2(&receivers, export, "application/x-protobuf", None, b"").await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Grpc, Outcome::Unsupported),
        2
    );
    assert_alive(&mut receivers).await;
}

#[tokio::test]
async fn a_body_of_100_mb_is_413_and_was_never_held() {
    // A budget of one request's limit: more than that cannot have been held at any instant.
    let bodies = BodyReader::new(
        REQUEST_BYTES_MAX,
        REQUEST_BYTES_MAX + 5,
        Duration::from_secs(20),
    );
    let mut receivers = Receivers::start_with(Limits::default(), Some(bodies));
    let piece = Bytes::from_static(&[0x0A; 100_000]);
    let body = Pieces(std::iter::repeat_n(piece, 1_000));
    let reply = receivers
        .send_body("POST", "/v1/traces", &[PROTOBUF], body)
        .await;
    assert_refused(
        &reply,
        StatusCode::PAYLOAD_TOO_LARGE,
        "larger than 16777216 bytes",
    );
    let reply = receivers.post(&[JSON], vec![b' '; 100_000_000]).await;
    assert_refused(
        &reply,
        StatusCode::PAYLOAD_TOO_LARGE,
        "larger than 16777216 bytes",
    );
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Http, Outcome::TooLarge),
        2
    );

    let mut large = span(0);
    large.attributes = vec![text("large", &"x".repeat(100_000_000))];
    let status = receivers
        .grpc_client()
        .await
        .export(request(vec![large]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status.message().contains("send smaller batches"),
        "{status:?}"
    );
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Grpc, Outcome::TooLarge),
        1
    );
    assert_alive(&mut receivers).await;
}

#[tokio::test]
async fn a_small_body_that_gunzips_to_a_large_one_is_too_large() {
    let mut receivers = Receivers::start();
    let bomb = gzip(&vec![0; REQUEST_BYTES_MAX + 1]);
    assert!(bomb.len() < 200_000);
    let headers = [PROTOBUF, ("content-encoding", "gzip")];
    let reply = receivers.post(&headers, bomb.clone()).await;
    assert_refused(
        &reply,
        StatusCode::PAYLOAD_TOO_LARGE,
        "larger than 16777216 bytes",
    );
    let status = raw_grpc(&receivers, &framed(1, &bomb), Some("gzip")).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_alive(&mut receivers).await;
}

#[tokio::test]
async fn ten_thousand_spans_in_one_request_are_taken() {
    let mut receivers = Receivers::start();
    let sent = good(10_000);
    receivers
        .grpc_client()
        .await
        .export(sent.clone())
        .await
        .unwrap();
    assert_eq!(receivers.batch().await.spans.len(), 10_000);
    receivers
        .post(&[JSON], serde_json::to_vec(&sent).unwrap())
        .await;
    assert_eq!(receivers.batch().await.spans.len(), 10_000);
    let mut gzipped = receivers
        .grpc_client()
        .await
        .send_compressed(CompressionEncoding::Gzip);
    gzipped.export(sent).await.unwrap();
    assert_eq!(receivers.batch().await.spans.len(), 10_000);
}

#[tokio::test]
async fn noise_over_the_wire_is_answered_counted_and_survived() {
    let mut receivers = Receivers::start();
    let whole = good(5).encode_to_vec();
    for seed in 0..300 {
        let chance = &mut Chance::new(seed);
        let length = chance.below(400);
        let mut body = if chance.one_in(2) {
            chance.bytes(length)
        } else {
            whole.clone()
        };
        let at = chance.below(body.len() + 1);
        body.truncate(at);
        let format = chance.pick(&[PROTOBUF, JSON]);
        let understood = ExportTraceServiceRequest::decode(&body[..]).is_ok() && format == PROTOBUF;
        let reply = receivers.post(&[format], body.clone()).await;
        let status = if understood {
            StatusCode::OK
        } else {
            StatusCode::BAD_REQUEST
        };
        assert_eq!(reply.status, status, "seed {seed}");
        let flag = chance.below(3) as u8;
        raw_grpc(&receivers, &framed(flag, &body), Some("gzip")).await;
        noise_on_the_socket(&receivers, chance).await;
        while receivers.batches.try_recv().is_ok() {}
    }
    let counters = &receivers.counters;
    let refused: u64 = Refusal::ALL
        .iter()
        .map(|&reason| counters.spans_refused(reason))
        .sum();
    let known = counters.spans_accepted() + counters.spans_dropped() + refused;
    assert_eq!(counters.spans_received(), known);
    for transport in Transport::ALL {
        let requests: u64 = Outcome::ALL
            .iter()
            .map(|&outcome| counters.requests(transport, outcome))
            .sum();
        assert!(requests >= 300, "{} of {}", requests, transport.name());
    }
    assert_alive(&mut receivers).await;
}

/// Bytes that are not even HTTP, to both ports.
async fn noise_on_the_socket(receivers: &Receivers, chance: &mut Chance) {
    for address in [receivers.grpc, receivers.http] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let length = chance.below(200);
        // The other side may hang up before all is said.
        let noise = chance.bytes(length);
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &noise).await;
    }
}
