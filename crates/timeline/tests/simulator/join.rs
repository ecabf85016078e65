// SPDX-License-Identifier: Apache-2.0
//! The join against the truth, on simulated programs.
//!
//! Wrong joins must be at most 1 in 100,000, the programs that can be joined must be, and those that
//! cannot must be refused; nor may a process be denied its own spans, or a collector get them. Once
//! on the small scheduler, and once on the account's: there the join sees the programs only through
//! records, with faults in them, that a recorder has decoded. Both print the table of
//! docs/design/0002-join.md, what is left unjoined included; `join_many.rs` is the first at length,
//! and `LACUNA_SEEDS=n` (best in release) the second.

use std::collections::VecDeque;

use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::Recorder;
use lacuna_timeline::join::Presence;

use crate::inject::Faults;
use crate::inject::REORDER_NS;
use crate::inject::deliver;
use crate::join_sim::cases;
use crate::join_sim::cases::Case;
use crate::join_sim::observe::Feed;
use crate::join_sim::observe::Ran;
use crate::join_sim::observe::Setting;
use crate::join_sim::observe::Tally;
use crate::join_sim::programs::Running;
use crate::join_sim::record::quick;
use crate::kernel::Kernel;
use crate::number;
use crate::rng::Rng;
use crate::world::World;

/// Spans of each program on the small scheduler.
const QUICK_SPANS: usize = 5_000;

/// The same through the recorder.
const RECORDED_SPANS: usize = 1_200;

/// The same where `LACUNA_SEEDS` asks for more.
const RECORDED_SPANS_MANY: usize = 10_000;

/// The programs that are run through the recorder, unless `LACUNA_SEEDS` says to run them all.
const RECORDED: [&str; 13] = [
    "thread per request, GIL",
    "pool 8, CPUs full",
    "pool 6, helper 72 %",
    "pool 4, one CPU",
    "pool 16 of 16 CPUs, 30 % busy",
    "event loop, GIL",
    "tasks on 4 workers",
    "ends elsewhere",
    "ends elsewhere, 1 in 10",
    "pool 8, biased 30 ms",
    "pool 8, drifts by 50 ppm",
    "pool 8, ticks of 1 us",
    "pool 8, CPUs full, collector",
];

/// The faults that records come with there: some lost, some merged, some late.
const FAULTS: Faults = Faults {
    lose_one_in: 400,
    merge: true,
    skip_wakings: false,
    skip_switches: false,
    reorder: true,
};

/// A recorder, and what has yet to arrive at it.
struct Arriving {
    recorder: Recorder,
    events: VecDeque<(Ns, Event)>,
}

impl Feed for Arriving {
    /// The horizon passes `at` when every record that was sent before has come.
    fn until(&mut self, at: Ns, ask: &mut dyn FnMut(&dyn Presence)) {
        let arrived = self
            .events
            .partition_point(|next| next.0 <= at + REORDER_NS);
        for (_, event) in self.events.drain(..arrived) {
            self.recorder.push(event);
        }
        self.recorder.confirm(at);
        ask(&self.recorder.whereabouts());
    }
}

/// Runs a program on the account's scheduler, and has its records delivered with these faults.
fn recorded(setting: &Setting, program: Running, faults: Faults) -> Ran {
    let Setting { seed, cpus, .. } = *setting;
    let world = World::serve(seed, cpus, Box::new(program), setting.spans);
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut recorder = Recorder::default();
    for fact in Kernel::facts() {
        recorder.push(fact);
    }
    let events = deliver(&mut rng, &world.kernel.sent, &world.threads, faults).into();
    let spans = world.served.map(|served| served.spans).unwrap_or_default();
    let feed = Box::new(Arriving { recorder, events });
    let end = world.now;
    Ran { spans, end, feed }
}

#[test]
fn simulated_programs_are_joined_right_or_not_at_all() {
    let mut all = Tally::default();
    let mut failures = Vec::new();
    println!("{}", Tally::HEAD);
    for (seed, case) in (1..).zip(cases::all()) {
        let tally = case.run(quick, seed, QUICK_SPANS);
        println!("{}", tally.row(case.name));
        failures.extend(case.problem_at_length(&tally));
        all.add(&tally);
    }
    let (joined, wrong) = (all.joined, all.wrong);
    println!("joined {joined} spans, {wrong} of them wrong");
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(joined > 100_000, "too few joins to say anything");
    assert!(wrong * 100_000 <= joined, "{wrong} wrong of {joined}");
}

/// Runs programs through the recorder with these faults; `problem` says what a case must do.
fn through_the_recorder(faults: Faults, problem: impl Fn(&Case, &Tally) -> Option<String>) {
    let (mut all, mut seldom) = (Tally::default(), Tally::default());
    let mut failures = Vec::new();
    println!("{}", Tally::HEAD);
    let seeds = number("LACUNA_SEEDS");
    let cases = cases::all().into_iter().zip(0..);
    let cases = cases.filter(|(case, _)| seeds.is_some() || RECORDED.contains(&case.name));
    for (case, at) in cases {
        let mut sum = Tally::default();
        let spans = if seeds.is_some() {
            RECORDED_SPANS_MANY
        } else {
            RECORDED_SPANS
        };
        for seed in 0..seeds.unwrap_or(1) {
            let on = |setting: &Setting, program| recorded(setting, program, faults);
            sum.add(&case.run(on, 100 * seed + at, spans));
        }
        println!("{}", sum.row(case.name));
        failures.extend(problem(&case, &sum));
        match case.seldom {
            true => seldom.add(&sum),
            false => all.add(&sum),
        }
    }
    println!("{}", seldom.row("all that move seldom"));
    println!("{}", all.row("all others"));
    let (joined, wrong) = (all.joined, all.wrong);
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(joined > 2_000, "too few joins to say anything");
    assert!(wrong * 100_000 <= joined, "{wrong} wrong of {joined}");
}

#[test]
fn programs_are_joined_right_through_the_recorder() {
    through_the_recorder(Faults::default(), Case::problem);
}

#[test]
fn programs_are_joined_right_through_a_recorder_with_faults() {
    through_the_recorder(FAULTS, Case::wrongs);
}
