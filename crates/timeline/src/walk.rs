// SPDX-License-Identifier: Apache-2.0
//! Walking a window of a thread: from the stored records to segments that follow each other without
//! a gap from the window's start to its end.
//!
//! Here it is decided what is *not known*, and why: holes in the numbers, switches without a record,
//! time after the last record that nothing confirms, doubts (rules 5 and 9). What is known gets its
//! cause from `split.rs` and `cause.rs`. Who sums the segments up is a [`Sink`].

use std::ops::Range;

use crate::account::Reason;
use crate::cause::Aspect;
use crate::cause::Cause;
use crate::cause::Verdict;
use crate::cause::blocked_cause;
use crate::cause::detour_cause;
use crate::cause::pieces;
use crate::cause::verdict;
use crate::codec::Last;
use crate::cursor::Cursor;
use crate::detours::Plain;
use crate::event::Ns;
use crate::event::ShortDetours;
use crate::event::ThreadId;
use crate::record::Body;
use crate::record::OffCpu;
use crate::record::Record;
use crate::record::Sums;
use crate::record::Told;
use crate::recorder::Recorder;
use crate::segment::BlockedPart;
use crate::segment::Place;
use crate::segment::Seen;
use crate::segment::Segment;
use crate::segment::Sink;
use crate::split::Circumstances;
use crate::split::Part;
use crate::split::What;
use crate::split::blur_ns;
use crate::split::split;
use crate::thread::Tail;
use crate::thread::Thread;

impl Recorder {
    /// Walks a window of a thread.
    pub(crate) fn walk(&self, id: ThreadId, window: Range<Ns>, sink: &mut impl Sink) {
        self.walk_all(id, std::slice::from_ref(&window), sink);
    }

    /// Walks windows of a thread, one after the other.
    pub(crate) fn walk_all(&self, id: ThreadId, windows: &[Range<Ns>], sink: &mut impl Sink) {
        let windows = windows.iter().filter(|window| window.start < window.end);
        let Some(thread) = self.held(id) else {
            for window in windows {
                unknown_thread(window, sink);
            }
            return;
        };
        let mut cursor = Cursor::new(&thread.chunks);
        self.walk_at(id, thread, windows, &mut cursor, sink);
    }

    /// The same, of a thread that is at hand, from where a cursor is in its records.
    pub(crate) fn walk_at<'w>(
        &self,
        id: ThreadId,
        thread: &Thread,
        windows: impl Iterator<Item = &'w Range<Ns>>,
        cursor: &mut Cursor<'_>,
        sink: &mut impl Sink,
    ) {
        let mut walker = Walker {
            recorder: self,
            id,
            thread,
            at: 0,
            window: 0..0,
            parts: Vec::new(),
            sink,
        };
        for window in windows {
            walker.at = window.start;
            walker.window = window.clone();
            walker.run(cursor);
        }
    }
}

/// Nothing is known of that thread.
pub(crate) fn unknown_thread(window: &Range<Ns>, sink: &mut impl Sink) {
    sink.segment(&Segment {
        range: window.clone(),
        full: window.clone(),
        seen: Seen::Unknown {
            reason: Reason::NoSuchThread,
            place: Place::Unclear,
        },
    });
}

/// A walk under way.
struct Walker<'r, 's, S> {
    recorder: &'r Recorder,
    id: ThreadId,
    thread: &'r Thread,
    window: Range<Ns>,
    /// Everything before has been given to the sink.
    at: Ns,
    /// Of the wait that it is at; kept to be filled again.
    parts: Vec<Part>,
    sink: &'s mut S,
}

impl<S: Sink> Walker<'_, '_, S> {
    /// Walks the window that is set.
    fn run(&mut self, cursor: &mut Cursor<'_>) {
        let born = self.thread.info.as_ref().map_or(0, |info| info.start_ns);
        self.unknown_until(born, Reason::NotBorn, Place::OffCpu);
        self.unknown_until(self.thread.floor, Reason::Expired, Place::Unclear);
        if self.is_done() {
            return;
        }
        cursor.seek(self.at);
        while let Some(read) = cursor.current() {
            self.record(read.before, read.record);
            if self.is_done() {
                return;
            }
            cursor.step();
        }
        self.tail();
    }

