// SPDX-License-Identifier: Apache-2.0
//! Who a process is: its identity, user, namespaces, cgroup, container and executable, from `/proc`.
//!
//! A pid alone is never an identity: it is reused. [`StartTime`] makes it one, and every reader here
//! checks it again after reading, so that facts of two processes are never mixed. Anything may
//! vanish between two reads; that is an ordinary answer ([`ProcessError::Gone`]), not a failure.
//! Command lines and environments are deliberately not read.

use crate::cgroup::CgroupPaths;
use crate::root::Root;
use rustix::time::ClockId;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;

/// `USER_HZ`: the unit of `/proc/PID/stat` is fixed at 100 a second on every architecture that this
/// project builds for (`sysconf(_SC_CLK_TCK)` says the same; it is ABI, not configuration).
const TICK_NS: u64 = 10_000_000;

/// The most threads of one process that [`threads`] lists; `/proc/sys/kernel/threads-max` is seldom
/// above it.
pub const THREADS_MAX: usize = 65_536;

/// The most processes that [`processes`] lists: the largest `pid_max` there is.
pub const PROCESSES_MAX: usize = 1 << 22;

/// How many parents up [`is_forked_worker_of`] looks.
const ANCESTORS_MAX: usize = 64;

/// When a process started, as `/proc` tells it: in ticks of 10 ms on `CLOCK_BOOTTIME`, rounded down.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StartTime {
    ticks: u64,
}

impl StartTime {
    /// From field 22 of `/proc/PID/stat`.
    pub fn from_ticks(ticks: u64) -> Self {
        Self { ticks }
    }

    /// Of what starts at this instant.
    pub fn now() -> Self {
        Self::from_ticks(crate::clock::nanoseconds(ClockId::Boottime) / TICK_NS)
    }

    /// Whether this is the start that the kernel side read as `task->start_time` (`CLOCK_MONOTONIC`
    /// nanoseconds), where `suspended_ns` is how long the host has been suspended since it booted.
    ///
    /// The conversion is inexact twice: a tick hides 10 ms, and BOOTTIME was ahead of MONOTONIC by
    /// what the host had been suspended *when the process started*, which is somewhere between 0
    /// and `suspended_ns`. Two processes with one pid are told apart all the same: a pid comes
    /// round again only after the whole range of pids was used.
    pub fn matches(self, start_ns: u64, suspended_ns: u64) -> bool {
        let boot_ns = self.ticks.saturating_mul(TICK_NS);
        let earliest = boot_ns.saturating_sub(suspended_ns);
        (earliest..boot_ns.saturating_add(TICK_NS)).contains(&start_ns)
    }
}

/// A file by identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileId {
    /// Device, `st_dev`.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// What is known of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessFacts {
    /// Thread group id in the reader's pid namespace.
    pub tgid: u32,
    /// With `tgid`, its identity.
    pub start: StartTime,
    /// Name of the leader, at most 15 bytes.
    pub comm: Box<str>,
    /// Parent's thread group id; 0 for none or one outside the pid namespace.
    pub parent: u32,
    /// The executable; `None` for kernel threads and where it may not be read.
    pub exe: Option<FileId>,
    /// Real, effective and saved user id.
    pub uids: [u32; 3],
    /// Its pid in each pid namespace, the reader's first, its own last.
    pub ns_pids: Vec<u32>,
    /// Inode of its pid namespace; `None` where it may not be read.
    pub pid_namespace: Option<u64>,
    /// Inode of its network namespace; `None` where it may not be read.
    pub net_namespace: Option<u64>,
    /// Where it is in each cgroup hierarchy.
    pub cgroup: CgroupPaths,
}

/// Why there are no facts.
#[derive(Debug)]
pub enum ProcessError {
    /// No such process (any more).
    Gone,
    /// `/proc` could not be read, or said what this reader does not understand.
    Unreadable(io::Error),
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the process has ended"),
            Self::Unreadable(error) => write!(f, "cannot read the process: {error}"),
        }
    }
}

impl std::error::Error for ProcessError {}

impl From<io::Error> for ProcessError {
    fn from(error: io::Error) -> Self {
        // A read of an open file of a process that ended says ESRCH, which has no `ErrorKind`.
        let gone = error.kind() == io::ErrorKind::NotFound
            || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
        if gone {
            Self::Gone
        } else {
            Self::Unreadable(error)
        }
    }
}

