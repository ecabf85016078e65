// SPDX-License-Identifier: Apache-2.0
//! Signals while a command runs: what the terminal sends reaches both of us, the rest is passed on.
//!
//! As `time(1)` does, this process ignores `SIGINT` and `SIGQUIT` meanwhile: the terminal sends them
//! to the whole foreground group, the command among it, and the report must still be written.
//! Signals that other processes send to a supervisor alone go on to the command, by pidfd: never to
//! another process that has got its pid.
//!
//! The handlers stay until this process ends; they are for `lacuna run` alone. That they are handlers
//! and not "ignore" matters: what is ignored would stay so across `exec`.

use std::io::Error;
use std::os::fd::OwnedFd;
use std::thread::Builder;
use std::thread::JoinHandle;

use rustix::process::Signal;
use rustix::process::pidfd_send_signal;
use signal_hook::consts::SIGALRM;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGQUIT;
use signal_hook::consts::SIGTERM;
use signal_hook::consts::SIGUSR1;
use signal_hook::consts::SIGUSR2;
use signal_hook::iterator::Handle;
use signal_hook::iterator::Signals;

/// A thread that passes signals on to one process, until dropped.
#[derive(Debug)]
pub(super) struct Forwarder {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Handles signals from here on.
    pub(super) fn start(to: OwnedFd) -> Result<Forwarder, Error> {
        let handled = [SIGINT, SIGQUIT, SIGHUP, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM];
        let mut signals = Signals::new(handled)?;
        let handle = signals.handle();
        let thread = Builder::new()
            .name("lacuna-signals".to_owned())
            .spawn(move || {
                for signal in signals.forever().filter_map(passed_on) {
                    // It fails only where the command has ended, and then nobody is left to tell.
                    let _ = pidfd_send_signal(&to, signal);
                }
            })?;
        Ok(Forwarder {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; there is nothing to clean up after it.
            let _ = thread.join();
        }
    }
}

/// What is sent to this process alone. `None`: the terminal has sent it to the command as well.
fn passed_on(signal: i32) -> Option<Signal> {
    match signal {
        SIGHUP => Some(Signal::HUP),
        SIGTERM => Some(Signal::TERM),
        SIGUSR1 => Some(Signal::USR1),
        SIGUSR2 => Some(Signal::USR2),
        SIGALRM => Some(Signal::ALARM),
        _ => None,
    }
}
