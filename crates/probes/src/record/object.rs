// SPDX-License-Identifier: Apache-2.0
//! What a descriptor pointed at, from its inode, its file system and its socket.

use super::text;
use crate::skel::types::object_record;
use lacuna_timeline::event::Endpoints;
use lacuna_timeline::event::ObjectId;
use lacuna_timeline::event::ObjectInfo;
use lacuna_timeline::event::ObjectKind;

/// Kinds of inode (include/uapi/linux/stat.h).
const FORMAT: u32 = 0o170_000;
const SOCKET: u32 = 0o140_000;
const REGULAR: u32 = 0o100_000;
const BLOCK: u32 = 0o060_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;
const FIFO: u32 = 0o010_000;

/// Magic numbers of file systems whose server is elsewhere: NFS, SMB1, CIFS, SMB2, FUSE (virtiofs
/// too), 9p, Ceph, AFS, Lustre (include/uapi/linux/magic.h and the file systems' own headers).
const REMOTE: [u64; 9] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x0bd0_0bd0,
];
/// POSIX message queues.
const MQUEUE: u64 = 0x1980_0202;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const TCP_LISTEN: u16 = 10;

pub(super) fn info(record: &object_record) -> ObjectInfo {
    let name = text(&record.name);
    ObjectInfo {
        object: ObjectId(record.header.id),
        kind: kind(record, &name),
        name,
        // The kernel keeps a device as major << 20 | minor, which is the encoding promised.
        dev: record.dev,
        ino: record.ino,
    }
}

fn kind(record: &object_record, name: &str) -> ObjectKind {
    match record.mode & FORMAT {
        SOCKET => socket(record),
        FIFO => ObjectKind::Pipe,
        BLOCK => ObjectKind::BlockDevice,
        CHARACTER => ObjectKind::CharDevice,
        REGULAR | DIRECTORY if record.magic == MQUEUE => ObjectKind::Notification,
        REGULAR | DIRECTORY if REMOTE.contains(&record.magic) => ObjectKind::RemoteFile,
        REGULAR | DIRECTORY => by_name(name).unwrap_or(ObjectKind::File),
        _ => by_name(name).unwrap_or(ObjectKind::Other),
    }
}

/// Anonymous inodes are told apart by the name that their maker gives; newer kernels
/// give them the format of regular files, older ones none. No file of a file system is named like this by chance:
/// the name is the whole last component, and a file called so would only lose its detail.
fn by_name(name: &str) -> Option<ObjectKind> {
    match name.trim_start_matches("anon_inode:") {
        "[eventpoll]" => Some(ObjectKind::Epoll),
        "[timerfd]" => Some(ObjectKind::Timer),
        "[eventfd]" | "[signalfd]" | "inotify" | "[fanotify]" => Some(ObjectKind::Notification),
        _ => None,
    }
}

fn socket(record: &object_record) -> ObjectKind {
    match (record.family, record.protocol) {
        (AF_UNIX, _) => ObjectKind::UnixSocket,
        (AF_INET | AF_INET6, IPPROTO_TCP) if record.state == TCP_LISTEN => {
            ObjectKind::TcpListener(endpoints(record))
        }
        (AF_INET | AF_INET6, IPPROTO_TCP) => ObjectKind::Tcp(endpoints(record)),
        (AF_INET | AF_INET6, _) => ObjectKind::Datagram(endpoints(record)),
        _ => ObjectKind::OtherSocket,
    }
}

fn endpoints(record: &object_record) -> Endpoints {
    Endpoints {
        local: address(record.family, &record.local),
        local_port: record.local_port,
        remote: address(record.family, &record.remote),
        remote_port: u16::from_be(record.remote_port),
        netns: record.netns,
    }
}

/// IPv4 is mapped into IPv6.
fn address(family: u16, bytes: &[u8; 16]) -> [u8; 16] {
    match family {
        AF_INET => {
            let [a, b, c, d, ..] = *bytes;
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        }
        _ => *bytes,
    }
}
