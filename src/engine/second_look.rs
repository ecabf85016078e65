// SPDX-License-Identifier: Apache-2.0
//! Spans that were refused a thread for what was not known *yet*: they are looked at again.
//!
//! A kind of span is believed from some hundred spans on, a clock likewise, and a neighbour may
//! settle who served an ambiguous span. So whatever was refused for such a reason is looked at again
//! some seconds later, provided that another span of its process got a thread meanwhile, which is
//! the sign that something was learned. A process whose spans never get threads costs nothing.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::Joined;
use lacuna_timeline::join::SpanKey;
use lacuna_timeline::join::Why;

/// How long after an answer the next look follows, each time: what takes longer to be learned than
/// these together is older than the recorder reaches, on a busy host.
const LOOKS_AFTER: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(10),
];

/// How often the spans of one process are gone through.
const GO_THROUGH_EVERY: Duration = Duration::from_millis(500);

/// How many spans of one process wait; the oldest go first and keep their answers.
const SPANS_MAX: usize = 8_192;

/// For how many processes; at the limit those that were silent go first.
const PROCESSES_MAX: usize = 256;

/// The spans that wait for what is learned.
#[derive(Debug, Default)]
pub(super) struct SecondLook {
    processes: HashMap<ProcessId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    spans: VecDeque<Refused>,
    /// When a span of the process last got a thread.
    learned: Option<Instant>,
    gone_through: Instant,
}

/// A span that was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    /// Which.
    pub(super) key: SpanKey,
    /// When.
    at: Instant,
    looks: usize,
}

impl Refused {
    /// Whether another look is due, and may find something new.
    fn is_due(&self, learned: Instant, now: Instant) -> bool {
        learned > self.at && now.duration_since(self.at) >= LOOKS_AFTER[self.looks]
    }
}

impl SecondLook {
    /// Notes an answer; `before` is what was known of the span from an earlier look.
    pub(super) fn note(
        &mut self,
        process: ProcessId,
        key: SpanKey,
        joined: Joined,
        before: Option<Refused>,
        now: Instant,
    ) {
        if joined.thread.is_some() {
            if let Some(waiting) = self.processes.get_mut(&process) {
                waiting.learned = Some(now);
            }
            return;
        }
        let looks = before.map_or(0, |before| before.looks + 1);
        if looks >= LOOKS_AFTER.len() || !may_change(joined.why) {
            return;
        }
        if self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&process) {
            self.processes
                .retain(|_, waiting| waiting.learned.is_some());
        }
        if self.processes.len() >= 2 * PROCESSES_MAX {
            self.processes.clear();
        }
        let waiting = self.processes.entry(process).or_insert_with(|| Waiting {
            spans: VecDeque::new(),
            learned: None,
            gone_through: now,
        });
        if waiting.spans.len() >= SPANS_MAX {
            waiting.spans.pop_front();
        }
        waiting.spans.push_back(Refused {
            key,
            at: now,
            looks,
        });
    }

    /// The spans that are to be looked at again now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Refused> {
        let mut due = Vec::new();
        for waiting in self.processes.values_mut() {
            let Some(learned) = waiting.learned else {
                continue;
            };
            if now.duration_since(waiting.gone_through) < GO_THROUGH_EVERY {
                continue;
            }
            waiting.gone_through = now;
            due.extend(waiting.spans.iter().filter(|one| one.is_due(learned, now)));
            waiting.spans.retain(|one| !one.is_due(learned, now));
        }
        self.processes
            .retain(|_, waiting| !waiting.spans.is_empty());
        due
    }
}

/// Whether what was missing may yet come.
fn may_change(why: Why) -> bool {
    match why {
        Why::Learning | Why::Clock | Why::Ambiguous | Why::Maybe | Why::Unsure => true,
        Why::Found
        | Why::Unusable
        | Why::Unobserved
        | Why::Incomplete
        | Why::TooMany
        | Why::NotOneThread
        | Why::BusyThread
        | Why::NoCandidate => false,
    }
}

#[cfg(test)]
mod tests {
    use super::GO_THROUGH_EVERY;
    use super::LOOKS_AFTER;
    use super::SPANS_MAX;
    use super::SecondLook;
    use lacuna_timeline::ThreadId;
    use lacuna_timeline::event::ProcessId;
    use lacuna_timeline::join::Claim;
    use lacuna_timeline::join::How;
    use lacuna_timeline::join::Joined;
    use lacuna_timeline::join::SpanKey;
    use lacuna_timeline::join::Why;
    use std::time::Duration;
    use std::time::Instant;

    const PROCESS: ProcessId = ProcessId {
        tgid: 7,
        start_ns: 1,
    };

    fn key(span: u64) -> SpanKey {
        SpanKey { trace: 1, span }
    }

    fn joined(why: Why) -> Joined {
        Joined {
            how: How::Process,
            thread: (why == Why::Found).then_some(ThreadId(9)),
            score: 0.0,
            candidates: 2,
            why,
            claim: Claim::Absent,
        }
    }

    #[test]
    fn what_was_refused_too_early_waits_for_a_sign() {
        let mut second = SecondLook::default();
        let start = Instant::now();
        let later = start + LOOKS_AFTER[0];
        second.note(PROCESS, key(1), joined(Why::Learning), None, start);
        second.note(PROCESS, key(2), joined(Why::NotOneThread), None, start);
        assert!(second.due(later).is_empty(), "nothing was learned");
        second.note(PROCESS, key(3), joined(Why::Found), None, later);
        let due = second.due(later + GO_THROUGH_EVERY);
        let due: Vec<SpanKey> = due.iter().map(|refused| refused.key).collect();
        assert_eq!(due, [key(1)]);
        let rest = Duration::from_secs(3_600);
        assert!(second.due(later + rest).is_empty(), "it was looked at");
    }

    #[test]
    fn a_span_is_looked_at_a_few_times_only_and_ever_more_seldom() {
        let mut second = SecondLook::default();
        let mut now = Instant::now();
        second.note(PROCESS, key(1), joined(Why::Ambiguous), None, now);
        for after in LOOKS_AFTER {
            second.note(PROCESS, key(2), joined(Why::Found), None, now + after / 2);
            assert!(second.due(now + after / 2).is_empty(), "it is too early");
            now += after + GO_THROUGH_EVERY;
            let refused = second.due(now).pop().unwrap();
            second.note(PROCESS, key(1), joined(Why::Ambiguous), Some(refused), now);
        }
        let rest = Duration::from_secs(3_600);
        second.note(PROCESS, key(2), joined(Why::Found), None, now + rest);
        assert!(second.due(now + 2 * rest).is_empty());
    }

    #[test]
    fn those_that_wait_have_a_limit() {
        let mut second = SecondLook::default();
        let start = Instant::now();
        for span in 0..2 * SPANS_MAX as u64 {
            second.note(PROCESS, key(span), joined(Why::Clock), None, start);
        }
        let later = start + LOOKS_AFTER[0] + GO_THROUGH_EVERY;
        second.note(PROCESS, key(1), joined(Why::Found), None, later);
        assert_eq!(second.due(later).len(), SPANS_MAX);
    }
}
