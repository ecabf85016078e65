// SPDX-License-Identifier: Apache-2.0
//! Each rule at its thresholds, and each pair that is easily taken for one another: a ping-pong and a
//! starved thread, a limit and a crowd, a loss and a slow peer, a quiet source and a void one.

use lacuna_timeline::Cause;

use super::behind_others_ns;
use super::block_io;
use super::context_switches;
use super::delay_accounting;
use super::memory;
use super::perf_counters;
use super::pressure;
use super::run_queue;
use super::stuck_threads;
use super::tcp;
use super::throttling;
use crate::ladder::facts::Counters;
use crate::ladder::facts::DelayGrowth;
use crate::ladder::facts::IoGrowth;
use crate::ladder::facts::LimitedGroup;
use crate::ladder::facts::MemoryGroup;
use crate::ladder::facts::Seen;
use crate::ladder::facts::Stall;
use crate::ladder::facts::Still;
use crate::ladder::facts::ThreadGrowth;
use crate::ladder::facts::Threads;
use crate::ladder::facts::Void;
use crate::ladder::verdict::Finding;
use crate::ladder::verdict::Sure;
use crate::ladder::verdict::Verdict;
use crate::ladder::verdict::conclude;

#[path = "rule_tests/network.rs"]
mod network;

const MS: u64 = 1_000_000;
const WINDOW_NS: u64 = 2_000 * MS;

fn void<T>() -> Seen<T> {
    Err(Void::new("it is off", "switch it on"))
}

/// A thread that waited so long, in so many time slices.
fn thread(run_delay_ns: u64, slices: u64) -> ThreadGrowth {
    ThreadGrowth {
        tid: 7,
        comm: "worker".to_owned(),
        run_delay_ns,
        slices,
        involuntary: slices,
        ..ThreadGrowth::default()
    }
}

fn threads(both: Vec<ThreadGrowth>) -> Seen<Threads> {
    Ok(Threads {
        both,
        ..Threads::default()
    })
}

fn limit(throttled_periods: u64, throttled_ns: u64) -> Seen<Vec<LimitedGroup>> {
    Ok(vec![LimitedGroup {
        path: "/pods/payments".to_owned(),
        cpus: 0.5,
        periods: 20,
        throttled_periods,
        throttled_ns,
    }])
}

fn no_limit() -> Seen<Vec<LimitedGroup>> {
    Ok(Vec::new())
}

#[track_caller]
fn is(finding: &Finding, verdict: Verdict, cause: Option<Cause>) {
    assert_eq!(
        (finding.verdict, finding.cause),
        (verdict, cause),
        "{finding:?}"
    );
    assert!(!finding.why.is_empty(), "every step says what it means");
    let says_what_to_do = matches!(verdict, Verdict::Ok) || !finding.next.is_empty();
    assert!(says_what_to_do, "{finding:?}");
}

#[test]
fn a_void_source_is_no_clean_bill_of_health() {
    let judged = [
        context_switches(&void(), &no_limit(), WINDOW_NS),
        throttling(&void(), &threads(vec![]), WINDOW_NS),
        tcp(&void(), None, WINDOW_NS),
        perf_counters(&void(), None, WINDOW_NS),
        run_queue(&void(), &no_limit(), WINDOW_NS),
        pressure(&void(), WINDOW_NS),
        delay_accounting(&void(), &void(), WINDOW_NS),
        block_io(&void()),
        memory(&void()),
        stuck_threads(&void(), WINDOW_NS),
    ];
    for finding in &judged {
        is(finding, Verdict::NotAvailable, None);
        assert!(finding.why.contains("it is off"), "{finding:?}");
        assert_eq!(finding.next, "switch it on");
        let conclusion = conclude(1, &[finding], WINDOW_NS);
        assert_eq!((conclusion.cause, conclusion.sure), (None, Sure::Unclear));
    }
    let fine = block_io(&Ok(IoGrowth::default()));
    assert_eq!(conclude(1, &[&fine], WINDOW_NS).sure, Sure::Likely);
    assert_eq!(
        conclude(1, &[&fine, &judged[0]], WINDOW_NS).sure,
        Sure::Unclear
    );
}

