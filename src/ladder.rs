// SPDX-License-Identifier: Apache-2.0
//! `lacuna ladder`: the diagnostic ladder for a process at 03:00, with no agent, no eBPF and, as far as
//! the kernel allows, no root.
//!
//! Two readings, a window apart, of what the kernel counts anyway (`reading.rs`), one rule for what that
//! means (`rule.rs`), and a line of what would prove it. Nothing is written to the host, nothing is
//! attached to the process but perf counters, and a source that says nothing is never called good.

mod facts;
mod groups;
mod looks;
mod reading;
mod rule;
mod select;
mod sockets;
mod steps;
mod text;
mod values;
mod verdict;

use std::io;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use lacuna_host::Root;
use lacuna_host::process::ProcessFacts;
use lacuna_host::thread::ThreadStat;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fd::OwnedFd;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::pidfd_open;

use crate::cli::EXIT_FOUND;
use crate::cli::EXIT_GOOD;
use crate::cli::Format;
use crate::cli::LadderArgs;
use crate::render;
use crate::render::Style;
use looks::Looks;
use reading::First;
use reading::Host;
use steps::ProcessReport;
use steps::Report;

pub(crate) use select::Target;

/// How often threads that switch all the time are looked at: forty times in the window, within these.
const LOOKS_PER_WINDOW: u32 = 40;
const LOOK_EVERY_MIN: Duration = Duration::from_millis(50);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(500);

/// A process that is being watched.
struct Watched {
    first: First,
    looks: Looks,
    /// Readable when it has ended; `None` where the kernel has no such handle (before 5.3).
    handle: Option<OwnedFd>,
}

/// Runs `lacuna ladder`.
///
/// # Errors
/// There is no such process, or none of them lived through the window.
pub(crate) fn run(args: &LadderArgs) -> Result<ExitCode> {
    let root = Root::host();
    let people = args.format.format == Format::Text;
    let style = Style::of(&io::stdout(), args.verbose.verbose);
    let processes = select::select(&root, &args.target()?)?;
    if people {
        for process in &processes {
            show(&header(&root, process, args.window))?;
        }
    }
    let host = Host::look(root);
    let mut watched: Vec<Watched> = processes
        .into_iter()
        .map(|process| Watched {
            handle: handle_of(process.tgid),
            first: First::take(&host, process),
            looks: Looks::default(),
        })
        .collect();
    let begun = Instant::now();
    wait(&host, &mut watched, args.window)?;
    let mut reports = Vec::new();
    for one in watched {
        let (pid, comm) = (one.first.process.tgid, one.first.process.comm.clone());
        let Some(facts) = one.first.grow(&host, &one.looks) else {
            eprintln!(
                "lacuna: {} (pid {pid}) ended within the window, {} after its begin: nothing can be \
                 compared; take a shorter --window",
                render::plain_up_to(&comm, 16),
                render::duration(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            );
            continue;
        };
        let mut shown = Ok(());
        if people {
            shown = show(&text::title(pid, &comm));
        }
        let report = steps::climb(pid, &comm, &facts, |step| {
            if people && shown.is_ok() {
                shown = show(&text::step(step, style));
            }
        });
        shown?;
        if people {
            show(&text::conclusion(&report))?;
        }
        reports.push(report);
    }
    if reports.is_empty() {
        bail!("no process lived through the window");
    }
    finish(reports, people)
}

fn header(root: &Root, process: &ProcessFacts, window: Duration) -> String {
    let stat = ThreadStat::read(root, process.tgid, process.tgid);
    let threads = stat.map_or(0, |stat| stat.threads);
    let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
    text::header(
        process.tgid,
        &process.comm,
        threads,
        process.uids[0],
        window_ns,
    )
}

fn finish(reports: Vec<ProcessReport>, people: bool) -> Result<ExitCode> {
    let found = reports
        .iter()
        .any(|report| report.conclusion.cause.is_some());
    if !people {
        let report = Report {
            schema: "lacuna.ladder/1",
            processes: reports,
        };
        show(&render::json(&report)?)?;
    }
    Ok(ExitCode::from(if found { EXIT_FOUND } else { EXIT_GOOD }))
}

/// Writes at once: a person waits for it.
fn show(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the report"),
    }
}

fn handle_of(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Waits for the end of the window, or until every process has ended; looks at busy threads meanwhile.
fn wait(host: &Host, watched: &mut [Watched], window: Duration) -> Result<()> {
    let begun = Instant::now();
    let every = (window / LOOKS_PER_WINDOW).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
    let mut ended = vec![false; watched.len()];
    loop {
        let left = window.saturating_sub(begun.elapsed());
        if left.is_zero() || ended.iter().all(|ended| *ended) {
            return Ok(());
        }
        let living = || watched.iter().zip(&ended).filter(|(_, ended)| !**ended);
        let mut handles: Vec<PollFd<'_>> = living()
            .filter_map(|(one, _)| Some(PollFd::new(one.handle.as_ref()?, PollFlags::IN)))
            .collect();
        // Waking up for nothing would be most of what a quiet process costs.
        let idles = living().all(|(one, _)| one.handle.is_some() && !one.looks.go_on());
        let timeout = if idles { left } else { left.min(every) };
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs())?,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut handles, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            polled => polled?,
        };
        drop(handles);
        for (one, ended) in watched.iter_mut().zip(&mut ended) {
            if *ended {
                continue;
            }
            *ended = reading::has_ended(&host.root, &one.first.process);
            one.first.look(&mut one.looks);
        }
    }
}
