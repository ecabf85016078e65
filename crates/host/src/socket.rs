// SPDX-License-Identifier: Apache-2.0
//! Whose connection is this: from an accepted TCP connection to the processes at its other end.
//!
//! Two steps. `sock_diag` (netlink) finds the peer's socket by its four-tuple in the kernel's own
//! hash table: exact, one system call, whatever the number of connections. Then the descriptors of
//! all processes are looked through for that socket's inode; there is no index for that, and
//! *every* holder is wanted, because after a fork several processes have it open, and only rule 15
//! can say who speaks. A connection through NAT has its translator at the other end, or nobody.
//!
//! `sock_diag` sees our own network namespace. A peer in another one (a container with its own
//! address) is looked for in the tables of the others, and believed only where exactly one
//! namespace has it: the same addresses may be in use in several.

use crate::process::ProcessError;
use crate::process::ProcessFacts;
use crate::process::StartTime;
use crate::process::namespace_of;
use crate::process::processes;
use crate::root::Root;
use rustix::fd::OwnedFd;
use rustix::fs::Dir;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::readlinkat_raw;
use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::net::netlink;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

/// The most descriptors of one process that are looked at; a process with more is reported as not
/// looked through ([`Owners::complete`]).
const DESCRIPTORS_MAX: usize = 65_536;

/// More than `socket:[INODE]` takes; the kernel cuts longer links off, which are none.
const LINK_BYTES_MAX: usize = 64;

/// The most holders of one socket that are returned.
pub const HOLDERS_MAX: usize = 64;

/// The most connections that [`ConnectionOwners`] remembers (about 200 bytes each).
pub const CONNECTIONS_MAX: usize = 4_096;

/// How long an answer is good for: a fork after that may have added a holder.
const ANSWER_LIFETIME: Duration = Duration::from_secs(10);

/// The most network namespaces that a peer is looked for in.
const NAMESPACES_MAX: usize = 256;

/// A socket as the kernel names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketId {
    /// Inode number; unique among sockets of this host.
    pub inode: u64,
    /// User that made it.
    pub uid: u32,
}

/// A process that has a socket open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Holder {
    /// Thread group id.
    pub tgid: u32,
    /// With it, the process's identity.
    pub start: StartTime,
}

/// The processes at the other end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owners {
    /// Their socket.
    pub socket: SocketId,
    /// All that have it open.
    pub holders: Vec<Holder>,
    /// Whether every process could be looked through; if not, there may be other holders.
    pub complete: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum OwnerError {
    /// The peer's socket is not on this host, is closed, or lies where we cannot look.
    NotFound,
    /// The same addresses are in use in several network namespaces.
    Ambiguous,
    /// The kernel could not be asked.
    Io(io::Error),
}

impl fmt::Display for OwnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => {
                f.write_str("the other end of the connection is not a process of this host")
            }
            Self::Ambiguous => {
                f.write_str("several network namespaces have a connection with these addresses")
            }
            Self::Io(error) => write!(
                f,
                "cannot look for the other end of the connection: {error}"
            ),
        }
    }
}

impl std::error::Error for OwnerError {}

impl From<io::Error> for OwnerError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The owners of accepted connections, remembered for a while.
#[derive(Debug)]
pub struct ConnectionOwners {
    root: Root,
    known: HashMap<(SocketAddr, SocketAddr), (Instant, Owners)>,
}

impl ConnectionOwners {
    /// Remembers nothing yet.
    pub fn new(root: Root) -> Self {
        Self {
            root,
            known: HashMap::new(),
        }
    }

    /// Who is at the other end of an accepted connection with these two addresses.
    ///
    /// Blocks for as long as the scan of [`holders_of`] takes (milliseconds on a host with a
    /// hundred processes): call it once per connection, and off the event loop.
    ///
    /// # Errors
    /// [`OwnerError`] says why there is no answer; such an answer is not remembered.
    pub fn owners(&mut self, local: SocketAddr, peer: SocketAddr) -> Result<Owners, OwnerError> {
        let key = (local, peer);
        if let Some((found, owners)) = self.known.get(&key) {
            // A port may be another process's by now: the inode of a new socket is a new one.
            let same =
                || peer_socket(local, peer).is_ok_and(|socket| socket == Some(owners.socket));
            if found.elapsed() < ANSWER_LIFETIME && same() {
                return Ok(owners.clone());
            }
        }
        self.known.remove(&key);
        let socket = match peer_socket(local, peer)? {
            Some(socket) => socket,
            None => peer_socket_elsewhere(&self.root, local, peer)?,
        };
        let owners = holders_of(&self.root, socket)?;
        if self.known.len() >= CONNECTIONS_MAX {
            self.known
                .retain(|_, (found, _)| found.elapsed() < ANSWER_LIFETIME);
        }
        if self.known.len() < CONNECTIONS_MAX {
            self.known.insert(key, (Instant::now(), owners.clone()));
        }
        Ok(owners)
    }
}

