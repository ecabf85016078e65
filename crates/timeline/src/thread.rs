// SPDX-License-Identifier: Apache-2.0
//! One thread's part of the recorder: its records in order of their numbers, in chunks; its
//! detours; who it is; and what a snapshot saw of it since its last record.
//!
//! Records may come in any order and with holes. What is stored is what came; what a hole means is
//! decided in `walk.rs`. The recorder owns the budget and asks for the oldest chunk back.

use crate::chunk::Chunk;
use crate::chunks::Chunks;
use crate::codec::Context;
use crate::codec::Last;
use crate::detours::DetourLog;
use crate::event::Asleep;
use crate::event::Detour;
use crate::event::Net;
use crate::event::Ns;
use crate::event::OffState;
use crate::event::ThreadInfo;
use crate::record::Body;
use crate::record::Detours;
use crate::record::Record;
use std::ops::Range;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Appended; this many numbers are missing before it.
    Appended {
        /// Missing records.
        missing: u64,
    },
    /// Put where it belongs, before later ones.
    Late,
    /// Older than what is held.
    Expired,
    /// It contradicts what is held, or was held already.
    Refused,
}

/// What became of what was told of a connection after its cycle had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Its record holds it now, and this many segments more.
    With {
        /// Segments that its phases cut the wait into.
        segments: u64,
    },
    /// Its record has one already, is to have none, or waits for something else.
    Refused,
    /// There is no such record here.
    NotHeld,
}

/// One thread.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    /// Who it is; `None`: its records came, its name did not.
    pub(crate) info: Option<ThreadInfo>,
    pub(crate) chunks: Chunks,
    /// To append to the last chunk; `None`: the next record begins a new one.
    context: Option<Box<Context>>,
    /// The latest record in order, held or not.
    pub(crate) last: Option<Last>,
    /// When it ended.
    pub(crate) ended: Option<Ns>,
    /// What a snapshot saw since the last record.
    pub(crate) tail: Option<Box<Tail>>,
    /// Its detours.
    pub(crate) detours: DetourLog,
    /// Records up to here were dropped; 0: none were.
    pub(crate) floor: Ns,
    /// Off the CPU throughout, before its first record; empty: not known to have been.
    pub(crate) asleep: Range<Ns>,
    /// It is in the recorder's queue of oldest chunks.
    pub(crate) queued: bool,
}

/// What a snapshot saw.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// As a record that ends with the snapshot.
    pub(crate) record: Record,
    /// Detours that were open, on a CPU or off it.
    pub(crate) open: Detours,
}

/// How many records and segments a thread holds; differences where they are subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) records: u64,
    pub(crate) segments: u64,
}

impl Thread {
    /// Memory that it takes, its own struct included.
    pub(crate) fn bytes(&self) -> usize {
        let context = self.context.as_ref().map_or(0, |_| size_of::<Context>());
        let tail = self.tail.as_ref().map_or(0, |_| size_of::<Tail>());
        size_of::<Thread>()
            + self.chunks.bytes()
            + self.detours.heap_bytes()
            + self.info.as_ref().map_or(0, |info| info.comm.len())
            + context
            + tail
    }

    /// Takes a record in.
    pub(crate) fn push(&mut self, record: &Record) -> Taken {
        let Some(last) = self.last else {
            self.append(record);
            return Taken::Appended { missing: 0 };
        };
        if record.seq <= last.seq {
            return self.insert(record);
        }
        if record.start() < last.end || self.ended.is_some() {
            return Taken::Refused;
        }
        self.append(record);
        Taken::Appended {
            missing: record.seq - last.seq - 1,
        }
    }

    /// Appends a record that is the latest in order.
    fn append(&mut self, record: &Record) {
        let from = self.last.map_or(0, |last| last.end);
        self.detours.note(record, from);
        if self.chunks.last().is_none_or(Chunk::is_full) {
            self.context = None;
        }
        if self.context.is_none() {
            self.chunks.seal_last();
            let (chunk, context) = Chunk::new(self.last);
            self.chunks.insert(self.chunks.len(), chunk, 0);
            self.context = Some(Box::new(context));
        }
        if let Some(context) = self.context.as_mut() {
            self.chunks.append(context, record);
            self.last = Some(context.last);
        }
        if record.is_exit() {
            self.ended = Some(record.end);
            self.context = None;
            self.chunks.seal_last();
        }
        if self
            .tail
            .as_ref()
            .is_some_and(|tail| tail.record.seq < record.seq)
        {
            self.tail = None;
        }
    }

    /// Puts a late record into the chunk that it belongs to, which is written anew.
    fn insert(&mut self, record: &Record) -> Taken {
        let place = self.chunks.of_seq(record.seq);
        let held = place.and_then(|place| Some((place, self.chunks.get(place)?)));
        let Some((place, chunk)) = held else {
            return Taken::Expired;
        };
        let before = chunk.before;
        let mut records: Vec<Record> = chunk.records().collect();
        let next_chunk = self.chunks.get(place + 1).map(|chunk| chunk.start);
        let at = records.partition_point(|held| held.seq < record.seq);
        let previous_end = match at.checked_sub(1) {
            Some(previous) => records[previous].end,
            None => before.map_or(0, |before| before.end),
        };
        let next = records.get(at);
        let next_start = next.map(Record::start).or(next_chunk).unwrap_or(Ns::MAX);
        let known = next.is_some_and(|held| held.seq == record.seq);
        if known || record.start() < previous_end || record.end > next_start || record.is_exit() {
            return Taken::Refused;
        }
        records.insert(at, record.clone());
        self.rewrite(place, before, &records);
        let since = self.open_since();
        self.detours.note_late(record, since);
        Taken::Late
    }

