// SPDX-License-Identifier: Apache-2.0
//! Maps by our own 64-bit ids.
//!
//! The ids are counters or hashes made by the kernel side, never chosen by anybody outside, so one
//! multiplication (Fibonacci hashing, Knuth, TAOCP 6.4) spreads them well enough and costs a tenth
//! of the default hash. Each event looks up several.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;

/// A map by an id.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// 2^64 divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads one or a few integers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(GOLDEN);
    }

    fn finish(&self) -> u64 {
        // The map takes its place from the low bits, which the product mixes least.
        self.0 ^ (self.0 >> 32)
    }
}
