// SPDX-License-Identifier: Apache-2.0
//! Waiting for a condition, as long as the test that includes this has patience, never for a fixed time.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::PATIENCE;

/// Waits until `look` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