impl ProcessFacts {
    /// Reads the process that `pid` (or any thread of it) belongs to.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended before all was read.
    pub fn read(root: &Root, pid: u32) -> Result<Self, ProcessError> {
        let status =
            Status::parse(&root.read(format!("/proc/{pid}/status"))?).ok_or_else(unclear)?;
        let tgid = status.tgid;
        let stat = read_stat(root, tgid)?;
        let cgroup = CgroupPaths::parse(&root.read(format!("/proc/{tgid}/cgroup"))?);
        let facts = Self {
            tgid,
            start: stat.start,
            comm: stat.comm,
            parent: stat.parent,
            exe: exe_of(root, tgid),
            uids: status.uids,
            ns_pids: status.ns_pids,
            pid_namespace: namespace_of(root, tgid, "pid"),
            net_namespace: namespace_of(root, tgid, "net"),
            cgroup,
        };
        // The pid may have been reused between two of these reads.
        if is_alive(root, tgid, facts.start) {
            Ok(facts)
        } else {
            Err(ProcessError::Gone)
        }
    }

    /// Its pid in its own pid namespace: what it calls itself.
    pub fn own_pid(&self) -> u32 {
        self.ns_pids.last().copied().unwrap_or(self.tgid)
    }

    /// The id of its container (64 hexadecimal digits), if its cgroup names one.
    pub fn container(&self) -> Option<&str> {
        self.cgroup.container()
    }

    /// The systemd unit that it belongs to, if its cgroup names one.
    pub fn unit(&self) -> Option<&str> {
        self.cgroup.unit()
    }

    /// Whether `self`, as the owner of an exporting connection, may speak for `claimed`
    /// (rule 15): it is that process, or shares its user and container.
    pub fn may_speak_for(&self, claimed: &ProcessFacts) -> bool {
        let same_process = (self.tgid, self.start) == (claimed.tgid, claimed.start);
        same_process || (self.uids == claimed.uids && self.shares_container_with(claimed))
    }

    /// Not every runtime names its containers in a way that is known here (LXC, nspawn), but each
    /// gives them a pid namespace of their own.
    fn shares_container_with(&self, other: &ProcessFacts) -> bool {
        self.container() == other.container() && self.pid_namespace == other.pid_namespace
    }
}

/// Who is at the other end of a Unix socket (`SO_PEERCRED`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerCredentials {
    /// Effective user id when it connected.
    pub uid: u32,
    /// Its pid; `None` where it lives in a pid namespace that we cannot see into.
    pub pid: Option<u32>,
}

impl PeerCredentials {
    /// Whether that peer may ask about `target` (rule 15): root about any process, others about
    /// those that they could ptrace, which the kernel grants for one and the same user id in
    /// all three places, and which we grant only inside the same container.
    ///
    /// This is stricter than the kernel in one way (containers) and laxer in another: whether the
    /// target is dumpable is not known here.
    pub fn may_ask_about(&self, root: &Root, target: &ProcessFacts) -> bool {
        if self.uid == 0 {
            return true;
        }
        let Some(peer) = self.pid.and_then(|pid| ProcessFacts::read(root, pid).ok()) else {
            return false;
        };
        // The pid may be another's by now; then its user must still be the one that connected.
        peer.uids[1] == self.uid
            && target.uids == [self.uid; 3]
            && peer.shares_container_with(target)
    }
}

/// Whether the process is still there, and still the same.
pub fn is_alive(root: &Root, tgid: u32, start: StartTime) -> bool {
    read_stat(root, tgid).is_ok_and(|stat| stat.start == start)
}

/// The threads of a process, at most [`THREADS_MAX`].
///
/// # Errors
/// [`ProcessError::Gone`] if it ended.
pub fn threads(root: &Root, tgid: u32) -> Result<Vec<u32>, ProcessError> {
    Ok(root.numbers_in(format!("/proc/{tgid}/task"), THREADS_MAX)?)
}

/// All processes that are visible, at most [`PROCESSES_MAX`].
///
/// # Errors
/// `/proc` could not be read.
pub fn processes(root: &Root) -> io::Result<Vec<u32>> {
    root.numbers_in("/proc", PROCESSES_MAX)
}

