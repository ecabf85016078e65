// SPDX-License-Identifier: Apache-2.0
//! What the tests of OTLP in share: requests to send, receivers to send them to, clients to send
//! them with, and a seeded source of chance.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::Request;
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::cli::Address;
use crate::otlp;
use crate::otlp::Batch;
use crate::otlp::OtlpCounters;
use crate::otlp::Receiver;
use crate::otlp::Transport;
use crate::serve;
use crate::serve::BodyReader;
use crate::serve::Bound;
use crate::serve::Limits;
use crate::serve::Protocol;

/// How long a test waits for what must come before it fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Some(Value::StringValue(value.to_string())))
}

pub(super) fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Some(Value::IntValue(value)))
}

pub(super) fn attribute(key: &str, value: Option<Value>) -> KeyValue {
    KeyValue {
        key: key.to_string(),
        value: Some(AnyValue { value }),
        ..KeyValue::default()
    }
}

/// The `index`th of a series of good spans, each with its own id.
pub(super) fn span(index: u64) -> Span {
    let end = now_unix_ns() - 1_000_000_000;
    Span {
        trace_id: (u128::from(index) + 1).to_be_bytes().to_vec(),
        span_id: (index + 1).to_be_bytes().to_vec(),
        parent_span_id: (index + 2).to_be_bytes().to_vec(),
        name: format!("GET /{index}"),
        kind: 2,
        start_time_unix_nano: end - 5_000_000,
        end_time_unix_nano: end,
        attributes: vec![
            text("http.route", "/{index}"),
            int("thread.id", 140_303_366_379_200),
            text("thread.name", "worker-1"),
            int("net.peer.port", 41_234),
        ],
        ..Span::default()
    }
}

pub(super) fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "flask".to_string(),
        ..Default::default()
    };
    let resource = Resource {
        attributes: vec![
            text("service.name", "payments-api"),
            int("process.pid", 4_123),
        ],
        ..Resource::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// A field of a message around `inner`, by its key.
pub(super) fn around(key: u8, inner: &[u8]) -> Vec<u8> {
    let mut length = Vec::new();
    prost::encode_length_delimiter(inner.len(), &mut length).unwrap();
    [&[key], &length[..], inner].concat()
}

/// A request of `count` good spans.
pub(super) fn good(count: u64) -> ExportTraceServiceRequest {
    request((0..count).map(span).collect())
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Receivers on free ports of loopback; they end with this.
pub(super) struct Receivers {
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) batches: mpsc::Receiver<Batch>,
    pub(super) counters: Arc<OtlpCounters>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Receivers {
    /// With the limits of the agent, but answering at once.
    pub(super) fn start() -> Self {
        Self::start_with(Limits::default(), None)
    }

    pub(super) fn start_with(limits: Limits, bodies: Option<BodyReader>) -> Self {
        Self::start_waiting(limits, bodies, Duration::ZERO)
    }

    /// Whose first answers wait for their batches.
    pub(super) fn start_waiting(
        limits: Limits,
        bodies: Option<BodyReader>,
        first_answer_time: Duration,
    ) -> Self {
        let (sink, batches) = otlp::queue();
        let counters = Arc::new(OtlpCounters::default());
        let receiver = Receiver::new(sink, counters.clone()).with(bodies, first_answer_time);
        let (grpc, http) = (listen(), listen());
        let (grpc_at, http_at) = (socket_address(&grpc), socket_address(&http));
        let grpc_counters = counters.connections(Transport::Grpc).clone();
        let http_counters = counters.connections(Transport::Http).clone();
        let grpc = serve::serve(
            grpc,
            receiver.grpc(),
            Protocol::Http2,
            limits,
            grpc_counters,
        );
        let http = serve::serve(
            http,
            receiver.http(),
            Protocol::Http1,
            limits,
            http_counters,
        );
        let tasks = vec![
            tokio::spawn(async { drop(grpc.await) }),
            tokio::spawn(async { drop(http.await) }),
        ];
        Self {
            grpc: grpc_at,
            http: http_at,
            batches,
            counters,
            tasks,
        }
    }

    pub(super) async fn grpc_client(&self) -> TraceServiceClient<Channel> {
        TraceServiceClient::connect(format!("http://{}", self.grpc))
            .await
            .unwrap()
    }

    /// The next batch, which must come.
    pub(super) async fn batch(&mut self) -> Batch {
        tokio::time::timeout(PATIENCE, self.batches.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Sends a body to `/v1/traces`.
    pub(super) async fn post(&self, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        self.send("POST", "/v1/traces", headers, body).await
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Reply {
        let body = http_body_util::Full::new(Bytes::from(body));
        self.send_body(method, path, headers, body).await
    }

    pub(super) async fn send_body<B>(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: B,
    ) -> Reply
    where
        B: hyper::body::Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let stream = TcpStream::connect(self.http).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender
            .send_request(request.body(body).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }
}

/// A body of pieces that are all there, and no length: HTTP/1 sends it in chunks.
pub(super) struct Pieces<I>(pub(super) I);

impl<I: Iterator<Item = Bytes> + Unpin> hyper::body::Body for Pieces<I> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }
}

/// What came back over HTTP.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(super) const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
pub(super) const JSON: (&str, &str) = ("content-type", "application/json");

fn listen() -> Bound {
    serve::bind(&"127.0.0.1:0".parse().unwrap(), "--otlp-grpc").unwrap()
}

pub(super) fn socket_address(bound: &Bound) -> SocketAddr {
    match bound.address() {
        Address::Tcp { host, port } => SocketAddr::new(host.parse().unwrap(), *port),
        Address::Unix(path) => panic!("bound to {}", path.display()),
    }
}

/// Waits until `condition` holds.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Chance with a seed (splitmix64), so that what failed can be had again.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number() as u8).collect()
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
