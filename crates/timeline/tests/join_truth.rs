// SPDX-License-Identifier: Apache-2.0
//! The join against the truth, on simulated programs.
//!
//! Wrong joins must be at most 1 in 100,000, the programs that can be joined must be, and those
//! that cannot must be refused. Prints the table of docs/design/0002-join.md, what is left unjoined
//! included. `join_many.rs` does the same at length.
#![allow(clippy::print_stdout, reason = "the table is half of the result")]

mod join_sim;

use join_sim::cases;
use join_sim::observe::Tally;

/// Spans of each program.
const SPANS: usize = 5_000;

#[test]
fn simulated_programs_are_joined_right_or_not_at_all() {
    let mut all = Tally::default();
    let mut failures = Vec::new();
    println!("{}", Tally::HEAD);
    for (seed, case) in (1..).zip(cases::all()) {
        let tally = case.run(seed, SPANS);
        println!("{}", tally.row(case.name));
        let share = tally.joined_share();
        if share < case.least || share > case.most {
            failures.push(format!("{} (seed {seed}): joined {share:.4}", case.name));
        }
        let disproved = tally.disproved as f64 / tally.spans as f64;
        if tally.denied > 0 || tally.credited > 0 || disproved < case.disproved {
            let (denied, credited) = (tally.denied, tally.credited);
            let of = tally.spans;
            failures.push(format!(
                "{}: {denied} of {of} spans denied to their process, {credited} credited to a \
                 collector, which was disproved for {disproved:.2}",
                case.name
            ));
        }
        all.add(&tally);
    }
    let (joined, wrong) = (all.joined, all.wrong);
    println!("joined {joined} spans, {wrong} of them wrong");
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(joined > 100_000, "too few joins to say anything");
    assert!(wrong * 100_000 <= joined, "{wrong} wrong of {joined}");
}
