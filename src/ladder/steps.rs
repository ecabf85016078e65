// SPDX-License-Identifier: Apache-2.0
//! The steps of the ladder in their order: for each its name, what `rule.rs` makes of it, and the
//! numbers that it rests on. The types of the contract (`lacuna.ladder/1`).

use std::cmp::Reverse;

use serde::Serialize;
use serde::Serializer;

use lacuna_timeline::Cause;

use super::facts::Connection;
use super::facts::Facts;
use super::facts::Stall;
use super::facts::ThreadGrowth;
use super::rule;
use super::values::Values;
use super::verdict;
use super::verdict::Conclusion;
use super::verdict::Finding;
use super::verdict::Verdict;

/// The most threads, connections or groups that one step lists: those that lost most.
const LISTED_MAX: usize = 5;

/// `lacuna.ladder/1`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: &'static str,
    pub(crate) processes: Vec<ProcessReport>,
}

/// One process.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct ProcessReport {
    pub(crate) pid: u32,
    pub(crate) comm: String,
    pub(crate) window_ns: u64,
    pub(crate) steps: Vec<Step>,
    pub(crate) conclusion: Conclusion,
}

/// One rung.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) step: u64,
    pub(crate) name: &'static str,
    pub(crate) verdict: Verdict,
    #[serde(
        serialize_with = "public_name",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) cause: Option<Cause>,
    pub(crate) why: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) next: String,
    pub(crate) values: Values,
}

fn public_name<S: Serializer>(cause: &Option<Cause>, serializer: S) -> Result<S::Ok, S::Error> {
    cause.map(Cause::name).serialize(serializer)
}

