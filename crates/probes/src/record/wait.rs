// SPDX-License-Identifier: Apache-2.0
//! How a thread left the CPU, from what the switch said and what its registers held.

use super::detour_of;
use super::has;
use crate::arch;
use crate::skel::types::futex_kind;
use crate::skel::types::record_flags;
use crate::skel::types::record_wait;
use crate::skel::types::wait_entry;
use lacuna_timeline::event::Asked;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Futex;
use lacuna_timeline::event::FutexKind;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::ObjectId;
use lacuna_timeline::event::Off;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Polled;
use lacuna_timeline::event::Wait;

/// Bits of `prev_state` (include/linux/sched.h). The values have been the same since the version
/// in brackets; a kernel without a state never sets its bit.
const INTERRUPTIBLE: u32 = 0x1;
const UNINTERRUPTIBLE: u32 = 0x2;
const STOPPED: u32 = 0x4;
const TRACED: u32 = 0x8;
/// (4.14)
const PARKED: u32 = 0x40;
/// Before 5.18 the state is read late: a task that is already being woken. It was blocked.
const WAKING: u32 = 0x200;
/// (4.2)
const NOLOAD: u32 = 0x400;
/// (5.15, PREEMPT_RT)
const RTLOCK: u32 = 0x1000;
/// (6.1)
const FROZEN: u32 = 0x8000;

/// A 32-bit call has numbers of its own; they are kept apart by this bit.
const COMPAT_CALL: u32 = 1 << 31;

/// It could have gone on at once.
pub(super) fn runnable(at: Ns) -> Off {
    Off {
        at,
        state: OffState::Runnable,
        wait: Wait::default(),
        detours: Vec::new(),
    }
}

/// From the flags of a record and its wait part.
pub(super) fn off(at: Ns, flags: u32, wait: &record_wait) -> Off {
    let detours = wait
        .detours
        .iter()
        .map_while(|&kind| detour_of(kind.into()));
    if has(flags, record_flags::FLAG_RUNNABLE) {
        return Off {
            detours: detours.collect(),
            ..runnable(at)
        };
    }
    Off {
        at,
        state: state(wait.state, has(flags, record_flags::FLAG_FROZEN)),
        wait: Wait {
            entry: entry(wait),
            args: args(wait),
            object: (wait.object != 0).then_some(ObjectId(wait.object)),
            futex: futex(wait),
            iowait: has(flags, record_flags::FLAG_IOWAIT),
            polled: polled(flags),
        },
        detours: detours.collect(),
    }
}

/// The state by named bits; where several are set the more telling one decides.
pub(super) fn state(bits: u32, frozen: bool) -> OffState {
    let is = |bit| bits & bit != 0;
    if frozen || is(FROZEN) {
        OffState::Frozen
    } else if is(TRACED) {
        OffState::Traced
    } else if is(STOPPED) {
        OffState::Stopped
    } else if is(PARKED) {
        OffState::Parked
    } else if is(RTLOCK) {
        OffState::RtLock
    } else if is(UNINTERRUPTIBLE) && is(NOLOAD) {
        OffState::Idle
    } else if is(UNINTERRUPTIBLE) {
        OffState::Uninterruptible
    } else if is(INTERRUPTIBLE) || is(WAKING) {
        OffState::Sleeping
    } else {
        OffState::Other
    }
}

/// How a poll-like wait's object stands to its end.
fn polled(flags: u32) -> Polled {
    let input = has(flags, record_flags::FLAG_INPUT);
    let output = has(flags, record_flags::FLAG_OUTPUT);
    let asked = match (input, output) {
        _ if has(flags, record_flags::FLAG_CONNECT) => Asked::Connect,
        (true, false) => Asked::Input,
        (false, true) => Asked::Output,
        _ => Asked::Either,
    };
    if has(flags, record_flags::FLAG_ENDED) {
        Polled::Ended(asked)
    } else if has(flags, record_flags::FLAG_SOLE) {
        Polled::Sole(asked)
    } else {
        Polled::No
    }
}

fn entry(wait: &record_wait) -> Entry {
    match wait_entry(wait.entry.into()) {
        wait_entry::ENTRY_CALL => Entry::Call(arch::meaning(wait.call.into(), &wait.args)),
        wait_entry::ENTRY_COMPAT => Entry::Call(Call::Other(COMPAT_CALL | u32::from(wait.call))),
        wait_entry::ENTRY_FAULT => Entry::Fault,
        wait_entry::ENTRY_KERNEL => Entry::KernelThread,
        _ => Entry::NotRecorded,
    }
}

/// Arguments mean something for a call only.
fn args(wait: &record_wait) -> [u64; 4] {
    match wait_entry(wait.entry.into()) {
        wait_entry::ENTRY_CALL | wait_entry::ENTRY_COMPAT => wait.args,
        _ => [0; 4],
    }
}

fn futex(wait: &record_wait) -> Option<Futex> {
    let kind = match futex_kind(wait.futex.into()) {
        futex_kind::FUTEX_MUTEX => FutexKind::GlibcMutex,
        futex_kind::FUTEX_RWLOCK => FutexKind::GlibcRwlock,
        futex_kind::FUTEX_PI => FutexKind::Pi,
        futex_kind::FUTEX_UNOWNED => FutexKind::Unowned,
        _ => return None,
    };
    Some(Futex {
        kind,
        owner_ns_tid: wait.owner,
        address_hash: wait.args[0],
    })
}
