// SPDX-License-Identifier: Apache-2.0
//! Which threads of a process are on a CPU for more than half of the time.
//!
//! Sampled from presence over a sliding window, because such threads make candidates by chance and
//! are left out as a test (rule 13 a). Unknown time counts as on a CPU: it errs towards testing.

use super::limits::BUSY_SHARE;
use super::limits::SHARE_EVERY_NS;
use super::limits::SHARE_HALF_SAMPLES;
use super::limits::SHARES_MAX;
use super::presence::Presence;
use crate::event::Ns;
use crate::event::ProcessId;
use crate::event::ThreadId;
use std::collections::HashMap;

/// On-CPU nanoseconds, and of how many.
type OnOf = (Ns, Ns);

/// On-CPU shares of the threads of one process.
#[derive(Debug, Default)]
pub(super) struct Shares {
    current: HashMap<ThreadId, OnOf>,
    previous: HashMap<ThreadId, OnOf>,
    samples: u32,
    sampled_to: Ns,
}

impl Shares {
    /// Looks at the stretch before `now`, where that is far enough after the last look.
    pub(super) fn sample(&mut self, presence: &dyn Presence, process: ProcessId, now: Ns) {
        if now < self.sampled_to.saturating_add(SHARE_EVERY_NS) {
            return;
        }
        if self.samples >= SHARE_HALF_SAMPLES {
            self.previous = std::mem::take(&mut self.current);
            self.samples = 0;
        }
        self.samples += 1;
        self.sampled_to = now;
        let from = now.saturating_sub(SHARE_EVERY_NS);
        let mut threads = Vec::new();
        presence.threads(process, from, now, &mut |facts| {
            threads.push((
                facts.thread,
                facts.born.max(from),
                facts.died.unwrap_or(now).min(now),
            ));
        });
        for (thread, from, to) in threads {
            if from >= to || self.current.len() >= SHARES_MAX {
                continue;
            }
            let running = presence.running(thread, from, to);
            let share = self.current.entry(thread).or_default();
            share.0 = share
                .0
                .saturating_add(running.on_ns.saturating_add(running.unknown_ns));
            share.1 = share.1.saturating_add(to - from);
        }
    }

    /// Whether `thread` is on a CPU for more than half of the time it was looked at. One that was
    /// never looked at is, as far as is known, busy: that only costs a test.
    pub(super) fn busy(&self, thread: ThreadId) -> bool {
        let get = |half: &HashMap<_, OnOf>| half.get(&thread).copied().unwrap_or_default();
        let (older, newer) = (get(&self.previous), get(&self.current));
        let on = older.0.saturating_add(newer.0) as f64;
        let of = older.1.saturating_add(newer.1) as f64;
        of == 0.0 || on > BUSY_SHARE * of
    }
}
