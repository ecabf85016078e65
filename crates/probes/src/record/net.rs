// SPDX-License-Identifier: Apache-2.0
//! What a connection was like in a wait: two rings of phases and a sample become one list of phases.
//!
//! The rings were copied while others may have written to them, so what may be torn is left out. What
//! the own end saw replaces all that held before; what the other end saw replaces only what it can know.

use crate::skel::types::net_drops;
use crate::skel::types::net_phase;
use crate::skel::types::net_record;
use crate::skel::types::net_resent;
use crate::skel::types::net_state;
use crate::skel::types::record_limits;
use lacuna_timeline::event::Connection;
use lacuna_timeline::event::DeviceName;
use lacuna_timeline::event::DropReason;
use lacuna_timeline::event::Dropped;
use lacuna_timeline::event::Net;
use lacuna_timeline::event::NetState;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::ObjectId;
use lacuna_timeline::event::PHASES_MAX;
use lacuna_timeline::event::Phase;
use lacuna_timeline::event::Retransmits;
use lacuna_timeline::event::ThreadId;

/// What `since_us` is where it is not known (`NET_SINCE_UNKNOWN` of record.h).
const SINCE_UNKNOWN: u32 = u32::MAX;
/// Bits that a phase of the mirror ring decides.
const MIRRORED: u32 = net_state::NET_ARRIVED.0 | net_state::NET_PEER_LOST.0 | net_state::NET_HERE.0;
/// Bits that speak of bytes not sent yet; they are the own end's, and as old as its last phase.
const UNSENT: u32 = net_state::NET_UNSENT.0
    | net_state::NET_NAGLE.0
    | net_state::NET_CORKED.0
    | net_state::NET_WINDOW.0
    | net_state::NET_CWND.0;
const OWN: usize = record_limits::NET_OWN.0 as usize;
const MIRROR: usize = record_limits::NET_MIRROR.0 as usize;

/// A phase, and which ring it is of.
#[derive(Clone, Copy)]
struct Seen {
    phase: Phase,
    mirrored: bool,
}

/// What is in a ring.
struct Ring {
    /// Oldest first.
    seen: Vec<Seen>,
    /// There were older ones.
    overwritten: bool,
}

pub(super) fn told(record: &net_record) -> Net {
    let known = |id: u64| (id != 0).then_some(ThreadId(id));
    let (phases, cut) = phases(record);
    Net {
        thread: ThreadId(record.header.id),
        seq: record.seq,
        connection: ObjectId(record.object),
        seen: Connection {
            accepted: record.accepted != 0,
            reader: known(record.reader),
            peer_thread: known(record.peer_reader),
            srtt_ns: microseconds(record.srtt_us),
            rtt_min_ns: microseconds(record.rtt_min_us),
            rto_ns: microseconds(record.rto_us),
            retransmits: retransmits(record),
            dropped: dropped(&record.dropped, record.out, NetState::DROPPED, &phases),
            peer_dropped: dropped(
                &record.peer_dropped,
                record.out,
                NetState::PEER_DROPPED,
                &phases,
            ),
            cut,
            phases,
        },
    }
}

fn microseconds(us: u32) -> Ns {
    Ns::from(us) * 1000
}

