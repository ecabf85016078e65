// SPDX-License-Identifier: Apache-2.0
//! The spans that have come in, and what was answered of them: bounded, oldest out.
//!
//! Spans come in any order, twice, without their parents, and late. A child that comes after its
//! parent was answered makes the parent's answer stale. Spans with a telling gap have room of their
//! own, so that a flood of quick spans cannot push out the slow one that somebody will ask about.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::ops::Range;

use lacuna_host::process::StartTime;
use lacuna_timeline::Ns;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::Joined;
use lacuna_timeline::join::Place as Stand;
use lacuna_timeline::join::Source;
use lacuna_timeline::join::SpanKey;
use lacuna_timeline::join::Why;

use crate::answer::ListedSpan;
use crate::answer::SpanAnswer;
use crate::explain::SpanWindow;
use crate::otlp::SpanIn;
use crate::otlp::SpanKind;

/// How many spans are kept of each class (some 400 bytes each, answers apart).
const SPANS_MAX: usize = 32_768;

/// Bytes of the answers that are kept in whole, by estimate; beyond it the oldest are made again
/// when somebody asks, as far as the recorder reaches.
const ANSWERS_BYTES_MAX: usize = 24 << 20;

/// A gap is telling from here on, and from this share of its span: the contract's threshold for child spans.
const TELLING_GAP_NS: u64 = 10_000_000;
const TELLING_GAP_PERCENT: u64 = 5;

/// Where a span lies and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Its process; `None`: not known.
    pub(super) process: Option<ProcessId>,
    /// The process that exported it, or that it claims and may; it need not have made it.
    pub(super) owner: Option<ProcessId>,
    /// What came with it over its connection; `None`: its owner is beyond doubt.
    pub(super) sender: Option<Sender>,
    /// Why that is not known: a fixed word.
    pub(super) why_unknown: Option<&'static str>,
    /// Who it is as `/proc` says, where no record has told of that process yet.
    pub(super) sighting: Option<Sighting>,
    /// Its window on the kernel's clock.
    pub(super) window: Window,
}

/// Who sent a span, as far as its connection and its resource say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sender {
    /// A number of the service that it says it is of.
    pub(super) service: u64,
    /// What it says of itself fits its owner: a claimed `process.pid`, or an exporter that names
    /// itself as that of the span's SDK.
    pub(super) named: bool,
}

/// A process as `/proc` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sighting {
    /// Its number.
    pub(super) tgid: u32,
    /// With it, its identity.
    pub(super) start: StartTime,
}

/// A span's window on the kernel's clock, as far as it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Window {
    /// It has one.
    At(SpanWindow),
    /// The clock was set within it: it lies somewhere around here, and was over by then.
    Stepped(SpanWindow, Ns),
    /// It begins before this program's first look at the clocks.
    TooOld,
    /// It ends in the future, or at an instant that the clock never showed or showed twice.
    Nowhere,
}

impl Window {
    /// Why it has no place on the clock: a fixed word.
    pub(super) fn why_nowhere(&self) -> Option<&'static str> {
        match self {
            Window::At(_) | Window::Stepped(..) => None,
            Window::TooOld => Some("before-start"),
            Window::Nowhere => Some("clock"),
        }
    }

    /// Its instants, where it has any.
    pub(super) fn instants(&self) -> Option<Range<Ns>> {
        match self {
            Window::At(window) | Window::Stepped(window, _) => Some(window.start..window.end),
            Window::TooOld | Window::Nowhere => None,
        }
    }

    /// When it can be answered: at its end, or at once where it has no place on the clock. A clock that
    /// was set forwards makes a span long, and its answer no later.
    pub(super) fn due(&self) -> Ns {
        match self {
            Window::At(window) => window.end,
            Window::Stepped(_, over) => *over,
            Window::TooOld | Window::Nowhere => 0,
        }
    }
}

/// A span and what is known of it.
#[derive(Debug)]
pub(super) struct Entry {
    /// As it came.
    pub(super) span: SpanIn,
    /// Where it lies.
    pub(super) place: Place,
    /// Whether it was asked if its owner took its timestamps.
    met: bool,
    /// Whether the join has learned from it.
    observed: bool,
    /// As what it is counted.
    counted: Option<Counted>,
    state: State,
    class: Class,
}

