// SPDX-License-Identifier: Apache-2.0
//! One span's answer: its gap, its account, its episodes.
//!
//! The gap is the span less the union of its children, clipped to it. Instants are on
//! `CLOCK_MONOTONIC` here and go back to Unix time by the span's own offset, so that a span's
//! length is the same on both clocks, to the nanosecond.

use std::ops::Range;

use lacuna_timeline::Cause;
use lacuna_timeline::Ns;
use lacuna_timeline::account::Account;
use lacuna_timeline::account::Reason;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::How;
use lacuna_timeline::join::Joined;

use crate::answer::CauseAnswer;
use crate::answer::Episode;
use crate::answer::GapSums;
use crate::answer::Join;
use crate::answer::JoinHow;
use crate::answer::ProcessView;
use crate::answer::Reach;
use crate::answer::SpanAnswer;
use crate::answer::SpanHead;
use crate::answer::Status;
use crate::answer::UnixNs;
use crate::otlp::SpanIn;
use crate::otlp::hex;

use super::Names;
use super::Other;
use super::causes;
use super::others;

/// How many threads of a process are accounted beside a span that no thread could be named for.
const PROCESS_THREADS_MAX: usize = 256;

/// A span on the kernel's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SpanWindow {
    /// Its start, `CLOCK_MONOTONIC`.
    pub(crate) start: Ns,
    /// Its end.
    pub(crate) end: Ns,
    /// How long the host was suspended within it: that clock stood still then, so that
    /// `end - start + suspended_ns` is exactly the span's length.
    pub(crate) suspended_ns: Ns,
    /// Half-width of the error of both.
    pub(crate) error_ns: Ns,
}

impl SpanWindow {
    /// The span's length, suspended time included.
    fn wall_ns(&self) -> Ns {
        self.end - self.start + self.suspended_ns
    }
}

/// What an answer is made of.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The span.
    pub(crate) span: &'a SpanIn,
    /// Where it lies on the kernel's clock.
    pub(crate) window: SpanWindow,
    /// Its children as far as they have come, on the same clock, in any order, not clipped.
    pub(crate) children: &'a [Range<Ns>],
    /// A child of it covers the time in which the host was suspended.
    pub(crate) suspended_in_child: bool,
    /// Its process, where that is known.
    pub(crate) process: Option<ProcessId>,
    /// Why its process or its place on the clock is not known: a fixed word.
    pub(crate) unplaced: Option<&'static str>,
    /// Kernel records lost since the start.
    pub(crate) lost_records: u64,
    /// The oldest instant that the recorder holds completely, Unix time.
    pub(crate) recorder_from_unix_ns: u64,
}

impl Facts<'_> {
    fn suspended_in_gap_ns(&self) -> Ns {
        match self.suspended_in_child {
            true => 0,
            false => self.window.suspended_ns,
        }
    }

    /// Unix time of an instant within the span.
    fn unix(&self, at: Ns) -> UnixNs {
        UnixNs(self.span.start_unix_ns + at.saturating_sub(self.window.start))
    }
}

/// What is left of a span when its children are taken out: sorted, disjoint, not empty.
pub(crate) fn gap_windows(span: Range<Ns>, children: &[Range<Ns>]) -> Vec<Range<Ns>> {
    let mut children: Vec<Range<Ns>> = children.to_vec();
    children.sort_unstable_by_key(|child| child.start);
    let mut gap = Vec::new();
    let mut from = span.start;
    for child in children {
        let (start, end) = (
            child.start.clamp(span.start, span.end),
            child.end.min(span.end),
        );
        if start > from {
            gap.push(from..start);
        }
        from = from.max(start).max(end);
    }
    if from < span.end {
        gap.push(from..span.end);
    }
    gap
}

