// SPDX-License-Identifier: Apache-2.0
//! The detours of one thread: stretches in a kernel slow path, made disjoint, innermost first, and
//! what is known to be missing among them.
//!
//! They come as records of their own (rule 8) after they have ended, inner ones before the outer
//! one. Each other record carries how many there were, so that a lost one is known, and between
//! which records; and which were open as the thread left the CPU, so that running time that may
//! still turn out to lie in one is not called anything else before.

use std::collections::VecDeque;
use std::ops::Range;

use crate::event::Detour;
use crate::event::DetourKind;
use crate::event::Ns;
use crate::event::OPEN_DETOURS_MAX;
use crate::record::Record;

/// Detours kept for one thread; beyond it the oldest go, and running time before them is expired.
const PIECES_MAX: usize = 4096;

/// Stretches with lost detours kept for one thread; beyond it the oldest two become one.
const GAPS_MAX: usize = 256;

/// Detours that came last, kept to tell which of them a record that comes after them had open.
const RECENT: usize = 8;

/// A part of a detour in which no inner one was open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) begin: Ns,
    pub(crate) end: Ns,
    pub(crate) kind: DetourKind,
    /// Order, or cgroup.
    pub(crate) detail: u64,
    seq: u64,
}

/// Running time in which detours are known to be missing.
#[derive(Clone, Debug, PartialEq)]
struct Gap {
    range: Range<Ns>,
    seqs: Range<u64>,
    missing: u64,
}

/// What is known of running time outside of known detours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    /// No detour was there.
    Proved,
    /// A lost detour may have been there.
    Lost,
    /// A detour that is still open may have begun there.
    Open,
    /// Detours of that time are no longer held.
    Expired,
}

/// The detours of one thread.
#[derive(Debug, Default)]
pub(crate) struct DetourLog {
    pieces: VecDeque<Piece>,
    gaps: VecDeque<Gap>,
    /// The largest number that a detour or another record named.
    last_seq: u64,
    /// Running time from here on may lie in a detour that has not ended.
    open_since: Option<Ns>,
    /// How many are open, as of the last record, and when it left the CPU.
    open: usize,
    open_at: Ns,
    /// Number and begin of those that came last.
    recent: VecDeque<(u64, Ns)>,
    /// Before this instant detours are no longer held.
    floor: Ns,
}

