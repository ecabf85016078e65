// SPDX-License-Identifier: Apache-2.0
//! `lacuna blind`: how much of the time of a fixed piece of work the program itself cannot see.
//!
//! Bursts of the same work are made alone, and beside processes that use the CPUs for nothing: wall time,
//! which is what a span would record, against time on a CPU. Where the kernel can be observed, each
//! burst's gap is told by cause, and the causes add up to it; where it cannot, that is said, and the rest
//! is measured all the same. Nothing of what is started outlives the command.

mod crew;
mod figures;
mod witness;
mod worker;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use lacuna_host::clock::Clock;
use lacuna_lab::Stop;
use lacuna_timeline::Cause;

use crate::answer::BlindReport;
use crate::answer::BlindRun;
use crate::answer::BlindSchema;
use crate::answer::BlindTotal;
use crate::answer::CauseAnswer;
use crate::answer::Evidence;
use crate::answer::RunName;
use crate::answer::Sample;
use crate::answer::SampleCause;
use crate::answer::StateSums;
use crate::answer::UnixNs;
use crate::cli::BlindArgs;
use crate::cli::EXIT_GOOD;
use crate::cli::Format;
use crate::ending::Ending;
use crate::render;
use crate::render::Style;

use crew::Burster;
use crew::Hogs;
use figures::Burst;
use figures::Parts;
use figures::figure;
use witness::Witness;

pub(crate) use worker::WORKER;
pub(crate) use worker::work_for;

/// The CPU time of a burst.
const BURST_NS: u64 = 100_000_000;

