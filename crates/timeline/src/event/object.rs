// SPDX-License-Identifier: Apache-2.0
//! What the ids of a record stand for: descriptors and kernel stacks.
//!
//! Facts only: which cause they amount to is decided in `cause/blocked.rs` and `cause/stack.rs`.

use super::ObjectId;
use super::StackId;

/// What a descriptor pointed at.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectInfo {
    /// Its id.
    pub object: ObjectId,
    /// What it is.
    pub kind: ObjectKind,
    /// Last component of its name in the kernel (file name, `[eventfd]`, ...), lossily as UTF-8.
    pub name: Box<str>,
    /// Device number (`st_dev` encoding: major << 20 | minor), 0 for none.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// Kinds of descriptors that waits are told apart by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ObjectKind {
    /// A regular file or directory on a local file system.
    File,
    /// The same on NFS, CIFS, FUSE, 9p, virtiofs, Ceph.
    RemoteFile,
    /// A block device.
    BlockDevice,
    /// A character device (terminal, ...).
    CharDevice,
    /// A pipe or FIFO.
    Pipe,
    /// `eventfd`, `signalfd`, `inotify`, `fanotify`, POSIX message queue.
    Notification,
    /// `timerfd`.
    Timer,
    /// An epoll instance.
    Epoll,
    /// `AF_UNIX` socket.
    UnixSocket,
    /// A TCP connection: local and remote address as text-free bytes (IPv4 is IPv4-mapped).
    Tcp(Endpoints),
    /// A listening TCP socket.
    TcpListener(Endpoints),
    /// UDP, raw, ...: datagrams over IP.
    Datagram(Endpoints),
    /// Any other socket (netlink, vsock, packet, ...).
    OtherSocket,
    /// Anything else.
    Other,
}

/// Both ends of a socket; ports in host order, IPv4 mapped into IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Endpoints {
    /// Local address.
    pub local: [u8; 16],
    /// Local port.
    pub local_port: u16,
    /// Remote address.
    pub remote: [u8; 16],
    /// Remote port.
    pub remote_port: u16,
    /// Inode number of its network namespace.
    pub netns: u32,
}

/// A kernel stack: what it is evidence of, and its function names.
#[derive(Clone, Debug, PartialEq)]
pub struct StackInfo {
    /// Its id.
    pub stack: StackId,
    /// Function names without offsets, innermost first; empty where symbols are hidden.
    pub frames: Vec<Box<str>>,
}
