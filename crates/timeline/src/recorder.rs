// SPDX-License-Identifier: Apache-2.0
//! The flight recorder: what every thread did, as long ago as one memory budget reaches.
//!
//! Events come in, in any order; accounts of any window of any thread go out. Records are kept in
//! chunks per thread (`thread.rs`, `chunk.rs`); at the budget the oldest chunk of all threads goes,
//! and with its last one a thread that has ended. What a window means is decided in `walk.rs`.
//!
//! Promise: never more memory than the budget by its own bookkeeping, and never a wrong answer for
//! what was dropped: that is `unknown`, `expired`.

mod ids;
mod lookup;
mod members;
mod nets;
mod takes;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::account::Account;
use crate::account::Tally;
use crate::cause::ObjectClass;
use crate::doubts::Doubts;
use crate::event::Cycle;
use crate::event::Event;
use crate::event::Ns;
use crate::event::ObjectId;
use crate::event::ObjectInfo;
use crate::event::ProcessId;
use crate::event::Snapshot;
use crate::event::StackId;
use crate::event::StackInfo;
use crate::event::ThreadId;
use crate::event::ThreadInfo;
use crate::record::Body;
use crate::record::Detours;
use crate::record::Record;
pub use crate::recorder_presence::Whereabouts;
use crate::table::Table;
use crate::thread::Tail;
use crate::thread::Taken;
use crate::thread::Thread;
pub(crate) use ids::IdMap;
use lookup::Completing;
use members::Members;
use nets::Nets;
use takes::Takes;

/// The recorder's memory budget unless told otherwise.
pub const BUDGET_BYTES: usize = 64 << 20;

/// Each of the two tables of facts may take this part of the budget.
const TABLE_SHARE: usize = 16;

/// What waits for its cycle may take this part of the budget.
const NETS_SHARE: usize = 64;

/// Who took requests may take this part of the budget.
const TAKES_SHARE: usize = 32;

/// Threads without any record may take this part of the budget; beyond it the longest silent go.
const THREADS_SHARE: usize = 2;

/// What a thread costs beside its own struct: its places in the maps and in the queue.
const THREAD_BYTES: usize = 128;

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
    /// Events refused because they contradict themselves or others, or were held already.
    pub malformed: u64,
    /// Threads forgotten though they had not ended, because there were too many.
    pub threads_forgotten: u64,
    /// Facts about objects, stacks, connections and their requests dropped to stay under the limits of their tables.
    pub facts_dropped: u64,
}

/// The flight recorder.
#[derive(Debug)]
pub struct Recorder {
    budget_bytes: usize,
    index: Index,
    facts: Facts,
    nets: Nets,
    takes: Takes,
    doubts: Doubts,
    /// One entry for each thread that holds chunks, by when its oldest one ended at the latest
    /// look; that only grows, so the first entry is brought up to date as it comes up.
    oldest: BinaryHeap<Reverse<(Ns, ThreadId)>>,
    thread_bytes: usize,
    horizon: Ns,
    reach: Ns,
    /// Until when a thread that is not listed with its process may have been on a CPU, because it was
    /// forgotten before it ended; `None`: no such thread was.
    unlisted_until: Option<Ns>,
    stats: Stats,
}

/// What ids stand for.
#[derive(Debug)]
struct Facts {
    objects: Table<ObjectId, ObjectInfo>,
    stacks: Table<StackId, StackInfo>,
}

/// Threads, and those of each process.
#[derive(Debug, Default)]
struct Index {
    threads: IdMap<ThreadId, Box<Thread>>,
    processes: IdMap<ProcessId, Members>,
}

/// Where a thread is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Named {
    process: ProcessId,
    ns_tid: u32,
}

impl Named {
    fn of(info: &ThreadInfo) -> Named {
        Named {
            process: info.process,
            ns_tid: info.ns_tid,
        }
    }
}

impl Index {
    fn info(&self, thread: ThreadId) -> Option<&ThreadInfo> {
        self.threads.get(&thread)?.info.as_ref()
    }

    fn ended(&self, thread: ThreadId) -> Option<Ns> {
        self.threads.get(&thread)?.ended
    }

    /// Moves a thread, which ended then or lives, to the list of its process.
    fn enlist(
        &mut self,
        thread: ThreadId,
        ended: Option<Ns>,
        old: Option<Named>,
        new: Option<Named>,
    ) {
        if old == new {
            return;
        }
        if let Some(old) = old
            && let Some(members) = self.processes.get_mut(&old.process)
        {
            members.remove(thread, old.ns_tid, ended);
            if members.is_empty() {
                self.processes.remove(&old.process);
            }
        }
        if let Some(new) = new {
            let members = self.processes.entry(new.process).or_default();
            members.add(thread, new.ns_tid, ended);
        }
    }

