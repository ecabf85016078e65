// SPDX-License-Identifier: Apache-2.0
//! `simulator/join.rs` at length: many seeds of every program, so that 1 in 100,000 is measured and not
//! only bounded. Built in release only (`cargo test --release --test join_many`): a debug build
//! would take minutes.
#![cfg(not(debug_assertions))]
#![allow(clippy::print_stdout, reason = "the table is half of the result")]

mod join_sim;

use join_sim::cases;
use join_sim::observe::Tally;
use join_sim::record::quick;

/// Pools in which spans have many candidates; they name their peers' ports, and whoever runs a request has
/// waited for it, or was handed it by a poller and has read it.
const PORTS: [&str; 2] = [
    "pool 64 of 64 CPUs, ports",
    "pool 64, a poller hands on, and they read",
];

/// Seeds, and spans of each program for each of them.
const SEEDS: u64 = 12;
const SPANS: usize = 10_000;

#[test]
fn many_simulated_programs_are_joined_right_or_not_at_all() {
    let (mut all, mut seldom) = (Tally::default(), Tally::default());
    let mut failures = Vec::new();
    println!("{}", Tally::HEAD);
    for case in cases::all() {
        let mut sum = Tally::default();
        for seed in 0..SEEDS {
            sum.add(&case.run(quick, 1_000 + seed, SPANS));
        }
        println!("{}", sum.row(case.name));
        failures.extend(case.problem_at_length(&sum));
        if case.seldom {
            seldom.add(&sum);
        }
        all.add(&sum);
    }
    println!("{}", seldom.row("of these, those that move seldom"));
    println!("{}", all.row("all"));
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(
        all.wrong * 100_000 <= all.joined,
        "{} wrong of {}",
        all.wrong,
        all.joined
    );
}

/// Four thousand spans bear it out; from then on nothing is left unjoined.
#[test]
fn a_peer_port_decides_between_many_candidates() {
    let spans = 40_000;
    for name in PORTS {
        let case = cases::all().into_iter().find(|case| case.name == name);
        let tally = case.expect("it is a case").run(quick, 1, spans);
        println!("{}\n{}", Tally::HEAD, tally.row(name));
        assert_eq!(tally.wrong, 0, "{name}");
        assert!(tally.joined_share() > 0.95, "{name}");
    }
}
