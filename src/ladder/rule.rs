// SPDX-License-Identifier: Apache-2.0
//! From values to a verdict: the whole judgement of the ladder, and nothing else. Pure: the same facts
//! give the same words.
//!
//! Every rule is about amounts of the kernel's own counters within the window, with two thresholds: 1 %
//! of the window is worth a look ([`Verdict::Suspect`]), 10 % is worth acting on ([`Verdict::Cause`]).
//! A void source is [`Verdict::NotAvailable`], and keeps "nothing found" from being called likely.

use lacuna_timeline::Cause;
use lacuna_timeline::cause::StackClass;

use super::facts::Connection;
use super::facts::Counters;
use super::facts::DelayGrowth;
use super::facts::IoGrowth;
use super::facts::LimitedGroup;
use super::facts::Listener;
use super::facts::MemoryGroup;
use super::facts::NetNamespace;
use super::facts::Seen;
use super::facts::Stall;
use super::facts::Tcp;
use super::facts::ThreadGrowth;
use super::facts::Threads;
use super::facts::Void;
use super::verdict::Finding;
use super::verdict::Verdict;
use crate::render::count;
use crate::render::duration;
use crate::render::percent;

/// The seed of the ladder calls more involuntary than this share of voluntary switches suspicious. It
/// is shown and does not decide: an uncontended ping-pong over a pipe has 93 %.
pub(crate) const INVOLUNTARY_SHARE: f64 = 0.10;
/// Major faults a second, from which they are worth a look: each waits for storage, 0.1 ms and more.
const MAJOR_FAULTS_PER_SECOND: u64 = 10;
/// One segment in so many sent again is a loss that a connection feels.
const SEGMENTS_PER_RETRANSMIT: u64 = 100;
/// A thread that is still for less than this may just not have had anything to do at both instants.
const STILL_NS_MIN: u64 = 500_000_000;

/// Whether an amount of the window is nothing, worth a look, or worth acting on.
fn weigh(ns: u64, window_ns: u64) -> Verdict {
    match ns {
        _ if ns > window_ns / 10 => Verdict::Cause,
        _ if ns > window_ns / 100 => Verdict::Suspect,
        _ => Verdict::Ok,
    }
}

/// The sum over the groups of what their limits denied.
pub(crate) fn throttled_ns(limits: &Seen<Vec<LimitedGroup>>) -> u64 {
    let groups = limits.as_deref().unwrap_or_default();
    groups
        .iter()
        .fold(0, |sum, group| sum.saturating_add(group.throttled_ns))
}

/// For how long a thread was runnable and did not run, whatever denied it the CPU. The kernel adds a
/// wait when it ends, so one that began before the window may be in it whole: the window less what the
/// thread ran is the most there can be. One that was runnable at both instants and got no CPU waited
/// all the time.
pub(crate) fn runnable_ns(thread: &ThreadGrowth, window_ns: u64) -> u64 {
    match &thread.still {
        Some(still) if still.state == 'R' && window_ns >= STILL_NS_MIN => window_ns,
        _ => {
            let idle_ns = window_ns.saturating_sub(thread.on_cpu_ns);
            thread.run_delay_ns.min(idle_ns)
        }
    }
}

/// Of that, how long it waited behind others: less what a CPU limit denied, and less what switching
/// itself costs a thread that switches all the time.
pub(crate) fn behind_others_ns(thread: &ThreadGrowth, throttled_ns: u64, window_ns: u64) -> u64 {
    let switching_ns = thread.slices.saturating_mul(thread.switch_cost_ns);
    runnable_ns(thread, window_ns)
        .saturating_sub(throttled_ns)
        .saturating_sub(switching_ns)
}

/// The thread that waited longest behind others, and for how long.
pub(crate) fn longest_behind<'a>(
    threads: &'a Threads,
    limits: &Seen<Vec<LimitedGroup>>,
    window_ns: u64,
) -> Option<(&'a ThreadGrowth, u64)> {
    let throttled_ns = throttled_ns(limits);
    let waited = |thread| (thread, behind_others_ns(thread, throttled_ns, window_ns));
    threads.both.iter().map(waited).max_by_key(|(_, ns)| *ns)
}

