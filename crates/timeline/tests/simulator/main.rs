// SPDX-License-Identifier: Apache-2.0
//! The account against a simulated scheduler whose truth is known: exact for every window where
//! nothing was injected, and each injected fault shows as `unknown` and nowhere else.
//!
//! `LACUNA_SEEDS=n` runs n seeds of each kind; a failure prints its seed, `LACUNA_SEED=s` runs that
//! one alone.

#![allow(clippy::print_stdout, reason = "the tables are half of the result")]

mod inject;
mod join;
#[path = "../join_sim/mod.rs"]
mod join_sim;
mod kernel;
mod net;
mod parts;
mod rng;
mod served;
mod troubles;
mod truth;
mod world;

use std::ops::Range;

use inject::Arrived;
use inject::Faults;
use inject::inject;
use kernel::Kernel;
use lacuna_timeline::Account;
use lacuna_timeline::Cause;
use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::Recorder;
use lacuna_timeline::account::Who;
use lacuna_timeline::event::OffState;
use lacuna_timeline::join::OnCpu;
use lacuna_timeline::join::Presence;
use parts::Thread;
use rng::Rng;
use truth::Times;
use truth::overlap;

use world::World;

/// Seeds of each kind of run, unless told otherwise.
const SEEDS: u64 = 300;

/// Windows asked of each thread.
const WINDOWS: u64 = 6;

/// A number in the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs many seeds with some faults.
fn run(faults: Faults) {
    if let Some(seed) = number("LACUNA_SEED") {
        return one(seed, faults);
    }
    for seed in 0..number("LACUNA_SEEDS").unwrap_or(SEEDS) {
        let outcome = std::panic::catch_unwind(|| one(seed, faults));
        assert!(
            outcome.is_ok(),
            "failed with LACUNA_SEED={seed} and {faults:?}"
        );
    }
}

/// Runs one seed.
fn one(seed: u64, faults: Faults) {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let cpus = 1 << rng.between(1, 6);
    let threads = rng.between(3, 12) as usize;
    let world = World::run(seed, cpus.min(64), threads, rng.between(200_000, 1_500_000));
    let arrived = inject(&mut rng, &world.kernel.sent, &world.threads, faults);
    let mut recorder = Recorder::default();
    for event in Kernel::facts().into_iter().chain(arrived.events.clone()) {
        recorder.push(event);
    }
    recorder.confirm(world.now);
    for thread in &world.threads {
        let checks = Checks {
            recorder: &recorder,
            world: &world,
            thread,
            arrived: &arrived,
        };
        checks.windows(&mut rng, faults);
        checks.presence(&mut rng);
    }
}

/// The questions about one thread.
struct Checks<'w> {
    recorder: &'w Recorder,
    world: &'w World,
    thread: &'w Thread,
    arrived: &'w Arrived,
}

impl Checks<'_> {
    fn life(&self) -> Range<Ns> {
        self.thread.born..self.thread.died.unwrap_or(self.world.now)
    }

    fn set<'a>(
        &self,
        of: &'a std::collections::HashMap<lacuna_timeline::ThreadId, Times>,
    ) -> &'a Times {
        &of[&self.thread.id]
    }

    /// Random windows, one and several, and the whole life.
    fn windows(&self, rng: &mut Rng, faults: Faults) {
        let life = self.life();
        self.check(std::slice::from_ref(&life), faults);
        for _ in 0..WINDOWS {
            let mut cuts: Vec<Ns> = (0..2 * rng.between(1, 3))
                .map(|_| rng.between(life.start, life.end))
                .collect();
            cuts.sort_unstable();
            let windows: Vec<Range<Ns>> = cuts.chunks(2).map(|pair| pair[0]..pair[1]).collect();
            self.check(&windows, faults);
        }
    }

    fn check(&self, windows: &[Range<Ns>], faults: Faults) {
        let account = self.recorder.account(self.thread.id, windows);
        account.check().expect("the identities hold");
        let within = |times: &Times| {
            windows
                .iter()
                .map(|window| times.within(window))
                .sum::<Ns>()
        };
        let mut may = self.set(&self.arrived.may).clone();
        may.add_all(&self.cut(windows));
        let untold = self.set(&self.arrived.untold);
        let mut unsure = may.clone();
        unsure.add_all(untold);
        let must = self.set(&self.arrived.must);
        let unknown = account.ns(Cause::Unknown);
        let context = || {
            let shares = account
                .shares
                .iter()
                .map(|share| (share.cause, share.ns, &share.reasons));
            let shares: Vec<_> = shares.collect();
            format!(
                "{:?} {windows:?} {shares:?} {:?}",
                self.thread.id, self.thread.truth
            )
        };
        assert!(
            unknown >= within(must),
            "a fault is not shown: {} {}",
            within(must),
            context()
        );
        assert!(
            unknown <= within(&may),
            "more is unknown than was lost: {} {}",
            within(&may),
            context()
        );
        for cause in Cause::all().filter(|cause| *cause != Cause::Unknown) {
            let truth = |except: &Times| -> Ns {
                let ns = windows
                    .iter()
                    .map(|window| self.thread.truth.ns(cause, window, except));
                ns.sum()
            };
            // A wait for a connection of which nothing arrived is one for something that is not known.
            let is_other = cause == Cause::WaitOther;
            let other = if is_other { within(untold) } else { 0 };
            let most = truth(&Times::default()) + other;
            let least = truth(&unsure);
            let ns = account.ns(cause);
            assert!(
                (least..=most).contains(&ns),
                "{}: {ns}, and the truth is {least} to {most}: {}",
                cause.name(),
                context()
            );
        }
        if !faults.merge {
            self.culprits(&account, windows);
        }
    }

    /// Merged stretches that a window's edge cuts.
    fn cut(&self, windows: &[Range<Ns>]) -> Times {
        let mut cut = Times::default();
        let merged = self.arrived.merged.get(&self.thread.id);
        for range in merged.into_iter().flatten() {
            let whole = windows
                .iter()
                .any(|window| overlap(window, range) == range.end - range.start);
            if !whole {
                cut.add(range.clone());
            }
        }
        cut
    }

    /// Nobody is blamed for more than they really ran on that CPU while the thread queued there.
    fn culprits(&self, account: &Account, windows: &[Range<Ns>]) {
        for who in account.shares.iter().flat_map(|share| &share.culprits) {
            let Who::Thread(thread) = who.who else {
                continue;
            };
            let claimed: Ns = account
                .shares
                .iter()
                .flat_map(|share| &share.culprits)
                .filter(|culprit| culprit.who == who.who)
                .map(|culprit| culprit.ns)
                .sum();
            let mut ran = 0;
            for (cpu, queued) in &self.thread.queued {
                for window in windows {
                    let both = queued.start.max(window.start)..queued.end.min(window.end);
                    let others = self.world.occupancy[*cpu].iter();
                    ran += others
                        .filter(|other| other.0 == thread)
                        .map(|other| overlap(&other.1, &both))
                        .sum::<Ns>();
                }
            }
            assert!(
                claimed <= ran,
                "{thread:?} is blamed for {claimed} and ran {ran}"
            );
        }
    }

    /// Yes and no are true, and a maybe is only where something is unknown.
    fn presence(&self, rng: &mut Rng) {
        let life = self.life();
        // It remembers where it was, which must not show: each answer is that of one that was never asked.
        let whereabouts = self.recorder.whereabouts();
        for _ in 0..WINDOWS {
            let from = rng.between(life.start, life.end - 1);
            let to = (from + rng.below(3_000)).min(life.end - 1);
            let ran = self.thread.running.within(&(from..to + 1)) > 0;
            let answer = whereabouts.on_cpu(self.thread.id, from, to);
            let running = whereabouts.running(self.thread.id, from, to);
            let fresh = self.recorder.whereabouts();
            assert_eq!(running, fresh.running(self.thread.id, from, to));
            let mut unsure = self.set(&self.arrived.may).within(&(from..to + 1)) > 0;
            unsure |= self.cut(&[]).within(&(from..to + 1)) > 0;
            match answer {
                OnCpu::Yes => assert!(ran, "{:?} {from} {to}", self.thread.id),
                OnCpu::No => assert!(!ran, "{:?} {from} {to}", self.thread.id),
                OnCpu::Maybe => assert!(unsure, "{:?} {from} {to}", self.thread.id),
            }
        }
    }
}

