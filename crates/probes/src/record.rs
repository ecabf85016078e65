// SPDX-License-Identifier: Apache-2.0
//! The only decoder: bytes of one record in, one event out.
//!
//! Total: a record of an unknown kind or length gives `None`, which the caller counts. No bytes make
//! it panic, because every wire type consists of integers that take any value.

mod blame;
mod net;
mod object;
mod wait;

use crate::skel::types;
use crate::skel::types::detour_kind;
use crate::skel::types::record_flags;
use crate::skel::types::record_kind;
use crate::skel::types::special_id;
use lacuna_timeline::event::Asleep;
use lacuna_timeline::event::Blame;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Detour;
use lacuna_timeline::event::DetourKind;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::Exit;
use lacuna_timeline::event::Faults;
use lacuna_timeline::event::Merged;
use lacuna_timeline::event::Migrated;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::Off;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::event::ShortDetours;
use lacuna_timeline::event::Snapshot;
use lacuna_timeline::event::StackId;
use lacuna_timeline::event::StackInfo;
use lacuna_timeline::event::ThreadId;
use lacuna_timeline::event::ThreadInfo;
use lacuna_timeline::event::Throttle;
use lacuna_timeline::event::Took;
use lacuna_timeline::event::Waker;
use std::mem::size_of;

/// Names of the kinds, by their number on the wire; number 0 is no record.
pub(crate) const KIND_NAMES: [&str; 14] = [
    "none", "queued", "wait", "long", "crowded", "merged", "detour", "exit", "thread", "object",
    "stack", "snapshot", "net", "read",
];

/// `since` of a thread whose switches are not recorded: it never comes.
const NEVER: Ns = Ns::MAX;

/// A type of the kernel side: integers, so that any bytes are a value of it.
///
/// # Safety
///
/// Only for types whose every bit pattern is valid.
unsafe trait Wire: Copy {}

macro_rules! wire {
    ($($name:ident: $bytes:expr),* $(,)?) => {
        $(
            // SAFETY: record.h has integers only and asserts the size that explicit padding gives.
            unsafe impl Wire for types::$name {}
            const _: () = assert!(size_of::<types::$name>() == $bytes);
        )*
    };
}

wire! {
    record_header: 16,
    queued_record: 80,
    wait_record: 136,
    long_record: 272,
    crowded_record: 720,
    merged_record: 160,
    detour_record: 48,
    exit_record: 64,
    thread_record: 88,
    object_record: 144,
    stack_record: 144,
    snapshot_record: 120,
    net_record: 400,
    read_record: 32,
}

// SAFETY: integers only; it is read, never written, so that its inner padding does not matter.
unsafe impl Wire for types::cpu_state {}

/// Reads one value; `None` if the bytes are too few.
fn read<T: Wire>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the length was checked, `T` takes any bytes, and the read asks for no alignment.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// What a CPU has counted.
pub(crate) fn read_cpu(bytes: &[u8]) -> Option<types::cpu_state> {
    read(bytes)
}

/// The kind of a record and its event.
pub(crate) fn decode(
    bytes: &[u8],
    symbolize: &mut dyn FnMut(&[u64]) -> Vec<Box<str>>,
) -> Option<(usize, Event)> {
    let header: types::record_header = read(bytes)?;
    let kind = record_kind(header.kind.into());
    let event = match kind {
        record_kind::RECORD_QUEUED => Event::Cycle(queued(&read(bytes)?)),
        record_kind::RECORD_WAIT => Event::Cycle(waited(&read(bytes)?)),
        record_kind::RECORD_LONG => Event::Cycle(long(&read(bytes)?, &[])),
        record_kind::RECORD_CROWDED => Event::Cycle(crowded(&read(bytes)?)),
        record_kind::RECORD_MERGED => Event::Merged(merged(&read(bytes)?)),
        record_kind::RECORD_DETOUR => Event::Detour(detour(&read(bytes)?)?),
        record_kind::RECORD_EXIT => Event::Exit(exit(&read(bytes)?)),
        record_kind::RECORD_THREAD => Event::Thread(thread(&read(bytes)?)),
        record_kind::RECORD_OBJECT => Event::Object(object::info(&read(bytes)?)),
        record_kind::RECORD_STACK => Event::Stack(stack(&read(bytes)?, symbolize)),
        record_kind::RECORD_SNAPSHOT => snapshot(&read(bytes)?),
        record_kind::RECORD_NET => Event::Net(net::told(&read(bytes)?)),
        record_kind::RECORD_READ => Event::Took(took(&read(bytes)?)?),
        _ => return None,
    };
    Some((usize::from(header.kind), event))
}

