// SPDX-License-Identifier: Apache-2.0
//! Other requests that a span's thread served meanwhile: of each cause, how much fell within them.
//!
//! A thread that began and ended another span while this one was open was at that other one at both
//! instants. Between them it may have come back to this one (an event loop could), so nothing is
//! taken from this span's account: the others are named beside it, with what the thread did in them.

use std::cmp::Reverse;
use std::ops::Range;

use lacuna_timeline::Ns;
use lacuna_timeline::event::ThreadId;

use crate::answer::CauseAnswer;
use crate::answer::SpanRef;
use crate::answer::SpanWithin;
use crate::otlp::hex;

use super::Names;

/// Another span of the same thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Other<'a> {
    /// From its start to its end, `CLOCK_MONOTONIC`.
    pub(crate) range: Range<Ns>,
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    pub(crate) name: &'a str,
    pub(crate) service: &'a str,
}

/// Adds to each cause of a gap how much of it fell within each of the others.
pub(super) fn add(
    causes: &mut [CauseAnswer],
    thread: ThreadId,
    gap: &[Range<Ns>],
    others: &[Other<'_>],
    names: &Names<'_>,
) {
    for other in others {
        let parts = gap
            .iter()
            .map(|part| part.start.max(other.range.start)..part.end.min(other.range.end));
        let parts: Vec<Range<Ns>> = parts.filter(|part| part.start < part.end).collect();
        let account = names.recorder.account(thread, &parts);
        for share in account.shares.iter().filter(|share| share.ns > 0) {
            let cause = causes.iter_mut().find(|cause| cause.cause == share.cause);
            if let Some(cause) = cause {
                cause.evidence.spans.push(SpanWithin {
                    span: SpanRef {
                        trace_id: hex::encode(&other.trace_id),
                        span_id: hex::encode(&other.span_id),
                        name: other.name.to_owned(),
                        service: other.service.to_owned(),
                    },
                    ns: share.ns,
                });
            }
        }
    }
    for cause in causes {
        cause.evidence.spans.sort_by_key(|span| Reverse(span.ns));
    }
}
