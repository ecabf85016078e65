// SPDX-License-Identifier: Apache-2.0
//! What is accepted of a request: each span is checked once, and refused for one reason or taken.
//!
//! A refused span costs its request nothing else: the others are taken, and the sender is told how
//! many were not and why (`partial_success`).

use std::collections::HashSet;
use std::fmt;

use super::FUTURE_NS_MAX;
use super::REQUEST_SPANS_MAX;
use super::span::SpanIn;

/// Why a span was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Its trace id is missing, of a wrong length, or zero.
    TraceId,
    /// The same of its span id.
    SpanId,
    /// It has no start or no end.
    ZeroTime,
    /// It ends before it starts.
    EndBeforeStart,
    /// It ends more than a day from now.
    Future,
    /// The request has another span of that trace and id.
    Duplicate,
    /// The request has more spans than are looked at.
    TooMany,
}

impl Refusal {
    /// Every reason, in the order of their counters.
    pub(crate) const ALL: [Self; 7] = [
        Self::TraceId,
        Self::SpanId,
        Self::ZeroTime,
        Self::EndBeforeStart,
        Self::Future,
        Self::Duplicate,
        Self::TooMany,
    ];

    /// A label for metrics and answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TraceId => "trace-id",
            Self::SpanId => "span-id",
            Self::ZeroTime => "zero-time",
            Self::EndBeforeStart => "end-before-start",
            Self::Future => "future",
            Self::Duplicate => "duplicate",
            Self::TooMany => "too-many",
        }
    }

    /// For the sender: what is wrong with the span.
    fn words(self) -> &'static str {
        match self {
            Self::TraceId => "without a valid trace id",
            Self::SpanId => "without a valid span id",
            Self::ZeroTime => "without a start or end time",
            Self::EndBeforeStart => "ending before they start",
            Self::Future => "ending more than a day from now",
            Self::Duplicate => "with the ids of another span of this request",
            Self::TooMany => "beyond the number that one request may have",
        }
    }
}

/// How many spans of a request were refused, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Refused([u64; Refusal::ALL.len()]);

impl Refused {
    /// Those of one reason.
    pub(crate) fn of(&self, reason: Refusal) -> u64 {
        self.0[reason as usize]
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spans refused", self.total())?;
        let mut separator = ": ";
        for reason in Refusal::ALL {
            let count = self.of(reason);
            if count > 0 {
                write!(f, "{separator}{count} {}", reason.words())?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// The spans of one request, being collected.
#[derive(Debug)]
pub(super) struct Intake {
    latest_unix_ns: u64,
    spans: Vec<SpanIn>,
    seen: HashSet<([u8; 16], [u8; 8])>,
    looked_at: usize,
    refused: Refused,
}

impl Intake {
    /// For a request that arrived at this instant of the host's clock.
    pub(super) fn at(now_unix_ns: u64) -> Self {
        Self {
            latest_unix_ns: now_unix_ns.saturating_add(FUTURE_NS_MAX),
            spans: Vec::new(),
            seen: HashSet::new(),
            looked_at: 0,
            refused: Refused::default(),
        }
    }

    /// Takes a span, or counts why not. It is read only where it is to be looked at, so that a
    /// request of millions costs little more than the counting.
    ///
    /// # Errors
    /// What `read` says.
    pub(super) fn admit<E>(&mut self, read: impl FnOnce() -> Result<SpanIn, E>) -> Result<(), E> {
        if self.looked_at == REQUEST_SPANS_MAX {
            self.refused.0[Refusal::TooMany as usize] += 1;
            return Ok(());
        }
        self.looked_at += 1;
        let span = read()?;
        match self.refusal(&span) {
            None => self.spans.push(span),
            Some(reason) => self.refused.0[reason as usize] += 1,
        }
        Ok(())
    }

    /// What was taken, and how many were not.
    pub(super) fn finish(self) -> (Vec<SpanIn>, Refused) {
        (self.spans, self.refused)
    }

    fn refusal(&mut self, span: &SpanIn) -> Option<Refusal> {
        if span.trace_id == [0; 16] {
            Some(Refusal::TraceId)
        } else if span.span_id == [0; 8] {
            Some(Refusal::SpanId)
        } else if span.start_unix_ns == 0 || span.end_unix_ns == 0 {
            Some(Refusal::ZeroTime)
        } else if span.end_unix_ns < span.start_unix_ns {
            Some(Refusal::EndBeforeStart)
        } else if span.end_unix_ns > self.latest_unix_ns {
            Some(Refusal::Future)
        } else if !self.seen.insert((span.trace_id, span.span_id)) {
            Some(Refusal::Duplicate)
        } else {
            None
        }
    }
}
