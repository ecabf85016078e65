// SPDX-License-Identifier: Apache-2.0
//! The join: which thread ran this span.
//!
//! A span's timestamps were taken by threads that were on a CPU at those instants. With every
//! switch of the process recorded, few threads are possible; this module learns, per process and
//! kind of span, when that may be believed (docs/design/0002-join.md). It does not know OTLP,
//! sockets or switch records: [`SpanFacts`] come in, [`Presence`] answers questions, a [`Joined`]
//! goes out. A wrong thread is worse than no thread: whatever is not shown is refused, with why.

mod candidates;
mod claims;
mod clock;
mod counts;
mod decide;
mod edges;
mod facts;
mod heard;
mod kind;
mod lags;
mod limits;
mod presence;
mod process;
mod readers;
mod roots;
mod shares;

pub use facts::ChildFacts;
pub use facts::Claim;
pub use facts::Claims;
pub use facts::GRAIN_NS_MAX;
pub use facts::How;
pub use facts::Joined;
pub use facts::KindId;
pub use facts::Place;
pub use facts::SpanFacts;
pub use facts::SpanKey;
pub use facts::Why;
pub use facts::grain_ns;
pub use presence::Heard;
pub use presence::OnCpu;
pub use presence::Presence;
pub use presence::Running;
pub use presence::ThreadFacts;
pub use readers::Readers;
pub use readers::Reading;
pub use readers::Source;

use crate::event::ProcessId;
use crate::event::ThreadId;
use candidates::Found;
use limits::PROCESSES_MAX;
use process::Process;
use roots::Outline;
use roots::Pending;
use std::collections::HashMap;

/// Everything that was learned, of all processes.
#[derive(Debug, Default)]
pub struct Joiner {
    processes: HashMap<ProcessId, Learned>,
    turn: u64,
}

/// A process, and when it was last heard of.
#[derive(Debug, Default)]
struct Learned {
    process: Process,
    turn: u64,
}

impl Joiner {
    /// Learns from a span, once, when the horizon has passed its end; returns what [`Joiner::join`]
    /// would. A span that is observed twice only counts twice.
    pub fn observe(&mut self, span: &SpanFacts<'_>, presence: &dyn Presence) -> Joined {
        if unusable(span) {
            return Joined::refused(Why::Unusable, 0);
        }
        self.turn += 1;
        let process = self.process(span.process);
        let (found, checked) = process.learn(span, presence);
        let outline = process.outline(span);
        let alone = always_alone(span, presence, &found);
        let joined = decide::decide(process, &outline, &found, checked, alone);
        if process.kinds.contains_key(&span.kind) {
            remember(process, &outline, &found, joined);
            return joined;
        }
        match joined.thread {
            Some(_) => joined,
            None => Joined {
                why: Why::TooMany,
                ..joined
            },
        }
    }

    /// Which thread ran the span, by all that was learned so far. Root spans that were joined
    /// before keep their answer while their kind is still believed.
    pub fn join(&self, span: &SpanFacts<'_>, presence: &dyn Presence) -> Joined {
        if unusable(span) {
            return Joined::refused(Why::Unusable, 0);
        }
        let unknown = Process::default();
        let process = self
            .processes
            .get(&span.process)
            .map_or(&unknown, |known| &known.process);
        let found = process.candidates(span, presence);
        let checked = process.check_claims(span, presence);
        let alone = always_alone(span, presence, &found);
        let joined = decide::decide(process, &process.outline(span), &found, checked, alone);
        match joined.why {
            Why::Ambiguous | Why::Maybe => process.roots.joined(span.key).unwrap_or(joined),
            _ => joined,
        }
    }

    /// Forgets a process that has ended and whose spans are all explained.
    pub fn forget(&mut self, process: ProcessId) {
        self.processes.remove(&process);
    }