/// Whether `owner` is a descendant of `claimed` that runs the same executable: a worker of a
/// pre-fork server, which inherited its parent's claim (rule 15).
pub fn is_forked_worker_of(root: &Root, owner: &ProcessFacts, claimed: &ProcessFacts) -> bool {
    if owner.exe.is_none() || owner.exe != claimed.exe {
        return false;
    }
    let mut parent = owner.parent;
    for _ in 0..ANCESTORS_MAX {
        if parent == claimed.tgid {
            // A child cannot be older than its parent: if it is, that pid was reused.
            return claimed.start <= owner.start && is_alive(root, claimed.tgid, claimed.start);
        }
        match read_stat(root, parent) {
            Ok(stat) if stat.parent != 0 => parent = stat.parent,
            _ => return false,
        }
    }
    false
}

/// The inode of one of a process's namespaces (`pid`, `net`, `mnt`, ...).
pub fn namespace_of(root: &Root, tgid: u32, kind: &str) -> Option<u64> {
    // `readlink` needs no more than `stat` does, and works on a copied tree in tests.
    let link = std::fs::read_link(root.path(format!("/proc/{tgid}/ns/{kind}"))).ok()?;
    bracketed_inode(link.to_str()?, kind)
}

/// The inode of `kind:[inode]`, as links in `/proc` name sockets, pipes and namespaces.
pub(crate) fn bracketed_inode(link: &str, kind: &str) -> Option<u64> {
    link.strip_prefix(kind)?
        .strip_prefix(":[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// The executable, through the `exe` link (which also works for one that was deleted).
fn exe_of(root: &Root, tgid: u32) -> Option<FileId> {
    let metadata = std::fs::metadata(root.path(format!("/proc/{tgid}/exe"))).ok()?;
    Some(FileId {
        dev: metadata.dev(),
        ino: metadata.ino(),
    })
}

fn read_stat(root: &Root, tgid: u32) -> Result<Stat, ProcessError> {
    Stat::parse(&root.read(format!("/proc/{tgid}/stat"))?).ok_or_else(unclear)
}

pub(crate) fn unclear() -> ProcessError {
    ProcessError::Unreadable(io::Error::new(
        io::ErrorKind::InvalidData,
        "not in a known form",
    ))
}

/// The name in the text of a `/proc/PID/stat`, and what follows it: field 3 first. A name may hold
/// anything, also `) R 1` and the end of a line.
pub(crate) fn around_comm(stat: &str) -> Option<(&str, &str)> {
    let (_, rest) = stat.split_once('(')?;
    rest.rsplit_once(')')
}

/// What is used of `/proc/PID/stat`.
#[derive(PartialEq, Eq, Debug)]
struct Stat {
    comm: Box<str>,
    parent: u32,
    start: StartTime,
}

impl Stat {
    /// `PID (COMM) STATE PPID ...`; field 22 is the start.
    fn parse(text: &str) -> Option<Self> {
        let (comm, rest) = around_comm(text)?;
        let mut fields = rest.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let ticks = fields.nth(17)?.parse().ok()?;
        Some(Self {
            comm: comm.into(),
            parent,
            start: StartTime::from_ticks(ticks),
        })
    }
}

/// What is used of `/proc/PID/status`.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Status {
    pub(crate) tgid: u32,
    pub(crate) uids: [u32; 3],
    pub(crate) ns_pids: Vec<u32>,
}

impl Status {
    /// `Key:\tvalues` lines. `NSpid` is absent on kernels without pid namespaces: then the pid.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numbers = |key: &str| {
            let values = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            values
                .split_ascii_whitespace()
                .map(|value| value.parse().ok())
                .collect::<Option<Vec<u32>>>()
        };
        let tgid = numbers("Tgid")?.first().copied()?;
        let pid = numbers("Pid")?.first().copied()?;
        let &[real, effective, saved, ..] = numbers("Uid")?.as_slice() else {
            return None;
        };
        let ns_pids = numbers("NSpid").filter(|pids| !pids.is_empty());
        Some(Self {
            tgid,
            uids: [real, effective, saved],
            ns_pids: ns_pids.unwrap_or_else(|| vec![pid]),
        })
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
