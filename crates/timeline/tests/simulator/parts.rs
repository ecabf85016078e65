// SPDX-License-Identifier: Apache-2.0
//! What the simulated host is made of: threads, CPUs, and what is on its agenda.

use std::collections::VecDeque;
use std::ops::Range;

use lacuna_timeline::Cause;
use lacuna_timeline::Ns;
use lacuna_timeline::ThreadId;
use lacuna_timeline::cause::detour_cause;
use lacuna_timeline::event::DetourKind;

use crate::truth::Times;
use crate::truth::Truth;

/// A thread's true state.
pub(crate) struct Thread {
    pub(crate) id: ThreadId,
    pub(crate) born: Ns,
    pub(crate) died: Option<Ns>,
    /// When it first came on a CPU: from then on it is observed.
    pub(crate) first_in: Option<Ns>,
    pub(crate) truth: Truth,
    pub(crate) running: Times,
    /// Stretches on queues behind others: CPU and time.
    pub(crate) queued: Vec<(usize, Range<Ns>)>,
    pub(crate) detours: Vec<(DetourKind, Ns)>,
    pub(crate) cpu: usize,
    pub(crate) place: Place,
    pub(crate) since: Ns,
    /// It waits because it was woken, not because it was preempted.
    pub(crate) woken: bool,
    pub(crate) migrated: bool,
    pub(crate) turn: u64,
    /// What is true of the connection that it waits for, from each instant on.
    pub(crate) exchange: Vec<(Ns, Cause)>,
}

/// Where a thread is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    OnCpu,
    Queued,
    Moving,
    Throttled,
    Blocked,
    Dead,
}

/// A CPU and its queue.
#[derive(Default)]
pub(crate) struct Cpu {
    pub(crate) current: Option<usize>,
    pub(crate) queue: VecDeque<usize>,
    /// It leaves idle; who is first in the queue comes on it then.
    pub(crate) leaving_idle: bool,
    pub(crate) turn: u64,
}

/// What happens later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Step {
    BurstEnd(usize, u64),
    SliceEnd(usize, u64),
    Wake(usize),
    Enqueue(usize, usize),
    LeaveIdle(usize),
    Balance,
    Limit,
    LetGo(usize),
    Look,
    Timer(u64),
}

/// How a wait ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    /// It is woken before it has left the CPU.
    Early,
    /// After so long.
    After(Ns),
    /// When somebody wakes it.
    Woken,
}

impl Thread {
    /// Its cause while it runs.
    pub(crate) fn on_cpu_cause(&self) -> Cause {
        self.detours
            .last()
            .map_or(Cause::Cpu, |open| detour_cause(open.0))
    }

    /// Its cause while it queues behind others.
    pub(crate) fn queue_cause(&self) -> Cause {
        if self.woken {
            Cause::RunqWakeup
        } else {
            Cause::RunqPreempted
        }
    }
}
