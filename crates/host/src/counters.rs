// SPDX-License-Identifier: Apache-2.0
//! What the kernel counts for a thread, a process and a network namespace, whether or not anybody
//! looks: context switches, migrations, page faults, read and write calls, bytes from and to storage,
//! TCP segments.
//!
//! Each reader gives the counter as it stands; what happened in a window is [`grown`] between two
//! readings. A counter that a kernel does not have, or that may not be read, is `None` or an error,
//! never 0. Nothing here decides what a number means.

use std::fs::File;
use std::io;
use std::io::Read;

use crate::process::ProcessError;
use crate::process::THREADS_MAX;
use crate::process::around_comm;
use crate::process::unclear;
use crate::root::Root;

/// The longest text of a `/proc/PID/io`: seven names with a number each.
const IO_BYTES_MAX: usize = 512;

/// Context switches of one thread since it began, from `/proc/PID/task/TID/status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Switches {
    /// It waited for something.
    pub voluntary: u64,
    /// It was taken off its CPU while it could have run on.
    pub involuntary: u64,
}

impl Switches {
    /// Of one thread of a process.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if the thread ended.
    pub fn read(root: &Root, tgid: u32, tid: u32) -> Result<Self, ProcessError> {
        let text = root.read(format!("/proc/{tgid}/task/{tid}/status"))?;
        Self::parse(&text).ok_or_else(unclear)
    }

    /// From the text of a `status` (2.6.23 on). A thread's name cannot make a line there: the kernel
    /// escapes what would end it.
    pub fn parse(status: &str) -> Option<Self> {
        Some(Self {
            voluntary: keyed(status, "voluntary_ctxt_switches:")?,
            involuntary: keyed(status, "nonvoluntary_ctxt_switches:")?,
        })
    }
}

/// Page faults of a process since it began, from `/proc/PID/stat`: of all its threads, also of those
/// that have ended; not of its children.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Served without waiting for storage.
    pub minor: u64,
    /// Waited for storage.
    pub major: u64,
}

impl Faults {
    /// Of a process.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended.
    pub fn read(root: &Root, tgid: u32) -> Result<Self, ProcessError> {
        let text = root.read(format!("/proc/{tgid}/stat"))?;
        Self::parse(&text).ok_or_else(unclear)
    }

    /// Fields 10 and 12 of a `stat`.
    pub fn parse(stat: &str) -> Option<Self> {
        let mut fields = around_comm(stat)?.1.split_ascii_whitespace();
        Some(Self {
            minor: fields.nth(7)?.parse().ok()?,
            major: fields.nth(1)?.parse().ok()?,
        })
    }
}

/// Reads and writes of a process since it began, from `/proc/PID/io`: of all its threads, also of those
/// that have ended, and of every child that it has waited for (the kernel adds those when they are
/// reaped). Needs `CONFIG_TASK_IO_ACCOUNTING`, and the right to trace the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Io {
    /// Calls of the `read` kind, on whatever: files, pipes, terminals. `recv` is none.
    pub read_calls: u64,
    /// Calls of the `write` kind.
    pub write_calls: u64,
    /// Bytes that it caused to be fetched from storage, also by page faults and read-ahead.
    pub read_bytes: u64,
    /// Bytes of the page cache that it made dirty, which storage will get.
    pub written_bytes: u64,
}

impl Io {
    /// Of a process.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended; [`ProcessError::Unreadable`] where this process may not
    /// trace it, or the kernel does not count.
    pub fn read(root: &Root, tgid: u32) -> Result<Self, ProcessError> {
        let text = root.read(format!("/proc/{tgid}/io"))?;
        Self::parse(&text).ok_or_else(unclear)
    }

