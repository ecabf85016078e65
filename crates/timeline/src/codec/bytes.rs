// SPDX-License-Identifier: Apache-2.0
//! Bytes and variable-length integers (LEB128, as in DWARF), written and read.
//!
//! Seven bits a byte, least significant first; signed numbers are folded so that small ones of
//! either sign stay small.

/// Appends to a chunk.
pub(super) struct Writer<'b> {
    pub(super) bytes: &'b mut Vec<u8>,
}

impl Writer<'_> {
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A difference of two instants, which may be negative.
    pub(super) fn difference(&mut self, from: u64, to: u64) {
        let value = to.wrapping_sub(from) as i64;
        self.number(((value << 1) ^ (value >> 63)) as u64);
    }

    /// A 64-bit id, which no coding makes shorter.
    pub(super) fn word(&mut self, word: u64) {
        self.bytes.extend_from_slice(&word.to_le_bytes());
    }
}

/// Reads what a [`Writer`] wrote; `None` where the bytes end.
pub(super) struct Reader<'r, 'b> {
    pub(super) bytes: &'r mut &'b [u8],
}

impl Reader<'_, '_> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        *self.bytes = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
            if shift >= 64 {
                return None;
            }
        }
    }

    /// The instant whose difference from `from` was written.
    pub(super) fn difference(&mut self, from: u64) -> Option<u64> {
        let folded = self.number()?;
        let value = (folded >> 1) as i64 ^ -((folded & 1) as i64);
        Some(from.wrapping_add(value as u64))
    }

    pub(super) fn word(&mut self) -> Option<u64> {
        let (first, rest) = self.bytes.split_first_chunk::<8>()?;
        *self.bytes = rest;
        Some(u64::from_le_bytes(*first))
    }
}