/// A rung: its name, its judgement, its numbers.
type Rung = (&'static str, fn(&Facts) -> Finding, fn(&Facts) -> Values);

/// The first four as the seed has them.
const RUNGS: [Rung; 10] = [
    (
        "context-switches",
        |f| rule::context_switches(&f.threads, &f.limits, f.window_ns),
        switches,
    ),
    (
        "throttling",
        |f| rule::throttling(&f.limits, &f.threads, f.window_ns),
        limits,
    ),
    (
        "tcp",
        |f| rule::tcp(&f.tcp, f.namespace.as_ref(), f.window_ns),
        tcp,
    ),
    (
        "perf-counters",
        |f| rule::perf_counters(&f.counters, f.perf_void.as_ref(), f.window_ns),
        perf,
    ),
    (
        "run-queue",
        |f| rule::run_queue(&f.threads, &f.limits, f.window_ns),
        run_queue,
    ),
    (
        "pressure",
        |f| rule::pressure(&f.stalls, f.window_ns),
        pressure,
    ),
    (
        "delay-accounting",
        |f| rule::delay_accounting(&f.delays, &f.io, f.window_ns),
        delays,
    ),
    ("block-io", |f| rule::block_io(&f.io), block_io),
    ("memory", |f| rule::memory(&f.memory), memory),
    (
        "stuck-threads",
        |f| rule::stuck_threads(&f.threads, f.window_ns),
        stuck,
    ),
];

/// Judges everything, calls `show` with each step as it is done, and gives the whole.
pub(super) fn climb(
    pid: u32,
    comm: &str,
    facts: &Facts,
    mut show: impl FnMut(&Step),
) -> ProcessReport {
    let mut steps = Vec::new();
    let mut findings = Vec::new();
    for (place, (name, judge, values)) in (1..).zip(RUNGS) {
        let finding = judge(facts);
        let step = Step {
            step: place,
            name,
            verdict: finding.verdict,
            cause: finding.cause,
            why: finding.why.clone(),
            next: finding.next.clone(),
            values: values(facts),
        };
        show(&step);
        steps.push(step);
        findings.push(finding);
    }
    let findings: Vec<&Finding> = findings.iter().collect();
    ProcessReport {
        pid,
        comm: comm.to_owned(),
        window_ns: facts.window_ns,
        steps,
        conclusion: verdict::conclude(pid, &findings, facts.window_ns),
    }
}

fn switches(facts: &Facts) -> Values {
    let Ok(threads) = &facts.threads else {
        return Values::default();
    };
    let sum = |of: fn(&ThreadGrowth) -> u64| threads.both.iter().map(of).sum::<u64>();
    let (voluntary, involuntary) = (sum(|t| t.voluntary), sum(|t| t.involuntary));
    let worst = rule::longest_behind(threads, &facts.limits, facts.window_ns);
    let values = Values::default()
        .number("voluntary", voluntary)
        .number("involuntary", involuntary)
        .ratio("involuntary_to_voluntary_share", involuntary, voluntary)
        .exact("seed_limit_share", rule::INVOLUNTARY_SHARE)
        .number("threads", threads.both.len() as u64)
        .number("threads_started", threads.started)
        .number("threads_ended", threads.ended);
    match worst {
        Some((_, ns)) => {
            values
                .number("longest_wait_ns", ns)
                .ratio("longest_wait_share", ns, facts.window_ns)
        }
        None => values,
    }
}

fn limits(facts: &Facts) -> Values {
    let Ok(groups) = &facts.limits else {
        return Values::default();
    };
    let group = |group: &super::facts::LimitedGroup| {
        Values::default()
            .text("cgroup", group.path.clone())
            .exact("limit_cpus", group.cpus)
            .number("periods", group.periods)
            .number("throttled_periods", group.throttled_periods)
            .number("throttled_ns", group.throttled_ns)
    };
    Values::default().list("groups", groups.iter().map(group))
}

fn tcp(facts: &Facts) -> Values {
    let mut values = Values::default();
    if let Ok(tcp) = &facts.tcp {
        let retransmits = tcp.connections.iter().map(|one| one.retransmits).sum();
        let mut worst: Vec<&Connection> = tcp.connections.iter().collect();
        worst.sort_by_key(|one| {
            let lost_ns = rule::recovering_ns(one, facts.window_ns);
            Reverse((lost_ns, one.retransmits, one.window_limited_ns, one.busy_ns))
        });
        worst.truncate(LISTED_MAX);
        let listener = |one: &super::facts::Listener| {
            Values::default()
                .text("local", one.local.to_string())
                .number("dropped_connections", one.drops)
                .number("accept_queue", one.queued.into())
                .number("accept_queue_max", one.queue_max.into())
        };
        values = values
            .number("connections", tcp.connections.len() as u64)
            .number("retransmits", retransmits)
            .is("all_sockets_seen", !tcp.cut)
            .list("worst", worst.into_iter().map(connection))
            .list(
                "listeners",
                tcp.listeners.iter().take(LISTED_MAX).map(listener),
            );
    }
    if let Some(all) = &facts.namespace {
        values = values
            .number("namespace_segments_out", all.segments_out)
            .number("namespace_retransmits", all.retransmits)
            .maybe("namespace_timeouts", all.timeouts)
            .maybe("namespace_accept_queue_overflows", all.listen_overflows);
    }
    values
}

fn connection(one: &Connection) -> Values {
    Values::default()
        .text("local", one.local.to_string())
        .text("peer", one.peer.to_string())
        .number("retransmits", one.retransmits)
        .maybe("segments_out", one.segments_out)
        .maybe("timeouts", one.timeouts)
        .maybe("recovery_ns", one.recovery_ns)
        .is("recovering", one.recovering)
        .is("dropped_on_this_host", one.held_here)
        .number("lost", one.lost.into())
        .number("unacked", one.unacked.into())
        .number("rto_ns", one.rto_ns)
        .number("rtt_ns", one.rtt_ns)
        .number("congestion_window", one.congestion_window.into())
        .maybe("busy_ns", one.busy_ns)
        .maybe("window_limited_ns", one.window_limited_ns)
        .maybe("buffer_limited_ns", one.buffer_limited_ns)
}

fn perf(facts: &Facts) -> Values {
    let Ok(counters) = &facts.counters else {
        return Values::default();
    };
    let values = Values::default()
        .number("minor_faults", counters.minor_faults)
        .number("major_faults", counters.major_faults);
    match &counters.perf {
        None => values,
        Some(perf) => values
            .number("perf_threads", perf.threads)
            .number("perf_context_switches", perf.context_switches)
            .number("perf_migrations", perf.migrations)
            .number("perf_minor_faults", perf.minor_faults)
            .number("perf_major_faults", perf.major_faults)
            .maybe("perf_cycles", perf.cycles)
            .maybe("perf_instructions", perf.instructions)
            .is("hardware_counters", perf.cycles.is_some()),
    }
}

fn run_queue(facts: &Facts) -> Values {
    let Ok(threads) = &facts.threads else {
        return Values::default();
    };
    let sum = |of: fn(&ThreadGrowth) -> u64| threads.both.iter().map(of).sum::<u64>();
    let throttled_ns = rule::throttled_ns(&facts.limits);
    let behind =
        |thread: &ThreadGrowth| rule::behind_others_ns(thread, throttled_ns, facts.window_ns);
    let did = |thread: &&ThreadGrowth| thread.slices > 0 || behind(thread) > 0;
    let mut worst: Vec<&ThreadGrowth> = threads.both.iter().filter(did).collect();
    worst.sort_by_key(|thread| Reverse((behind(thread), thread.run_delay_ns)));
    worst.truncate(LISTED_MAX);
    let thread = |thread: &ThreadGrowth| {
        Values::default()
            .number("tid", thread.tid.into())
            .text("comm", thread.comm.clone())
            .number("on_cpu_ns", thread.on_cpu_ns)
            .number("run_delay_ns", thread.run_delay_ns)
            .number("behind_others_ns", behind(thread))
            .number("slices", thread.slices)
            .number("switch_cost_ns", thread.switch_cost_ns)
            .number("voluntary", thread.voluntary)
            .number("involuntary", thread.involuntary)
    };
    Values::default()
        .number("on_cpu_ns", sum(|t| t.on_cpu_ns))
        .number("run_delay_ns", sum(|t| t.run_delay_ns))
        .number("limit_denied_ns", throttled_ns)
        .list("worst", worst.into_iter().map(thread))
}

fn pressure(facts: &Facts) -> Values {
    let Ok(stalls) = &facts.stalls else {
        return Values::default();
    };
    let stall = |stall: &Stall| {
        Values::default()
            .text("of", if stall.own_group { "cgroup" } else { "host" })
            .text("resource", stall.resource)
            .number("some_ns", stall.some_ns)
            .number("full_ns", stall.full_ns)
            .ratio("some_share", stall.some_ns, facts.window_ns)
    };
    Values::default().list("stalls", stalls.iter().map(stall))
}

fn delays(facts: &Facts) -> Values {
    let Ok(delays) = &facts.delays else {
        return Values::default();
    };
    Values::default()
        .number("block_io_ns", delays.block_io_ns)
        .number("swap_in_ns", delays.swap_in_ns)
        .number("reclaim_ns", delays.reclaim_ns)
        .maybe("thrashing_ns", delays.thrashing_ns)
        .maybe("compaction_ns", delays.compaction_ns)
}

fn block_io(facts: &Facts) -> Values {
    let Ok(io) = &facts.io else {
        return Values::default();
    };
    Values::default()
        .number("read_calls", io.read_calls)
        .number("write_calls", io.write_calls)
        .number("storage_read_bytes", io.storage_read_bytes)
        .number("storage_written_bytes", io.storage_written_bytes)
}

fn memory(facts: &Facts) -> Values {
    let Ok(groups) = &facts.memory else {
        return Values::default();
    };
    let group = |group: &super::facts::MemoryGroup| {
        Values::default()
            .text("cgroup", group.path.clone())
            .maybe("limit_bytes", group.limit_bytes)
            .number("high_events", group.high)
            .number("max_events", group.max)
            .number("oom_kills", group.oom_kills)
    };
    Values::default().list("groups", groups.iter().map(group))
}

fn stuck(facts: &Facts) -> Values {
    let Ok(threads) = &facts.threads else {
        return Values::default();
    };
    let still = threads.both.iter().filter_map(|thread| {
        let still = thread.still.as_ref()?;
        let values = Values::default()
            .number("tid", thread.tid.into())
            .text("comm", thread.comm.clone())
            .text("state", still.state.to_string());
        Some(match still.stack.is_empty() {
            true => values,
            false => values.text("kernel_stack", still.stack.join(" < ")),
        })
    });
    Values::default().list("still", still.take(LISTED_MAX))
}