#[test]
fn the_ratio_of_switches_alone_proves_nothing() {
    // 93 % of 100,000 switches involuntary, 3 microseconds each, of which 2.9 are the switch's own.
    let mut ping = thread(300 * MS, 100_000);
    (ping.voluntary, ping.involuntary) = (52_000, 48_000);
    ping.switch_cost_ns = 2_900;
    let found = context_switches(&threads(vec![ping.clone()]), &no_limit(), WINDOW_NS);
    is(&found, Verdict::Ok, None);
    assert!(found.why.contains("10 %"), "{found:?}");
    let rare = threads(vec![thread(MS, 0)]);
    let quiet = context_switches(&rare, &no_limit(), WINDOW_NS);
    assert!(!quiet.why.contains("10 %"), "{quiet:?}");
    // Beside a hog the same switches cost the same, and the rest is waiting.
    ping.run_delay_ns = 800 * MS;
    let crowded = threads(vec![ping]);
    is(
        &context_switches(&crowded, &no_limit(), WINDOW_NS),
        Verdict::Suspect,
        Some(Cause::RunqWakeup),
    );
    is(
        &run_queue(&crowded, &no_limit(), WINDOW_NS),
        Verdict::Cause,
        Some(Cause::RunqWakeup),
    );
}

#[test]
fn one_percent_is_suspect_and_ten_are_a_cause() {
    for (waited_ns, verdict) in [
        (20 * MS, Verdict::Ok),
        (20 * MS + 1, Verdict::Suspect),
        (200 * MS, Verdict::Suspect),
        (200 * MS + 1, Verdict::Cause),
    ] {
        let one = threads(vec![thread(0, 9), thread(waited_ns, 9)]);
        let cause = (verdict > Verdict::Ok).then_some(Cause::RunqPreempted);
        let found = run_queue(&one, &no_limit(), WINDOW_NS);
        is(&found, verdict, cause);
        let switches = context_switches(&one, &no_limit(), WINDOW_NS);
        is(&switches, verdict.min(Verdict::Suspect), cause);
    }
}

#[test]
fn many_threads_that_wait_a_little_are_not_one_that_waits_long() {
    let many = threads((0..1_000).map(|_| thread(15 * MS, 9)).collect());
    is(&run_queue(&many, &no_limit(), WINDOW_NS), Verdict::Ok, None);
}

#[test]
fn what_a_limit_denied_is_not_anybodys_queue() {
    let one = threads(vec![thread(1_500 * MS, 40)]);
    let limited = limit(20, 1_490 * MS);
    is(&run_queue(&one, &limited, WINDOW_NS), Verdict::Ok, None);
    is(
        &context_switches(&one, &limited, WINDOW_NS),
        Verdict::Ok,
        None,
    );
    let found = throttling(&limited, &one, WINDOW_NS);
    is(&found, Verdict::Cause, Some(Cause::Throttle));
    assert_eq!(found.lost_ns, 1_490 * MS);
    assert!(found.why.contains("/pods/payments") && found.why.contains("20 of 20 periods"));
}

#[test]
fn a_limit_that_hits_the_neighbours_is_only_suspect() {
    let idle = threads(vec![thread(MS, 40)]);
    is(
        &throttling(&limit(20, 1_490 * MS), &idle, WINDOW_NS),
        Verdict::Suspect,
        Some(Cause::Throttle),
    );
    is(
        &throttling(&limit(0, 0), &idle, WINDOW_NS),
        Verdict::Ok,
        None,
    );
    is(
        &throttling(&no_limit(), &idle, WINDOW_NS),
        Verdict::Ok,
        None,
    );
    // Without the threads, the group's own clock is all there is.
    is(
        &throttling(&limit(20, 1_490 * MS), &void(), WINDOW_NS),
        Verdict::Cause,
        Some(Cause::Throttle),
    );
}

#[test]
fn a_thread_waits_no_longer_than_it_did_not_run() {
    // The kernel adds a wait when it ends: one that began a second before the window is in it whole.
    let mut one = thread(2_900 * MS, 40);
    one.on_cpu_ns = 1_990 * MS;
    assert_eq!(behind_others_ns(&one, 0, WINDOW_NS), 10 * MS);
    assert_eq!(behind_others_ns(&one, u64::MAX, WINDOW_NS), 0);
    (one.slices, one.switch_cost_ns) = (u64::MAX, u64::MAX);
    assert_eq!(behind_others_ns(&one, 0, WINDOW_NS), 0);
}

