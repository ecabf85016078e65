// SPDX-License-Identifier: Apache-2.0
//! The flight recorder: what every thread did, as long ago as one memory budget reaches.

use std::collections::HashMap;
use std::ops::Range;

use crate::account::Account;
use crate::account::Reason;
use crate::event::Event;
use crate::event::Ns;
use crate::event::ObjectId;
use crate::event::ObjectInfo;
use crate::event::ProcessId;
use crate::event::StackId;
use crate::event::StackInfo;
use crate::event::ThreadId;
use crate::event::ThreadInfo;

/// The recorder's memory budget unless told otherwise.
pub const BUDGET_BYTES: usize = 64 << 20;

/// What the recorder holds and what it had to drop; all counts since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory in use, by its own bookkeeping; never above the budget.
    pub bytes: usize,
    /// Threads known.
    pub threads: usize,
    /// Records held now.
    pub records: u64,
    /// Segments (running, runnable, blocked) held now.
    pub segments: u64,
    /// Records taken in.
    pub records_in: u64,
    /// Records dropped to stay under the budget, oldest first.
    pub evicted: u64,
    /// Records proved to be missing by their numbers.
    pub lost: u64,
    /// Records that came after a later one of the same thread.
    pub late: u64,
    /// Records refused because they contradict themselves or others.
    pub malformed: u64,
    /// Threads forgotten though they had not ended, because there were too many.
    pub threads_forgotten: u64,
    /// Facts about objects and stacks dropped to stay under the limits of their tables.
    pub facts_dropped: u64,
}

/// The flight recorder.
#[derive(Debug)]
pub struct Recorder {
    threads: HashMap<ThreadId, ThreadInfo>,
    horizon: Ns,
}

impl Recorder {
    /// An empty recorder that holds at most that much memory.
    pub fn new(_budget_bytes: usize) -> Recorder {
        Recorder {
            threads: HashMap::new(),
            horizon: 0,
        }
    }

    /// Takes an event in, in any order.
    pub fn push(&mut self, event: Event) {
        if let Event::Thread(info) = event {
            self.threads.insert(info.thread, info);
        }
    }

    /// Where the time of a thread went in sorted, disjoint windows.
    pub fn account(&self, _thread: ThreadId, windows: &[Range<Ns>]) -> Account {
        let wall_ns = windows
            .iter()
            .map(|window| window.end.saturating_sub(window.start))
            .sum();
        Account::unknown(wall_ns, Reason::NotObserved)
    }

    /// Says that every record written before `at` has been pushed, and every doubt and snapshot
    /// that concerns the time before it. The horizon never moves back.
    pub fn confirm(&mut self, at: Ns) {
        self.horizon = self.horizon.max(at);
    }

    /// The instant up to which every record has arrived.
    pub fn horizon(&self) -> Ns {
        self.horizon
    }

    /// The instant up to which a thread's account is final; `None`: the thread is not known.
    pub fn proved_until(&self, _thread: ThreadId) -> Option<Ns> {
        None
    }

    /// From here on every thread's records are still held.
    pub fn reach(&self) -> Ns {
        0
    }

    /// Who a thread is; `None`: not known, or forgotten.
    pub fn thread(&self, thread: ThreadId) -> Option<&ThreadInfo> {
        self.threads.get(&thread)
    }

    /// When a thread ended, where its last record has come.
    pub fn ended(&self, _thread: ThreadId) -> Option<Ns> {
        None
    }

    /// The threads of a process that are still held, dead ones included.
    pub fn threads_of(&self, _process: ProcessId) -> Vec<ThreadId> {
        Vec::new()
    }

    /// Every thread that is still held, dead ones included.
    pub fn threads(&self) -> impl Iterator<Item = &ThreadInfo> {
        self.threads.values()
    }

    /// What an object is.
    pub fn object(&self, _object: ObjectId) -> Option<&ObjectInfo> {
        None
    }

    /// What a stack is.
    pub fn stack(&self, _stack: StackId) -> Option<&StackInfo> {
        None
    }

    /// What it holds and what it dropped.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
