// SPDX-License-Identifier: Apache-2.0
//! Whether a process's clock may be trusted (rule 14).
//!
//! A clock is trusted while the share of spans with a candidate is far higher at the instants as
//! they are than at the same instants moved by 50 ms to 5 s. A helper that always runs gives every
//! offset a candidate, so the same is tried without the threads that are busy. A bias is never
//! corrected here: a clock that needs it is refused.

use super::counts::Halves;
use super::counts::Share;
use super::counts::Trials;
use super::limits::CLOCK_SHARE_MIN;
use super::limits::CLOCK_SPANS_MIN;
use super::limits::HALF_SPANS;
use super::limits::OFFSET_SAMPLES_MIN;
use super::limits::OFFSETS;

/// What is known of a process's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Clock {
    /// Too few spans were seen.
    #[default]
    Unproved,
    /// Nearly every span has a candidate, but so it has at other offsets: nothing contradicts the
    /// clock and nothing proves it.
    Flat,
    /// Proved.
    Good,
    /// Proved, though some kinds of span often have no candidate: those must be refused, the clock
    /// need not be.
    GoodForSome,
    /// Spans lack candidates, no less than they would by chance.
    Biased,
}

/// Counts of a process's spans.
#[derive(Debug, Default)]
struct Counts {
    spans: u64,
    /// With a candidate.
    any: u64,
    /// With a candidate that is not busy.
    idle: u64,
    trials: Trials,
}

/// The clock check of one process.
#[derive(Debug, Default)]
pub(super) struct ClockCheck {
    counts: Halves<Counts>,
}

impl ClockCheck {
    /// Notes a span whose records were complete.
    pub(super) fn note_span(&mut self, any: bool, idle: bool) {
        if self.counts.current.spans >= HALF_SPANS {
            self.counts.roll();
        }
        let counts = &mut self.counts.current;
        counts.spans += 1;
        counts.any += u64::from(any);
        counts.idle += u64::from(idle);
    }

    /// Notes a trial of such a span at offset number `i`.
    pub(super) fn note_trial(&mut self, i: usize, any: bool, idle: bool) {
        self.counts.current.trials.note(i, any, idle);
    }

    /// The verdict.
    pub(super) fn verdict(&self) -> Clock {
        let of = self.counts.sum(|c| c.spans);
        if of < CLOCK_SPANS_MIN {
            return Clock::Unproved;
        }
        let any = Share {
            hits: self.counts.sum(|c| c.any),
            of,
        };
        let idle = Share {
            hits: self.counts.sum(|c| c.idle),
            of,
        };
        let [older, newer] = self.counts.each();
        let trials = older.trials.plus(&newer.trials);
        let complete = any.hits as f64 >= CLOCK_SHARE_MIN * of as f64;
        let idle_complete = idle.hits as f64 >= CLOCK_SHARE_MIN * of as f64;
        let stands_out = above_median(any, |i| trials.any(i));
        if complete && (stands_out || idle_complete && above_median(idle, |i| trials.idle(i))) {
            Clock::Good
        } else if complete {
            Clock::Flat
        } else if stands_out {
            Clock::GoodForSome
        } else {
            Clock::Biased
        }
    }
}

/// Whether the share at offset 0 is clearly above the median over the trial offsets. The median's
/// error is that of one offset's share: offsets see the same bursts, so pretending that all samples
/// are independent would make chance look certain.
fn above_median(at_zero: Share, trial: impl Fn(usize) -> Share) -> bool {
    let mut shares: Vec<Share> = (0..OFFSETS.len())
        .map(trial)
        .filter(|share| share.of >= OFFSET_SAMPLES_MIN)
        .collect();
    if shares.len() * 2 < OFFSETS.len() {
        return false;
    }
    shares.sort_by(|a, b| a.value().total_cmp(&b.value()));
    let median = shares[shares.len() / 2].value();
    let of = shares.iter().map(|share| share.of).max().unwrap_or(0);
    let hits = (median * of as f64) as u64;
    at_zero.clearly_above(Share { hits, of })
}
