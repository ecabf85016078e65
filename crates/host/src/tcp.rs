// SPDX-License-Identifier: Apache-2.0
//! Every TCP socket of a network namespace, with what the kernel knows of its losses and delays: what
//! `ss -tinm` shows, from `sock_diag` itself.
//!
//! The namespace is entered by a thread of its own, which ends with that, so no other thread is ever
//! anywhere else; a netlink socket stays in the namespace that it was made in. Listing needs no
//! privilege, entering another namespace does (CAP_SYS_ADMIN). Whose socket it is, is told by inode
//! (`socket::inodes_of`).

use crate::diag;
use crate::netlink::NLMSG_DONE;
use crate::netlink::NLMSG_ERROR;
use crate::netlink::error_in;
use crate::netlink::malformed;
use crate::netlink::messages;
use crate::netlink::u16_at;
use crate::netlink::u32_at;
use crate::netlink::u64_at;
use crate::process::namespace_of;
use crate::root::Root;
use crate::socket::netlink_socket;
use rustix::fd::AsFd;
use rustix::fd::OwnedFd;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::sockopt::Timeout;
use rustix::net::sockopt::set_socket_timeout;
use rustix::thread::LinkNameSpaceType;
use rustix::thread::move_into_link_name_space;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The most sockets that one list looks at: some 300 bytes each from the kernel, 2 microseconds.
pub const SOCKETS_MAX: usize = 65_536;

/// The kernel answers at once; this is for a kernel that does not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The kernel fills datagrams of a list up to 32 KiB (`NETLINK_DUMP` skb sizes), never more.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// One TCP socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpSocket {
    /// Its own address.
    pub local: SocketAddr,
    /// The other end's; of no meaning for a listening socket.
    pub peer: SocketAddr,
    /// `TCP_*` of `net/tcp_states.h`: 1 established, 2 SYN sent, 10 listening.
    pub state: u8,
    /// Its identity: not used again while the host is up.
    pub cookie: u64,
    /// Bytes received and not read yet; of a listening socket connections to be accepted.
    pub receive_queue: u32,
    /// Bytes sent and not acknowledged yet; of a listening socket how many may wait.
    pub send_queue: u32,
    /// The user that made it.
    pub uid: u32,
    /// The inode that descriptors name it by; 0: no process has it open any more.
    pub inode: u64,
    /// What it dropped (packets; of a listening socket connections) since it was made.
    pub drops: Option<u32>,
    /// What TCP knows of it.
    pub info: Option<TcpInfo>,
}

impl TcpSocket {
    /// It accepts connections.
    pub fn listens(&self) -> bool {
        self.state == diag::STATE_LISTEN
    }

    /// It has asked for a connection and was not answered yet.
    pub fn connects(&self) -> bool {
        self.state == diag::STATE_SYN_SENT
    }
}

/// `struct tcp_info`: of each field its last part says the unit. Fields that a kernel does not have
/// yet are `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpInfo {
    /// `TCP_CA_*`: 0 open, 1 disorder, 2 window reduced, 3 recovery, 4 loss.
    pub congestion_state: u8,
    /// Timeouts in a row that have not brought an acknowledgement yet.
    pub retransmits: u8,
    /// Probes in a row without an answer: of a closed window, or of data that this host itself could
    /// not send.
    pub probes: u8,
    /// How often the timer was doubled.
    pub backoff: u8,
    /// Retransmission timeout, microseconds.
    pub rto_us: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Segments that are taken for lost now.
    pub lost: u32,
    /// Smoothed round trip, microseconds.
    pub rtt_us: u32,
    /// Congestion window, segments.
    pub congestion_window: u32,
    /// Segments sent again, ever.
    pub total_retransmits: u32,
    /// Segments sent, ever (4.2).
    pub segments_out: Option<u32>,
    /// Bytes that wait to be sent (4.6).
    pub unsent_bytes: Option<u32>,
    /// Time in which it had something to send or to be acknowledged, microseconds (4.10).
    pub busy_us: Option<u64>,
    /// Of it, time in which the peer's window was too small.
    pub window_limited_us: Option<u64>,
    /// Of it, time in which its own send buffer was too small.
    pub buffer_limited_us: Option<u64>,
    /// The peer's window, bytes (5.4).
    pub peer_window_bytes: Option<u32>,
    /// Timeouts, ever (6.7).
    pub timeouts: Option<u16>,
    /// Time from a first timeout to the end of the recovery, ever, milliseconds (6.7). A recovery
    /// that goes on is not in it yet.
    pub timeout_recovery_ms: Option<u32>,
}