    /// Notes the end of a thread that lived so far.
    fn end(&mut self, thread: ThreadId, at: Ns) {
        let process = self.info(thread).map(|info| info.process);
        if let Some(members) = process.and_then(|process| self.processes.get_mut(&process)) {
            members.end(thread, at);
        }
    }
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new(BUDGET_BYTES)
    }
}

impl Recorder {
    /// An empty recorder that holds at most that much memory.
    pub fn new(budget_bytes: usize) -> Recorder {
        Recorder {
            budget_bytes,
            index: Index::default(),
            facts: Facts {
                objects: Table::new(budget_bytes / TABLE_SHARE),
                stacks: Table::new(budget_bytes / TABLE_SHARE),
            },
            nets: Nets::new(budget_bytes / NETS_SHARE),
            takes: Takes::new(budget_bytes / TAKES_SHARE),
            doubts: Doubts::default(),
            oldest: BinaryHeap::new(),
            thread_bytes: 0,
            horizon: 0,
            reach: 0,
            unlisted_until: None,
            stats: Stats::default(),
        }
    }

    /// Takes an event in, in any order. A thread's name and the facts about objects and stacks
    /// should come before the records that need them; where they come later, they still count.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Thread(info) => self.push_thread(info),
            Event::Cycle(cycle) => self.push_cycle(&cycle),
            Event::Net(net) => self.push_net(net),
            Event::Took(took) => self.takes.keep(took),
            Event::Merged(merged) => {
                let record = Record::from_merged(&merged, &mut self.completing());
                self.push_record(merged.thread, record);
            }
            Event::Exit(exit) => self.push_record(exit.thread, Record::from_exit(&exit)),
            Event::Detour(detour) => {
                let taken = self.change(detour.thread, |thread| thread.push_detour(&detour));
                self.stats.malformed += u64::from(!taken);
            }
            Event::Snapshot(snapshot) => self.push_snapshot(&snapshot),
            Event::Asleep(asleep) => {
                self.change(asleep.thread, |thread| thread.push_asleep(&asleep));
            }
            Event::Object(info) => {
                let heap_bytes = info.name.len();
                self.facts.objects.insert(info.object, info, heap_bytes);
            }
            Event::Stack(info) => {
                let names: usize = info.frames.iter().map(|frame| frame.len()).sum();
                let heap_bytes = names + info.frames.capacity() * size_of::<Box<str>>();
                self.facts.stacks.insert(info.stack, info, heap_bytes);
            }
            Event::Doubt(doubt) => self.doubts.push(doubt),
        }
        self.keep_budget();
    }

    fn completing(&mut self) -> Completing<'_> {
        Completing {
            facts: &mut self.facts,
            nets: &mut self.nets,
            index: &self.index,
        }
    }

    fn push_thread(&mut self, mut info: ThreadInfo) {
        let id = info.thread;
        // A thread that is described once more while it ends has lost its numbers and its pointer by
        // then. What others called it by while it lived stays true.
        if let Some(old) = self.index.info(id).filter(|_| info.ns_tid == 0) {
            info.ns_tid = old.ns_tid;
            info.ns_tgid = old.ns_tgid;
            info.fs_base = old.fs_base;
        }
        let new = Named::of(&info);
        let (ended, old) = self.change(id, |thread| {
            let old = thread.info.as_ref().map(Named::of);
            thread.info = Some(info);
            (thread.ended, old)
        });
        self.index.enlist(id, ended, old, Some(new));
    }

    fn push_cycle(&mut self, cycle: &Cycle) {
        let record = Record::from_cycle(cycle, &mut self.completing());
        self.push_record(cycle.thread, record);
    }

    fn push_snapshot(&mut self, snapshot: &Snapshot) {
        let Some(record) = Record::from_snapshot(snapshot, &mut self.completing()) else {
            self.stats.malformed += 1;
            return;
        };
        let open = match &record.body {
            Body::Cycle(off) => off.detours,
            Body::Sums(_) | Body::Exit => Detours::new(&snapshot.open),
        };
        let on_cpu_until = record.out;
        let listed = self.change(snapshot.thread, |thread| {
            thread.push_tail(Tail { record, open });
            thread.info.is_some()
        });
        self.note_unlisted(listed, on_cpu_until);
    }

    fn push_record(&mut self, id: ThreadId, record: Option<Record>) {
        self.stats.records_in += 1;
        let Some(record) = record else {
            self.stats.malformed += 1;
            return;
        };
        let (taken, oldest, ended, listed) = self.change(id, |thread| {
            let lived = thread.ended.is_none();
            let taken = thread.push(&record);
            let oldest = thread.oldest_end().filter(|_| !thread.queued);
            thread.queued |= oldest.is_some();
            let ended = thread.ended.filter(|_| lived);
            (taken, oldest, ended, thread.info.is_some())
        });
        // It ends as the thread comes back on a CPU, or ends there.
        self.note_unlisted(listed, record.end);
        if let Some(at) = ended {
            self.index.end(id, at);
        }
        self.oldest.extend(oldest.map(|end| Reverse((end, id))));
        match taken {
            Taken::Appended { missing } => self.stats.lost += missing,
            Taken::Late => {
                self.stats.late += 1;
                self.stats.lost = self.stats.lost.saturating_sub(1);
            }
            Taken::Expired => self.stats.evicted += 1,
            Taken::Refused => self.stats.malformed += 1,
        }
        if matches!(taken, Taken::Appended { .. } | Taken::Late) {
            self.stats.records += 1;
            self.stats.segments += record.segments();
        }
    }

    /// Notes until when a thread has been seen on a CPU. Once threads were forgotten that lived, one
    /// without a name may be one of them, come back: who it is was told once, and is not told again.
    fn note_unlisted(&mut self, listed: bool, on_cpu_until: Ns) {
        if !listed && let Some(until) = &mut self.unlisted_until {
            *until = on_cpu_until.max(*until);
        }
    }

    /// Changes a thread, made where it is not known, and keeps the sum of memory.
    fn change<T>(&mut self, id: ThreadId, change: impl FnOnce(&mut Thread) -> T) -> T {
        if !self.index.threads.contains_key(&id) {
            self.make_room_for_a_thread();
        }
        let thread = self.index.threads.entry(id).or_insert_with(|| {
            self.thread_bytes += size_of::<Thread>() + THREAD_BYTES;
            Box::default()
        });
        let before = thread.bytes();
        let result = change(thread);
        self.thread_bytes += thread.bytes();
        self.thread_bytes -= before;
        result
    }

    /// Memory in use.
    fn bytes(&self) -> usize {
        self.thread_bytes
            + self.facts.objects.bytes()
            + self.facts.stacks.bytes()
            + self.nets.heap_bytes()
            + self.takes.heap_bytes()
            + self.doubts.heap_bytes()
    }

    /// Drops the oldest chunks until the budget holds.
    fn keep_budget(&mut self) {
        while self.bytes() > self.budget_bytes {
            let Some(Reverse((end, id))) = self.oldest.pop() else {
                if !self.forget_silent_threads() {
                    return;
                }
                continue;
            };
            let held = self.index.threads.get(&id);
            match held.and_then(|thread| thread.oldest_end()) {
                Some(actual) if actual > end => self.oldest.push(Reverse((actual, id))),
                Some(_) => self.evict(id),
                None => {}
            }
        }
    }

    /// Drops a thread's oldest chunk, and with its last one a thread that has ended.
    fn evict(&mut self, id: ThreadId) {
        let (held, floor, next, gone) = self.change(id, |thread| {
            let held = thread.evict();
            let next = thread.oldest_end();
            thread.queued = next.is_some();
            let gone = next.is_none() && thread.ended.is_some();
            (held, thread.floor, next, gone)
        });
        self.stats.records -= held.records;
        self.stats.segments -= held.segments;
        self.stats.evicted += held.records;
        self.reach = self.reach.max(floor);
        self.oldest.extend(next.map(|end| Reverse((end, id))));
        if gone {
            self.forget(id);
        }
    }

    /// Forgets a thread with everything that it holds.
    fn forget(&mut self, id: ThreadId) {
        let Some(thread) = self.index.threads.remove(&id) else {
            return;
        };
        let held = thread.held();
        self.stats.records -= held.records;
        self.stats.segments -= held.segments;
        self.stats.evicted += held.records;
        if thread.ended.is_none() {
            self.stats.threads_forgotten += 1;
            self.unlisted_until = self.unlisted_until.max(Some(thread.latest()));
        }
        self.thread_bytes -= thread.bytes() + THREAD_BYTES;
        self.reach = self.reach.max(thread.latest());
        let listed = thread.info.as_ref().map(Named::of);
        self.index.enlist(id, thread.ended, listed, None);
    }

    /// Keeps the number of threads under its limit.
    fn make_room_for_a_thread(&mut self) {
        let each = size_of::<Thread>() + THREAD_BYTES;
        if (self.index.threads.len() + 1) * each > self.budget_bytes / THREADS_SHARE {
            self.forget_silent_threads();
        }
    }

    /// Forgets a sixteenth of the threads: those that have ended first, then the longest silent.
    /// Many at once, because finding them looks at all. False: there is none.
    fn forget_silent_threads(&mut self) -> bool {
        let threads = self.index.threads.iter();
        let mut by_age: Vec<(bool, Ns, ThreadId)> = threads
            .map(|(&id, thread)| (thread.ended.is_none(), thread.latest(), id))
            .collect();
        let count = by_age.len().div_ceil(16);
        if count == 0 {
            return false;
        }
        by_age.select_nth_unstable(count - 1);
        for &(_, _, id) in &by_age[..count] {
            self.forget(id);
        }
        true
    }

    /// Where the time of a thread went in sorted, disjoint windows; an empty or inverted window has
    /// no time.
    pub fn account(&self, thread: ThreadId, windows: &[Range<Ns>]) -> Account {
        let mut tally = Tally::default();
        self.walk_all(thread, windows, &mut tally);
        let longest: Vec<_> = tally
            .longest()
            .map(|(cause, wait)| (cause, wait.clone()))
            .collect();
        let mut account = tally.finish();
        self.add_chains(thread, &mut account, &longest);
        debug_assert_eq!(account.check(), Ok(()));
        account
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

    /// The instant up to which a thread's account is final: to where records and snapshots reach
    /// without a break that later events could still mend; [`Ns::MAX`]: it has ended. `None`: the
    /// thread is not known.
    pub fn proved_until(&self, thread: ThreadId) -> Option<Ns> {
        self.held(thread).map(Thread::proved_until)
    }

    /// Says that nothing before `at` was recorded, which is where the reach begins.
    pub fn begin(&mut self, at: Ns) {
        self.reach = self.reach.max(at);
    }

    /// From here on every thread's records are still held.
    pub fn reach(&self) -> Ns {
        self.reach
    }

    /// From here on a thread's own records are still held, mostly longer than [`Recorder::reach`]
    /// says; `None`: the thread is not known.
    pub fn thread_reach(&self, thread: ThreadId) -> Option<Ns> {
        self.held(thread).map(|thread| thread.floor)
    }

    /// Who a thread is; `None`: not known, or forgotten.
    pub fn thread(&self, thread: ThreadId) -> Option<&ThreadInfo> {
        self.index.info(thread)
    }

    /// When a thread ended, where its last record has come.
    pub fn ended(&self, thread: ThreadId) -> Option<Ns> {
        self.index.ended(thread)
    }

    /// The threads of a process that are still held and did not end before `from`.
    pub fn threads_since(
        &self,
        process: ProcessId,
        from: Ns,
    ) -> impl Iterator<Item = ThreadId> + '_ {
        self.index.members(process, from)
    }

    /// Every thread that is still held, dead ones included.
    pub fn threads(&self) -> impl Iterator<Item = &ThreadInfo> {
        let threads = self.index.threads.values();
        threads.filter_map(|thread| thread.info.as_ref())
    }

    /// What an object is.
    pub fn object(&self, object: ObjectId) -> Option<&ObjectInfo> {
        self.facts.objects.get(object)
    }

    /// The class of an object that is known.
    pub(crate) fn object_class(&self, object: ObjectId) -> Option<ObjectClass> {
        self.object(object).map(|info| info.kind.into())
    }

    /// What a stack is.
    pub fn stack(&self, stack: StackId) -> Option<&StackInfo> {
        self.facts.stacks.get(stack)
    }

    /// Whether every thread that was on a CPU at `from` or later is listed with its process.
    pub(crate) fn lists_all_since(&self, from: Ns) -> bool {
        from >= self.reach && self.unlisted_until.is_none_or(|until| from > until)
    }

    /// What it holds and what it dropped.
    pub fn stats(&self) -> Stats {
        Stats {
            bytes: self.bytes(),
            threads: self.index.threads.len(),
            malformed: self.stats.malformed + self.nets.refused(),
            facts_dropped: self.facts.objects.dropped()
                + self.facts.stacks.dropped()
                + self.nets.dropped()
                + self.takes.dropped(),
            ..self.stats
        }
    }

    /// A thread's part.
    pub(crate) fn held(&self, thread: ThreadId) -> Option<&Thread> {
        self.index.threads.get(&thread).map(Box::as_ref)
    }

    /// Who took requests.
    pub(crate) fn takes(&self) -> &Takes {
        &self.takes
    }

    /// What is in doubt.
    pub(crate) fn doubts(&self) -> &Doubts {
        &self.doubts
    }
}
