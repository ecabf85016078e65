// SPDX-License-Identifier: Apache-2.0
//! What the threads of a process did between looks at them: sums of growth, thread by thread.
//!
//! Pure. A thread that appears later is counted from its birth; one that disappears is counted up to
//! the last look at it, and that it ended is counted too.

use std::collections::BTreeMap;

use lacuna_host::counters::Switches;
use lacuna_host::counters::grown;

/// A thread as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Thread {
    pub(super) switches: Switches,
    /// `None`: the kernel does not tell.
    pub(super) migrations: Option<u64>,
}

/// What was found of all threads at one look, by tid.
pub(super) type Threads = BTreeMap<u32, Thread>;

/// Sums since the first look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tally {
    last: Threads,
    pub(super) switches: Switches,
    /// `None`: of at least one thread it was not told.
    pub(super) migrations: Option<u64>,
    /// Threads that were there at a look and no more at the next.
    pub(super) ended: u64,
}

impl Tally {
    /// From here on.
    pub(super) fn from(first: Threads) -> Tally {
        let told = first.values().all(|thread| thread.migrations.is_some());
        Tally {
            last: first,
            switches: Switches::default(),
            migrations: told.then_some(0),
            ended: 0,
        }
    }

    /// Adds what has happened since the look before.
    pub(super) fn look(&mut self, now: Threads) {
        for (tid, thread) in &now {
            let known = self.last.remove(tid);
            // Counters that went back are another thread's, which got a number that was free again.
            let same = known.filter(|was| {
                let (was, now) = (was.switches, thread.switches);
                grown(was.voluntary, now.voluntary)
                    .and(grown(was.involuntary, now.involuntary))
                    .is_some()
            });
            self.ended += u64::from(known.is_some() && same.is_none());
            self.add(
                same.unwrap_or(Thread {
                    migrations: Some(0),
                    ..Thread::default()
                }),
                *thread,
            );
        }
        self.ended += self.last.len() as u64;
        self.last = now;
    }

    fn add(&mut self, was: Thread, now: Thread) {
        let growth = |was, now| grown(was, now).unwrap_or(0);
        let (was_so, now_so) = (was.switches, now.switches);
        self.switches.voluntary += growth(was_so.voluntary, now_so.voluntary);
        self.switches.involuntary += growth(was_so.involuntary, now_so.involuntary);
        let moved = was.migrations.zip(now.migrations);
        let sum = self.migrations.zip(moved);
        self.migrations = sum.map(|(sum, (was, now))| sum + growth(was, now));
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use super::Thread;
    use super::Threads;
    use lacuna_host::counters::Switches;

    fn threads(found: &[(u32, u64, u64, u64)]) -> Threads {
        let found = found.iter();
        let found = found.map(|&(tid, voluntary, involuntary, migrations)| {
            let switches = Switches {
                voluntary,
                involuntary,
            };
            (
                tid,
                Thread {
                    switches,
                    migrations: Some(migrations),
                },
            )
        });
        found.collect()
    }

    fn sums(tally: &Tally) -> (u64, u64, Option<u64>, u64) {
        (
            tally.switches.voluntary,
            tally.switches.involuntary,
            tally.migrations,
            tally.ended,
        )
    }

    #[test]
    fn what_was_before_the_first_look_does_not_count() {
        let mut tally = Tally::from(threads(&[(1, 1_000, 100, 10), (2, 5, 5, 5)]));
        assert_eq!(sums(&tally), (0, 0, Some(0), 0));
        tally.look(threads(&[(1, 1_007, 103, 11), (2, 5, 5, 5)]));
        tally.look(threads(&[(1, 1_008, 103, 11), (2, 6, 6, 6)]));
        assert_eq!(sums(&tally), (9, 4, Some(2), 0));
    }

    #[test]
    fn threads_that_come_count_from_their_birth_and_those_that_go_to_the_last_look() {
        let mut tally = Tally::from(threads(&[(1, 10, 0, 0), (2, 10, 0, 0)]));
        tally.look(threads(&[(1, 11, 0, 0), (2, 14, 0, 0), (3, 100, 1, 2)]));
        tally.look(threads(&[(1, 12, 0, 0), (3, 101, 1, 2)]));
        assert_eq!(sums(&tally), (1 + 4 + 100 + 1 + 1, 1, Some(2), 1));
    }

    #[test]
    fn a_number_that_is_used_again_is_another_thread() {
        let mut tally = Tally::from(threads(&[(1, 10, 0, 0), (7, 500, 50, 5)]));
        tally.look(threads(&[(1, 10, 0, 0), (7, 3, 1, 1)]));
        assert_eq!(sums(&tally), (3, 1, Some(1), 1));
    }

    #[test]
    fn migrations_that_are_not_told_of_one_thread_are_told_of_none() {
        let mut tally = Tally::from(threads(&[(1, 1, 1, 1)]));
        let mut silent = threads(&[(1, 2, 2, 2), (2, 1, 1, 1)]);
        silent
            .entry(2)
            .and_modify(|thread| thread.migrations = None);
        tally.look(silent);
        tally.look(threads(&[(1, 3, 3, 3), (2, 2, 2, 2)]));
        assert_eq!(sums(&tally), (2 + 1 + 1, 2 + 1 + 1, None, 0));
    }
}