impl TcpInfo {
    /// From the bytes of a `struct tcp_info`, of whichever length the kernel has; `None` below that
    /// of 2.6 (104 bytes).
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            congestion_state: *bytes.get(1)?,
            retransmits: *bytes.get(2)?,
            probes: *bytes.get(3)?,
            backoff: *bytes.get(4)?,
            rto_us: u32_at(bytes, 8)?,
            unacked: u32_at(bytes, 24)?,
            lost: u32_at(bytes, 32)?,
            rtt_us: u32_at(bytes, 68)?,
            congestion_window: u32_at(bytes, 80)?,
            total_retransmits: u32_at(bytes, 100)?,
            segments_out: u32_at(bytes, 136),
            unsent_bytes: u32_at(bytes, 144),
            busy_us: u64_at(bytes, 168),
            window_limited_us: u64_at(bytes, 176),
            buffer_limited_us: u64_at(bytes, 184),
            peer_window_bytes: u32_at(bytes, 228),
            timeouts: u16_at(bytes, 240),
            timeout_recovery_ms: u32_at(bytes, 244),
        })
    }
}

/// The sockets of one network namespace.
#[derive(Debug)]
pub struct TcpSockets {
    netlink: OwnedFd,
}

impl TcpSockets {
    /// Those of the network namespace that a process is in.
    ///
    /// # Errors
    /// The namespace may not be looked at or entered, or the kernel has no `sock_diag`.
    pub fn of(root: &Root, tgid: u32) -> io::Result<Self> {
        let link = root.path(format!("/proc/{tgid}/ns/net"));
        let file = std::fs::File::open(&link)?;
        let there = namespace_of(root, tgid, "net");
        let netlink = if there.is_some() && there == namespace_of(root, std::process::id(), "net") {
            netlink_socket()?
        } else {
            let made = std::thread::scope(|scope| {
                let enter = || -> io::Result<OwnedFd> {
                    let kind = Some(LinkNameSpaceType::Network);
                    move_into_link_name_space(file.as_fd(), kind)?;
                    Ok(netlink_socket()?)
                };
                std::thread::Builder::new()
                    .spawn_scoped(scope, enter)?
                    .join()
                    .map_err(|_| io::Error::other("the thread that enters the namespace ended"))
            });
            made??
        };
        set_socket_timeout(&netlink, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self { netlink })
    }

    /// Calls `take` with each of them, at most [`SOCKETS_MAX`]. Whether that were all.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn each(&self, mut take: impl FnMut(TcpSocket)) -> io::Result<bool> {
        let mut seen = 0;
        for family in [diag::AF_INET, diag::AF_INET6] {
            let request = diag::request_all(family);
            rustix::net::send(&self.netlink, &request, SendFlags::empty())?;
            let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
            'list: loop {
                let (length, _) =
                    rustix::net::recv(&self.netlink, &mut datagram[..], RecvFlags::empty())?;
                for message in messages(datagram.get(..length).unwrap_or_default()) {
                    match message.kind {
                        NLMSG_DONE => break 'list,
                        NLMSG_ERROR => {
                            return Err(error_in(message.payload).unwrap_or_else(malformed));
                        }
                        diag::SOCK_DIAG_BY_FAMILY => {
                            seen += 1;
                            if seen > SOCKETS_MAX {
                                return Ok(false);
                            }
                            diag::socket(message.payload)
                                .into_iter()
                                .for_each(&mut take);
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
