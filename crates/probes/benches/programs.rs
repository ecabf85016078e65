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
use lacuna_probes::RunStats;
use lacuna_probes::Watch;
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::skel::Skel;
use libbpf_rs::skel::SkelBuilder;
use std::mem::MaybeUninit;
use std::time::Duration;
use std::time::Instant;

const ROUNDS: usize = 3;
const WINDOW: Duration = Duration::from_millis(800);
const KINDS: [&str; 5] = ["nothing", "empty", "unwatched", "watched", "merged"];

/// Drains while a ping-pong runs; its rate, and what the programs cost meanwhile.
fn round(probes: Option<&mut Probes>) -> Result<(f64, RunStats, u64), Failure> {
    let game = PingPong::start()?;
    let mut records = 0;
    let mut costs = RunStats::default();
    match probes {
        None => std::thread::sleep(WINDOW),
        Some(probes) => {
            let end = Instant::now() + WINDOW / 2;
            while Instant::now() < end {
                probes.wait(Duration::from_millis(20))?;
                records += probes.drain(&mut |_| ())?.records;
            }
            costs = probes.run_stats(Duration::from_millis(20))?;
            while Instant::now() < end + WINDOW / 2 {
                probes.wait(Duration::from_millis(20))?;
                records += probes.drain(&mut |_| ())?.records;
            }
        }
    }
    Ok((game.finish()?, costs, records))
}

fn play(kind: &str) -> Result<(f64, RunStats, u64), Failure> {
    let mut storage = MaybeUninit::uninit();
    let mut floor = empty::EmptySkelBuilder::default()
        .open(&mut storage)?
        .load()?;
    if kind != "nothing" {
        floor.attach()?;
    }
    if matches!(kind, "nothing" | "empty") {
        return round(None);
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
    let before = runs_of("empty_");
    let (rate, mut costs, records) = round(Some(&mut probes))?;
    for (before, after) in before.into_iter().zip(runs_of("empty_")) {
        costs.programs.push(lacuna_probes::ProgramCost {
            name: after.0,
            runs: after.1 - before.1,
            ns: after.2 - before.2,
        });
    }
    println!(
        "{kind}: lost {} of {records} records",
        probes.counters()?.ring_drops
    );
    Ok((rate, costs, records))
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn main() -> Result<(), Failure> {
    let mut rates: [Vec<f64>; KINDS.len()] = Default::default();
    let mut costs: [Vec<RunStats>; KINDS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (place, kind) in KINDS.into_iter().enumerate() {
            let (rate, cost, _) = play(kind)?;
            rates[place].push(rate);
            costs[place].push(cost);
        }
    }
    println!("\nround trips a second (two switches each), median of {ROUNDS}");
    let rates = rates.map(median);
    for (kind, rate) in KINDS.into_iter().zip(rates) {
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
            let of = |cost: &RunStats| {
                let program = cost.programs.iter().find(|program| program.name == name)?;
                (program.runs > 0).then(|| program.ns as f64 / program.runs as f64)
            };
            let runs: Vec<f64> = costs.iter().filter_map(of).collect();
            let least = runs.iter().copied().fold(f64::INFINITY, f64::min);
            println!("  {name:<14} {:>6.0} {least:>6.0}", median(runs));
        }
    }
    pieces::print()
}
