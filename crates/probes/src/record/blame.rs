// SPDX-License-Identifier: Apache-2.0
//! Who ran instead: the slices of the occupancy ring, summed by thread.

use crate::skel::types::long_record;
use crate::skel::types::record_slice;
use crate::skel::types::special_id;
use lacuna_timeline::event::Blame;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::ThreadId;

/// How many culprits are named.
const CULPRITS_MAX: usize = 4;

/// The largest four by name, the others as one sum. A stretch of the idle task is nobody's, so no
/// thread covers it.
pub(super) fn told(record: &long_record, more: &[record_slice]) -> Blame {
    let mut uncovered_ns = record.uncovered_ns;
    let mut sums: Vec<(ThreadId, Ns)> = Vec::new();
    for slice in record.slices.iter().chain(more).filter(|it| it.ns != 0) {
        if slice.thread < u64::from(special_id::ID_THREADS.0) {
            uncovered_ns = uncovered_ns.saturating_add(slice.ns);
            continue;
        }
        let thread = ThreadId(slice.thread);
        match sums.iter_mut().find(|(known, _)| *known == thread) {
            Some((_, ns)) => *ns = ns.saturating_add(slice.ns),
            None => sums.push((thread, slice.ns)),
        }
    }
    sums.sort_by_key(|&(thread, ns)| (std::cmp::Reverse(ns), thread));
    let others = sums.split_off(sums.len().min(CULPRITS_MAX));
    Blame {
        culprits: sums,
        rest_ns: others
            .iter()
            .fold(0, |sum: Ns, (_, ns)| sum.saturating_add(*ns)),
        uncovered_ns,
    }
}