    fn is_done(&self) -> bool {
        self.at >= self.window.end || self.sink.is_full()
    }

    /// A stored record: what lies before it, then itself.
    fn record(&mut self, before: Option<Last>, record: &Record) {
        if self.at < record.start() {
            self.hole(before, record);
        }
        if self.is_done() {
            return;
        }
        // A thread's last switch-out is where its time ends, so that it lies in a window up to there.
        let is_in =
            self.window.contains(&record.out) || record.is_exit() && record.out == self.window.end;
        if is_in && self.at <= record.out {
            self.sink.record(record);
        }
        match &record.body {
            Body::Cycle(off) => {
                self.running(record, None);
                self.off_cpu(record, off, false);
            }
            Body::Sums(sums) => self.sums(record, sums),
            Body::Exit => self.running(record, None),
        }
    }

    /// Merged cycles; with detours inside that nobody can place they say nothing.
    fn sums(&mut self, record: &Record, sums: &Sums) {
        let full = record.start()..record.end;
        let seen = if self.thread.detours.leave_alone(&full) {
            let blocked = sums.wait.blocked(sums.state);
            let blocked = self.recorder.classified(blocked, sums.wait, None);
            let cause = blocked_cause(&blocked);
            Seen::Sums { sums, cause }
        } else {
            let reason = Reason::Merged;
            let place = Place::Unclear;
            Seen::Unknown { reason, place }
        };
        self.emit(full, seen);
    }

    /// What lies between two records that do not meet.
    fn hole(&mut self, before: Option<Last>, record: &Record) {
        let Some(before) = before else {
            self.unobserved_until(record.start());
            return;
        };
        let missing = record.seq.saturating_sub(before.seq).saturating_sub(1);
        self.sink.lost(missing);
        let reason = if missing > 0 {
            Reason::Lost
        } else {
            Reason::NotWatched
        };
        self.unknown_until(record.start(), reason, Place::Unclear);
    }

    /// The part of a record in which it was on the CPU. `open`: detours open in a tail.
    fn running(&mut self, record: &Record, open: Option<&Tail>) {
        let Some(start) = record.prev_in else {
            return;
        };
        let full = start..record.out;
        if self.at >= full.end || self.window.end <= full.start {
            return;
        }
        let short = &record.short;
        let total = full.end - full.start;
        if let Some(reason) = open.and_then(|tail| self.open_reason(tail)) {
            let place = Place::OnCpu;
            self.emit(full, Seen::Unknown { reason, place });
        } else if self.thread.detours.is_clear() {
            let seen = Seen::Cpu {
                short,
                before: 0,
                total,
                whole: self.holds(&full),
            };
            self.emit(full, seen);
        } else {
            self.running_with_detours(full, short);
        }
    }

    /// Why running time that only a snapshot shows has no cause yet, if it has none.
    fn open_reason(&self, tail: &Tail) -> Option<Reason> {
        if tail.record.detour_seq > self.thread.detours.last_seq() {
            return Some(self.missing_reason(tail));
        }
        (!tail.open.is_empty()).then_some(Reason::DetourOpen)
    }

    /// Records before a snapshot are missing: lost only once the horizon has passed it.
    fn missing_reason(&self, tail: &Tail) -> Reason {
        if self.recorder.horizon() >= tail.record.end {
            Reason::Lost
        } else {
            Reason::NotConfirmed
        }
    }

    /// The window holds all of a stretch that is still to be walked, and no doubt cuts it.
    fn holds(&self, full: &Range<Ns>) -> bool {
        let inside = self.at <= full.start && full.end <= self.window.end;
        inside && self.recorder.doubts().cut_nothing()
    }

