// SPDX-License-Identifier: Apache-2.0
//! The agent under test: `lacuna agent`, started as anybody would, with ports and a socket of its own.
//!
//! What the lab proves is the whole way of a span, so nothing of the agent is called here: spans go
//! to its port, and questions to its socket. It ends with the lab.

use std::collections::VecDeque;
use std::fs::DirBuilder;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use lacuna_lab::Stop;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tokio::runtime::Runtime;

use crate::answer::SpanAnswer;
use crate::answer::Status;
use crate::api;
use crate::api::AgentError;
use crate::cli::Address;
use crate::ending::Ending;

/// How long it may take to come up: the kernel verifies its programs first, slowly where it is emulated.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long the answer about a span that has ended may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to end before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// How often what is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Lines of what it said that are kept for messages.
const LINES_MAX: usize = 20;

/// A running agent of the lab's own.
pub(super) struct TestedAgent {
    child: Child,
    /// What it says on standard error, as it comes.
    lines: Receiver<String>,
    otlp_port: u16,
    directory: Private,
    runtime: Runtime,
}

/// A directory that nobody else can look into; gone when dropped.
struct Private(PathBuf);

impl TestedAgent {
    /// Starts it and waits until it can be used.
    pub(super) fn start(ending: &Ending) -> Result<TestedAgent, Stop> {
        let directory = Private::create()?;
        let mut child = Command::new("/proc/self/exe")
            .arg0("lacuna")
            .args([lacuna_lab::PART, "--", &std::process::id().to_string()])
            .args([super::AGENT, "--otlp-grpc", "127.0.0.1:0"])
            .args(["--otlp-http", "127.0.0.1:0", "--api"])
            .arg(format!("unix:{}", directory.socket().display()))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start an agent")?;
        let stderr = child.stderr.take().context("its stream is no pipe")?;
        let (sender, lines) = channel();
        std::thread::Builder::new()
            .name("lab-agent".to_owned())
            .spawn(move || {
                let mut said = BufReader::new(stderr).lines().map_while(Result::ok);
                said.all(|line| sender.send(line).is_ok())
            })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut agent = TestedAgent {
            child,
            lines,
            otlp_port: 0,
            directory,
            runtime,
        };
        agent.otlp_port = agent.await_ports(ending)?;
        Ok(agent)
    }

    /// Its OTLP/HTTP port, once all its listeners are there.
    fn await_ports(&self, ending: &Ending) -> Result<u16, Stop> {
        let deadline = Instant::now() + START_PATIENCE;
        let mut port = None;
        let mut said = VecDeque::new();
        loop {
            ending.check()?;
            match self.lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix("listening otlp-http ") {
                        let number = address.rsplit(':').next().unwrap_or_default();
                        port = Some(number.parse().context("its port is no number")?);
                    }
                    if line.starts_with("listening api ") {
                        return Ok(port.context("the agent takes no spans over HTTP")?);
                    }
                    keep(&mut said, line);
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => {
                    return Err(Stop::Failed(anyhow!(
                        "the agent under test did not start: {}",
                        joined(said)
                    )));
                }
            }
        }
    }

    /// Where it takes spans.
    pub(super) fn otlp_port(&self) -> u16 {
        self.otlp_port
    }

    /// Its answer about a span. One without a thread is waited on: it may get better.
    pub(super) fn answer(
        &self,
        trace_id: &str,
        span_id: &str,
        ending: &Ending,
    ) -> Result<SpanAnswer, Stop> {
        let deadline = Instant::now() + ANSWER_PATIENCE;
        let address = Address::Unix(self.directory.socket());
        let agent = api::Agent::at(address);
        loop {
            ending.check()?;
            let asked = agent.trace(trace_id, Duration::ZERO);
            let found = match self.runtime.block_on(asked) {
                Ok(explanation) => explanation.spans,
                Err(AgentError::UnknownTrace(_)) => Vec::new(),
                Err(error) => {
                    let said = joined(self.lines.try_iter().collect());
                    return Err(Stop::Failed(anyhow!("{error}; it said: {said}")));
                }
            };
            let found = found.into_iter().find(|span| span.head.span_id == span_id);
            let is_late = Instant::now() > deadline;
            match found {
                Some(answer) if is_late || is_settled(&answer) => return Ok(answer),
                None if is_late => {
                    let why = "the agent under test has received no such span";
                    return Err(Stop::Failed(anyhow!(why)));
                }
                _ => sleep(LOOK_EVERY),
            }
        }
    }
}

fn is_settled(answer: &SpanAnswer) -> bool {
    answer.head.status == Status::Complete && answer.head.join.tid != 0
}

fn keep(said: &mut VecDeque<String>, line: String) {
    if said.len() == LINES_MAX {
        said.pop_front();
    }
    said.push_back(line);
}

fn joined(lines: VecDeque<String>) -> String {
    lines.into_iter().collect::<Vec<_>>().join(" | ")
}

impl Drop for TestedAgent {
    fn drop(&mut self) {
        // The child was not waited for, so the pid is still its own.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let told = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let deadline = Instant::now() + END_PATIENCE;
        while told && matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(LOOK_EVERY);
        }
        // Where it has ended, neither does anything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Private {
    fn create() -> Result<Private> {
        let name = format!("lacuna-lab-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Private(path))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("lacuna: cannot remove {}: {error}", self.0.display());
        }
    }
}
