// SPDX-License-Identifier: Apache-2.0
//! What is written is read back, whatever it is; what is damaged ends the reading.

use super::Context;
use super::Last;
use super::Reader;
use super::read;
use super::write;
use crate::cause::Cause;
use crate::cause::ObjectClass;
use crate::cause::StackClass;
use crate::event::Asked;
use crate::event::Blame;
use crate::event::Call;
use crate::event::Connection;
use crate::event::DetourKind;
use crate::event::DeviceName;
use crate::event::DropReason;
use crate::event::Dropped;
use crate::event::Entry;
use crate::event::Faults;
use crate::event::FutexKind;
use crate::event::Migrated;
use crate::event::NetState;
use crate::event::Ns;
use crate::event::ObjectId;
use crate::event::PHASES_MAX;
use crate::event::Phase;
use crate::event::Polled;
use crate::event::Retransmits;
use crate::event::ShortDetours;
use crate::event::StackId;
use crate::event::ThreadId;
use crate::event::Throttle;
use crate::event::Waker;
use crate::record::Blamed;
use crate::record::Body;
use crate::record::Detours;
use crate::record::OffCpu;
use crate::record::Owner;
use crate::record::Pointed;
use crate::record::Record;
use crate::record::Stacked;
use crate::record::Sums;
use crate::record::Told;
use crate::record::Waited;
use crate::record::Word;
use crate::rng::Rng;

/// A number of any size, small ones as often as large ones.
fn any(rng: &mut Rng) -> u64 {
    let bits = rng.below(64);
    rng.next() >> bits
}

fn maybe<T>(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    rng.one_in(2).then(|| make(rng))
}

fn waited(rng: &mut Rng) -> Waited {
    let calls = [
        Call::Read,
        Call::Yield,
        Call::FutexWait,
        Call::Other(4_000_000_000),
    ];
    let entries = [
        Entry::NotRecorded,
        Entry::KernelThread,
        Entry::Fault,
        Entry::Call(calls[rng.below(4) as usize]),
    ];
    let owners = [
        Owner::None,
        Owner::Named(77),
        Owner::Thread(ThreadId(rng.below(3))),
    ];
    let kinds = [
        FutexKind::GlibcMutex,
        FutexKind::GlibcRwlock,
        FutexKind::Pi,
        FutexKind::Unowned,
    ];
    let polls = [
        Polled::No,
        Polled::Ended(Asked::Input),
        Polled::Ended(Asked::Output),
        Polled::Ended(Asked::Either),
        Polled::Sole(Asked::Input),
        Polled::Sole(Asked::Output),
        Polled::Sole(Asked::Either),
        Polled::Ended(Asked::Connect),
    ];
    Waited {
        entry: entries[rng.below(4) as usize],
        no_descriptors: rng.one_in(2),
        iowait: rng.one_in(2),
        polled: polls[rng.below(8) as usize],
        object: maybe(rng, |rng| Pointed {
            object: ObjectId(rng.below(50) << 33),
            class: maybe(rng, |rng| ObjectClass::ALL[rng.below(14) as usize]),
        }),
        futex: maybe(rng, |rng| Word {
            kind: kinds[rng.below(4) as usize],
            owner: owners[rng.below(3) as usize],
            address_hash: any(rng),
        }),
    }
}

fn detours(rng: &mut Rng) -> Detours {
    let kinds = [
        DetourKind::Compaction,
        DetourKind::MemcgReclaim,
        DetourKind::DirectReclaim,
    ];
    let list: Vec<DetourKind> = (0..rng.below(5))
        .map(|_| kinds[rng.below(3) as usize])
        .collect();
    Detours::new(&list)
}

fn off_cpu(rng: &mut Rng, out: Ns, end: Ns) -> OffCpu {
    let wakers = [
        Waker::Unknown,
        Waker::HardIrq,
        Waker::SoftIrq,
        Waker::Idle,
        Waker::Thread(ThreadId(rng.below(40))),
    ];
    let waking = maybe(rng, |rng| rng.between(out.saturating_sub(50), end));
    let from = waking.unwrap_or(out).max(out);
    let classes = [None, Some(Cause::MemSwap), Some(Cause::DiskDirty)];
    let blame = Blame {
        culprits: (0..rng.below(5))
            .map(|at| (ThreadId(at), any(rng) | 1))
            .collect(),
        rest_ns: any(rng),
        uncovered_ns: any(rng),
    };
    OffCpu {
        state: super::STATES[rng.below(10) as usize],
        wait: waited(rng),
        detours: detours(rng),
        waking,
        waker: wakers[rng.below(5) as usize],
        enqueued: maybe(rng, |rng| rng.between(from, end)),
        from_idle: rng.one_in(2),
        migrated: maybe(rng, |rng| Migrated {
            waited_ns: any(rng),
            at: any(rng),
        }),
        throttle: maybe(rng, |rng| Throttle {
            ns: any(rng),
            until: maybe(rng, any),
            estimated: rng.one_in(2),
            cgroup: any(rng),
        }),
        cpu: rng.below(70) as u16,
        moved: false,
        blame: if rng.one_in(2) {
            Blamed::new(&blame)
        } else {
            Blamed::NONE
        },
        stack: maybe(rng, |rng| Stacked {
            stack: StackId(any(rng)),
            class: maybe(rng, |rng| {
                StackClass::from_cause(classes[rng.below(3) as usize])
            }),
        }),
        net: told(rng, out),
    }
}