#[test]
fn a_thread_that_never_got_a_cpu_waited_all_the_time() {
    let starved = ThreadGrowth {
        still: Some(Still {
            state: 'R',
            stack: Vec::new(),
        }),
        ..thread(0, 0)
    };
    let found = run_queue(&threads(vec![starved.clone()]), &no_limit(), WINDOW_NS);
    is(&found, Verdict::Cause, Some(Cause::RunqPreempted));
    assert_eq!(found.lost_ns, WINDOW_NS);
    assert_eq!(
        behind_others_ns(&starved, 0, 100 * MS),
        0,
        "too short to say"
    );
}

#[test]
fn faults_that_read_from_storage_are_suspect_and_others_are_not() {
    let counters = |major_faults| {
        Ok(Counters {
            minor_faults: 1_000_000,
            major_faults,
            perf: None,
        })
    };
    let fault = Some(Cause::MemFault);
    is(
        &perf_counters(&counters(19), None, WINDOW_NS),
        Verdict::Ok,
        None,
    );
    is(
        &perf_counters(&counters(20), None, WINDOW_NS),
        Verdict::Suspect,
        fault,
    );
    is(&perf_counters(&counters(1), None, MS), Verdict::Ok, None);
    // /proc's faults are judged also where perf is not allowed, and their absence is no proof.
    let refused = Void::new("kernel.perf_event_paranoid is 4", "run as root");
    is(
        &perf_counters(&counters(20), Some(&refused), WINDOW_NS),
        Verdict::Suspect,
        fault,
    );
    let found = perf_counters(&counters(0), Some(&refused), WINDOW_NS);
    is(&found, Verdict::NotAvailable, None);
    assert!(found.why.contains("paranoid is 4"), "{found:?}");
}

#[test]
fn the_pressure_of_the_host_blames_nobody() {
    let stall = |resource, own_group| Stall {
        resource,
        own_group,
        some_ns: 900 * MS,
        full_ns: 0,
    };
    let judge = |stall| pressure(&Ok(vec![stall]), WINDOW_NS);
    let found = judge(stall("memory", false));
    is(&found, Verdict::NotAvailable, None);
    assert!(found.why.contains("blames nobody"), "{found:?}");
    is(
        &judge(stall("memory", true)),
        Verdict::Suspect,
        Some(Cause::MemReclaim),
    );
    is(
        &judge(stall("io", true)),
        Verdict::Suspect,
        Some(Cause::DiskRead),
    );
    let quiet = Stall {
        some_ns: 0,
        ..stall("memory", true)
    };
    let found = pressure(&Ok(vec![stall("cpu", true), quiet]), WINDOW_NS);
    is(&found, Verdict::Ok, None);
}

#[test]
fn delays_have_the_cause_that_they_were_counted_for() {
    let idle: Seen<IoGrowth> = void();
    let judge = |delays| delay_accounting(&Ok(delays), &idle, WINDOW_NS);
    is(&judge(DelayGrowth::default()), Verdict::Ok, None);
    let swap = DelayGrowth {
        swap_in_ns: 300 * MS,
        block_io_ns: 300 * MS,
        ..DelayGrowth::default()
    };
    is(&judge(swap), Verdict::Cause, Some(Cause::MemSwap));
    let reclaim = DelayGrowth {
        reclaim_ns: 100 * MS,
        compaction_ns: Some(90 * MS),
        ..DelayGrowth::default()
    };
    is(&judge(reclaim), Verdict::Suspect, Some(Cause::MemReclaim));
    let disk = DelayGrowth {
        block_io_ns: 3_000 * MS,
        thrashing_ns: Some(0),
        ..DelayGrowth::default()
    };
    let found = judge(disk.clone());
    is(&found, Verdict::Cause, Some(Cause::DiskRead));
    assert_eq!(
        found.lost_ns, WINDOW_NS,
        "a sum over threads is no longer than the window"
    );
    let writes = Ok(IoGrowth {
        storage_written_bytes: 4_096,
        ..IoGrowth::default()
    });
    let found = delay_accounting(&Ok(disk), &writes, WINDOW_NS);
    is(&found, Verdict::Cause, Some(Cause::DiskWrite));
}

