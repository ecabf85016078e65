// SPDX-License-Identifier: Apache-2.0
//! The threads of one process, so that those of a window are found without looking at all.
//!
//! A service that makes a thread for each request has some living threads and thousands of dead ones
//! within reach. The living are a list; the dead stand in the order of their ends, and a question
//! about a window looks only at those that ended in it or later.

use std::collections::VecDeque;

use crate::event::Ns;
use crate::event::ThreadId;

/// The threads of a process, by whether and when they ended.
#[derive(Debug, Default)]
pub(super) struct Members {
    living: Vec<ThreadId>,
    dead: VecDeque<(Ns, ThreadId)>,
}

impl Members {
    /// Takes a thread in.
    pub(super) fn add(&mut self, thread: ThreadId, ended: Option<Ns>) {
        match ended {
            None => self.living.push(thread),
            Some(at) => {
                // Ends come nearly in order, so its place is near the back.
                let after = self.dead.iter().rev().take_while(|dead| dead.0 > at);
                let place = self.dead.len() - after.count();
                self.dead.insert(place, (at, thread));
            }
        }
    }

    /// Takes a thread out.
    pub(super) fn remove(&mut self, thread: ThreadId, ended: Option<Ns>) {
        let Some(at) = ended else {
            self.living.retain(|&member| member != thread);
            return;
        };
        let from = self.dead.partition_point(|dead| dead.0 < at);
        let same = self.dead.range(from..).take_while(|dead| dead.0 == at);
        let place = same.map(|dead| dead.1).position(|member| member == thread);
        if let Some(place) = place {
            self.dead.remove(from + place);
        }
    }

    /// Those that lived at `from` or later, the living ones first.
    pub(super) fn since(&self, from: Ns) -> impl Iterator<Item = ThreadId> + '_ {
        let first = self.dead.partition_point(|dead| dead.0 < from);
        let dead = self.dead.range(first..).map(|dead| dead.1);
        self.living.iter().copied().chain(dead)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.living.is_empty() && self.dead.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Members;
    use crate::event::ThreadId;

    fn since(members: &Members, from: u64) -> Vec<u64> {
        members.since(from).map(|thread| thread.0).collect()
    }

    #[test]
    fn the_dead_are_found_by_their_ends() {
        let mut members = Members::default();
        members.add(ThreadId(1), None);
        for (thread, end) in [(2, 20), (3, 30), (4, 25), (5, 25)] {
            members.add(ThreadId(thread), Some(end));
        }
        assert_eq!(since(&members, 0), [1, 2, 4, 5, 3]);
        assert_eq!(since(&members, 21), [1, 4, 5, 3]);
        assert_eq!(since(&members, 30), [1, 3]);
        assert_eq!(since(&members, 31), [1]);
        members.remove(ThreadId(5), Some(25));
        members.remove(ThreadId(1), None);
        // Not there at that end, so nothing goes.
        members.remove(ThreadId(4), Some(20));
        assert_eq!(since(&members, 0), [2, 4, 3]);
        members.remove(ThreadId(2), Some(20));
        members.remove(ThreadId(3), Some(30));
        assert!(!members.is_empty());
        members.remove(ThreadId(4), Some(25));
        assert!(members.is_empty());
    }
}
