// SPDX-License-Identifier: Apache-2.0
//! A `lacuna agent` of the test's own: free ports, its own socket, its end guaranteed.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::http::Address;
use crate::http::request;
use crate::process::Process;
use crate::programs::Endpoint;
use crate::programs::Transport;

/// How long the agent may take to come up: its programs are verified by the kernel first.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// More than any answer of `/api/v1/spans` in this test holds.
const ALL_SPANS: usize = 1_000_000;

/// A running agent.
pub(crate) struct Agent {
    process: Process,
    socket: PathBuf,
    grpc_port: u16,
    http_port: u16,
}

impl Agent {
    /// Starts it and waits until it is ready. Needs root.
    pub(crate) fn start(directory: &Path) -> Agent {
        let socket = directory.join("api.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lacuna"));
        command
            .args([
                "agent",
                "--otlp-grpc",
                "127.0.0.1:0",
                "--otlp-http",
                "127.0.0.1:0",
                "--api",
            ])
            .arg(format!("unix:{}", socket.display()));
        let process = Process::start("lacuna agent", command);
        let grpc_port = listening(&process, "otlp-grpc");
        let http_port = listening(&process, "otlp-http");
        let agent = Agent {
            process,
            socket,
            grpc_port,
            http_port,
        };
        let deadline = Instant::now() + START_PATIENCE;
        while agent.get("/readyz").0 != 200 {
            assert!(
                Instant::now() < deadline,
                "the agent is not ready:\n{}",
                agent.process.tail()
            );
            thread::sleep(Duration::from_millis(50));
        }
        agent
    }

    /// Where to send spans over that transport.
    pub(crate) fn endpoint(&self, transport: Transport) -> Endpoint {
        let port = match transport {
            Transport::Grpc => self.grpc_port,
            Transport::Http => self.http_port,
        };
        Endpoint { transport, port }
    }

    /// Status and body of a GET; status 0 where nobody answered.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let address = Address::Unix(self.socket.clone());
        request(&address, "GET", path, "").unwrap_or((0, String::new()))
    }

    /// Exports spans in OTLP/JSON, as a process that is not the one that made them.
    pub(crate) fn export_json(&self, spans: &str) {
        let to = Address::Local(self.http_port);
        let answer = request(&to, "POST", "/v1/traces", spans).expect("the agent answers");
        assert_eq!(answer.0, 200, "POST /v1/traces: {}", answer.1);
    }

    /// What the agent knows of a service's spans, by span id; without their causes.
    pub(crate) fn spans(&self, service: &str) -> BTreeMap<String, Value> {
        let path = format!("/api/v1/spans?service={service}&min_gap_ms=0&limit={ALL_SPANS}");
        by_span_id(self.json(&path))
    }

    /// The explanation of one span, once it is complete; `None` before.
    pub(crate) fn explanation(&self, trace_id: &str, span_id: &str) -> Option<Value> {
        let (status, body) = self.get(&format!("/api/v1/traces/{trace_id}"));
        if status != 200 {
            return None;
        }
        let span = by_span_id(parse(&body)).remove(span_id)?;
        (span["status"] == "complete").then_some(span)
    }

    /// `lacuna explain ARGUMENTS --format json`, by span id.
    pub(crate) fn explain(&self, arguments: &[&str]) -> BTreeMap<String, Value> {
        let output = Command::new(env!("CARGO_BIN_EXE_lacuna"))
            .args(["explain", "--format", "json", "--agent"])
            .arg(format!("unix:{}", self.socket.display()))
            .args(arguments)
            .output()
            .expect("lacuna explain can be run");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "lacuna explain {arguments:?}: {errors}"
        );
        by_span_id(parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The last lines that the agent printed, for messages.
    pub(crate) fn tail(&self) -> String {
        self.process.tail()
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(
            status,
            200,
            "GET {path}: {body}\nthe agent said:\n{}",
            self.process.tail()
        );
        parse(&body)
    }
}

fn parse(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in: {body}"))
}

fn by_span_id(answer: Value) -> BTreeMap<String, Value> {
    let spans = answer["spans"]
        .as_array()
        .expect("the answer has spans")
        .clone();
    let id = |span: &Value| {
        span["span_id"]
            .as_str()
            .expect("a span has an id")
            .to_owned()
    };
    spans.into_iter().map(|span| (id(&span), span)).collect()
}

/// The port of a `listening NAME 127.0.0.1:PORT` line.
fn listening(process: &Process, name: &str) -> u16 {
    let line = process.wait_for_line(&format!("listening {name} "), START_PATIENCE);
    let port = line.rsplit(':').next().unwrap_or_default().trim();
    port.parse()
        .unwrap_or_else(|_| panic!("no port in: {line}"))
}
