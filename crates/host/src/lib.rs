// SPDX-License-Identifier: Apache-2.0
//! Facts about the host, without eBPF: who a process is, whose a socket is, what a clock did, what
//! a kernel address is called.
//!
//! Everything here reads what the kernel tells any program (`/proc`, `/sys`, netlink, clocks) and
//! writes nothing. Parsers are total: the text of a file is never trusted, and what is in no known
//! form is "not known". A pid is never an identity without its start time. Instants are
//! `CLOCK_MONOTONIC` nanoseconds (`u64`) unless a name says otherwise.
//!
//! It depends on nothing of ours, so it decides nothing about spans or threads: it only answers.
#![deny(unsafe_code)]

pub mod caps;
pub mod cgroup;
pub mod clock;
pub mod counters;
mod diag;
pub mod fd;
#[cfg(test)]
mod mutate;
mod netlink;
pub mod netstat;
pub mod perf;
pub mod pidns;
pub mod pressure;
pub mod process;
pub mod root;
pub mod socket;
pub mod symbols;
pub mod sys;
pub mod tasks;
pub mod taskstats;
pub mod tcp;
pub mod thread;

pub use root::Root;
