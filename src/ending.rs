// SPDX-License-Identifier: Apache-2.0
//! The word that somebody wants this program to end: what started processes cleans up first, and then
//! ends by that signal.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::Context;
use anyhow::Result;
use lacuna_lab::Stop;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::flag;
use signal_hook::low_level::emulate_default_handler;

/// Hears signals from its making on.
pub(crate) struct Ending {
    came: Arc<AtomicBool>,
    which: Arc<AtomicUsize>,
}

impl Ending {
    /// Handles the signals that ask for an end.
    pub(crate) fn listen() -> Result<Ending> {
        let ending = Ending {
            came: Arc::default(),
            which: Arc::default(),
        };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = signal.unsigned_abs() as usize;
            // The number first: who sees that one came finds which.
            flag::register_usize(signal, ending.which.clone(), number)
                .and_then(|_| flag::register(signal, ending.came.clone()))
                .context("cannot handle signals")?;
        }
        Ok(ending)
    }

    /// Becomes true when one came.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        self.came.clone()
    }

    /// Goes on, unless one came.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        match self.came.load(Ordering::Acquire) {
            true => Err(Stop::Ended),
            false => Ok(()),
        }
    }

    /// Where one came, ends this process by it, so that its parent sees that; call it last.
    pub(crate) fn end_if_told(&self) {
        let signal = self.which.load(Ordering::Acquire);
        if let Some(signal) = i32::try_from(signal).ok().filter(|signal| *signal != 0) {
            // It does not return for these.
            let _ = emulate_default_handler(signal);
        }
    }
}
