// SPDX-License-Identifier: Apache-2.0
//! Switches, queueing and migration against the kernel's own counters (rules 1 to 4).
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::assert_close;
use common::holes;
use common::kernel;
use common::now;
use common::queued_ns;
use common::worker::Worker;
use common::worker::burn;
use common::worker::hog;
use common::worker::pin_thread;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Waker;
use std::time::Duration;

/// What a thread read of itself at one instant, while it was on a CPU.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: u64,
    on_cpu_ns: u64,
    delay_ns: u64,
    voluntary: u64,
    involuntary: u64,
}

/// Reads everything so that no switch falls between the readings.
fn mark() -> Mark {
    loop {
        let before = kernel::switches();
        let at = now();
        let (on_cpu_ns, delay_ns) = kernel::schedstat();
        if kernel::switches() == before {
            return Mark {
                at,
                on_cpu_ns,
                delay_ns,
                voluntary: before.0,
                involuntary: before.1,
            };
        }
    }
}

/// Runs and sleeps in turn behind hogs, between two marks.
fn work_between_marks(rounds: u32) -> (Mark, Mark) {
    // Its first cycles come before the marks, so that the thread is known by then.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let first = mark();
    for round in 0..rounds {
        burn(2_000_000);
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    (first, mark())
}

#[test]
fn root_run_delay_is_what_schedstat_says() {
    let mut session = Session::start();
    let hogs = [hog("hog-a", 0), hog("hog-b", 0)];
    let worker = Worker::start("delayed", Some(0), |_| work_between_marks(60));
    let tid = worker.tid;
    let (first, last) = worker.join();
    drop(hogs);
    session.drain_past(last.at);
    let cycles = session.cycles(session.id(tid), first.at, last.at);
    let measured: u64 = cycles.iter().map(|cycle| queued_ns(cycle)).sum();
    let truth = last.delay_ns - first.delay_ns;
    assert!(truth > 50_000_000, "the hogs were in the way: {truth}");
    assert_close("run delay", measured, truth, 2_000 * cycles.len() as u64);
}

#[test]
fn root_time_on_the_cpu_is_what_schedstat_says() {
    let mut session = Session::start();
    let worker = Worker::start("running", Some(0), |_| work_between_marks(60));
    let tid = worker.tid;
    let (first, last) = worker.join();
    session.drain_past(last.at);
    let cycles = session.cycles(session.id(tid), first.at, last.at);
    let off: u64 = cycles.iter().map(|cycle| cycle.end - cycle.off.at).sum();
    let measured = last.at - first.at - off;
    let truth = last.on_cpu_ns - first.on_cpu_ns;
    // The kernel takes stolen time out of it, and counts the current stretch up to its last tick.
    assert_close(
        "on the CPU",
        measured,
        truth,
        4_000_000 + 2_000 * cycles.len() as u64,
    );
}

#[test]
fn root_switches_are_as_many_as_the_thread_read_of_itself() {
    let mut session = Session::start();
    let rival = hog("rival", 1);
    let worker = Worker::start("counted", Some(1), |_| work_between_marks(80));
    let tid = worker.tid;
    let (first, last) = worker.join();
    drop(rival);
    session.drain_past(last.at);
    let thread = session.id(tid);
    let cycles = session.cycles(thread, first.at, last.at);
    let runnable = |state: OffState| state == OffState::Runnable;
    let involuntary = cycles
        .iter()
        .filter(|cycle| runnable(cycle.off.state))
        .count() as u64;
    let voluntary = cycles.len() as u64 - involuntary;
    let expected = (
        last.voluntary - first.voluntary,
        last.involuntary - first.involuntary,
    );
    assert!(expected.0 > 20 && expected.1 > 20, "{expected:?}");
    assert_eq!((voluntary, involuntary), expected);
    assert_eq!(holes(&session.links(thread)), 0);
}

#[test]
fn root_the_culprit_is_the_thread_that_ran_instead() {
    let mut session = Session::start();
    let rival = hog("backup", 0);
    let worker = Worker::start("victim", Some(0), |_| work_between_marks(60));
    let (tid, rival_tid) = (worker.tid, rival.tid);
    let (first, last) = worker.join();
    drop(rival);
    session.drain_past(last.at);
    let culprit = session.id(rival_tid);
    let cycles = session.cycles(session.id(tid), first.at, last.at);
    let runs = session.runs(culprit);
    let (mut blamed, mut unnamed, mut ran, mut told, mut queued) = (0, 0, 0, 0, 0);
    for cycle in cycles.iter().filter(|cycle| queued_ns(cycle) >= 60_000) {
        let of = |(thread, ns): &(_, u64)| if *thread == culprit { *ns } else { 0 };
        blamed += cycle.blame.culprits.iter().map(of).sum::<u64>();
        unnamed += cycle.blame.rest_ns + cycle.blame.uncovered_ns;
        let from = cycle.end - queued_ns(cycle);
        ran += runs
            .iter()
            .map(|run| overlap(*run, (from, cycle.end)))
            .sum::<u64>();
        told += cycle.blame.culprits.iter().map(|(_, ns)| ns).sum::<u64>();
        queued += queued_ns(cycle);
    }
    let slack = queued / 100 + 20_000 * cycles.len() as u64;
    assert!(ran > 1_000_000, "the rival was in the way: {ran}");
    assert_close("all parts", told + unnamed, queued, slack);
    // Where more than four ran meanwhile, the rival may be one of those that are not named.
    let range = blamed.saturating_sub(slack)..=blamed + unnamed + slack;
    assert!(
        range.contains(&ran),
        "it ran {ran} of {queued}, blamed {blamed}, unnamed {unnamed}"
    );
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    a.1.min(b.1).saturating_sub(a.0.max(b.0))
}

#[test]
fn root_a_wait_over_two_cpus_is_the_delay_that_the_kernel_counted() {
    let mut session = Session::start();
    let hogs = [hog("hog-0", 0), hog("hog-1", 1)];
    let worker = Worker::start("moved", None, |go_on| {
        std::thread::sleep(Duration::from_millis(1));
        let mut marks = vec![mark()];
        while go_on() {
            burn(100_000);
            marks.push(mark());
        }
        marks
    });
    let tid = worker.tid;
    let mut cpu = 0;
    session.until("moves of a queued thread", |session| {
        pin_thread(tid, cpu);
        cpu = 1 - cpu;
        let migrated = |thread| {
            let cycles = session.cycles(thread, 0, u64::MAX);
            cycles
                .iter()
                .filter(|cycle| cycle.migrated.is_some())
                .count()
        };
        session
            .find(tid)
            .is_some_and(|info| migrated(info.thread) >= 5)
    });
    let marks = worker.finish();
    drop(hogs);
    session.drain_past(marks[marks.len() - 1].at);
    let thread = session.id(tid);
    let holes = holes(&session.links(thread));
    assert_eq!(holes, 0, "{:#?}", session.probes.counters());
    for pair in marks.windows(2) {
        let cycles = session.cycles(thread, pair[0].at, pair[1].at);
        let measured: u64 = cycles.iter().map(|cycle| queued_ns(cycle)).sum();
        let truth = pair[1].delay_ns - pair[0].delay_ns;
        let slack = truth / 100 + 50_000 * cycles.len() as u64;
        assert!(
            measured.abs_diff(truth) <= slack,
            "measured {measured}, the kernel says {truth}: {cycles:#?}"
        );
    }
}

#[test]
fn root_the_waker_is_the_thread_that_woke_or_the_interrupt() {
    let mut session = Session::start();
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let sleeper = Worker::start("sleeper", Some(0), move |_| {
        let mut got = 0;
        while receive.recv().is_ok() {
            got += 1;
        }
        got
    });
    let waker = Worker::start("waker", Some(1), move |_| {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(2));
            send.send(()).unwrap();
        }
    });
    let (sleeper_tid, waker_tid) = (sleeper.tid, waker.tid);
    waker.join();
    assert_eq!(sleeper.join(), 20);
    session.drain_past(now());
    let (sleeper, waker) = (session.id(sleeper_tid), session.id(waker_tid));
    let count = |of, by: fn(Waker) -> bool| {
        let cycles = session.cycles(of, 0, u64::MAX);
        let blocked = cycles
            .iter()
            .filter(|cycle| cycle.off.state == OffState::Sleeping);
        blocked.filter(|cycle| by(cycle.waker)).count()
    };
    let woken = session.cycles(sleeper, 0, u64::MAX);
    let by_waker = woken
        .iter()
        .filter(|cycle| cycle.waker == Waker::Thread(waker))
        .count();
    assert!(
        by_waker >= 5 && by_waker * 2 > woken.len(),
        "{by_waker} of {}",
        woken.len()
    );
    let timer = count(waker, |waker| {
        matches!(waker, Waker::HardIrq | Waker::SoftIrq)
    });
    assert!(timer >= 10, "{timer}");
}