    /// Gives what was told of a connection to the record that has missed it, whose chunk is written anew.
    pub(crate) fn fill(&mut self, net: &Net) -> Filled {
        let place = self.chunks.of_seq(net.seq);
        let held = place.and_then(|place| Some((place, self.chunks.get(place)?)));
        let Some((place, chunk)) = held else {
            return Filled::NotHeld;
        };
        let before = chunk.before;
        let mut records: Vec<Record> = chunk.records().collect();
        let Some(record) = records.iter_mut().find(|record| record.seq == net.seq) else {
            return Filled::NotHeld;
        };
        let segments = record.segments();
        if !record.fill(net) {
            return Filled::Refused;
        }
        let segments = record.segments() - segments;
        self.rewrite(place, before, &records);
        Filled::With { segments }
    }

    /// Since when the detours that the last record had open may have been: the end of the latest
    /// record that had none.
    fn open_since(&self) -> Ns {
        for chunk in self.chunks.iter().rev() {
            let closed = chunk
                .records()
                .filter(|record| record.open_detours() == 0)
                .last();
            if let Some(record) = closed {
                return record.end;
            }
        }
        self.floor
    }

    /// Writes a chunk anew, as several where it became too large.
    fn rewrite(&mut self, place: usize, before: Option<Last>, records: &[Record]) {
        let is_last = place + 1 == self.chunks.len();
        self.chunks.remove(place);
        let mut place = place;
        let (mut chunk, mut context) = Chunk::new(before);
        for record in records {
            if chunk.is_full() {
                let (next, next_context) = Chunk::new(Some(context.last));
                let full = std::mem::replace(&mut chunk, next);
                self.put(place, full, context.last.end);
                context = next_context;
                place += 1;
            }
            chunk.push(&mut context, record);
        }
        self.put(place, chunk, context.last.end);
        if is_last {
            self.context = self.ended.is_none().then(|| Box::new(context));
        }
    }

    /// Puts a finished chunk into the list.
    fn put(&mut self, place: usize, mut chunk: Chunk, end: Ns) {
        chunk.seal();
        self.chunks.insert(place, chunk, end);
    }

    /// Takes a detour in; false: it contradicts itself.
    pub(crate) fn push_detour(&mut self, detour: &Detour) -> bool {
        if detour.begin >= detour.end || detour.seq == 0 {
            return false;
        }
        let known_before = self.last.map_or(0, |last| last.end);
        self.detours.push(detour, known_before);
        true
    }

    /// Takes in that it has not come on a CPU; an older stretch than what is known adds nothing.
    pub(crate) fn push_asleep(&mut self, asleep: &Asleep) {
        if asleep.from < asleep.until && asleep.until > self.asleep.end {
            self.asleep = asleep.from..asleep.until;
        }
    }

    /// Takes a snapshot in; an older one than what is known adds nothing.
    pub(crate) fn push_tail(&mut self, tail: Tail) {
        let old = self.last.is_some_and(|last| tail.record.seq < last.seq)
            || self.ended.is_some()
            || self.tail.as_ref().is_some_and(|held| {
                (held.record.seq, held.record.end) > (tail.record.seq, tail.record.end)
            });
        if !old {
            self.tail = Some(Box::new(tail));
        }
    }

    /// When its oldest chunk ends.
    pub(crate) fn oldest_end(&self) -> Option<Ns> {
        self.chunks.end(0)
    }

    /// Drops its oldest chunk.
    pub(crate) fn evict(&mut self) -> Held {
        let Some((chunk, end)) = self.chunks.remove(0) else {
            return Held::default();
        };
        self.floor = self.floor.max(end);
        self.detours.forget_before(self.floor);
        if self.chunks.is_empty() {
            self.context = None;
        }
        Held {
            records: chunk.records.into(),
            segments: chunk.segments.into(),
        }
    }

    /// Everything that it holds.
    pub(crate) fn held(&self) -> Held {
        self.chunks.iter().fold(Held::default(), |sum, chunk| Held {
            records: sum.records + u64::from(chunk.records),
            segments: sum.segments + u64::from(chunk.segments),
        })
    }

    /// How far its account is final.
    pub(crate) fn proved_until(&self) -> Ns {
        if self.ended.is_some() {
            return Ns::MAX;
        }
        let recorded = self.last.map_or(0, |last| last.end);
        let open_since = self.detours.open_since().unwrap_or(Ns::MAX);
        recorded.max(self.confirmed_until(recorded)).min(open_since)
    }

    /// How far a snapshot that follows the last record proves more than that.
    fn confirmed_until(&self, recorded: Ns) -> Ns {
        let Some(tail) = &self.tail else {
            return 0;
        };
        let record = &tail.record;
        let follows = match self.last {
            Some(last) => record.seq == last.seq && record.prev_in == Some(recorded),
            None => true,
        };
        if !follows || record.detour_seq > self.detours.last_seq() {
            return 0;
        }
        match &record.body {
            Body::Cycle(off) if off.state == OffState::Runnable => record.out,
            Body::Cycle(off) => off
                .waking
                .map_or(record.end, |waking| waking.max(record.out)),
            Body::Sums(_) | Body::Exit if tail.open.is_empty() => record.end,
            Body::Sums(_) | Body::Exit => record.start(),
        }
    }

    /// The latest instant that anything is known of.
    pub(crate) fn latest(&self) -> Ns {
        let last = self.last.map_or(0, |last| last.end);
        let tail = self.tail.as_ref().map_or(0, |tail| tail.record.end);
        let born = self.info.as_ref().map_or(0, |info| info.start_ns);
        last.max(tail).max(born)
    }
}
