// SPDX-License-Identifier: Apache-2.0
//! `lacuna events`: what the kernel did inside one span of work, from `/proc` and wait4(2) alone.
//!
//! No eBPF, and no privilege where the kernel asks for none. A command is counted from its start to its
//! end, a process that runs already for a while. Which counter is of whom is said with each; one that
//! cannot be had is left out, with the reason, and never shown as 0.

mod process;
mod reasons;
mod tally;
mod tree;

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use lacuna_host::counters::Io;
use lacuna_host::counters::Tcp;
use lacuna_host::counters::grown;

use crate::answer::Counter;
use crate::answer::Counts;
use crate::answer::EventsReport;
use crate::answer::Scope;
use crate::cli::EXIT_COULD_NOT_RUN;
use crate::cli::EXIT_GOOD;
use crate::cli::EventsArgs;
use crate::cli::EventsOf;
use crate::cli::Format;
use crate::command;
use crate::command::EXIT_LACUNA_FAILED;
use crate::render;
use crate::render::Style;

/// Counts and reports. The exit status is the command's, where there is one.
pub(crate) fn run(args: &EventsArgs) -> ExitCode {
    let (done, failed) = match args.of() {
        EventsOf::Command(words) => (of_command(args, words), EXIT_LACUNA_FAILED),
        EventsOf::Process(pid) => (of_process(args, pid), EXIT_COULD_NOT_RUN),
    };
    done.unwrap_or_else(|error| {
        eprintln!("lacuna: {error:#}");
        ExitCode::from(failed)
    })
}

fn of_command(args: &EventsArgs, words: &[std::ffi::OsString]) -> Result<ExitCode> {
    let output = open(args)?;
    let (report, status) = tree::count(words)?;
    let style = Style::of(&std::io::stderr(), false);
    match output {
        // Whoever reads standard error may be gone by now; the command's status still counts.
        None => {
            let _ = std::io::stderr().write_all(written(args, &report, style)?.as_bytes());
        }
        Some(mut file) => file
            .write_all(written(args, &report, Style::default())?.as_bytes())
            .context("cannot write the report")?,
    }
    Ok(command::exit_as(status))
}

fn of_process(args: &EventsArgs, pid: u32) -> Result<ExitCode> {
    let output = open(args)?;
    let report = process::count(pid, args.window)?;
    let style = Style::of(&std::io::stdout(), false);
    match output {
        None => std::io::stdout().write_all(written(args, &report, style)?.as_bytes()),
        Some(mut file) => file.write_all(written(args, &report, Style::default())?.as_bytes()),
    }
    .context("cannot write the report")?;
    Ok(ExitCode::from(EXIT_GOOD))
}

/// Opened first: a report that cannot be written is not worth running a command for.
fn open(args: &EventsArgs) -> Result<Option<File>> {
    let open = |path: &std::path::PathBuf| {
        File::create(path).with_context(|| format!("cannot write the report to {}", path.display()))
    };
    args.output.as_ref().map(open).transpose()
}

fn written(args: &EventsArgs, report: &EventsReport, style: Style) -> Result<String> {
    if let Err(counter) = report.check() {
        eprintln!("lacuna: {counter:?} is neither counted nor missing, a defect of lacuna");
    }
    Ok(match args.format.format {
        Format::Json => render::json(report)?,
        Format::Text => render::events(report, style),
    })
}

/// Notes what was read and written between two readings of `/proc/PID/io`.
fn note_io(
    counts: &mut Counts,
    scope: Scope,
    before: &Result<Io, String>,
    after: &Result<Io, String>,
) {
    note_parts(
        counts,
        scope,
        (before, after),
        [
            (Counter::ReadSyscalls, |io: &Io| io.read_calls),
            (Counter::WriteSyscalls, |io| io.write_calls),
            (Counter::BytesReadFromStorage, |io| io.read_bytes),
            (Counter::BytesWrittenToStorage, |io| io.written_bytes),
        ],
    );
}

/// Notes what the network namespace did between two readings of its counters.
fn note_tcp(counts: &mut Counts, before: &Result<Tcp, String>, after: &Result<Tcp, String>) {
    note_parts(
        counts,
        Scope::NetworkNamespace,
        (before, after),
        [
            (Counter::NetnsTcpSegmentsIn, |tcp: &Tcp| tcp.segments_in),
            (Counter::NetnsTcpSegmentsOut, |tcp| tcp.segments_out),
            (Counter::NetnsTcpRetransmits, |tcp| tcp.retransmits),
        ],
    );
}

/// A counter, and where it is in what was read.
type Part<T> = (Counter, fn(&T) -> u64);

/// Notes the growth of each part of something that was read twice; where it was not, why.
fn note_parts<T, const N: usize>(
    counts: &mut Counts,
    scope: Scope,
    readings: (&Result<T, String>, &Result<T, String>),
    parts: [Part<T>; N],
) {
    for (counter, part) in parts {
        let count = match readings {
            (Ok(before), Ok(after)) => {
                grown(part(before), part(after)).ok_or(reasons::NOT_THE_SAME)
            }
            (Err(why), _) | (_, Err(why)) => Err(why.as_str()),
        };
        counts.note(counter, scope, count);
    }
}
