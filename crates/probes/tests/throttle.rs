// SPDX-License-Identifier: Apache-2.0
//! CPU limits against `cpu.stat` (rules 6 and 7). `cpu.stat` counts queues, so what is compared is the
//! union over the threads of a group on one CPU.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::assert_close;
use common::kernel::CpuGroup;
use common::kernel::runs_of;
use common::now;
use common::tolerance;
use common::until;
use common::worker::GoOn;
use common::worker::Worker;
use common::worker::burn;
use common::worker::hog;
use common::worker::pin_thread;
use lacuna_probes::LimitClock;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::OffState;

/// Where all threads of these tests run.
const CPU: usize = 0;
/// How long a limit works before the counters are compared.
const WORK_NS: u64 = 1_500_000_000;
const PERIOD_US: u64 = 50_000;
/// Little, so that it is used up also on a machine whose CPUs are shared with much other work.
const QUOTA_US: u64 = 4_000;
/// How many of these a long one is; the longest period that the kernel takes is a second.
const LONG: u64 = 18;

/// Uses the CPU until told to stop.
fn work(go_on: GoOn<'_>) {
    while go_on() {
        burn(100_000);
    }
}

/// Moves a thread into a group and keeps it on its CPU: before 6.2 (8f9ea86fdf99 "sched: Always preserve
/// the user requested cpumask") one that gets another cpuset with its group forgets where it was pinned.
/// `cpu.stat` would then count two queues.
fn move_into(group: &CpuGroup, tid: u32) {
    group.take(tid);
    pin_thread(tid, CPU);
}

/// Makes a limit too large to be reached, which ends what it denies. From here on `cpu.stat` stands still:
/// a thread has been joined before it is gone, and on its last way the limit could take it off again. And a
/// machine whose CPU stood still under a thread for a second would take twelve to let that thread end.
fn lift(group: &CpuGroup) {
    group.limit(LONG * PERIOD_US, PERIOD_US);
}

impl Session {
    /// Since when a limit may have denied it the CPU: since it left it, or since it was woken into a
    /// throttled queue, which on a kernel that marks the thread itself does not happen.
    fn denied_from(&self, cycle: &Cycle) -> Ns {
        if cycle.off.state == OffState::Runnable {
            return cycle.off.at;
        }
        assert_ne!(self.limits, LimitClock::Task, "{cycle:?}");
        cycle.enqueued.expect("it was queued")
    }

    /// The stretches in which a limit denied the CPU to one of these threads, with the group's id.
    fn throttled(&self, tids: &[u32]) -> Vec<(Ns, Ns, u64)> {
        let mut all = Vec::new();
        for &tid in tids {
            for cycle in self.cycles(self.id(tid), 0, u64::MAX) {
                let Some(throttle) = cycle.throttle else {
                    continue;
                };
                let from = self.denied_from(cycle);
                assert!(from + throttle.ns <= cycle.end, "{cycle:?}");
                let estimated = self.limits == LimitClock::Estimated;
                assert_eq!(throttle.estimated, estimated, "{cycle:?}");
                assert!(!estimated || throttle.until.is_none(), "{cycle:?}");
                let until = throttle.until.unwrap_or(from + throttle.ns);
                all.push((from, until, throttle.cgroup));
            }
        }
        all.sort();
        all
    }
}

/// How much of the time at least one stretch covers.
fn union(stretches: &[(Ns, Ns, u64)]) -> Ns {
    let (mut sum, mut covered) = (0, 0);
    for &(from, to, _) in stretches {
        sum += to.saturating_sub(from.max(covered));
        covered = covered.max(to);
    }
    sum
}

/// What was recorded of threads under a limit, each by itself, beside what the kernel says of its group.
struct Limited {
    limits: LimitClock,
    threads: Vec<Vec<(Ns, Ns, u64)>>,
    truth: Ns,
}

/// Lets one thread work in each of these groups, sets the limits once all are there, and compares with
/// the first.
fn limited(groups: &[&CpuGroup], limits: &[(&CpuGroup, u64, u64)]) -> Limited {
    let mut session = Session::start();
    let workers: Vec<Worker<()>> = (0..groups.len())
        .map(|number| Worker::start(&format!("limited-{number}"), Some(CPU), work))
        .collect();
    let tids: Vec<u32> = workers.iter().map(|worker| worker.tid).collect();
    for (group, &tid) in groups.iter().zip(&tids) {
        move_into(group, tid);
    }
    // A wait that began in the queue of another group is measured in neither.
    let before: Vec<u64> = tids.iter().map(|&tid| runs_of(tid)).collect();
    until("each has run in its group", || {
        let runs = tids.iter().map(|&tid| runs_of(tid));
        runs.zip(&before).all(|(now, before)| now > *before)
    });
    for (group, quota_us, period_us) in limits {
        group.limit(*quota_us, *period_us);
    }
    burn(WORK_NS);
    for (group, _, _) in limits {
        lift(group);
    }
    let truth = limits[0].0.throttled_ns();
    for worker in workers {
        worker.finish();
    }
    session.drain_past(now());
    let threads = tids.iter().map(|&tid| session.throttled(&[tid]));
    Limited {
        limits: session.limits,
        threads: threads.collect(),
        truth,
    }
}

