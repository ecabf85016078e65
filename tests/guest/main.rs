// SPDX-License-Identifier: Apache-2.0
//! What can be proved only by changing a machine: in guests that nobody else needs.
//!
//! These tests take CPUs offline, set the wall clock, limit the number of processes and hide what the
//! program needs. So they are ignored unless asked for, the kernel matrix (`make matrix`) asks for them in
//! its guests, and each fails anywhere else. `guest_any_*` hold on any kernel in any boot that the agent
//! works in; another word says which boot they are about (`lockdown`, `v1`, `cpus4`).
//!
//! Time in a guest is emulated: amounts are compared with the guest's own counters, and nothing is
//! expected to be quick.

mod account;
mod clock;
mod counters;
mod cpus;
mod crowd;
mod doctor;
mod killed;
mod ladder;
mod machine;
mod pids;
mod pool;
mod refused;
mod spans;
mod throttle;

#[path = "../failures/agent.rs"]
#[expect(dead_code, reason = "shared with tests/failures, which uses all of it")]
mod agent;
#[path = "../failures/exporter.rs"]
#[expect(dead_code, reason = "shared with tests/failures, which uses all of it")]
mod exporter;
#[path = "../failures/http.rs"]
#[expect(dead_code, reason = "shared with tests/failures, which uses all of it")]
mod http;
#[path = "../failures/otlp.rs"]
#[expect(dead_code, reason = "shared with tests/failures, which uses all of it")]
mod otlp;
#[path = "../failures/program.rs"]
#[expect(dead_code, reason = "shared with tests/failures, which uses all of it")]
mod program;
#[path = "../failures/report.rs"]
mod report;
#[path = "../failures/until.rs"]
mod until;

use std::time::Duration;

use until::until;

/// Longest time that anything here may take before it counts as hanging. An emulated CPU is some
/// twenty times slower and shares the host's with others, and checking the programs is the slowest of
/// what it does.
const PATIENCE: Duration = Duration::from_secs(400);