/// Which of the two it is more likely to be: counters do not tell each wait.
fn run_queue_cause(thread: &ThreadGrowth) -> Cause {
    if thread.involuntary >= thread.voluntary {
        Cause::RunqPreempted
    } else {
        Cause::RunqWakeup
    }
}

fn named(thread: &ThreadGrowth) -> String {
    format!("thread {} ({})", thread.comm, thread.tid)
}

/// Step 1: suspect only where a thread really waited for a CPU.
pub(crate) fn context_switches(
    threads: &Seen<Threads>,
    limits: &Seen<Vec<LimitedGroup>>,
    window_ns: u64,
) -> Finding {
    let threads = match threads {
        Ok(threads) => threads,
        Err(void) => return Finding::void(void),
    };
    let sum = |of: fn(&ThreadGrowth) -> u64| threads.both.iter().map(of).sum::<u64>();
    let (voluntary, involuntary) = (sum(|t| t.voluntary), sum(|t| t.involuntary));
    let high = involuntary as f64 > voluntary as f64 * INVOLUNTARY_SHARE;
    match longest_behind(threads, limits, window_ns) {
        Some((thread, ns)) if weigh(ns, window_ns) > Verdict::Ok => Finding::found(
            Verdict::Suspect,
            run_queue_cause(thread),
            ns,
            format!(
                "{} waited {} for a CPU behind others: its switches are the scheduler's doing",
                named(thread),
                duration(ns)
            ),
            "see who uses the CPUs of this host",
        ),
        _ if high => Finding::ok(
            "the kernel took the CPU away more often than 10 % of the times that it was given up, \
             and no thread waited for it: that is how threads hand over to each other",
        ),
        _ => Finding::ok("no thread was kept from a CPU"),
    }
}

/// Step 2.
pub(crate) fn throttling(
    limits: &Seen<Vec<LimitedGroup>>,
    threads: &Seen<Threads>,
    window_ns: u64,
) -> Finding {
    let groups = match limits {
        Ok(groups) => groups,
        Err(void) => return Finding::void(void),
    };
    let Some(worst) = groups.iter().max_by_key(|group| group.throttled_ns) else {
        return Finding::ok("no CPU limit holds for this process");
    };
    if worst.throttled_periods == 0 && worst.throttled_ns == 0 {
        return Finding::ok("its CPU limits denied it nothing");
    }
    let longest = |threads: &Threads| {
        let runnable = threads.both.iter().map(|t| runnable_ns(t, window_ns));
        runnable.max().unwrap_or(0)
    };
    // Where threads cannot be read, the group's own clock is what there is.
    let waited_ns = threads.as_ref().map_or(window_ns, longest);
    let denied_ns = throttled_ns(limits).min(waited_ns);
    let hit = format!(
        "{} (limit {} CPUs) was throttled in {} of {}",
        worst.path,
        super::text::decimal(worst.cpus),
        worst.throttled_periods,
        count(worst.periods, "period", "periods")
    );
    if weigh(denied_ns, window_ns) > Verdict::Ok {
        return Finding::found(
            Verdict::Cause,
            Cause::Throttle,
            denied_ns,
            format!(
                "{hit}: its limit denied threads of this process the CPU for up to {}",
                duration(denied_ns)
            ),
            "raise the limit of that group, or let fewer threads run at once in it",
        );
    }
    Finding::found(
        Verdict::Suspect,
        Cause::Throttle,
        denied_ns,
        format!("{hit}, and no thread of this process waited for that noticeably"),
        "look at the other processes of that group",
    )
}

/// For how long a connection was recovering from losses, as far as the kernel tells.
pub(crate) fn recovering_ns(connection: &Connection, window_ns: u64) -> u64 {
    let again_ns = connection.retransmits.saturating_mul(connection.rtt_ns);
    // A recovery that goes on is not in the kernel's sum: its timer has run out at least once.
    let now_ns = match connection.recovering || connection.held_here {
        true => connection.rto_ns,
        false => 0,
    };
    let told_ns = connection.recovery_ns.unwrap_or(0);
    told_ns.max(again_ns).saturating_add(now_ns).min(window_ns)
}

