// SPDX-License-Identifier: Apache-2.0
//! Birth, exec, death, who is watched, silence, and what is lost (rules 4, 5, 9, 12, 16).
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::child::Steps;
use common::holes;
use common::kernel;
use common::now;
use common::polling;
use common::polling::Source;
use common::until;
use common::worker::Worker;
use common::worker::hog;
use common::worker::pin;
use lacuna_probes::Config;
use lacuna_probes::FaultPlan;
use lacuna_probes::Watch;
use lacuna_timeline::event::Asked;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::Exit;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Polled;
use lacuna_timeline::event::Snapshot;
use lacuna_timeline::event::ThreadId;
use lacuna_timeline::event::Waker;
use rustix::event::epoll::EventFlags;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

impl Session {
    fn exit_of(&self, thread: ThreadId) -> Option<Exit> {
        self.events.iter().find_map(|event| match event {
            Event::Exit(exit) if exit.thread == thread => Some(*exit),
            _ => None,
        })
    }

    fn snapshots_of(&self, thread: ThreadId) -> Vec<&Snapshot> {
        let all = self.events.iter().filter_map(|event| match event {
            Event::Snapshot(snapshot) => Some(snapshot),
            _ => None,
        });
        all.filter(|snapshot| snapshot.thread == thread).collect()
    }
}

/// Round trips of the test of merging, and the longest cycle that may be merged (`MERGE_OFF_NS`).
const ROUNDS: usize = 3000;
const MERGED_NS_MAX: u64 = 10_000;

/// Sleeps briefly, many times.
fn naps(count: u32) {
    for _ in 0..count {
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[test]
fn root_a_thread_is_whole_from_its_birth_to_its_death() {
    let mut session = Session::start();
    // A thread that has not been switched since the attach has no id yet, and could not be named as
    // the newborn's waker.
    naps(1);
    let worker = Worker::start("lives", None, |_| {
        naps(50);
        now()
    });
    let tid = worker.tid;
    let last = worker.join();
    session.until("the thread's death", |session| {
        session
            .find(tid)
            .is_some_and(|info| session.exit_of(info.thread).is_some())
    });
    let info = session.find(tid).unwrap().clone();
    assert_eq!(&*info.comm, "lives");
    assert_eq!(info.process.tgid, std::process::id());
    let links = session.links(info.thread);
    assert_eq!(links[0].seq, 1);
    assert_eq!(holes(&links), 0);
    let cycles = session.cycles(info.thread, 0, u64::MAX);
    assert_eq!((cycles[0].prev_in, cycles[0].off.at), (None, info.since));
    assert_eq!(cycles[0].off.state, OffState::Runnable);
    assert!(matches!(cycles[0].waker, Waker::Thread(_)));
    let exit = session.exit_of(info.thread).unwrap();
    assert_eq!(links.last().unwrap().seq, exit.seq);
    assert!(exit.at > last, "it ends after its own last word");
}

/// Where threads are kept by the addresses of their tasks, an address is used again at once.
#[test]
fn root_threads_that_follow_each_other_are_never_taken_for_one() {
    let mut session = Session::start();
    let mut tids = Vec::new();
    for _ in 0..100 {
        let worker = Worker::start("one-of-many", None, |_| naps(2));
        tids.push(worker.tid);
        worker.join();
    }
    session.until("the last one's death", |session| {
        let last = session.find(tids[tids.len() - 1]);
        last.is_some_and(|info| session.exit_of(info.thread).is_some())
    });
    let mut ids: Vec<ThreadId> = tids.iter().map(|&tid| session.id(tid)).collect();
    for &id in &ids {
        let links = session.links(id);
        let exit = session.exit_of(id).expect("it has ended");
        assert_eq!((links[0].seq, holes(&links)), (1, 0), "{links:?}");
        assert_eq!(links[links.len() - 1].seq, exit.seq);
    }
    ids.sort_by_key(|id| id.0);
    ids.dedup();
    assert_eq!(ids.len(), tids.len());
}

#[test]
fn root_a_thread_that_there_is_no_room_for_is_unknown_and_counted() {
    let mut session = Session::with(Config {
        watch: Watch::Selected,
        faults: FaultPlan {
            threads_max: 16,
            ..FaultPlan::default()
        },
        ..Config::default()
    });
    // More threads than that are on every host.
    session.snapshot();
    let worker = Worker::start("too-many", None, |_| naps(20));
    let tid = worker.tid;
    worker.join();
    session.drain_past(now());
    let failures = session.probes.counters().unwrap().storage_failures;
    let known = session.find(tid).map(|info| info.thread);
    if lacuna_probes::kernel_facts().unwrap().threads_max.is_none() {
        assert_eq!(failures, 0, "there is always room");
        assert!(session.exit_of(known.unwrap()).is_some());
    } else {
        assert!(failures > 0);
        assert_eq!(known, None, "all places were taken");
    }
}

#[test]
fn root_an_exec_by_another_thread_keeps_its_identity() {
    let program = kernel::compile("exec.c");
    let mut session = Session::start();
    let mut child = Steps::start(&program, &[]);
    let pid = child.pid();
    session.probes.watch_process(pid).unwrap();
    child.step();
    let tid = child.numbers()[0];
    assert_ne!(tid, pid);
    until("the new program", || {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "cat\n")
    });
    let told = |session: &Session, tid, comm: &str| {
        session.events.iter().any(
            |event| matches!(event, Event::Thread(info) if info.tid == tid && *info.comm == *comm),
        )
    };
    session.until("the news of it", |session| told(session, pid, "cat"));
    child.finish();
    session.drain_past(now());
    std::fs::remove_file(program).unwrap();
    let before = session.id(tid);
    assert_eq!(
        session.id(pid),
        before,
        "the leader's tid now means this thread"
    );
    session.until("its death", |session| session.exit_of(before).is_some());
    assert_eq!(holes(&session.links(before)), 0);
}

#[test]
fn root_what_a_watched_process_starts_is_watched_too() {
    let mut session = Session::start();
    let shell = Path::new("sh");
    let mut child = Steps::start(shell, &["-c", "read x; (sleep 0.05; sleep 0.05) & wait"]);
    let pid = child.pid();
    session.probes.watch_descendants(pid).unwrap();
    until("a blocked shell", || {
        kernel::blocked_in(pid, pid) == Some(0)
    });
    child.step();
    child.finish();
    session.drain_past(now());
    let sleeps: Vec<_> = session
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Thread(info) if &*info.comm == "sleep" => Some(info.thread),
            _ => None,
        })
        .collect();
    let watched = |thread: &&ThreadId| !session.links(**thread).is_empty();
    assert!(sleeps.iter().filter(watched).count() >= 2, "{sleeps:?}");
}

