// SPDX-License-Identifier: Apache-2.0
//! What befell a TCP connection, as evidence and in the few words that stand behind its name.

use lacuna_timeline::Cause;
use lacuna_timeline::account::NetEvidence;
use lacuna_timeline::cause::Aspect;
use lacuna_timeline::event;
use lacuna_timeline::event::DropReason;

use crate::answer::ConnectionEvidence;
use crate::answer::Culprit;
use crate::answer::Dropped;
use crate::answer::Peer;
use crate::answer::Retransmits;

use super::Names;

/// The evidence of one connection.
pub(super) fn evidence(seen: &NetEvidence, names: &Names<'_>) -> ConnectionEvidence {
    let (local, remote, netns) = names.ends(seen.connection);
    let aspects = seen.aspects.iter();
    let ours = seen.drops.iter().map(|one| dropped(one, false));
    let incoming = seen.peer_drops.iter().map(|one| dropped(one, true));
    ConnectionEvidence {
        local,
        remote,
        netns,
        ns: seen.ns,
        aspects: aspects
            .map(|&(aspect, ns)| (aspect.name().to_owned(), ns))
            .collect(),
        retransmits: Retransmits {
            timeouts: seen.timeouts,
            probes: seen.probes,
            fast: seen.fast,
        },
        dropped: ours.chain(incoming).collect(),
        srtt_ns: seen.srtt_ns,
        rto_ns: seen.rto_ns,
        shared_connection: seen.shared,
        peer: peer(seen, names),
    }
}

fn dropped(dropped: &event::Dropped, incoming: bool) -> Dropped {
    Dropped {
        count: dropped.count.into(),
        incoming,
        reason: dropped.reason.name().to_owned(),
        ifindex: dropped.ifindex,
        netns: dropped.netns,
        device: dropped.device.text(),
    }
}

/// A connection that is to blame, with who is at its other end and what befell it.
pub(super) fn blamed(
    culprit: Culprit,
    cause: Cause,
    seen: &NetEvidence,
    names: &Names<'_>,
) -> Culprit {
    let detail = words(cause, seen).join(", ");
    match peer(seen, names) {
        Some(peer) => Culprit {
            pid: peer.pid,
            tid: peer.tid,
            process: peer.comm,
            detail,
            ..culprit
        },
        None => Culprit { detail, ..culprit },
    }
}

/// The thread at the other end, where it is known still.
fn peer(seen: &NetEvidence, names: &Names<'_>) -> Option<Peer> {
    let (tid, pid, comm) = names.thread(seen.peer?);
    (tid != 0).then_some(Peer { tid, pid, comm })
}

/// What there is to say of a connection, by the cause that it is blamed for.
fn words(cause: Cause, seen: &NetEvidence) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let kinds = [
        (seen.timeouts, "RTO"),
        (seen.probes, "probe"),
        (seen.fast, "fast retransmit"),
    ];
    let sent_again = kinds.into_iter().filter(|kind| kind.0 > 0);
    words.extend(sent_again.map(|(count, kind)| format!("{kind} x{count}")));
    let places =
        |drops: &[event::Dropped]| -> Vec<String> { drops.iter().filter_map(place).collect() };
    for (aspect, words_of) in seen
        .aspects
        .iter()
        .filter_map(|&(aspect, _)| Some((aspect, in_words(aspect)?)))
    {
        let places = match aspect {
            Aspect::DroppedOut => places(&seen.drops),
            Aspect::DroppedIn => places(&seen.peer_drops),
            _ => Vec::new(),
        };
        words.push(match places.is_empty() {
            true => words_of.to_owned(),
            false => format!("{words_of} {}", places.join(" and ")),
        });
    }
    match cause {
        Cause::NetNagle if seen.aspects.is_empty() => words.push("TCP_NODELAY is not set".into()),
        Cause::NetAck if seen.srtt_ns > 0 => words.push(round_trip(seen.srtt_ns)),
        _ => {}
    }
    words
}

/// An aspect in words; a peer on this host is named, not described.
fn in_words(aspect: Aspect) -> Option<&'static str> {
    Some(match aspect {
        Aspect::LostOut => "lost on the way out",
        Aspect::DroppedOut => "dropped on this host",
        Aspect::LostIn => "lost on the way in",
        Aspect::DroppedIn => "dropped on this host on the way in",
        Aspect::Window => "the peer's window is closed",
        Aspect::Congestion => "congestion window",
        Aspect::Corked => "held back by TCP_CORK or MSG_MORE",
        Aspect::Pacing => "pacing or the send buffer",
        Aspect::PeerHere => return None,
        Aspect::PeerElsewhere => "the peer, or the way back",
        Aspect::SpokeHere => "the peer spoke last, perhaps not all",
        Aspect::SpokeElsewhere => "the peer, which spoke last, or the way back",
        Aspect::NotKnown => "connection state not known",
    })
}

/// Where on this host segments were dropped: "by netfilter at eth0 of network namespace 4026532200".
fn place(dropped: &event::Dropped) -> Option<String> {
    let by = match dropped.reason {
        DropReason::NotSaid => None,
        DropReason::Qdisc => Some("by the queueing discipline"),
        DropReason::TcOut => Some("by tc on the way out"),
        DropReason::TcIn => Some("by tc on the way in"),
        DropReason::Netfilter => Some("by netfilter"),
        DropReason::Device => Some("by the device"),
        DropReason::Bpf => Some("by a BPF program or a security hook"),
        DropReason::Neighbour => Some("for want of a hardware address"),
        DropReason::Route => Some("for want of a route"),
        DropReason::Receiver => Some("by a full receive buffer"),
        DropReason::Checksum => Some("for its checksum"),
        DropReason::Memory => Some("for want of memory"),
    };
    let device = match dropped.device.text() {
        name if name.is_empty() => format!("device {}", dropped.ifindex),
        name => name,
    };
    let at = match (dropped.ifindex, dropped.netns) {
        (0, _) => None,
        (_, 0) => Some(format!("at {device}")),
        (_, netns) => Some(format!("at {device} of network namespace {netns}")),
    };
    let words: Vec<String> = by.map(str::to_owned).into_iter().chain(at).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// "round trip 0.4 ms"; the kernel measures it in microseconds.
fn round_trip(ns: u64) -> String {
    let us = ns / 1_000;
    match us {
        0..1_000 => format!("round trip {us} us"),
        _ => format!("round trip {}.{} ms", us / 1_000, us % 1_000 / 100),
    }
}

#[cfg(test)]
mod tests;