    /// The process, made where it is new; the one silent for longest makes room.
    fn process(&mut self, id: ProcessId) -> &mut Process {
        if self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&id) {
            let silent = self
                .processes
                .iter()
                .min_by_key(|(_, learned)| learned.turn);
            if let Some(silent) = silent.map(|(id, _)| *id) {
                self.processes.remove(&silent);
            }
        }
        let learned = self.processes.entry(id).or_default();
        learned.turn = self.turn;
        &mut learned.process
    }
}

/// A span whose instants cannot be used at all.
fn unusable(span: &SpanFacts<'_>) -> bool {
    span.end < span.start || span.clock_stepped
}

/// Whether the process never had a second thread, from its birth to the end of the span.
fn always_alone(span: &SpanFacts<'_>, presence: &dyn Presence, found: &Found) -> bool {
    if found.seen() != 1 {
        return false;
    }
    let mut threads = 0_u32;
    let from = span.process.start_ns.min(span.start);
    let complete = presence.threads(span.process, from, span.end, &mut |_| threads += 1);
    complete && threads == 1
}

/// Keeps what one span tells of others. A sole candidate counts before its kind is believed: it is
/// not acted upon until then, and tells early whether spans of that kind share a thread.
fn remember(process: &mut Process, outline: &Outline, found: &Found, joined: Joined) {
    let sole = match found.list.as_slice() {
        [only] if found.clean() => Some(only.thread),
        _ => None,
    };
    if let Some(thread) = sole {
        note_overlaps(process, outline, thread);
    } else if joined.why == Why::Ambiguous {
        note_conflict(process, outline, found);
    }
    if outline.place != Place::Root {
        return;
    }
    if let Some(thread) = joined.thread.or(sole) {
        process
            .roots
            .insert(outline, thread, joined, sole == Some(thread));
    }
    if let Some(thread) = joined.thread {
        settle_neighbours(process, outline, thread);
    } else if matches!(joined.why, Why::Ambiguous | Why::Maybe) {
        process.roots.wait(Pending {
            outline: *outline,
            found: found.clone(),
        });
    }
}

/// Counts whether another root span was open on that thread, for both kinds.
fn note_overlaps(process: &mut Process, outline: &Outline, thread: ThreadId) {
    if outline.place == Place::Unknown {
        return;
    }
    let others = process
        .roots
        .overlapping(outline, thread)
        .filter(|root| root.certain);
    let others: Vec<KindId> = others.map(|root| root.kind).collect();
    for other in &others {
        if let Some(kind) = process.kinds.get_mut(other) {
            kind.note_overlap(outline.kind);
        }
    }
    if let Some(kind) = process.kinds.get_mut(&outline.kind) {
        kind.note_certain();
        for other in others {
            kind.note_overlap(other);
            if other == outline.kind {
                kind.note_shared(thread);
            }
        }
    }
}

/// Every candidate seems to be taken by another root span: then such spans do share threads.
fn note_conflict(process: &mut Process, outline: &Outline, found: &Found) {
    let Some(kind) = process.kinds.get(&outline.kind) else {
        return;
    };
    let taken = |c: &candidates::Candidate| decide::free(process, kind, outline, c.thread) < 1.0;
    let all_taken = !found.list.is_empty() && found.list.iter().all(taken);
    if let Some(kind) = process.kinds.get_mut(&outline.kind).filter(|_| all_taken) {
        kind.note_overlap(outline.kind);
    }
}

/// A joined root span may settle others that waited, and those again others.
fn settle_neighbours(process: &mut Process, outline: &Outline, thread: ThreadId) {
    let mut settled = vec![(*outline, thread)];
    while let Some((outline, thread)) = settled.pop() {
        for waiting in process.roots.helped(&outline, thread) {
            let (of, found) = (waiting.outline, &waiting.found);
            let answer = decide::decide(process, &of, found, claims::Checked::Absent, false);
            if let Some(thread) = answer.thread {
                process.roots.insert(&of, thread, answer, false);
                settled.push((of, thread));
            } else {
                process.roots.wait(waiting);
            }
        }
    }
}