#[test]
fn root_who_connects_to_a_port_of_ours_becomes_watched() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut session = Session::with(Config {
        watch: Watch::Selected,
        otlp_ports: vec![port],
        ..Config::default()
    });
    let connect = format!("read x; exec 3<>/dev/tcp/127.0.0.1/{port}; sleep 0.05; read y");
    let mut child = Steps::start(Path::new("bash"), &["-c", &connect]);
    let pid = child.pid();
    assert!(!session.probes.watched_processes().contains(&pid));
    child.step();
    let (mut stream, _) = listener.accept().unwrap();
    until("its being watched", || {
        session.probes.watched_processes().contains(&pid)
    });
    child.step();
    child.finish();
    let _ = stream.read(&mut [0; 1]).unwrap();
    session.drain_past(now());
    assert!(!session.links(session.id(pid)).is_empty());
}

#[test]
fn root_a_silent_thread_is_confirmed_by_the_iterator() {
    let mut session = Session::start();
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let worker = Worker::start("silent", None, move |_| {
        naps(3);
        receive.recv()
    });
    let tid = worker.tid;
    let pid = std::process::id();
    until("a blocked thread", || {
        kernel::blocked_in(pid, tid) == Some(202)
    });
    let begun = now();
    session.until("a confirmation", |session| {
        session.find(tid).is_some() && now() > begun + 20_000_000
    });
    session.snapshot();
    session.drain();
    let thread = session.id(tid);
    let links = session.links(thread);
    let last = links.last().unwrap();
    let snapshots = session.snapshots_of(thread);
    let seen = snapshots.last().expect("it was looked at");
    assert_eq!((seen.seq, seen.last_in), (last.seq, Some(last.end)));
    assert!(seen.at > begun);
    let off = seen.off.as_ref().expect("it is off the CPU");
    assert_eq!(off.state, OffState::Sleeping);
    assert!(off.wait.futex.is_some());
    drop(send);
    assert!(worker.join().is_err());
}

