// SPDX-License-Identifier: Apache-2.0
//! What is learned of one process: its clock, its busy threads, its kinds and its root spans.
//!
//! Here a span passes through the parts in order, to learn from it. The decision that uses what was
//! learned is in `decide.rs`.

use super::candidates::Candidate;
use super::candidates::Found;
use super::candidates::Instants;
use super::candidates::child_windows;
use super::candidates::find;
use super::candidates::find_all;
use super::candidates::keep_on_cpu;
use super::claims;
use super::claims::Checked;
use super::clock::Clock;
use super::clock::ClockCheck;
use super::counts::Halves;
use super::edges::Edges;
use super::facts::ChildFacts;
use super::facts::GRAIN_NS_MAX;
use super::facts::KindId;
use super::facts::SpanFacts;
use super::heard::hearer;
use super::kind::Kind;
use super::kind::Server;
use super::limits::CHILDREN_MAX;
use super::limits::HALF_SPANS;
use super::limits::KINDS_MAX;
use super::limits::OFFSETS;
use super::limits::OFFSETS_PER_SPAN;
use super::limits::RENEW_SPANS;
use super::presence::Presence;
use super::roots::Outline;
use super::roots::Roots;
use super::shares::Shares;
use crate::event::Ns;
use std::collections::HashMap;

/// Spans with a sole candidate: whose it was.
#[derive(Debug, Default)]
pub(super) struct Sole {
    pub(super) main: u64,
    pub(super) others: u64,
}

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) kinds: HashMap<KindId, Kind>,
    edges: HashMap<KindId, Edges>,
    check: ClockCheck,
    /// The clock's verdict, renewed now and then.
    pub(super) clock: Clock,
    pub(super) shares: Shares,
    pub(super) roots: Roots,
    pub(super) sole: Halves<Sole>,
    /// The tick of its clock: the least that any of its spans showed.
    grain_ns: Ns,
    pub(super) observed: u64,
    /// Start of its earliest span with complete records.
    first: Ns,
    /// Which of the trial offsets the last span was tried at.
    tried: usize,
    /// It was seen with more than one thread.
    pub(super) threaded: bool,
}

impl Default for Process {
    fn default() -> Self {
        Process {
            kinds: HashMap::new(),
            edges: HashMap::new(),
            check: ClockCheck::default(),
            clock: Clock::default(),
            shares: Shares::default(),
            roots: Roots::default(),
            sole: Halves::default(),
            grain_ns: GRAIN_NS_MAX,
            observed: 0,
            first: Ns::MAX,
            tried: 0,
            threaded: false,
        }
    }
}

impl Process {
    /// The tick to reckon with for a span.
    pub(super) fn grain_ns(&self, span: &SpanFacts<'_>) -> Ns {
        self.grain_ns.min(span.grain_ns).max(1)
    }

    /// What the decision needs of a span beside its candidates.
    pub(super) fn outline(&self, span: &SpanFacts<'_>) -> Outline {
        Outline {
            key: span.key,
            kind: span.kind,
            place: span.place,
            start: span.start,
            end: span.end,
            slack: span.error_ns.saturating_add(self.grain_ns(span) - 1),
        }
    }

    /// The candidates of a span by its own instants and those of children that are shown to run on
    /// its thread.
    pub(super) fn candidates(&self, span: &SpanFacts<'_>, presence: &dyn Presence) -> Found {
        let mut found = find(presence, span.process, &self.own(span));
        self.narrow(span, presence, &mut found);
        if found.list.len() > 1 {
            found.hearer = hearer(span, presence);
        }
        found
    }

    /// The same; in full and learned from. Also returns what the span's claim is worth.
    pub(super) fn learn(
        &mut self,
        span: &SpanFacts<'_>,
        presence: &dyn Presence,
    ) -> (Found, Checked) {
        self.observed += 1;
        self.grain_ns = self.grain_ns.min(span.grain_ns).max(1);
        self.shares.sample(presence, span.process, span.end);
        let checked = self.check_claims(span, presence);
        if !self.kinds.contains_key(&span.kind) && self.kinds.len() >= KINDS_MAX {
            return (self.candidates(span, presence), checked);
        }
        let learned = self.kinds.entry(span.kind).or_default().observe();
        let own = self.own(span);
        let mut found = if learned {
            find_all(presence, span.process, &own)
        } else {
            find(presence, span.process, &own)
        };
        self.threaded |= found.seen() > 1;
        if learned && found.clean() {
            self.learn_edges(span, presence, &found);
        }
        self.narrow(span, presence, &mut found);
        found.hearer = hearer(span, presence);
        if found.clean() {
            self.mark_busy(&mut found, span.start);
            self.learn_candidates(span, &found, learned);
            if learned {
                self.learn_chance(span, presence);
            }
        }
        self.renew(span, &found, checked);
        (found, checked)
    }

