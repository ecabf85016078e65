// SPDX-License-Identifier: Apache-2.0
//! Delay accounting of a process through taskstats: for how long its threads waited for storage, for
//! swap, and inside reclaim and compaction.
//!
//! Asked over generic netlink, which needs CAP_NET_ADMIN in the first network namespace. The kernel
//! counts only while `kernel.task_delayacct` is 1 (off by default since 5.14), and only threads that
//! began after that (`delayacct_tsk_init` of `include/linux/delayacct.h`); the answer has zeros where it
//! does not, so `sys::delay_accounting` must be asked as well, and [`Delays::events`]. Layout:
//! `linux/taskstats.h`, which is ABI and grows at its end, except for version 15 (6.14).

use crate::netlink::HEADER_BYTES;
use crate::netlink::NLM_F_REQUEST;
use crate::netlink::NLMSG_ERROR;
use crate::netlink::attributes;
use crate::netlink::error_in;
use crate::netlink::malformed;
use crate::netlink::messages;
use crate::netlink::u16_at;
use crate::netlink::u64_at;
use rustix::fd::OwnedFd;
use rustix::net::AddressFamily;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::net::netlink;
use rustix::net::sockopt::Timeout;
use rustix::net::sockopt::set_socket_timeout;
use std::io;
use std::time::Duration;

/// The kernel answers at once; this is for a kernel that does not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// More than any answer takes: `struct taskstats` has some 500 bytes.
const ANSWER_BYTES_MAX: usize = 4_096;

/// `struct genlmsghdr`.
const GENERIC_HEADER_BYTES: usize = 4;
/// The family that tells the numbers of the others (`GENL_ID_CTRL`), and how it is asked.
const CONTROL_FAMILY: u16 = 16;
const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;
const CONTROL_VERSION: u8 = 1;
/// `TASKSTATS_CMD_GET`, and the attributes of its question and answer.
const COMMAND_GET: u8 = 1;
const ATTRIBUTE_TGID: u16 = 2;
const TYPE_STATS: u16 = 3;
const TYPE_AGGREGATE_TGID: u16 = 5;
const TASKSTATS_VERSION: u8 = 1;
/// The version that put fields between the others; 16 took them to the end.
const VERSION_OUT_OF_ORDER: u16 = 15;
/// Where the counts are that only a thread has whose delays are counted: block I/O, swap, reclaim,
/// thrashing (version 9), compaction (11), copies on write (13, and nearly every process makes some).
const COUNTS_AT: [usize; 6] = [32, 48, 312, 328, 352, 400];

/// Sums over the threads of a process, those that have ended included, nanoseconds. What the kernel
/// does not tell yet is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delays {
    /// Waiting for block I/O that it asked for itself.
    pub block_io_ns: u64,
    /// Waiting for pages to come back from swap; some kernels count it as block I/O, too.
    pub swap_in_ns: u64,
    /// Reclaiming memory for its own allocations.
    pub reclaim_ns: u64,
    /// Waiting for pages that had been evicted shortly before (4.20).
    pub thrashing_ns: Option<u64>,
    /// Compacting memory for its own allocations (5.18).
    pub compaction_ns: Option<u64>,
    /// How many delays of whatever kind were ever counted. 0: most likely none is counted at all,
    /// because the process is older than the switch.
    pub events: u64,
}

impl Delays {
    /// From the bytes of a `struct taskstats`, of whichever version but 15.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if u16_at(bytes, 0)? == VERSION_OUT_OF_ORDER {
            return None;
        }
        let counts = COUNTS_AT.iter().filter_map(|at| u64_at(bytes, *at));
        Some(Self {
            events: counts.fold(0, u64::saturating_add),
            block_io_ns: u64_at(bytes, 40)?,
            swap_in_ns: u64_at(bytes, 56)?,
            reclaim_ns: u64_at(bytes, 320)?,
            thrashing_ns: u64_at(bytes, 336),
            compaction_ns: u64_at(bytes, 360),
        })
    }
}

/// A way to ask.
#[derive(Debug)]
pub struct Taskstats {
    netlink: OwnedFd,
    family: u16,
}

impl Taskstats {
    /// Finds the kernel's number for it.
    ///
    /// # Errors
    /// The kernel has none (`CONFIG_TASKSTATS`), or not in this network namespace.
    pub fn open() -> io::Result<Self> {
        let netlink = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::GENERIC),
        )?;
        set_socket_timeout(&netlink, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        let name = (CONTROL_FAMILY_NAME, &b"TASKSTATS\0"[..]);
        let question = request(CONTROL_FAMILY, CONTROL_GET_FAMILY, CONTROL_VERSION, name);
        let family = ask(&netlink, &question, |answer| {
            let mut answer = attributes(answer);
            u16_at(answer.find(|(kind, _)| *kind == CONTROL_FAMILY_ID)?.1, 0)
        })?;
        Ok(Self { netlink, family })
    }

    /// The delays of a process so far.
    ///
    /// # Errors
    /// It ended, or this process has no CAP_NET_ADMIN.
    pub fn of_process(&self, tgid: u32) -> io::Result<Delays> {
        let which = (ATTRIBUTE_TGID, &tgid.to_ne_bytes()[..]);
        let question = request(self.family, COMMAND_GET, TASKSTATS_VERSION, which);
        ask(&self.netlink, &question, stats_in)
    }
}