#[test]
fn root_a_thread_that_never_switches_has_a_name_and_no_records() {
    let rival = hog("steady", 0);
    let mut session = Session::start();
    session.snapshot();
    let info = session.events.iter().find_map(|event| match event {
        Event::Thread(info) if info.tid == 2 => Some(info.clone()),
        _ => None,
    });
    drop(rival);
    let info = info.expect("kthreadd is on every host");
    assert_eq!((&*info.comm, info.kernel), ("kthreadd", true));
    assert_eq!(info.since, u64::MAX, "it is not watched");
    assert!(session.snapshots_of(info.thread).is_empty());
}

#[test]
fn root_every_dropped_record_leaves_a_hole() {
    let mut session = Session::with(Config {
        watch: Watch::Selected,
        faults: FaultPlan {
            drop_every: 7,
            ..FaultPlan::default()
        },
        ..Config::default()
    });
    let worker = Worker::start("holed", None, |_| naps(400));
    let tid = worker.tid;
    worker.join();
    session.drain_past(now());
    let thread = session.id(tid);
    let links = session.links(thread);
    // What lies between two records that join is proved; whatever was dropped left a hole.
    let holes = holes(&links);
    let dropped = links.last().unwrap().seq - links[0].seq + 1 - links.len() as u64;
    assert!(
        holes > 20 && dropped >= holes as u64,
        "{holes} holes, {dropped} dropped"
    );
    assert!(
        dropped < 2 * holes as u64,
        "{holes} holes, {dropped} dropped"
    );
    let counters = session.probes.counters().unwrap();
    assert!(counters.ring_drops >= dropped, "{counters:?}");
}

#[test]
fn root_a_dropped_exit_leaves_the_end_open() {
    let mut session = Session::with(Config {
        watch: Watch::Selected,
        faults: FaultPlan {
            drop_exits: true,
            ..FaultPlan::default()
        },
        ..Config::default()
    });
    let worker = Worker::start("vanishes", None, |_| naps(5));
    let tid = worker.tid;
    worker.join();
    session.drain_past(now());
    let thread = session.id(tid);
    assert!(session.exit_of(thread).is_none());
    session.snapshot();
    let confirmed = session.snapshots_of(thread).len();
    assert_eq!(
        confirmed, 0,
        "nothing confirms what comes after its last record"
    );
    assert!(session.probes.counters().unwrap().ring_drops > 0);
}

/// It is woken by a thread of ours, not by a timer: a timer that finds certain threads of pid 1 on its CPU is
/// not traced on some kernels (docs/design/0001-record.md), and nothing counts the waking that is missing then.
#[test]
fn root_a_skipped_waking_is_counted_as_a_real_miss_is() {
    let mut session = Session::with(Config {
        watch: Watch::Selected,
        faults: FaultPlan {
            skip_wakings_every: 3,
            ..FaultPlan::default()
        },
        ..Config::default()
    });
    let (mut asked, mut ask) = std::io::pipe().unwrap();
    let (mut answered, mut answer) = std::io::pipe().unwrap();
    // Each n-th is skipped of the wakings that a CPU makes: on one there are this worker's alone.
    let worker = Worker::start("unwoken", Some(1), move |_| {
        while asked.read(&mut [0]).unwrap() == 1 {
            answer.write_all(b"x").unwrap();
        }
    });
    let tid = worker.tid;
    pin(0);
    for _ in 0..90 {
        ask.write_all(b"x").unwrap();
        answered.read_exact(&mut [0]).unwrap();
    }
    drop(ask);
    worker.join();
    session.drain_past(now());
    let cycles = session.cycles(session.id(tid), 0, u64::MAX);
    let slept = cycles
        .iter()
        .filter(|cycle| cycle.off.state == OffState::Sleeping);
    let missing = slept.filter(|cycle| cycle.waking.is_none()).count() as u64;
    assert!(missing > 0);
    let counters = session.probes.counters().unwrap();
    assert!(counters.programs_skipped >= missing, "{counters:?}");
}