/// All processes that have a socket open.
///
/// Reads every link in every `/proc/PID/fd`: measured, 7 microseconds a descriptor (the
/// kernel makes an inode for each of them), 5 ms on a host with 100 processes and 600 descriptors.
///
/// # Errors
/// `/proc` could not be listed.
pub fn holders_of(root: &Root, socket: SocketId) -> io::Result<Owners> {
    let mut owners = Owners {
        socket,
        holders: Vec::new(),
        complete: true,
    };
    let link = format!("socket:[{}]", socket.inode);
    for tgid in processes(root)? {
        match has_link(&root.path(format!("/proc/{tgid}/fd")), &link) {
            Ok(false) => {}
            Ok(true) if owners.holders.len() == HOLDERS_MAX => owners.complete = false,
            Ok(true) => match ProcessFacts::read(root, tgid) {
                Ok(facts) => owners.holders.push(Holder {
                    tgid,
                    start: facts.start,
                }),
                Err(ProcessError::Gone) => {}
                Err(ProcessError::Unreadable(_)) => owners.complete = false,
            },
            // It ended while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => owners.complete = false,
        }
    }
    Ok(owners)
}

/// Whether any link in a directory has this target.
///
/// Links are read relative to the open directory: walking `/proc/PID/fd` anew for each of them
/// costs a quarter more.
fn has_link(directory: &Path, target: &str) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let mut buffer = [0; LINK_BYTES_MAX];
    for (seen, entry) in Dir::read_from(&directory)?.enumerate() {
        if seen == DESCRIPTORS_MAX {
            return Err(io::Error::other("more descriptors than are looked at"));
        }
        // What is no link (`.`, `..`) or was closed meanwhile is not the one.
        let read = readlinkat_raw(&directory, entry?.file_name(), &mut buffer[..]);
        if read.is_ok_and(|length| buffer.get(..length) == Some(target.as_bytes())) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The peer's socket of an accepted connection, in our own network namespace.
///
/// # Errors
/// The kernel could not be asked.
pub fn peer_socket(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<SocketId>> {
    // Seen from the peer's socket, its own address comes first.
    let request = diag::request(unmapped(peer), unmapped(local));
    let netlink = netlink_socket()?;
    rustix::net::send(&netlink, &request, SendFlags::empty())?;
    let mut answer = [0; diag::ANSWER_BYTES_MAX];
    // The kernel queues the answer before `send` returns, so this never has to wait.
    let (length, _) = rustix::net::recv(&netlink, &mut answer, RecvFlags::DONTWAIT)?;
    diag::parse(answer.get(..length).unwrap_or_default(), &request)
}

fn netlink_socket() -> Result<OwnedFd, Errno> {
    let kind = SocketType::DGRAM;
    rustix::net::socket_with(
        AddressFamily::NETLINK,
        kind,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )
}

/// An IPv4 connection that was accepted by an IPv6 socket is kept by its IPv4 addresses.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Looks for the peer's socket in the network namespaces of other processes, by their tables.
fn peer_socket_elsewhere(
    root: &Root,
    local: SocketAddr,
    peer: SocketAddr,
) -> Result<SocketId, OwnerError> {
    let (local, peer) = (unmapped(local), unmapped(peer));
    // A loopback address is that of its own namespace, where `sock_diag` did not find it.
    if peer.ip().is_loopback() {
        return Err(OwnerError::NotFound);
    }
    let own = namespace_of(root, std::process::id(), "net");
    let mut seen = HashSet::from([own]);
    let mut found = None;
    for tgid in processes(root)? {
        if seen.len() > NAMESPACES_MAX {
            break;
        }
        if !seen.insert(namespace_of(root, tgid, "net")) {
            continue;
        }
        let tables = ["tcp", "tcp6"].map(|table| root.read(format!("/proc/{tgid}/net/{table}")));
        for table in tables.into_iter().flatten() {
            let socket = table.lines().find_map(|line| table_row(line, peer, local));
            if found.is_some() && socket.is_some() {
                return Err(OwnerError::Ambiguous);
            }
            found = found.or(socket);
        }
    }
    found.ok_or(OwnerError::NotFound)
}

/// The socket of one line of `/proc/PID/net/tcp` or `tcp6`, if it has these addresses.
fn table_row(line: &str, local: SocketAddr, remote: SocketAddr) -> Option<SocketId> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let addresses = (
        table_address(fields.next()?)?,
        table_address(fields.next()?)?,
    );
    if addresses != (local, remote) {
        return None;
    }
    // After the addresses: state, queues, timer, retransmits, uid, timeout, inode.
    let uid = fields.nth(4)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    // Inode 0: a socket in TIME_WAIT, which no process has any more.
    (inode != 0).then_some(SocketId { inode, uid })
}

/// `0100007F:1F90`: each 32-bit word of the address as a number of the host's byte order.
fn table_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = match address.len() {
        8 => IpAddr::from(word(0)?.to_ne_bytes()),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at * 8)?.to_ne_bytes());
            }
            IpAddr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