#[test]
fn memory_limits_that_were_reached_are_named() {
    let group = |high, max, oom_kills| {
        Ok(vec![MemoryGroup {
            path: "/pods/payments".to_owned(),
            limit_bytes: Some(1 << 30),
            high,
            max,
            oom_kills,
        }])
    };
    is(&memory(&Ok(Vec::new())), Verdict::Ok, None);
    is(&memory(&group(0, 0, 0)), Verdict::Ok, None);
    is(
        &memory(&group(5, 0, 0)),
        Verdict::Suspect,
        Some(Cause::MemLimit),
    );
    is(
        &memory(&group(0, 5, 0)),
        Verdict::Suspect,
        Some(Cause::MemLimit),
    );
    is(
        &memory(&group(9, 9, 1)),
        Verdict::Cause,
        Some(Cause::MemOom),
    );
}

#[test]
fn a_stuck_thread_is_named_by_its_stack_and_a_sleeping_one_is_not_stuck() {
    let still = |state, stack: &[&str]| ThreadGrowth {
        still: Some(Still {
            state,
            stack: stack.iter().map(|name| (*name).into()).collect(),
        }),
        ..thread(0, 0)
    };
    let judge = |one| stuck_threads(&threads(vec![one]), WINDOW_NS);
    is(&judge(thread(0, 0)), Verdict::Ok, None);
    let remote = judge(still('D', &["io_schedule", "nfs_wait_bit_killable"]));
    is(&remote, Verdict::Cause, Some(Cause::FsRemote));
    is(
        &judge(still('D', &[])),
        Verdict::Cause,
        Some(Cause::WaitOther),
    );
    is(
        &judge(still('T', &[])),
        Verdict::Cause,
        Some(Cause::WaitStopped),
    );
    is(&judge(still('R', &[])), Verdict::Ok, None);
    let both = threads(vec![
        still('T', &[]),
        still('D', &["nfs_wait_bit_killable"]),
    ]);
    is(
        &stuck_threads(&both, WINDOW_NS),
        Verdict::Cause,
        Some(Cause::FsRemote),
    );
    let short = stuck_threads(&both, 100 * MS);
    is(&short, Verdict::NotAvailable, None);
}

#[test]
fn the_largest_cause_wins_and_a_rival_makes_it_less_sure() {
    let limited = limit(20, 1_200 * MS);
    let one = threads(vec![thread(1_500 * MS, 40)]);
    let (switches, throttle, queue) = (
        context_switches(&one, &limited, WINDOW_NS),
        throttling(&limited, &one, WINDOW_NS),
        run_queue(&one, &limited, WINDOW_NS),
    );
    let said = conclude(4123, &[&switches, &throttle, &queue], WINDOW_NS);
    assert_eq!(
        (said.cause, said.sure),
        (Some(Cause::Throttle), Sure::Certain)
    );
    assert!(
        said.next.contains("lacuna agent --watch pid:4123"),
        "{said:?}"
    );
    assert!(said.next.contains("lacuna run"), "{said:?}");
    let half = limit(20, 800 * MS);
    let (throttle, queue) = (
        throttling(&half, &one, WINDOW_NS),
        run_queue(&one, &half, WINDOW_NS),
    );
    let said = conclude(1, &[&throttle, &queue], WINDOW_NS);
    assert_eq!(
        (said.cause, said.sure),
        (Some(Cause::Throttle), Sure::Likely)
    );
}

#[test]
fn two_views_of_one_queue_are_no_rivals_and_a_hint_is_no_proof() {
    let one = threads(vec![thread(900 * MS, 40)]);
    let switches = context_switches(&one, &no_limit(), WINDOW_NS);
    let queue = run_queue(&one, &no_limit(), WINDOW_NS);
    let said = conclude(1, &[&switches, &queue], WINDOW_NS);
    assert_eq!(
        (said.cause, said.sure),
        (Some(Cause::RunqPreempted), Sure::Certain)
    );
    let said = conclude(1, &[&switches], WINDOW_NS);
    assert_eq!(
        (said.cause, said.sure),
        (Some(Cause::RunqPreempted), Sure::Unclear)
    );
}