#[derive(Debug)]
enum State {
    Pending,
    /// Answered; the bytes by estimate.
    Answered(Box<SpanAnswer>, usize),
    /// Answered once; only the head was kept.
    Listed(Box<ListedSpan>),
}

/// As what an answered span is counted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Counted {
    /// How it was joined.
    pub(super) joined: Joined,
    /// Why its owner is not held to be its process: a fixed word.
    pub(super) doubt: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Plain,
    Telling,
}

/// What a question finds of one span.
pub(crate) enum Found<'a> {
    /// Not answered yet (or not any more, and will be again).
    Pending(&'a SpanIn),
    /// Answered.
    Answered(&'a SpanAnswer),
}

/// Counts of what happened to spans here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SpanCounts {
    /// Came in.
    pub(crate) received: u64,
    /// Had come in before.
    pub(crate) repeated: u64,
    /// Were dropped to keep the limit.
    pub(crate) dropped: u64,
    /// Were dropped before they were answered.
    pub(crate) dropped_pending: u64,
}

/// The spans.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    entries: HashMap<SpanKey, Entry>,
    /// In the order in which they came, and so mostly also in that in which they go.
    traces: HashMap<u128, VecDeque<u64>>,
    children: HashMap<SpanKey, VecDeque<u64>>,
    plain: VecDeque<SpanKey>,
    telling: VecDeque<SpanKey>,
    /// Spans with a whole answer, oldest first.
    answered: VecDeque<SpanKey>,
    answers_bytes: usize,
    counts: SpanCounts,
}

/// A span's key.
pub(super) fn key_of(span: &SpanIn) -> SpanKey {
    SpanKey {
        trace: u128::from_be_bytes(span.trace_id),
        span: u64::from_be_bytes(span.span_id),
    }
}

/// Its parent's key, where it has a parent.
pub(super) fn parent_of(span: &SpanIn) -> Option<SpanKey> {
    span.parent_span_id.map(|parent| SpanKey {
        trace: u128::from_be_bytes(span.trace_id),
        span: u64::from_be_bytes(parent),
    })
}

impl Spans {
    /// Takes a span in. Says which spans are to be answered for it: itself, and its parent where
    /// that has been answered without it. Nothing where it had come before.
    pub(super) fn insert(&mut self, span: SpanIn, place: Place) -> Vec<SpanKey> {
        let key = key_of(&span);
        self.counts.received += 1;
        if self.entries.contains_key(&key) {
            self.counts.repeated += 1;
            return Vec::new();
        }
        let mut to_answer = vec![key];
        if let Some(parent) = parent_of(&span) {
            self.children.entry(parent).or_default().push_back(key.span);
            if self.reopen(parent) {
                to_answer.push(parent);
            }
        }
        self.traces
            .entry(key.trace)
            .or_default()
            .push_back(key.span);
        self.plain.push_back(key);
        let entry = Entry {
            span,
            place,
            met: false,
            observed: false,
            counted: None,
            state: State::Pending,
            class: Class::Plain,
        };
        self.entries.insert(key, entry);
        self.keep_limits();
        to_answer
    }