impl DetourLog {
    /// Memory that it takes beyond its own struct.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.pieces.capacity() * size_of::<Piece>()
            + self.gaps.capacity() * size_of::<Gap>()
            + self.recent.capacity() * size_of::<(u64, Ns)>()
    }

    /// Nothing speaks against any running time.
    pub(crate) fn is_clear(&self) -> bool {
        self.pieces.is_empty()
            && self.gaps.is_empty()
            && self.open_since.is_none()
            && self.floor == 0
    }

    /// Notes how many detours a record says there were, and which were open. `from`: the end of the
    /// record before.
    pub(crate) fn note(&mut self, record: &Record, from: Ns) {
        let since = self.open_since.unwrap_or(from).min(from);
        if record.detour_seq > self.last_seq {
            let first = self.last_seq.saturating_add(1);
            self.add_gap(
                since..record.out,
                first..record.detour_seq.saturating_add(1),
            );
            self.last_seq = record.detour_seq;
        }
        // Some may have ended since, and their records have overtaken this one.
        let ended = self
            .recent
            .iter()
            .filter(|known| known.0 > record.detour_seq && known.1 <= record.out);
        let open = record.open_detours().saturating_sub(ended.count());
        self.open = open;
        self.open_at = record.out;
        self.open_since = (open > 0).then_some(since);
    }

    /// Notes a record that came late: it may tell more exactly where missing detours were, and
    /// since when those that are open may have been (`since`, by all records now held).
    pub(crate) fn note_late(&mut self, record: &Record, since: Ns) {
        if self.open_since.is_some() {
            self.open_since = Some(since);
        }
        let none_open = record.open_detours() == 0;
        for gap in &mut self.gaps {
            if none_open && record.detour_seq < gap.seqs.start {
                gap.range.start = gap.range.start.max(record.end);
            }
            if record.detour_seq.saturating_add(1) >= gap.seqs.end {
                gap.range.end = gap.range.end.min(record.out);
            }
        }
    }

    /// The number of the latest detour that is known to have been.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Running time from here on may lie in a detour that has not ended.
    pub(crate) fn open_since(&self) -> Option<Ns> {
        self.open_since
    }

    /// Takes a detour in, in any order.
    pub(crate) fn push(&mut self, detour: &Detour, known_before: Ns) {
        if detour.seq > self.last_seq {
            if detour.seq > self.last_seq.saturating_add(1) {
                let since = self.open_since.unwrap_or(known_before).min(known_before);
                self.add_gap(
                    since..detour.end,
                    self.last_seq.saturating_add(1)..detour.seq,
                );
            }
            self.last_seq = detour.seq;
        } else {
            self.fill_gap(detour.seq);
        }
        self.close(detour);
        self.insert(detour);
        self.recent.push_back((detour.seq, detour.begin));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        while self.pieces.len() > PIECES_MAX {
            self.drop_oldest();
        }
    }

    /// One of the open detours has ended. A full list may hide deeper ones: then only the next
    /// record tells.
    fn close(&mut self, detour: &Detour) {
        let was_open = detour.begin <= self.open_at && detour.end >= self.open_at;
        if self.open == 0 || self.open == OPEN_DETOURS_MAX || !was_open {
            return;
        }
        self.open -= 1;
        if self.open == 0 {
            self.open_since = None;
        }
    }

    /// Cuts a detour against those known: of two that overlap the one that ended first (the
    /// smaller number) is the inner one.
    fn insert(&mut self, detour: &Detour) {
        let first = self
            .pieces
            .partition_point(|piece| piece.end <= detour.begin);
        let last = self
            .pieces
            .partition_point(|piece| piece.begin < detour.end);
        let new = |begin, end| Piece {
            begin,
            end,
            kind: detour.kind,
            detail: detour.detail,
            seq: detour.seq,
        };
        let mut cut: Vec<Piece> = Vec::new();
        let mut at = detour.begin;
        for piece in self.pieces.range(first..last.max(first)) {
            if piece.seq < detour.seq {
                cut.push(new(at, piece.begin.max(at)));
                cut.push(*piece);
                at = piece.end.max(at);
                continue;
            }
            // This one is the outer: what is left of it on either side.
            let left = piece.end.min(detour.begin);
            cut.push(Piece {
                end: left,
                ..*piece
            });
            let right = piece.begin.max(detour.end);
            cut.push(Piece {
                begin: right,
                ..*piece
            });
        }
        cut.push(new(at, detour.end));
        cut.retain(|piece| piece.begin < piece.end);
        cut.sort_by_key(|piece| piece.begin);
        let tail: Vec<Piece> = self
            .pieces
            .drain(first..)
            .skip(last.max(first) - first)
            .collect();
        self.pieces.extend(cut);
        self.pieces.extend(tail);
    }

    /// Records that detours are missing.
    fn add_gap(&mut self, range: Range<Ns>, seqs: Range<u64>) {
        let missing = seqs.end - seqs.start;
        self.gaps.push_back(Gap {
            range,
            seqs,
            missing,
        });
        if self.gaps.len() <= GAPS_MAX {
            return;
        }
        if let (Some(first), Some(second)) = (self.gaps.pop_front(), self.gaps.front_mut()) {
            second.range.start = second.range.start.min(first.range.start);
            second.range.end = second.range.end.max(first.range.end);
            second.seqs.start = first.seqs.start;
            second.missing += first.missing;
        }
    }

    /// A missing detour has come after all.
    fn fill_gap(&mut self, seq: u64) {
        if let Some(gap) = self.gaps.iter_mut().find(|gap| gap.seqs.contains(&seq)) {
            gap.missing -= 1;
        }
        self.gaps.retain(|gap| gap.missing > 0);
    }

    /// Drops what lies before an instant, as the records there are dropped.
    pub(crate) fn forget_before(&mut self, at: Ns) {
        while self.pieces.front().is_some_and(|piece| piece.end <= at) {
            self.pieces.pop_front();
        }
        while self.gaps.front().is_some_and(|gap| gap.range.end <= at) {
            self.gaps.pop_front();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(piece) = self.pieces.pop_front() {
            self.floor = piece.end;
        }
    }

    /// No detour is known or missing in a stretch.
    pub(crate) fn leave_alone(&self, range: &Range<Ns>) -> bool {
        let mut alone = true;
        self.walk(range.clone(), |_, what| alone &= what == Err(Plain::Proved));
        alone
    }

    /// The detour that was open at an instant.
    pub(crate) fn at(&self, at: Ns) -> Option<&Piece> {
        let place = self.pieces.partition_point(|piece| piece.end <= at);
        self.pieces.get(place).filter(|piece| piece.begin <= at)
    }

    /// Walks running time: each known detour's part, and what is known of the rest.
    pub(crate) fn walk(
        &self,
        range: Range<Ns>,
        mut visit: impl FnMut(Range<Ns>, Result<&Piece, Plain>),
    ) {
        let mut at = range.start;
        let first = self.pieces.partition_point(|piece| piece.end <= at);
        for piece in self.pieces.range(first..) {
            if piece.begin >= range.end {
                break;
            }
            self.walk_plain(at..piece.begin, &mut visit);
            at = at.max(piece.begin);
            let end = piece.end.min(range.end);
            self.walk_piece(at..end, piece, &mut visit);
            at = end;
        }
        self.walk_plain(at..range.end, &mut visit);
    }

    /// Walks running time in a known detour: an inner one that ended before it may be missing.
    fn walk_piece(
        &self,
        range: Range<Ns>,
        piece: &Piece,
        visit: &mut impl FnMut(Range<Ns>, Result<&Piece, Plain>),
    ) {
        let mut at = range.start;
        let mut step = |end: Ns, what| {
            let end = end.min(range.end);
            if at < end {
                visit(at..end, what);
                at = end;
            }
        };
        for gap in self.gaps.iter().filter(|gap| gap.seqs.start < piece.seq) {
            step(gap.range.start, Ok(piece));
            step(gap.range.end, Err(Plain::Lost));
        }
        step(range.end, Ok(piece));
    }

    /// Walks running time outside of known detours.
    fn walk_plain(
        &self,
        range: Range<Ns>,
        visit: &mut impl FnMut(Range<Ns>, Result<&Piece, Plain>),
    ) {
        let mut at = range.start;
        let mut step = |end: Ns, what| {
            let end = end.min(range.end);
            if at < end {
                visit(at..end, Err(what));
                at = end;
            }
        };
        step(self.floor, Plain::Expired);
        for gap in &self.gaps {
            step(gap.range.start, Plain::Proved);
            step(gap.range.end, Plain::Lost);
        }
        step(self.open_since.unwrap_or(range.end), Plain::Proved);
        step(range.end, Plain::Open);
    }
}
