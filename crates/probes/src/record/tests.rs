// SPDX-License-Identifier: Apache-2.0
//! The decoder against made records and against noise.

use super::KIND_NAMES;
use super::Wire;
use super::decode;
use super::wait;
use crate::skel::types;
use crate::skel::types::detour_kind;
use crate::skel::types::record_flags;
use crate::skel::types::record_kind;
use crate::skel::types::special_id;
use lacuna_timeline::event::Asked;
use lacuna_timeline::event::Blame;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::Faults;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Polled;
use lacuna_timeline::event::ThreadId;
use lacuna_timeline::event::Waker;
use std::mem::size_of;
use std::slice;

fn bytes_of<T: Wire>(value: &T) -> &[u8] {
    let start: *const T = value;
    // SAFETY: wire types have no padding, and the slice lives as long as the value.
    unsafe { slice::from_raw_parts(start.cast(), size_of::<T>()) }
}

fn decoded<T: Wire>(value: &T) -> Option<Event> {
    decode(bytes_of(value), &mut |_| Vec::new()).map(|(_, event)| event)
}

fn header(kind: record_kind, flags: u32) -> types::record_header {
    types::record_header {
        kind: kind.0 as u16,
        cpu: 1,
        flags,
        id: 4097,
    }
}

/// A xorshift: the same numbers at every run.
fn noise(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn a_queued_record_is_a_runnable_cycle() {
    let record = types::queued_record {
        header: header(record_kind::RECORD_QUEUED, record_flags::FLAG_RUNNABLE.0),
        times: types::record_times {
            seq: 7,
            end: 300,
            prev_in: 100,
            out: 200,
            waking: 0,
            enqueued: 210,
            waker: 1,
        },
        brief: types::record_brief {
            minor: 3,
            major: 1,
            detour_seq: 9,
        },
    };
    let Some(Event::Cycle(cycle)) = decoded(&record) else {
        panic!("not a cycle");
    };
    assert_eq!(cycle.off, wait::runnable(200));
    assert_eq!((cycle.seq, cycle.prev_in, cycle.end), (7, Some(100), 300));
    assert_eq!((cycle.waking, cycle.waker), (None, Waker::HardIrq));
    assert_eq!(cycle.faults, Faults { minor: 3, major: 1 });
    assert_eq!(cycle.detour_seq, 9);
}

#[test]
fn states_follow_their_bits() {
    let table = [
        (0x1, OffState::Sleeping),
        (0x2, OffState::Uninterruptible),
        (0x102, OffState::Uninterruptible),
        (0x402, OffState::Idle),
        (0x4, OffState::Stopped),
        (0x104, OffState::Stopped),
        (0x8, OffState::Traced),
        (0x40, OffState::Parked),
        (0x1000, OffState::RtLock),
        (0x2001, OffState::Sleeping),
        (0x8000, OffState::Frozen),
        (0x200, OffState::Sleeping),
        (0x4000_0000, OffState::Other),
    ];
    for (bits, expected) in table {
        assert_eq!(wait::state(bits, false), expected, "{bits:#x}");
    }
    assert_eq!(wait::state(1, true), OffState::Frozen);
}

#[test]
fn how_a_poll_ended_follows_its_flags() {
    let (ended, sole) = (record_flags::FLAG_ENDED.0, record_flags::FLAG_SOLE.0);
    let (input, output) = (record_flags::FLAG_INPUT.0, record_flags::FLAG_OUTPUT.0);
    let table = [
        (0, Polled::No),
        (input, Polled::No),
        (ended | input, Polled::Ended(Asked::Input)),
        (ended | output, Polled::Ended(Asked::Output)),
        (ended | input | output, Polled::Ended(Asked::Either)),
        (ended, Polled::Ended(Asked::Either)),
        (sole | input, Polled::Sole(Asked::Input)),
        (sole | output, Polled::Sole(Asked::Output)),
        (sole | input | output, Polled::Sole(Asked::Either)),
    ];
    for (flags, expected) in table {
        let off = wait::off(200, flags, &types::record_wait::default());
        assert_eq!(off.wait.polled, expected, "{flags:#x}");
        let merged = types::merged_record {
            header: header(record_kind::RECORD_MERGED, flags),
            ..Default::default()
        };
        let Some(Event::Merged(merged)) = decoded(&merged) else {
            panic!("not merged");
        };
        assert_eq!(merged.wait.polled, expected, "{flags:#x}");
    }
}

#[test]
fn culprits_are_summed_and_come_largest_first() {
    let slice = |thread, ns| types::record_slice { thread, ns };
    let mut record = types::crowded_record {
        base: types::long_record {
            header: header(record_kind::RECORD_CROWDED, 0),
            uncovered_ns: 1,
            ..Default::default()
        },
        ..Default::default()
    };
    record.base.slices = [
        slice(5000, 10),
        slice(6000, 15),
        slice(5000, 10),
        slice(u64::from(special_id::ID_IDLE.0), 3),
    ];
    for (place, ns) in record.more.iter_mut().zip(1..=4) {
        *place = slice(7000 + ns, ns);
    }
    let Some(Event::Cycle(cycle)) = decoded(&record) else {
        panic!("not a cycle");
    };
    let named = [(5000, 20), (6000, 15), (7004, 4), (7003, 3)];
    assert_eq!(
        cycle.blame,
        Blame {
            culprits: named.map(|(id, ns)| (ThreadId(id), ns)).to_vec(),
            rest_ns: 3,
            uncovered_ns: 4,
        }
    );
}

#[test]
fn a_short_or_unknown_record_is_none() {
    let record = types::exit_record {
        header: header(record_kind::RECORD_EXIT, 0),
        ..Default::default()
    };
    let bytes = bytes_of(&record);
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length], &mut |_| Vec::new()).is_none());
    }
    assert!(decode(bytes, &mut |_| Vec::new()).is_some());
    for kind in [0, 13, 14, u16::MAX] {
        let mut bytes = bytes.to_vec();
        bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        assert!(decode(&bytes, &mut |_| Vec::new()).is_none(), "{kind}");
    }
}

#[test]
fn a_detour_of_an_unknown_kind_is_none() {
    let mut record = types::detour_record {
        header: header(record_kind::RECORD_DETOUR, 0),
        detour: detour_kind::DETOUR_MEMCG.0,
        ..Default::default()
    };
    assert!(matches!(decoded(&record), Some(Event::Detour(_))));
    record.detour = 77;
    assert_eq!(decoded(&record), None);
}

#[test]
fn noise_never_panics_and_every_kind_is_met() {
    let mut seed = 0x1234_5678_9abc_def0;
    let mut met = [0_u32; KIND_NAMES.len()];
    for _ in 0..200_000 {
        let length = noise(&mut seed) as usize % 800;
        let mut bytes: Vec<u8> = (0..length).map(|_| noise(&mut seed) as u8).collect();
        if length >= 2 {
            let kind = (noise(&mut seed) % 16) as u16;
            bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        }
        if let Some((kind, _)) = decode(&bytes, &mut |_| Vec::new()) {
            met[kind] += 1;
        }
    }
    let detour = record_kind::RECORD_DETOUR.0 as usize;
    for (kind, &count) in met.iter().enumerate() {
        // Noise almost never names a detour that exists, and 0 is no kind.
        assert_eq!(count > 0, kind != 0 && kind != detour, "{met:?}");
    }
}
