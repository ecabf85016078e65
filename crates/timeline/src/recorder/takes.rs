// SPDX-License-Identifier: Apache-2.0
//! Who took requests from connections without a wait that tells so, for the join.
//!
//! Only the latest are kept, in the order of their instants: spans come some seconds after they began.
//! What is not kept any more is never taken for something that did not happen.

use std::collections::VecDeque;

use crate::event::Ns;
use crate::event::ThreadId;
use crate::event::Took;

/// So long before the latest one they are kept; most exporters send within five seconds.
const KEPT_NS: Ns = 60_000_000_000;

/// The latest of them.
#[derive(Debug)]
pub(crate) struct Takes {
    /// By instant.
    latest: VecDeque<Took>,
    limit: usize,
    /// All that lie after this instant are kept.
    forgotten_until: Ns,
    dropped: u64,
}

impl Takes {
    /// None; they take at most that much memory.
    pub(super) fn new(bytes_max: usize) -> Takes {
        // The list grows by doubling, so half of it may be empty.
        Takes {
            latest: VecDeque::new(),
            limit: (bytes_max / (2 * size_of::<Took>())).max(1),
            forgotten_until: 0,
            dropped: 0,
        }
    }

    /// Keeps one, and lets the oldest go where there are too many.
    pub(super) fn keep(&mut self, took: Took) {
        while let Some(oldest) = self.latest.front() {
            let is_full = self.latest.len() >= self.limit;
            if !is_full && oldest.at.saturating_add(KEPT_NS) >= took.at {
                break;
            }
            self.forgotten_until = self.forgotten_until.max(oldest.at);
            self.dropped += u64::from(is_full);
            self.latest.pop_front();
        }
        if took.at <= self.forgotten_until {
            self.dropped += 1;
            return;
        }
        // Those of different CPUs overtake each other, a little.
        let mut place = self.latest.len();
        while place > 0 && self.latest.get(place - 1).is_some_and(|p| p.at > took.at) {
            place -= 1;
        }
        self.latest.insert(place, took);
    }

    /// Visits who took a request of that port in a closed window, the first first; false where not all of
    /// it is known any more.
    pub(crate) fn visit(
        &self,
        peer_port: u16,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(ThreadId, Ns),
    ) -> bool {
        let first = self.latest.partition_point(|took| took.at < from);
        let inside = self.latest.range(first..).take_while(|took| took.at <= to);
        for took in inside.filter(|took| took.peer_port.get() == peer_port) {
            visit(took.thread, took.at);
        }
        self.forgotten_until < from
    }

    /// Memory that they take beyond their own struct.
    pub(super) fn heap_bytes(&self) -> usize {
        self.latest.capacity() * size_of::<Took>()
    }

    /// How many were let go because there were too many.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::KEPT_NS;
    use super::Takes;
    use crate::event::Ns;
    use crate::event::ThreadId;
    use crate::event::Took;
    use std::num::NonZeroU16;

    fn took(thread: u64, at: Ns, port: u16) -> Took {
        Took {
            thread: ThreadId(thread),
            at,
            peer_port: NonZeroU16::new(port).unwrap(),
        }
    }

    fn asked(takes: &Takes, port: u16, from: Ns, to: Ns) -> (Vec<(u64, Ns)>, bool) {
        let mut found = Vec::new();
        let all = takes.visit(port, from, to, &mut |thread, at| {
            found.push((thread.0, at));
        });
        (found, all)
    }

    #[test]
    fn those_of_a_port_and_a_window_are_found_in_whatever_order_they_came() {
        let mut takes = Takes::new(1 << 20);
        for (thread, at, port) in [(1, 10, 80), (2, 30, 80), (3, 20, 80), (4, 25, 81)] {
            takes.keep(took(thread, at, port));
        }
        let all = vec![(1, 10), (3, 20), (2, 30)];
        assert_eq!(asked(&takes, 80, 1, 99), (all, true));
        assert_eq!(asked(&takes, 80, 11, 29), (vec![(3, 20)], true));
        assert_eq!(asked(&takes, 80, 20, 20), (vec![(3, 20)], true));
        assert_eq!(asked(&takes, 82, 1, 99), (Vec::new(), true));
        assert_eq!(takes.dropped(), 0);
    }

    #[test]
    fn what_was_let_go_is_not_denied() {
        let mut takes = Takes::new(4 * 2 * size_of::<Took>());
        for at in 1..=10 {
            takes.keep(took(at, at, 80));
        }
        let latest = vec![(7, 7), (8, 8), (9, 9), (10, 10)];
        assert_eq!(asked(&takes, 80, 7, 10), (latest.clone(), true));
        assert_eq!(asked(&takes, 80, 6, 10), (latest.clone(), false));
        assert_eq!(takes.dropped(), 6);
        assert!(takes.heap_bytes() <= 4 * 2 * size_of::<Took>());
        // It came too late to be kept.
        takes.keep(took(5, 5, 80));
        assert_eq!(asked(&takes, 80, 1, 10).0.len(), 3);
        assert_eq!(takes.dropped(), 8);
    }

    #[test]
    fn old_ones_go_by_themselves() {
        let mut takes = Takes::new(1 << 20);
        takes.keep(took(1, 10, 80));
        takes.keep(took(2, 10 + KEPT_NS, 80));
        assert_eq!(asked(&takes, 80, 1, 10).0, [(1, 10)]);
        takes.keep(took(3, 11 + KEPT_NS, 80));
        assert_eq!(asked(&takes, 80, 1, 10), (Vec::new(), false));
        assert_eq!(asked(&takes, 80, 11, 11), (Vec::new(), true));
        assert_eq!(takes.dropped(), 0);
    }
}
