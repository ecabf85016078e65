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

use crate::diag;
use crate::process::ProcessError;
use crate::process::ProcessFacts;
use crate::process::StartTime;
use crate::process::bracketed_inode;
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
use std::net::SocketAddr;
use std::ops::ControlFlow;
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
fn has_link(directory: &Path, target: &str) -> io::Result<bool> {
    let same = |link: &[u8]| match link == target.as_bytes() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    Ok(each_link(directory, same)?.is_break())
}

/// The sockets that a process has open, by inode.
///
/// # Errors
/// It ended, may not be looked into, or has more than [`DESCRIPTORS_MAX`] descriptors.
pub fn inodes_of(root: &Root, tgid: u32) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    let note = |link: &[u8]| {
        let link = std::str::from_utf8(link).unwrap_or_default();
        inodes.extend(bracketed_inode(link, "socket"));
        ControlFlow::Continue(())
    };
    // Nothing breaks it off.
    let _whole = each_link(&root.path(format!("/proc/{tgid}/fd")), note)?;
    Ok(inodes)
}

/// Looks at the target of each link in a directory until told to stop.
///
/// Links are read relative to the open directory: walking `/proc/PID/fd` anew for each of them
/// costs a quarter more.
fn each_link(
    directory: &Path,
    mut look: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let mut buffer = [0; LINK_BYTES_MAX];
    for (seen, entry) in Dir::read_from(&directory)?.enumerate() {
        if seen == DESCRIPTORS_MAX {
            return Err(io::Error::other("more descriptors than are looked at"));
        }
        // What is no link (`.`, `..`) or was closed meanwhile is not looked at.
        let read = readlinkat_raw(&directory, entry?.file_name(), &mut buffer[..]);
        let link = read.ok().and_then(|length| buffer.get(..length));
        if link.is_some_and(|link| look(link).is_break()) {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
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

pub(crate) fn netlink_socket() -> Result<OwnedFd, Errno> {
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

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
