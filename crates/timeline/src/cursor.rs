// SPDX-License-Identifier: Apache-2.0
//! A place in a thread's records, for questions about one instant after another.
//!
//! Found by binary search over the chunks and then read from the chunk's start; what was read for
//! one window is not read again for the next.

use crate::chunk::Read;
use crate::chunk::Records;
use crate::chunks::Chunks;
use crate::event::Ns;

/// A place in a thread's records.
#[derive(Debug)]
pub(crate) struct Cursor<'r> {
    chunks: &'r Chunks,
    /// The chunk that `records` reads.
    place: usize,
    records: Records<'r>,
    /// There is a current record.
    is_at: bool,
}

impl<'r> Cursor<'r> {
    /// At no record yet.
    pub(crate) fn new(chunks: &'r Chunks) -> Cursor<'r> {
        Cursor {
            chunks,
            place: 0,
            records: Records::none(),
            is_at: false,
        }
    }

    /// Goes to the first record that ends after an instant.
    pub(crate) fn seek(&mut self, at: Ns) {
        let ahead = |read: Read<'_>| read.before.is_none_or(|before| before.end <= at);
        let here = self.current().is_some_and(ahead)
            && self.chunks.end(self.place).is_some_and(|end| end > at);
        if !here {
            self.is_at = self.open(self.chunks.after(at)) && self.records.advance();
        }
        while self.current().is_some_and(|read| read.record.end <= at) {
            self.step();
        }
    }

    /// The record that it is at.
    pub(crate) fn current(&self) -> Option<Read<'_>> {
        self.is_at.then(|| self.records.current())
    }

    /// Goes to the next record.
    pub(crate) fn step(&mut self) {
        self.is_at = self.records.advance();
        while !self.is_at && self.open(self.place + 1) {
            self.is_at = self.records.advance();
        }
    }

    /// Goes before the first record of a chunk; false where there is none at that place.
    fn open(&mut self, place: usize) -> bool {
        self.place = place;
        let chunk = self.chunks.get(place);
        if let Some(chunk) = chunk {
            self.records.open(chunk);
        }
        chunk.is_some()
    }
}