    /// Running time cut by known detours, and by what is known to be missing of them.
    fn running_with_detours(&mut self, full: Range<Ns>, short: &ShortDetours) {
        let thread = self.thread;
        let detours = &thread.detours;
        let mut total = 0;
        let mut whole = self.holds(&full);
        detours.walk(full.clone(), |part, what| {
            if what.is_err() {
                total += part.end - part.start;
                whole &= what == Err(Plain::Proved);
            }
        });
        let mut before = 0;
        detours.walk(full, |part, what| {
            let length = part.end - part.start;
            let place = Place::OnCpu;
            let unknown = |reason| Seen::Unknown { reason, place };
            let seen = match what {
                Ok(piece) => Seen::Detour { piece },
                Err(Plain::Proved) => Seen::Cpu {
                    short,
                    before,
                    total,
                    whole,
                },
                Err(Plain::Lost) => unknown(Reason::Lost),
                Err(Plain::Open) => unknown(Reason::DetourOpen),
                Err(Plain::Expired) => unknown(Reason::Expired),
            };
            before += if what.is_err() { length } else { 0 };
            self.emit(part, seen);
        });
    }

    /// The part of a record in which it was off the CPU.
    fn off_cpu(&mut self, record: &Record, off: &OffCpu, unfinished: bool) {
        if self.at >= record.end || self.window.end <= record.out {
            return;
        }
        let circumstances = Circumstances {
            doubted: self
                .recorder
                .doubts()
                .wakings
                .touch(&(record.out..record.end)),
            unfinished,
        };
        let mut parts = std::mem::take(&mut self.parts);
        split(record.out, record.end, off, circumstances, &mut parts);
        self.blur(&parts, off);
        for part in &parts {
            if self.is_done() {
                break;
            }
            if part.range.end <= self.at {
                continue;
            }
            let seen = match part.what {
                What::Blocked { estimated } => {
                    let doubted = circumstances.doubted;
                    self.blocked(part.range.clone(), off, estimated, doubted);
                    continue;
                }
                What::Throttled => Seen::Throttled { off },
                What::Runnable { cause, blamed } => Seen::Runnable { cause, off, blamed },
                What::Unknown(reason) => Seen::Unknown {
                    reason,
                    place: Place::OffCpu,
                },
            };
            self.emit(part.range.clone(), seen);
        }
        self.parts = parts;
    }

    /// How much of the window's part of a wait may be a limit's or a queue's.
    fn blur(&mut self, parts: &[Part], off: &OffCpu) {
        let blur_ns = blur_ns(parts, off);
        if blur_ns == 0 {
            return;
        }
        let runnable = parts
            .iter()
            .filter(|part| !matches!(part.what, What::Blocked { .. }));
        let inside = runnable.map(|part| {
            let start = part.range.start.max(self.at);
            part.range.end.min(self.window.end).saturating_sub(start)
        });
        let blur_ns = blur_ns.min(inside.sum());
        self.sink.blur(blur_ns);
    }

    /// A blocked part, cut where the connection that it was for changed. `doubted`: a program may have
    /// been skipped in it, and with it a phase.
    fn blocked(&mut self, range: Range<Ns>, off: &OffCpu, estimated: bool, doubted: bool) {
        let (verdict, whole) = self.judged(range.start, off, estimated);
        let (Verdict::Connection(awaited), Told::Seen(told)) = (verdict, &off.net) else {
            return self.emit(range, Seen::Blocked(whole));
        };
        for piece in pieces(told, self.id, awaited, &range) {
            let part = BlockedPart {
                cause: piece.cause,
                aspect: piece.aspect,
                estimated: estimated || doubted,
                ..whole
            };
            self.emit(piece.range, Seen::Blocked(part));
        }
    }

