// SPDX-License-Identifier: Apache-2.0
//! What a TCP connection was like while a thread waited for it: its phases, and what was lost.
//!
//! Facts only, as the kernel's own counters of the socket and its tracepoints say them; which cause
//! a phase amounts to is decided in `cause/net.rs`.

use super::Ns;
use super::ObjectId;
use super::ThreadId;
use std::fmt;
use std::num::NonZeroU16;

/// How many phases a wait has at most; older ones are left out, and then it is `cut`.
pub const PHASES_MAX: usize = 8;

/// What a connection was like in one wait. Its [`super::Cycle`] has the same number and says that there is
/// one, so that a lost one is noticed.
#[derive(Clone, Debug, PartialEq)]
pub struct Net {
    /// Who waited.
    pub thread: ThreadId,
    /// The number of the cycle that it belongs to; it has none of its own.
    pub seq: u64,
    /// Which connection; the same object that the wait names.
    pub connection: ObjectId,
    /// What it was like.
    pub seen: Connection,
}

/// A thread read the first bytes of a request, and no wait of its own for that connection told so: it found
/// them there as it accepted, or was handed the connection, or several had become ready at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// Who read.
    pub thread: ThreadId,
    /// When.
    pub at: Ns,
    /// The port of the other end, which asked.
    pub peer_port: NonZeroU16,
}

/// A connection in one wait.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Connection {
    /// It came in through a listening socket; otherwise this end called `connect`.
    pub accepted: bool,
    /// The thread of the other end, on this host, that read what was written here last; while none has, the
    /// only one that ever read from it or waited for it. `None` also where there were several.
    pub peer_thread: Option<ThreadId>,
    /// The thread whose wait this connection ended before this one; another than the waiter: several
    /// threads share the connection.
    pub reader: Option<ThreadId>,
    /// Smoothed round trip (`tcp_sock.srtt_us`, without its factor of 8); 0: not measured yet.
    pub srtt_ns: Ns,
    /// Smallest round trip that the kernel remembers (`tcp_sock.rtt_min`); 0: not measured yet.
    pub rtt_min_ns: Ns,
    /// Retransmission timeout without back-off; 0: not known.
    pub rto_ns: Ns,
    /// What was sent again, since the last wait that it ended.
    pub retransmits: Retransmits,
    /// What this host dropped of what this end sent, since the last wait that it ended.
    pub dropped: Option<Dropped>,
    /// The same of what the other end sent.
    pub peer_dropped: Option<Dropped>,
    /// Older phases were overwritten: before the first one nothing is known.
    pub cut: bool,
    /// From the one in force at switch-out on, oldest first; at least one, at most [`PHASES_MAX`].
    pub phases: Vec<Phase>,
}

/// Segments sent again, by what made the kernel do so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Retransmits {
    /// The retransmission timer ran out.
    pub timeouts: u16,
    /// Tail loss probes, and probes of a closed window or of a segment that could not be sent.
    pub probes: u16,
    /// Told by acknowledgements (fast retransmit, RACK).
    pub fast: u16,
}

/// Segments that this host itself dropped, all of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Dropped {
    /// How many.
    pub count: u16,
    /// Who dropped the latest of them, and why; the same of what follows.
    pub reason: DropReason,
    /// The network device that they were to pass; 0: not known.
    pub ifindex: u32,
    /// Inode number of that device's network namespace; 0: not known.
    pub netns: u32,
    /// What that device was called there then.
    pub device: DeviceName,
}

/// A network device's name, up to the first zero (`IFNAMSIZ` of include/uapi/linux/if.h); empty: not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeviceName(pub [u8; 16]);

impl DeviceName {
    /// The bytes that it is made of: any but spaces, `/` and `:` (`dev_valid_name` of net/core/dev.c).
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&byte| byte == 0);
        &self.0[..end.unwrap_or(self.0.len())]
    }

    /// For people; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// Cut after sixteen bytes.
    pub fn of(bytes: &[u8]) -> DeviceName {
        let mut name = DeviceName::default();
        for (to, from) in name.0.iter_mut().zip(bytes) {
            *to = *from;
        }
        name
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

/// Where on this host a segment was dropped. (The kernel's own numbers differ between its versions.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum DropReason {
    /// It was not said.
    #[default]
    NotSaid,
    /// A queueing discipline.
    Qdisc,
    /// A traffic control filter on the way out.
    TcOut,
    /// A traffic control filter on the way in.
    TcIn,
    /// A packet filter (nftables, iptables).
    Netfilter,
    /// A network device: its queue was full, it was not ready, or XDP.
    Device,
    /// A BPF program on a cgroup, or a security hook.
    Bpf,
    /// No hardware address was found for the next hop.
    Neighbour,
    /// No route, or the source was not believed.
    Route,
    /// The receiving socket's buffer or backlog was full.
    Receiver,
    /// The checksum was wrong.
    Checksum,
    /// Out of memory.
    Memory,
}

impl DropReason {
    /// Every reason, at its number: on the wire, and as the recorder stores it.
    const ALL: [DropReason; 12] = [
        DropReason::NotSaid,
        DropReason::Qdisc,
        DropReason::TcOut,
        DropReason::TcIn,
        DropReason::Netfilter,
        DropReason::Device,
        DropReason::Bpf,
        DropReason::Neighbour,
        DropReason::Route,
        DropReason::Receiver,
        DropReason::Checksum,
        DropReason::Memory,
    ];

