// SPDX-License-Identifier: Apache-2.0
//! A chunk: some tens of records of one thread, coded one after the other.
//!
//! It is the unit that is searched for, read from its start, and evicted. It knows what came before
//! it, so that a hole between two chunks is seen as well as one inside.

use crate::codec;
use crate::codec::Context;
use crate::codec::Last;
use crate::codec::Reader;
use crate::event::Ns;
use crate::record::Body;
use crate::record::Record;

/// A chunk's memory: large enough that its own cost is small beside
/// them, small enough that reading it from the start takes half a microsecond or so.
pub(crate) const CHUNK_BYTES: usize = 768;

/// What hardly any record exceeds; with less room left a chunk is full.
const RECORD_BYTES: usize = 48;

/// A chunk's memory as it begins; most threads that are born write little.
const FIRST_BYTES: usize = 128;

/// Records of one thread in order of their numbers.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    /// The record before the first one; `None`: the thread's first record is here.
    pub(crate) before: Option<Last>,
    /// From here on it speaks.
    pub(crate) start: Ns,
    pub(crate) records: u32,
    pub(crate) segments: u32,
}

impl Chunk {
    /// An empty chunk, and the context to write to it with.
    pub(crate) fn new(before: Option<Last>) -> (Chunk, Context) {
        let chunk = Chunk {
            bytes: Vec::new(),
            before,
            start: 0,
            records: 0,
            segments: 0,
        };
        (chunk, Context::new(before.unwrap_or_default()))
    }

    /// Appends a record.
    pub(crate) fn push(&mut self, context: &mut Context, record: &Record) {
        self.make_room();
        if self.records == 0 {
            self.start = record.start();
        }
        codec::write(&mut self.bytes, context, record);
        self.records += 1;
        self.segments += record.segments() as u32;
    }

    /// No more fits.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() + RECORD_BYTES > CHUNK_BYTES
    }

    /// Gives back what was kept for growth, where that is more than a little.
    pub(crate) fn seal(&mut self) {
        if self.bytes.capacity() - self.bytes.len() > 2 * RECORD_BYTES {
            self.bytes.shrink_to_fit();
        }
    }

    /// Memory that it takes beyond its own struct.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Its records, from the first.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let mut records = Records::none();
        records.open(self);
        std::iter::from_fn(move || records.advance().then(|| records.record.clone()))
    }

    /// Grows by doubling up to [`CHUNK_BYTES`]. A rare record that is larger than what is left makes
    /// the vector grow once more, and sealing gives that back.
    fn make_room(&mut self) {
        let capacity = self.bytes.capacity();
        if capacity < CHUNK_BYTES && capacity < self.bytes.len() + 2 * RECORD_BYTES {
            let target = (2 * capacity).clamp(FIRST_BYTES, CHUNK_BYTES);
            self.bytes.reserve_exact(target - self.bytes.len());
        }
    }
}

/// Reads a chunk's records in order, each over the one before.
#[derive(Debug)]
pub(crate) struct Records<'c> {
    input: Reader<'c>,
    context: Context,
    /// What the record before the current one ended with; `None`: there was none.
    before: Option<Last>,
    /// What the current one ended with.
    last: Option<Last>,
    record: Record,
}

/// A record, and what the one before it ended with; `None`: there was none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read<'r> {
    pub(crate) before: Option<Last>,
    pub(crate) record: &'r Record,
}

impl<'c> Records<'c> {
    /// Of no chunk.
    pub(crate) fn none() -> Records<'c> {
        Records {
            input: Reader::new(&[]),
            context: Context::new(Last::default()),
            before: None,
            last: None,
            record: Record::blank(),
        }
    }

    /// Goes before the first record of a chunk. All of this is a kilobyte, so it is changed in place.
    pub(crate) fn open(&mut self, chunk: &'c Chunk) {
        self.input = Reader::new(&chunk.bytes);
        self.context.restart(chunk.before.unwrap_or_default());
        self.last = chunk.before;
    }

    /// Reads the next record; false at the end, where there is no current one.
    pub(crate) fn advance(&mut self) -> bool {
        if codec::read(&mut self.input, &mut self.context, &mut self.record).is_none() {
            return false;
        }
        self.before = self.last.replace(self.context.last);
        if let (None, Body::Cycle(off)) = (self.before, &mut self.record.body) {
            // Which CPU it came from was not seen.
            off.moved = false;
        }
        true
    }

    /// The current record.
    pub(crate) fn current(&self) -> Read<'_> {
        Read {
            before: self.before,
            record: &self.record,
        }
    }
}
