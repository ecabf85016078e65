// SPDX-License-Identifier: Apache-2.0
//! The TCP sockets of a process at two readings. A socket is known by its cookie, which is never used
//! again, so that a new connection on an old port is a new one; its counters began in the window.
//!
//! A connection that was closed in the window is in neither list; what it lost is in the sums of its
//! network namespace only.

use std::collections::HashMap;

use lacuna_host::Root;
use lacuna_host::counters::grown;
use lacuna_host::process::ProcessFacts;
use lacuna_host::tcp::TcpInfo;
use lacuna_host::tcp::TcpSocket;
use lacuna_host::tcp::TcpSockets;

use super::facts::Connection;
use super::facts::Listener;
use super::facts::Seen;
use super::facts::Tcp;
use super::reading::denied;
use super::reading::inodes;

/// `TCP_CA_Loss`: a timer has run out.
const CONGESTION_LOSS: u8 = 4;

/// The sockets at the first instant.
pub(super) struct SocketReading {
    source: TcpSockets,
    before: HashMap<u64, TcpSocket>,
}

impl SocketReading {
    pub(super) fn take(root: &Root, process: &ProcessFacts) -> Seen<Self> {
        let source = TcpSockets::of(root, process.tgid).map_err(|error| denied(process, &error))?;
        let (before, _) = list(&source, root, process)?;
        let before = before.into_iter().map(|socket| (socket.cookie, socket));
        Ok(Self {
            before: before.collect(),
            source,
        })
    }

    /// Lists again, and says what has grown.
    pub(super) fn grow(self, root: &Root, process: &ProcessFacts) -> Seen<Tcp> {
        let (now, whole) = list(&self.source, root, process)?;
        let mut tcp = Tcp {
            cut: !whole,
            ..Tcp::default()
        };
        for socket in now {
            let before = self.before.get(&socket.cookie);
            if socket.listens() {
                let drops = |one: &TcpSocket| u64::from(one.drops.unwrap_or(0));
                tcp.listeners.push(Listener {
                    local: socket.local,
                    drops: grown32(before.map_or(0, drops), drops(&socket)),
                    queued: socket.receive_queue,
                    queue_max: socket.send_queue,
                });
            } else if let Some(info) = socket.info {
                let before = before.and_then(|before| before.info).unwrap_or_default();
                tcp.connections.push(connection(&socket, &before, &info));
            }
        }
        Ok(tcp)
    }
}

/// The sockets of the process, and whether all of the namespace were looked at.
fn list(source: &TcpSockets, root: &Root, process: &ProcessFacts) -> Seen<(Vec<TcpSocket>, bool)> {
    let own = inodes(root, process)?;
    let mut sockets = Vec::new();
    let whole = source.each(|socket| {
        if own.contains(&socket.inode) {
            sockets.push(socket);
        }
    });
    let whole = whole.map_err(|error| denied(process, &error))?;
    Ok((sockets, whole))
}

/// These counters have 32 bits, and wrap.
fn grown32(before: u64, now: u64) -> u64 {
    u64::from((now as u32).wrapping_sub(before as u32))
}

fn connection(socket: &TcpSocket, before: &TcpInfo, now: &TcpInfo) -> Connection {
    let both = |of: fn(&TcpInfo) -> Option<u64>| {
        let now = of(now)?;
        grown(of(before).unwrap_or(0), now)
    };
    let both32 = |of: fn(&TcpInfo) -> Option<u32>| {
        let now = of(now)?;
        Some(grown32(of(before).unwrap_or(0).into(), now.into()))
    };
    let us = |us: u32| u64::from(us).saturating_mul(1_000);
    Connection {
        local: socket.local,
        peer: socket.peer,
        connecting: socket.connects(),
        retransmits: grown32(
            before.total_retransmits.into(),
            now.total_retransmits.into(),
        ),
        segments_out: both32(|info| info.segments_out),
        timeouts: both32(|info| info.timeouts.map(u32::from)).map(|n| n & 0xffff),
        recovery_ns: both32(|info| info.timeout_recovery_ms).map(|ms| ms.saturating_mul(1_000_000)),
        recovering: now.retransmits > 0 || now.congestion_state == CONGESTION_LOSS,
        // Nothing is under way, something waits, its timer runs, and the peer would take it: what was
        // sent did not leave this host. A peer whose window is closed is probed, too.
        held_here: now.probes > 0
            && now.unacked == 0
            && now.unsent_bytes.is_some_and(|bytes| bytes > 0)
            && now.peer_window_bytes.is_some_and(|bytes| bytes > 0),
        lost: now.lost,
        unacked: now.unacked,
        rto_ns: us(now.rto_us),
        rtt_ns: us(now.rtt_us),
        congestion_window: now.congestion_window,
        busy_ns: both(|info| info.busy_us).map(|us| us.saturating_mul(1_000)),
        window_limited_ns: both(|info| info.window_limited_us).map(|us| us.saturating_mul(1_000)),
        buffer_limited_ns: both(|info| info.buffer_limited_us).map(|us| us.saturating_mul(1_000)),
    }
}
