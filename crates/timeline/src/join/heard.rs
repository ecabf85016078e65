// SPDX-License-Identifier: Apache-2.0
//! Whose connection a request came by: the peer's port that its span names, and who waited for that or read.
//!
//! A thread that reads a request from a connection has often waited for it, and its record says for
//! which connection; where it has not, a record says that it read. That is no proof: a poller waits and
//! hands on, who reads may hand on as well, several threads may read one connection, a port is used
//! again, and behind a proxy it may be somebody else's. So it only counts as far as the spans of that
//! kind with a sole candidate have borne it out; one contradiction, and it tells nothing. Nobody is
//! named by it who is not a candidate.

use std::cmp::Reverse;

use super::candidates::Found;
use super::counts::Share;
use super::facts::SpanFacts;
use super::kind::unseen;
use super::limits::HEARD_APART_NS;
use super::limits::HEARD_LOOKS_MIN;
use super::limits::HEARD_NEAR_NS;
use super::limits::HEARD_NS;
use super::limits::HEARD_RIGHT_MIN;
use super::presence::Heard;
use super::presence::Presence;
use crate::event::Ns;
use crate::event::ThreadId;

/// A thread heard of a connection, and when.
#[derive(Clone, Copy, Debug)]
struct Hearing {
    at: Ns,
    thread: ThreadId,
    /// It took the request itself; otherwise it had waited, and may hand on what it was told of.
    took: bool,
}

/// The thread of the process that heard of a connection with the span's peer port last before the span
/// began; where none did, the only one that did so just after that. `None`: the span names no port, none
/// heard, two did at about the same time, or one may have.
pub(super) fn hearer(span: &SpanFacts<'_>, presence: &dyn Presence) -> Option<ThreadId> {
    let port = span.peer_port?;
    let ago = |ns| (span.start.saturating_sub(ns), span.start);
    let (just_before, before) = (ago(HEARD_NEAR_NS), ago(HEARD_NS));
    let after = (
        span.start,
        span.start.saturating_add(HEARD_NS).min(span.end),
    );
    let mut threads = Vec::new();
    let complete = presence.threads(span.process, before.0, after.1, &mut |facts| {
        threads.push(facts.thread);
    });
    if !complete {
        return None;
    }
    let near = heard_by(presence, &threads, port.get(), just_before)?;
    // What lies further back is more than that apart from the last one.
    let is_settled = |last: &Hearing| last.at - just_before.0 > HEARD_APART_NS;
    let hearings = match near.first().is_some_and(is_settled) {
        true => near,
        false => heard_by(presence, &threads, port.get(), before)?,
    };
    if let Some(last) = hearings.first() {
        let apart = |other: &Hearing| last.at - other.at > HEARD_APART_NS;
        return rivals(&hearings).all(apart).then_some(last.thread);
    }
    let hearings = heard_by(presence, &threads, port.get(), after)?;
    let last = hearings.first()?;
    rivals(&hearings).next().is_none().then_some(last.thread)
}

/// Who may have taken the request instead of the last one. Where that one did take it, nobody who had only
/// waited before.
fn rivals(hearings: &[Hearing]) -> impl Iterator<Item = &Hearing> {
    let last = hearings.first().copied();
    hearings.iter().filter(move |other| {
        last.is_some_and(|last| other.thread != last.thread && (other.took || !last.took))
    })
}

/// Which threads heard in a window, and when, the last first; `None` where one may have.
fn heard_by(
    presence: &dyn Presence,
    threads: &[ThreadId],
    port: u16,
    (from, to): (Ns, Ns),
) -> Option<Vec<Hearing>> {
    let mut hearings = Vec::new();
    let complete = presence.takers(port, from, to, &mut |thread, at| {
        if threads.contains(&thread) {
            let took = true;
            hearings.push(Hearing { at, thread, took });
        }
    });
    if !complete {
        return None;
    }
    for &thread in threads {
        match presence.heard(thread, port, from, to) {
            Heard::Yes(at) => {
                let took = false;
                hearings.push(Hearing { at, thread, took });
            }
            Heard::No => {}
            Heard::Maybe => return None,
        }
    }
    hearings.sort_by_key(|hearing| Reverse(hearing.at));
    Some(hearings)
}

/// How far the hearers of a kind's spans were borne out, since one was contradicted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hearings {
    /// The hearer was the sole candidate.
    right: u64,
    /// It was one of several candidates.
    open: u64,
}

impl Hearings {
    /// Notes a span whose candidates are all certain. Where the hearer is no candidate, another
    /// thread ran the span, or the end of it.
    pub(super) fn note(&mut self, found: &Found) {
        let Some(hearer) = found.hearer else {
            return;
        };
        let is_candidate = found.list.iter().any(|c| c.thread == hearer);
        match found.list.len() {
            _ if !is_candidate => *self = Hearings::default(),
            1 => self.right += 1,
            _ => self.open += 1,
        }
    }

    /// By how much less likely another candidate is than without a hearer; 1 where nothing is borne
    /// out.
    ///
    /// A wrong hearer that is on a CPU at most half of the time is no candidate for half of its
    /// spans at least, which would have been seen; so every two spans are one look. If all that is
    /// wrong were among the spans with several candidates, its share there is that much greater.
    pub(super) fn others(self) -> f64 {
        let looks = (self.right + self.open) / 2;
        if self.right < HEARD_RIGHT_MIN || looks < HEARD_LOOKS_MIN {
            return 1.0;
        }
        let open = Share {
            hits: self.open,
            of: self.right + self.open,
        };
        (unseen(looks as f64) / open.value()).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Hearings;
    use crate::event::ThreadId;
    use crate::join::candidates::Candidate;
    use crate::join::candidates::Found;

    #[test]
    fn nothing_is_believed_that_was_not_borne_out() {
        let of = |right, open| Hearings { right, open }.others();
        assert_eq!(of(0, 0), 1.0);
        // Never the sole candidate: it might be a thread that is always about.
        assert_eq!(of(0, 100_000), 1.0);
        assert_eq!(of(19, 100_000), 1.0);
        assert_eq!(of(1_999, 2_000), 1.0);
        assert!(of(2_000, 2_000) < 1e-6);
        assert!(of(200, 40_000) < of(200, 4_000));
        // Few with several candidates: all the error may be among them.
        assert!(of(3_999, 1) > of(2_000, 2_000));
    }

    #[test]
    fn one_contradiction_and_all_must_be_shown_again() {
        let candidate = |thread| Candidate {
            thread: ThreadId(thread),
            main: false,
            born: 0,
            sure: true,
            busy: false,
        };
        let found = |list: &[u64], hearer| {
            let mut found = Found::default();
            found.list = list.iter().map(|&thread| candidate(thread)).collect();
            found.hearer = Some(ThreadId(hearer));
            found
        };
        let shown = || {
            let mut hearings = Hearings::default();
            (0..2_000).for_each(|_| hearings.note(&found(&[7], 7)));
            (0..2_000).for_each(|_| hearings.note(&found(&[7, 8], 7)));
            hearings
        };
        assert!(shown().others() < 1e-6);
        for contradiction in [found(&[8], 7), found(&[8, 9], 7), found(&[], 7)] {
            let mut hearings = shown();
            hearings.note(&contradiction);
            assert_eq!(hearings.others(), 1.0, "{contradiction:?}");
        }
    }
}