    /// What this process has got from the children that it waited for; only the growth of it means
    /// anything, between two calls with the same threads around.
    ///
    /// As a parent takes a dead child away, the kernel adds all that the child had counted, with what
    /// it had got from its own children, to what the parent's threads have not counted themselves
    /// (`wait_task_zombie` of `kernel/exit.c`). The child's own `/proc/PID/io` would say the same, but
    /// not to everybody: newer kernels show that of the dead only to those with CAP_SYS_PTRACE.
    ///
    /// # Errors
    /// The kernel does not count (`CONFIG_TASK_IO_ACCOUNTING`).
    pub fn inherited() -> Result<Self, ProcessError> {
        // One call of read each, so that these readings differ by the same number every time.
        let read = |path: String| {
            let mut text = [0; IO_BYTES_MAX];
            let length = File::open(path)?.read(&mut text)?;
            let text = text.get(..length).unwrap_or_default();
            Self::parse(&String::from_utf8_lossy(text)).ok_or_else(unclear)
        };
        let mut rest = read("/proc/self/io".to_owned())?;
        for tid in Root::host().numbers_in("/proc/self/task", THREADS_MAX)? {
            let own = read(format!("/proc/self/task/{tid}/io"))?;
            // Below 0 by the calls that the readings themselves take: wrapping, as `grown` is.
            rest = rest.with(own, u64::wrapping_sub);
        }
        Ok(rest)
    }

    /// Each part of it with the same part of another.
    #[must_use]
    pub fn with(self, other: Self, join: fn(u64, u64) -> u64) -> Self {
        Self {
            read_calls: join(self.read_calls, other.read_calls),
            write_calls: join(self.write_calls, other.write_calls),
            read_bytes: join(self.read_bytes, other.read_bytes),
            written_bytes: join(self.written_bytes, other.written_bytes),
        }
    }

    /// From the text of an `io`.
    pub fn parse(io: &str) -> Option<Self> {
        Some(Self {
            read_calls: keyed(io, "syscr:")?,
            write_calls: keyed(io, "syscw:")?,
            read_bytes: keyed(io, "read_bytes:")?,
            written_bytes: keyed(io, "write_bytes:")?,
        })
    }
}

/// How often one thread was moved to another CPU since it began, from `/proc/PID/task/TID/sched`; `None`
/// where the kernel is built without that file (`CONFIG_SCHED_DEBUG`, before 6.15 a choice).
///
/// # Errors
/// [`ProcessError::Gone`] if the thread ended.
pub fn migrations(root: &Root, tgid: u32, tid: u32) -> Result<Option<u64>, ProcessError> {
    let thread = format!("/proc/{tgid}/task/{tid}");
    match root.read(format!("{thread}/sched")) {
        Ok(text) => Ok(migrations_of(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && root.exists(thread) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// From the text of a `sched`. Its first line has the thread's name as it is, which is too short
/// (15 bytes) to be taken for this key.
pub fn migrations_of(sched: &str) -> Option<u64> {
    sched.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim_end() == "se.nr_migrations").then(|| value.trim().parse().ok())?
    })
}

/// TCP of a whole network namespace since it was made, from its `/proc/net/snmp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tcp {
    /// Segments that came in.
    pub segments_in: u64,
    /// Segments that went out, without those that carried only what had been sent before.
    pub segments_out: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
}

impl Tcp {
    /// Of the network namespace that a process is in.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended.
    pub fn read(root: &Root, tgid: u32) -> Result<Self, ProcessError> {
        let text = root.read(format!("/proc/{tgid}/net/snmp"))?;
        Self::parse(&text).ok_or_else(unclear)
    }

    /// Two lines `Tcp:`, names and values. Which place a name has differs between kernels.
    pub fn parse(snmp: &str) -> Option<Self> {
        let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let names: Vec<&str> = lines.next()?.split(' ').collect();
        let values: Vec<&str> = lines.next()?.split(' ').collect();
        let value = |wanted| {
            let at = names.iter().position(|name| *name == wanted)?;
            values.get(at)?.parse().ok()
        };
        Some(Self {
            segments_in: value("InSegs")?,
            segments_out: value("OutSegs")?,
            retransmits: value("RetransSegs")?,
        })
    }
}

/// How far a counter has come between two readings, also where it wrapped between them. `None`: it went
/// back, so it is not one counter (another process has the number by now, or another namespace).
pub fn grown(before: u64, after: u64) -> Option<u64> {
    // No counter of the kernel grows by 2^63 while anybody waits for it.
    let grown = after.wrapping_sub(before);
    (grown <= u64::MAX / 2).then_some(grown)
}

/// The number on the line that begins with `key`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.trim().parse().ok()
}

#[cfg(test)]
#[path = "counters_tests.rs"]
mod tests;
