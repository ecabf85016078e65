// SPDX-License-Identifier: Apache-2.0
//! A process that runs already, for a while.
//!
//! Faults, reads and writes are counted by the kernel for the process as a whole. Switches and
//! migrations it keeps with each thread, and forgets with it: so the threads are looked at each second,
//! and what one did between the last look and its end is missing; how many ended is said.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use lacuna_host::Root;
use lacuna_host::clock::monotonic_ns;
use lacuna_host::counters::Faults;
use lacuna_host::counters::Io;
use lacuna_host::counters::Switches;
use lacuna_host::counters::Tcp;
use lacuna_host::counters::grown;
use lacuna_host::counters::migrations;
use lacuna_host::process::ProcessError;
use lacuna_host::process::ProcessFacts;
use lacuna_host::process::is_alive;
use lacuna_host::process::namespace_of;
use lacuna_host::process::threads;
use lacuna_host::sys::hides_processes;
use lacuna_host::thread::ThreadStat;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::pidfd_open;

use super::reasons;
use super::tally::Tally;
use super::tally::Thread;
use super::tally::Threads;
use crate::answer::Counter;
use crate::answer::Counts;
use crate::answer::EventsReport;
use crate::answer::EventsSchema;
use crate::answer::Scope;
use crate::answer::Subject;

/// How often the threads are looked at. A look costs about 25 microseconds a thread.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was found at one look.
struct Look {
    threads: Threads,
    faults: Faults,
    io: Result<Io, String>,
    tcp: Result<Tcp, String>,
    net_namespace: Option<u64>,
    at_ns: u64,
}

/// Counts for `window`, or until the process ends.
///
/// # Errors
/// There is no such process, or it ended before anything could be counted.
pub(super) fn count(pid: u32, window: Duration) -> Result<EventsReport> {
    let root = Root::host();
    let facts = ProcessFacts::read(&root, pid).map_err(|error| no_process(&root, pid, error))?;
    let stat = ThreadStat::read(&root, facts.tgid, facts.tgid);
    if stat.as_ref().is_ok_and(ThreadStat::is_ended_process) {
        bail!("process {pid} has ended; only its parent has not taken it away yet");
    }
    let pidfd = open(facts.tgid)?;
    let began_ns = monotonic_ns();
    let first = Look::at(&root, &facts).with_context(|| format!("process {pid}"))?;
    let until_ns = began_ns.saturating_add(u64::try_from(window.as_nanos()).unwrap_or(u64::MAX));
    let mut tally = Tally::from(first.threads.clone());
    let mut last = None;
    let mut ended = false;
    while !ended && monotonic_ns() < until_ns {
        let rest = Duration::from_nanos(until_ns.saturating_sub(monotonic_ns()));
        ended = ends_within(&pidfd, rest.min(LOOK_EVERY))?;
        // Where its parent has not taken it away yet, also the dead can be looked at.
        match Look::at(&root, &facts) {
            Ok(look) => {
                tally.look(look.threads.clone());
                last = Some(look);
            }
            Err(ProcessError::Gone) => ended = true,
            Err(error) => return Err(error).with_context(|| format!("process {pid}")),
        }
    }
    let Some(last) = last else {
        bail!("process {pid} ended before anything could be counted");
    };
    let mut counts = Counts::default();
    let kernel = stat.is_ok_and(|stat| stat.is_kernel);
    count_between(&mut counts, &first, &last, &tally, kernel);
    Ok(EventsReport {
        schema: EventsSchema::default(),
        subject: Subject::Process {
            pid: facts.tgid,
            comm: facts.comm.into(),
            asked_ns: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            ended,
            threads_ended: tally.ended,
        },
        wall_ns: last.at_ns.saturating_sub(began_ns),
        counts: counts.counts,
        scopes: counts.scopes,
        missing: counts.missing,
        net_namespace: last.net_namespace,
    })
}