fn stats_in(answer: &[u8]) -> Option<Delays> {
    let (_, aggregate) = attributes(answer).find(|(kind, _)| *kind == TYPE_AGGREGATE_TGID)?;
    let (_, stats) = attributes(aggregate).find(|(kind, _)| *kind == TYPE_STATS)?;
    Delays::parse(stats)
}

/// A request of generic netlink with one attribute.
fn request(family: u16, command: u8, version: u8, (kind, value): (u16, &[u8])) -> Vec<u8> {
    let attribute_bytes = 4 + value.len();
    let bytes = HEADER_BYTES + GENERIC_HEADER_BYTES + attribute_bytes.next_multiple_of(4);
    let mut request = Vec::with_capacity(bytes);
    request.extend((bytes as u32).to_ne_bytes());
    request.extend(family.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]); // sequence number and sender: one request, one answer
    request.extend([command, version, 0, 0]);
    request.extend((attribute_bytes as u16).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(bytes, 0);
    request
}

/// Sends a request and reads its one answer.
fn ask<T>(
    netlink: &OwnedFd,
    request: &[u8],
    find: impl FnOnce(&[u8]) -> Option<T>,
) -> io::Result<T> {
    rustix::net::send(netlink, request, SendFlags::empty())?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let (length, _) = rustix::net::recv(netlink, &mut answer[..], RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    let message = messages(answer).next().ok_or_else(malformed)?;
    if message.kind == NLMSG_ERROR {
        return Err(error_in(message.payload).unwrap_or_else(malformed));
    }
    let rest = message.payload.get(GENERIC_HEADER_BYTES..);
    find(rest.unwrap_or_default()).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::Delays;
    use super::Taskstats;
    use super::stats_in;
    use crate::mutate::broken_bytes;
    use std::io;

    /// A `struct taskstats` of that length; each 64-bit word is its own offset.
    fn stats(bytes: usize) -> Vec<u8> {
        (0..bytes as u64 / 8)
            .flat_map(|word| (word * 8).to_ne_bytes())
            .collect()
    }

    #[test]
    fn delays_of_kernels_old_and_new() {
        // Versions 8 (2.6.33), 9 (4.20), 11 (5.18), 16 (6.14).
        for bytes in [328, 344, 368, 512] {
            let delays = Delays::parse(&stats(bytes)).unwrap();
            assert_eq!((delays.block_io_ns, delays.swap_in_ns), (40, 56));
            assert_eq!(delays.reclaim_ns, 320);
            assert_eq!(delays.thrashing_ns, (bytes >= 344).then_some(336));
            assert_eq!(delays.compaction_ns, (bytes >= 368).then_some(360));
        }
        assert_eq!(Delays::parse(&stats(320)), None);
        let mut out_of_order = stats(512);
        out_of_order[..2].copy_from_slice(&15_u16.to_ne_bytes());
        assert_eq!(Delays::parse(&out_of_order), None);
    }

    #[test]
    fn what_was_never_counted_is_told_from_what_is_quiet() {
        let mut bytes = vec![0; 512];
        assert_eq!(Delays::parse(&bytes).unwrap().events, 0);
        // Copies on write of version 13.
        bytes[400] = 3;
        assert_eq!(Delays::parse(&bytes).unwrap().events, 3);
        // Of version 8, and one that wrapped.
        assert_eq!(Delays::parse(&stats(328)).unwrap().events, 32 + 48 + 312);
        assert_eq!(Delays::parse(&[0xff; 512]).unwrap().events, u64::MAX);
    }

    #[test]
    fn root_this_process_is_told_of_and_nobody_is_not() {
        let taskstats = Taskstats::open().unwrap();
        taskstats.of_process(std::process::id()).unwrap();
        assert!(taskstats.of_process(u32::MAX >> 1).is_err());
    }

    #[test]
    fn without_privilege_it_is_refused_and_says_so() {
        let refused = std::thread::spawn(|| {
            crate::caps::keep_only(&[]).unwrap();
            Taskstats::open()?.of_process(std::process::id())
        });
        let error = refused.join().unwrap().unwrap_err();
        // A kernel without it says that it is not there.
        let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound];
        assert!(kinds.contains(&error.kind()), "{error}");
    }

    #[test]
    fn no_bytes_make_the_parsers_fail() {
        let mut answer = Vec::new();
        let inner = stats(368);
        answer.extend(
            [inner.len() as u16 + 8, 5, inner.len() as u16 + 4, 3]
                .map(u16::to_ne_bytes)
                .concat(),
        );
        answer.extend(inner);
        assert!(stats_in(&answer).is_some());
        let known = broken_bytes(&answer).filter_map(|bytes| stats_in(&bytes));
        assert!(known.count() > 100, "some are still good");
    }
}
