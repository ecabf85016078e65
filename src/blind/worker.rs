// SPDX-License-Identifier: Apache-2.0
//! The processes of `lacuna blind` from their own side: the one that makes the bursts, and the hogs.
//!
//! The burst is a fixed amount of work, not a fixed time: what it takes is calibrated once, on this
//! thread's own CPU clock, so neither noise nor hogs change how much is done. Both kinds of process end
//! with Lacuna, whatever ends it.

use std::ffi::CString;
use std::ffi::OsString;
use std::hint::black_box;
use std::io::Write;
use std::io::stdin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use lacuna_host::clock::monotonic_ns;
use lacuna_lab::die_with_parent;
use rustix::thread::set_name;
use rustix::time::ClockId;
use rustix::time::clock_gettime;

use super::figures::Burst;
use super::figures::median;

/// The hidden subcommand of these processes.
pub(crate) const WORKER: &str = "__blind";
/// What a hog is called in the kernel.
pub(super) const HOG: &str = "lacuna-hog";
/// What the thread that makes the bursts is called in the kernel.
pub(super) const BURSTS: &str = "lacuna-burst";

/// How often the rate of work is measured: the median of an odd number is one of them.
const CALIBRATIONS: usize = 5;
/// How much CPU time a calibration takes at least.
const CALIBRATION_NS: u64 = 20_000_000;

/// Runs such a process: `PARENT hog`, or `PARENT bursts NS`, where a burst is to take `NS` of CPU time.
///
/// # Errors
/// Its arguments are none of these, or Lacuna has gone.
pub(crate) fn work_for(arguments: &[OsString]) -> Result<ExitCode> {
    let words: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    let words = words.context("not text")?;
    let [parent, what, rest @ ..] = words.as_slice() else {
        bail!("arguments are missing");
    };
    die_with_parent(parent.parse()?)?;
    match (*what, rest) {
        (HOG, []) => hog()?,
        (BURSTS, [burst_ns]) => bursts(burst_ns.parse()?)?,
        _ => bail!("there is no {what} like that"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that it is there; told to go, says so, and uses a CPU for nothing until it is killed.
fn hog() -> Result<()> {
    set_name(&CString::new(HOG)?)?;
    say("ready")?;
    if stdin().read_line(&mut String::new())? == 0 {
        return Ok(());
    }
    say("at work")?;
    loop {
        work(1 << 20);
    }
}

/// Says that it is there; then for each number that it reads makes so many bursts, and a line of each.
fn bursts(burst_ns: u64) -> Result<()> {
    set_name(&CString::new(BURSTS)?)?;
    let rounds = calibrate(burst_ns);
    say("ready")?;
    let mut line = String::new();
    while stdin().read_line(&mut line)? > 0 {
        let wanted: u32 = line.trim().parse()?;
        for _ in 0..wanted {
            say(&burst(rounds).to_line())?;
        }
        line.clear();
    }
    Ok(())
}

/// How many rounds of work take so much CPU time on this machine.
fn calibrate(burst_ns: u64) -> u64 {
    let mut rounds: u64 = 1 << 14;
    // The first runs also warm the CPU up.
    while cpu_time_of(rounds) < CALIBRATION_NS {
        rounds *= 2;
    }
    let mut times: Vec<u64> = (0..CALIBRATIONS).map(|_| cpu_time_of(rounds)).collect();
    let each = median(&mut times).max(1);
    let scaled = u128::from(rounds) * u128::from(burst_ns) / u128::from(each);
    u64::try_from(scaled).unwrap_or(u64::MAX).max(1)
}

fn cpu_time_of(rounds: u64) -> u64 {
    let before = cpu_ns();
    work(rounds);
    cpu_ns().saturating_sub(before)
}

/// One burst. The wall clock is read outside of the CPU clock, so that the wall time covers the other.
fn burst(rounds: u64) -> Burst {
    let start_ns = monotonic_ns();
    let cpu = cpu_ns();
    work(rounds);
    let on_cpu_ns = cpu_ns().saturating_sub(cpu);
    Burst {
        start_ns,
        end_ns: monotonic_ns(),
        on_cpu_ns,
    }
}

/// Arithmetic in registers: no memory, no system call, nothing to wait for.
fn work(rounds: u64) {
    let mut state = black_box(1_u64);
    for round in 0..rounds {
        // A linear congruential step (Knuth's MMIX), each of which needs the one before.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(round);
    }
    black_box(state);
}

/// How long this thread has been on a CPU: `CLOCK_THREAD_CPUTIME_ID`, nanoseconds.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let time = Duration::try_from(time).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn say(what: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{what}")?;
    Ok(stdout.flush()?)
}
