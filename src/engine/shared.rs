// SPDX-License-Identifier: Apache-2.0
//! What the threads of the agent share: the recorder, who is which process, and a few counts.
//!
//! One lock for the recorder, held for a batch of records or for one answer; no lock is taken while
//! another is held, except the recorder's first.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use lacuna_host::clock::Clock;
use lacuna_host::root::Root;
use lacuna_probes::Counters;
use lacuna_timeline::Ns;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::event::ThreadInfo;
use lacuna_timeline::recorder::Recorder;

use crate::explain::CgroupNames;

use super::health::Tally;

/// How many processes are known by their tgid; at the limit those without a living thread go.
const PROCESSES_MAX: usize = 65_536;

/// What the threads of one engine share.
pub(crate) struct Shared {
    /// This host's clocks.
    pub(crate) clock: Clock,
    /// Names of cgroups.
    pub(crate) cgroups: CgroupNames,
    /// Kernel records that were lost since the start.
    pub(crate) lost_records: AtomicU64,
    /// Accounts whose sums did not hold: a defect of ours; must stay 0.
    pub(crate) violations: AtomicU64,
    tally: Mutex<Tally>,
    /// What the kernel side had counted when its counters were last read.
    counters: Mutex<Counters>,
    recorder: Mutex<Recorder>,
    processes: Mutex<HashMap<u32, ProcessId>>,
    /// Answers are wanted up to here: the feed moves the horizon only when somebody waits.
    wanted: AtomicU64,
    horizon: AtomicU64,
    /// Processes that are to be watched when not everything is.
    to_watch: Mutex<Vec<u32>>,
}

impl Shared {
    /// An engine without records.
    ///
    /// # Errors
    /// The clocks cannot be watched (no descriptors left).
    pub(crate) fn new(root: &Root, recorder: Recorder) -> std::io::Result<Shared> {
        Ok(Shared {
            clock: Clock::new()?,
            cgroups: CgroupNames::discover(root),
            lost_records: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            tally: Mutex::default(),
            counters: Mutex::default(),
            recorder: Mutex::new(recorder),
            processes: Mutex::new(HashMap::new()),
            wanted: AtomicU64::new(0),
            horizon: AtomicU64::new(0),
            to_watch: Mutex::new(Vec::new()),
        })
    }

    /// The recorder, locked.
    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        lock(&self.recorder)
    }

    /// What the kernel side had counted when its counters were last read, locked.
    pub(super) fn counters(&self) -> MutexGuard<'_, Counters> {
        lock(&self.counters)
    }

    /// What the explainer has counted, locked.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    /// Notes a thread's process.
    pub(super) fn note(&self, info: &ThreadInfo) {
        let mut processes = lock(&self.processes);
        if processes.len() >= PROCESSES_MAX {
            processes.retain(|&tgid, _| tgid == info.process.tgid);
        }
        let known = processes.entry(info.process.tgid).or_insert(info.process);
        // Of two processes with one pid the later is the one that lives.
        if info.process.start_ns >= known.start_ns {
            *known = info.process;
        }
    }

    /// The latest process with that pid.
    pub(crate) fn process(&self, tgid: u32) -> Option<ProcessId> {
        lock(&self.processes).get(&tgid).copied()
    }

    /// Asks for answers up to `at`.
    pub(crate) fn want(&self, at: Ns) {
        self.wanted.fetch_max(at, Ordering::Relaxed);
    }

    /// Whether somebody waits for answers behind the horizon.
    pub(super) fn horizon_is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > self.horizon()
    }

    /// Up to where answers may be given.
    pub(crate) fn horizon(&self) -> Ns {
        self.horizon.load(Ordering::Acquire)
    }

    /// Moves the horizon; the recorder has been told before.
    pub(super) fn move_horizon(&self, to: Ns) {
        self.horizon.fetch_max(to, Ordering::Release);
    }

    /// Has a process watched, should not everything be.
    pub(super) fn watch(&self, tgid: u32) {
        lock(&self.to_watch).push(tgid);
    }

    /// The processes to watch that were named since this was last asked.
    pub(super) fn take_to_watch(&self) -> Vec<u32> {
        std::mem::take(&mut *lock(&self.to_watch))
    }
}

/// Locks; what a panicking thread left behind is consistent between any two statements, and a panic
/// ends the program anyway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