#[test]
fn root_merged_cycles_add_up_to_their_stretch() {
    let mut session = Session::with(Config {
        watch: Watch::Selected,
        merge_short: true,
        ..Config::default()
    });
    let (mut from_a, mut to_b) = std::io::pipe().unwrap();
    let (mut from_b, mut to_a) = std::io::pipe().unwrap();
    let answer = Worker::start("answers", Some(0), move |_| {
        let mut byte = [0];
        while from_a.read(&mut byte).unwrap() == 1 {
            to_a.write_all(&byte).unwrap();
        }
    });
    let ask = Worker::start("asks", Some(0), move |_| {
        for _ in 0..ROUNDS {
            to_b.write_all(b"x").unwrap();
            from_b.read_exact(&mut [0]).unwrap();
        }
    });
    let tid = ask.tid;
    ask.join();
    answer.join();
    session.drain_past(now());
    let thread = session.id(tid);
    assert_eq!(holes(&session.links(thread)), 0);
    let mut merged_cycles = 0;
    for event in &session.events {
        let Event::Merged(merged) = event else {
            continue;
        };
        let sum = merged.running_ns + merged.runnable_ns + merged.idle_wake_ns + merged.blocked_ns;
        assert_eq!(sum, merged.end - merged.prev_in.unwrap(), "{merged:?}");
        if merged.thread == thread {
            merged_cycles += merged.count as usize;
        }
    }
    let cycles = session.cycles(thread, 0, u64::MAX);
    let whole = cycles.len() + merged_cycles;
    assert!(whole >= ROUNDS, "each round is a cycle: {whole}");
    // An emulated machine takes longer than a cycle that may be merged: there it must not happen.
    let short = |cycle: &&&Cycle| cycle.end - cycle.off.at < MERGED_NS_MAX;
    let short = cycles.iter().filter(short).count();
    assert!(
        merged_cycles > 500 || short < 500,
        "{merged_cycles} merged, {short} short ones were not"
    );
}

/// Two threads hand a byte to and fro and wait in epoll for it; beside what they wait for lies another pipe
/// that never is ready.
#[test]
fn root_merged_polls_keep_what_ended_them() {
    let mut session = Session::with(Config {
        watch: Watch::Selected,
        merge_short: true,
        ..Config::default()
    });
    let ends: [Arc<Vec<Source>>; 2] =
        [0, 1].map(|_| Arc::new(vec![polling::pipe(), polling::pipe()]));
    let sides = [0, 1].map(|side| {
        let (own, other) = (ends[side].clone(), ends[1 - side].clone());
        Worker::start("merged", Some(0), move |_| {
            let set = polling::set(&own, EventFlags::IN);
            for _ in 0..ROUNDS {
                if side == 0 {
                    other[0].make_ready();
                }
                assert_eq!(polling::epoll_wait(&set, None).ready, Some(0));
                own[0].drain();
                if side == 1 {
                    other[0].make_ready();
                }
            }
        })
    });
    let tids = [sides[0].tid, sides[1].tid];
    sides.into_iter().for_each(Worker::join);
    session.drain_past(now());
    let (mut merged_cycles, mut short) = (0, 0);
    for (tid, own) in tids.into_iter().zip(&ends) {
        let thread = session.id(tid);
        for event in &session.events {
            let Event::Merged(merged) = event else {
                continue;
            };
            let in_epoll = merged.wait.entry == Entry::Call(Call::EpollWait);
            if merged.thread != thread || !in_epoll {
                continue;
            }
            assert_eq!(merged.wait.polled, Polled::Ended(Asked::Input));
            let told = session.events.iter().find_map(|event| match event {
                Event::Object(info) if Some(info.object) == merged.wait.object => Some(info),
                _ => None,
            });
            assert!(own[0].is(told.expect("the pipe was told")));
            merged_cycles += merged.count;
        }
        let sleeps = session.sleeps(thread, Call::EpollWait, 0, u64::MAX);
        let is_short = |cycle: &&&Cycle| cycle.end - cycle.off.at < MERGED_NS_MAX;
        short += sleeps.iter().filter(is_short).count();
    }
    // As above.
    assert!(
        merged_cycles > 500 || short < 500,
        "{merged_cycles} merged, {short} short ones were not"
    );
}

#[test]
fn root_every_hook_can_be_tried() {
    let reports = lacuna_probes::try_each_hook();
    assert!(reports.len() >= 15, "{reports:#?}");
    for report in &reports {
        assert_eq!(report.outcome, Ok(()), "{report:#?}");
    }
}
