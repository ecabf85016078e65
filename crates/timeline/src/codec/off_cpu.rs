// SPDX-License-Identifier: Apache-2.0
//! The off-CPU part of a cycle as bytes: instants in the order in which they mostly come (out,
//! waking, enqueue, end), then the wait and its waker, then what few records have.

use super::Last;
use super::bytes::Reader;
use super::bytes::Writer;
use super::head;
use super::net;
use super::state_code;
use super::state_of;
use super::wait::Rings;
use crate::cause::Cause;
use crate::cause::StackClass;
use crate::event::DetourKind;
use crate::event::Migrated;
use crate::event::Ns;
use crate::event::OPEN_DETOURS_MAX;
use crate::event::StackId;
use crate::event::Throttle;
use crate::record::BLAME_MAX;
use crate::record::Blamed;
use crate::record::Detours;
use crate::record::OffCpu;
use crate::record::Record;
use crate::record::Stacked;
use crate::record::Told;
use std::ops::Range;

/// The second byte: the state in the low four bits, and these.
mod state {
    pub(super) const CODE: u8 = 0b1111;
    pub(super) const FROM_IDLE: u8 = 1 << 4;
    pub(super) const WAKING: u8 = 1 << 5;
    pub(super) const ENQUEUED: u8 = 1 << 6;
}

/// The byte of rare parts.
mod rare {
    pub(super) const DETOURS: u8 = 1;
    pub(super) const MIGRATED: u8 = 1 << 1;
    pub(super) const THROTTLE: u8 = 1 << 2;
    pub(super) const THROTTLE_PLACED: u8 = 1 << 3;
    pub(super) const THROTTLE_ESTIMATED: u8 = 1 << 4;
    pub(super) const STACK: u8 = 1 << 5;
    pub(super) const BLAME: u8 = 1 << 6;
    pub(super) const NET: u8 = 1 << 7;
}

/// The flags of the first byte that concern this part.
pub(super) fn head_flags(off: &OffCpu, last: Last) -> u8 {
    let same_cpu = if off.cpu == last.cpu {
        head::SAME_CPU
    } else {
        0
    };
    let rare = if rare_flags(off) == 0 { 0 } else { head::RARE };
    same_cpu | rare
}

fn rare_flags(off: &OffCpu) -> u8 {
    let mut flags = 0;
    let mut set = |bit, on: bool| flags |= if on { bit } else { 0 };
    set(rare::DETOURS, !off.detours.is_empty());
    set(rare::MIGRATED, off.migrated.is_some());
    set(rare::STACK, off.stack.is_some());
    set(rare::BLAME, off.blame != Blamed::NONE);
    set(rare::NET, off.net != Told::Nothing);
    if let Some(throttle) = &off.throttle {
        set(rare::THROTTLE, true);
        set(rare::THROTTLE_PLACED, throttle.until.is_some());
        set(rare::THROTTLE_ESTIMATED, throttle.estimated);
    }
    flags
}

pub(super) fn write(
    out: &mut Writer<'_>,
    rings: &mut Rings,
    record: &Record,
    off: &OffCpu,
    flags: u8,
) {
    let mut byte = state_code(off.state);
    byte |= if off.from_idle { state::FROM_IDLE } else { 0 };
    byte |= if off.waking.is_some() {
        state::WAKING
    } else {
        0
    };
    byte |= if off.enqueued.is_some() {
        state::ENQUEUED
    } else {
        0
    };
    out.byte(byte);
    let mut at = record.out;
    if let Some(waking) = off.waking {
        out.difference(at, waking);
        at = at.max(waking);
    }
    if let Some(enqueued) = off.enqueued {
        out.number(enqueued.wrapping_sub(at));
        at = enqueued;
    }
    out.number(record.end.wrapping_sub(at));
    if flags & head::SAME_CPU == 0 {
        out.number(off.cpu.into());
    }
    rings.write_wait(out, &off.wait);
    rings.write_waker(out, off.waker);
    if flags & head::RARE != 0 {
        write_rare(out, rings, record, off);
    }
}

/// Reads the part, over another, and says when its record ends.
pub(super) fn read(
    input: &mut Reader<'_>,
    rings: &mut Rings,
    out: Ns,
    last: Last,
    flags: u8,
    off: &mut OffCpu,
) -> Option<Ns> {
    let byte = input.byte()?;
    off.state = state_of(byte & state::CODE)?;
    off.from_idle = byte & state::FROM_IDLE != 0;
    let mut at = out;
    off.waking = None;
    if byte & state::WAKING != 0 {
        let instant = input.difference(at)?;
        off.waking = Some(instant);
        at = at.max(instant);
    }
    off.enqueued = None;
    if byte & state::ENQUEUED != 0 {
        at = at.wrapping_add(input.number()?);
        off.enqueued = Some(at);
    }
    let end = at.wrapping_add(input.number()?);
    off.cpu = if flags & head::SAME_CPU != 0 {
        last.cpu
    } else {
        input.number()?.try_into().ok()?
    };
    off.moved = off.cpu != last.cpu;
    off.wait = *rings.read_wait(input)?;
    off.waker = rings.read_waker(input)?;
    off.detours = Detours::NONE;
    off.migrated = None;
    off.throttle = None;
    off.stack = None;
    off.blame = Blamed::NONE;
    off.net = Told::Nothing;
    if flags & head::RARE != 0 {
        read_rare(input, rings, out..end, off)?;
    }
    Some(end)
}

