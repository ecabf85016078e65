// SPDX-License-Identifier: Apache-2.0
//! Joined root spans, and those that wait for one.
//!
//! A thread that has another root span open is not likely to run this one too. So joined root spans
//! are remembered for a while, by thread, and those with several candidates wait until a neighbour
//! is joined. This is memory only: whether an open span counts against a thread is the kind's say.

use super::candidates::Found;
use super::facts::Joined;
use super::facts::KindId;
use super::facts::Place;
use super::facts::SpanKey;
use super::limits::OVERLAP_LOOKS_MAX;
use super::limits::PENDING_CANDIDATES_MAX;
use super::limits::PENDING_MAX;
use super::limits::ROOTS_MAX;
use crate::event::Ns;
use crate::event::ThreadId;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;

/// What of a span is needed once its candidates are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    pub(super) key: SpanKey,
    pub(super) kind: KindId,
    pub(super) place: Place,
    pub(super) start: Ns,
    pub(super) end: Ns,
    /// By how much two spans must overlap to do so beyond the errors of their clocks.
    pub(super) slack: Ns,
}

impl Outline {
    /// Whether both were open at one instant, beyond clock error.
    fn overlaps(&self, start: Ns, end: Ns) -> bool {
        let slack = self.slack.saturating_mul(2);
        self.start.saturating_add(slack) < end && start.saturating_add(slack) < self.end
    }

    /// Whether `root` is this span itself or the one it belongs to.
    fn is_part_of(&self, root: SpanKey) -> bool {
        self.key == root || self.place == Place::Under(root)
    }
}

/// A root span on its thread: joined, or the sole candidate of a kind that is not believed yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pub(super) kind: KindId,
    start: Ns,
    /// It was the sole candidate, without help from other spans.
    pub(super) certain: bool,
}

/// A root span with several candidates.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) outline: Outline,
    pub(super) found: Found,
}

/// Root spans of one process.
#[derive(Debug, Default)]
pub(super) struct Roots {
    by_thread: HashMap<ThreadId, BTreeMap<(Ns, SpanKey), Root>>,
    joined: HashMap<SpanKey, Joined>,
    order: VecDeque<(ThreadId, Ns, SpanKey)>,
    pending: VecDeque<Pending>,
}

impl Roots {
    /// The answer that a root span was given before.
    pub(super) fn joined(&self, key: SpanKey) -> Option<Joined> {
        self.joined.get(&key).copied()
    }

    /// Remembers a root span on its thread; the oldest makes room. `certain`: it was the sole
    /// candidate. The answer is kept where it named that thread.
    pub(super) fn insert(
        &mut self,
        outline: &Outline,
        thread: ThreadId,
        joined: Joined,
        certain: bool,
    ) {
        let place = (outline.end, outline.key);
        let root = Root {
            kind: outline.kind,
            start: outline.start,
            certain,
        };
        if joined.thread == Some(thread) {
            self.joined.insert(outline.key, joined);
        }
        if self
            .by_thread
            .entry(thread)
            .or_default()
            .insert(place, root)
            .is_some()
        {
            return;
        }
        self.order.push_back((thread, outline.end, outline.key));
        if self.order.len() > ROOTS_MAX
            && let Some((thread, end, key)) = self.order.pop_front()
        {
            self.joined.remove(&key);
            if let Some(roots) = self.by_thread.get_mut(&thread) {
                roots.remove(&(end, key));
                if roots.is_empty() {
                    self.by_thread.remove(&thread);
                }
            }
        }
    }

    /// Other root spans that are known to have been open on `thread` during this span.
    pub(super) fn overlapping(
        &self,
        outline: &Outline,
        thread: ThreadId,
    ) -> impl Iterator<Item = Root> {
        let first = (outline.start, SpanKey { trace: 0, span: 0 });
        let roots = self.by_thread.get(&thread);
        roots
            .into_iter()
            .flat_map(move |roots| roots.range(first..))
            .take(OVERLAP_LOOKS_MAX)
            .filter(move |((end, key), root)| {
                !outline.is_part_of(*key) && outline.overlaps(root.start, *end)
            })
            .map(|(_, root)| *root)
    }

    /// Lets a root span wait for its neighbours; the one that waited longest makes room.
    pub(super) fn wait(&mut self, pending: Pending) {
        if pending.found.list.len() > PENDING_CANDIDATES_MAX {
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(pending);
    }

    /// Takes out those that wait and may be helped by this span's join to `thread`.
    pub(super) fn helped(&mut self, outline: &Outline, thread: ThreadId) -> Vec<Pending> {
        let (start, end) = (outline.start, outline.end);
        let mut helped = Vec::new();
        let mut i = 0;
        while i < self.pending.len() {
            let one = &self.pending[i];
            let helps = one.outline.overlaps(start, end)
                && one.found.list.iter().any(|c| c.thread == thread);
            match helps.then(|| self.pending.swap_remove_back(i)).flatten() {
                Some(one) => helped.push(one),
                None => i += 1,
            }
        }
        helped
    }
}
