// SPDX-License-Identifier: Apache-2.0
//! Requests as exporters send them, over both transports, and what they are answered.

use axum::body::Bytes;
use hyper::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::codec::CompressionEncoding;

use super::support::JSON;
use super::support::PROTOBUF;
use super::support::Pieces;
use super::support::Receivers;
use super::support::good;
use super::support::gzip;
use super::support::request;
use super::support::span;
use crate::otlp::Outcome;
use crate::otlp::Transport;
use crate::serve::Peer;

#[tokio::test]
async fn grpc_plain_and_gzipped() {
    let mut receivers = Receivers::start();
    let mut plain = receivers.grpc_client().await;
    let mut gzipped = receivers
        .grpc_client()
        .await
        .send_compressed(CompressionEncoding::Gzip);
    for client in [&mut plain, &mut gzipped] {
        let response = client.export(good(3)).await.unwrap().into_inner();
        assert_eq!(response, ExportTraceServiceResponse::default());
        let batch = receivers.batch().await;
        assert_eq!(batch.spans.len(), 3);
        assert_eq!(&*batch.spans[2].name, "GET /2");
    }
    // One client is one connection, and says so.
    plain.export(good(1)).await.unwrap();
    plain.export(good(1)).await.unwrap();
    let (first, second) = (receivers.batch().await, receivers.batch().await);
    assert_eq!(first.connection, second.connection);
    gzipped.export(good(1)).await.unwrap();
    assert_ne!(
        receivers.batch().await.connection.number,
        first.connection.number
    );
    let Peer::Tcp { local, peer } = first.connection.peer else {
        panic!("not TCP")
    };
    assert_eq!(local, receivers.grpc);
    assert!(peer.ip().is_loopback() && peer.port() != 0);
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Grpc, Outcome::Accepted),
        5
    );
    assert_eq!(receivers.counters.spans_accepted(), 9);
}

#[tokio::test]
async fn http_in_each_format_and_encoding() {
    let mut receivers = Receivers::start();
    let protobuf = good(3).encode_to_vec();
    let json = serde_json::to_vec(&good(3)).unwrap();
    let gzipped = ("content-encoding", "gzip");
    let with_charset = ("content-type", "Application/JSON; charset=utf-8");
    let cases = [
        (vec![PROTOBUF], protobuf.clone()),
        (vec![PROTOBUF, gzipped], gzip(&protobuf)),
        (vec![PROTOBUF, ("content-encoding", "identity")], protobuf),
        (vec![JSON], json.clone()),
        (vec![JSON, gzipped], gzip(&json)),
        (vec![with_charset], json),
    ];
    for (headers, body) in cases {
        let reply = receivers.post(&headers, body).await;
        assert_eq!(reply.status, StatusCode::OK, "{headers:?}");
        let is_json = headers[0].1 != PROTOBUF.1;
        assert_eq!(
            reply.header("content-type"),
            if is_json { JSON.1 } else { PROTOBUF.1 }
        );
        assert_eq!(
            reply.body,
            if is_json { b"{}".to_vec() } else { Vec::new() }
        );
        assert_eq!(receivers.batch().await.spans.len(), 3, "{headers:?}");
    }
}

#[tokio::test]
async fn http_chunked_without_a_length() {
    let mut receivers = Receivers::start();
    let body = good(50).encode_to_vec();
    assert!(body.len() > 1_000);
    let pieces: Vec<_> = body.chunks(100).map(Bytes::copy_from_slice).collect();
    let body = Pieces(pieces.into_iter());
    let reply = receivers
        .send_body("POST", "/v1/traces", &[PROTOBUF], body)
        .await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(receivers.batch().await.spans.len(), 50);
}

#[tokio::test]
async fn what_was_refused_is_told_and_the_rest_is_taken() {
    let mut receivers = Receivers::start();
    let mut bad = span(1);
    bad.end_time_unix_nano = 1;
    let mut forged = span(2);
    forged.trace_id = vec![0; 16];
    let sent = request(vec![span(0), bad, forged, span(3)]);
    let message = "2 spans refused: 1 without a valid trace id, 1 ending before they start";

    let response = receivers
        .grpc_client()
        .await
        .export(sent.clone())
        .await
        .unwrap()
        .into_inner();
    let partial = response.partial_success.unwrap();
    assert_eq!(
        (partial.rejected_spans, partial.error_message.as_str()),
        (2, message)
    );
    assert_eq!(receivers.batch().await.spans.len(), 2);

    let reply = receivers.post(&[PROTOBUF], sent.encode_to_vec()).await;
    let response = ExportTraceServiceResponse::decode(&reply.body[..]).unwrap();
    assert_eq!(response.partial_success.unwrap().error_message, message);
    assert_eq!(receivers.batch().await.spans.len(), 2);

    let reply = receivers
        .post(&[JSON], serde_json::to_vec(&sent).unwrap())
        .await;
    assert_eq!(reply.status, StatusCode::OK);
    let partial = serde_json::json!({"rejectedSpans": "2", "errorMessage": message});
    assert_eq!(reply.json(), serde_json::json!({"partialSuccess": partial}));
    assert_eq!(receivers.batch().await.spans.len(), 2);

    assert_eq!(
        receivers
            .counters
            .requests(Transport::Http, Outcome::Partial),
        2
    );
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Grpc, Outcome::Partial),
        1
    );
    assert_eq!(receivers.counters.spans_received(), 12);
    assert_eq!(receivers.counters.spans_accepted(), 6);
}

#[tokio::test]
async fn a_request_without_spans_is_good_and_puts_nothing_into_the_queue() {
    let mut receivers = Receivers::start();
    assert_eq!(
        receivers.post(&[PROTOBUF], Vec::new()).await.status,
        StatusCode::OK
    );
    assert_eq!(
        receivers.post(&[JSON], b"{}".to_vec()).await.status,
        StatusCode::OK
    );
    receivers
        .grpc_client()
        .await
        .export(request(Vec::new()))
        .await
        .unwrap();
    receivers.post(&[PROTOBUF], good(1).encode_to_vec()).await;
    assert_eq!(receivers.batch().await.spans.len(), 1);
    assert!(receivers.batches.try_recv().is_err());
}