#[test]
fn exact_where_nothing_is_injected() {
    run(Faults::default());
}

#[test]
fn lost_records_are_unknown_and_nothing_else_is() {
    run(Faults {
        lose_one_in: 15,
        ..Faults::default()
    });
}

#[test]
fn arrival_out_of_order_changes_nothing() {
    run(Faults {
        reorder: true,
        ..Faults::default()
    });
}

#[test]
fn merged_records_are_exact_unless_cut() {
    run(Faults {
        merge: true,
        ..Faults::default()
    });
}

#[test]
fn skipped_programs_are_unknown() {
    run(Faults {
        skip_wakings: true,
        ..Faults::default()
    });
    run(Faults {
        skip_switches: true,
        ..Faults::default()
    });
}

#[test]
fn all_faults_at_once() {
    run(Faults {
        lose_one_in: 15,
        merge: true,
        skip_wakings: true,
        skip_switches: false,
        reorder: true,
    });
}

#[test]
fn the_simulator_makes_what_it_is_to_test() {
    let mut seen = [0_u64; 9];
    let net = [
        Cause::NetRetransmit,
        Cause::NetNagle,
        Cause::NetSend,
        Cause::NetAck,
        Cause::NetPeer,
        Cause::NetIdle,
    ];
    let mut net_ns = [0; 6];
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let world = World::run(seed, 4, 8, 800_000);
        let merging = Faults {
            merge: true,
            ..Faults::default()
        };
        let arrived = inject(&mut rng, &world.kernel.sent, &world.threads, merging);
        for (sum, cause) in net_ns.iter_mut().zip(net) {
            let life = 0..world.now;
            let truths = world.threads.iter().map(|thread| &thread.truth);
            *sum += truths
                .map(|truth| truth.ns(cause, &life, &Times::default()))
                .sum::<Ns>();
        }
        for event in &arrived.events {
            let Event::Cycle(cycle) = event else {
                seen[0] += u64::from(matches!(event, Event::Merged(_)));
                seen[1] += u64::from(matches!(event, Event::Detour(_)));
                seen[2] += u64::from(matches!(event, Event::Exit(_)));
                seen[8] += u64::from(matches!(event, Event::Net(net) if net.seen.phases.len() > 3));
                continue;
            };
            let blocked = cycle.off.state != OffState::Runnable;
            let early = cycle.waking.is_some_and(|waking| waking < cycle.off.at);
            seen[3] += u64::from(cycle.migrated.is_some());
            seen[4] += u64::from(cycle.throttle.is_some());
            seen[5] += u64::from(blocked && early);
            seen[6] += u64::from(blocked && cycle.waking.is_none());
            seen[7] += u64::from(cycle.blame.culprits.len() > 1);
        }
    }
    assert!(seen.iter().all(|&count| count > 20), "{seen:?}");
    assert!(net_ns.iter().all(|&ns| ns > 100_000), "{net_ns:?}");
}