fn counted(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// The counts are since the connection's last record; they belong to this wait if the latest does.
fn retransmits(record: &net_record) -> Retransmits {
    if record.resent_at < record.out {
        return Retransmits::default();
    }
    let of = |kind: net_resent| {
        record
            .resent
            .get(kind.0 as usize)
            .map_or(0, |&n| counted(n))
    };
    Retransmits {
        timeouts: of(net_resent::RESENT_TIMEOUT),
        probes: of(net_resent::RESENT_PROBE),
        fast: of(net_resent::RESENT_FAST),
    }
}

/// They also belong to it if the latest was before it, as the program wrote, and nothing was done about it
/// until the wait began.
fn dropped(drops: &net_drops, out: Ns, state: NetState, phases: &[Phase]) -> Option<Dropped> {
    // Instants of drops are told in microseconds.
    let is_latest = |since: Ns| since <= drops.at.saturating_add(999);
    let mut of_drops = phases.iter().filter(|one| one.state.has(state));
    let in_force = of_drops.any(|phase| phase.since.is_some_and(is_latest));
    let is_of_wait = drops.at >= out || in_force;
    (is_of_wait && drops.count > 0).then(|| Dropped {
        count: counted(drops.count),
        reason: DropReason::of(counted(drops.kind)),
        ifindex: drops.ifindex,
        netns: drops.netns,
        device: DeviceName(drops.device),
    })
}

fn seen(phase: &net_phase, mirrored: bool) -> Seen {
    let ago = (phase.since_us != SINCE_UNKNOWN).then(|| microseconds(phase.since_us));
    Seen {
        phase: Phase {
            at: phase.at,
            since: ago
                .and_then(|ago| phase.at.checked_sub(ago))
                .filter(|&at| at > 0),
            state: NetState(phase.state),
        },
        mirrored,
    }
}

/// What was there before the copy, without what may have been written to meanwhile; the place after the
/// latest may hold half of the next. The counts wrap around; a place that was never used is zero.
fn ring(places: &[net_phase], before: u32, after: u32, mirrored: bool) -> Ring {
    let length = places.len() as u32;
    let kept = (length - 1).saturating_sub(after.wrapping_sub(before));
    let back = |turns: u32| {
        let place = before.wrapping_sub(turns) % length;
        places.get(place as usize).filter(|phase| phase.at > 0)
    };
    Ring {
        seen: (1..=kept)
            .rev()
            .filter_map(|turns| Some(seen(back(turns)?, mirrored)))
            .collect(),
        overwritten: back(kept + 1).is_some(),
    }
}

/// The latest before `out`, and all after it; whether one that was overwritten may lie between.
fn from_out(ring: Ring, out: Ns) -> (Vec<Seen>, bool) {
    let first_after = ring.seen.partition_point(|seen| seen.phase.at <= out);
    let missing = first_after == 0 && ring.overwritten;
    let first = first_after.saturating_sub(1);
    (ring.seen.get(first..).unwrap_or_default().to_vec(), missing)
}

/// All that is known of the wait, oldest first; whether something before the first is missing.
fn phases(record: &net_record) -> (Vec<Phase>, bool) {
    let own = ring(&record.own, record.own_before, record.own_after, false);
    let mirror = ring(
        &record.mirror,
        record.mirror_before,
        record.mirror_after,
        true,
    );
    let (own, own_missing) = from_out(own, record.out);
    let (mirror, mirror_missing) = from_out(mirror, record.out);
    let mut all: Vec<Seen> = own.into_iter().chain(mirror).collect();
    if record.sample.at > 0 {
        let sample = seen(&record.sample, false);
        // It was made of all that was known before it.
        all.retain(|seen| seen.phase.at > sample.phase.at);
        all.push(sample);
    }
    all.sort_by_key(|seen| seen.phase.at);
    let mut merged = merge(&all);
    let own_known = merged.first().is_some_and(|phase| phase.at <= record.out);
    let mut cut = !own_known || own_missing || mirror_missing;
    if merged.len() > PHASES_MAX {
        merged.drain(..merged.len() - PHASES_MAX);
        cut = true;
    }
    (merged, cut)
}

/// One list: each phase has what is the newest of both rings. What the mirror says before the own end said
/// anything is left out. Where all had arrived, and then more arrives or not all has arrived any more though
/// no flight began, bytes have joined those that were not acknowledged yet.
fn merge(all: &[Seen]) -> Vec<Phase> {
    let mut merged: Vec<Phase> = Vec::with_capacity(all.len());
    for seen in all {
        let mut phase = seen.phase;
        if seen.mirrored {
            let Some(last) = merged.last() else { continue };
            // Late was that phase, not this one.
            let known = last.state.without(NetState::LATE.with(NetState::JOINED));
            // Everything that was written has arrived: so none of it is unsent any more.
            let old = match phase.state.has(NetState::ARRIVED) {
                true => known.0 & !UNSENT,
                false => known.0,
            };
            let mut state = NetState(old & !MIRRORED | phase.state.0 & MIRRORED);
            if known.has(NetState::ARRIVED) && phase.state.has(NetState::ARRIVED) {
                state = state.with(NetState::JOINED);
            }
            if state == known {
                continue;
            }
            if state.since_bit() != phase.state.since_bit() {
                phase.since = last
                    .since
                    .filter(|_| state.since_bit() == last.state.since_bit());
            }
            phase.state = state;
        } else if merged
            .last()
            .is_some_and(|last| joins(last.state, phase.state))
        {
            phase.state = phase.state.with(NetState::JOINED);
        }
        merged.push(phase);
    }
    merged
}

/// Whether bytes were written between two phases while others, which had arrived, were not acknowledged.
fn joins(last: NetState, next: NetState) -> bool {
    let unacked = last.has(NetState::UNACKED) && next.has(NetState::UNACKED);
    unacked && last.has(NetState::ARRIVED) && !next.has(NetState::ARRIVED)
}

const _: () = assert!(OWN.is_power_of_two() && MIRROR.is_power_of_two());

#[cfg(test)]
mod tests;
