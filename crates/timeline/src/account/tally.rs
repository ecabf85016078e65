// SPDX-License-Identifier: Apache-2.0
//! Summing segments into shares.

use crate::account::EVIDENCE_MAX;
use crate::event::Ns;

/// Adds to an item of a list of sums, which is made where it is missing.
pub(super) fn add_largest<T: Copy + PartialEq>(list: &mut Vec<(T, Ns)>, item: T, ns: Ns) {
    match list.iter_mut().find(|known| known.0 == item) {
        Some(known) => known.1 += ns,
        None => list.push((item, ns)),
    }
}

/// Sorts a list of sums, largest first, and cuts it to [`EVIDENCE_MAX`].
pub(super) fn keep_largest<T>(list: &mut Vec<(T, Ns)>) {
    list.sort_by_key(|item| std::cmp::Reverse(item.1));
    list.truncate(EVIDENCE_MAX);
}
