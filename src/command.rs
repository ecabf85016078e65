// SPDX-License-Identifier: Apache-2.0
//! The command that `lacuna run` watches and `lacuna events` counts: held before its first instruction, let go, waited for.
//!
//! ```text
//! hold() --> Held { pid } --release()--> Running --wait()--> Ended
//! ```
//!
//! A command must be watched from its first instruction, so its process has to exist before the
//! probes are told of it. Nothing may run between `fork` and `exec` here (this program has threads
//! and no `unsafe`), so the child is this program again, in [`stage`]: it waits at a gate, a socket
//! that sits where its standard input will be, and then becomes the command. Its pid stays.
//!
//! The command sees what it would have seen under `time(1)`: the same standard streams (its input
//! comes through the gate as the descriptor itself), process group and terminal, working directory
//! and environment. What it does is not looked at here; that is the probes' part.

mod gate;
mod mirror;
mod signals;
mod stage;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use lacuna_host::clock::monotonic_ns;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::pidfd_open;

use signals::Forwarder;

pub(crate) use mirror::exit_as;
pub(crate) use mirror::shell_status;
pub(crate) use stage::stage;

/// The hidden subcommand that turns this program into [`stage`].
pub(crate) const STAGE: &str = "__exec";

/// Exit status where Lacuna itself failed, as env(1).
pub(crate) const EXIT_LACUNA_FAILED: u8 = 125;
/// Exit status where the command was found and could not be executed, as env(1).
pub(crate) const EXIT_CANNOT_EXECUTE: u8 = 126;
/// Exit status where the command was not found, as env(1).
pub(crate) const EXIT_NOT_FOUND: u8 = 127;

/// A command that waits before its first instruction. Dropped, it ends without ever having run,
/// because its gate is closed.
#[derive(Debug)]
pub(crate) struct Held {
    /// The process that will be the command; also the tid of its first thread.
    pub(crate) pid: u32,
    child: Child,
    gate: UnixStream,
}

/// A command that was let go.
#[derive(Debug)]
pub(crate) struct Running {
    /// When it was let go: `CLOCK_MONOTONIC` nanoseconds. Its `exec` follows within microseconds.
    pub(crate) released_ns: u64,
    child: Child,
    pidfd: OwnedFd,
    /// Passes signals on as long as it lives.
    _forwarder: Forwarder,
}

/// How a command ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// Its exit status or the signal that ended it.
    pub(crate) status: ExitStatus,
    /// When that was noticed: `CLOCK_MONOTONIC` nanoseconds, shortly after its end.
    pub(crate) ended_ns: u64,
}

/// Starts `command` and holds it before its first instruction.
///
/// # Errors
///
/// Where no process can be made, or it does not reach its gate. That the command does not exist
/// is found only by its own `exec`: then it ends with 127, as under env(1).
pub(crate) fn hold(command: &[OsString]) -> Result<Held> {
    if command.is_empty() {
        bail!("no command to run");
    }
    let (gate, inner) = UnixStream::pair().context("making the gate of the command")?;
    let child = Command::new("/proc/self/exe")
        .arg0("lacuna")
        .arg(STAGE)
        .arg("--")
        .args(command)
        .stdin(Stdio::from(OwnedFd::from(inner)))
        .spawn()
        .context("starting the process of the command")?;
    let held = Held {
        pid: child.id(),
        child,
        gate,
    };
    gate::await_arrival(&held.gate).context("the process of the command ended before its time")?;
    Ok(held)
}

impl Held {
    /// Lets the command run. From here on signals sent to this process alone are passed on to it,
    /// and the terminal's own (`SIGINT`, `SIGQUIT`), which reach both, no longer end this process.
    ///
    /// # Errors
    ///
    /// Where the command was killed while it was held, or the kernel lacks pidfds (before 5.3).
    pub(crate) fn release(self) -> Result<Running> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.context("the command has no valid pid")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("opening a pidfd")?;
        let forwarder = Forwarder::start(pidfd.try_clone()?).context("handling signals")?;
        let released_ns = monotonic_ns();
        gate::open(&self.gate).context("letting the command go")?;
        Ok(Running {
            released_ns,
            child: self.child,
            pidfd,
            _forwarder: forwarder,
        })
    }
}

impl Running {
    /// Waits until the command is dead, and does not take it away: until [`Running::wait`] `/proc` tells
    /// all that it did. Says when that was noticed: `CLOCK_MONOTONIC` nanoseconds.
    ///
    /// # Errors
    ///
    /// Where the kernel cannot be asked.
    pub(crate) fn wait_dead(&self) -> Result<u64> {
        loop {
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], None) {
                Ok(_) => return Ok(monotonic_ns()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for the command"),
            }
        }
    }

    /// Waits until the command has ended.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to say how it ended.
    pub(crate) fn wait(&mut self) -> Result<Ended> {
        let status = self.child.wait().context("waiting for the command")?;
        Ok(Ended {
            status,
            ended_ns: monotonic_ns(),
        })
    }

    /// Waits until the command has ended, for `timeout` at most; `None`: it is still running.
    ///
    /// # Errors
    ///
    /// As [`Running::wait`].
    pub(crate) fn wait_for(&mut self, timeout: Duration) -> Result<Option<Ended>> {
        let timeout = Timespec::try_from(timeout).context("the time to wait is too long")?;
        let mut watched = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut watched, Some(&timeout)) {
            // A signal cut the wait short: the caller comes again.
            Ok(0) | Err(Errno::INTR) => Ok(None),
            Ok(_) => self.wait().map(Some),
            Err(error) => Err(error).context("waiting for the command"),
        }
    }
}

/// Whatever fails in this program, it does not end before the command that it was put in front of.
impl Drop for Running {
    fn drop(&mut self) {
        // Known already where it was asked for; where it cannot be known there is nobody to tell.
        let _ = self.child.wait();
    }
}

/// Runs `command` held, let go and mirrored as `lacuna run` does, and watches nothing: so tests see
/// this module through a real process, without the privilege that watching needs.
pub(crate) fn bare(command: &[OsString]) -> Result<ExitCode> {
    let ended = hold(command)?.release()?.wait()?;
    Ok(exit_as(ended.status))
}
