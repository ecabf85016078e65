// SPDX-License-Identifier: Apache-2.0
//! Stretches of time in which something may have been missed without a hole in any number.
//!
//! Only what rule 9 leaves unproved needs them: a full ring and failed storage show as holes in the
//! numbers of a thread's records, so they cost nothing here.

use std::ops::Range;

use crate::event::Doubt;
use crate::event::DoubtReason;
use crate::event::Ns;

/// Stretches of one kind; before there are so many the two oldest become one, which is longer and safe.
const STRETCHES_MAX: usize = 1024;

/// Everything doubted.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// A waking may be missing.
    pub(crate) wakings: Stretches,
    /// Whole cycles may be missing.
    pub(crate) switches: Stretches,
    /// The host was suspended.
    pub(crate) suspends: Stretches,
}

impl Doubts {
    pub(crate) fn push(&mut self, doubt: Doubt) {
        let stretches = match doubt.reason {
            DoubtReason::RingFull | DoubtReason::StorageFailed => return,
            DoubtReason::ProgramSkipped => &mut self.wakings,
            DoubtReason::SwitchSkipped => &mut self.switches,
            DoubtReason::Suspended => &mut self.suspends,
        };
        stretches.add(doubt.from..doubt.to);
    }

    /// Memory that they take beyond their own structs.
    pub(crate) fn heap_bytes(&self) -> usize {
        let all = [&self.wakings, &self.switches, &self.suspends];
        let held: usize = all.iter().map(|stretches| stretches.0.capacity()).sum();
        held * size_of::<Range<Ns>>()
    }

    /// Nothing is in doubt whatever it was.
    pub(crate) fn cut_nothing(&self) -> bool {
        self.switches.0.is_empty() && self.suspends.0.is_empty()
    }
}

/// Disjoint stretches, sorted.
#[derive(Debug, Default)]
pub(crate) struct Stretches(Vec<Range<Ns>>);

impl Stretches {
    /// Adds a stretch; those that touch become one.
    fn add(&mut self, mut new: Range<Ns>) {
        if new.start >= new.end {
            return;
        }
        let first = self.0.partition_point(|held| held.end < new.start);
        let last = self.0.partition_point(|held| held.start <= new.end);
        for held in self.0.drain(first..last) {
            new.start = new.start.min(held.start);
            new.end = new.end.max(held.end);
        }
        self.0.insert(first, new);
        if self.0.len() >= STRETCHES_MAX {
            self.0[1].start = self.0[0].start;
            self.0.remove(0);
        }
    }

    /// Whether any part of a range is doubted.
    pub(crate) fn touch(&self, range: &Range<Ns>) -> bool {
        self.first_in(range).is_some()
    }

    /// The first doubted part of a range.
    pub(crate) fn first_in(&self, range: &Range<Ns>) -> Option<Range<Ns>> {
        let place = self.0.partition_point(|held| held.end <= range.start);
        let held = self.0.get(place)?;
        let part = held.start.max(range.start)..held.end.min(range.end);
        (part.start < part.end).then_some(part)
    }
}
