// SPDX-License-Identifier: Apache-2.0
//! The kernel side and its loader: bytes from the kernel in, `lacuna_timeline` events out.
//!
//! The only crate that knows libbpf and wire bytes. The programs are in `src/bpf`; the record that
//! they write is `src/bpf/record.h`, and docs/design/0001-record.md says why it is as it is. Nothing
//! here decides what a fact means, and nothing here writes to the host: no sysctl, no pinned object.

mod arch;
mod config;
mod error;
mod features;
mod hooks;
mod load;
mod log;
mod probes;
mod record;
mod ring;
#[allow(
    clippy::all,
    clippy::too_many_lines,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
mod skel;
mod stats;
mod verifier;

pub use config::Config;
pub use config::Counters;
pub use config::Drained;
pub use config::FaultPlan;
pub use config::HookReport;
pub use config::KernelFacts;
pub use config::LimitClock;
pub use config::OTLP_PORTS_MAX;
pub use config::ProgramCost;
pub use config::ProgramSize;
pub use config::RING_BYTES_MAX;
pub use config::RING_BYTES_MIN;
pub use config::RunStats;
pub use config::Watch;
pub use error::Error;
pub use features::kernel_facts;
pub use hooks::try_each_hook;
pub use probes::Probes;
pub use probes::Symbolize;
pub use verifier::verified_insns;
