// SPDX-License-Identifier: Apache-2.0
//! Cutting one off-CPU interval into its parts: blocked, denied by a limit, queued, on the way.
//!
//! Pure arithmetic on one record, by the design's rules 2, 3, 4 and 6. The parts follow each
//! other without a gap from switch-out to switch-in. Nothing here knows windows or other records.

use std::ops::Range;

use crate::account::Reason;
use crate::cause::Cause;
use crate::event::Ns;
use crate::event::OffState;
use crate::record::OffCpu;

/// A part of an off-CPU interval.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) range: Range<Ns>,
    pub(crate) what: What,
}

/// What a thread did in a part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// It was blocked. `estimated`: up to its enqueue, because its waking was not seen.
    Blocked { estimated: bool },
    /// A CPU limit denied the CPU.
    Throttled,
    /// It was runnable. `blamed`: the record's blame list speaks of this stretch.
    Runnable {
        /// Which `runq.*` cause.
        cause: Cause,
        /// By the blame list; otherwise what ran instead is not covered.
        blamed: bool,
    },
    /// It is not known; the reason, and whether it is certain that it was off the CPU.
    Unknown(Reason),
}

/// What the interval itself does not say.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub(crate) struct Circumstances {
    /// A waking may have been missed in it.
    pub(crate) doubted: bool,
    /// It had not ended when it was looked at: its end is the snapshot's.
    pub(crate) unfinished: bool,
}

/// A thread that never left its queue was enqueued, by the queue's own clock, as it was switched out;
/// the two clocks are read within some microseconds. Later than this, it had left its queue, so it
/// was woken, and no waking was seen. (On one kernel 1 wait in 1,000 was so, with no counter moved:
/// wakings on top of certain threads are not traced there.)
const NEVER_LEFT_NS_MAX: Ns = 20_000;

/// A thread that was woken just before its switch-out is enqueued at once, or by another CPU that
/// has to be interrupted. Later than this, it was another waking that put it there.
const WAKE_LAG_NS_MAX: Ns = 1_000_000;

/// Fills `parts` with the parts of an interval, in order. (Who walks many records gives the same list
/// for each: a list of its own for each would cost more than the cutting.)
pub(crate) fn split(
    out: Ns,
    end: Ns,
    off: &OffCpu,
    circumstances: Circumstances,
    parts: &mut Vec<Part>,
) {
    parts.clear();
    let blocked = off.state != OffState::Runnable;
    let (wake, left_queue) = match off.waking {
        _ if !blocked => (out, false),
        Some(waking) if waking > out => (waking.min(end), true),
        // A waking before the switch-out may hide a later one that was missed.
        _ if circumstances.doubted => {
            parts.push(part(out, end, What::Unknown(Reason::ProgramSkipped)));
            return;
        }
        Some(_) => (out, true),
        // Not woken: still blocked where it has not come back, else it never left the queue.
        None if circumstances.unfinished => (end, true),
        None => (out, false),
    };
    // It was woken, and that was not seen. Up to its first enqueue it was in no queue, so it was
    // blocked, but for the way from its waking to there: an estimate, and marked as one.
    let queued = first_queued(off).clamp(wake, end);
    let never_woken = blocked && !circumstances.unfinished && wake == out;
    let may_lag_ns = if left_queue {
        WAKE_LAG_NS_MAX
    } else {
        NEVER_LEFT_NS_MAX
    };
    if never_woken && queued - out > may_lag_ns {
        push(parts, out, queued, What::Blocked { estimated: true });
        split_runnable(parts, queued, end, off, true);
        return;
    }
    push(parts, out, wake, What::Blocked { estimated: false });
    if circumstances.unfinished {
        push(parts, wake, end, What::Unknown(Reason::StillQueued));
    } else {
        split_runnable(parts, wake, end, off, left_queue);
    }
}

/// When it was put on a queue for the first time; 0 where that is not known.
fn first_queued(off: &OffCpu) -> Ns {
    match off.migrated {
        Some(migrated) => migrated.at.saturating_sub(migrated.waited_ns),
        None => off.enqueued.unwrap_or(0),
    }
}

