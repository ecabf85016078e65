// SPDX-License-Identifier: Apache-2.0
//! `lacuna ladder` on real processes: sick ones are called what they are, healthy ones healthy, and what
//! cannot be said is not said.
//!
//! Truth is each program's own clock (`ladder/worker.py`), the group's `cpu.stat`, and what was dropped
//! on a link between two network namespaces, each over the window and a little more. This machine may be
//! as busy as it likes: where a healthy program was kept waiting by its own clock, to be called contended
//! is right, and where it was not it is wrong.

#[path = "failures/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;

#[path = "ladder/bad_input.rs"]
mod bad_input;
#[path = "ladder/cost.rs"]
mod cost;
#[path = "ladder/link.rs"]
mod link;
#[path = "failures/until.rs"]
mod until;
#[path = "ladder/verdicts.rs"]
mod verdicts;
#[path = "ladder/worker.rs"]
mod worker;

use std::time::Duration;

use until::until;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
