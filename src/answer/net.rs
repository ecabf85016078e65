// SPDX-License-Identifier: Apache-2.0
//! What was seen of a TCP connection that was waited for: part of a cause's evidence.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// A connection in a cause's evidence.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConnectionEvidence {
    /// This end, `ADDRESS:PORT`.
    pub(crate) local: String,
    /// The other end.
    pub(crate) remote: String,
    /// The network namespace of this end (its inode number).
    pub(crate) netns: u32,
    /// How much of the cause's time it had.
    pub(crate) ns: u64,
    /// The same by what more there is to say of it than the cause does ("lost-out", "peer-window", ...).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) aspects: BTreeMap<String, u64>,
    /// Segments sent again, by why.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) retransmits: Retransmits,
    /// Segments that this host dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) dropped: Vec<Dropped>,
    /// The largest smoothed round trip, 0 where it was not measured.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) srtt_ns: u64,
    /// The largest retransmission timeout, without back-off; 0 where it is not known.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) rto_ns: u64,
    /// Several threads wait for it: what was asked last may be another one's.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) shared_connection: bool,
    /// The thread at the other end, where that is on this host and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<Peer>,
}

/// Segments sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Retransmits {
    /// The retransmission timer ran out.
    pub(crate) timeouts: u64,
    /// Probes: of a lost tail, of a closed window, of what could not be sent.
    pub(crate) probes: u64,
    /// Acknowledgements told so.
    pub(crate) fast: u64,
}

/// Segments of one end that this host dropped in one place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Dropped {
    /// How many.
    pub(crate) count: u64,
    /// They were sent by the other end.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) incoming: bool,
    /// Who dropped them ("qdisc", "netfilter", ...).
    pub(crate) reason: String,
    /// The network device that they were to pass, by its number in its namespace; 0 where not known.
    pub(crate) ifindex: u32,
    /// That device's network namespace; 0 where not known.
    pub(crate) netns: u32,
    /// What it was called then; left out where not known.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) device: String,
}

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// The thread.
    pub(crate) tid: u32,
    /// Its process.
    pub(crate) pid: u32,
    /// The kernel's name of it.
    pub(crate) comm: String,
}

/// It says nothing, so it is left out.
fn is_nothing<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
