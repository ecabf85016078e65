// SPDX-License-Identifier: Apache-2.0
//! What threads did, exactly: switch records in, accounts of any window of any thread out.
//!
//! This crate is pure: it does no I/O, reads no clock, has no `unsafe`, and depends on nothing of
//! ours. The same events give the same answer, so that a simulator, a recording and a live kernel
//! cannot be told apart. It knows neither wire bytes (that is `lacuna-probes`) nor OTLP (that is
//! the binary).
//!
//! Promise: for every thread and every window, the causes of the account add up to the length of
//! the window, to the nanosecond; what is not proved is [`Cause::Unknown`] with its reason.
#![forbid(unsafe_code)]

pub mod account;
pub mod cause;
pub mod chain;
mod chunk;
mod chunks;
mod codec;
mod cursor;
mod detours;
mod doubts;
pub mod event;
pub mod join;
mod record;
pub mod recorder;
mod recorder_presence;
#[cfg(test)]
#[path = "../tests/simulator/rng.rs"]
mod rng;
mod segment;
mod split;
mod table;
mod thread;
mod walk;

pub use account::Account;
pub use cause::Cause;
pub use event::Event;
pub use event::Ns;
pub use event::ThreadId;
pub use recorder::Recorder;
