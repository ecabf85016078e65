// SPDX-License-Identifier: Apache-2.0
//! What a thread served lately: the spans that were joined to it, so that a span can be told which other
//! requests its thread served whole while it was open. In an event loop that is where its time went.
//!
//! Only spans that are long enough to matter are kept, a few for each thread, and what is forgotten
//! is merely not told: nothing is claimed of a span for want of others.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use lacuna_timeline::Ns;
use lacuna_timeline::event::ThreadId;

use crate::explain::Other;
use crate::otlp::ResourceIn;
use crate::otlp::SpanIn;

/// Shorter spans are not kept, nor told to shorter ones.
const LENGTH_MIN_NS: Ns = 1_000_000;
/// How many spans of a thread are kept, the latest (some 120 bytes each).
const SPANS_PER_THREAD_MAX: usize = 64;
/// Of how many threads; beyond it the one that served longest ago is forgotten.
const THREADS_MAX: usize = 512;
/// How many others a span is told of, the longest.
const OTHERS_MAX: usize = 4;

/// A span that ran on a thread.
#[derive(Debug)]
struct Stretch {
    range: Range<Ns>,
    trace_id: [u8; 16],
    span_id: [u8; 8],
    name: Box<str>,
    resource: Arc<ResourceIn>,
}

/// What threads served.
#[derive(Debug, Default)]
pub(super) struct Served {
    threads: HashMap<ThreadId, VecDeque<Stretch>>,
}

impl Served {
    /// Notes that a span ran on a thread.
    pub(super) fn note(&mut self, thread: ThreadId, range: Range<Ns>, span: &SpanIn) {
        if range.end.saturating_sub(range.start) < LENGTH_MIN_NS {
            return;
        }
        if !self.threads.contains_key(&thread) && self.threads.len() >= THREADS_MAX {
            let latest = |spans: &VecDeque<Stretch>| spans.back().map_or(0, |one| one.range.end);
            let silent = self.threads.iter().min_by_key(|(_, spans)| latest(spans));
            let silent = silent.map(|(&thread, _)| thread);
            silent.and_then(|thread| self.threads.remove(&thread));
        }
        let spans = self.threads.entry(thread).or_default();
        let is_same = |one: &Stretch| (one.trace_id, one.span_id) == (span.trace_id, span.span_id);
        if spans.iter().any(is_same) {
            return;
        }
        if spans.len() == SPANS_PER_THREAD_MAX {
            spans.pop_front();
        }
        spans.push_back(Stretch {
            range,
            trace_id: span.trace_id,
            span_id: span.span_id,
            name: span.name.clone(),
            resource: span.resource.clone(),
        });
    }

    /// The spans of other traces that began and ended on that thread within a span: the longest, none
    /// of them within another.
    pub(super) fn within(
        &self,
        thread: ThreadId,
        range: &Range<Ns>,
        span: &SpanIn,
    ) -> Vec<Other<'_>> {
        if range.end.saturating_sub(range.start) < LENGTH_MIN_NS {
            return Vec::new();
        }
        let is_in = |inner: &Range<Ns>, outer: &Range<Ns>| {
            outer.start <= inner.start && inner.end <= outer.end
        };
        let spans = self.threads.get(&thread).into_iter().flatten();
        let others = spans.filter(|one| one.trace_id != span.trace_id && is_in(&one.range, range));
        let mut others: Vec<&Stretch> = others.collect();
        others.sort_by_key(|one| Reverse(one.range.end - one.range.start));
        let mut told: Vec<Other<'_>> = Vec::new();
        for one in others {
            if told.len() < OTHERS_MAX && !told.iter().any(|other| is_in(&one.range, &other.range))
            {
                told.push(Other {
                    range: one.range.clone(),
                    trace_id: one.trace_id,
                    span_id: one.span_id,
                    name: &one.name,
                    service: one.resource.service_name.as_deref().unwrap_or_default(),
                });
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::LENGTH_MIN_NS;
    use super::SPANS_PER_THREAD_MAX;
    use super::Served;
    use super::THREADS_MAX;
    use crate::otlp::SpanIn;
    use crate::otlp::SpanKind;
    use lacuna_timeline::event::ThreadId;
    use std::ops::Range;
    use std::sync::Arc;

    const THREAD: ThreadId = ThreadId(1);

    fn span(trace: u32, name: &str) -> SpanIn {
        let mut trace_id = [1; 16];
        trace_id[..4].copy_from_slice(&trace.to_be_bytes());
        SpanIn {
            trace_id,
            span_id: [1; 8],
            parent_span_id: None,
            name: name.into(),
            scope: "test".into(),
            kind: SpanKind::Server,
            start_unix_ns: 1,
            end_unix_ns: 1,
            os_thread_id: None,
            thread_id: None,
            thread_name: None,
            peer_port: None,
            resource: Arc::default(),
        }
    }

    /// Milliseconds.
    fn ms(range: Range<u64>) -> Range<u64> {
        range.start * LENGTH_MIN_NS..range.end * LENGTH_MIN_NS
    }

    fn names(served: &Served, range: Range<u64>, of: &SpanIn) -> Vec<String> {
        let others = served.within(THREAD, &ms(range), of);
        others.iter().map(|other| other.name.to_owned()).collect()
    }

    #[test]
    fn others_are_whole_within_and_of_other_traces() {
        let mut served = Served::default();
        let mine = span(1, "mine");
        for (trace, range, name) in [
            (1, 20..30, "my child"),
            (2, 10..15, "in"),
            (3, 40..50, "longer"),
            (4, 41..49, "in longer"),
            (5, 5..20, "began before"),
            (6, 90..101, "ends after"),
        ] {
            served.note(THREAD, ms(range), &span(trace, name));
        }
        served.note(ThreadId(2), ms(10..90), &span(7, "elsewhere"));
        let short = 60 * LENGTH_MIN_NS..61 * LENGTH_MIN_NS - 1;
        served.note(THREAD, short, &span(8, "short"));
        assert_eq!(names(&served, 10..100, &mine), ["longer", "in"]);
        assert_eq!(names(&served, 200..300, &mine), Vec::<String>::new());
    }

    #[test]
    fn memory_is_bounded_and_the_latest_stay() {
        let mut served = Served::default();
        for at in 0..1_000_u32 {
            let from = u64::from(at) * 10;
            served.note(THREAD, ms(from..from + 5), &span(at, &at.to_string()));
            // Answered once more.
            served.note(THREAD, ms(from..from + 5), &span(at, "again"));
        }
        assert_eq!(served.threads[&THREAD].len(), SPANS_PER_THREAD_MAX);
        assert_eq!(names(&served, 9_990..10_000, &span(5_000, "x")), ["999"]);
        for thread in 2..2_000 {
            served.note(ThreadId(thread), ms(thread..thread + 5), &span(1, "x"));
        }
        assert_eq!(served.threads.len(), THREADS_MAX);
        assert!(served.threads.contains_key(&ThreadId(1_999)));
        assert!(!served.threads.contains_key(&ThreadId(2)));
    }
}
