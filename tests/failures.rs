// SPDX-License-Identifier: Apache-2.0
//! When things go wrong: the real program meets what it will meet, and says so.
//!
//! No privilege, ports in use, hostile spans, forged claims, lost records, commands and agents that
//! die. Each must end in a clear message or a counted, visible `unknown`; nothing panics, nothing
//! hangs, nothing is lost uncounted. What can be shown without the whole program is tested beside
//! the code that does it; here it is the whole program, through its command line and its sockets.
//!
//! Tests named `root_*` load programs into the kernel and need root. Everything that a test starts
//! is ended by its own handle, and nothing of the host is changed.

#[path = "failures/agent.rs"]
mod agent;
#[path = "failures/claims.rs"]
mod claims;
#[path = "failures/crowd.rs"]
mod crowd;
#[path = "failures/exporter.rs"]
mod exporter;
#[path = "failures/grpc.rs"]
mod grpc;
#[path = "failures/hostile.rs"]
mod hostile;
#[path = "failures/http.rs"]
mod http;
#[path = "failures/leave.rs"]
mod leave;
#[path = "failures/losses.rs"]
mod losses;
#[path = "failures/memory.rs"]
mod memory;
#[path = "failures/otlp.rs"]
mod otlp;
#[path = "failures/processes.rs"]
mod processes;
#[path = "failures/program.rs"]
mod program;
#[path = "failures/questions.rs"]
mod questions;
#[path = "failures/report.rs"]
mod report;
#[path = "failures/run.rs"]
mod run;
#[path = "failures/start.rs"]
mod start;
#[path = "failures/until.rs"]
mod until;

use std::time::Duration;

use until::until;

/// Longest time that anything here may take before it counts as hanging. Loading takes seconds where
/// other work keeps the CPUs busy, because the kernel checks each program first.
const PATIENCE: Duration = Duration::from_secs(60);