/// That a request was taken from a connection; `None` where the connection has no port.
fn took(record: &types::read_record) -> Option<Took> {
    Some(Took {
        thread: ThreadId(record.header.id),
        at: record.at,
        peer_port: record.peer_port.try_into().ok()?,
    })
}

/// How long a record of this kind is: the iterator writes them one after the other.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let header: types::record_header = read(bytes)?;
    match record_kind(header.kind.into()) {
        record_kind::RECORD_THREAD => Some(size_of::<types::thread_record>()),
        record_kind::RECORD_SNAPSHOT => Some(size_of::<types::snapshot_record>()),
        _ => None,
    }
}

fn known(ns: u64) -> Option<Ns> {
    (ns != 0).then_some(ns)
}

fn has(flags: u32, flag: record_flags) -> bool {
    flags & flag.0 != 0
}

fn waker(id: u64) -> Waker {
    match u32::try_from(id).map(special_id) {
        Ok(special_id::ID_UNKNOWN) => Waker::Unknown,
        Ok(special_id::ID_HARDIRQ) => Waker::HardIrq,
        Ok(special_id::ID_SOFTIRQ) => Waker::SoftIrq,
        Ok(special_id::ID_IDLE) => Waker::Idle,
        _ => Waker::Thread(ThreadId(id)),
    }
}

/// A cycle with nothing unusual in it.
fn cycle(
    header: &types::record_header,
    times: &types::record_times,
    off: Off,
    faults: Faults,
    detour_seq: u32,
) -> Cycle {
    Cycle {
        thread: ThreadId(header.id),
        seq: times.seq,
        prev_in: known(times.prev_in),
        off,
        waking: known(times.waking),
        waker: waker(times.waker),
        enqueued: known(times.enqueued),
        from_idle: has(header.flags, record_flags::FLAG_FROM_IDLE),
        migrated: None,
        throttle: None,
        end: times.end,
        cpu: header.cpu,
        blame: Blame::default(),
        stack: None,
        net: has(header.flags, record_flags::FLAG_NET),
        faults,
        short: ShortDetours::default(),
        detour_seq: detour_seq.into(),
    }
}

fn brief_faults(brief: &types::record_brief) -> Faults {
    Faults {
        minor: brief.minor.into(),
        major: brief.major.into(),
    }
}

fn queued(record: &types::queued_record) -> Cycle {
    cycle(
        &record.header,
        &record.times,
        wait::runnable(record.times.out),
        brief_faults(&record.brief),
        record.brief.detour_seq,
    )
}

fn waited(record: &types::wait_record) -> Cycle {
    cycle(
        &record.header,
        &record.times,
        wait::off(record.times.out, record.header.flags, &record.wait),
        brief_faults(&record.brief),
        record.brief.detour_seq,
    )
}

fn crowded(record: &types::crowded_record) -> Cycle {
    long(&record.base, &record.more)
}

fn long(record: &types::long_record, more: &[types::record_slice]) -> Cycle {
    let mut long = cycle(
        &record.header,
        &record.times,
        wait::off(record.times.out, record.header.flags, &record.wait),
        faults(&record.changes),
        record.changes.detour_seq,
    );
    long.short = short(&record.changes);
    long.stack = (record.stack != 0).then_some(StackId(record.stack));
    long.migrated = (record.migrated_at != 0).then_some(Migrated {
        waited_ns: record.migrated_ns,
        at: record.migrated_at,
    });
    long.throttle = (record.throttle_ns != 0).then_some(Throttle {
        ns: record.throttle_ns,
        until: known(record.throttle_until),
        estimated: has(record.header.flags, record_flags::FLAG_ESTIMATED),
        cgroup: record.throttle_cgroup,
    });
    long.blame = blame::told(record, more);
    long
}

