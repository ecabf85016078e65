// SPDX-License-Identifier: Apache-2.0
//! Spans that were refused a thread for what was not known *yet*: they are looked at again.
//!
//! A kind of span is believed from some hundred spans on, a clock likewise, and a neighbour may
//! settle who served an ambiguous span. So whatever was refused for such a reason waits here until
//! another span of its process gets a thread, which is the sign that something was learned. A
//! process whose spans never get threads costs nothing.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::Joined;
use lacuna_timeline::join::SpanKey;
use lacuna_timeline::join::Why;

/// How often the spans of one process are looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often one span is: what is not settled by then is not settled by more of the same.
const LOOKS_MAX: u8 = 3;

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
    /// Something was learned since the last look.
    learned: bool,
    looked: Instant,
}

/// A span that was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    /// Which.
    pub(super) key: SpanKey,
    /// What was said of it.
    pub(super) joined: Joined,
    looks: u8,
}

impl SecondLook {
    /// Notes an answer; `before` is what was known of the span from an earlier look.
    pub(super) fn note(
        &mut self,
        process: ProcessId,
        key: SpanKey,
        joined: Joined,
        before: Option<Refused>,
    ) {
        if joined.thread.is_some() {
            if let Some(waiting) = self.processes.get_mut(&process) {
                waiting.learned = true;
            }
            return;
        }
        let looks = before.map_or(0, |before| before.looks + 1);
        if looks >= LOOKS_MAX || !may_change(joined.why) {
            return;
        }
        if self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&process) {
            self.processes.retain(|_, waiting| waiting.learned);
        }
        let waiting = self.processes.entry(process).or_insert_with(|| Waiting {
            spans: VecDeque::new(),
            learned: false,
            looked: Instant::now(),
        });
        if waiting.spans.len() >= SPANS_MAX {
            waiting.spans.pop_front();
        }
        waiting.spans.push_back(Refused { key, joined, looks });
    }

    /// The spans that are to be looked at again now.
    pub(super) fn due(&mut self) -> Vec<Refused> {
        let mut due = Vec::new();
        for waiting in self.processes.values_mut() {
            if waiting.learned && waiting.looked.elapsed() >= LOOK_EVERY {
                waiting.learned = false;
                waiting.looked = Instant::now();
                due.extend(waiting.spans.drain(..));
            }
        }
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
    use super::LOOK_EVERY;
    use super::LOOKS_MAX;
    use super::SPANS_MAX;
    use super::SecondLook;
    use lacuna_timeline::ThreadId;
    use lacuna_timeline::event::ProcessId;
    use lacuna_timeline::join::Claim;
    use lacuna_timeline::join::How;
    use lacuna_timeline::join::Joined;
    use lacuna_timeline::join::SpanKey;
    use lacuna_timeline::join::Why;

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

    /// Lets the time between two looks pass.
    fn rest(second: &mut SecondLook) {
        for waiting in second.processes.values_mut() {
            waiting.looked = waiting.looked.checked_sub(LOOK_EVERY).unwrap();
        }
    }

    #[test]
    fn what_was_refused_too_early_waits_for_a_sign() {
        let mut second = SecondLook::default();
        second.note(PROCESS, key(1), joined(Why::Learning), None);
        second.note(PROCESS, key(2), joined(Why::NotOneThread), None);
        rest(&mut second);
        assert!(second.due().is_empty(), "nothing was learned");
        second.note(PROCESS, key(3), joined(Why::Found), None);
        let due: Vec<SpanKey> = second.due().iter().map(|refused| refused.key).collect();
        assert_eq!(due, [key(1)]);
        rest(&mut second);
        assert!(second.due().is_empty(), "one sign is one look");
    }

    #[test]
    fn a_span_is_looked_at_a_few_times_only() {
        let mut second = SecondLook::default();
        second.note(PROCESS, key(1), joined(Why::Ambiguous), None);
        let mut looks = 0;
        loop {
            second.note(PROCESS, key(2), joined(Why::Found), None);
            rest(&mut second);
            let Some(refused) = second.due().pop() else {
                break;
            };
            looks += 1;
            second.note(PROCESS, key(1), joined(Why::Ambiguous), Some(refused));
        }
        assert_eq!(looks, LOOKS_MAX);
    }

    #[test]
    fn those_that_wait_have_a_limit() {
        let mut second = SecondLook::default();
        for span in 0..2 * SPANS_MAX as u64 {
            second.note(PROCESS, key(span), joined(Why::Clock), None);
        }
        second.note(PROCESS, key(1), joined(Why::Found), None);
        rest(&mut second);
        assert_eq!(second.due().len(), SPANS_MAX);
    }
}
