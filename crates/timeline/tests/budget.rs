// SPDX-License-Identifier: Apache-2.0
//! The memory budget: never exceeded, and what was dropped for it is `expired` and nothing else.
//!
//! Every answer of a small recorder is held against a large one that was given the same events.

use std::ops::Range;

use lacuna_timeline::Cause;
use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::Recorder;
use lacuna_timeline::ThreadId;
use lacuna_timeline::account::Account;
use lacuna_timeline::account::Reason;
use lacuna_timeline::event::Blame;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Detour;
use lacuna_timeline::event::DetourKind;
use lacuna_timeline::event::Doubt;
use lacuna_timeline::event::DoubtReason;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Exit;
use lacuna_timeline::event::Faults;
use lacuna_timeline::event::ObjectId;
use lacuna_timeline::event::ObjectInfo;
use lacuna_timeline::event::ObjectKind;
use lacuna_timeline::event::Off;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::event::ShortDetours;
use lacuna_timeline::event::Snapshot;
use lacuna_timeline::event::StackId;
use lacuna_timeline::event::StackInfo;
use lacuna_timeline::event::ThreadInfo;
use lacuna_timeline::event::Wait;
use lacuna_timeline::event::Waker;
use lacuna_timeline::join::Presence;

#[path = "simulator/rng.rs"]
mod rng;

use rng::Rng;

const PROCESS: ProcessId = ProcessId {
    tgid: 1,
    start_ns: 1,
};

/// A thread under way.
struct Thread {
    id: ThreadId,
    seq: u64,
    detour_seq: u64,
    at: Ns,
}

impl Thread {
    fn born(id: u64, at: Ns) -> (Thread, Event) {
        let thread = Thread {
            id: ThreadId(id),
            seq: 0,
            detour_seq: 0,
            at,
        };
        let info = ThreadInfo {
            thread: thread.id,
            process: PROCESS,
            tid: id as u32,
            ns_tid: id as u32,
            ns_tgid: 1,
            comm: "worker".into(),
            kernel: false,
            start_ns: at,
            since: at,
            cgroup: 0,
            fs_base: 0,
        };
        (thread, Event::Thread(info))
    }

    /// Its next cycle, with the detours that ended before it.
    fn cycle(&mut self, rng: &mut Rng) -> Vec<Event> {
        let mut events = Vec::new();
        let prev_in = self.at;
        let out = prev_in + rng.between(20_000, 200_000);
        if rng.one_in(8) {
            self.detour_seq += 1;
            events.push(Event::Detour(Detour {
                thread: self.id,
                seq: self.detour_seq,
                kind: DetourKind::DirectReclaim,
                begin: prev_in + 1_000,
                end: prev_in + 15_000,
                detail: 0,
            }));
        }
        let waking = out + rng.between(1_000, 400_000);
        self.seq += 1;
        self.at = waking + rng.between(500, 50_000);
        events.push(Event::Cycle(Cycle {
            thread: self.id,
            seq: self.seq,
            prev_in: Some(prev_in),
            off: Off {
                at: out,
                state: OffState::Sleeping,
                wait: Wait {
                    entry: Entry::Call(Call::Read),
                    object: Some(ObjectId(rng.below(3))),
                    ..Wait::default()
                },
                detours: Vec::new(),
            },
            waking: Some(waking),
            waker: Waker::Thread(ThreadId(rng.between(1, 30))),
            enqueued: Some(waking + 300),
            from_idle: false,
            migrated: None,
            throttle: None,
            end: self.at,
            cpu: rng.below(4) as u16,
            blame: Blame::default(),
            stack: None,
            net: false,
            faults: Faults::default(),
            short: ShortDetours::default(),
            detour_seq: self.detour_seq,
        }));
        events
    }

    fn exit(&mut self) -> Event {
        self.seq += 1;
        self.at += 10_000;
        Event::Exit(Exit {
            thread: self.id,
            seq: self.seq,
            prev_in: Some(self.at - 10_000),
            at: self.at,
            faults: Faults::default(),
            short: ShortDetours::default(),
            detour_seq: self.detour_seq,
        })
    }
}

/// Objects 0 to 2, which every wait is for.
fn pipes() -> impl Iterator<Item = Event> {
    (0..3).map(|id| {
        Event::Object(ObjectInfo {
            object: ObjectId(id),
            kind: ObjectKind::Pipe,
            name: "pipe".into(),
            dev: 0,
            ino: id,
        })
    })
}

