// SPDX-License-Identifier: Apache-2.0
//! Evidence under way: what waits were seen by, summed up.

use super::EVIDENCE_MAX;
use super::Evidence;
use super::net::Connections;
use super::sums::Sums;
use crate::event::Call;
use crate::event::Entry;
use crate::event::Ns;
use crate::event::ObjectId;
use crate::event::Polled;
use crate::event::StackId;
use crate::event::Waker;
use crate::record::OffCpu;
use crate::record::Waited;
use crate::segment::BlockedPart;

/// Evidence under way.
#[derive(Debug, Default)]
pub(super) struct SeenBy {
    calls: Sums<Call>,
    objects: Sums<ObjectId>,
    stacks: Sums<StackId>,
    futexes: Sums<u64>,
    wakers: Sums<Waker>,
    polled: Sums<Polled>,
    connections: Connections,
}

impl SeenBy {
    /// What a wait shows.
    pub(super) fn wait(&mut self, wait: &Waited, ns: Ns) {
        if let Entry::Call(call) = wait.entry {
            self.calls.add(call, ns);
        }
        if let Some(pointed) = wait.object {
            self.objects.add(pointed.object, ns);
        }
        if let Some(word) = wait.futex {
            self.futexes.add(word.address_hash, ns);
        }
        if wait.polled != Polled::No {
            self.polled.add(wait.polled, ns);
        }
    }

    /// What is known only of a wait with its position.
    pub(super) fn off_cpu(&mut self, off: &OffCpu, ns: Ns) {
        if let Some(stacked) = off.stack {
            self.stacks.add(stacked.stack, ns);
        }
        self.wakers.add(off.waker, ns);
    }

    /// What is known only of a wait for a connection.
    pub(super) fn connection(&mut self, part: &BlockedPart<'_>, ns: Ns) {
        self.connections.add(part, ns);
    }

    /// The largest of each.
    pub(super) fn finish(self, throttled: u64) -> Evidence {
        Evidence {
            calls: self.calls.into_largest(EVIDENCE_MAX),
            objects: self.objects.into_largest(EVIDENCE_MAX),
            stacks: self.stacks.into_largest(EVIDENCE_MAX),
            futexes: self.futexes.into_largest(EVIDENCE_MAX),
            wakers: self.wakers.into_largest(EVIDENCE_MAX),
            polled: self.polled.into_largest(EVIDENCE_MAX),
            connections: self.connections.finish(),
            throttled,
        }
    }
}

/// Merges one list of evidence into another.
pub(super) fn merge<T: Copy + PartialEq>(into: &mut Vec<(T, Ns)>, from: &[(T, Ns)]) {
    for &(item, ns) in from {
        add_largest(into, item, ns);
    }
    keep_largest(into);
}

/// Adds to an item of a list of sums, which is made where it is missing.
pub(super) fn add_largest<T: Copy + PartialEq>(list: &mut Vec<(T, Ns)>, item: T, ns: Ns) {
    match list.iter_mut().find(|known| known.0 == item) {
        Some(known) => known.1 = known.1.saturating_add(ns),
        None => list.push((item, ns)),
    }
}

/// Sorts a list of sums, largest first, and cuts it to [`EVIDENCE_MAX`].
fn keep_largest<T>(list: &mut Vec<(T, Ns)>) {
    list.sort_by_key(|item| std::cmp::Reverse(item.1));
    list.truncate(EVIDENCE_MAX);
}