    /// What the records say of a span's claim.
    pub(super) fn check_claims(&self, span: &SpanFacts<'_>, presence: &dyn Presence) -> Checked {
        let instants = self.own(span);
        let ends = [instants.start(), instants.end()];
        claims::check(presence, span.process, &span.claims, &ends)
    }

    fn own(&self, span: &SpanFacts<'_>) -> Instants {
        Instants::own(span, self.grain_ns(span))
    }

    /// Children whose instants may be used.
    fn children<'a>(&self, span: &SpanFacts<'a>) -> impl Iterator<Item = &'a ChildFacts> {
        let edges = self.edges.get(&span.kind);
        let trusted = move |child: &&ChildFacts| {
            edges.is_some_and(|edges| edges.on_parents_thread(child.kind))
        };
        span.children.iter().take(CHILDREN_MAX).filter(trusted)
    }

    fn narrow(&self, span: &SpanFacts<'_>, presence: &dyn Presence, found: &mut Found) {
        for child in self.children(span) {
            let windows = child_windows(child, span.error_ns, self.grain_ns(span));
            keep_on_cpu(presence, found, &windows);
        }
    }

    fn learn_edges(&mut self, span: &SpanFacts<'_>, presence: &dyn Presence, found: &Found) {
        if span.children.is_empty() {
            return;
        }
        let clock = (span.error_ns, self.grain_ns(span));
        let edges = self.edges.entry(span.kind).or_default();
        for child in span.children.iter().take(CHILDREN_MAX) {
            edges.note(presence, &found.list, child, clock);
        }
    }

    fn learn_candidates(&mut self, span: &SpanFacts<'_>, found: &Found, learned: bool) {
        self.first = self.first.min(span.start);
        self.check
            .note_span(!found.list.is_empty(), found.idle() > 0);
        if let Some(kind) = self.kinds.get_mut(&span.kind) {
            kind.note_span(found, span.start, learned);
        }
        if let [only] = found.list.as_slice() {
            if self.sole.current.main + self.sole.current.others >= HALF_SPANS {
                self.sole.roll();
            }
            self.sole.current.main += u64::from(only.main);
            self.sole.current.others += u64::from(!only.main);
        }
    }

    /// Tries the same instants at some of the trial offsets. Where the past is out of reach, or the
    /// process did not serve yet, there is nothing to compare with: a quiet past would make chance
    /// look small.
    fn learn_chance(&mut self, span: &SpanFacts<'_>, presence: &dyn Presence) {
        let mut instants = self.own(span);
        for child in self.children(span) {
            instants.add_child(child, span.error_ns, self.grain_ns(span));
        }
        let stride = OFFSETS.len() / OFFSETS_PER_SPAN;
        let first = self.tried % stride;
        self.tried = first + 1;
        for i in (first..OFFSETS.len()).step_by(stride) {
            let Some(earlier) = instants.earlier(OFFSETS[i]) else {
                continue;
            };
            let start = span.start.saturating_sub(OFFSETS[i]);
            if start < self.first {
                continue;
            }
            let mut found = find(presence, span.process, &earlier);
            if !found.clean() {
                continue;
            }
            self.mark_busy(&mut found, start);
            self.check
                .note_trial(i, !found.list.is_empty(), found.idle() > 0);
            if let Some(kind) = self.kinds.get_mut(&span.kind) {
                kind.note_trial(i, &found, start);
            }
        }
    }

    /// Says which candidates are busy threads.
    fn mark_busy(&self, found: &mut Found, start: Ns) {
        for candidate in &mut found.list {
            candidate.busy = self.is_busy(candidate, start);
        }
    }

    /// Whether a candidate is a busy thread. One too young to tell is not.
    pub(super) fn is_busy(&self, candidate: &Candidate, start: Ns) -> bool {
        match Server::of(candidate, start) {
            Server::Brief => false,
            Server::Thread(thread) => self.shares.busy(thread),
        }
    }

    fn renew(&mut self, span: &SpanFacts<'_>, found: &Found, checked: Checked) {
        let lacks = found.clean() && found.list.is_empty();
        if lacks || self.observed.is_multiple_of(RENEW_SPANS) {
            self.clock = self.check.verdict();
        }
        let shares = &self.shares;
        if let Some(kind) = self.kinds.get_mut(&span.kind) {
            match checked {
                Checked::Fits(_, true) => kind.note_claim(true),
                Checked::False(_) => kind.note_claim(false),
                // What may have been bears nothing out.
                Checked::Fits(_, false) | Checked::Absent | Checked::Nobody | Checked::Several => {}
            }
            kind.renew(lacks, &|thread| shares.busy(thread));
        }
    }
}
