// SPDX-License-Identifier: Apache-2.0
//! A process of a scenario, from the lab's side: started, spoken with, and surely ended.
//!
//! It is this program again. Lines of JSON go both ways over its standard streams; what it prints on
//! standard error is shown. It ends when its [`Actor`] is dropped, and if the lab is killed the
//! kernel ends it.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::getppid;
use rustix::process::set_parent_process_death_signal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::net::command;
use crate::part::PART;
use crate::stage::Stage;
use crate::stage::Stop;

/// How long a process may take to say its next word: all of a scenario, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether somebody wants the end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process of a scenario.
#[derive(Debug)]
pub struct Actor<'a> {
    stage: &'a Stage<'a>,
    name: String,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl<'a> Actor<'a> {
    pub(crate) fn start(
        stage: &'a Stage<'a>,
        scenario: &str,
        part: &str,
        arguments: &[String],
    ) -> Result<Self, Stop> {
        let mut child = Command::new("/proc/self/exe")
            .arg0("lacuna")
            .args([PART, "--", &std::process::id().to_string(), scenario, part])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {part}"))?;
        let streams = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = streams.context("its streams are not pipes")?;
        Ok(Self {
            stage,
            name: part.to_owned(),
            child,
            stdin,
            lines: keep_lines(stdout).context("cannot start a thread")?,
        })
    }

    /// Its process id; also the tid of its first thread.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it run before all others, where those are no part of what is told. And the truth needs it: of a
    /// thread without a real-time priority `schedstat` calls a sleep queued now and then, where the scheduler
    /// leaves who sleeps in the queue for a while (from 6.12 on) and then moves it to another CPU.
    ///
    /// # Errors
    /// This host gives no such priority.
    pub(crate) fn run_first(&self) -> Result<(), Stop> {
        command(&format!("chrt --fifo --pid 1 {}", self.pid()))
            .map_err(|why| Stop::NotHere(format!("no real-time priority can be had: {why:#}")))?;
        Ok(())
    }

    /// Writes a line of JSON to it.
    ///
    /// # Errors
    /// It has ended.
    pub fn say(&mut self, what: &impl Serialize) -> Result<(), Stop> {
        let line = serde_json::to_string(what).context("cannot be said in JSON")?;
        let said = writeln!(self.stdin, "{line}");
        Ok(said.with_context(|| format!("{} has ended", self.name))?)
    }

    /// The next line that it prints.
    ///
    /// # Errors
    /// It ended, said something else, or nothing for too long; or the lab is to end.
    pub fn hear<T: DeserializeOwned>(&self) -> Result<T, Stop> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.stage.check()?;
            match self.lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => {
                    let heard = serde_json::from_str(&line);
                    return Ok(heard.with_context(|| format!("{} said {line:?}", self.name))?);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Stop::Failed(anyhow!("{} has ended", self.name)));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    return Err(Stop::Failed(anyhow!(
                        "{} said nothing for {PATIENCE:?}",
                        self.name
                    )));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Actor<'_> {
    fn drop(&mut self) {
        // By its own handle. That it has ended by itself is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a stream, as they come; the channel closes with the stream.
fn keep_lines(stream: ChildStdout) -> std::io::Result<Receiver<String>> {
    let (sender, lines) = channel();
    Builder::new().name("lab-lines".to_owned()).spawn(move || {
        let mut heard = BufReader::new(stream).lines().map_while(Result::ok);
        heard.all(|line| sender.send(line).is_ok())
    })?;
    Ok(lines)
}

/// Has the kernel end this process when its parent, whose process id is given, ends in whatever way.
///
/// # Errors
/// The parent has ended already.
pub fn die_with_parent(parent: u32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot be tied to its parent")?;
    let is_there = getppid().map(Pid::as_raw_nonzero).map(i32::from) == i32::try_from(parent).ok();
    if !is_there {
        bail!("its parent has ended");
    }
    Ok(())
}
