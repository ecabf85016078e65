// SPDX-License-Identifier: Apache-2.0
//! Evidence under way: what waits were seen by, summed up.

use super::EVIDENCE_MAX;
use super::Evidence;
use super::NetEvidence;
use super::sums::Sums;
use crate::cause::Aspect;
use crate::cause::Cause;
use crate::event::Call;
use crate::event::Connection;
use crate::event::Dropped;
use crate::event::Entry;
use crate::event::Ns;
use crate::event::ObjectId;
use crate::event::Retransmits;
use crate::event::StackId;
use crate::event::Waker;
use crate::record::OffCpu;
use crate::record::Told;
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
    net: NetSeenBy,
}

/// What waits for connections show.
#[derive(Debug, Default)]
struct NetSeenBy {
    aspects: Sums<Aspect>,
    seen: NetEvidence,
    /// When the wait began that was counted last: its pieces follow each other.
    counted: Option<Ns>,
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
    }

    /// What is known only of a wait with its position.
    pub(super) fn off_cpu(&mut self, off: &OffCpu, ns: Ns) {
        if let Some(stacked) = off.stack {
            self.stacks.add(stacked.stack, ns);
        }
        self.wakers.add(off.waker, ns);
    }

    /// What is known only of a wait for a connection. What was sent again or dropped is counted once for
    /// each wait, and only where it took the time.
    pub(super) fn connection(&mut self, part: &BlockedPart<'_>, ns: Ns) {
        let net = &mut self.net;
        if let Some(aspect) = part.aspect {
            net.aspects.add(aspect, ns);
        }
        let Told::Seen(seen) = &part.off.net else {
            return;
        };
        net.seen.srtt_ns = net.seen.srtt_ns.max(seen.srtt_ns);
        net.seen.rto_ns = net.seen.rto_ns.max(seen.rto_ns);
        let took = matches!(part.cause, Cause::NetRetransmit | Cause::NetConnect);
        if took && net.counted.replace(part.began) != Some(part.began) {
            net.seen.count(seen);
        }
    }

    /// The largest of each.
    pub(super) fn finish(self, throttled: u64) -> Evidence {
        Evidence {
            calls: self.calls.into_largest(EVIDENCE_MAX),
            objects: self.objects.into_largest(EVIDENCE_MAX),
            stacks: self.stacks.into_largest(EVIDENCE_MAX),
            futexes: self.futexes.into_largest(EVIDENCE_MAX),
            wakers: self.wakers.into_largest(EVIDENCE_MAX),
            net: NetEvidence {
                aspects: self.net.aspects.into_largest(EVIDENCE_MAX),
                ..self.net.seen
            },
            throttled,
        }
    }
}

impl NetEvidence {
    /// Counts what was sent again and what was dropped in a wait.
    fn count(&mut self, seen: &Connection) {
        let Retransmits {
            timeouts,
            probes,
            fast,
        } = seen.retransmits;
        self.timeouts += u64::from(timeouts);
        self.probes += u64::from(probes);
        self.fast += u64::from(fast);
        if let Some(dropped) = seen.dropped {
            self.add_drop(dropped);
        }
    }

    /// Adds other evidence.
    pub(super) fn add(&mut self, other: &NetEvidence) {
        merge(&mut self.aspects, &other.aspects);
        self.timeouts = self.timeouts.saturating_add(other.timeouts);
        self.probes = self.probes.saturating_add(other.probes);
        self.fast = self.fast.saturating_add(other.fast);
        self.srtt_ns = self.srtt_ns.max(other.srtt_ns);
        self.rto_ns = self.rto_ns.max(other.rto_ns);
        for dropped in &other.drops {
            self.add_drop(*dropped);
        }
    }

    /// Adds drops to those of the same place; at most [`EVIDENCE_MAX`] places, the first.
    fn add_drop(&mut self, new: Dropped) {
        let place = |dropped: &Dropped| (dropped.reason, dropped.ifindex, dropped.netns);
        for known in &mut self.drops {
            if place(known) == place(&new) {
                known.count = known.count.saturating_add(new.count);
                return;
            }
        }
        if self.drops.len() < EVIDENCE_MAX {
            self.drops.push(new);
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