fn part(start: Ns, end: Ns, what: What) -> Part {
    Part {
        range: start..end,
        what,
    }
}

fn push(parts: &mut Vec<Part>, start: Ns, end: Ns, what: What) {
    if start < end {
        parts.push(part(start, end, what));
    }
}

/// The runnable part: what the queues were, less what the limit denied.
fn split_runnable(parts: &mut Vec<Part>, wake: Ns, end: Ns, off: &OffCpu, woken: bool) {
    if wake >= end {
        return;
    }
    let denied = denied(wake, end, off);
    let limit = denied.range.clone();
    let mut pending = (limit.start < limit.end).then_some(denied);
    let queues = queues(wake, end, off, woken).into_iter();
    for queued in queues.filter(|queued| !queued.range.is_empty()) {
        let Range { start, end } = queued.range;
        // A CPU that was idle in the end was not while the thread queued before its limit struck.
        let before = match (queued.what, pending.is_some()) {
            (What::Runnable { blamed: true, .. }, true) => What::Runnable {
                cause: queue_cause(woken),
                blamed: true,
            },
            (what, _) => what,
        };
        push(parts, start, end.min(limit.start), before);
        if limit.start < end {
            parts.extend(pending.take());
        }
        push(parts, start.max(limit.end), end, queued.what);
    }
}

/// Rule 6: up to where the limit let go; where only the amount is known, first. But a thread that
/// comes on a CPU that was idle was not behind others in the end: it had queued before the limit
/// struck, and the limit that let go is what its wait ended with. An empty range at the end where no
/// limit denied anything.
fn denied(wake: Ns, end: Ns, off: &OffCpu) -> Part {
    let Some(throttle) = off.throttle else {
        return part(end, end, What::Throttled);
    };
    let (start, until) = match throttle.until {
        Some(until) => {
            let until = until.clamp(wake, end);
            (until.saturating_sub(throttle.ns).max(wake), until)
        }
        None if off.from_idle => (end.saturating_sub(throttle.ns).max(wake), end),
        None => (wake, wake.saturating_add(throttle.ns).min(end)),
    };
    part(start, until, What::Throttled)
}

/// Of an interval in which a limit's amount is exact and its place is not, how much may be the
/// limit's or the queue's: the smaller of the two (rule 6).
pub(crate) fn blur_ns(parts: &[Part], off: &OffCpu) -> Ns {
    if off.throttle.is_none_or(|throttle| throttle.until.is_some()) {
        return 0;
    }
    let sum = |denied: bool| -> Ns {
        parts
            .iter()
            .filter(|part| match part.what {
                What::Throttled => denied,
                What::Runnable { .. } => !denied,
                What::Blocked { .. } | What::Unknown(_) => false,
            })
            .map(|part| part.range.end - part.range.start)
            .sum()
    };
    sum(true).min(sum(false))
}

/// The cause of time on a queue behind others.
fn queue_cause(woken: bool) -> Cause {
    if woken {
        Cause::RunqWakeup
    } else {
        Cause::RunqPreempted
    }
}

/// Rules 3 and 4: on the way to a queue, on earlier CPUs' queues, on the way to the last one, there.
/// Some may be empty.
fn queues(wake: Ns, end: Ns, off: &OffCpu, woken: bool) -> [Part; 4] {
    let queue = queue_cause(woken);
    // Preempted, it was on its queue from the start; woken, only from the enqueue on.
    let before = if woken { Cause::RunqIdle } else { queue };
    let (queued, left, between) = match off.migrated {
        Some(migrated) => {
            let left = migrated.at.clamp(wake, end);
            let queued = left.saturating_sub(migrated.waited_ns).max(wake);
            (queued, left, Cause::RunqIdle)
        }
        None => (wake, wake, before),
    };
    let enqueued = off.enqueued.unwrap_or(left).clamp(left, end);
    let last = if off.from_idle {
        Cause::RunqIdle
    } else {
        queue
    };
    let runnable = |start, end, cause, blamed| part(start, end, What::Runnable { cause, blamed });
    [
        runnable(wake, queued, before, false),
        runnable(queued, left, queue, false),
        runnable(left, enqueued, between, false),
        runnable(enqueued, end, last, true),
    ]
}