/// Whether a connection lost anything.
fn loses(connection: &Connection) -> bool {
    connection.retransmits > 0
        || connection.lost > 0
        || connection.recovering
        || connection.held_here
}

/// Step 3.
pub(crate) fn tcp(tcp: &Seen<Tcp>, namespace: Option<&NetNamespace>, window_ns: u64) -> Finding {
    let tcp = match (tcp, namespace) {
        (Ok(tcp), _) => tcp,
        (Err(void), None) => return Finding::void(void),
        // Numbers beside a void source must say whose they are.
        (Err(void), Some(_)) => {
            return Finding {
                why: format!(
                    "not known of its own connections: {}; the numbers are of everybody in its \
                     network namespace together, and blame nobody",
                    void.why
                ),
                ..Finding::void(void)
            };
        }
    };
    let losing = tcp.connections.iter().filter(|one| loses(one));
    if let Some(worst) = losing.max_by_key(|one| (recovering_ns(one, window_ns), one.retransmits)) {
        return losses(worst, window_ns);
    }
    let dropping = tcp.listeners.iter().filter(|one| one.drops > 0);
    if let Some(worst) = dropping.max_by_key(|one| one.drops) {
        return refused(worst);
    }
    let limited = |one: &Connection| one.window_limited_ns.unwrap_or(0);
    let narrow = tcp.connections.iter().max_by_key(|one| limited(one));
    match narrow {
        Some(worst) if weigh(limited(worst), window_ns) > Verdict::Ok => Finding::found(
            Verdict::Suspect,
            Cause::NetSend,
            limited(worst).min(window_ns),
            format!(
                "{} takes what is sent too slowly: its window was too small for {}",
                worst.peer,
                duration(limited(worst))
            ),
            "look at why the other end reads so slowly",
        ),
        _ if tcp.connections.is_empty() && tcp.listeners.is_empty() => {
            Finding::ok("it has no TCP socket")
        }
        _ => Finding::ok("nothing that it sent was lost"),
    }
}

fn losses(worst: &Connection, window_ns: u64) -> Finding {
    let lost_ns = recovering_ns(worst, window_ns);
    let often = match worst.segments_out {
        Some(out) => worst.retransmits.saturating_mul(SEGMENTS_PER_RETRANSMIT) >= out.max(1),
        None => false,
    };
    let verdict = match often || weigh(lost_ns, window_ns) > Verdict::Ok {
        true => Verdict::Cause,
        false => Verdict::Suspect,
    };
    let cause = match worst.connecting {
        true => Cause::NetConnect,
        false => Cause::NetRetransmit,
    };
    let (what, next) = match (worst.connecting, worst.held_here) {
        (true, _) => (
            "does not answer connection requests",
            "see whether the other end listens, and what drops packets on the way",
        ),
        (_, true) => (
            "gets nothing, because this host itself drops what is sent to it",
            "see the queues and filters of this host: tc -s qdisc, nft list ruleset",
        ),
        _ => (
            "did not get all that was sent to it",
            "see what drops packets on the way there",
        ),
    };
    let why = format!(
        "{} {what}: {} sent again, {} in recovery at least",
        worst.peer,
        count(worst.retransmits, "segment", "segments"),
        duration(lost_ns)
    );
    Finding::found(verdict, cause, lost_ns, why, next)
}

fn refused(worst: &Listener) -> Finding {
    Finding::found(
        Verdict::Suspect,
        Cause::NetConnect,
        0,
        format!(
            "the listening socket {} dropped {}: those who connect wait a second or more",
            worst.local,
            count(worst.drops, "connection", "connections")
        ),
        "accept faster, or raise the backlog of listen() and net.core.somaxconn",
    )
}

/// Step 4. Switches and migrations are for the reader; only faults that read from storage are judged.
pub(crate) fn perf_counters(
    counters: &Seen<Counters>,
    perf_void: Option<&Void>,
    window_ns: u64,
) -> Finding {
    let counters = match counters {
        Ok(counters) => counters,
        Err(void) => return Finding::void(void),
    };
    let mut finding = faults(counters, window_ns);
    if let (Verdict::Ok, Some(void)) = (finding.verdict, perf_void) {
        finding = Finding {
            why: format!("{}; faults and switches are /proc's", void.why),
            ..Finding::void(void)
        };
    }
    let perf = counters.perf.as_ref();
    if let Some(void) = perf.and_then(|perf| perf.no_hardware.as_ref()) {
        finding
            .why
            .push_str("; hardware counters (cycles, instructions) are void: ");
        finding.why.push_str(void);
    }
    finding
}

