// SPDX-License-Identifier: Apache-2.0
//! Ids and waits: a thread meets the same few again and again, so each is written once and then
//! named by its place in a ring of those seen last.

use super::bytes::Reader;
use super::bytes::Writer;
use crate::cause::ObjectClass;
use crate::event::Asked;
use crate::event::Call;
use crate::event::Entry;
use crate::event::FutexKind;
use crate::event::ObjectId;
use crate::event::Polled;
use crate::event::ThreadId;
use crate::event::Waker;
use crate::record::Owner;
use crate::record::Pointed;
use crate::record::Waited;
use crate::record::Word;

/// Ids below are counters, and shorter as a number of variable length.
const SHORT_WORD: u64 = 1 << 35;

/// Ids kept in the ring.
const WORDS: usize = 32;

/// Waits kept in the ring.
const WAITS: usize = 8;

/// What was seen last in a chunk; ids of threads, objects and stacks, hashes, and waits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rings {
    words: [u64; WORDS],
    next_word: u8,
    waits: [Waited; WAITS],
    next_wait: u8,
}

impl Default for Rings {
    fn default() -> Rings {
        Rings {
            words: [0; WORDS],
            next_word: 0,
            waits: [Waited::NOTHING; WAITS],
            next_wait: 0,
        }
    }
}

impl Rings {
    /// Nothing was seen yet.
    pub(super) fn clear(&mut self) {
        self.words.fill(0);
        self.next_word = 0;
        self.waits.fill(Waited::NOTHING);
        self.next_wait = 0;
    }

    /// Writes an id as one byte where it was seen lately; codes below `base` are the caller's.
    pub(super) fn write_word(&mut self, out: &mut Writer<'_>, base: u8, word: u64) {
        if let Some(at) = self.words.iter().position(|&known| known == word) {
            out.byte(base + 2 + at as u8);
            return;
        }
        if word < SHORT_WORD {
            out.byte(base + 1);
            out.number(word);
        } else {
            out.byte(base);
            out.word(word);
        }
        self.remember(word);
    }

    /// Reads an id whose code has been read.
    pub(super) fn read_word(&mut self, input: &mut Reader<'_>, base: u8, code: u8) -> Option<u64> {
        let word = match code.checked_sub(base)? {
            0 => input.word()?,
            1 => input.number()?,
            place => return self.words.get(usize::from(place) - 2).copied(),
        };
        self.remember(word);
        Some(word)
    }

    /// Reads an id with its code.
    pub(super) fn next_word(&mut self, input: &mut Reader<'_>) -> Option<u64> {
        let code = input.byte()?;
        self.read_word(input, 0, code)
    }

    fn remember(&mut self, word: u64) {
        self.words[usize::from(self.next_word)] = word;
        self.next_word = (self.next_word + 1) % WORDS as u8;
    }

    /// Writes who woke a thread: one byte, mostly.
    pub(super) fn write_waker(&mut self, out: &mut Writer<'_>, waker: Waker) {
        match waker {
            Waker::Unknown => out.byte(0),
            Waker::HardIrq => out.byte(1),
            Waker::SoftIrq => out.byte(2),
            Waker::Idle => out.byte(3),
            Waker::Thread(thread) => self.write_word(out, 4, thread.0),
        }
    }

    /// Reads who woke a thread.
    pub(super) fn read_waker(&mut self, input: &mut Reader<'_>) -> Option<Waker> {
        Some(match input.byte()? {
            0 => Waker::Unknown,
            1 => Waker::HardIrq,
            2 => Waker::SoftIrq,
            3 => Waker::Idle,
            code => Waker::Thread(ThreadId(self.read_word(input, 4, code)?)),
        })
    }

    /// Writes a wait: one byte where it was seen lately.
    pub(super) fn write_wait(&mut self, out: &mut Writer<'_>, wait: &Waited) {
        if let Some(at) = self.waits.iter().position(|known| known == wait) {
            out.byte(1 + at as u8);
            return;
        }
        out.byte(0);
        write_entry(out, wait);
        if wait.polled != Polled::No {
            out.byte(
                POLLED_KINDS
                    .iter()
                    .position(|&kind| kind == wait.polled)
                    .unwrap_or_default() as u8,
            );
        }
        if let Some(object) = wait.object {
            out.byte(object.class.map_or(0, |class| 1 + class as u8));
            self.write_word(out, 0, object.object.0);
        }
        if let Some(word) = wait.futex {
            self.write_futex(out, word);
        }
        self.remember_wait(*wait);
    }

    /// Reads a wait; it stands in the ring.
    pub(super) fn read_wait(&mut self, input: &mut Reader<'_>) -> Option<&Waited> {
        let code = input.byte()?;
        if let Some(place) = code.checked_sub(1) {
            return self.waits.get(usize::from(place));
        }
        let flags = input.byte()?;
        let mut wait = Waited {
            entry: read_entry(input, flags)?,
            no_descriptors: flags & NO_DESCRIPTORS != 0,
            iowait: flags & IOWAIT != 0,
            ..Waited::NOTHING
        };
        if flags & POLLED != 0 {
            wait.polled = *POLLED_KINDS.get(usize::from(input.byte()?))?;
        }
        if flags & OBJECT != 0 {
            let class = match input.byte()?.checked_sub(1) {
                Some(at) => Some(*ObjectClass::ALL.get(usize::from(at))?),
                None => None,
            };
            let object = ObjectId(self.next_word(input)?);
            wait.object = Some(Pointed { object, class });
        }
        if flags & FUTEX != 0 {
            wait.futex = Some(self.read_futex(input)?);
        }
        Some(self.remember_wait(wait))
    }

