// SPDX-License-Identifier: Apache-2.0
//! What the flight recorder costs: bytes for each stored segment, nanoseconds to take a record in,
//! and nanoseconds to account one span against ten million segments.
//!
//! A plain program that prints; nothing is asserted. The records are made like those of a busy
//! host: 200 threads, runs of microseconds to a millisecond, futex, poll and socket waits, some
//! preemption with blame lists, some stacks. Run it with `cargo bench -p lacuna-timeline`.
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use std::ops::Range;
use std::time::Instant;

use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::Recorder;
use lacuna_timeline::ThreadId;
use lacuna_timeline::event::Blame;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Faults;
use lacuna_timeline::event::Futex;
use lacuna_timeline::event::FutexKind;
use lacuna_timeline::event::ObjectId;
use lacuna_timeline::event::Off;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Polled;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::event::ShortDetours;
use lacuna_timeline::event::StackId;
use lacuna_timeline::event::ThreadInfo;
use lacuna_timeline::event::Wait;
use lacuna_timeline::event::Waker;

#[path = "../tests/simulator/rng.rs"]
mod rng;

use rng::Rng;

/// Threads that take turns.
const THREADS: u64 = 200;

/// Segments to store.
const SEGMENTS: u64 = 10_000_000;

/// Spans to account.
const SPANS: usize = 100_000;

fn main() {
    let mut rng = Rng::new(1);
    let mut recorder = Recorder::new(4 << 30);
    for id in 1..=THREADS {
        recorder.push(Event::Thread(thread(id)));
    }
    let before = resident_bytes();
    let mut ends = vec![1_000_000_000; THREADS as usize];
    let mut cycles = 0_u64;
    let mut taking = 0;
    while recorder.stats().segments < SEGMENTS {
        let batch: Vec<Event> = (0..10_000)
            .map(|_| {
                let at = rng.below(THREADS) as usize;
                let cycle = cycle(&mut rng, at as u64 + 1, cycles, ends[at]);
                ends[at] = cycle.end;
                cycles += 1;
                Event::Cycle(cycle)
            })
            .collect();
        let begin = on_cpu_ns();
        for event in batch {
            recorder.push(event);
        }
        taking += on_cpu_ns().saturating_sub(begin);
    }
    let stats = recorder.stats();
    let resident = resident_bytes().saturating_sub(before);
    println!("segments                 {}", stats.segments);
    println!("records                  {}", stats.records);
    println!(
        "bytes by bookkeeping     {:.2} a segment",
        stats.bytes as f64 / stats.segments as f64
    );
    println!(
        "bytes by resident memory {:.2} a segment",
        resident as f64 / stats.segments as f64
    );
    println!("take a record in         {} ns on a CPU", taking / cycles);
    let last = ends.iter().copied().min().unwrap_or_default();
    for (name, length) in [
        ("1 ms", 1_000_000),
        ("10 ms", 10_000_000),
        ("100 ms", 100_000_000),
    ] {
        spans(&recorder, &mut rng, name, length, last);
    }
}

/// Accounts random spans of one length, each with three children cut out.
fn spans(recorder: &Recorder, rng: &mut Rng, name: &str, length: Ns, last: Ns) {
    let mut times = Vec::with_capacity(SPANS);
    let mut intervals = 0;
    let on_cpu = on_cpu_ns();
    for _ in 0..SPANS {
        let thread = ThreadId(rng.between(1, THREADS));
        let start = rng.between(1_000_000_000, last - length);
        let windows = gap(start, length);
        let begin = Instant::now();
        let account = recorder.account(thread, &windows);
        times.push(begin.elapsed().as_nanos() as u64);
        intervals += account.shares.iter().map(|share| share.count).sum::<u64>();
    }
    let on_cpu = on_cpu_ns().saturating_sub(on_cpu) / SPANS as u64;
    times.sort_unstable();
    println!(
        "account a span of {name:6}  median {} ns, p99 {} ns, {on_cpu} ns on a CPU and {} intervals on average",
        times[SPANS / 2],
        times[SPANS * 99 / 100],
        intervals / SPANS as u64
    );
}

