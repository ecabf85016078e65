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
#[derive(Debug)]
pub(crate) struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    /// At the first of these.
    pub(crate) fn new(bytes: &'b [u8]) -> Reader<'b> {
        Reader { bytes }
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    /// Lengths follow no pattern that a processor could guess, and each wrong guess costs as much as
    /// reading ten bytes; so up to eight bytes are taken at once, and longer numbers one by one.
    #[inline]
    pub(super) fn number(&mut self) -> Option<u64> {
        const LAST: u64 = 0x8080_8080_8080_8080;
        let Some(eight) = self.bytes.first_chunk::<8>() else {
            return self.long_number();
        };
        let eight = u64::from_le_bytes(*eight);
        let ends = !eight & LAST;
        if ends == 0 {
            return self.long_number();
        }
        // All bits below the mark of the last byte, less the marks of the others.
        let bits = eight & (ends ^ (ends - 1)) & !LAST;
        self.bytes = &self.bytes[ends.trailing_zeros() as usize / 8 + 1..];
        // Seven bits of each byte, moved together: by pairs, by fours, by eights.
        let pairs = (bits & 0x007f_007f_007f_007f) | (bits & 0x7f00_7f00_7f00_7f00) >> 1;
        let fours = (pairs & 0x0000_3fff_0000_3fff) | (pairs & 0x3fff_0000_3fff_0000) >> 2;
        Some((fours & 0x0fff_ffff) | (fours & 0x0fff_ffff_0000_0000) >> 4)
    }

    /// A number of nine or ten bytes, or one near the end.
    fn long_number(&mut self) -> Option<u64> {
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
        self.bytes = rest;
        Some(u64::from_le_bytes(*first))
    }
}
