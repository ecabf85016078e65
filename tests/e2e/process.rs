// SPDX-License-Identifier: Apache-2.0
//! A child process of a test: its output line by line, its end guaranteed.
//!
//! Both output streams are read by threads and kept, so that the child never blocks on a full pipe
//! and a failing test can show what it said. Dropping it kills it, by its own handle.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// How long a server may take until it listens.
const LISTEN_PATIENCE: Duration = Duration::from_secs(30);

/// A program that a test started.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    output: Arc<Output>,
}

/// What came out of both streams.
#[derive(Default)]
struct Output {
    so_far: Mutex<SoFar>,
    changed: Condvar,
}

#[derive(Default)]
struct SoFar {
    lines: Vec<String>,
    ended_streams: usize,
}

/// Standard output and standard error.
const STREAMS: usize = 2;

impl Process {
    /// Starts it; `name` is for messages.
    pub(crate) fn start(name: &str, mut command: Command) -> Process {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let output = Arc::new(Output::default());
        keep_lines(child.stdout.take().expect("piped"), output.clone());
        keep_lines(child.stderr.take().expect("piped"), output.clone());
        let stdin = child.stdin.take();
        Process {
            name: name.to_owned(),
            child,
            stdin,
            output,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line that contains `text`.
    pub(crate) fn wait_for_line(&self, text: &str, within: Duration) -> String {
        let deadline = Instant::now() + within;
        let mut so_far = self.output.so_far.lock().expect("no reader panicked");
        loop {
            if let Some(line) = so_far.lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || so_far.ended_streams == STREAMS {
                let (name, said) = (&self.name, tail(&so_far.lines));
                panic!("{name} did not print `{text}` within {within:?}, or ended:\n{said}");
            }
            let woken = self.output.changed.wait_timeout(so_far, left);
            so_far = woken.expect("no reader panicked").0;
        }
    }

    /// Waits until somebody listens on that port of this host.
    pub(crate) fn wait_for_listener(&self, port: u16) {
        let deadline = Instant::now() + LISTEN_PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                Instant::now() < deadline,
                "{} does not listen:\n{}",
                self.name,
                self.tail()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it ends by itself in that time.
    pub(crate) fn ends_within(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while !matches!(self.child.try_wait(), Ok(Some(_))) {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Writes a line to its standard input.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{} is gone: {error}", self.name));
    }

    /// The last lines that it printed, for messages.
    pub(crate) fn tail(&self) -> String {
        tail(&self.output.so_far.lock().expect("no reader panicked").lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn keep_lines(stream: impl Read + Send + 'static, output: Arc<Output>) {
    thread::spawn(move || {
        let so_far = || output.so_far.lock().expect("no reader panicked");
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            so_far().lines.push(line);
            output.changed.notify_all();
        }
        so_far().ended_streams += 1;
        output.changed.notify_all();
    });
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(40)..].join("\n")
}
