// SPDX-License-Identifier: Apache-2.0
//! The causes: public names, fixed phrases, precedence; and in `cause/` the one place where blocked
//! time is given one of them.
//!
//! The order of [`Cause`] is the order of precedence of docs/causes.md: where two hold at once the
//! earlier group wins, within a group the earlier row. Names are public and final.

mod blocked;
mod net;
mod stack;

pub use blocked::Blocked;
pub use blocked::ObjectClass;
pub use blocked::Verdict;
pub use blocked::blocked_cause;
pub use blocked::detour_cause;
pub use blocked::polls_nothing;
pub use blocked::verdict;
pub use net::Aspect;
pub use net::Awaited;
pub(crate) use net::pieces;
pub use stack::StackClass;

/// What a nanosecond of a thread was spent on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs, reason = "the table below names and explains each")]
pub enum Cause {
    Unknown,
    Throttle,
    RunqPreempted,
    RunqWakeup,
    RunqIdle,
    MemCompaction,
    MemLimit,
    MemReclaim,
    MemOom,
    DiskDirty,
    DiskLimit,
    MemSwap,
    MemFault,
    FsRemote,
    DiskFlush,
    DiskRead,
    DiskWrite,
    NetRetransmit,
    NetNagle,
    NetConnect,
    NetSend,
    NetAck,
    NetPeer,
    NetDatagram,
    NetIdle,
    LockFutex,
    LockKernel,
    WaitNotify,
    WaitSleep,
    WaitPipe,
    WaitChild,
    WaitPoll,
    WaitStopped,
    WaitOther,
    Cpu,
}

/// A row of the table: cause, public name, the phrase that text shows.
type Row = (Cause, &'static str, &'static str);

/// Every cause, once, in order of precedence.
const TABLE: [Row; 35] = [
    (Cause::Unknown, "unknown", "unknown"),
    (Cause::Throttle, "throttle", "CPU limit"),
    (Cause::RunqPreempted, "runq.preempted", "waiting for a CPU"),
    (Cause::RunqWakeup, "runq.wakeup", "waiting for a CPU"),
    (Cause::RunqIdle, "runq.idle", "waiting for a CPU"),
    (Cause::MemCompaction, "mem.compaction", "memory compaction"),
    (Cause::MemLimit, "mem.limit", "memory limit"),
    (Cause::MemReclaim, "mem.reclaim", "memory reclaim"),
    (Cause::MemOom, "mem.oom", "out of memory"),
    (Cause::DiskDirty, "disk.dirty", "too many dirty pages"),
    (Cause::DiskLimit, "disk.limit", "disk limit"),
    (Cause::MemSwap, "mem.swap", "swap-in"),
    (Cause::MemFault, "mem.fault", "page fault from disk"),
    (Cause::FsRemote, "fs.remote", "remote file system"),
    (Cause::DiskFlush, "disk.flush", "flush to disk"),
    (Cause::DiskRead, "disk.read", "disk read"),
    (Cause::DiskWrite, "disk.write", "disk write"),
    (Cause::NetRetransmit, "net.retransmit", "TCP retransmission"),
    (Cause::NetNagle, "net.nagle", "Nagle and delayed ACK"),
    (Cause::NetConnect, "net.connect", "TCP connect"),
    (Cause::NetSend, "net.send", "TCP send buffer full"),
    (Cause::NetAck, "net.ack", "bytes on the way"),
    (Cause::NetPeer, "net.peer", "peer"),
    (Cause::NetDatagram, "net.datagram", "datagram"),
    (Cause::NetIdle, "net.idle", "waiting for work"),
    (Cause::LockFutex, "lock.futex", "lock"),
    (Cause::LockKernel, "lock.kernel", "kernel lock"),
    (Cause::WaitNotify, "wait.notify", "waiting for a thread"),
    (Cause::WaitSleep, "wait.sleep", "asked to sleep"),
    (Cause::WaitPipe, "wait.pipe", "pipe or local socket"),
    (Cause::WaitChild, "wait.child", "child process"),
    (Cause::WaitPoll, "wait.poll", "poll"),
    (Cause::WaitStopped, "wait.stopped", "stopped"),
    (Cause::WaitOther, "wait.other", "other wait"),
    (Cause::Cpu, "cpu", "on CPU"),
];

const _: () = {
    let mut i = 0;
    while i < TABLE.len() {
        assert!(
            TABLE[i].0 as usize == i,
            "the table must be in the order of the enum"
        );
        i += 1;
    }
};

impl Cause {
    /// How many there are.
    pub const COUNT: usize = TABLE.len();

    /// Every cause, in order of precedence.
    pub fn all() -> impl Iterator<Item = Cause> {
        TABLE.iter().map(|row| row.0)
    }

    /// The public name: JSON, attributes, metric labels.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// The fixed phrase that text for people shows.
    pub fn phrase(self) -> &'static str {
        TABLE[self as usize].2
    }

    /// One of the three `runq.*` causes, whose culprits add up to the time.
    pub fn is_runq(self) -> bool {
        matches!(
            self,
            Cause::RunqPreempted | Cause::RunqWakeup | Cause::RunqIdle
        )
    }

    /// The cause of that public name.
    pub fn from_name(name: &str) -> Option<Cause> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Cause;

    #[test]
    fn the_document_names_every_cause() {
        let document = include_str!("../../../docs/causes.md");
        for cause in Cause::all() {
            let name = cause.name();
            assert!(document.contains(&format!("`{name}`")), "{name}");
            assert_eq!(Cause::from_name(name), Some(cause));
        }
    }
}
