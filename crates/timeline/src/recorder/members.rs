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
    /// All of them, in the order of their ids in their own pid namespace: what a futex names its
    /// owner by.
    named: VecDeque<(u32, ThreadId)>,
}

impl Members {
    /// Takes a thread in.
    pub(super) fn add(&mut self, thread: ThreadId, ns_tid: u32, ended: Option<Ns>) {
        // Ids are mostly given in rising order, so its place is near the back.
        let place = self
            .named
            .partition_point(|&other| other < (ns_tid, thread));
        self.named.insert(place, (ns_tid, thread));
        match ended {
            None => self.living.push(thread),
            Some(at) => self.bury(thread, at),
        }
    }

    /// Notes the end of a thread that lived.
    pub(super) fn end(&mut self, thread: ThreadId, at: Ns) {
        self.living.retain(|&member| member != thread);
        self.bury(thread, at);
    }

    fn bury(&mut self, thread: ThreadId, at: Ns) {
        // Ends come nearly in order, so its place is near the back.
        let after = self.dead.iter().rev().take_while(|dead| dead.0 > at);
        let place = self.dead.len() - after.count();
        self.dead.insert(place, (at, thread));
    }

    /// Takes a thread out.
    pub(super) fn remove(&mut self, thread: ThreadId, ns_tid: u32, ended: Option<Ns>) {
        if let Ok(place) = self.named.binary_search(&(ns_tid, thread)) {
            self.named.remove(place);
        }
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

    /// Those, living or dead, with that id in their own pid namespace.
    pub(super) fn named(&self, ns_tid: u32) -> impl Iterator<Item = ThreadId> + '_ {
        let first = self.named.partition_point(|named| named.0 < ns_tid);
        let same = self.named.range(first..);
        same.take_while(move |named| named.0 == ns_tid)
            .map(|named| named.1)
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
        members.add(ThreadId(1), 1, None);
        for (thread, end) in [(2, 20), (3, 30), (4, 25)] {
            members.add(ThreadId(thread), 1, Some(end));
        }
        members.add(ThreadId(5), 5, None);
        members.end(ThreadId(5), 25);
        assert_eq!(since(&members, 0), [1, 2, 4, 5, 3]);
        assert_eq!(since(&members, 21), [1, 4, 5, 3]);
        assert_eq!(since(&members, 30), [1, 3]);
        assert_eq!(since(&members, 31), [1]);
        members.remove(ThreadId(5), 5, Some(25));
        members.remove(ThreadId(1), 1, None);
        // Not there at that end, so nothing goes.
        members.remove(ThreadId(4), 1, Some(20));
        assert_eq!(since(&members, 0), [2, 4, 3]);
        members.remove(ThreadId(2), 1, Some(20));
        members.remove(ThreadId(3), 1, Some(30));
        assert!(!members.is_empty());
        members.remove(ThreadId(4), 1, Some(25));
        assert!(members.is_empty());
    }

    #[test]
    fn those_of_one_name_are_found_living_or_dead() {
        let mut members = Members::default();
        for (thread, name) in [(9, 7), (2, 7), (3, 6), (4, 8), (5, 7)] {
            members.add(ThreadId(thread), name, None);
        }
        members.end(ThreadId(5), 10);
        let named = |members: &Members, name| -> Vec<u64> {
            members.named(name).map(|thread| thread.0).collect()
        };
        assert_eq!(named(&members, 7), [2, 5, 9]);
        members.remove(ThreadId(5), 7, Some(10));
        members.remove(ThreadId(2), 7, None);
        assert_eq!(named(&members, 7), [9]);
        assert_eq!(named(&members, 5), [0; 0]);
    }
}