/// Measures and reports.
///
/// # Errors
/// A process could not be started, or a file not be written.
pub(crate) fn run(args: &BlindArgs) -> Result<ExitCode> {
    let ending = Ending::listen()?;
    let chart = args.svg.as_ref().map(|path| {
        // Opened first: a picture that cannot be written is not worth half a minute.
        let cannot = || format!("cannot write the picture to {}", path.display());
        std::fs::File::create(path).with_context(cannot)
    });
    let chart = chart.transpose()?;
    // Everything that is started is gone when this returns.
    let measured = measure(args, &ending);
    ending.end_if_told();
    let report = measured.map_err(|stop| match stop {
        Stop::Failed(error) => error,
        stop => anyhow!("{stop}"),
    })?;
    if let Err(violation) = report.check() {
        eprintln!("lacuna: a sum does not hold, which is a defect of lacuna: {violation}");
    }
    if let Some(mut file) = chart {
        let picture = render::chart(&report);
        file.write_all(picture.as_bytes())
            .context("cannot write the picture")?;
    }
    let style = Style::of(&std::io::stdout(), args.verbose.verbose);
    let text = match args.format.format {
        Format::Json => render::json(&report)?,
        Format::Text => render::blind(&report, style),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write the report")?;
    Ok(ExitCode::from(EXIT_GOOD))
}

fn measure(args: &BlindArgs, ending: &Ending) -> Result<BlindReport, Stop> {
    let clock = Clock::new()?;
    let mut burster = Burster::start(BURST_NS, ending)?;
    let mut hogs = match args.only {
        Some(RunName::Quiet) => None,
        _ => Some(Hogs::start(args.hogs, ending)?),
    };
    let (mut witness, causes_missing) = match Witness::of(burster.pid()) {
        Ok(witness) => (Some(witness), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let mut runs = Vec::new();
    for name in [RunName::Quiet, RunName::Contended] {
        if args.only.is_some_and(|only| only != name) {
            continue;
        }
        if let (RunName::Contended, Some(hogs)) = (name, &mut hogs) {
            hogs.set_to_work(ending)?;
        }
        let bursts = burster.bursts(args.bursts, ending, || match &mut witness {
            Some(witness) => witness.look().map(|()| true),
            None => Ok(false),
        })?;
        if name == RunName::Contended {
            hogs = None;
        }
        runs.push(match &mut witness {
            Some(witness) => explained(name, &bursts, witness, &clock)?,
            None => measured(name, &bursts, &clock),
        });
    }
    Ok(BlindReport {
        schema: BlindSchema::default(),
        bursts: args.bursts,
        hogs: args.hogs,
        burst_ns: BURST_NS,
        runs,
        causes_missing,
    })
}

/// A run by the CPU clock alone.
fn measured(name: RunName, bursts: &[Burst], clock: &Clock) -> BlindRun {
    let samples = bursts.iter().map(|burst| {
        let parts = Parts::by_clock(burst);
        sample(burst, parts, Vec::new(), clock)
    });
    summed(name, samples.collect(), Vec::new(), 0)
}

/// A run whose gaps have causes.
fn explained(
    name: RunName,
    bursts: &[Burst],
    witness: &mut Witness,
    clock: &Clock,
) -> Result<BlindRun> {
    let windows = bursts.iter().map(|burst| burst.start_ns..burst.end_ns);
    let windows: Vec<_> = windows.collect();
    let thread = witness.prove(windows.last().map_or(0, |window| window.end))?;
    let mut samples = Vec::new();
    let (mut unknown_ns, mut cpu_ns) = (0, 0);
    for (burst, window) in bursts.iter().zip(windows.chunks(1)) {
        let causes = witness.causes(thread, window)?;
        let of = |wanted| {
            let found = causes.iter().find(|cause| cause.cause == wanted);
            found.map_or(0, |cause| cause.ns)
        };
        let off_cpu = causes.iter().filter(|cause| is_off_cpu(cause.cause));
        let parts = Parts::of(
            burst,
            off_cpu.map(|cause| cause.ns).sum(),
            of(Cause::Unknown),
        );
        unknown_ns += parts.unknown_ns;
        cpu_ns += parts.cpu_ns;
        let in_gap = causes.iter().map(|cause| SampleCause {
            cause: cause.cause,
            ns: in_gap(cause, parts.unknown_ns, parts.cpu_ns),
        });
        let in_gap = in_gap.filter(|cause| cause.ns > 0).collect();
        samples.push(sample(burst, parts, in_gap, clock));
    }
    let mut causes = witness.causes(thread, &windows)?;
    for cause in &mut causes {
        cause.ns = in_gap(cause, unknown_ns, cpu_ns);
        if cause.cause == Cause::Cpu {
            not_charged(cause, bursts.len() as u64);
        }
    }
    causes.retain(|cause| cause.ns > 0);
    Ok(summed(name, samples, causes, witness.lost_records()))
}

/// Whether the switch records have the thread off the CPU then.
fn is_off_cpu(cause: Cause) -> bool {
    !matches!(cause, Cause::Cpu | Cause::Unknown)
}

/// How much of a cause of the wall time is in the gap.
fn in_gap(cause: &CauseAnswer, unknown_ns: u64, cpu_ns: u64) -> u64 {
    match cause.cause {
        Cause::Unknown => unknown_ns,
        Cause::Cpu => cpu_ns,
        _ => cause.ns,
    }
}

/// What is left of `cpu` in a gap: on a CPU by the records, and not by the thread's clock.
fn not_charged(cause: &mut CauseAnswer, bursts: u64) {
    cause.count = bursts;
    cause.state = StateSums {
        running_ns: cause.ns,
        ..StateSums::default()
    };
    cause.estimated_ns = 0;
    cause.evidence = Evidence::default();
    let what = "interrupts, the hypervisor, switching";
    let more = &mut cause.evidence.more;
    more.insert("not_charged_to_the_thread".to_owned(), what.into());
}

fn sample(burst: &Burst, parts: Parts, causes: Vec<SampleCause>, clock: &Clock) -> Sample {
    Sample {
        start_unix_ns: UnixNs(clock.to_unix(burst.start_ns)),
        wall_ns: burst.wall_ns(),
        on_cpu_ns: parts.on_cpu_ns,
        gap_ns: parts.gap_ns,
        clock_excess_ns: parts.clock_excess_ns,
        causes,
    }
}

fn summed(
    name: RunName,
    samples: Vec<Sample>,
    causes: Vec<CauseAnswer>,
    lost_records: u64,
) -> BlindRun {
    let figure_of = |part: fn(&Sample) -> u64| figure(samples.iter().map(part));
    let (wall_ns, gap_ns) = (figure_of(|one| one.wall_ns), figure_of(|one| one.gap_ns));
    BlindRun {
        name,
        wall_ns,
        on_cpu_ns: figure_of(|one| one.on_cpu_ns),
        gap_ns,
        gap_share: gap_ns.p50 as f64 / wall_ns.p50.max(1) as f64,
        total: BlindTotal::of(&samples),
        causes,
        samples,
        lost_records,
    }
}
