// SPDX-License-Identifier: Apache-2.0
//! The measurements that need no spans: `lacuna events` and `lacuna blind`, through the real program,
//! held against what the kernel counts itself.
//!
//! Nothing is compared with an expectation of quiet: the kernel's own counters bracket every number, on
//! any machine. Tests named `root_*` need root, or keep all CPUs busy.

#[path = "measurements/blind.rs"]
mod blind;
#[path = "measurements/events.rs"]
mod events;
#[path = "failures/program.rs"]
mod program;
#[path = "failures/until.rs"]
mod until;

use std::time::Duration;

use rustix::time::ClockId;
use rustix::time::clock_gettime;
use serde_json::Value;
use until::until;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn now_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).expect("after 1970");
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("positive")
}

/// A number of a report; instants are text there.
#[track_caller]
fn number(value: &Value) -> u64 {
    let text = || value.as_str()?.parse().ok();
    let number = value.as_u64().or_else(text);
    number.unwrap_or_else(|| panic!("a number, not {value}"))
}
