// SPDX-License-Identifier: Apache-2.0
//! A `lacuna agent` of a test's own: free ports, its own socket, its counts, its end.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitStatus;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::PATIENCE;
use crate::program::Program;
use crate::program::lacuna;
use crate::program::through;
use crate::until;

/// A running agent.
pub(crate) struct Agent {
    program: Program,
    socket: PathBuf,
    pub(crate) grpc_port: u16,
    pub(crate) http_port: u16,
    /// Where its socket is, if that is nobody else's business; removed after it.
    _directory: Option<TempDir>,
}

/// That program's `agent` with any ports and that socket. However busy the host is, it watches all of
/// it: what these tests ask about is something else.
fn command(mut command: Command, socket: &Path) -> Command {
    command.args(["agent", "--otlp-grpc", "127.0.0.1:0"]);
    command.args(["--otlp-http", "127.0.0.1:0", "--api"]);
    command.arg(format!("unix:{}", socket.display()));
    command.args(["--record-budget", "1000000000"]);
    command
}

impl Agent {
    /// Starts one and waits until it is ready. Needs root.
    pub(crate) fn start() -> Agent {
        Agent::start_through(&[])
    }

    /// The same by a command that executes what follows it.
    pub(crate) fn start_through(words: &[&str]) -> Agent {
        let directory = tempfile::tempdir().expect("a directory");
        let through = through(words);
        let mut agent = Agent::start_as(through, directory.path().join("api.sock"));
        agent._directory = Some(directory);
        agent
    }

    /// The same with its socket at that path.
    pub(crate) fn start_at(socket: PathBuf) -> Agent {
        Agent::start_as(lacuna(), socket)
    }

    fn start_as(lacuna: Command, socket: PathBuf) -> Agent {
        let program = Program::start(command(lacuna, &socket));
        let port = |name: &str| {
            let address = program.line(&format!("listening {name} "));
            let port = address
                .rsplit(':')
                .next()
                .and_then(|port| port.parse().ok());
            port.unwrap_or_else(|| panic!("no port in {address:?}"))
        };
        let agent = Agent {
            grpc_port: port("otlp-grpc"),
            http_port: port("otlp-http"),
            program,
            socket,
            _directory: None,
        };
        until("the agent is ready", || agent.is_ready().then_some(()));
        agent
    }

    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.get("/readyz").0 == 200
    }

    /// Status and body of a GET over its socket; status 0 where nobody answered.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).unwrap_or((0, String::new()))
    }

    fn try_get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer ends where the connection does.
        write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok((status.unwrap_or(0), body.to_owned()))
    }

    /// What it has counted.
    pub(crate) fn health(&self) -> Value {
        let (status, body) = self.get("/healthz");
        assert_eq!(status, 200, "{body}; it said:\n{}", self.said());
        serde_json::from_str(&body).expect("JSON")
    }

    /// One of its counts, by its place in `/healthz`; a count that is not there is 0.
    pub(crate) fn count(&self, place: &str) -> u64 {
        self.health()
            .pointer(place)
            .and_then(Value::as_u64)
            .unwrap_or(0)
    }

    /// The one span of a trace, once its answer is settled.
    pub(crate) fn explained(&self, trace_id: &str) -> Value {
        until("the explanation", || {
            let (status, body) = self.get(&format!("/api/v1/traces/{trace_id}?wait_ms=5000"));
            if status != 200 {
                return None;
            }
            let mut answer: Value = serde_json::from_str(&body).expect("JSON");
            let span = answer["spans"][0].take();
            (span["status"] != "pending").then_some(span)
        })
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let word = line.and_then(|line| line.split_whitespace().next());
        let kib: u64 = word.and_then(|word| word.parse().ok()).expect("VmRSS");
        kib * 1024
    }

    /// `lacuna explain` with this agent: its status and what it said.
    pub(crate) fn explain(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let mut command = lacuna();
        command.arg("explain").arg("--agent");
        command.arg(format!("unix:{}", self.socket.display()));
        command.args(arguments);
        Program::start(command).end()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    /// Sends it a signal and waits for its end.
    pub(crate) fn end_by(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.program.end().0
    }

    /// What it printed so far.
    pub(crate) fn said(&self) -> String {
        self.program.said()
    }

    /// It is as it should be: alive, ready, no sum broken, no thread panicked.
    #[track_caller]
    pub(crate) fn assert_well(&self) {
        assert!(self.is_ready(), "it said:\n{}", self.said());
        assert_eq!(self.count("/violations"), 0);
        let said = self.said();
        assert!(!said.contains("panicked"), "{said}");
    }
}
