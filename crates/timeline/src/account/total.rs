// SPDX-License-Identifier: Apache-2.0
//! Adding accounts up: over the threads of a process, and time that no record can speak of.
//!
//! A total keeps the sums and the largest culprits; episodes and chains belong to one thread and
//! stay there. The identities of an account hold for a total as well.

use super::Account;
use super::CULPRITS_MAX;
use super::Culprit;
use super::Evidence;
use super::Reason;
use super::Share;
use super::Who;
use super::evidence::add_largest;
use super::evidence::merge;
use super::net;
use crate::cause::Cause;
use crate::event::Ns;

impl Account {
    /// Adds time of which nothing is known, e.g. a suspend that the clock of the records left out.
    pub fn add_unknown(&mut self, ns: Ns, reason: Reason) {
        if ns == 0 {
            return;
        }
        self.wall_ns = self.wall_ns.saturating_add(ns);
        let share = self.share_mut(Cause::Unknown);
        share.ns = share.ns.saturating_add(ns);
        share.count += 1;
        add_largest(&mut share.reasons, reason, ns);
        share
            .reasons
            .sort_by_key(|&(reason, ns)| (std::cmp::Reverse(ns), reason));
    }

    /// Adds the account of other windows or of another thread to this one.
    pub fn add(&mut self, other: &Account) {
        self.wall_ns = self.wall_ns.saturating_add(other.wall_ns);
        self.blur_ns = self.blur_ns.saturating_add(other.blur_ns);
        self.lost_records = self.lost_records.saturating_add(other.lost_records);
        self.counts.voluntary = self.counts.voluntary.saturating_add(other.counts.voluntary);
        self.counts.involuntary = self
            .counts
            .involuntary
            .saturating_add(other.counts.involuntary);
        self.counts.migrations = self
            .counts
            .migrations
            .saturating_add(other.counts.migrations);
        self.counts.faults.minor = add_u32(self.counts.faults.minor, other.counts.faults.minor);
        self.counts.faults.major = add_u32(self.counts.faults.major, other.counts.faults.major);
        for share in &other.shares {
            self.share_mut(share.cause).add(share);
        }
    }

    /// The share of a cause, made where it is missing.
    fn share_mut(&mut self, cause: Cause) -> &mut Share {
        let at = self.shares.partition_point(|share| share.cause < cause);
        if self.shares.get(at).is_none_or(|share| share.cause != cause) {
            self.shares.insert(at, Share::empty(cause));
        }
        &mut self.shares[at]
    }
}

impl Share {
    /// A share without time.
    pub(super) fn empty(cause: Cause) -> Share {
        Share {
            cause,
            ns: 0,
            count: 0,
            running_ns: 0,
            runnable_ns: 0,
            blocked_ns: 0,
            estimated_ns: 0,
            culprits: Vec::new(),
            evidence: Evidence::default(),
            chain: Vec::new(),
            reasons: Vec::new(),
        }
    }

    /// Adds another share of the same cause.
    fn add(&mut self, other: &Share) {
        self.ns = self.ns.saturating_add(other.ns);
        self.count = self.count.saturating_add(other.count);
        self.running_ns = self.running_ns.saturating_add(other.running_ns);
        self.runnable_ns = self.runnable_ns.saturating_add(other.runnable_ns);
        self.blocked_ns = self.blocked_ns.saturating_add(other.blocked_ns);
        self.estimated_ns = self.estimated_ns.saturating_add(other.estimated_ns);
        for culprit in &other.culprits {
            add_culprit(&mut self.culprits, *culprit);
        }
        finish_culprits(&mut self.culprits);
        self.evidence.add(&other.evidence);
        for &(reason, ns) in &other.reasons {
            add_largest(&mut self.reasons, reason, ns);
        }
        self.reasons
            .sort_by_key(|&(reason, ns)| (std::cmp::Reverse(ns), reason));
    }
}

impl Evidence {
    /// Adds other evidence and keeps the largest.
    fn add(&mut self, other: &Evidence) {
        merge(&mut self.calls, &other.calls);
        merge(&mut self.objects, &other.objects);
        merge(&mut self.stacks, &other.stacks);
        merge(&mut self.futexes, &other.futexes);
        merge(&mut self.wakers, &other.wakers);
        net::add(&mut self.connections, &other.connections);
        merge(&mut self.polled, &other.polled);
        self.throttled += other.throttled;
    }
}

/// Adds a culprit's time to its entry.
pub(super) fn add_culprit(list: &mut Vec<Culprit>, culprit: Culprit) {
    if culprit.ns == 0 {
        return;
    }
    match list.iter_mut().find(|known| known.who == culprit.who) {
        Some(known) => known.ns = known.ns.saturating_add(culprit.ns),
        None => list.push(culprit),
    }
}

/// Sorts culprits, largest first, those without a name last, and folds what is beyond the limit
/// into [`Who::Rest`] so that their sum stays.
pub(super) fn finish_culprits(list: &mut Vec<Culprit>) {
    sort_culprits(list);
    let named = list.iter().filter(|culprit| culprit.who.is_named()).count();
    if named <= CULPRITS_MAX {
        return;
    }
    let folded: Ns = list[CULPRITS_MAX..named]
        .iter()
        .map(|culprit| culprit.ns)
        .sum();
    list.drain(CULPRITS_MAX..named);
    add_culprit(
        list,
        Culprit {
            who: Who::Rest,
            ns: folded,
        },
    );
    sort_culprits(list);
}

/// Named ones first, then by size.
fn sort_culprits(list: &mut [Culprit]) {
    list.sort_by_key(|culprit| {
        (
            !culprit.who.is_named(),
            std::cmp::Reverse(culprit.ns),
            culprit.who,
        )
    });
}

impl Who {
    /// It is somebody or something in particular.
    pub(crate) fn is_named(self) -> bool {
        matches!(self, Who::Thread(_) | Who::Object(_) | Who::Cgroup(_))
    }
}

/// Counters of faults stop at their largest value.
pub(super) fn add_u32(a: u32, b: u32) -> u32 {
    a.saturating_add(b)
}
