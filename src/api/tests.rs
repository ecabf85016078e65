// SPDX-License-Identifier: Apache-2.0
//! The API asked through its own client and by hand, over a Unix socket and TCP, of an agent that
//! only remembers what it was asked.

mod client;
mod guard;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::Agent;
use super::Answers;
use super::LIMITS;
use super::SpansQuery;
use super::WAIT_DEFAULT;
use super::router;
use crate::answer::Explanation;
use crate::answer::SpanList;
use crate::cli::Address;
use crate::otlp::SpanIn;
use crate::serve;
use crate::serve::ConnectionCounters;
use crate::serve::Peer;
use crate::serve::Protocol;

const PATIENCE: Duration = Duration::from_secs(20);
const KNOWN: [u8; 16] = [0xAB; 16];
const KNOWN_TEXT: &str = "abababababababababababababababab";

/// Knows one trace, which has no spans, and remembers what it was asked.
#[derive(Default)]
struct Stub {
    ready: bool,
    waits: Mutex<Vec<Duration>>,
    queries: Mutex<Vec<SpansQuery>>,
    explained: Mutex<Vec<(Vec<SpanIn>, Peer)>>,
}

impl Answers for Stub {
    async fn trace(&self, trace_id: [u8; 16], _: Peer, wait: Duration) -> Option<Explanation> {
        self.waits.lock().unwrap().push(wait);
        (trace_id == KNOWN).then(|| Explanation::from(Vec::new()))
    }

    fn spans(&self, query: &SpansQuery) -> SpanList {
        self.queries.lock().unwrap().push(query.clone());
        SpanList::from(Vec::new())
    }

    async fn explain(&self, spans: Vec<SpanIn>, peer: Peer, wait: Duration) -> Explanation {
        self.waits.lock().unwrap().push(wait);
        self.explained.lock().unwrap().push((spans, peer));
        Explanation::from(Vec::new())
    }

    fn ready(&self) -> bool {
        self.ready
    }

    fn health(&self) -> serde_json::Value {
        serde_json::json!({"status": "ok"})
    }
}

/// A served stub; the server ends with this.
struct Served {
    stub: Arc<Stub>,
    address: Address,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    fn tcp() -> Self {
        Self::at(
            "127.0.0.1:0".parse().unwrap(),
            Stub {
                ready: true,
                ..Stub::default()
            },
        )
    }

    fn at(wanted: Address, stub: Stub) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let wanted = match wanted {
            Address::Unix(path) => Address::Unix(directory.path().join(path)),
            tcp => tcp,
        };
        let bound = serve::bind(&wanted, "--api").unwrap();
        let address = bound.address().clone();
        let stub = Arc::new(stub);
        let router = router(stub.clone(), &wanted);
        let counters = Arc::new(ConnectionCounters::default());
        let task = tokio::spawn(async move {
            drop(serve::serve(bound, router, Protocol::Http1, LIMITS, counters).await);
        });
        Self {
            stub,
            address,
            task,
            _directory: directory,
        }
    }

    fn unix() -> Self {
        let address = Address::Unix(PathBuf::from("api.sock"));
        Self::at(
            address,
            Stub {
                ready: true,
                ..Stub::default()
            },
        )
    }

    fn agent(&self) -> Agent {
        Agent::at(self.address.clone())
    }

    fn socket_address(&self) -> SocketAddr {
        self.address.to_string().parse().unwrap()
    }

    /// Status and body of what is sent as it stands, over TCP, on a connection of its own.
    async fn raw(&self, head: &str, body: &[u8]) -> (u16, serde_json::Value) {
        let mut stream = TcpStream::connect(self.socket_address()).await.unwrap();
        let head = format!(
            "{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), body].concat())
            .await
            .unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            status,
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")),
        )
    }

    async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        self.raw(&format!("GET {path} HTTP/1.1\r\nhost: localhost"), b"")
            .await
    }

    async fn post(&self, content_type: &str, body: &[u8]) -> (u16, serde_json::Value) {
        let head = "POST /api/v1/explain HTTP/1.1\r\nhost: localhost\r\ncontent-type";
        self.raw(&format!("{head}: {content_type}"), body).await
    }
}