impl Limited {
    /// Where the kernel marks threads one by one, at least one of the group is denied the CPU for as
    /// long as the group is; where it denies the whole queue, each is, because each would run.
    #[track_caller]
    fn assert_like_the_group(&self) {
        assert!(self.truth > WORK_NS / 8, "it worked: {}", self.truth);
        if self.limits != LimitClock::Task {
            for thread in &self.threads {
                assert_close("throttled", union(thread), self.truth, slack(thread));
            }
            return;
        }
        let mut all = self.threads.concat();
        all.sort();
        let slack = slack(&all);
        assert_close("throttled", union(&all), self.truth, slack);
        for thread in &self.threads {
            let sum = union(thread);
            let range = self.truth / 4..self.truth + self.truth / tolerance() + slack;
            assert!(range.contains(&sum), "{sum} of {}", self.truth);
        }
    }

    /// `among` limits above them. Where the kernel marks no thread, one that strikes while a thread is
    /// queued already has no name, unless it is the only one.
    #[track_caller]
    fn assert_all_by(&self, group: &CpuGroup, among: usize) {
        let unnamed = self.limits != LimitClock::Task && among > 1;
        let by = |&(_, _, cgroup): &(Ns, Ns, u64)| cgroup == group.id() || unnamed && cgroup == 0;
        let all = self.threads.concat();
        assert!(all.iter().all(by), "{all:?}");
    }
}

/// A queue is throttled a little before the thread leaves, once for each time.
fn slack(stretches: &[(Ns, Ns, u64)]) -> Ns {
    200_000 * stretches.len() as u64
}

#[test]
fn root_one_thread_is_throttled_as_long_as_its_group() {
    let group = CpuGroup::new("one");
    let limited = limited(&[&group], &[(&group, QUOTA_US, PERIOD_US)]);
    limited.assert_like_the_group();
    limited.assert_all_by(&group, 1);
}

#[test]
fn root_three_threads_together_are_throttled_as_long_as_their_group() {
    let group = CpuGroup::new("three");
    let limited = limited(&[&group; 3], &[(&group, QUOTA_US, PERIOD_US)]);
    limited.assert_like_the_group();
    let sum: Ns = limited.threads.iter().map(|thread| union(thread)).sum();
    assert!(
        sum > limited.truth * 2,
        "each of them waited: {sum} of {}",
        limited.truth
    );
}

#[test]
fn root_a_hog_outside_is_not_the_limit() {
    let group = CpuGroup::new("outside");
    let outside = hog("outside", CPU);
    let limited = limited(&[&group], &[(&group, QUOTA_US, PERIOD_US)]);
    drop(outside);
    limited.assert_like_the_group();
}

#[test]
fn root_the_outer_of_two_limits_is_named() {
    let outer = CpuGroup::new("outer");
    let inner = outer.nested("inner");
    // Two threads share what the outer limit allows, so that the inner one is never reached: it is as
    // large, and allows in its long period what the outer does in all of several.
    let limits = [
        (&outer, QUOTA_US, PERIOD_US),
        (&inner, LONG * QUOTA_US, LONG * PERIOD_US),
    ];
    let limited = limited(&[&inner, &outer], &limits);
    limited.assert_like_the_group();
    limited.assert_all_by(&outer, 2);
    drop(inner);
}

#[test]
fn root_a_limit_that_changes_meanwhile_is_followed() {
    let group = CpuGroup::new("changed");
    group.limit(QUOTA_US, PERIOD_US);
    let mut session = Session::start();
    let worker = Worker::start("changed", Some(CPU), work);
    let tid = worker.tid;
    let before = group.throttled_ns();
    move_into(&group, tid);
    for quota_us in [QUOTA_US, QUOTA_US / 2, QUOTA_US * 3, QUOTA_US] {
        group.limit(quota_us, PERIOD_US);
        burn(WORK_NS / 4);
    }
    lift(&group);
    let truth = group.throttled_ns() - before;
    worker.finish();
    session.drain_past(now());
    let stretches = session.throttled(&[tid]);
    assert_close("throttled", union(&stretches), truth, slack(&stretches));
}

/// The thread is off the CPU by itself most of the time, so that it is woken into the limit again and
/// again, while another of its group uses the quota up.
#[test]
fn root_a_thread_woken_while_its_group_is_denied_waits_for_the_limit() {
    let group = CpuGroup::new("woken");
    group.limit(QUOTA_US, PERIOD_US);
    let mut session = Session::start();
    let rival = Worker::start("rival", Some(CPU), work);
    let sleeper = Worker::start("sleeper", Some(CPU), |go_on| {
        while go_on() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    let tid = sleeper.tid;
    let before = group.throttled_ns();
    move_into(&group, rival.tid);
    move_into(&group, tid);
    burn(WORK_NS);
    lift(&group);
    let truth = group.throttled_ns() - before;
    rival.finish();
    sleeper.finish();
    session.drain_past(now());
    let denied = union(&session.throttled(&[tid]));
    assert!(
        denied > truth / 2 && denied < truth + truth / 10,
        "denied {denied}, the group {truth}"
    );
}