    /// The reason of that number; a number that is not known says nothing.
    pub fn of(number: u16) -> DropReason {
        let known = DropReason::ALL.get(usize::from(number));
        known.copied().unwrap_or_default()
    }

    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::NotSaid => "not-said",
            DropReason::Qdisc => "qdisc",
            DropReason::TcOut => "tc-egress",
            DropReason::TcIn => "tc-ingress",
            DropReason::Netfilter => "netfilter",
            DropReason::Device => "device",
            DropReason::Bpf => "bpf",
            DropReason::Neighbour => "neighbour",
            DropReason::Route => "route",
            DropReason::Receiver => "receive-buffer",
            DropReason::Checksum => "checksum",
            DropReason::Memory => "memory",
        }
    }
}

const _: () = {
    let mut at = 0;
    while at < DropReason::ALL.len() {
        assert!(
            DropReason::ALL[at] as usize == at,
            "reasons must be in the order of the enum"
        );
        at += 1;
    }
};

/// From an instant on a connection was in a state, up to the next phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// From when on.
    pub at: Ns,
    /// When the thing began that [`NetState::since_bit`] names; not after `at`. `None`: not known.
    pub since: Option<Ns>,
    /// What held.
    pub state: NetState,
}

/// What held of a connection: bits as the kernel side sets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct NetState(pub u32);

impl NetState {
    /// Bytes were handed to the connection and are not acknowledged (`snd_una != write_seq`); since
    /// when the flight began (`first_tx_mstamp`), where something is in flight.
    pub const UNACKED: NetState = NetState(1 << 0);
    /// Some of them were not sent yet (`snd_nxt != write_seq`).
    pub const UNSENT: NetState = NetState(1 << 1);
    /// Our own small segment is held back by Nagle's algorithm until what is in flight is acknowledged.
    pub const NAGLE: NetState = NetState(1 << 2);
    /// The peer's receive window is closed for the next segment.
    pub const WINDOW: NetState = NetState(1 << 3);
    /// As much is in flight as the congestion window allows.
    pub const CWND: NetState = NetState(1 << 4);
    /// A segment was sent again and is not acknowledged; since when it was first sent.
    pub const LOST: NetState = NetState(1 << 5);
    /// This host dropped a segment of ours on its way out; since when.
    pub const DROPPED: NetState = NetState(1 << 6);
    /// What arrived lies beyond a hole; since the first arrival beyond it.
    pub const GAP: NetState = NetState(1 << 7);
    /// The other end, on this host, sends a segment again; since when it first sent that.
    pub const PEER_LOST: NetState = NetState(1 << 8);
    /// All that we sent has arrived at the other end, which is on this host.
    pub const ARRIVED: NetState = NetState(1 << 9);
    /// We spoke last: bytes were written since any arrived.
    pub const ASKED: NetState = NetState(1 << 10);
    /// The peer spoke last: bytes arrived since any were written.
    pub const HEARD: NetState = NetState(1 << 11);
    /// The other end is on this host.
    pub const HERE: NetState = NetState(1 << 12);
    /// This host dropped a segment of the other end on its way to us; since when.
    pub const PEER_DROPPED: NetState = NetState(1 << 13);
    /// Our own small segment is held back because the program asked for it (`TCP_CORK`, `MSG_MORE`).
    pub const CORKED: NetState = NetState(1 << 14);
    /// From here on arriving segments are not seen (it is half closed): what this phase says held at its
    /// instant, and nothing after that is proved.
    pub const UNFOLLOWED: NetState = NetState(1 << 15);
    /// It held already before this phase's instant, since when is not known: so what the phase before
    /// says up to here is not proved.
    pub const LATE: NetState = NetState(1 << 16);
    /// Bytes that nobody saw written were under way before this phase's instant, since when is not known: so
    /// what the phase before says of the arrival of all bytes is not proved up to here. Not of the kernel
    /// side: it shows where what it tells is put together.
    pub const JOINED: NetState = NetState(1 << 17);

    /// The bits that have an instant of their own, by which of them a phase's `since` means: the first
    /// one here that it has.
    const SINCE: [NetState; 6] = [
        NetState::PEER_DROPPED,
        NetState::PEER_LOST,
        NetState::GAP,
        NetState::DROPPED,
        NetState::LOST,
        NetState::UNACKED,
    ];

    /// Any of these bits is set.
    pub fn has(self, bits: NetState) -> bool {
        self.0 & bits.0 != 0
    }

    /// Both together.
    pub const fn with(self, bits: NetState) -> NetState {
        NetState(self.0 | bits.0)
    }

    /// Without some bits.
    pub const fn without(self, bits: NetState) -> NetState {
        NetState(self.0 & !bits.0)
    }

    /// Which bit the `since` of a phase in this state belongs to.
    pub fn since_bit(self) -> Option<NetState> {
        NetState::SINCE.into_iter().find(|&bit| self.has(bit))
    }
}

impl Connection {
    /// Its phases follow each other, and nothing began after it was noticed.
    pub(crate) fn is_ordered(&self) -> bool {
        let counted = (1..=PHASES_MAX).contains(&self.phases.len());
        let rising = self.phases.is_sorted_by_key(|phase| phase.at);
        let began = |phase: &Phase| {
            phase.at > 0
                && phase
                    .since
                    .is_none_or(|since| since > 0 && since <= phase.at)
        };
        counted && rising && self.phases.iter().all(began)
    }

    /// It tells of a wait that began at `out`: what was in force then, or that this is not known.
    pub(crate) fn tells_of(&self, out: Ns) -> bool {
        self.cut || self.phases.first().is_some_and(|phase| phase.at <= out)
    }
}
