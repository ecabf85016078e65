// SPDX-License-Identifier: Apache-2.0
//! The limits on time, connections, memory and the queue: at each somebody is refused and counted,
//! and when there is room again, it works again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::StatusCode;
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;

use super::support::PATIENCE;
use super::support::PROTOBUF;
use super::support::Receivers;
use super::support::good;
use super::support::until;
use crate::otlp::Outcome;
use crate::otlp::QUEUE_SPANS_MAX;
use crate::otlp::REQUEST_BYTES_MAX;
use crate::otlp::Transport;
use crate::serve::BodyReader;
use crate::serve::Limits;

const SOON: Duration = Duration::from_millis(100);

/// All that comes until the other side ends the connection, which it must.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("it never ended");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn connected(address: std::net::SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(first).await.unwrap();
    stream
}

#[tokio::test]
async fn whoever_never_finishes_a_head_is_hung_up_on() {
    let limits = Limits {
        head: SOON,
        ..Limits::default()
    };
    let receivers = Receivers::start_with(limits, None);
    for first in [
        &b""[..],
        b"POST /v1/tra",
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\nx: ",
    ] {
        let mut stream = connected(receivers.http, first).await;
        read_to_end(&mut stream).await;
    }
    for first in [
        &b""[..],
        b"PRI * HTT",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0",
    ] {
        let mut stream = connected(receivers.grpc, first).await;
        read_to_end(&mut stream).await;
    }
    assert_eq!(
        receivers
            .counters
            .connections(Transport::Http)
            .accepted
            .load(Ordering::Relaxed),
        3
    );
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let receivers = Receivers::start();
    // No byte more than is read of it: closing with some unread would reset the connection.
    let start = "POST /v1/traces HTTP/1.1\r\nx: ";
    let endless = format!("{start}{}", "x".repeat(65_536 - start.len()));
    let mut stream = connected(receivers.http, endless.as_bytes()).await;
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn whoever_never_finishes_a_body_is_told_so() {
    let bodies = BodyReader::new(REQUEST_BYTES_MAX, REQUEST_BYTES_MAX, SOON);
    let receivers = Receivers::start_with(Limits::default(), Some(bodies));
    let head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n";
    for rest in [
        "content-length: 100\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut stream = connected(receivers.http, &[&head[..], rest.as_bytes()].concat()).await;
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("did not arrive within 100 ms"), "{answer}");
    }
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Http, Outcome::Unfinished),
        2
    );

    // A gRPC call whose message never comes.
    let stream = TcpStream::connect(receivers.grpc).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    );
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let request = hyper::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .body(Never)
        .unwrap();
    let response = timeout(PATIENCE, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

/// A body of which nothing ever comes.
struct Never;

impl hyper::body::Body for Never {
    type Data = axum::body::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn a_peer_that_goes_away_in_the_middle_is_counted() {
    let receivers = Receivers::start();
    let head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n";
    let stream = connected(
        receivers.http,
        &[&head[..], b"content-length: 100\r\n\r\nabc"].concat(),
    )
    .await;
    let accepted = receivers.counters.connections(Transport::Http);
    until("connected", || {
        accepted.accepted.load(Ordering::Relaxed) == 1
    })
    .await;
    drop(stream);
    until("it is counted", || {
        receivers
            .counters
            .requests(Transport::Http, Outcome::Unfinished)
            == 1
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    let limits = Limits {
        connections: 3,
        ..Limits::default()
    };
    let receivers = Receivers::start_with(limits, None);
    for (address, transport) in [
        (receivers.http, Transport::Http),
        (receivers.grpc, Transport::Grpc),
    ] {
        let counters = receivers.counters.connections(transport);
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(connected(address, b"P").await);
        }
        until("three are served", || {
            counters.accepted.load(Ordering::Relaxed) == 3
        })
        .await;
        let mut fourth = TcpStream::connect(address).await.unwrap();
        assert_eq!(read_to_end(&mut fourth).await, "");
        assert_eq!(counters.refused.load(Ordering::Relaxed), 1);
        drop(open);
    }
    // Those that have gone make room.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut stream = connected(receivers.http, b"GET / HTTP/1.0\r\n\r\n").await;
        if read_to_end(&mut stream).await.starts_with("HTTP/1.0 404") {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "there was never room again"
        );
    }
}

#[tokio::test]
async fn bodies_beyond_the_memory_for_all_are_to_be_sent_again() {
    let bodies = BodyReader::new(10_000, 15_000, Duration::from_secs(20));
    let mut receivers = Receivers::start_with(Limits::default(), Some(bodies));
    // One request holds 9,000 of the 15,000 bytes, and does not end.
    let head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n";
    let half = [&head[..], b"content-length: 9001\r\n\r\n", &[b'x'; 9_000]].concat();
    let holder = connected(receivers.http, &half).await;
    let large = good(40).encode_to_vec();
    assert!((6_001..10_000).contains(&large.len()));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let reply = receivers.post(&[PROTOBUF], large.clone()).await;
        if reply.status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(reply.header("retry-after"), "1");
            break;
        }
        // The holder's bytes had not been read yet.
        assert_eq!(reply.status, StatusCode::OK);
        assert!(tokio::time::Instant::now() < deadline, "never overloaded");
        receivers.batch().await;
    }
    let status = receivers
        .grpc_client()
        .await
        .export(good(40))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Http, Outcome::Overloaded),
        1
    );
    assert_eq!(
        receivers
            .counters
            .requests(Transport::Grpc, Outcome::Overloaded),
        1
    );
    drop(holder);
    until("the holder is gone", || {
        receivers
            .counters
            .requests(Transport::Http, Outcome::Unfinished)
            == 1
    })
    .await;
    assert_eq!(
        receivers.post(&[PROTOBUF], large).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_full_queue_drops_counts_and_says_try_again() {
    let mut receivers = Receivers::start();
    let mut client = receivers.grpc_client().await;
    let sent = good(10_000);
    let body = sent.encode_to_vec();
    for _ in 0..QUEUE_SPANS_MAX / 10_000 {
        assert_eq!(
            receivers.post(&[PROTOBUF], body.clone()).await.status,
            StatusCode::OK
        );
    }
    let reply = receivers.post(&[PROTOBUF], body.clone()).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.header("retry-after"), "1");
    let status = client.export(sent.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("queue is full"), "{status:?}");
    let counters = receivers.counters.clone();
    assert_eq!(counters.spans_dropped(), 20_000);
    assert_eq!(counters.spans_accepted(), QUEUE_SPANS_MAX as u64);
    assert_eq!(
        counters.spans_received(),
        counters.spans_accepted() + counters.spans_dropped()
    );

    // A batch makes room when it is done with, not when it is taken out.
    let batch = receivers.batch().await;
    assert!(client.export(sent.clone()).await.is_err());
    drop(batch);
    client.export(sent).await.unwrap();
}

