// SPDX-License-Identifier: Apache-2.0
//! The span store: order, repetition, late children, limits.

use std::sync::Arc;

use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::Place as Stand;
use lacuna_timeline::join::SpanKey;

use super::Found;
use super::Place;
use super::SPANS_MAX;
use super::Spans;
use super::Window;
use super::key_of;
use crate::answer::Status;
use crate::engine::subject::Kinds;
use crate::engine::subject::Subject;
use crate::explain::SpanWindow;
use crate::explain::without_thread;
use crate::otlp::SpanIn;
use crate::otlp::SpanKind;

const PROCESS: ProcessId = ProcessId {
    tgid: 7,
    start_ns: 1,
};

fn span(trace: u8, id: u64, parent: Option<u64>) -> SpanIn {
    SpanIn {
        trace_id: [trace; 16],
        span_id: id.to_be_bytes(),
        parent_span_id: parent.map(u64::to_be_bytes),
        name: "work".into(),
        scope: Arc::from("test"),
        kind: SpanKind::Internal,
        start_unix_ns: 1_000_000_000,
        end_unix_ns: 1_100_000_000,
        os_thread_id: None,
        thread_id: None,
        thread_name: None,
        peer_port: None,
        resource: Arc::default(),
    }
}

fn place() -> Place {
    Place {
        process: Some(PROCESS),
        owner: Some(PROCESS),
        sender: None,
        why_unknown: None,
        sighting: None,
        window: Window::At(SpanWindow {
            start: 500,
            end: 100_000_500,
            suspended_ns: 0,
            error_ns: 10,
        }),
    }
}

/// Answers a span with a gap of so much.
fn answer(spans: &mut Spans, key: SpanKey, gap_ns: u64) {
    let subject = Subject::of(spans, key, &mut Kinds::default()).unwrap();
    let mut answer = without_thread(&subject.facts(0, 0), Status::Complete);
    answer.head.gap_ns = gap_ns;
    spans.answer(key, answer);
}

fn is_pending(spans: &mut Spans, key: SpanKey) -> bool {
    let (found, _) = spans.trace(key.trace, false);
    found
        .iter()
        .any(|found| matches!(found, Found::Pending(span) if key_of(span) == key))
}

#[test]
fn a_late_child_makes_its_parents_answer_stale() {
    let mut spans = Spans::default();
    let parent = key_of(&span(1, 1, None));
    assert_eq!(spans.insert(span(1, 1, None), place()), [parent]);
    answer(&mut spans, parent, 100_000_000);
    assert!(!is_pending(&mut spans, parent));
    let child = key_of(&span(1, 2, Some(1)));
    assert_eq!(
        spans.insert(span(1, 2, Some(1)), place()),
        [child, parent],
        "both are to be answered"
    );
    assert!(is_pending(&mut spans, parent));
    assert_eq!(spans.children(parent).count(), 1);
}

#[test]
fn a_span_that_comes_twice_is_one_span() {
    let mut spans = Spans::default();
    spans.insert(span(1, 1, None), place());
    assert_eq!(spans.insert(span(1, 1, None), place()), []);
    assert_eq!(spans.trace(u128::from_be_bytes([1; 16]), false).0.len(), 1);
    assert_eq!((spans.counts().received, spans.counts().repeated), (2, 1));
}

#[test]
fn a_span_stands_under_its_topmost_known_ancestor() {
    let mut spans = Spans::default();
    let stand = |spans: &Spans, id: u64| {
        let key = key_of(&span(1, id, None));
        spans.stand(spans.get(key).unwrap())
    };
    // The grandchild comes first, then its parent, then the root.
    spans.insert(span(1, 3, Some(2)), place());
    assert_eq!(stand(&spans, 3), Stand::Unknown);
    spans.insert(span(1, 2, Some(1)), place());
    assert_eq!(stand(&spans, 3), Stand::Under(key_of(&span(1, 2, None))));
    spans.insert(span(1, 1, None), place());
    assert_eq!(stand(&spans, 3), Stand::Under(key_of(&span(1, 1, None))));
    assert_eq!(stand(&spans, 1), Stand::Root);
}

#[test]
fn a_service_that_calls_itself_has_a_root_for_each_request() {
    let mut spans = Spans::default();
    spans.insert(span(1, 1, None), place());
    let mut served = span(1, 2, Some(1));
    served.kind = SpanKind::Server;
    spans.insert(served, place());
    spans.insert(span(1, 3, Some(2)), place());
    let stand = |id: u64| spans.stand(spans.get(key_of(&span(1, id, None))).unwrap());
    assert_eq!(stand(2), Stand::Root);
    assert_eq!(stand(3), Stand::Under(key_of(&span(1, 2, None))));
}

#[test]
fn what_was_answered_too_early_is_answered_again_when_asked_about() {
    let mut spans = Spans::default();
    let key = key_of(&span(1, 1, None));
    spans.insert(span(1, 1, None), place());
    let subject = Subject::of(&spans, key, &mut Kinds::default()).unwrap();
    let mut early = without_thread(&subject.facts(0, 0), Status::Complete);
    early.head.join.why = "learning".to_owned();
    spans.answer(key, early);
    assert_eq!(spans.trace(key.trace, false).1, []);
    assert_eq!(spans.trace(key.trace, true).1, [key]);
    assert!(is_pending(&mut spans, key));
}

#[test]
fn parents_in_a_circle_end() {
    let mut spans = Spans::default();
    spans.insert(span(1, 1, Some(2)), place());
    spans.insert(span(1, 2, Some(1)), place());
    let entry = spans.get(key_of(&span(1, 1, None))).unwrap();
    assert!(matches!(spans.stand(entry), Stand::Under(_)));
}

#[test]
fn a_flood_of_quick_spans_does_not_push_out_the_slow_one() {
    let mut spans = Spans::default();
    let slow = key_of(&span(1, 1, None));
    spans.insert(span(1, 1, None), place());
    answer(&mut spans, slow, 50_000_000);
    for id in 0..2 * SPANS_MAX as u64 {
        let quick = span(2, id + 1, None);
        let key = key_of(&quick);
        spans.insert(quick, place());
        answer(&mut spans, key, 5);
    }
    assert!(spans.get(slow).is_some());
    assert!(spans.entries.len() <= 2 * SPANS_MAX);
    assert!(spans.traces.len() <= 2 * SPANS_MAX);
    let counts = spans.counts();
    assert_eq!(
        counts.received - counts.dropped,
        spans.entries.len() as u64,
        "nothing is lost uncounted"
    );
}

#[test]
fn the_biggest_gap_is_listed_first() {
    let mut spans = Spans::default();
    for (id, gap_ns) in [(1, 10), (2, 90_000_000), (3, 500)] {
        spans.insert(span(1, id, None), place());
        answer(&mut spans, key_of(&span(1, id, None)), gap_ns);
    }
    let gaps: Vec<u64> = spans
        .list(2, |_| true)
        .iter()
        .map(|span| span.head.gap_ns)
        .collect();
    assert_eq!(gaps, [90_000_000, 500]);
    assert_eq!(spans.list(9, |span| span.head.gap_ns > 500).len(), 1);
}
