// SPDX-License-Identifier: Apache-2.0
//! Short looks during the window at threads that switch all the time, to learn what one switch costs
//! them with nobody in the way.
//!
//! Two processes that pass a byte back and forth wait 1 to 5 microseconds for the CPU at each of a
//! hundred thousand switches a second: 40 % of the window by the kernel's count, and nobody is to blame.
//! Beside a hog the same pair waits milliseconds, a few times. The sum alone cannot tell these apart; a
//! millisecond of it can: many milliseconds hold no long wait. So the cost of a switch is taken from the
//! quietest quarter of the looks, and doubled, since those are below the mean.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use lacuna_host::counters::grown;
use lacuna_host::tasks::Tasks;
use lacuna_host::thread::SchedStat;

/// How many threads of a process are looked at: those that switch most.
const THREADS_MAX: usize = 8;
/// Of how many it is found out which those are: the ones that have switched most so far.
const CANDIDATES_MAX: usize = 256;
/// A thread that is switched in less often than this is not looked at: at 10 microseconds a switch it
/// would wait for 1 % of the window.
const SLICES_PER_SECOND_MIN: u64 = 1_000;
/// How long a look is: shorter than the shortest time slice of the scheduler (0.7 ms and more).
const LOOK: Duration = Duration::from_millis(1);
/// A look that lasted longer than this holds long waits whatever it saw: the CPUs are so busy that the
/// one who looks was kept waiting, too.
const LOOK_MAX: Duration = Duration::from_millis(3);
/// A look with fewer switches says nothing about their cost.
const SLICES_MIN: u64 = 5;
/// Fewer looks than this prove nothing.
const LOOKS_MIN: usize = 8;
/// The most looks at one thread that are kept.
const LOOKS_MAX: usize = 1_024;
/// What a switch by itself costs at most: twice the most that was measured.
const SWITCH_COST_NS_MAX: u64 = 10_000;
/// Where there were too few looks to know, the most that was measured.
const SWITCH_COST_NS_UNKNOWN: u64 = 5_000;

/// What was seen in the looks at the threads of one process.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Waiting and switches of each look, by thread. `None`: nobody was chosen yet.
    chosen: Option<HashMap<u32, Vec<(u64, u64)>>>,
}

impl Looks {
    /// Looks once. The first time it only chooses whom to look at, by what has grown since `first`.
    pub(super) fn look(
        &mut self,
        tasks: &Tasks,
        first: impl Iterator<Item = (u32, SchedStat)>,
        since: Duration,
    ) {
        let Some(chosen) = &mut self.chosen else {
            self.chosen = Some(choose(tasks, first, since));
            return;
        };
        if chosen.is_empty() {
            return;
        }
        let read = |tid| tasks.sched(tid).ok();
        let before: Vec<_> = chosen.keys().map(|&tid| (tid, read(tid))).collect();
        let begun = Instant::now();
        std::thread::sleep(LOOK);
        if begun.elapsed() > LOOK_MAX {
            return;
        }
        for (tid, before) in before {
            let (Some(before), Some(now)) = (before, read(tid)) else {
                continue;
            };
            let waited_ns = grown(before.run_delay_ns, now.run_delay_ns);
            let slices = grown(before.slices, now.slices);
            if let (Some(waited_ns), Some(slices), Some(looks)) =
                (waited_ns, slices, chosen.get_mut(&tid))
                && slices >= SLICES_MIN
                && looks.len() < LOOKS_MAX
            {
                looks.push((waited_ns, slices));
            }
        }
    }

    /// Whether there is anybody to look at, as far as it is known yet.
    pub(super) fn go_on(&self) -> bool {
        self.chosen.as_ref().is_none_or(|chosen| !chosen.is_empty())
    }

    /// What a switch costs a thread with nobody in the way, at most. 0 for a thread that does not switch
    /// so often that it matters.
    pub(super) fn switch_cost_ns(&self, tid: u32) -> u64 {
        let looks = self.chosen.as_ref().and_then(|chosen| chosen.get(&tid));
        looks.map_or(0, |looks| cost_ns(looks))
    }
}

fn choose(
    tasks: &Tasks,
    first: impl Iterator<Item = (u32, SchedStat)>,
    since: Duration,
) -> HashMap<u32, Vec<(u64, u64)>> {
    let slices_min = u128::from(SLICES_PER_SECOND_MIN) * since.as_millis() / 1_000;
    let mut candidates: Vec<(u32, SchedStat)> = first.collect();
    candidates.sort_unstable_by_key(|(_, before)| Reverse(before.slices));
    candidates.truncate(CANDIDATES_MAX);
    let mut often: Vec<(u64, u32)> = candidates
        .into_iter()
        .filter_map(|(tid, before)| {
            let now = tasks.sched(tid).ok()?;
            Some((grown(before.slices, now.slices)?, tid))
        })
        .filter(|(slices, _)| u128::from(*slices) >= slices_min.max(1))
        .collect();
    often.sort_unstable_by(|a, b| b.cmp(a));
    often.truncate(THREADS_MAX);
    often
        .into_iter()
        .map(|(_, tid)| (tid, Vec::new()))
        .collect()
}

fn cost_ns(looks: &[(u64, u64)]) -> u64 {
    if looks.len() < LOOKS_MIN {
        return SWITCH_COST_NS_UNKNOWN;
    }
    let mut looks = looks.to_vec();
    looks.sort_unstable_by_key(|(waited_ns, slices)| waited_ns / (*slices).max(1));
    looks.truncate(looks.len() / 4);
    let waited_ns: u64 = looks.iter().map(|look| look.0).sum();
    let slices: u64 = looks.iter().map(|look| look.1).sum();
    (2 * waited_ns / slices.max(1)).min(SWITCH_COST_NS_MAX)
}

#[cfg(test)]
mod tests {
    use super::SWITCH_COST_NS_MAX;
    use super::SWITCH_COST_NS_UNKNOWN;
    use super::cost_ns;

    #[test]
    fn long_waits_do_not_make_switches_dear() {
        let quiet = vec![(300_000, 100); 20];
        assert_eq!(cost_ns(&quiet), 6_000);
        let mut disturbed = quiet.clone();
        disturbed.extend([(3_300_000, 100); 60]);
        assert_eq!(cost_ns(&disturbed), 6_000, "one look in four was quiet");
    }

    #[test]
    fn where_it_is_not_known_it_is_what_was_measured() {
        assert_eq!(cost_ns(&[(300_000, 100); 7]), SWITCH_COST_NS_UNKNOWN);
        assert_eq!(cost_ns(&[]), SWITCH_COST_NS_UNKNOWN);
        assert_eq!(cost_ns(&[(40_000_000, 10); 20]), SWITCH_COST_NS_MAX);
    }
}