/// What the small recorder does not say, it says is expired.
fn compare(small: &Account, large: &Account) {
    small.check().expect("the identities hold");
    let mut missing = 0;
    for cause in Cause::all().filter(|cause| *cause != Cause::Unknown) {
        assert!(small.ns(cause) <= large.ns(cause), "{}", cause.name());
        missing += large.ns(cause) - small.ns(cause);
    }
    let reasons = small
        .share(Cause::Unknown)
        .map(|share| share.reasons.as_slice());
    let expired = reasons
        .into_iter()
        .flatten()
        .filter(|reason| matches!(reason.0, Reason::Expired | Reason::NoSuchThread));
    let expired: Ns = expired.map(|reason| reason.1).sum();
    assert!(
        missing <= expired,
        "{missing} is missing and {expired} is expired"
    );
    assert_eq!(missing, small.ns(Cause::Unknown) - large.ns(Cause::Unknown));
}

#[test]
fn the_budget_holds_and_what_is_dropped_is_expired() {
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let budget = 60_000 + 15_000 * seed as usize;
        let mut small = Recorder::new(budget);
        let mut large = Recorder::new(1 << 30);
        let mut give = |event: Event| {
            small.push(event.clone());
            large.push(event);
            let stats = small.stats();
            assert!(stats.bytes <= budget, "{stats:?}");
        };
        pipes().for_each(&mut give);
        let mut threads = Vec::new();
        let mut all = Vec::new();
        for step in 0..6_000_u64 {
            if threads.len() < 12 {
                let at = threads
                    .iter()
                    .map(|thread: &Thread| thread.at)
                    .min()
                    .unwrap_or(1_000);
                let (thread, event) = Thread::born(all.len() as u64 + 1, at);
                all.push(thread.id);
                threads.push(thread);
                give(event);
            }
            let turn = rng.below(threads.len() as u64) as usize;
            threads[turn]
                .cycle(&mut rng)
                .into_iter()
                .for_each(&mut give);
            if step % 200 == 199 {
                give(threads.remove(turn).exit());
            }
        }
        assert!(small.stats().evicted > 1_000);
        assert!(
            small.stats().threads < large.stats().threads,
            "the dead are forgotten"
        );
        assert_eq!(large.stats().evicted, 0);
        let end = threads
            .iter()
            .map(|thread| thread.at)
            .max()
            .unwrap_or_default();
        let reach = small.reach();
        assert!(reach > 1_000 && reach < end);
        for id in all {
            for _ in 0..20 {
                let from = rng.below(end);
                let window = from..from + rng.below(end - from);
                compare(&account(&small, id, &window), &account(&large, id, &window));
            }
            let window = reach..end;
            if small.thread(id).is_some() {
                assert_eq!(account(&small, id, &window), account(&large, id, &window));
            }
        }
        let within_reach = Presence::threads(&small, PROCESS, reach, end, &mut |_| {});
        let before = Presence::threads(&small, PROCESS, reach - 1, end, &mut |_| {});
        assert!(within_reach && !before);
    }
}

fn account(recorder: &Recorder, thread: ThreadId, window: &Range<Ns>) -> Account {
    let mut account = recorder.account(thread, std::slice::from_ref(window));
    // Chains lead to other threads, which may be forgotten.
    account
        .shares
        .iter_mut()
        .for_each(|share| share.chain.clear());
    account
}

#[test]
fn too_many_threads_cost_no_more_than_the_budget() {
    let budget = 200_000;
    let mut recorder = Recorder::new(budget);
    for id in 1..=10_000 {
        let (mut thread, event) = Thread::born(id, 1_000 + id);
        recorder.push(event);
        if id % 3 == 0 {
            recorder.push(thread.exit());
        }
        assert!(recorder.stats().bytes <= budget);
    }
    let stats = recorder.stats();
    assert!(stats.threads_forgotten > 1_000, "{stats:?}");
    assert!(stats.threads > 50, "{stats:?}");
    // Up to when one of those forgotten may have run, nobody may count candidates.
    assert!(!lists_all(&recorder, 5_000));
    assert!(lists_all(&recorder, 30_000));
}

/// Whether the recorder says that it lists every thread of the process at that instant.
fn lists_all(recorder: &Recorder, at: Ns) -> bool {
    Presence::threads(recorder, PROCESS, at, at, &mut |_| {})
}