fn faults(counters: &Counters, window_ns: u64) -> Finding {
    let faults = counters.major_faults;
    let per_second = u128::from(faults) * 1_000_000_000 / u128::from(window_ns.max(1));
    if faults > 1 && per_second >= u128::from(MAJOR_FAULTS_PER_SECOND) {
        return Finding::found(
            Verdict::Suspect,
            Cause::MemFault,
            0,
            format!(
                "{} had to read from storage: pages of files or swap were not in memory",
                count(faults, "page fault", "page faults")
            ),
            "see whether memory is short, and what else fills the page cache",
        );
    }
    Finding::ok("hardly any page fault had to read from storage")
}

/// Step 5: the time in run queues itself.
pub(crate) fn run_queue(
    threads: &Seen<Threads>,
    limits: &Seen<Vec<LimitedGroup>>,
    window_ns: u64,
) -> Finding {
    let threads = match threads {
        Ok(threads) => threads,
        Err(void) => return Finding::void(void),
    };
    let Some((thread, ns)) = longest_behind(threads, limits, window_ns) else {
        return Finding::void(&Void::new(
            "no thread was there from begin to end",
            "take a shorter --window",
        ));
    };
    let verdict = weigh(ns, window_ns);
    if verdict <= Verdict::Ok {
        return Finding::ok("no thread waited 1 % of the window behind others");
    }
    Finding::found(
        verdict,
        run_queue_cause(thread),
        ns,
        format!(
            "{} was ready to run and did not for {} ({} of the window), beyond what any CPU limit \
             denied it",
            named(thread),
            duration(ns),
            percent(ns, window_ns)
        ),
        "give it CPUs of its own, a higher cpu.weight, or the host fewer things to do",
    )
}

/// Step 6. Only the process's own group is judged: the host's pressure is somebody's, perhaps not its.
pub(crate) fn pressure(stalls: &Seen<Vec<Stall>>, window_ns: u64) -> Finding {
    let stalls = match stalls {
        Ok(stalls) => stalls,
        Err(void) => return Finding::void(void),
    };
    let own = stalls.iter().filter(|stall| stall.own_group);
    let judged = own.filter_map(|stall| {
        let cause = match stall.resource {
            "memory" => Cause::MemReclaim,
            "io" => Cause::DiskRead,
            _ => return None,
        };
        Some((stall, cause))
    });
    match judged.max_by_key(|(stall, _)| stall.some_ns) {
        Some((stall, cause)) if weigh(stall.some_ns, window_ns) > Verdict::Ok => Finding::found(
            Verdict::Suspect,
            cause,
            stall.some_ns.min(window_ns),
            format!(
                "threads of its group waited for {} in {} of the window",
                stall.resource,
                percent(stall.some_ns, window_ns)
            ),
            "see the steps on delays, block I/O and memory",
        ),
        Some(_) => Finding::ok("its group hardly waited for memory or storage"),
        None => Finding::void(&Void::new(
            "only groups of cgroup version 2 have a pressure of their own, and it is in none; the \
             host's is shown and blames nobody",
            "run it in a group of its own of cgroup version 2",
        )),
    }
}