/// The answer for a span whose thread is settled, one way or the other, behind the horizon.
/// `others` are other spans that its thread served meanwhile.
pub(crate) fn answer(
    facts: &Facts<'_>,
    joined: &Joined,
    others: &[Other<'_>],
    names: &Names<'_>,
) -> SpanAnswer {
    let span = facts.window.start..facts.window.end;
    let gap = gap_windows(span.clone(), facts.children);
    let account = |windows: &[Range<Ns>], suspended_ns| {
        let mut account = match joined.thread {
            Some(thread) => names.recorder.account(thread, windows),
            None => no_thread(windows),
        };
        account.add_unknown(suspended_ns, Reason::Suspended);
        account
    };
    let suspended_ns = facts.window.suspended_ns;
    let of_gap = account(&gap, facts.suspended_in_gap_ns());
    let is_whole = gap.as_slice() == std::slice::from_ref(&span) && !facts.suspended_in_child;
    let of_span = (!is_whole).then(|| account(std::slice::from_ref(&span), suspended_ns));
    let status = match joined.how {
        How::None if facts.process.is_some() => Status::Unobserved,
        _ if facts.window.start < names.recorder.reach() => Status::Expired,
        _ => Status::Complete,
    };
    let process = facts
        .process
        .filter(|_| joined.how == How::Process)
        .map(|process| process_view(process, facts.window, names));
    let mut gap_causes = causes(&of_gap, names);
    if let Some(thread) = joined.thread {
        others::add(&mut gap_causes, thread, &gap, others, names);
    }
    // Most spans have no children: then the gap is all of it.
    let span_causes = match of_span {
        Some(of_span) => causes(&of_span, names),
        None => gap_causes.clone(),
    };
    SpanAnswer {
        head: head(
            facts,
            status,
            &of_gap,
            &gap_causes,
            join(facts, joined, names),
        ),
        episodes: episodes(facts, &of_gap, names),
        causes: gap_causes,
        span_causes,
        process,
        reach: reach(facts),
    }
}

/// The answer for a span of which nothing can be said yet, or ever: `status` says which.
pub(crate) fn without_thread(facts: &Facts<'_>, status: Status) -> SpanAnswer {
    let span = facts.window.start..facts.window.end;
    let gap = gap_windows(span, facts.children);
    let nobody = Join {
        how: JoinHow::None,
        score: 0.0,
        candidates: 0,
        pid: facts.process.map_or(0, |process| process.tgid),
        tid: 0,
        comm: String::new(),
        why: String::new(),
    };
    let mut account = no_thread(&gap);
    account.add_unknown(facts.suspended_in_gap_ns(), Reason::Suspended);
    SpanAnswer {
        head: head(facts, status, &account, &[], nobody),
        causes: Vec::new(),
        span_causes: Vec::new(),
        process: None,
        episodes: Vec::new(),
        reach: reach(facts),
    }
}

fn no_thread(windows: &[Range<Ns>]) -> Account {
    let wall_ns = windows.iter().map(|window| window.end - window.start).sum();
    Account::unknown(wall_ns, Reason::NoThread)
}

fn head(
    facts: &Facts<'_>,
    status: Status,
    of_gap: &Account,
    gap_causes: &[CauseAnswer],
    join: Join,
) -> SpanHead {
    let span = facts.span;
    let sums = GapSums::of(gap_causes);
    SpanHead {
        trace_id: hex::encode(&span.trace_id),
        span_id: hex::encode(&span.span_id),
        parent_span_id: span
            .parent_span_id
            .map_or(String::new(), |parent| hex::encode(&parent)),
        name: span.name.to_string(),
        service: span
            .resource
            .service_name
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        start_unix_ns: UnixNs(span.start_unix_ns),
        wall_ns: facts.window.wall_ns(),
        status,
        children_seen: facts.children.len() as u64,
        gap_ns: of_gap.wall_ns,
        explained_ns: sums.explained_ns,
        other_ns: sums.other_ns,
        estimated_ns: sums.estimated_ns,
        blur_ns: of_gap.blur_ns,
        clock_error_ns: facts.window.error_ns,
        join,
    }
}

fn join(facts: &Facts<'_>, joined: &Joined, names: &Names<'_>) -> Join {
    let (tid, pid, comm) = match (joined.thread, facts.process) {
        (Some(thread), _) => names.thread(thread),
        (None, Some(process)) => (0, process.tgid, names.leader(process, facts.window.start)),
        (None, None) => (0, 0, String::new()),
    };
    let why = match joined.thread {
        Some(_) => "",
        None => facts.unplaced.unwrap_or(joined.why.name()),
    };
    Join {
        how: match joined.how {
            How::Attribute => JoinHow::Attribute,
            How::Context => JoinHow::Context,
            How::Timestamps => JoinHow::Timestamps,
            How::SingleThread => JoinHow::SingleThread,
            How::Process => JoinHow::Process,
            How::None => JoinHow::None,
        },
        score: joined.score,
        candidates: joined.candidates,
        pid,
        tid,
        comm,
        why: why.to_owned(),
    }
}

/// What the threads of a process did meanwhile, added up; claims nothing about the span.
fn process_view(process: ProcessId, window: SpanWindow, names: &Names<'_>) -> ProcessView {
    let mut total = Account::default();
    let mut alive = 0;
    for thread in names.recorder.threads_since(process, window.start) {
        let born = names
            .recorder
            .thread(thread)
            .map_or(0, |info| info.start_ns)
            .max(window.start);
        let ended = names.recorder.ended(thread).unwrap_or(Ns::MAX);
        let lived = born..ended.min(window.end);
        if lived.start >= lived.end {
            continue;
        }
        alive += 1;
        if alive <= PROCESS_THREADS_MAX {
            total.add(&names.recorder.account(thread, &[lived]));
        }
    }
    ProcessView {
        threads: alive as u64,
        causes: causes(&total, names),
    }
}

fn episodes(facts: &Facts<'_>, of_gap: &Account, names: &Names<'_>) -> Vec<Episode> {
    of_gap
        .episodes
        .iter()
        .map(|episode| Episode {
            start_unix_ns: facts.unix(episode.start),
            ns: episode.ns,
            cause: episode.cause,
            culprit: episode
                .culprit
                .map(|who| names.culprit(episode.cause, who, 0)),
            reason: episode
                .reason
                .filter(|_| episode.cause == Cause::Unknown)
                .map(|reason| reason.name().to_owned()),
        })
        .collect()
}

fn reach(facts: &Facts<'_>) -> Reach {
    Reach {
        recorder_from_unix_ns: UnixNs(facts.recorder_from_unix_ns),
        lost_records: facts.lost_records,
    }
}

#[cfg(test)]
mod tests {
    use super::gap_windows;

    /// Instants as pairs of start and end.
    type Pairs<'a> = &'a [(u64, u64)];

    fn check(children: Pairs<'_>, expected: Pairs<'_>) {
        let children: Vec<_> = children.iter().map(|&(from, to)| from..to).collect();
        let gap = gap_windows(100..200, &children);
        let gap: Vec<_> = gap.iter().map(|part| (part.start, part.end)).collect();
        assert_eq!(gap, expected, "{children:?}");
    }

    #[test]
    fn the_gap_is_the_span_less_the_union_of_its_children() {
        check(&[], &[(100, 200)]);
        check(&[(100, 200)], &[]);
        check(&[(120, 130)], &[(100, 120), (130, 200)]);
        // Out of order, overlapping, touching the edges, outside, nested, reversed.
        check(
            &[(150, 160), (110, 120), (115, 130)],
            &[(100, 110), (130, 150), (160, 200)],
        );
        check(&[(0, 110), (190, 300)], &[(110, 190)]);
        check(&[(0, 50), (250, 300)], &[(100, 200)]);
        check(&[(110, 190), (120, 130)], &[(100, 110), (190, 200)]);
        check(&[(150, 140)], &[(100, 150), (150, 200)]);
    }
}
