// SPDX-License-Identifier: Apache-2.0
//! What the join must be able to ask: which threads a process had, and when they were on a CPU.
//!
//! This is a question only. The flight recorder answers it from switch records, the simulator from
//! its script; neither knows spans. Every answer is three-valued, because a lost or merged record
//! must end in "maybe" and never in a wrong "no": the join treats a maybe as a possible culprit and
//! refuses, so an honest maybe costs a join and a dishonest no costs the truth.

use crate::event::Ns;
use crate::event::ProcessId;
use crate::event::ThreadId;

/// Whether a thread was on a CPU in a stretch of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnCpu {
    /// For at least one moment of it, by confirmed records.
    Yes,
    /// At no moment of it, by confirmed records.
    No,
    /// Not proved: a part of it is unknown, merged, in doubt or beyond the horizon, and no
    /// confirmed part of it was on a CPU.
    Maybe,
}

/// Whether a thread heard of a connection in a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It waited for such a connection, and that wait ended then, by confirmed records; the last
    /// such one at this instant.
    Yes(Ns),
    /// No such wait ended then, by confirmed records.
    No,
    /// Not proved.
    Maybe,
}

/// A thread as the join needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadFacts<'a> {
    /// Our id.
    pub thread: ThreadId,
    /// Kernel thread id in the initial pid namespace.
    pub tid: u32,
    /// Thread id in the thread's own pid namespace.
    pub ns_tid: u32,
    /// It is the thread group leader.
    pub main: bool,
    /// FS base (`pthread_self()` with glibc on x86-64); 0 unknown.
    pub fs_base: u64,
    /// The kernel's name of it, at most 15 characters.
    pub comm: &'a str,
    /// When it was born; the best lower bound where it is older than the observation.
    pub born: Ns,
    /// When it left its CPU for the last time; `None`: it lives.
    pub died: Option<Ns>,
}

/// How long a thread was on a CPU in a window; what is left over it was surely off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Running {
    /// Confirmed nanoseconds on a CPU.
    pub on_ns: Ns,
    /// Nanoseconds of which it is not known.
    pub unknown_ns: Ns,
}

/// What the join asks of the flight recorder, or of a simulator.
///
/// Windows are closed, `from <= to`, `CLOCK_MONOTONIC`. The answers about one instant may change
/// from `Maybe` to `Yes` or `No` as records arrive, never between those two.
pub trait Presence {
    /// Visits each thread of `process` that was alive at any moment of the window, once, without
    /// kernel threads and io workers (they take no timestamps of spans). False where there may
    /// have been threads that are not known, or the window is out of reach: then nothing that
    /// counts candidates may be believed.
    fn threads(
        &self,
        process: ProcessId,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(&ThreadFacts<'_>),
    ) -> bool;

    /// Whether `thread` was on a CPU at some moment of the window. The window is an instant
    /// widened by its clock error, so it is short: microseconds, or one tick of a coarse clock.
    fn on_cpu(&self, thread: ThreadId, from: Ns, to: Ns) -> OnCpu;

    /// How much of the window `thread` was on a CPU. Used for a sample of the spans only.
    fn running(&self, thread: ThreadId, from: Ns, to: Ns) -> Running;

    /// Visits the stretches of the window, from and to, in which `thread` was on a CPU (`Yes`) or
    /// may have been (`Maybe`); in order and clipped to the window.
    fn stretches(&self, thread: ThreadId, from: Ns, to: Ns, visit: &mut dyn FnMut(Ns, Ns, OnCpu));

    /// Whether a wait of `thread` for a TCP connection whose other end has that port ended in the
    /// window: in a read or a write of it, or in a poll that it alone ended.
    fn heard(&self, thread: ThreadId, peer_port: u16, from: Ns, to: Ns) -> Heard;

    /// Visits the threads, of whatever process, that took a request from a TCP connection whose other end
    /// has that port, each with when it began to read; without those whose wait tells so. False where some
    /// may not be known.
    fn takers(&self, peer_port: u16, from: Ns, to: Ns, visit: &mut dyn FnMut(ThreadId, Ns))
    -> bool;
}
