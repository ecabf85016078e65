// SPDX-License-Identifier: Apache-2.0
//! A word to a person who has waited for more than a second: what it is that takes so long.
//!
//! Only on a terminal; whatever reads a pipe is not impatient.

use std::io::IsTerminal;
use std::sync::mpsc;
use std::time::Duration;

/// How long a person waits without asking.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says `what` on standard error, once, if it still exists after a second.
pub(crate) struct Patience {
    _done: Option<mpsc::Sender<()>>,
}

impl Patience {
    /// Begins to wait.
    pub(crate) fn with(what: &'static str) -> Patience {
        if !std::io::stderr().is_terminal() {
            return Patience { _done: None };
        }
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            let waited = is_done.recv_timeout(PATIENCE);
            if waited == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("lacuna: {what} ...");
            }
        });
        Patience { _done: Some(done) }
    }
}