/// A span's gap: what three children leave.
fn gap(start: Ns, length: Ns) -> Vec<Range<Ns>> {
    let tenth = length / 10;
    [(0, 2), (3, 5), (6, 8), (9, 10)]
        .map(|(from, to)| start + from * tenth..start + to * tenth)
        .to_vec()
}

/// One cycle of a thread that follows the one before.
fn cycle(rng: &mut Rng, id: u64, number: u64, prev_in: Ns) -> Cycle {
    let out = prev_in + skewed(rng, 2_000_000);
    let preempted = rng.one_in(10);
    let waking = out
        + if preempted {
            0
        } else {
            skewed(rng, 20_000_000)
        };
    let enqueued = waking + rng.between(300, 3_000);
    let end = enqueued + skewed(rng, 500_000);
    let queued = end - enqueued;
    let waits = if preempted {
        Wait::default()
    } else {
        wait(rng, id)
    };
    Cycle {
        thread: ThreadId(id),
        seq: number,
        prev_in: Some(prev_in),
        off: Off {
            at: out,
            state: if preempted {
                OffState::Runnable
            } else {
                OffState::Sleeping
            },
            wait: waits,
            detours: Vec::new(),
        },
        waking: (!preempted).then_some(waking),
        waker: if preempted {
            Waker::Unknown
        } else {
            waker(rng, id)
        },
        enqueued: Some(enqueued),
        from_idle: rng.one_in(2),
        migrated: None,
        throttle: None,
        end,
        cpu: (id % 8 + rng.below(2)) as u16,
        blame: if queued > 50_000 {
            blame(rng, id, queued)
        } else {
            Blame::default()
        },
        stack: (end - out > 1_000_000).then(|| StackId(rng.between(1, 40) << 40 | id)),
        net: false,
        faults: Faults {
            minor: rng.below(3) as u32,
            major: 0,
        },
        short: ShortDetours::default(),
        detour_seq: 0,
    }
}

/// A length whose logarithm is even: most are short, few are long.
fn skewed(rng: &mut Rng, most: Ns) -> Ns {
    let bits = rng.between(10, u64::from(most.ilog2()));
    rng.between(1 << (bits - 1), 1 << bits)
}

/// Each thread has a few things that it waits for.
fn wait(rng: &mut Rng, id: u64) -> Wait {
    let which = rng.below(10);
    let call = [Call::EpollWait, Call::FutexWait, Call::Recv][(which % 3) as usize];
    Wait {
        entry: Entry::Call(call),
        args: [which, rng.next(), 64, rng.next()],
        object: (call != Call::FutexWait).then_some(ObjectId(id << 32 | which)),
        futex: (call == Call::FutexWait).then(|| Futex {
            kind: FutexKind::GlibcMutex,
            owner_ns_tid: rng.between(1, THREADS) as u32,
            address_hash: id << 20 | which,
        }),
        iowait: false,
        polled: Polled::No,
    }
}

fn waker(rng: &mut Rng, id: u64) -> Waker {
    match rng.below(4) {
        0 => Waker::SoftIrq,
        1 => Waker::HardIrq,
        near => Waker::Thread(ThreadId((id + near * rng.between(1, 5)) % THREADS + 1)),
    }
}

fn blame(rng: &mut Rng, id: u64, queued: Ns) -> Blame {
    let third = queued / 3;
    let other = |rng: &mut Rng| ThreadId((id + rng.between(1, 20)) % THREADS + 1);
    Blame {
        culprits: vec![(other(rng), third), (other(rng), third)],
        rest_ns: queued - 2 * third,
        uncovered_ns: 0,
    }
}

fn thread(id: u64) -> ThreadInfo {
    ThreadInfo {
        thread: ThreadId(id),
        process: ProcessId {
            tgid: 1,
            start_ns: 1,
        },
        tid: id as u32,
        ns_tid: id as u32,
        ns_tgid: 1,
        comm: "worker".into(),
        kernel: false,
        start_ns: 1,
        since: 1,
        cgroup: 0,
        fs_base: 0,
    }
}

/// How long this process has been on a CPU: what a busy machine does not distort.
fn on_cpu_ns() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let first = schedstat.split(' ').next();
    first.and_then(|ns| ns.parse().ok()).unwrap_or_default()
}

/// Resident memory of this process; pages are 4 KiB on x86-64.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}