    /// Makes an answered span pending again; false where it is not known or pending anyway.
    pub(super) fn reopen(&mut self, key: SpanKey) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else {
            return false;
        };
        match std::mem::replace(&mut entry.state, State::Pending) {
            State::Pending => false,
            State::Answered(_, bytes) => {
                self.answers_bytes -= bytes;
                true
            }
            State::Listed(_) => true,
        }
    }

    /// A span.
    pub(super) fn get(&self, key: SpanKey) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// Changes where a span lies and whose it is.
    pub(super) fn replace(&mut self, key: SpanKey, change: impl FnOnce(Place) -> Place) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.place = change(entry.place);
        }
    }

    /// Notes that it was asked whether a span's owner took its timestamps; false where it had been,
    /// or the span is gone.
    pub(super) fn meet(&mut self, key: SpanKey) -> bool {
        self.entries
            .get_mut(&key)
            .is_some_and(|entry| !std::mem::replace(&mut entry.met, true))
    }

    /// Notes as what a span is counted now; says as what it was before.
    pub(super) fn count(&mut self, key: SpanKey, counted: Counted) -> Option<Counted> {
        self.entries.get_mut(&key)?.counted.replace(counted)
    }

    /// The answered spans of a source.
    pub(super) fn answered_of(&self, source: Source) -> impl Iterator<Item = (SpanKey, &Entry)> {
        let is_of = move |place: &Place| {
            place.owner == Some(source.process)
                && place.sender.map(|sender| sender.service) == Some(source.service)
        };
        self.entries
            .iter()
            .filter(move |(_, entry)| is_of(&entry.place) && !matches!(entry.state, State::Pending))
            .map(|(key, entry)| (*key, entry))
    }

    /// Notes that the join has learned from a span; false where it had, or the span is gone.
    pub(super) fn observe(&mut self, key: SpanKey) -> bool {
        self.entries
            .get_mut(&key)
            .is_some_and(|entry| !std::mem::replace(&mut entry.observed, true))
    }

    /// The direct children that have come.
    pub(super) fn children(&self, key: SpanKey) -> impl Iterator<Item = &Entry> {
        let ids = self.children.get(&key).into_iter().flatten();
        ids.filter_map(move |&span| {
            let trace = key.trace;
            self.entries.get(&SpanKey { trace, span })
        })
    }

    /// Where a span stands among the spans of its process.
    pub(super) fn stand(&self, entry: &Entry) -> Stand {
        /// Deeper than any real trace; a cycle of parents ends here.
        const ANCESTORS_MAX: usize = 128;
        let mut stand = Stand::Root;
        let mut below = entry;
        for _ in 0..ANCESTORS_MAX {
            // A server span's parent is the caller's, and so is elsewhere by its meaning.
            let is_served = matches!(below.span.kind, SpanKind::Server | SpanKind::Consumer);
            let Some(key) = parent_of(&below.span).filter(|_| !is_served) else {
                break;
            };
            let Some(above) = self.entries.get(&key) else {
                return match stand {
                    Stand::Root => Stand::Unknown,
                    known => known,
                };
            };
            if above.place.owner != entry.place.owner {
                break;
            }
            stand = Stand::Under(key);
            below = above;
        }
        stand
    }

    /// Keeps an answer.
    pub(super) fn answer(&mut self, key: SpanKey, answer: SpanAnswer) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let telling = answer.head.gap_ns >= TELLING_GAP_NS
            && answer.head.gap_ns >= answer.head.wall_ns / 100 * TELLING_GAP_PERCENT;
        if telling && entry.class == Class::Plain {
            entry.class = Class::Telling;
            self.telling.push_back(key);
        }
        let bytes = bytes_of(&answer);
        let before = std::mem::replace(&mut entry.state, State::Answered(Box::new(answer), bytes));
        if let State::Answered(_, bytes) = before {
            self.answers_bytes -= bytes;
        }
        self.answers_bytes += bytes;
        self.answered.push_back(key);
        self.keep_limits();
    }

    /// The spans of a trace, in the order in which they came. What was answered once and not kept
    /// is pending again, and with `relearn` what came before its kind of span was known: the second
    /// list says which.
    pub(crate) fn trace(&mut self, trace: u128, relearn: bool) -> (Vec<Found<'_>>, Vec<SpanKey>) {
        let ids = self.traces.get(&trace).cloned().unwrap_or_default();
        let keys = ids.iter().map(|&span| SpanKey { trace, span });
        let listed: Vec<SpanKey> = keys
            .clone()
            .filter(|key| {
                let state = self.entries.get(key).map(|entry| &entry.state);
                match state {
                    Some(State::Listed(_)) => true,
                    Some(State::Answered(answer, _)) => {
                        relearn && answer.head.join.why == Why::Learning.name()
                    }
                    Some(State::Pending) | None => false,
                }
            })
            .collect();
        for &key in &listed {
            self.reopen(key);
        }
        let found = keys
            .filter_map(|key| self.entries.get(&key))
            .map(|entry| match &entry.state {
                State::Answered(answer, _) => Found::Answered(answer),
                State::Pending | State::Listed(_) => Found::Pending(&entry.span),
            })
            .collect();
        (found, listed)
    }

    /// Answered spans that `wanted` takes, biggest gap first, at most `limit`.
    pub(crate) fn list(
        &self,
        limit: usize,
        mut wanted: impl FnMut(&ListedSpan) -> bool,
    ) -> Vec<ListedSpan> {
        let mut all: Vec<ListedSpan> = self
            .entries
            .values()
            .filter_map(|entry| match &entry.state {
                State::Pending => None,
                State::Answered(answer, _) => Some(listed(answer)),
                State::Listed(listed) => Some((**listed).clone()),
            })
            .filter(|span| wanted(span))
            .collect();
        all.sort_by(|a, b| {
            let by_gap = b.head.gap_ns.cmp(&a.head.gap_ns);
            by_gap.then_with(|| a.head.span_id.cmp(&b.head.span_id))
        });
        all.truncate(limit);
        all
    }

    /// What happened here.
    pub(crate) fn counts(&self) -> SpanCounts {
        self.counts
    }

    fn keep_limits(&mut self) {
        while self.answers_bytes > ANSWERS_BYTES_MAX {
            let Some(key) = self.answered.pop_front() else {
                break;
            };
            self.shed(key);
        }
        // Keys whose answers went some other way stay behind in the queue until they are as many again.
        if self.answered.len() > 4 * SPANS_MAX {
            let entries = &self.entries;
            self.answered.retain(|key| {
                let state = entries.get(key).map(|entry| &entry.state);
                matches!(state, Some(State::Answered(..)))
            });
        }
        while self.plain.len() > SPANS_MAX {
            let oldest = self.plain.pop_front();
            self.drop_span(oldest, Class::Plain);
        }
        while self.telling.len() > SPANS_MAX {
            let oldest = self.telling.pop_front();
            self.drop_span(oldest, Class::Telling);
        }
    }

    /// Keeps only the head of an answer.
    fn shed(&mut self, key: SpanKey) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        match std::mem::replace(&mut entry.state, State::Pending) {
            State::Answered(answer, bytes) => {
                self.answers_bytes -= bytes;
                entry.state = State::Listed(Box::new(ListedSpan {
                    head: answer.head,
                    reach: answer.reach,
                }));
            }
            other => entry.state = other,
        }
    }

    /// Forgets a span, unless it has moved to the other class meanwhile.
    fn drop_span(&mut self, key: Option<SpanKey>, class: Class) {
        let Some(key) = key else { return };
        if self
            .entries
            .get(&key)
            .is_none_or(|entry| entry.class != class)
        {
            return;
        }
        let Some(entry) = self.entries.remove(&key) else {
            return;
        };
        self.counts.dropped += 1;
        match entry.state {
            State::Pending => self.counts.dropped_pending += 1,
            State::Answered(_, bytes) => self.answers_bytes -= bytes,
            State::Listed(_) => {}
        }
        remove(&mut self.traces, key.trace, key.span);
        if let Some(parent) = parent_of(&entry.span) {
            remove(&mut self.children, parent, key.span);
        }
    }
}

