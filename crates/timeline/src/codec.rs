// SPDX-License-Identifier: Apache-2.0
//! Records as bytes: what makes the flight recorder small.
//!
//! A record is coded against the ones before it in its chunk: instants as differences in
//! variable-length integers, 64-bit ids and whole waits as places in two small rings of those seen
//! last. A chunk is read from its start, so it is kept short. Writer and reader hold the same
//! [`Context`] and change it in the same way; neither knows threads, chunks or budgets.
//!
//! Promise: what was written is read back exactly; damaged bytes end the reading, nothing panics.

mod bytes;
mod net;
mod off_cpu;
mod wait;

#[cfg(test)]
mod tests;

use crate::event::Faults;
use crate::event::Ns;
use crate::event::OffState;
use crate::event::ShortDetours;
use crate::record::Body;
use crate::record::Record;
use crate::record::Sums;
pub(crate) use bytes::Reader;
use bytes::Writer;
use wait::Rings;

/// What a record is coded against.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Context {
    /// The last record's number, end and detour number, and the CPU that it ended on.
    pub(crate) last: Last,
    rings: Rings,
}

/// What the last record ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Last {
    pub(crate) seq: u64,
    pub(crate) detour_seq: u64,
    pub(crate) end: Ns,
    pub(crate) cpu: u16,
}

impl Context {
    /// At the start of a chunk.
    pub(crate) fn new(last: Last) -> Context {
        Context {
            last,
            rings: Rings::default(),
        }
    }

    /// At the start of another chunk.
    pub(crate) fn restart(&mut self, last: Last) {
        self.last = last;
        self.rings.clear();
    }

    /// After a record.
    fn advance(&mut self, record: &Record) {
        self.last.seq = record.seq;
        self.last.detour_seq = record.detour_seq;
        self.last.end = record.end;
        if let Body::Cycle(off) = &record.body {
            self.last.cpu = off.cpu;
        }
    }
}

/// The first byte of a record.
mod head {
    pub(super) const KIND: u8 = 0b11;
    pub(super) const CYCLE: u8 = 0;
    pub(super) const SUMS: u8 = 1;
    pub(super) const EXIT: u8 = 2;
    /// It came on the CPU exactly where the record before ended.
    pub(super) const CHAINED: u8 = 1 << 2;
    /// When it came on the CPU was not seen.
    pub(super) const NO_PREV_IN: u8 = 1 << 3;
    /// Its number is the next one.
    pub(super) const NEXT: u8 = 1 << 4;
    /// A byte of rare counters follows.
    pub(super) const COUNTERS: u8 = 1 << 5;
    /// It came back on the same CPU.
    pub(super) const SAME_CPU: u8 = 1 << 6;
    /// A byte of rare parts follows.
    pub(super) const RARE: u8 = 1 << 7;
}

/// Writes a record to a chunk.
pub(crate) fn write(bytes: &mut Vec<u8>, context: &mut Context, record: &Record) {
    let mut out = Writer { bytes };
    let last = context.last;
    let counters = Counters::of(record, last);
    let mut flags = match &record.body {
        Body::Cycle(off) => head::CYCLE | off_cpu::head_flags(off, last),
        Body::Sums(_) => head::SUMS,
        Body::Exit => head::EXIT,
    };
    let chained = record.prev_in == Some(last.end);
    flags |= if chained { head::CHAINED } else { 0 };
    flags |= if record.prev_in.is_none() {
        head::NO_PREV_IN
    } else {
        0
    };
    flags |= if record.seq == last.seq.wrapping_add(1) {
        head::NEXT
    } else {
        0
    };
    flags |= if counters.is_zero() {
        0
    } else {
        head::COUNTERS
    };
    out.byte(flags);
    if flags & head::NEXT == 0 {
        out.number(record.seq.wrapping_sub(last.seq));
    }
    if !chained && record.prev_in.is_some() {
        out.number(record.start().wrapping_sub(last.end));
    }
    let from = record.prev_in.unwrap_or(last.end);
    out.number(record.out.wrapping_sub(from));
    counters.write(&mut out, flags);
    match &record.body {
        Body::Cycle(off) => off_cpu::write(&mut out, &mut context.rings, record, off, flags),
        Body::Sums(sums) => write_sums(&mut out, &mut context.rings, sums),
        Body::Exit => {}
    }
    context.advance(record);
}

