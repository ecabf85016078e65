// SPDX-License-Identifier: Apache-2.0
//! The processes of `lacuna blind` from the outside: started, spoken with, and surely ended, each by its
//! own handle when it is dropped; and by the kernel, should Lacuna be killed.

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

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use lacuna_lab::Stop;

use super::figures::Burst;
use super::worker::BURSTS;
use super::worker::HOG;
use super::worker::WORKER;
use crate::ending::Ending;

/// How often it is looked whether somebody wants the end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A process of ours; dropped, it ends.
struct Member {
    child: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
}

/// The process that makes the bursts.
pub(super) struct Burster(Member);

/// Processes that use CPUs for nothing, once they are told to.
pub(super) struct Hogs(Vec<Member>);

impl Member {
    fn start(arguments: &[&str]) -> Result<Member> {
        let mut child = Command::new("/proc/self/exe")
            .arg0("lacuna")
            .args([WORKER, "--", &std::process::id().to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process")?;
        let streams = child.stdin.take().zip(child.stdout.take());
        let (orders, stdout) = streams.context("its streams are no pipes")?;
        let (sender, lines) = channel();
        let member = Member {
            child,
            orders,
            lines,
        };
        Builder::new()
            .name("blind-lines".to_owned())
            .spawn(move || forward(stdout, |line| sender.send(line).is_ok()))
            .context("cannot start a thread")?;
        Ok(member)
    }

    /// The next line that it says; `None`: not within `wait`.
    fn hear(&self, wait: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(wait) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(anyhow!("a process of ours has ended")),
        }
    }

    /// Gives it an order.
    fn tell(&mut self, what: &str) -> Result<()> {
        writeln!(self.orders, "{what}").context("a process of ours has ended")
    }

    /// Waits until it says something.
    fn await_word(&self, ending: &Ending) -> Result<(), Stop> {
        loop {
            ending.check()?;
            if self.hear(LOOK_EVERY)?.is_some() {
                return Ok(());
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // By its own handle. That it has ended by itself is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says each line of a stream, as it comes, until nobody listens.
fn forward(stream: ChildStdout, mut say: impl FnMut(String) -> bool) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while lines.next().is_some_and(&mut say) {}
}

impl Burster {
    /// Starts it, and waits until it has calibrated a burst to so much CPU time.
    ///
    /// # Errors
    /// It cannot be started, or somebody asked for the end.
    pub(super) fn start(burst_ns: u64, ending: &Ending) -> Result<Burster, Stop> {
        let member = Member::start(&[BURSTS, &burst_ns.to_string()])?;
        member.await_word(ending)?;
        Ok(Burster(member))
    }

    /// Its process, which has one thread.
    pub(super) fn pid(&self) -> u32 {
        self.0.child.id()
    }

    /// Has it make so many bursts; `meanwhile` is called again and again until they are made, and says
    /// whether it has waited itself.
    ///
    /// # Errors
    /// It ended, `meanwhile` failed, or somebody asked for the end.
    pub(super) fn bursts(
        &mut self,
        count: u32,
        ending: &Ending,
        mut meanwhile: impl FnMut() -> Result<bool>,
    ) -> Result<Vec<Burst>, Stop> {
        self.0.tell(&count.to_string())?;
        let mut bursts = Vec::new();
        while bursts.len() < count as usize {
            // A signal from the terminal ends that process too: first look whether one came.
            ending.check()?;
            let wait = match meanwhile()? {
                true => Duration::ZERO,
                false => LOOK_EVERY,
            };
            let heard = self.0.hear(wait);
            ending.check()?;
            if let Some(line) = heard? {
                let burst = Burst::from_line(&line);
                bursts.push(burst.with_context(|| format!("{line:?} is no burst"))?);
            }
        }
        Ok(bursts)
    }
}

impl Hogs {
    /// Starts so many, and waits until all of them are there, asleep and called what they are called:
    /// so whoever sees them at work knows them by that name.
    ///
    /// # Errors
    /// One cannot be started, or somebody asked for the end; then none is left.
    pub(super) fn start(count: u32, ending: &Ending) -> Result<Hogs, Stop> {
        let mut hogs = Vec::new();
        for _ in 0..count {
            ending.check()?;
            hogs.push(Member::start(&[HOG])?);
        }
        for hog in &hogs {
            hog.await_word(ending)?;
        }
        Ok(Hogs(hogs))
    }

    /// Has them use CPUs for nothing from now on, and waits until all of them do.
    ///
    /// # Errors
    /// One has ended, or somebody asked for the end.
    pub(super) fn set_to_work(&mut self, ending: &Ending) -> Result<(), Stop> {
        for hog in &mut self.0 {
            hog.tell("go")?;
        }
        for hog in &self.0 {
            hog.await_word(ending)?;
        }
        Ok(())
    }
}
