// SPDX-License-Identifier: Apache-2.0
//! Counting over a sliding window, and the little statistics that the join's verdicts need.
//!
//! A window is two halves: the older is forgotten when the newer is full, so that a program that
//! changes is noticed and nothing is stored per span. No verdicts here.

use super::limits::OFFSETS;
use super::limits::STANDARD_ERRORS;

/// Two halves of a window of counts.
#[derive(Debug, Default)]
pub(super) struct Halves<T> {
    /// The half that is being filled.
    pub(super) current: T,
    previous: T,
}

impl<T: Default> Halves<T> {
    /// Forgets the older half.
    pub(super) fn roll(&mut self) {
        self.previous = std::mem::take(&mut self.current);
    }

    /// Sum over both halves.
    pub(super) fn sum(&self, count: impl Fn(&T) -> u64) -> u64 {
        count(&self.previous) + count(&self.current)
    }

    /// The older half, then the newer.
    pub(super) fn each(&self) -> [&T; 2] {
        [&self.previous, &self.current]
    }
}

/// A share: `hits` of `of`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// How often it was so.
    pub(super) hits: u64,
    /// Of how many.
    pub(super) of: u64,
}

impl Share {
    /// Its estimate, one hit and one miss added, so that no certainty comes from few.
    pub(super) fn value(self) -> f64 {
        (self.hits as f64 + 1.0) / (self.of as f64 + 2.0)
    }

    /// Variance of that estimate.
    fn variance(self) -> f64 {
        let value = self.value();
        value * (1.0 - value) / (self.of as f64 + 2.0)
    }

    /// The most that it may be, by two standard errors.
    pub(super) fn most(self) -> f64 {
        self.value() + 2.0 * self.variance().sqrt()
    }

    /// Whether it is above `other` by more than chance ([`STANDARD_ERRORS`]).
    pub(super) fn clearly_above(self, other: Share) -> bool {
        let error = (self.variance() + other.variance()).sqrt();
        self.value() - other.value() >= STANDARD_ERRORS * error
    }
}

/// How often there was a candidate at each trial offset.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trials {
    tried: [u32; OFFSETS.len()],
    /// With any thread.
    any: [u32; OFFSETS.len()],
    /// With a thread that is not busy.
    idle: [u32; OFFSETS.len()],
}

impl Trials {
    /// Notes the outcome of a trial at offset number `i`.
    pub(super) fn note(&mut self, i: usize, any: bool, idle: bool) {
        self.tried[i] = self.tried[i].saturating_add(1);
        self.any[i] = self.any[i].saturating_add(u32::from(any));
        self.idle[i] = self.idle[i].saturating_add(u32::from(idle));
    }

    /// Share with any candidate at offset number `i`.
    pub(super) fn any(&self, i: usize) -> Share {
        Share {
            hits: self.any[i].into(),
            of: self.tried[i].into(),
        }
    }

    /// Share with a candidate that is not busy at offset number `i`.
    pub(super) fn idle(&self, i: usize) -> Share {
        Share {
            hits: self.idle[i].into(),
            of: self.tried[i].into(),
        }
    }

    /// With any candidate, over all offsets.
    pub(super) fn overall(&self) -> Share {
        Share {
            hits: sum(&self.any),
            of: sum(&self.tried),
        }
    }

    /// With a candidate that is not busy, over all offsets.
    pub(super) fn overall_idle(&self) -> Share {
        Share {
            hits: sum(&self.idle),
            of: sum(&self.tried),
        }
    }

    /// Both halves of a window together.
    pub(super) fn plus(&self, other: &Trials) -> Trials {
        let mut all = *self;
        for i in 0..OFFSETS.len() {
            all.tried[i] = all.tried[i].saturating_add(other.tried[i]);
            all.any[i] = all.any[i].saturating_add(other.any[i]);
            all.idle[i] = all.idle[i].saturating_add(other.idle[i]);
        }
        all
    }
}

fn sum(counts: &[u32]) -> u64 {
    counts.iter().map(|&count| u64::from(count)).sum()
}
