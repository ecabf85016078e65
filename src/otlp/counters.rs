// SPDX-License-Identifier: Apache-2.0
//! What became of each request and each span: nothing is lost without being counted here.
//!
//! Spans received are exactly those accepted, refused and dropped.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::intake::Refusal;
use super::intake::Refused;
use crate::serve::ConnectionCounters;

/// How a request came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
}

impl Transport {
    /// Every transport, in the order of their counters.
    pub(crate) const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    /// A label for metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// All its spans were accepted.
    Accepted,
    /// Some of its spans were refused.
    Partial,
    /// It was malformed.
    Malformed,
    /// It was too large.
    TooLarge,
    /// It was not what is served here: another path, method, content type or encoding.
    Unsupported,
    /// There was no memory or no room in the queue for it; its sender was told to try again.
    Overloaded,
    /// Its body came too slowly, or not to its end.
    Unfinished,
}

impl Outcome {
    /// Every outcome, in the order of their counters.
    pub(crate) const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Partial,
        Self::Malformed,
        Self::TooLarge,
        Self::Unsupported,
        Self::Overloaded,
        Self::Unfinished,
    ];

    /// A label for metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Partial => "partial",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::Unsupported => "unsupported",
            Self::Overloaded => "overloaded",
            Self::Unfinished => "unfinished",
        }
    }
}

/// Counts since the start; shared by all receivers, and read at any time.
#[derive(Debug, Default)]
pub(crate) struct OtlpCounters {
    requests: [[AtomicU64; Outcome::ALL.len()]; Transport::ALL.len()],
    connections: [Arc<ConnectionCounters>; Transport::ALL.len()],
    received: AtomicU64,
    accepted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    dropped: AtomicU64,
}

impl OtlpCounters {
    /// Requests of one transport that ended so.
    pub(crate) fn requests(&self, transport: Transport, outcome: Outcome) -> u64 {
        self.requests[transport as usize][outcome as usize].load(Ordering::Relaxed)
    }

    /// Connections of one transport.
    pub(crate) fn connections(&self, transport: Transport) -> &Arc<ConnectionCounters> {
        &self.connections[transport as usize]
    }

    /// Spans in well-formed requests.
    pub(crate) fn spans_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Spans that went into the queue.
    pub(crate) fn spans_accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Spans refused for this reason.
    pub(crate) fn spans_refused(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    /// Spans that found the queue full; their sender was told, and may have sent them again.
    pub(crate) fn spans_dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn count_request(&self, transport: Transport, outcome: Outcome) {
        self.requests[transport as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_decoded(&self, taken: usize, refused: &Refused) {
        self.received
            .fetch_add(taken as u64 + refused.total(), Ordering::Relaxed);
        for reason in Refusal::ALL {
            self.refused[reason as usize].fetch_add(refused.of(reason), Ordering::Relaxed);
        }
    }

    pub(super) fn count_accepted(&self, spans: usize) {
        self.accepted.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self, spans: usize) {
        self.dropped.fetch_add(spans as u64, Ordering::Relaxed);
    }
}
