// SPDX-License-Identifier: Apache-2.0
//! A command and all that comes of it, from its first instruction to its end.
//!
//! The kernel adds up the counters of a process, and those of each descendant as its parent waits for
//! it: wait4(2) has the sums of switches and faults, and what this process gets as it takes the dead
//! command away those of reads and writes. So nothing of it is missing. What it had counted while it
//! was held (the start of this program) is taken off. How often it was moved is kept with each thread
//! alone and dies with it: of the first it can be read until it is taken away.

use std::ffi::OsString;
use std::process::ExitStatus;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use lacuna_host::Root;
use lacuna_host::counters::Faults;
use lacuna_host::counters::Io;
use lacuna_host::counters::Switches;
use lacuna_host::counters::Tcp;
use lacuna_host::counters::migrations;
use lacuna_host::process::ProcessError;
use lacuna_host::process::namespace_of;
use lacuna_host::sys::Usage;
use lacuna_host::sys::usage_of_ended;
use lacuna_host::thread::ThreadStat;

use super::reasons;
use crate::answer::Counter;
use crate::answer::Counts;
use crate::answer::EventsReport;
use crate::answer::EventsSchema;
use crate::answer::Scope;
use crate::answer::Subject;
use crate::command;

/// How long a held command may take to fall asleep at its gate; should it take longer, its waiting there
/// is counted as one switch too many.
const SETTLE: Duration = Duration::from_secs(1);

/// Counters that can be read of the command both held and dead, or why they cannot.
struct Reading {
    migrations: Result<u64, String>,
    tcp: Result<Tcp, String>,
}

/// What the command had counted before it was let go.
struct Held {
    reading: Reading,
    usage: Usage,
    io: Result<Io, String>,
}

/// Runs the command and counts.
///
/// # Errors
/// Lacuna itself failed; the command was not run, or ran to its end.
pub(super) fn count(words: &[OsString]) -> Result<(EventsReport, ExitStatus)> {
    let root = Root::host();
    let held = command::hold(words)?;
    let pid = held.pid;
    settle(&root, pid)?;
    let before = Held::read(&root, pid)?;
    let mut running = held.release()?;
    let released_ns = running.released_ns;
    let ended_ns = running.wait_dead()?;
    let after = Reading::of(&root, pid);
    let used = usage_of_ended(pid).map_err(|error| format!("wait4: {error}"));
    let own_io = Io::inherited().map_err(|error| error.to_string());
    let status = running.wait()?.status;
    let its_io = Io::inherited().map_err(|error| error.to_string());
    let own_io = own_io.and_then(|own| Ok(own.with(before.io?, u64::wrapping_add)));
    let mut counts = Counts::default();
    note_usage(&mut counts, before.usage, &used);
    super::note_io(&mut counts, Scope::Tree, &own_io, &its_io);
    let before = before.reading;
    let moves = (&before.migrations, &after.migrations);
    let parts = [(Counter::Migrations, u64::clone as fn(&u64) -> u64)];
    super::note_parts(&mut counts, Scope::FirstThread, moves, parts);
    super::note_tcp(&mut counts, &before.tcp, &after.tcp);
    let command = words.iter().map(|word| word.to_string_lossy().into_owned());
    let report = EventsReport {
        schema: EventsSchema::default(),
        subject: Subject::Command {
            command: command.collect(),
            exit_status: command::shell_status(status),
        },
        wall_ns: ended_ns.saturating_sub(released_ns),
        counts: counts.counts,
        scopes: counts.scopes,
        missing: counts.missing,
        net_namespace: namespace_of(&root, std::process::id(), "net"),
    };
    Ok((report, status))
}

/// Waits until the held process sleeps at its gate: from then on it counts nothing.
fn settle(root: &Root, pid: u32) -> Result<(), ProcessError> {
    let deadline = Instant::now() + SETTLE;
    while Instant::now() < deadline {
        let is_asleep = || Ok::<_, ProcessError>(ThreadStat::read(root, pid, pid)?.state == 'S');
        let before = Switches::read(root, pid, pid)?;
        let asleep = is_asleep()?;
        sleep(Duration::from_millis(1));
        // It is asleep a little before that is counted.
        if asleep && is_asleep()? && Switches::read(root, pid, pid)? == before {
            break;
        }
    }
    Ok(())
}

impl Held {
    fn read(root: &Root, pid: u32) -> Result<Held, ProcessError> {
        // It has one thread and no children: this is what wait4(2) would say of it.
        let switches = Switches::read(root, pid, pid)?;
        let faults = Faults::read(root, pid)?;
        Ok(Held {
            reading: Reading::of(root, pid),
            usage: Usage {
                voluntary_switches: switches.voluntary,
                involuntary_switches: switches.involuntary,
                minor_faults: faults.minor,
                major_faults: faults.major,
            },
            io: Io::read(root, pid).map_err(|error| reasons::no_io(&error, root, pid)),
        })
    }
}

impl Reading {
    fn of(root: &Root, pid: u32) -> Reading {
        let own = std::process::id();
        let moved = migrations(root, pid, pid).map_err(|error| error.to_string());
        Reading {
            migrations: moved.and_then(|moved| moved.ok_or_else(reasons::no_sched)),
            // The dead are in no namespace any more; the command began in ours.
            tcp: Tcp::read(root, own).map_err(|error| reasons::no_tcp(&error, root, own)),
        }
    }
}

fn note_usage(counts: &mut Counts, began: Usage, used: &Result<Usage, String>) {
    super::note_parts(
        counts,
        Scope::Tree,
        (&Ok(began), used),
        [
            (Counter::VoluntarySwitches, |used: &Usage| {
                used.voluntary_switches
            }),
            (Counter::InvoluntarySwitches, |used| {
                used.involuntary_switches
            }),
            (Counter::MinorFaults, |used| used.minor_faults),
            (Counter::MajorFaults, |used| used.major_faults),
        ],
    );
}