fn write_rare(out: &mut Writer<'_>, rings: &mut Rings, record: &Record, off: &OffCpu) {
    let end = record.end;
    out.byte(rare_flags(off));
    if !off.detours.is_empty() {
        write_detours(out, off.detours);
    }
    if let Some(migrated) = off.migrated {
        out.number(migrated.waited_ns);
        out.difference(end, migrated.at);
    }
    if let Some(throttle) = off.throttle {
        out.number(throttle.ns);
        if let Some(until) = throttle.until {
            out.difference(end, until);
        }
        rings.write_word(out, 0, throttle.cgroup);
    }
    if let Some(stack) = off.stack {
        out.byte(class_code(stack.class));
        rings.write_word(out, 0, stack.stack.0);
    }
    if off.blame != Blamed::NONE {
        write_blame(out, rings, &off.blame);
    }
    net::write(out, rings, record.out, &off.net);
}

fn read_rare(
    input: &mut Reader<'_>,
    rings: &mut Rings,
    range: Range<Ns>,
    off: &mut OffCpu,
) -> Option<()> {
    let end = range.end;
    let flags = input.byte()?;
    if flags & rare::DETOURS != 0 {
        off.detours = read_detours(input)?;
    }
    if flags & rare::MIGRATED != 0 {
        off.migrated = Some(Migrated {
            waited_ns: input.number()?,
            at: input.difference(end)?,
        });
    }
    if flags & rare::THROTTLE != 0 {
        let ns = input.number()?;
        let until = match flags & rare::THROTTLE_PLACED {
            0 => None,
            _ => Some(input.difference(end)?),
        };
        off.throttle = Some(Throttle {
            ns,
            until,
            estimated: flags & rare::THROTTLE_ESTIMATED != 0,
            cgroup: rings.next_word(input)?,
        });
    }
    if flags & rare::STACK != 0 {
        let class = class_of(input.byte()?)?;
        let stack = StackId(rings.next_word(input)?);
        off.stack = Some(Stacked { stack, class });
    }
    if flags & rare::BLAME != 0 {
        off.blame = read_blame(input, rings)?;
    }
    if flags & rare::NET != 0 {
        off.net = net::read(input, rings, range.start)?;
    }
    Some(())
}

/// Every kind of detour, at its code.
const DETOURS: [DetourKind; 3] = [
    DetourKind::Compaction,
    DetourKind::MemcgReclaim,
    DetourKind::DirectReclaim,
];

/// Two bits each, outermost lowest, 3 ends the list.
fn write_detours(out: &mut Writer<'_>, detours: Detours) {
    let mut codes = [3_u8; OPEN_DETOURS_MAX];
    for (code, kind) in codes.iter_mut().zip(detours.iter()) {
        *code = kind as u8;
    }
    out.byte(codes.iter().rev().fold(0, |byte, code| byte << 2 | code));
}

fn read_detours(input: &mut Reader<'_>) -> Option<Detours> {
    let byte = input.byte()?;
    let mut kinds = [DetourKind::Compaction; OPEN_DETOURS_MAX];
    let mut len = 0;
    while len < OPEN_DETOURS_MAX {
        match DETOURS.get(usize::from(byte >> (2 * len) & 0b11)) {
            Some(kind) => kinds[len] = *kind,
            None => break,
        }
        len += 1;
    }
    Some(Detours::new(&kinds[..len]))
}

/// 0: not known; 1: it proves nothing; then the causes.
fn class_code(class: Option<StackClass>) -> u8 {
    class.map_or(0, |class| class.cause().map_or(1, |cause| 2 + cause as u8))
}

fn class_of(code: u8) -> Option<Option<StackClass>> {
    Some(match code {
        0 => None,
        1 => Some(StackClass::default()),
        code => {
            let cause = Cause::all().nth(usize::from(code) - 2)?;
            Some(StackClass::from_cause(Some(cause)))
        }
    })
}

fn write_blame(out: &mut Writer<'_>, rings: &mut Rings, blame: &Blamed) {
    let named = blame.named().count() as u8;
    let rest = u8::from(blame.rest_ns != 0) << 3;
    let uncovered = u8::from(blame.uncovered_ns != 0) << 4;
    out.byte(named | rest | uncovered);
    for (thread, ns) in blame.named() {
        rings.write_word(out, 0, thread.0);
        out.number(ns);
    }
    if blame.rest_ns != 0 {
        out.number(blame.rest_ns);
    }
    if blame.uncovered_ns != 0 {
        out.number(blame.uncovered_ns);
    }
}

fn read_blame(input: &mut Reader<'_>, rings: &mut Rings) -> Option<Blamed> {
    let flags = input.byte()?;
    let mut blame = Blamed::NONE;
    let named = usize::from(flags & 0b111).min(BLAME_MAX);
    for culprit in &mut blame.culprits[..named] {
        *culprit = (rings.next_word(input)?, input.number()?);
    }
    if flags & 1 << 3 != 0 {
        blame.rest_ns = input.number()?;
    }
    if flags & 1 << 4 != 0 {
        blame.uncovered_ns = input.number()?;
    }
    Some(blame)
}
