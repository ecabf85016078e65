// SPDX-License-Identifier: Apache-2.0
//! What the programs cost: nanoseconds a run beside empty programs at the same hooks, and the rate of
//! a switch-bound ping-pong pinned to one CPU, with nothing, with empty programs, and with ours; and
//! what the single operations cost that ours are made of.
//!
//! `cargo bench -p lacuna-probes`, as root. The rounds of a kind are interleaved with the others'
//! and the medians shown, because the machine may be doing other work.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints")]

#[allow(
    clippy::all,
    clippy::too_many_lines,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
mod empty {
    include!(concat!(env!("OUT_DIR"), "/empty.skel.rs"));
}

mod game;
mod pieces;

use game::Failure;
use game::PingPong;
use lacuna_probes::Config;
use lacuna_probes::Probes;
use lacuna_probes::ProgramCost;
use lacuna_probes::RunStats;
use lacuna_probes::Watch;
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::skel::Skel;
use libbpf_rs::skel::SkelBuilder;
use std::mem::MaybeUninit;
use std::time::Duration;
use std::time::Instant;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(800);
/// How often and how long the kernel counts what the programs cost, in each round.
const WINDOWS: usize = 10;
const WINDOW: Duration = Duration::from_millis(20);
const KINDS: [&str; 6] = ["nothing", "empty", "unwatched", "watched", "merged", EPOLL];
/// Watched, and the threads wait in epoll: another load than the others', so its rate is not compared.
const EPOLL: &str = "epoll";

/// The rate of a ping-pong while its records are drained, and how many those were.
fn rate(probes: Option<&mut Probes>, polls: bool) -> Result<(f64, u64), Failure> {
    let game = PingPong::start(polls)?;
    let mut records = 0;
    match probes {
        None => std::thread::sleep(ROUND),
        Some(probes) => {
            let end = Instant::now() + ROUND;
            while Instant::now() < end {
                probes.wait(WINDOW)?;
                records += probes.drain(&mut |_| ())?.records;
            }
        }
    }
    Ok((game.finish()?, records))
}

/// What the programs, the empty ones too, cost in each of some short windows: other work disturbs
/// many of them, and hardly the median of all.
fn costs(probes: &mut Probes, polls: bool) -> Result<Vec<RunStats>, Failure> {
    let game = PingPong::start(polls)?;
    let mut windows = Vec::new();
    for _ in 0..WINDOWS {
        let before = runs_of("empty_");
        let mut window = probes.run_stats(WINDOW)?;
        window.programs.extend(since(before));
        windows.push(window);
        probes.drain(&mut |_| ())?;
    }
    game.finish()?;
    Ok(windows)
}

fn play(kind: &str) -> Result<(f64, Vec<RunStats>), Failure> {
    let mut storage = MaybeUninit::uninit();
    let mut floor = empty::EmptySkelBuilder::default()
        .open(&mut storage)?
        .load()?;
    if kind != "nothing" {
        floor.attach()?;
    }
    if matches!(kind, "nothing" | "empty") {
        return Ok((rate(None, false)?.0, Vec::new()));
    }
    let mut probes = Probes::load(
        &Config {
            watch: Watch::Selected,
            merge_short: kind == "merged",
            ..Config::default()
        },
        Box::new(|_| Vec::new()),
    )?;
    if kind != "unwatched" {
        probes.watch_process(std::process::id())?;
    }
    let polls = kind == EPOLL;
    let (rate, records) = rate(Some(&mut probes), polls)?;
    let costs = costs(&mut probes, polls)?;
    println!(
        "{kind}: lost {} of {records} records",
        probes.counters()?.ring_drops
    );
    Ok((rate, costs))
}

/// Name, runs and nanoseconds of the programs that are called so.
fn runs_of(prefix: &str) -> Vec<(String, u64, u64)> {
    ProgInfoIter::default()
        .filter(|program| program.name.to_string_lossy().starts_with(prefix))
        .map(|program| {
            let name = program.name.to_string_lossy().into_owned();
            (name, program.run_cnt, program.run_time_ns)
        })
        .collect()
}

/// What the programs of `before` have cost since.
fn since(before: Vec<(String, u64, u64)>) -> impl Iterator<Item = ProgramCost> {
    let after = runs_of("");
    before.into_iter().filter_map(move |(name, runs, ns)| {
        let now = after.iter().find(|program| program.0 == name)?;
        Some(ProgramCost {
            runs: now.1.saturating_sub(runs),
            ns: now.2.saturating_sub(ns),
            name,
        })
    })
}

/// Nanoseconds a run; nothing where it did not run.
fn each(program: &ProgramCost) -> Option<f64> {
    (program.runs > 0).then(|| program.ns as f64 / program.runs as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn main() -> Result<(), Failure> {
    let mut rates: [Vec<f64>; KINDS.len()] = Default::default();
    let mut costs: [Vec<RunStats>; KINDS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (place, kind) in KINDS.into_iter().enumerate() {
            let (rate, cost) = play(kind)?;
            rates[place].push(rate);
            costs[place].extend(cost);
        }
    }
    println!("\nround trips a second (two switches each), median of {ROUNDS}");
    let rates = rates.map(median);
    let compared = KINDS.into_iter().zip(rates);
    for (kind, rate) in compared.filter(|(kind, _)| *kind != EPOLL) {
        let added = (1e9 / rate - 1e9 / rates[1]) / 2.0;
        println!(
            "  {kind:<10} {rate:>9.0}   {:.3} of empty, {added:>5.0} ns a switch",
            rate / rates[1]
        );
    }
    for (kind, costs) in KINDS.into_iter().zip(costs).skip(2) {
        println!("\n{kind}: ns a run, median and least");
        for name in [
            "empty_switch",
            "sched_switch",
            "empty_waking",
            "sched_waking",
        ] {
            let of =
                |cost: &RunStats| each(cost.programs.iter().find(|program| program.name == name)?);
            let runs: Vec<f64> = costs.iter().filter_map(of).collect();
            let least = runs.iter().copied().fold(f64::INFINITY, f64::min);
            println!("  {name:<14} {:>6.0} {least:>6.0}", median(runs));
        }
    }
    pieces::print()
}
