// SPDX-License-Identifier: Apache-2.0
//! What the tests on a live kernel share: a session with the probes, threads that do as they are
//! told, and the kernel's own counters to compare with.
//!
//! Nothing here sleeps to wait for something: every wait polls its condition under one budget.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod child;
pub mod disk;
pub mod exchange;
pub mod kernel;
pub mod memory;
pub mod network;
pub mod polling;
pub mod uring;
pub mod worker;

use lacuna_probes::Config;
use lacuna_probes::LimitClock;
use lacuna_probes::Probes;
use lacuna_probes::Watch;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::ThreadId;
use lacuna_timeline::event::ThreadInfo;
use std::time::Duration;
use std::time::Instant;

/// For everything that is waited for. Generous: the machine may be busy with other work.
pub const BUDGET: Duration = Duration::from_secs(30);

/// `CLOCK_MONOTONIC`.
pub fn now() -> Ns {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Polls until the condition holds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + BUDGET;
    while !condition() {
        assert!(Instant::now() < end, "not within {BUDGET:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One record that the chain of a thread consists of.
#[derive(Clone, Debug)]
pub struct Link {
    pub seq: u64,
    pub prev_in: Option<Ns>,
    pub end: Ns,
}

/// The probes, and every event so far.
pub struct Session {
    pub probes: Probes,
    pub events: Vec<Event>,
    pub horizon: Ns,
    /// How this kernel lets limits be measured.
    pub limits: LimitClock,
}

impl Session {
    /// Records this process only, and what it is told to watch.
    pub fn start() -> Session {
        Session::with(Config {
            watch: Watch::Selected,
            ..Config::default()
        })
    }

    pub fn with(config: Config) -> Session {
        let symbols = Box::new(kernel::symbols);
        let mut probes = Probes::load(&config, symbols).unwrap();
        probes.watch_process(std::process::id()).unwrap();
        Session {
            probes,
            events: Vec::new(),
            horizon: 0,
            limits: lacuna_probes::kernel_facts().unwrap().limits,
        }
    }

    pub fn drain(&mut self) {
        let events = &mut self.events;
        let drained = self.probes.drain(&mut |event| events.push(event)).unwrap();
        self.horizon = drained.horizon;
    }

    pub fn snapshot(&mut self) {
        let events = &mut self.events;
        self.probes
            .snapshot(&mut |event| events.push(event))
            .unwrap();
    }

    /// Drains until everything before `instant` has been given out.
    #[track_caller]
    pub fn drain_past(&mut self, instant: Ns) {
        until("the horizon", || {
            self.drain();
            self.horizon >= instant
        });
    }

    /// Drains until the condition holds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&Session) -> bool) {
        until(what, || {
            self.drain();
            condition(self)
        });
    }

    /// The newest that is known of the thread with this tid.
    pub fn find(&self, tid: u32) -> Option<&ThreadInfo> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Thread(info) if info.tid == tid => Some(info),
            _ => None,
        })
    }

    #[track_caller]
    pub fn id(&self, tid: u32) -> ThreadId {
        self.find(tid).expect("the thread was told").thread
    }

    /// The cycles of a thread that ended within the window.
    pub fn cycles(&self, thread: ThreadId, from: Ns, to: Ns) -> Vec<&Cycle> {
        let within = |cycle: &&Cycle| cycle.thread == thread && cycle.end > from && cycle.end <= to;
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Cycle(cycle) => Some(cycle),
                _ => None,
            })
            .filter(within)
            .collect()
    }

    /// When a thread was on a CPU, as far as it is known.
    pub fn runs(&self, thread: ThreadId) -> Vec<(Ns, Ns)> {
        let cycles = self.cycles(thread, 0, Ns::MAX);
        let run = |cycle: &&Cycle| Some((cycle.prev_in?, cycle.off.at));
        cycles.iter().filter_map(run).collect()
    }

    /// The records of a thread in the order of their numbers.
    pub fn links(&self, thread: ThreadId) -> Vec<Link> {
        let mut links: Vec<Link> = self
            .events
            .iter()
            .filter_map(|event| {
                let (of, seq, prev_in, end) = match event {
                    Event::Cycle(it) => (it.thread, it.seq, it.prev_in, it.end),
                    Event::Merged(it) => (it.thread, it.seq, it.prev_in, it.end),
                    Event::Exit(it) => (it.thread, it.seq, it.prev_in, it.at),
                    _ => return None,
                };
                (of == thread).then_some(Link { seq, prev_in, end })
            })
            .collect();
        links.sort_by_key(|link| link.seq);
        links
    }
}