fn no_process(root: &Root, pid: u32, error: ProcessError) -> anyhow::Error {
    match error {
        ProcessError::Gone if hides_processes(root) => anyhow::anyhow!(
            "there is no process {pid}, or /proc hides it: it is mounted with hidepid"
        ),
        ProcessError::Gone => anyhow::anyhow!("there is no process {pid}"),
        error => anyhow::Error::new(error).context(format!("process {pid}")),
    }
}

fn open(tgid: u32) -> Result<OwnedFd> {
    let pid = i32::try_from(tgid).ok().and_then(Pid::from_raw);
    let pid = pid.with_context(|| format!("{tgid} is no process id"))?;
    pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("process {tgid}"))
}

/// Waits so long; whether the process has ended.
fn ends_within(pidfd: &OwnedFd, wait: Duration) -> Result<bool> {
    let wait = Timespec::try_from(wait).context("the time to wait is too long")?;
    match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&wait)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error).context("waiting for the process"),
    }
}

impl Look {
    fn at(root: &Root, facts: &ProcessFacts) -> Result<Look, ProcessError> {
        let tgid = facts.tgid;
        let mut found = Threads::new();
        for tid in threads(root, tgid)? {
            match thread(root, tgid, tid) {
                Ok(thread) => drop(found.insert(tid, thread)),
                Err(ProcessError::Gone) => {}
                Err(error) => return Err(error),
            }
        }
        let look = Look {
            threads: found,
            faults: Faults::read(root, tgid)?,
            io: Io::read(root, tgid).map_err(|error| reasons::no_io(&error, root, tgid)),
            tcp: Tcp::read(root, tgid).map_err(|error| reasons::no_tcp(&error, root, tgid)),
            net_namespace: namespace_of(root, tgid, "net"),
            at_ns: monotonic_ns(),
        };
        // The number may have become another's between two of these.
        match is_alive(root, tgid, facts.start) {
            true => Ok(look),
            false => Err(ProcessError::Gone),
        }
    }
}

fn thread(root: &Root, tgid: u32, tid: u32) -> Result<Thread, ProcessError> {
    Ok(Thread {
        switches: Switches::read(root, tgid, tid)?,
        migrations: migrations(root, tgid, tid)?,
    })
}

fn count_between(counts: &mut Counts, first: &Look, last: &Look, tally: &Tally, kernel: bool) {
    let switches = tally.switches;
    for (counter, count) in [
        (Counter::VoluntarySwitches, switches.voluntary),
        (Counter::InvoluntarySwitches, switches.involuntary),
    ] {
        counts.note(counter, Scope::Threads, Ok::<_, &str>(count));
    }
    let moved = tally.migrations.ok_or_else(reasons::no_sched);
    counts.note(Counter::Migrations, Scope::Threads, moved);
    for (counter, was, now) in [
        (Counter::MinorFaults, first.faults.minor, last.faults.minor),
        (Counter::MajorFaults, first.faults.major, last.faults.major),
    ] {
        let count = grown(was, now).ok_or(reasons::NOT_THE_SAME);
        counts.note(counter, Scope::Process, count);
    }
    super::note_io(counts, Scope::ProcessAndChildren, &first.io, &last.io);
    if kernel {
        counts.miss(Counter::ReadSyscalls, reasons::KERNEL_CALLS);
        counts.miss(Counter::WriteSyscalls, reasons::KERNEL_CALLS);
        counts.miss(Counter::MinorFaults, reasons::KERNEL_FAULTS);
        counts.miss(Counter::MajorFaults, reasons::KERNEL_FAULTS);
    }
    let moved_away = first.net_namespace != last.net_namespace;
    let elsewhere = Err("the process went to another network namespace".to_owned());
    let last_tcp = match moved_away {
        true => &elsewhere,
        false => &last.tcp,
    };
    super::note_tcp(counts, &first.tcp, last_tcp);
}