#[tokio::test]
async fn when_nobody_takes_spans_any_more_the_sender_is_told() {
    let mut receivers = Receivers::start();
    receivers.batches.close();
    let status = receivers
        .grpc_client()
        .await
        .export(good(1))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(receivers.counters.spans_dropped(), 1);
}

#[tokio::test]
async fn the_first_answer_of_a_connection_waits_until_its_batch_is_done_with() {
    let mut receivers = Receivers::start_waiting(Limits::default(), None, PATIENCE);
    let (http, body) = (receivers.http, good(1).encode_to_vec());
    let mut grpc = receivers.grpc_client().await;
    let grpc_call = tokio::spawn({
        let mut grpc = grpc.clone();
        async move { grpc.export(good(1)).await.unwrap() }
    });
    let batch = receivers.batch().await;
    let http_call = tokio::spawn(async move { post_raw(http, &body).await });
    let other_batch = receivers.batch().await;
    assert!(!grpc_call.is_finished() && !http_call.is_finished());
    drop((batch, other_batch));
    timeout(PATIENCE / 2, grpc_call).await.unwrap().unwrap();
    let answer = timeout(PATIENCE / 2, http_call).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // The next one of the same connection does not wait, and one without spans never does.
    timeout(PATIENCE / 2, grpc.export(good(1)))
        .await
        .unwrap()
        .unwrap();
    timeout(PATIENCE / 2, post_raw(receivers.http, b""))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_first_answer_comes_also_when_nobody_is_done_with_its_batch() {
    let receivers = Receivers::start_waiting(Limits::default(), None, SOON);
    let answer = post_raw(receivers.http, &good(1).encode_to_vec()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(receivers.counters.spans_accepted(), 1);
}

/// The answer to a body sent over a connection of its own.
async fn post_raw(address: std::net::SocketAddr, body: &[u8]) -> String {
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = connected(address, &[head.as_bytes(), body].concat()).await;
    read_to_end(&mut stream).await
}
