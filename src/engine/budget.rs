// SPDX-License-Identifier: Apache-2.0
//! The record budget (rule 16): when to watch less, and when everything again.
//!
//! Only arithmetic: rates in, a level out. Over the budget for a second, one level less is watched;
//! under 70 % of it for ten seconds, everything. While less than everything is watched, the kernel's
//! own count of context switches stands for the rate that watching everything would bring: it is
//! never below it.

use std::time::Duration;

/// Over the budget for so long: watch less.
const LESS_AFTER: Duration = Duration::from_secs(1);
/// Under [`MORE_BELOW_PERCENT`] of the budget for so long: watch everything.
const MORE_AFTER: Duration = Duration::from_secs(10);
const MORE_BELOW_PERCENT: u64 = 70;

/// How much is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    /// Every switch of the host.
    Everything,
    /// Every switch of the processes that send spans.
    Senders,
    /// The same, with their short waits merged into sums (rule 11).
    SendersMerged,
}

/// The rates of the host against the budget.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: u64,
    level: Level,
    over: Duration,
    under: Duration,
}

impl Budget {
    /// Watches everything at first.
    pub(super) fn new(per_second: u64) -> Budget {
        Budget {
            per_second,
            level: Level::Everything,
            over: Duration::ZERO,
            under: Duration::ZERO,
        }
    }

    /// Takes what was counted within `elapsed`; says where the level has to change to.
    ///
    /// `switches` is `None` where the kernel's count cannot be read: then less stays watched, which
    /// is the safe side.
    pub(super) fn look(
        &mut self,
        records: u64,
        switches: Option<u64>,
        elapsed: Duration,
    ) -> Option<Level> {
        let per_second = |count: u64| {
            let rate = u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1);
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        let low = self.per_second.saturating_mul(MORE_BELOW_PERCENT) / 100;
        let is_over = per_second(records) > self.per_second;
        let is_under = switches.is_some_and(|switches| per_second(switches) < low);
        self.over = if is_over {
            self.over + elapsed
        } else {
            Duration::ZERO
        };
        self.under = if is_under {
            self.under + elapsed
        } else {
            Duration::ZERO
        };
        let level = match self.level {
            Level::Everything | Level::Senders if self.over >= LESS_AFTER => self.less(),
            Level::Senders | Level::SendersMerged if self.under >= MORE_AFTER => Level::Everything,
            same => same,
        };
        if level == self.level {
            return None;
        }
        (self.level, self.over, self.under) = (level, Duration::ZERO, Duration::ZERO);
        Some(level)
    }

    fn less(&self) -> Level {
        match self.level {
            Level::Everything => Level::Senders,
            Level::Senders | Level::SendersMerged => Level::SendersMerged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;
    use super::Level;
    use std::time::Duration;

    const TURN: Duration = Duration::from_millis(500);

    /// Looks every half second; says after which looks the level changed, and to what.
    fn changes(
        budget: &mut Budget,
        looks: usize,
        records: u64,
        switches: u64,
    ) -> Vec<(usize, Level)> {
        (1..=looks)
            .filter_map(|at| Some((at, budget.look(records, Some(switches), TURN)?)))
            .collect()
    }

    #[test]
    fn over_the_budget_for_a_second_less_is_watched_step_by_step() {
        let mut budget = Budget::new(1_000);
        assert_eq!(
            changes(&mut budget, 20, 500, 700),
            [],
            "1 000 a second is the budget"
        );
        assert_eq!(
            changes(&mut budget, 6, 501, 700),
            [(2, Level::Senders), (4, Level::SendersMerged)]
        );
    }

    #[test]
    fn a_peak_changes_nothing() {
        let mut budget = Budget::new(1_000);
        for _ in 0..50 {
            assert_eq!(budget.look(9_000, Some(9_000), TURN), None);
            assert_eq!(budget.look(10, Some(10), TURN), None);
        }
    }

    #[test]
    fn under_seventy_percent_for_ten_seconds_everything_is_watched_again() {
        let mut budget = Budget::new(1_000);
        changes(&mut budget, 4, 600, 600);
        assert_eq!(
            changes(&mut budget, 50, 10, 350),
            [],
            "700 switches a second are too many"
        );
        assert_eq!(changes(&mut budget, 20, 10, 349), [(20, Level::Everything)]);
    }

    #[test]
    fn without_the_kernels_count_less_stays_watched() {
        let mut budget = Budget::new(1_000);
        changes(&mut budget, 2, 600, 600);
        assert!((0..100).all(|_| budget.look(1, None, TURN).is_none()));
    }
}
