// SPDX-License-Identifier: Apache-2.0
//! The chunks of one thread, in order, and when each ends.
//!
//! The ends stand apart from the chunks, side by side, because they are what a binary search looks
//! at: among chunks each look would fetch memory that nothing else is wanted of. The two lists are
//! changed here only, together.

use std::collections::VecDeque;

use crate::chunk::Chunk;
use crate::codec::Context;
use crate::event::Ns;
use crate::record::Record;

/// Chunks and their ends, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    list: VecDeque<Chunk>,
    /// The end of each chunk's last record.
    ends: VecDeque<Ns>,
    /// What the chunks take beyond their own structs.
    heap_bytes: usize,
}

impl Chunks {
    /// Memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.heap_bytes
            + self.list.capacity() * size_of::<Chunk>()
            + self.ends.capacity() * size_of::<Ns>()
    }

    /// There are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The chunk at a place.
    pub(crate) fn get(&self, place: usize) -> Option<&Chunk> {
        self.list.get(place)
    }

    /// The last one.
    pub(crate) fn last(&self) -> Option<&Chunk> {
        self.list.back()
    }

    /// From the oldest.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Chunk> {
        self.list.iter()
    }

    /// When the one at a place ends.
    pub(crate) fn end(&self, place: usize) -> Option<Ns> {
        self.ends.get(place).copied()
    }

    /// The place of the first one that speaks of time after `at`.
    pub(crate) fn after(&self, at: Ns) -> usize {
        self.ends.partition_point(|&end| end <= at)
    }

    /// The place of the last one that began before a record of that number.
    pub(crate) fn of_seq(&self, seq: u64) -> Option<usize> {
        let later = self
            .list
            .partition_point(|chunk| chunk.before.is_none_or(|before| before.seq < seq));
        later.checked_sub(1)
    }

    /// Puts a chunk that may be empty still at a place.
    pub(crate) fn insert(&mut self, place: usize, chunk: Chunk, end: Ns) {
        self.heap_bytes += chunk.heap_bytes();
        self.list.insert(place, chunk);
        self.ends.insert(place, end);
    }

    /// Takes the chunk at a place out, with its end.
    pub(crate) fn remove(&mut self, place: usize) -> Option<(Chunk, Ns)> {
        let chunk = self.list.remove(place)?;
        let end = self.ends.remove(place)?;
        self.heap_bytes -= chunk.heap_bytes();
        if self.list.capacity() > 4 * self.list.len() {
            self.list.shrink_to(2 * self.list.len());
            self.ends.shrink_to(2 * self.ends.len());
        }
        Some((chunk, end))
    }

    /// Appends a record to the last chunk.
    pub(crate) fn append(&mut self, context: &mut Context, record: &Record) {
        if let (Some(chunk), Some(end)) = (self.list.back_mut(), self.ends.back_mut()) {
            self.heap_bytes -= chunk.heap_bytes();
            chunk.push(context, record);
            self.heap_bytes += chunk.heap_bytes();
            *end = record.end;
        }
    }

    /// Gives back what the last chunk kept for growth.
    pub(crate) fn seal_last(&mut self) {
        if let Some(chunk) = self.list.back_mut() {
            self.heap_bytes -= chunk.heap_bytes();
            chunk.seal();
            self.heap_bytes += chunk.heap_bytes();
        }
    }
}