#[test]
fn a_forgotten_thread_that_comes_back_without_a_name_may_be_anybodys() {
    let mut recorder = Recorder::new(200_000);
    let mut rng = Rng::new(1);
    let (mut early, event) = Thread::born(1, 1_000);
    recorder.push(event);
    for id in 2..=2_000 {
        recorder.push(Thread::born(id, 1_000 + id).1);
    }
    assert!(recorder.thread(early.id).is_none(), "it was silent longest");
    let before = 10_000;
    assert!(lists_all(&recorder, before), "what it did lies before");
    early.at = 50_000;
    early
        .cycle(&mut rng)
        .into_iter()
        .for_each(|event| recorder.push(event));
    assert!(!lists_all(&recorder, before));
    assert!(!lists_all(&recorder, early.at), "it came on a CPU then");
    assert!(lists_all(&recorder, early.at + 1));
    let mut looked_at = |at, off: Option<Off>| {
        recorder.push(Event::Snapshot(Snapshot {
            thread: early.id,
            seq: early.seq,
            at,
            last_in: Some(early.at),
            off,
            open: Vec::new(),
            detour_seq: early.detour_seq,
            waking: None,
        }));
        (lists_all(&recorder, at - 1), lists_all(&recorder, at + 1))
    };
    let at = early.at;
    assert_eq!(looked_at(at + 1_000, None), (false, true), "it still runs");
    let off = Off {
        at: at + 2_000,
        state: OffState::Sleeping,
        wait: Wait::default(),
        detours: Vec::new(),
    };
    // Asleep since long: whatever was on a CPU meanwhile, it was not.
    assert_eq!(looked_at(at + 9_000, Some(off)), (true, true));
}

#[test]
fn facts_without_end_cost_no_more_than_the_budget() {
    let budget = 300_000;
    let mut recorder = Recorder::new(budget);
    for id in 0..20_000 {
        recorder.push(Event::Object(ObjectInfo {
            object: ObjectId(id),
            kind: ObjectKind::File,
            name: "a-file-with-a-name".into(),
            dev: 1,
            ino: id,
        }));
        recorder.push(Event::Stack(StackInfo {
            stack: StackId(id),
            frames: vec!["schedule".into(), "io_schedule".into()],
        }));
        assert!(recorder.stats().bytes <= budget);
    }
    assert!(recorder.object(ObjectId(19_999)).is_some());
    assert!(recorder.stack(StackId(19_999)).is_some());
    assert!(recorder.stats().facts_dropped > 10_000);
}

#[test]
fn contradictions_are_refused_and_counted() {
    let mut recorder = Recorder::default();
    let mut rng = Rng::new(1);
    let (mut thread, event) = Thread::born(1, 1_000);
    recorder.push(event);
    let mut events = thread.cycle(&mut rng);
    let first = events.pop().expect("a cycle");
    events.into_iter().for_each(|event| recorder.push(event));
    recorder.push(first.clone());
    let end = thread.at;
    let Event::Cycle(cycle) = first.clone() else {
        panic!("a cycle was made");
    };
    let wrong = [
        first,
        Event::Cycle(Cycle {
            seq: 2,
            prev_in: Some(end - 1),
            ..cycle.clone()
        }),
        Event::Cycle(Cycle {
            seq: 2,
            prev_in: Some(end),
            end: end - 1,
            ..cycle.clone()
        }),
        Event::Cycle(Cycle {
            seq: 2,
            prev_in: Some(Ns::MAX),
            ..cycle
        }),
        Event::Detour(Detour {
            thread: ThreadId(1),
            seq: 1,
            kind: DetourKind::Compaction,
            begin: 5,
            end: 5,
            detail: 0,
        }),
    ];
    let count = wrong.len() as u64;
    wrong.into_iter().for_each(|event| recorder.push(event));
    assert_eq!(recorder.stats().malformed, count);
    assert_eq!(recorder.stats().records, 1);
    assert_eq!(
        account(&recorder, ThreadId(1), &(1_000..end)).ns(Cause::Unknown),
        0
    );
}

#[test]
fn doubts_count_against_the_budget() {
    let budget = 150_000;
    let mut recorder = Recorder::new(budget);
    let empty = recorder.stats().bytes;
    for at in 0..10_000 {
        let (from, to) = (10 * at, 10 * at + 5);
        for reason in [
            DoubtReason::ProgramSkipped,
            DoubtReason::SwitchSkipped,
            DoubtReason::Suspended,
        ] {
            recorder.push(Event::Doubt(Doubt { from, to, reason }));
        }
        recorder.push(Thread::born(at + 1, at + 1).1);
        assert!(recorder.stats().bytes <= budget);
    }
    let held = recorder.stats().bytes - empty;
    assert!(held > 3 * 1_000 * 16, "the doubts are counted: {held}");
}