    /// What a blocked part is put down to, with who held the lock and what the detour was for.
    fn judged<'o>(&self, out: Ns, off: &'o OffCpu, estimated: bool) -> (Verdict, BlockedPart<'o>) {
        let open = self.thread.detours.at(out);
        let owner = self.recorder.lock_owner(self.id, &off.wait, out);
        let mut blocked = self.recorder.classified(off.blocked(), off.wait, Some(off));
        blocked.owner_lives = owner.is_some();
        blocked.detour = blocked.detour.or(open.map(|piece| piece.kind));
        let verdict = verdict(&blocked);
        let cause = verdict.cause();
        let in_detour = blocked
            .detour
            .is_some_and(|kind| detour_cause(kind) == cause);
        let is_connection = matches!(verdict, Verdict::Connection(_));
        let part = BlockedPart {
            cause,
            aspect: is_connection.then_some(Aspect::NotKnown),
            off,
            began: out,
            waiter: self.id,
            owner: owner.filter(|_| cause == Cause::LockFutex),
            detail: open.filter(|_| in_detour).map_or(0, |piece| piece.detail),
            estimated,
        };
        (verdict, part)
    }

    /// What lies after the last record: what a snapshot confirms, and then nothing.
    fn tail(&mut self) {
        if self.is_done() {
            return;
        }
        if self.thread.ended.is_some() {
            self.unknown_until(Ns::MAX, Reason::Ended, Place::OffCpu);
            return;
        }
        let thread = self.thread;
        if let Some(tail) = &thread.tail {
            self.confirmed(tail);
        }
        if self.thread.last.is_none() && self.thread.tail.is_none() {
            self.unobserved_until(Ns::MAX);
        }
        self.unknown_until(Ns::MAX, Reason::NotConfirmed, Place::Unclear);
    }

    /// What a snapshot saw; where it does not fit the last record, some are missing between.
    fn confirmed(&mut self, tail: &Tail) {
        let record = &tail.record;
        let missing = match self.thread.last {
            Some(last) => record.seq.saturating_sub(last.seq),
            None => 0,
        };
        let from = self.thread.last.map_or(0, |last| last.end);
        // A later number without a later switch-in: what is missing is its end.
        let is_end = missing > 0 && record.start() <= from;
        if self.at < record.start() || is_end {
            let reason = match self.thread.last {
                None => {
                    self.unobserved_until(record.start());
                    Reason::NotObserved
                }
                Some(_) if missing > 0 => {
                    let reason = self.missing_reason(tail);
                    let lost = reason == Reason::Lost;
                    self.sink.lost(if lost { missing } else { 0 });
                    reason
                }
                Some(_) => Reason::NotWatched,
            };
            let until = if is_end { Ns::MAX } else { record.start() };
            self.unknown_until(until, reason, Place::Unclear);
        }
        if self.is_done() {
            return;
        }
        self.running(record, Some(tail));
        if let Body::Cycle(off) = &record.body {
            self.off_cpu(record, off, true);
        }
    }

    /// Before the first that was seen of its switches: what it did is not known, but perhaps where it was.
    fn unobserved_until(&mut self, end: Ns) {
        let asleep = self.thread.asleep.clone();
        let reason = Reason::NotObserved;
        self.unknown_until(asleep.start.min(end), reason, Place::Unclear);
        self.unknown_until(asleep.end.min(end), reason, Place::OffCpu);
        self.unknown_until(end, reason, Place::Unclear);
    }

    /// Unknown from where the walk is.
    fn unknown_until(&mut self, end: Ns, reason: Reason, place: Place) {
        self.emit(self.at..end, Seen::Unknown { reason, place });
    }

    /// Gives a segment to the sink, clipped to the window, less what is in doubt.
    fn emit(&mut self, full: Range<Ns>, seen: Seen<'_>) {
        let end = full.end.min(self.window.end);
        let doubts = self.recorder.doubts();
        while self.at < end {
            let rest = self.at..end;
            let (clear_until, doubt) = match doubts.cut_nothing() {
                true => (end, None),
                false => self.first_doubt(&rest),
            };
            self.give(clear_until, &full, seen);
            if let Some((doubted, reason)) = doubt {
                let place = Place::Unclear;
                self.give(doubted.end, &doubted, Seen::Unknown { reason, place });
            }
        }
    }

    /// The first part of a range that nothing in it is proved of.
    fn first_doubt(&self, rest: &Range<Ns>) -> (Ns, Option<(Range<Ns>, Reason)>) {
        let doubts = self.recorder.doubts();
        let switches = doubts.switches.first_in(rest);
        let suspends = doubts.suspends.first_in(rest);
        let first = [
            switches.map(|part| (part, Reason::ProgramSkipped)),
            suspends.map(|part| (part, Reason::Suspended)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|doubt| doubt.0.start);
        (
            first.as_ref().map_or(rest.end, |doubt| doubt.0.start),
            first,
        )
    }

    fn give(&mut self, end: Ns, full: &Range<Ns>, seen: Seen<'_>) {
        if self.at < end {
            let range = self.at..end;
            self.at = end;
            self.sink.segment(&Segment {
                range,
                full: full.clone(),
                seen,
            });
        }
    }
}
