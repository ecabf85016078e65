// SPDX-License-Identifier: Apache-2.0
//! Episodes: stretches with one cause and one culprit, the longest of them kept.

use std::cmp::Reverse;
use std::ops::Range;

use super::EPISODES_MAX;
use super::Episode;
use super::Reason;
use super::Who;
use crate::cause::Cause;
use crate::event::Ns;

/// How many are held before the short ones are dropped; larger than what is kept, so that the
/// dropping costs little for each.
const HELD_MAX: usize = 16 * EPISODES_MAX;

/// Episodes under way.
#[derive(Debug, Default)]
pub(super) struct Episodes {
    held: Vec<Episode>,
    /// The one that the next stretch may belong to.
    current: Option<Episode>,
    total: u64,
}

impl Episodes {
    /// Adds a stretch; it extends the one before where it follows it and is of the same kind.
    pub(super) fn add(
        &mut self,
        range: &Range<Ns>,
        cause: Cause,
        culprit: Option<Who>,
        reason: Option<Reason>,
    ) {
        let ns = range.end - range.start;
        let same = |known: &&mut Episode| {
            known.start + known.ns == range.start
                && (known.cause, known.culprit, known.reason) == (cause, culprit, reason)
        };
        if let Some(known) = self.current.as_mut().filter(same) {
            known.ns += ns;
            return;
        }
        self.total += 1;
        self.held.extend(self.current.take());
        self.current = Some(Episode {
            start: range.start,
            ns,
            cause,
            culprit,
            reason,
        });
        if self.held.len() >= HELD_MAX {
            self.keep_longest();
        }
    }

    /// The longest, in time order, and how many there were.
    pub(super) fn finish(mut self) -> (Vec<Episode>, u64) {
        self.held.extend(self.current.take());
        self.keep_longest();
        self.held.sort_by_key(|episode| episode.start);
        (self.held, self.total)
    }

    fn keep_longest(&mut self) {
        if self.held.len() <= EPISODES_MAX {
            return;
        }
        let order = |episode: &Episode| (Reverse(episode.ns), episode.start);
        let mut orders: Vec<_> = self.held.iter().map(order).collect();
        let (_, &mut last, _) = orders.select_nth_unstable(EPISODES_MAX - 1);
        self.held.retain(|episode| order(episode) <= last);
    }
}
