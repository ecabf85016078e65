// SPDX-License-Identifier: Apache-2.0
//! What really happened to each thread, by the simulated scheduler's own marks, and sets of time.

use std::ops::Range;

use lacuna_timeline::Cause;
use lacuna_timeline::Ns;

/// A set of instants, as disjoint sorted ranges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Range<Ns>>);

impl Times {
    /// Adds a range.
    pub(crate) fn add(&mut self, range: Range<Ns>) {
        if range.start >= range.end {
            return;
        }
        if let Some(last) = self.0.last_mut().filter(|last| last.end == range.start) {
            last.end = range.end;
            return;
        }
        let follows = self.0.last().is_none_or(|last| last.end < range.start);
        self.0.push(range);
        if follows {
            return;
        }
        self.0.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<Ns>> = Vec::new();
        for range in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        self.0 = merged;
    }

    /// Adds another set.
    pub(crate) fn add_all(&mut self, other: &Times) {
        for range in &other.0 {
            self.add(range.clone());
        }
    }

    /// What both have.
    pub(crate) fn and(&self, other: &Times) -> Times {
        let mut both = Times::default();
        for a in &self.0 {
            let first = other.0.partition_point(|b| b.end <= a.start);
            for b in other.0[first..].iter().take_while(|b| b.start < a.end) {
                both.add(a.start.max(b.start)..a.end.min(b.end));
            }
        }
        both
    }

    /// Length of what lies in a window.
    pub(crate) fn within(&self, window: &Range<Ns>) -> Ns {
        let first = self.0.partition_point(|range| range.end <= window.start);
        let inside = self.0[first..].iter();
        inside
            .take_while(|range| range.start < window.end)
            .map(|range| overlap(range, window))
            .sum()
    }
}

/// Length of what two ranges share.
pub(crate) fn overlap(a: &Range<Ns>, b: &Range<Ns>) -> Ns {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}

/// A thread's true history.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    spans: Vec<(Range<Ns>, Cause)>,
    since: Ns,
    cause: Cause,
}

impl Truth {
    /// From its birth on, with what it then does.
    pub(crate) fn new(birth: Ns, cause: Cause) -> Truth {
        Truth {
            spans: Vec::new(),
            since: birth,
            cause,
        }
    }

    /// From now on it does this.
    pub(crate) fn mark(&mut self, now: Ns, cause: Cause) {
        if now > self.since {
            self.spans.push((self.since..now, self.cause));
        }
        self.since = now;
        self.cause = cause;
    }

    /// Nanoseconds of a cause in a window, outside of a set.
    pub(crate) fn ns(&self, cause: Cause, window: &Range<Ns>, except: &Times) -> Ns {
        let first = self
            .spans
            .partition_point(|span| span.0.end <= window.start);
        self.spans[first..]
            .iter()
            .take_while(|span| span.0.start < window.end)
            .filter(|span| span.1 == cause)
            .map(|span| {
                let part = span.0.start.max(window.start)..span.0.end.min(window.end);
                part.end - part.start - except.within(&part)
            })
            .sum()
    }

    /// What it does now.
    pub(crate) fn cause(&self) -> Cause {
        self.cause
    }
}