/// Step 7.
pub(crate) fn delay_accounting(
    delays: &Seen<DelayGrowth>,
    io: &Seen<IoGrowth>,
    window_ns: u64,
) -> Finding {
    let delays = match delays {
        Ok(delays) => delays,
        Err(void) => return Finding::void(void),
    };
    let writes = |io: &IoGrowth| io.storage_written_bytes > io.storage_read_bytes;
    let block_io = match io.as_ref().is_ok_and(writes) {
        true => Cause::DiskWrite,
        false => Cause::DiskRead,
    };
    let kinds = [
        (Cause::MemCompaction, delays.compaction_ns.unwrap_or(0)),
        (Cause::MemReclaim, delays.reclaim_ns),
        (Cause::MemSwap, delays.swap_in_ns),
        (Cause::MemFault, delays.thrashing_ns.unwrap_or(0)),
        (block_io, delays.block_io_ns),
    ];
    // Of equal ones the earlier cause, as everywhere: swap-in is counted as block I/O, too.
    let worst = kinds.into_iter().rev().max_by_key(|(_, ns)| *ns);
    let (cause, ns) = worst.unwrap_or((block_io, 0));
    match weigh(ns, window_ns) {
        Verdict::NotAvailable | Verdict::Ok => {
            Finding::ok("its threads hardly waited for storage or memory")
        }
        verdict => Finding::found(
            verdict,
            cause,
            ns.min(window_ns),
            format!(
                "its threads together lost {} to {}",
                duration(ns),
                cause.phrase()
            ),
            "see which device or limit it is: the steps on block I/O and memory",
        ),
    }
}

/// Step 8. Bytes say nothing of waiting, so this is for the reader.
pub(crate) fn block_io(io: &Seen<IoGrowth>) -> Finding {
    match io {
        Err(void) => Finding::void(void),
        Ok(io) if io.storage_read_bytes == 0 && io.storage_written_bytes == 0 => {
            Finding::ok("it moved nothing from or to storage")
        }
        Ok(_) => Finding::ok(
            "it moved data from or to storage; how long it waited for that, only delay accounting says",
        ),
    }
}

/// Step 9.
pub(crate) fn memory(groups: &Seen<Vec<MemoryGroup>>) -> Finding {
    let groups = match groups {
        Ok(groups) => groups,
        Err(void) => return Finding::void(void),
    };
    if let Some(group) = groups.iter().find(|group| group.oom_kills > 0) {
        let what = count(group.oom_kills, "process", "processes");
        let why = format!("the kernel killed {what} of {} for memory", group.path);
        let next = "raise the memory limit of that group, or find what grew in it";
        return Finding::found(Verdict::Cause, Cause::MemOom, 0, why, next);
    }
    let hits = |group: &MemoryGroup| group.high.saturating_add(group.max);
    match groups.iter().max_by_key(|group| hits(group)) {
        Some(group) if hits(group) > 0 => Finding::found(
            Verdict::Suspect,
            Cause::MemLimit,
            0,
            format!(
                "{} ran into its memory limit {}: threads that allocate there must reclaim first",
                group.path,
                count(hits(group), "time", "times")
            ),
            "raise memory.high or memory.max of that group, or find what grew in it",
        ),
        Some(_) => Finding::ok("no memory limit was reached"),
        None => Finding::ok("no memory limit holds for this process"),
    }
}

/// Step 10.
pub(crate) fn stuck_threads(threads: &Seen<Threads>, window_ns: u64) -> Finding {
    let threads = match threads {
        Ok(threads) => threads,
        Err(void) => return Finding::void(void),
    };
    if window_ns < STILL_NS_MIN {
        return Finding::void(&Void::new(
            "the window is too short to call a thread stuck",
            "take a longer --window",
        ));
    }
    let stuck = threads.both.iter().filter_map(|thread| {
        let still = thread.still.as_ref()?;
        let cause = match still.state {
            'D' => StackClass::of(&still.stack)
                .cause()
                .unwrap_or(Cause::WaitOther),
            'T' | 't' => Cause::WaitStopped,
            _ => return None,
        };
        Some((cause, thread, still))
    });
    // What is stuck in the kernel says more than what somebody stopped.
    let Some((cause, thread, still)) = stuck.min_by_key(|(cause, ..)| *cause) else {
        return Finding::ok("no thread was stuck from begin to end");
    };
    if cause == Cause::WaitStopped {
        let why = format!("{} is stopped by a signal or a debugger", named(thread));
        let next = "see TracerPid in its /proc status, or send SIGCONT";
        return Finding::found(Verdict::Cause, cause, window_ns, why, next);
    }
    let at = match still.stack.first() {
        Some(function) => format!("in {function}"),
        None => "where its stack may be read by root only".to_owned(),
    };
    let why = format!("{} slept the whole window without end, {at}", named(thread));
    let next = "look at its kernel stack below, and at the device or mount that it names";
    Finding::found(Verdict::Cause, cause, window_ns, why, next)
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
