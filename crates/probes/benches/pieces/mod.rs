// SPDX-License-Identifier: Apache-2.0
//! What single operations cost at `sched_switch`: each has a program of its own, all are attached at
//! once and measured in the same windows.

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
mod skel {
    include!(concat!(env!("OUT_DIR"), "/pieces.skel.rs"));
}

use crate::WINDOW;
use crate::each;
use crate::game::Failure;
use crate::game::PingPong;
use crate::median;
use crate::runs_of;
use crate::since;
use lacuna_probes::Config;
use lacuna_probes::Probes;
use lacuna_probes::Watch;
use libbpf_rs::RingBufferBuilder;
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::skel::Skel;
use libbpf_rs::skel::SkelBuilder;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;

const WINDOWS: usize = 30;
const FLOOR: &str = "piece_nothing";

/// Prints the median of each operation, less that of the program that does nothing.
pub(crate) fn print() -> Result<(), Failure> {
    let mut storage = MaybeUninit::uninit();
    let mut skel = skel::PiecesSkelBuilder::default()
        .open(&mut storage)?
        .load()?;
    skel.attach()?;
    let mut reader = RingBufferBuilder::new();
    reader.add(&skel.maps.records, |_| 0)?;
    let reader = reader.build()?;
    // They only switch the statistics on; nothing is watched.
    let mut probes = Probes::load(
        &Config {
            watch: Watch::Selected,
            ..Config::default()
        },
        Box::new(|_| Vec::new()),
    )?;
    let game = PingPong::start(false)?;
    let mut costs: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..WINDOWS {
        let before = runs_of("piece_");
        probes.run_stats(WINDOW)?;
        reader.consume()?;
        for program in since(before) {
            let runs = each(&program);
            costs.entry(program.name).or_default().extend(runs);
        }
    }
    game.finish()?;
    println!("\none operation at sched_switch: ns a run beyond nothing, median");
    let floor = costs.remove(FLOOR).map(median).unwrap_or_default();
    for (name, runs) in costs {
        println!("  {name:<16} {:>6.0}", median(runs) - floor);
    }
    Ok(())
}