/// Takes an id out of a list. Spans go in the order in which they came, so it is near the front.
fn remove<K: std::hash::Hash + Eq>(lists: &mut HashMap<K, VecDeque<u64>>, at: K, id: u64) {
    if let Some(ids) = lists.get_mut(&at) {
        if let Some(place) = ids.iter().position(|&other| other == id) {
            ids.remove(place);
        }
        if ids.is_empty() {
            lists.remove(&at);
        }
    }
}

fn listed(answer: &SpanAnswer) -> ListedSpan {
    ListedSpan {
        head: answer.head.clone(),
        reach: answer.reach,
    }
}

/// What an answer takes, by estimate: its rows, at what a row with its texts usually takes.
fn bytes_of(answer: &SpanAnswer) -> usize {
    const ROW_BYTES: usize = 160;
    let of_causes = |causes: &[crate::answer::CauseAnswer]| -> usize {
        causes
            .iter()
            .map(|cause| {
                let seen = cause.evidence.stack.len() / 2 + cause.evidence.spans.len();
                2 + cause.culprits.len() + cause.chain.len() + seen
            })
            .sum()
    };
    let of_process = answer
        .process
        .as_ref()
        .map_or(0, |process| of_causes(&process.causes));
    let rows = 4
        + of_causes(&answer.causes)
        + of_causes(&answer.span_causes)
        + of_process
        + answer.episodes.len();
    rows * ROW_BYTES
}

#[cfg(test)]
mod tests;
