// SPDX-License-Identifier: Apache-2.0
//! What was told of a connection as bytes: a byte of what there is, then that, then its phases, each
//! against the one before.

use super::bytes::Reader;
use super::bytes::Writer;
use super::wait::Rings;
use crate::event::Connection;
use crate::event::DeviceName;
use crate::event::DropReason;
use crate::event::Dropped;
use crate::event::NetState;
use crate::event::Ns;
use crate::event::PHASES_MAX;
use crate::event::Phase;
use crate::event::Retransmits;
use crate::event::ThreadId;
use crate::record::Told;

/// The first byte; without [`has::SEEN`] what was told is missing.
mod has {
    pub(super) const SEEN: u8 = 1;
    pub(super) const ACCEPTED: u8 = 1 << 1;
    pub(super) const CUT: u8 = 1 << 2;
    pub(super) const PEER: u8 = 1 << 3;
    pub(super) const RETRANSMITS: u8 = 1 << 4;
    pub(super) const DROPPED: u8 = 1 << 5;
    pub(super) const READER: u8 = 1 << 6;
    pub(super) const PEER_DROPPED: u8 = 1 << 7;
}

/// Writes it after a wait that began at `from`; nothing where there is nothing to tell.
pub(super) fn write(out: &mut Writer<'_>, rings: &mut Rings, from: Ns, told: &Told) {
    let seen = match told {
        Told::Nothing => return,
        Told::Missing => return out.byte(0),
        Told::Seen(seen) => seen,
    };
    out.byte(flags_of(seen));
    for ns in [seen.srtt_ns, seen.rtt_min_ns, seen.rto_ns] {
        out.number(ns);
    }
    for thread in [seen.peer_thread, seen.reader].into_iter().flatten() {
        rings.write_word(out, 0, thread.0);
    }
    if seen.retransmits != Retransmits::default() {
        let Retransmits {
            timeouts,
            probes,
            fast,
        } = seen.retransmits;
        for count in [timeouts, probes, fast] {
            out.number(count.into());
        }
    }
    for dropped in [seen.dropped, seen.peer_dropped].into_iter().flatten() {
        out.number(dropped.count.into());
        out.number(dropped.reason as u64);
        out.number(dropped.ifindex.into());
        out.number(dropped.netns.into());
        let name = dropped.device.bytes();
        out.byte(name.len() as u8);
        name.iter().for_each(|&byte| out.byte(byte));
    }
    write_phases(out, from, &seen.phases);
}

fn flags_of(seen: &Connection) -> u8 {
    let mut flags = has::SEEN;
    for (bit, on) in [
        (has::ACCEPTED, seen.accepted),
        (has::CUT, seen.cut),
        (has::PEER, seen.peer_thread.is_some()),
        (has::READER, seen.reader.is_some()),
        (has::RETRANSMITS, seen.retransmits != Retransmits::default()),
        (has::DROPPED, seen.dropped.is_some()),
        (has::PEER_DROPPED, seen.peer_dropped.is_some()),
    ] {
        flags |= if on { bit } else { 0 };
    }
    flags
}

/// How many, then each: its instant after the one before, its state with whether it says since when,
/// and that.
fn write_phases(out: &mut Writer<'_>, from: Ns, phases: &[Phase]) {
    out.byte(phases.len() as u8);
    let mut last = from;
    for phase in phases {
        out.difference(last, phase.at);
        last = phase.at;
        out.number(u64::from(phase.state.0) << 1 | u64::from(phase.since.is_some()));
        if let Some(since) = phase.since {
            out.difference(phase.at, since);
        }
    }
}

/// Reads what was told after a wait that began at `from`.
pub(super) fn read(input: &mut Reader<'_>, rings: &mut Rings, from: Ns) -> Option<Told> {
    let flags = input.byte()?;
    if flags & has::SEEN == 0 {
        return Some(Told::Missing);
    }
    let [srtt_ns, rtt_min_ns, rto_ns] = [input.number()?, input.number()?, input.number()?];
    let mut thread = |bit| match flags & bit {
        0 => Some(None),
        _ => Some(Some(ThreadId(rings.next_word(input)?))),
    };
    let peer_thread = thread(has::PEER)?;
    let reader = thread(has::READER)?;
    let mut small = || u16::try_from(input.number()?).ok();
    let retransmits = match flags & has::RETRANSMITS {
        0 => Retransmits::default(),
        _ => Retransmits {
            timeouts: small()?,
            probes: small()?,
            fast: small()?,
        },
    };
    let mut drops = |bit| match flags & bit {
        0 => Some(None),
        _ => Some(Some(read_dropped(input)?)),
    };
    let dropped = drops(has::DROPPED)?;
    let peer_dropped = drops(has::PEER_DROPPED)?;
    Some(Told::Seen(Box::new(Connection {
        accepted: flags & has::ACCEPTED != 0,
        peer_thread,
        reader,
        srtt_ns,
        rtt_min_ns,
        rto_ns,
        retransmits,
        dropped,
        peer_dropped,
        cut: flags & has::CUT != 0,
        phases: read_phases(input, from)?,
    })))
}

fn read_dropped(input: &mut Reader<'_>) -> Option<Dropped> {
    Some(Dropped {
        count: input.number()?.try_into().ok()?,
        reason: DropReason::of(input.number()?.try_into().ok()?),
        ifindex: input.number()?.try_into().ok()?,
        netns: input.number()?.try_into().ok()?,
        device: read_device(input)?,
    })
}

fn read_device(input: &mut Reader<'_>) -> Option<DeviceName> {
    let length = input.byte()?;
    let bytes = (0..length).map(|_| input.byte());
    Some(DeviceName::of(&bytes.collect::<Option<Vec<u8>>>()?))
}

fn read_phases(input: &mut Reader<'_>, from: Ns) -> Option<Vec<Phase>> {
    let count = usize::from(input.byte()?);
    if count > PHASES_MAX {
        return None;
    }
    let mut last = from;
    let mut phases = Vec::with_capacity(count);
    for _ in 0..count {
        let at = input.difference(last)?;
        last = at;
        let code = input.number()?;
        let since = match code & 1 {
            0 => None,
            _ => Some(input.difference(at)?),
        };
        let state = NetState(u32::try_from(code >> 1).ok()?);
        phases.push(Phase { at, since, state });
    }
    Some(phases)
}