fn faults(changes: &types::record_changes) -> Faults {
    Faults {
        minor: changes.minor,
        major: changes.major,
    }
}

fn short(changes: &types::record_changes) -> ShortDetours {
    let [compaction_ns, memcg_ns, reclaim_ns] = changes.short_ns;
    ShortDetours {
        compaction_ns,
        memcg_ns,
        reclaim_ns,
    }
}

fn merged(record: &types::merged_record) -> Merged {
    let off = wait::off(record.end, record.header.flags, &record.wait);
    Merged {
        thread: ThreadId(record.header.id),
        seq: record.seq,
        prev_in: known(record.prev_in),
        end: record.end,
        count: record.count,
        running_ns: record.running_ns,
        runnable_ns: record.runnable_ns,
        idle_wake_ns: record.idle_wake_ns,
        blocked_ns: record.blocked_ns,
        state: off.state,
        wait: off.wait,
        faults: faults(&record.changes),
        short: short(&record.changes),
        detour_seq: record.changes.detour_seq.into(),
    }
}

/// The kind of a detour by its number on the wire.
fn detour_of(kind: u32) -> Option<DetourKind> {
    match detour_kind(kind) {
        detour_kind::DETOUR_COMPACTION => Some(DetourKind::Compaction),
        detour_kind::DETOUR_MEMCG => Some(DetourKind::MemcgReclaim),
        detour_kind::DETOUR_RECLAIM => Some(DetourKind::DirectReclaim),
        _ => None,
    }
}

fn detour(record: &types::detour_record) -> Option<Detour> {
    Some(Detour {
        thread: ThreadId(record.header.id),
        seq: record.detour_seq.into(),
        kind: detour_of(record.detour)?,
        begin: record.begin,
        end: record.end,
        detail: record.detail,
    })
}

fn exit(record: &types::exit_record) -> Exit {
    Exit {
        thread: ThreadId(record.header.id),
        seq: record.seq,
        prev_in: known(record.prev_in),
        at: record.at,
        faults: faults(&record.changes),
        short: short(&record.changes),
        detour_seq: record.changes.detour_seq.into(),
    }
}

fn thread(record: &types::thread_record) -> ThreadInfo {
    ThreadInfo {
        thread: ThreadId(record.header.id),
        process: ProcessId {
            tgid: record.tgid,
            start_ns: record.process_start,
        },
        tid: record.tid,
        ns_tid: record.ns_tid,
        ns_tgid: record.ns_tgid,
        comm: text(&record.comm),
        kernel: has(record.header.flags, record_flags::FLAG_KERNEL),
        start_ns: record.start,
        since: known(record.since).unwrap_or(NEVER),
        cgroup: record.cgroup,
        fs_base: record.fs_base,
    }
}

/// A name of the kernel, up to its first zero.
fn text(bytes: &[u8]) -> Box<str> {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into()
}

fn stack(
    record: &types::stack_record,
    symbolize: &mut dyn FnMut(&[u64]) -> Vec<Box<str>>,
) -> StackInfo {
    let end = record.frames.iter().position(|&frame| frame == 0);
    let frames = &record.frames[..end.unwrap_or(record.frames.len())];
    StackInfo {
        stack: StackId(record.header.id),
        frames: symbolize(frames),
    }
}

fn snapshot(record: &types::snapshot_record) -> Event {
    if has(record.header.flags, record_flags::FLAG_ASLEEP) {
        return Event::Asleep(Asleep {
            thread: ThreadId(record.header.id),
            from: record.out,
            until: record.at,
        });
    }
    let off = wait::off(record.out, record.header.flags, &record.wait);
    let (open, off) = match record.out {
        0 => (off.detours, None),
        _ => (Vec::new(), Some(off)),
    };
    Event::Snapshot(Snapshot {
        thread: ThreadId(record.header.id),
        seq: record.seq,
        at: record.at,
        last_in: known(record.last_in),
        off,
        open,
        detour_seq: record.detour_seq.into(),
        waking: known(record.waking),
    })
}

#[cfg(test)]
mod tests;
