// SPDX-License-Identifier: Apache-2.0
//! Whether children of a kind run on their parent's thread.
//!
//! A child's instants tell more of its parent's thread, but only where the program runs it there:
//! a child handed to an executor would exclude the true thread. So each pair of kinds is learned
//! from parents that have candidates by their own two instants. No verdict on the parent here.

use super::candidates::Candidate;
use super::candidates::at_all;
use super::candidates::child_windows;
use super::counts::Halves;
use super::facts::ChildFacts;
use super::facts::KindId;
use super::limits::EDGE_SOLE_MIN;
use super::limits::EDGES_MAX;
use super::limits::HALF_SPANS;
use super::limits::KIND_SPANS_MIN;
use super::limits::NO_CANDIDATE_ONE_IN;
use super::presence::OnCpu;
use super::presence::Presence;
use crate::event::Ns;
use std::collections::HashMap;

/// One half of the window.
#[derive(Debug, Default)]
struct Counts {
    /// Children looked at.
    children: u64,
    /// Of those, with none of the parent's candidates on a CPU at both instants.
    none: u64,
    /// Children whose parent had one candidate, and of those where it was off the CPU.
    sole: u64,
    sole_none: u64,
}

/// What is learned of each kind of child of one kind of parent.
#[derive(Debug, Default)]
pub(super) struct Edges {
    counts: HashMap<KindId, Halves<Counts>>,
}

impl Edges {
    /// Notes a child of a parent whose candidates, all sure, are `parents`.
    pub(super) fn note(
        &mut self,
        presence: &dyn Presence,
        parents: &[Candidate],
        child: &ChildFacts,
        (error_ns, grain_ns): (Ns, Ns),
    ) {
        if parents.is_empty()
            || (self.counts.len() >= EDGES_MAX && !self.counts.contains_key(&child.kind))
        {
            return;
        }
        let windows = child_windows(child, error_ns, grain_ns);
        let on = |c: &Candidate| at_all(presence, c.thread, &windows);
        let mut off = true;
        for parent in parents {
            match on(parent) {
                OnCpu::Maybe => return,
                OnCpu::Yes => off = false,
                OnCpu::No => {}
            }
        }
        let halves = self.counts.entry(child.kind).or_default();
        if halves.current.children >= HALF_SPANS {
            halves.roll();
        }
        let counts = &mut halves.current;
        counts.children += 1;
        counts.none += u64::from(off);
        if parents.len() == 1 {
            counts.sole += 1;
            counts.sole_none += u64::from(off);
        }
    }

    /// Whether children of that kind are shown to run on their parent's thread.
    pub(super) fn on_parents_thread(&self, child: KindId) -> bool {
        self.counts.get(&child).is_some_and(|halves| {
            let children = halves.sum(|c| c.children);
            let none = halves.sum(|c| c.none);
            children >= KIND_SPANS_MIN
                && none * NO_CANDIDATE_ONE_IN <= children
                && halves.sum(|c| c.sole) >= EDGE_SOLE_MIN
                && halves.sum(|c| c.sole_none) == 0
        })
    }
}
