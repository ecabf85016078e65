// SPDX-License-Identifier: Apache-2.0
//! What waits for TCP connections were seen by, for each connection.

use std::cmp::Reverse;

use super::EVIDENCE_MAX;
use super::evidence::merge;
use crate::cause::Aspect;
use crate::cause::Cause;
use crate::event::Connection;
use crate::event::Dropped;
use crate::event::Ns;
use crate::event::ObjectId;
use crate::event::Retransmits;
use crate::event::ThreadId;
use crate::record::Told;
use crate::recorder::IdMap;
use crate::segment::BlockedPart;

/// How many connections are told apart while a share is summed up; of later ones nothing is said.
const HELD_MAX: usize = 256;

/// What a share of waits for one connection was seen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetEvidence {
    /// Which connection.
    pub connection: ObjectId,
    /// How much of the share it had.
    pub ns: Ns,
    /// More than the cause says, largest first.
    pub aspects: Vec<(Aspect, Ns)>,
    /// The thread at the other end, where that is here and known.
    pub peer: Option<ThreadId>,
    /// Another thread had waited for it before: what was asked last may be that one's.
    pub shared: bool,
    /// Segments sent again because the retransmission timer ran out; this and the next three only where
    /// the time is a retransmission's or a connecting's.
    pub timeouts: u64,
    /// Probes: of a lost tail, of a closed window, of what could not be sent.
    pub probes: u64,
    /// Segments sent again because acknowledgements told so.
    pub fast: u64,
    /// Segments of this end that this host dropped, by place and reason; at most [`EVIDENCE_MAX`].
    pub drops: Vec<Dropped>,
    /// The same of the other end.
    pub peer_drops: Vec<Dropped>,
    /// The largest smoothed round trip; 0: not measured.
    pub srtt_ns: Ns,
    /// The largest retransmission timeout; 0: not known.
    pub rto_ns: Ns,
}

/// Connections of a share under way.
#[derive(Debug, Default)]
pub(super) struct Connections(IdMap<ObjectId, Held>);

/// One of them.
#[derive(Debug)]
struct Held {
    seen: NetEvidence,
    /// When the wait began whose retransmissions were counted last: the pieces of a wait follow each other.
    counted: Option<Ns>,
}

impl Connections {
    /// A part of a wait. What was sent again or dropped is counted once for each wait, and only where it
    /// took the time.
    pub(super) fn add(&mut self, part: &BlockedPart<'_>, ns: Ns) {
        let told = match &part.off.net {
            Told::Seen(told) => Some(told),
            Told::Nothing | Told::Missing => None,
        };
        let Some(pointed) = part.off.wait.object else {
            return;
        };
        let is_new = !self.0.contains_key(&pointed.object);
        if (told.is_none() && part.aspect.is_none()) || is_new && self.0.len() == HELD_MAX {
            return;
        }
        let held = self.0.entry(pointed.object).or_insert_with(|| Held {
            seen: NetEvidence::of(pointed.object),
            counted: None,
        });
        held.seen.ns += ns;
        if let Some(aspect) = part.aspect {
            merge(&mut held.seen.aspects, &[(aspect, ns)]);
        }
        if let Some(told) = told {
            held.seen.shared |= told.reader.is_some_and(|reader| reader != part.waiter);
            let took = matches!(part.cause, Cause::NetRetransmit | Cause::NetConnect);
            let count = took && held.counted.replace(part.began) != Some(part.began);
            held.seen.told(told, count);
        }
    }

    /// The largest, largest first.
    pub(super) fn finish(self) -> Vec<NetEvidence> {
        let mut list: Vec<NetEvidence> = self.0.into_values().map(|held| held.seen).collect();
        keep_largest(&mut list);
        list
    }
}

/// Adds the evidence of one share to that of another.
pub(super) fn add(into: &mut Vec<NetEvidence>, from: &[NetEvidence]) {
    for other in from {
        match into
            .iter_mut()
            .find(|one| one.connection == other.connection)
        {
            Some(one) => one.add(other),
            None => into.push(other.clone()),
        }
    }
    keep_largest(into);
}

fn keep_largest(list: &mut Vec<NetEvidence>) {
    list.sort_by_key(|one| (Reverse(one.ns), one.connection));
    list.truncate(EVIDENCE_MAX);
}

impl NetEvidence {
    fn of(connection: ObjectId) -> NetEvidence {
        NetEvidence {
            connection,
            ns: 0,
            aspects: Vec::new(),
            peer: None,
            shared: false,
            timeouts: 0,
            probes: 0,
            fast: 0,
            drops: Vec::new(),
            peer_drops: Vec::new(),
            srtt_ns: 0,
            rto_ns: 0,
        }
    }

    /// What was told of it in a wait.
    fn told(&mut self, told: &Connection, count: bool) {
        self.peer = told.peer_thread.or(self.peer);
        self.srtt_ns = self.srtt_ns.max(told.srtt_ns);
        self.rto_ns = self.rto_ns.max(told.rto_ns);
        if count {
            let Retransmits {
                timeouts,
                probes,
                fast,
            } = told.retransmits;
            self.timeouts = self.timeouts.saturating_add(timeouts.into());
            self.probes = self.probes.saturating_add(probes.into());
            self.fast = self.fast.saturating_add(fast.into());
            add_drops(&mut self.drops, told.dropped.as_slice());
            add_drops(&mut self.peer_drops, told.peer_dropped.as_slice());
        }
    }

    fn add(&mut self, other: &NetEvidence) {
        self.ns = self.ns.saturating_add(other.ns);
        merge(&mut self.aspects, &other.aspects);
        self.peer = other.peer.or(self.peer);
        self.shared |= other.shared;
        self.timeouts = self.timeouts.saturating_add(other.timeouts);
        self.probes = self.probes.saturating_add(other.probes);
        self.fast = self.fast.saturating_add(other.fast);
        self.srtt_ns = self.srtt_ns.max(other.srtt_ns);
        self.rto_ns = self.rto_ns.max(other.rto_ns);
        add_drops(&mut self.drops, &other.drops);
        add_drops(&mut self.peer_drops, &other.peer_drops);
    }
}

/// Adds drops to those of the same place, whatever it was called; at most [`EVIDENCE_MAX`] places, the first.
fn add_drops(places: &mut Vec<Dropped>, others: &[Dropped]) {
    let place = |dropped: &Dropped| (dropped.reason, dropped.ifindex, dropped.netns);
    for new in others {
        let known = places.iter_mut().find(|known| place(known) == place(new));
        if let Some(known) = known {
            known.count = known.count.saturating_add(new.count);
        } else if places.len() < EVIDENCE_MAX {
            places.push(*new);
        }
    }
}