/// Between two records of one thread: either the second starts where the first ended, or its number
/// or its missing beginning says that something is missing. Returns the number of holes.
#[track_caller]
pub fn holes(links: &[Link]) -> usize {
    links
        .windows(2)
        .filter(|pair| {
            let whole = pair[1].seq == pair[0].seq + 1;
            if whole && pair[1].prev_in.is_some() {
                assert_eq!(pair[1].prev_in, Some(pair[0].end), "{pair:?}");
            }
            !whole || pair[1].prev_in.is_none()
        })
        .count()
}

/// How long the thread was queued in this cycle.
pub fn queued_ns(cycle: &Cycle) -> Ns {
    let earlier = cycle.migrated.map_or(0, |migrated| migrated.waited_ns);
    let from = match cycle.off.state {
        OffState::Runnable if cycle.migrated.is_none() => cycle.off.at,
        _ => cycle.enqueued.unwrap_or(cycle.end).max(cycle.off.at),
    };
    earlier + (cycle.end - from)
}

/// The same as schedstat counts it: from what the run queue's clock showed at the switch-out, which
/// may have been behind.
pub fn run_delay_ns(cycle: &Cycle) -> Ns {
    let behind = match cycle.off.state {
        OffState::Runnable if cycle.migrated.is_none() => {
            let out = cycle.off.at;
            out.saturating_sub(cycle.enqueued.unwrap_or(out))
        }
        _ => 0,
    };
    queued_ns(cycle) + behind
}

/// What was measured of one stretch of time, what the kernel says, and how much they may differ beyond
/// their share.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub measured: Ns,
    pub truth: Ns,
    pub slack: Ns,
}

impl Part {
    /// Whether the two agree, with so much more slack.
    fn is_close(&self, more: Ns) -> bool {
        self.measured.abs_diff(self.truth) <= self.truth / tolerance() + self.slack + more
    }
}

/// Amounts agree to this part: to 1 %, and to 5 % on an emulated machine, whose virtual CPUs lose the
/// host at any instruction, also between two readings of a clock.
pub fn tolerance() -> u64 {
    if kernel::emulated() { 20 } else { 100 }
}

/// Asserts that two amounts agree but for some slack.
#[track_caller]
pub fn assert_close(what: &str, measured: Ns, truth: Ns, slack: Ns) {
    let part = Part {
        measured,
        truth,
        slack,
    };
    assert!(part.is_close(0), "{what}: {part:?}");
}

/// The same of each of several stretches. On an emulated machine one in eight may be off, where a
/// virtual CPU lost the host for long. `once` is slack that each comparison has, however long.
#[track_caller]
pub fn assert_each_close(what: &str, parts: &[Part], once: Ns) {
    let off: Vec<&Part> = parts.iter().filter(|part| !part.is_close(once)).collect();
    let allowed = if kernel::emulated() {
        parts.len() / 8
    } else {
        0
    };
    assert!(off.len() <= allowed, "{what}: {off:?} of {}", parts.len());
}

/// The same of several stretches together; on an emulated machine of each.
#[track_caller]
pub fn assert_sum_close(what: &str, parts: &[Part], once: Ns) {
    if kernel::emulated() {
        assert_each_close(what, parts, once);
        return;
    }
    let sum = |of: fn(&Part) -> Ns| parts.iter().map(of).sum::<Ns>();
    let slack = sum(|part| part.slack) + once;
    assert_close(
        what,
        sum(|part| part.measured),
        sum(|part| part.truth),
        slack,
    );
}