/// Reads the next record of a chunk over the one before, which saves moving it from hand to hand;
/// `None` at its end, and then `record` means nothing.
pub(crate) fn read(
    input: &mut Reader<'_>,
    context: &mut Context,
    record: &mut Record,
) -> Option<()> {
    let last = context.last;
    let flags = input.byte()?;
    let seq = if flags & head::NEXT != 0 {
        last.seq.wrapping_add(1)
    } else {
        last.seq.wrapping_add(input.number()?)
    };
    let prev_in = if flags & head::CHAINED != 0 {
        Some(last.end)
    } else if flags & head::NO_PREV_IN != 0 {
        None
    } else {
        Some(last.end.wrapping_add(input.number()?))
    };
    let out = prev_in.unwrap_or(last.end).wrapping_add(input.number()?);
    let counters = Counters::read(input, flags)?;
    record.seq = seq;
    record.detour_seq = last.detour_seq.wrapping_add(counters.detours);
    record.prev_in = prev_in;
    record.out = out;
    record.end = out;
    record.faults = counters.faults;
    record.short = counters.short;
    match flags & head::KIND {
        head::CYCLE => {
            let off = record.cycle_mut()?;
            record.end = off_cpu::read(input, &mut context.rings, out, last, flags, off)?;
        }
        head::SUMS => record.body = Body::Sums(read_sums(input, &mut context.rings)?),
        _ => record.body = Body::Exit,
    }
    context.advance(record);
    Some(())
}

/// What most records do not have: faults and detours.
#[derive(Default)]
struct Counters {
    detours: u64,
    faults: Faults,
    short: ShortDetours,
}

impl Counters {
    fn of(record: &Record, last: Last) -> Counters {
        Counters {
            detours: record.detour_seq.wrapping_sub(last.detour_seq),
            faults: record.faults,
            short: record.short,
        }
    }

    /// The counters in the order in which they are written.
    fn values(&self) -> [u64; 6] {
        [
            self.faults.minor.into(),
            self.faults.major.into(),
            self.detours,
            self.short.compaction_ns.into(),
            self.short.memcg_ns.into(),
            self.short.reclaim_ns.into(),
        ]
    }

    fn is_zero(&self) -> bool {
        self.values().iter().all(|&value| value == 0)
    }

    /// A byte that says which there are, then those.
    fn write(&self, out: &mut Writer<'_>, flags: u8) {
        if flags & head::COUNTERS == 0 {
            return;
        }
        let values = self.values();
        let present = (0..values.len()).fold(0, |bits, at| bits | u8::from(values[at] != 0) << at);
        out.byte(present);
        for value in values.into_iter().filter(|&value| value != 0) {
            out.number(value);
        }
    }

    fn read(input: &mut Reader<'_>, flags: u8) -> Option<Counters> {
        if flags & head::COUNTERS == 0 {
            return Some(Counters::default());
        }
        let present = input.byte()?;
        let mut values = [0; 6];
        for (at, value) in values.iter_mut().enumerate() {
            if present & 1 << at != 0 {
                *value = input.number()?;
            }
        }
        let [minor, major, detours, compaction, memcg, reclaim] = values;
        Some(Counters {
            detours,
            faults: Faults {
                minor: minor.try_into().ok()?,
                major: major.try_into().ok()?,
            },
            short: ShortDetours {
                compaction_ns: compaction.try_into().ok()?,
                memcg_ns: memcg.try_into().ok()?,
                reclaim_ns: reclaim.try_into().ok()?,
            },
        })
    }
}

fn write_sums(out: &mut Writer<'_>, rings: &mut Rings, sums: &Sums) {
    out.byte(state_code(sums.state));
    out.number(sums.count.into());
    for ns in [
        sums.running_ns,
        sums.runnable_ns,
        sums.idle_wake_ns,
        sums.blocked_ns,
    ] {
        out.number(ns);
    }
    rings.write_wait(out, &sums.wait);
}

fn read_sums(input: &mut Reader<'_>, rings: &mut Rings) -> Option<Sums> {
    let state = state_of(input.byte()?)?;
    Some(Sums {
        state,
        count: input.number()?.try_into().ok()?,
        running_ns: input.number()?,
        runnable_ns: input.number()?,
        idle_wake_ns: input.number()?,
        blocked_ns: input.number()?,
        wait: *rings.read_wait(input)?,
    })
}

/// Every state, at its code.
const STATES: [OffState; 10] = [
    OffState::Runnable,
    OffState::Sleeping,
    OffState::Uninterruptible,
    OffState::Idle,
    OffState::Stopped,
    OffState::Traced,
    OffState::Parked,
    OffState::Frozen,
    OffState::RtLock,
    OffState::Other,
];

fn state_code(state: OffState) -> u8 {
    state as u8
}

fn state_of(code: u8) -> Option<OffState> {
    STATES.get(usize::from(code)).copied()
}

const _: () = {
    let mut at = 0;
    while at < STATES.len() {
        assert!(
            STATES[at] as usize == at,
            "states must be in the order of the enum"
        );
        at += 1;
    }
};