/// What was told of a connection, in any order of instants.
fn told(rng: &mut Rng, out: Ns) -> Told {
    if rng.one_in(2) {
        return [Told::Nothing, Told::Missing][rng.below(2) as usize].clone();
    }
    let phase = |rng: &mut Rng| Phase {
        at: out.wrapping_add(any(rng)).wrapping_sub(any(rng)),
        since: maybe(rng, any),
        state: NetState(any(rng) as u32),
    };
    let dropped = |rng: &mut Rng| Dropped {
        count: any(rng) as u16,
        reason: DropReason::of(rng.below(12) as u16),
        ifindex: any(rng) as u32,
        netns: any(rng) as u32,
        device: DeviceName::of(b"veth0123456789ab".get(..rng.below(17) as usize).unwrap()),
    };
    Told::Seen(Box::new(Connection {
        accepted: rng.one_in(2),
        peer_thread: maybe(rng, |rng| ThreadId(any(rng))),
        reader: maybe(rng, |rng| ThreadId(any(rng))),
        srtt_ns: any(rng),
        rtt_min_ns: any(rng),
        rto_ns: any(rng),
        retransmits: Retransmits {
            timeouts: (any(rng) >> 48) as u16,
            probes: (any(rng) >> 48) as u16,
            fast: rng.below(3) as u16,
        },
        dropped: maybe(rng, dropped),
        peer_dropped: maybe(rng, dropped),
        cut: rng.one_in(2),
        phases: (0..rng.below(PHASES_MAX as u64 + 1))
            .map(|_| phase(rng))
            .collect(),
    }))
}

/// A record after another.
fn record(rng: &mut Rng, last: Last) -> Record {
    let start = last.end + if rng.one_in(3) { any(rng) >> 8 } else { 0 };
    let out = start + (any(rng) >> 8);
    let length = any(rng) >> 8;
    let body = match rng.below(4) {
        0 => Body::Exit,
        1 => Body::Sums(Sums {
            count: any(rng) as u32,
            running_ns: any(rng),
            runnable_ns: any(rng),
            idle_wake_ns: any(rng),
            blocked_ns: any(rng),
            state: super::STATES[rng.below(10) as usize],
            wait: waited(rng),
        }),
        _ => Body::Cycle(off_cpu(rng, out, out + length)),
    };
    let length = if matches!(body, Body::Cycle(_)) {
        length
    } else {
        0
    };
    let rare = rng.one_in(2);
    let count = |rng: &mut Rng| if rare { any(rng) as u32 } else { 0 };
    let mut record = Record {
        seq: last.seq
            + if rng.one_in(3) {
                1 + (any(rng) >> 8)
            } else {
                1
            },
        detour_seq: last.detour_seq + u64::from(count(rng)),
        prev_in: maybe(rng, |_| start),
        out,
        end: out + length,
        faults: Faults {
            minor: count(rng),
            major: count(rng),
        },
        short: ShortDetours {
            compaction_ns: count(rng),
            memcg_ns: count(rng),
            reclaim_ns: count(rng),
        },
        body,
    };
    if let Body::Cycle(off) = &mut record.body {
        off.moved = off.cpu != last.cpu;
    }
    record
}

#[test]
fn what_is_written_is_read_back() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let first = Last {
            seq: any(&mut rng) >> 8,
            detour_seq: 3,
            end: any(&mut rng) >> 8,
            cpu: 1,
        };
        let mut writing = Context::new(first);
        let mut bytes = Vec::new();
        let records: Vec<Record> = (0..40)
            .map(|_| {
                let record = record(&mut rng, writing.last);
                write(&mut bytes, &mut writing, &record);
                record
            })
            .collect();
        let mut reading = Context::new(first);
        let mut input = Reader::new(&bytes);
        // One after the other into the same place: nothing may stay behind of the one before.
        let mut got = Record::blank();
        for record in &records {
            assert_eq!(read(&mut input, &mut reading, &mut got), Some(()));
            assert_eq!(&got, record, "seed {seed}");
        }
        assert_eq!(read(&mut input, &mut reading, &mut got), None);
        assert_eq!(reading, writing);
    }
}

#[test]
fn damaged_bytes_end_the_reading() {
    for seed in 0..2000 {
        let mut rng = Rng::new(seed);
        let bytes: Vec<u8> = (0..rng.below(300)).map(|_| rng.next() as u8).collect();
        let mut context = Context::new(Last::default());
        let mut input = Reader::new(&bytes);
        let mut record = Record::blank();
        let mut records = 0;
        while read(&mut input, &mut context, &mut record).is_some() {
            records += 1;
            assert!(records <= bytes.len(), "every record takes a byte at least");
        }
    }
}