/// The one request of `sock_diag` that is needed, by hand: 72 bytes there, 88 or more back.
///
/// Layouts: `linux/netlink.h`, `linux/sock_diag.h`, `linux/inet_diag.h`; they are ABI.
mod diag {
    use super::IpAddr;
    use super::Ipv4Addr;
    use super::Ipv6Addr;
    use super::SocketAddr;
    use super::SocketId;
    use std::io;

    /// More than an answer without extensions takes.
    pub(super) const ANSWER_BYTES_MAX: usize = 512;

    const HEADER_BYTES: usize = 16;
    const REQUEST_BYTES: usize = HEADER_BYTES + 56;
    /// In the request and in the answer: where `struct inet_diag_sockid` is, and how much of it
    /// (ports and addresses) names the connection.
    const REQUEST_ID_AT: usize = HEADER_BYTES + 8;
    const ANSWER_ID_AT: usize = HEADER_BYTES + 4;
    const ID_NAME_BYTES: usize = 36;
    const ANSWER_UID_AT: usize = ANSWER_ID_AT + 48 + 12;
    const ANSWER_INODE_AT: usize = ANSWER_UID_AT + 4;

    const NLMSG_ERROR: u16 = 2;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    const IPPROTO_TCP: u8 = 6;

    /// Asks for the socket whose own address is `own`.
    pub(super) fn request(own: SocketAddr, remote: SocketAddr) -> [u8; REQUEST_BYTES] {
        let (family, own_address, remote_address) = match (own.ip(), remote.ip()) {
            (IpAddr::V4(own), IpAddr::V4(remote)) => (AF_INET, v4(own), v4(remote)),
            (own, remote) => (AF_INET6, v6(own), v6(remote)),
        };
        let mut bytes = Vec::with_capacity(REQUEST_BYTES);
        bytes.extend((REQUEST_BYTES as u32).to_ne_bytes());
        bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.extend(NLM_F_REQUEST.to_ne_bytes());
        bytes.extend([0; 8]); // sequence number and sender: one request, one answer
        bytes.extend([family, IPPROTO_TCP, 0, 0]);
        bytes.extend(u32::MAX.to_ne_bytes()); // any state
        bytes.extend(own.port().to_be_bytes());
        bytes.extend(remote.port().to_be_bytes());
        bytes.extend(own_address);
        bytes.extend(remote_address);
        bytes.extend(scope(own).to_ne_bytes());
        bytes.extend([0xff; 8]); // INET_DIAG_NOCOOKIE
        let mut request = [0; REQUEST_BYTES];
        request.copy_from_slice(&bytes);
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
    pub(super) fn parse(
        answer: &[u8],
        request: &[u8; REQUEST_BYTES],
    ) -> io::Result<Option<SocketId>> {
        let kind = answer
            .get(4..6)
            .map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
        match kind {
            Some(SOCK_DIAG_BY_FAMILY) => {}
            Some(NLMSG_ERROR) => {
                let code = word(answer, HEADER_BYTES).ok_or_else(malformed)? as i32;
                let error = io::Error::from_raw_os_error(code.wrapping_neg());
                return if error.kind() == io::ErrorKind::NotFound {
                    Ok(None)
                } else {
                    Err(error)
                };
            }
            _ => return Err(malformed()),
        }
        // Compared by what the addresses mean: an IPv6 socket that is connected to an IPv4-mapped
        // address (gRPC's are) is found by its IPv4 addresses and answered with the mapped ones.
        let asked = name(request, HEADER_BYTES, REQUEST_ID_AT);
        let given = name(answer, HEADER_BYTES, ANSWER_ID_AT);
        let (Some(uid), Some(inode)) = (word(answer, ANSWER_UID_AT), word(answer, ANSWER_INODE_AT))
        else {
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

    fn word(bytes: &[u8], at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    }

    fn malformed() -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, "an answer in an unknown form")
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
