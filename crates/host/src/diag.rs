// SPDX-License-Identifier: Apache-2.0
//! The requests and answers of `sock_diag` for TCP, by hand: 72 bytes there, 88 or more back.
//!
//! Layouts: `linux/sock_diag.h`, `linux/inet_diag.h`, `linux/tcp.h`; they are ABI, and only ever grow
//! at their ends. Nothing is sent from here: bytes in, facts out. docs/ladder.md says why this is not
//! a crate's.

use crate::netlink::HEADER_BYTES;
use crate::netlink::NLM_F_DUMP;
use crate::netlink::NLM_F_REQUEST;
use crate::netlink::NLMSG_ERROR;
use crate::netlink::attributes;
use crate::netlink::error_in;
use crate::netlink::malformed;
use crate::netlink::messages;
use crate::netlink::u32_at;
use crate::netlink::u64_at;
use crate::socket::SocketId;
use crate::tcp::TcpInfo;
use crate::tcp::TcpSocket;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

/// More than an answer without extensions takes.
pub(crate) const ANSWER_BYTES_MAX: usize = 512;

const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// In the request and in the answer: where `struct inet_diag_sockid` is, and how much of it
/// (ports and addresses) names the connection.
const REQUEST_ID_AT: usize = HEADER_BYTES + 8;
const ANSWER_ID_AT: usize = HEADER_BYTES + 4;
const ID_NAME_BYTES: usize = 36;
/// `struct inet_diag_msg`.
const MESSAGE_BYTES: usize = 72;
const ANSWER_UID_AT: usize = ANSWER_ID_AT + 48 + 12;
const ANSWER_INODE_AT: usize = ANSWER_UID_AT + 4;

pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// `TCP_SYN_SENT` and `TCP_LISTEN` of `net/tcp_states.h`.
pub(crate) const STATE_SYN_SENT: u8 = 2;
pub(crate) const STATE_LISTEN: u8 = 10;
/// Every state but those in which no process has the socket any more: `TCP_TIME_WAIT` (6) and
/// `TCP_NEW_SYN_RECV` (12).
const STATES: u32 = !(1 << 6 | 1 << 12);
/// `INET_DIAG_INFO`, `INET_DIAG_SKMEMINFO`: attributes of an answer, and as bits what to answer.
const ATTRIBUTE_INFO: u16 = 2;
const ATTRIBUTE_MEMORY: u16 = 7;
/// `SK_MEMINFO_DROPS`: which of the numbers of [`ATTRIBUTE_MEMORY`] it is.
const MEMORY_DROPS: usize = 8;

/// Asks for the socket whose own address is `own`.
pub(crate) fn request(own: SocketAddr, remote: SocketAddr) -> [u8; REQUEST_BYTES] {
    let (family, own_address, remote_address) = match (own.ip(), remote.ip()) {
        (IpAddr::V4(own), IpAddr::V4(remote)) => (AF_INET, v4(own), v4(remote)),
        (own, remote) => (AF_INET6, v6(own), v6(remote)),
    };
    let mut bytes = start(NLM_F_REQUEST, [family, IPPROTO_TCP, 0, 0], u32::MAX);
    bytes.extend(own.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    bytes.extend(own_address);
    bytes.extend(remote_address);
    bytes.extend(scope(own).to_ne_bytes());
    bytes.extend([0xff; 8]); // INET_DIAG_NOCOOKIE
    finished(&bytes)
}

/// Asks for all sockets of a family, with all that the kernel knows of each.
pub(crate) fn request_all(family: u8) -> [u8; REQUEST_BYTES] {
    let extensions = 1 << (ATTRIBUTE_INFO - 1) | 1 << (ATTRIBUTE_MEMORY - 1);
    let what = [family, IPPROTO_TCP, extensions, 0];
    // No address follows: a list is not asked for by one.
    finished(&start(NLM_F_REQUEST | NLM_F_DUMP, what, STATES))
}

fn start(flags: u16, what: [u8; 4], states: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REQUEST_BYTES);
    bytes.extend((REQUEST_BYTES as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]); // sequence number and sender: one request at a time
    bytes.extend(what);
    bytes.extend(states.to_ne_bytes());
    bytes
}