    fn remember_wait(&mut self, wait: Waited) -> &Waited {
        let place = usize::from(self.next_wait);
        self.next_wait = (self.next_wait + 1) % WAITS as u8;
        self.waits[place] = wait;
        &self.waits[place]
    }

    fn write_futex(&mut self, out: &mut Writer<'_>, word: Word) {
        let kind = FUTEX_KINDS.iter().position(|&kind| kind == word.kind);
        let kind = kind.unwrap_or_default() as u8;
        match word.owner {
            Owner::None => out.byte(kind),
            Owner::Named(tid) => {
                out.byte(kind | 1 << 2);
                out.number(tid.into());
            }
            Owner::Thread(thread) => {
                out.byte(kind | 2 << 2);
                self.write_word(out, 0, thread.0);
            }
        }
        self.write_word(out, 0, word.address_hash);
    }

    fn read_futex(&mut self, input: &mut Reader<'_>) -> Option<Word> {
        let code = input.byte()?;
        let owner = match code >> 2 {
            0 => Owner::None,
            1 => Owner::Named(input.number()?.try_into().ok()?),
            _ => Owner::Thread(ThreadId(self.next_word(input)?)),
        };
        Some(Word {
            kind: FUTEX_KINDS[usize::from(code & 0b11)],
            owner,
            address_hash: self.next_word(input)?,
        })
    }
}

const OBJECT: u8 = 1 << 2;
const FUTEX: u8 = 1 << 3;
const NO_DESCRIPTORS: u8 = 1 << 4;
const IOWAIT: u8 = 1 << 5;
const POLLED: u8 = 1 << 6;

/// Everything that may be known of the end of a poll-like wait, at its code.
const POLLED_KINDS: [Polled; 7] = [
    Polled::Ended(Asked::Input),
    Polled::Ended(Asked::Output),
    Polled::Ended(Asked::Either),
    Polled::Sole(Asked::Input),
    Polled::Sole(Asked::Output),
    Polled::Sole(Asked::Either),
    Polled::Ended(Asked::Connect),
];

/// Every futex kind, at its code.
const FUTEX_KINDS: [FutexKind; 4] = [
    FutexKind::GlibcMutex,
    FutexKind::GlibcRwlock,
    FutexKind::Pi,
    FutexKind::Unowned,
];

/// Flags of a wait and how the kernel was entered.
fn write_entry(out: &mut Writer<'_>, wait: &Waited) {
    let entry = match wait.entry {
        Entry::NotRecorded => 0,
        Entry::KernelThread => 1,
        Entry::Fault => 2,
        Entry::Call(_) => 3,
    };
    let mut flags = entry;
    flags |= if wait.object.is_some() { OBJECT } else { 0 };
    flags |= if wait.futex.is_some() { FUTEX } else { 0 };
    flags |= if wait.no_descriptors {
        NO_DESCRIPTORS
    } else {
        0
    };
    flags |= if wait.iowait { IOWAIT } else { 0 };
    flags |= if wait.polled == Polled::No { 0 } else { POLLED };
    out.byte(flags);
    if let Entry::Call(call) = wait.entry {
        out.number(call_code(call));
    }
}

fn read_entry(input: &mut Reader<'_>, flags: u8) -> Option<Entry> {
    Some(match flags & 0b11 {
        0 => Entry::NotRecorded,
        1 => Entry::KernelThread,
        2 => Entry::Fault,
        _ => Entry::Call(call_of(input.number()?)?),
    })
}

/// Every call that has no number of its own, at its code.
const CALLS: [Call; 27] = [
    Call::Read,
    Call::Write,
    Call::Recv,
    Call::Send,
    Call::Splice,
    Call::Connect,
    Call::Accept,
    Call::FutexWait,
    Call::FutexLockPi,
    Call::FutexOther,
    Call::Nanosleep,
    Call::EpollWait,
    Call::Poll,
    Call::Select,
    Call::IoWait,
    Call::Sync,
    Call::Path,
    Call::Close,
    Call::Control,
    Call::WaitChild,
    Call::Fork,
    Call::Exec,
    Call::Exit,
    Call::Signal,
    Call::MessageQueue,
    Call::Memory,
    Call::Yield,
];

/// A call's code; other calls come after those of the table, by their number.
fn call_code(call: Call) -> u64 {
    match call {
        Call::Other(number) => CALLS.len() as u64 + u64::from(number),
        call => CALLS
            .iter()
            .position(|&known| known == call)
            .unwrap_or_default() as u64,
    }
}

fn call_of(code: u64) -> Option<Call> {
    let other = || code.checked_sub(CALLS.len() as u64)?.try_into().ok();
    match CALLS.get(usize::try_from(code).ok()?) {
        Some(call) => Some(*call),
        None => other().map(Call::Other),
    }
}
