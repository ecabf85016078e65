// SPDX-License-Identifier: Apache-2.0
//! A program that a test starts: what it says, how it ends, and that it ends.
//!
//! Both output streams are read by threads, so it never blocks on a full pipe and a failing test can
//! show what it said. Dropping it kills it by its own handle.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::thread::JoinHandle;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;

use crate::until;

/// `nobody` and `nogroup`: a user without any privilege.
pub(crate) const NOBODY: u32 = 65_534;

/// The program under test.
pub(crate) fn lacuna() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lacuna"))
}

/// The same by a command that executes what follows it, if there is one.
pub(crate) fn through(words: &[&str]) -> Command {
    let own = lacuna();
    let Some((first, rest)) = words.split_first() else {
        return own;
    };
    let mut command = Command::new(first);
    command.args(rest).arg(own.get_program());
    command
}

/// The same command as a user without any privilege.
pub(crate) fn as_nobody(mut command: Command) -> Command {
    command.gid(NOBODY).uid(NOBODY);
    command
}

/// A program under way.
pub(crate) struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> Program {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let lines = Arc::default();
        let readers = vec![
            keep_lines(child.stdout.take().expect("piped"), &lines),
            keep_lines(child.stderr.take().expect("piped"), &lines),
        ];
        Program {
            child,
            lines,
            readers,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that starts with `start`; what follows that start.
    #[track_caller]
    pub(crate) fn line(&self, start: &str) -> String {
        until(start, || {
            let lines = self.lines.lock().expect("no reader panicked");
            let line = lines.iter().find_map(|line| line.strip_prefix(start));
            line.map(str::to_owned)
        })
    }

    /// Writes a line to its standard input.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is ours");
    }

    /// Waits for its end: its status and all that it said.
    #[track_caller]
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        let said = self.said();
        let status = until(&format!("its end; so far it said:\n{said}"), || {
            self.child.try_wait().expect("it is ours")
        });
        // What it started may still read its input, and hold its output.
        drop(self.child.stdin.take());
        let read = || self.readers.iter().all(JoinHandle::is_finished);
        until("the end of its streams", || read().then_some(()));
        (status, self.said())
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        self.lines.lock().expect("no reader panicked").join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn keep_lines(
    stream: impl Read + Send + 'static,
    lines: &Arc<Mutex<Vec<String>>>,
) -> JoinHandle<()> {
    let lines = lines.clone();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            lines.lock().expect("no reader panicked").push(line);
        }
    })
}