fn finished(bytes: &[u8]) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    if let Some(start) = request.get_mut(..bytes.len()) {
        start.copy_from_slice(bytes);
    }
    request
}

fn v4(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address.octets());
    bytes
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address),
    }
}

/// Link-local addresses are those of an interface.
fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    }
}

/// The socket in an answer, if it is the one that was asked for: where no connection matches,
/// the kernel offers a listener on that port instead.
pub(crate) fn parse(answer: &[u8], request: &[u8; REQUEST_BYTES]) -> io::Result<Option<SocketId>> {
    let message = messages(answer).next().ok_or_else(malformed)?;
    match message.kind {
        SOCK_DIAG_BY_FAMILY => {}
        NLMSG_ERROR => {
            return match error_in(message.payload) {
                Some(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Some(error) => Err(error),
                None => Err(malformed()),
            };
        }
        _ => return Err(malformed()),
    }
    // Compared by what the addresses mean: an IPv6 socket that is connected to an IPv4-mapped
    // address (gRPC's are) is found by its IPv4 addresses and answered with the mapped ones.
    let asked = name(request, HEADER_BYTES, REQUEST_ID_AT);
    let given = name(answer, HEADER_BYTES, ANSWER_ID_AT);
    let (Some(uid), Some(inode)) = (
        u32_at(answer, ANSWER_UID_AT),
        u32_at(answer, ANSWER_INODE_AT),
    ) else {
        return Err(malformed());
    };
    // Inode 0: a socket in TIME_WAIT, which no process has any more.
    let is_it = asked.is_some() && asked == given && inode != 0;
    Ok(is_it.then_some(SocketId {
        inode: u64::from(inode),
        uid,
    }))
}

/// The ports and addresses at `at`, of the family that the byte at `family_at` says.
fn name(bytes: &[u8], family_at: usize, at: usize) -> Option<([u8; 4], IpAddr, IpAddr)> {
    let name: [u8; ID_NAME_BYTES] = bytes.get(at..at + ID_NAME_BYTES)?.try_into().ok()?;
    let address = |at: usize| -> Option<IpAddr> {
        if *bytes.get(family_at)? == AF_INET {
            let bytes: [u8; 4] = name.get(at..at + 4)?.try_into().ok()?;
            return Some(IpAddr::from(bytes));
        }
        let bytes: [u8; 16] = name.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(bytes).to_canonical())
    };
    Some((name.get(..4)?.try_into().ok()?, address(4)?, address(20)?))
}

/// One socket of a list: `struct inet_diag_msg` and its attributes.
pub(crate) fn socket(payload: &[u8]) -> Option<TcpSocket> {
    let family = *payload.first()?;
    let address = |at: usize| -> Option<IpAddr> {
        if family == AF_INET {
            let bytes: [u8; 4] = payload.get(at..at + 4)?.try_into().ok()?;
            return Some(IpAddr::from(bytes));
        }
        let bytes: [u8; 16] = payload.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(bytes).to_canonical())
    };
    let port = |at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(
            payload.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let mut socket = TcpSocket {
        local: SocketAddr::new(address(8)?, port(4)?),
        peer: SocketAddr::new(address(24)?, port(6)?),
        state: *payload.get(1)?,
        cookie: u64_at(payload, 44)?,
        receive_queue: u32_at(payload, 56)?,
        send_queue: u32_at(payload, 60)?,
        uid: u32_at(payload, 64)?,
        inode: u64::from(u32_at(payload, 68)?),
        drops: None,
        info: None,
    };
    for (kind, value) in attributes(payload.get(MESSAGE_BYTES..)?) {
        match kind {
            ATTRIBUTE_INFO => socket.info = TcpInfo::parse(value),
            ATTRIBUTE_MEMORY => socket.drops = u32_at(value, MEMORY_DROPS * 4),
            _ => {}
        }
    }
    Some(socket)
}
