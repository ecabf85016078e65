// SPDX-License-Identifier: Apache-2.0
//! A place in a thread's records, for questions about one instant after another.
//!
//! Found by binary search over the chunks and then read from the chunk's start; what was read for
//! one window is not read again for the next.

use crate::chunk::Read;
use crate::chunk::Records;
use crate::event::Ns;
use crate::thread::Thread;

/// A place in a thread's records.
pub(crate) struct Cursor<'r> {
    thread: &'r Thread,
    /// The chunk that `records` reads.
    place: usize,
    records: Option<Records<'r>>,
    current: Option<Read>,
}

impl<'r> Cursor<'r> {
    /// At no record yet.
    pub(crate) fn new(thread: &'r Thread) -> Cursor<'r> {
        Cursor {
            thread,
            place: 0,
            records: None,
            current: None,
        }
    }

    /// Goes to the first record that ends after an instant.
    pub(crate) fn seek(&mut self, at: Ns) {
        let ahead = |read: &Read| read.before.is_none_or(|before| before.end <= at);
        let chunk = self.thread.chunk(self.place);
        let here =
            self.current.as_ref().is_some_and(ahead) && chunk.is_some_and(|chunk| chunk.end > at);
        if !here {
            self.open(self.thread.chunk_after(at));
            self.step();
        }
        while self
            .current
            .as_ref()
            .is_some_and(|read| read.record.end <= at)
        {
            self.step();
        }
    }

    /// The record that it is at.
    pub(crate) fn current(&self) -> Option<&Read> {
        self.current.as_ref()
    }

    /// Goes to the next record.
    pub(crate) fn step(&mut self) {
        loop {
            let Some(records) = &mut self.records else {
                self.current = None;
                return;
            };
            self.current = records.next();
            if self.current.is_some() {
                return;
            }
            self.open(self.place + 1);
        }
    }

    fn open(&mut self, place: usize) {
        self.place = place;
        self.records = self.thread.chunk(place).map(|chunk| chunk.read());
    }
}
