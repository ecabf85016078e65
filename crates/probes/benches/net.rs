// SPDX-License-Identifier: Apache-2.0
//! What following connections costs: the throughput of a bulk transfer over loopback that nobody watches,
//! with the group `net` and without; round trips over a connection that is watched; and nanoseconds a run of
//! each program.
//!
//! `cargo bench -p lacuna-probes --bench net`, as root. The kinds take turns and medians are shown, because
//! the machine may be doing other work.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints")]

use lacuna_probes::Config;
use lacuna_probes::Probes;
use lacuna_probes::RunStats;
use lacuna_probes::Watch;
use std::error::Error;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

type Failure = Box<dyn Error>;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(1000);
const WINDOW: Duration = Duration::from_millis(100);
const CHUNK_BYTES: usize = 128 << 10;
const KINDS: [&str; 5] = [
    "nothing",
    "unwatched, net off",
    "unwatched, net on",
    "watched, net off",
    "watched, net on",
];

fn probes(kind: &str) -> Result<Option<Probes>, Failure> {
    if kind == "nothing" {
        return Ok(None);
    }
    let mut probes = Probes::load(
        &Config {
            watch: Watch::Selected,
            net: kind.ends_with("on"),
            ..Config::default()
        },
        Box::new(|_| Vec::new()),
    )?;
    if kind.starts_with("watched") {
        probes.watch_process(std::process::id())?;
    }
    Ok(Some(probes))
}

fn connection() -> Result<(TcpStream, TcpStream), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    for end in [&one, &other] {
        end.set_nodelay(true)?;
    }
    Ok((one, other))
}

/// Waits that long, draining what is recorded.
fn pass(time: Duration, probes: &mut Option<Probes>) -> Result<(), Failure> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        match probes {
            None => std::thread::sleep(time),
            Some(probes) => {
                probes.wait(Duration::from_millis(20))?;
                probes.drain(&mut |_| ())?;
            }
        }
    }
    Ok(())
}

/// Bytes a second from one end to the other.
fn bulk(probes: &mut Option<Probes>) -> Result<f64, Failure> {
    let (mut from, mut to) = connection()?;
    let ends = from.try_clone()?;
    let sender = std::thread::spawn(move || {
        let chunk = vec![7; CHUNK_BYTES];
        while from.write_all(&chunk).is_ok() {}
    });
    let receiver: JoinHandle<f64> = std::thread::spawn(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        let begun = Instant::now();
        let mut bytes = 0;
        while let Ok(count @ 1..) = to.read(&mut chunk) {
            bytes += count;
        }
        bytes as f64 / begun.elapsed().as_secs_f64()
    });
    pass(ROUND, probes)?;
    ends.shutdown(std::net::Shutdown::Both)?;
    sender.join().map_err(|_| "the sender failed")?;
    Ok(receiver.join().map_err(|_| "the receiver failed")?)
}

/// Round trips a second, and what the programs cost meanwhile.
fn trips(probes: &mut Option<Probes>) -> Result<(f64, Vec<RunStats>), Failure> {
    let (mut asks, mut answers) = connection()?;
    let ends = asks.try_clone()?;
    let server = std::thread::spawn(move || {
        let mut byte = [0];
        while answers.read_exact(&mut byte).is_ok() && answers.write_all(&byte).is_ok() {}
    });
    let client: JoinHandle<f64> = std::thread::spawn(move || {
        let begun = Instant::now();
        let mut count = 0_u32;
        while asks.write_all(b"x").is_ok() && asks.read_exact(&mut [0]).is_ok() {
            count += 1;
        }
        f64::from(count) / begun.elapsed().as_secs_f64()
    });
    pass(ROUND, probes)?;
    let mut costs = Vec::new();
    if let Some(probes) = probes {
        costs.push(probes.run_stats(WINDOW)?);
    }
    ends.shutdown(std::net::Shutdown::Both)?;
    server.join().map_err(|_| "the server failed")?;
    let rate = client.join().map_err(|_| "the client failed")?;
    Ok((rate, costs))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn main() -> Result<(), Failure> {
    let mut rates: [[Vec<f64>; 2]; KINDS.len()] = Default::default();
    let mut costs: [Vec<RunStats>; KINDS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (place, kind) in KINDS.into_iter().enumerate() {
            let mut probes = probes(kind)?;
            rates[place][0].push(bulk(&mut probes)?);
            let (rate, cost) = trips(&mut probes)?;
            rates[place][1].push(rate);
            costs[place].extend(cost);
        }
    }
    println!("\nMB a second over loopback; round trips a second; median of {ROUNDS}");
    for (kind, [bulk, trips]) in KINDS.into_iter().zip(&mut rates) {
        println!(
            "  {kind:<18} {:>7.0} {:>9.0}",
            median(bulk) / 1e6,
            median(trips)
        );
    }
    for (kind, costs) in KINDS.into_iter().zip(&costs).skip(1) {
        println!("\n{kind}: ns a run in round trips, median");
        let Some(first) = costs.first() else { continue };
        for (place, program) in first.programs.iter().enumerate() {
            let each = costs.iter().filter_map(|cost| cost.programs.get(place));
            let each = each.filter(|cost| cost.runs > 100);
            let mut runs: Vec<f64> = each.map(|cost| cost.ns as f64 / cost.runs as f64).collect();
            if !runs.is_empty() {
                println!("  {:<20} {:>6.0}", program.name, median(&mut runs));
            }
        }
    }
    Ok(())
}
