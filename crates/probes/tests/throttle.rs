// SPDX-License-Identifier: Apache-2.0
//! CPU limits against `cpu.stat` (rules 6 and 7). `cpu.stat` counts queues, so what is compared is the
//! union over the threads of a group on one CPU.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::kernel::CpuGroup;
use common::now;
use common::worker::GoOn;
use common::worker::Worker;
use common::worker::burn;
use common::worker::hog;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::OffState;

/// How long a limit works before the counters are compared.
const WORK_NS: u64 = 1_500_000_000;
const PERIOD_US: u64 = 50_000;
const QUOTA_US: u64 = 10_000;

/// Uses the CPU until told to stop.
fn work(go_on: GoOn<'_>) {
    while go_on() {
        burn(100_000);
    }
}

impl Session {
    /// The stretches in which a limit denied the CPU to one of these threads, with the group's id.
    fn throttled(&self, tids: &[u32]) -> Vec<(Ns, Ns, u64)> {
        let mut all = Vec::new();
        for &tid in tids {
            for cycle in self.cycles(self.id(tid), 0, u64::MAX) {
                let Some(throttle) = cycle.throttle else {
                    continue;
                };
                assert_eq!(cycle.off.state, OffState::Runnable, "{cycle:?}");
                assert!(cycle.off.at + throttle.ns <= cycle.end, "{cycle:?}");
                let until = throttle.until.unwrap_or(cycle.off.at + throttle.ns);
                all.push((cycle.off.at, until, throttle.cgroup));
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

/// Lets one thread work in each of these groups, and returns what was recorded beside what the kernel
/// says of `stat`.
fn limited(groups: &[&CpuGroup], stat: &CpuGroup) -> (Vec<(Ns, Ns, u64)>, Ns) {
    let mut session = Session::start();
    let workers: Vec<Worker<()>> = (0..groups.len())
        .map(|number| Worker::start(&format!("limited-{number}"), Some(0), work))
        .collect();
    let tids: Vec<u32> = workers.iter().map(|worker| worker.tid).collect();
    let before = stat.throttled_ns();
    for (group, &tid) in groups.iter().zip(&tids) {
        group.take(tid);
    }
    burn(WORK_NS);
    for worker in workers {
        worker.finish();
    }
    let truth = stat.throttled_ns() - before;
    session.drain_past(now());
    (session.throttled(&tids), truth)
}

/// A queue is throttled a little before the thread leaves, once for each time.
fn slack(stretches: &[(Ns, Ns, u64)]) -> Ns {
    200_000 * stretches.len() as u64
}

#[test]
fn root_one_thread_is_throttled_as_long_as_its_group() {
    let group = CpuGroup::new("one");
    group.limit(QUOTA_US, PERIOD_US);
    let (stretches, truth) = limited(&[&group], &group);
    assert!(truth > WORK_NS / 4, "the limit worked: {truth}");
    common::assert_close("throttled", union(&stretches), truth, slack(&stretches));
    assert!(
        stretches.iter().all(|&(_, _, cgroup)| cgroup == group.id()),
        "{stretches:?}"
    );
}

#[test]
fn root_three_threads_together_are_throttled_as_long_as_their_group() {
    let group = CpuGroup::new("three");
    group.limit(QUOTA_US, PERIOD_US);
    let (stretches, truth) = limited(&[&group; 3], &group);
    let sum: Ns = stretches.iter().map(|(from, to, _)| to - from).sum();
    common::assert_close("throttled", union(&stretches), truth, slack(&stretches));
    assert!(sum > truth * 2, "each of them waited: {sum} of {truth}");
}

#[test]
fn root_a_hog_outside_is_not_the_limit() {
    let group = CpuGroup::new("outside");
    group.limit(QUOTA_US, PERIOD_US);
    let outside = hog("outside", 0);
    let (stretches, truth) = limited(&[&group], &group);
    drop(outside);
    common::assert_close("throttled", union(&stretches), truth, slack(&stretches));
}

#[test]
fn root_the_outer_of_two_limits_is_named() {
    let outer = CpuGroup::new("outer");
    outer.limit(QUOTA_US, PERIOD_US);
    let inner = outer.nested("inner");
    inner.limit(QUOTA_US, PERIOD_US);
    // Two threads share what the outer limit allows, so that the inner one is never reached.
    let (stretches, truth) = limited(&[&inner, &outer], &outer);
    common::assert_close("throttled", union(&stretches), truth, slack(&stretches));
    assert!(
        stretches.iter().all(|&(_, _, cgroup)| cgroup == outer.id()),
        "{stretches:?}"
    );
    drop(inner);
}

#[test]
fn root_a_limit_that_changes_meanwhile_is_followed() {
    let group = CpuGroup::new("changed");
    group.limit(QUOTA_US, PERIOD_US);
    let mut session = Session::start();
    let worker = Worker::start("changed", Some(0), work);
    let tid = worker.tid;
    let before = group.throttled_ns();
    group.take(tid);
    for quota_us in [QUOTA_US, QUOTA_US / 2, QUOTA_US * 3, QUOTA_US] {
        group.limit(quota_us, PERIOD_US);
        burn(WORK_NS / 4);
    }
    worker.finish();
    let truth = group.throttled_ns() - before;
    session.drain_past(now());
    let stretches = session.throttled(&[tid]);
    common::assert_close("throttled", union(&stretches), truth, slack(&stretches));
}