fn question(spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn span(index: u8) -> Span {
    Span {
        trace_id: KNOWN.to_vec(),
        span_id: vec![index + 1; 8],
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 2_000_000_000,
        ..Span::default()
    }
}

fn says(answer: &(u16, serde_json::Value), status: u16, why: &str) {
    assert_eq!(answer.0, status, "{}", answer.1);
    let error = answer.1["error"].as_str().unwrap();
    assert!(error.contains(why), "{error:?} does not say {why:?}");
}

#[tokio::test]
async fn questions_about_traces() {
    let served = Served::tcp();
    let path = format!("/api/v1/traces/{KNOWN_TEXT}");
    assert_eq!(served.get(&path).await.0, 200);
    assert_eq!(
        served
            .get(
                &path
                    .to_uppercase()
                    .replace("/API/V1/TRACES", "/api/v1/traces")
            )
            .await
            .0,
        200
    );
    assert_eq!(
        served.get(&format!("{path}?wait_ms=999999999999")).await.0,
        200
    );
    let waits = served.stub.waits.lock().unwrap().clone();
    assert_eq!(waits, [WAIT_DEFAULT, WAIT_DEFAULT, super::WAIT_MAX]);
    says(
        &served.get("/api/v1/traces/1234").await,
        400,
        "32 hexadecimal digits",
    );
    says(
        &served
            .get(&format!("/api/v1/traces/{}", "0".repeat(32)))
            .await,
        400,
        "not all of them 0",
    );
    says(
        &served
            .get(&format!("/api/v1/traces/{}", "c".repeat(32)))
            .await,
        404,
        "no span of trace",
    );
    says(
        &served.get(&format!("{path}?wait_ms=soon")).await,
        400,
        "wait_ms",
    );
    says(
        &served.get(&format!("{path}?weight_ms=1")).await,
        400,
        "unknown field",
    );
}

#[tokio::test]
async fn questions_about_recent_spans() {
    let served = Served::tcp();
    let (status, answer) = served.get("/api/v1/spans").await;
    let empty = serde_json::json!({"schema": "lacuna.spans/1", "spans": []});
    assert_eq!((status, answer), (200, empty));
    let query = "/api/v1/spans?service=payments%20api&min_gap_ms=250&limit=99999999";
    assert_eq!(served.get(query).await.0, 200);
    let asked = served.stub.queries.lock().unwrap().clone();
    assert_eq!(
        asked[0],
        SpansQuery {
            service: None,
            min_gap_ns: 0,
            limit: super::LIST_DEFAULT
        }
    );
    let service = Some("payments api".to_string());
    let limit = super::LIST_MAX;
    assert_eq!(
        asked[1],
        SpansQuery {
            service,
            min_gap_ns: 250_000_000,
            limit
        }
    );
    says(&served.get("/api/v1/spans?limit=-1").await, 400, "limit");
    says(&served.get("/api/v1/spans?limit=").await, 400, "limit");
}

#[tokio::test]
async fn questions_that_bring_spans() {
    let served = Served::tcp();
    let good = question(vec![span(0)]);
    let (status, answer) = served
        .post("application/x-protobuf", &good.encode_to_vec())
        .await;
    let empty = serde_json::json!({"schema": "lacuna.explanation/1", "spans": []});
    assert_eq!((status, answer), (200, empty));

    // What cannot be asked about is counted in the answer.
    let mut backwards = span(1);
    backwards.end_time_unix_nano = 1;
    let mixed = question(vec![span(0), backwards.clone()]);
    let (status, answer) = served
        .post("application/json", &serde_json::to_vec(&mixed).unwrap())
        .await;
    assert_eq!(
        (status, &answer["refused_spans"]),
        (200, &serde_json::json!({"end-before-start": 1}))
    );

    let bad = question(vec![backwards]).encode_to_vec();
    let answer = served.post("application/x-protobuf", &bad).await;
    says(
        &answer,
        400,
        "there is no span to explain: 1 spans refused: 1 ending before they start",
    );
    says(
        &served.post("application/json", b"{}").await,
        400,
        "there is no span to explain",
    );
    says(
        &served.post("application/json", b"{").await,
        400,
        "not OTLP trace requests in JSON",
    );
    says(
        &served.post("text/plain", b"{}").await,
        415,
        "expected content-type",
    );
    let spans: Vec<Span> = (0..=super::QUESTION_SPANS_MAX as u64)
        .map(|index| Span {
            span_id: (index + 1).to_be_bytes().to_vec(),
            ..span(0)
        })
        .collect();
    let many = question(spans).encode_to_vec();
    says(
        &served.post("application/x-protobuf", &many).await,
        413,
        "10001 spans are more than",
    );
    let large = vec![b' '; super::QUESTION_BYTES_MAX + 1];
    says(
        &served.post("application/json", &large).await,
        413,
        "larger than 16777216 bytes",
    );
    assert_eq!(served.stub.explained.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_not_there_is_said_in_json() {
    let served = Served::tcp();
    assert_eq!(served.get("/healthz").await.0, 200);
    assert_eq!(served.get("/readyz").await.0, 200);
    says(&served.get("/metrics").await, 404, "nothing at this path");
    says(&served.get("/api/v1/explain").await, 405, "another method");
    let starting = Served::at("127.0.0.1:0".parse().unwrap(), Stub::default());
    says(&starting.get("/readyz").await, 503, "not all parts");
    assert_eq!(starting.get("/healthz").await.0, 200);
}
