// SPDX-License-Identifier: Apache-2.0
//! The war stories, made to happen for real on the machine that this runs on.
//!
//! A scenario sets something up, makes a fault, runs a small traced service in it, and says what was
//! true of its span: by the kernel's own counters or by clocks of its own, never by a tracepoint.
//! That is why this is a crate: it knows neither the probes nor what they mean, so no truth of it
//! can come from them. It asks nobody and judges nothing either; `lacuna lab` holds the answers of
//! an agent against what is expected here.
//!
//! A scenario is one file in `scenario/` and one line in [`SCENARIOS`]. Its processes are this
//! program again ([`part`]), told apart by name.
//! Whatever it makes is held by guards, so that it goes
//! when the scenario ends: well, with an error, by a panic, or because somebody asked for the end.
#![forbid(unsafe_code)]

mod actor;
mod cgroup;
mod expect;
mod meter;
mod net;
mod otlp;
mod part;
mod scenario;
mod service;
mod stage;
mod talk;
mod wire;

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use anyhow::anyhow;

pub use actor::die_with_parent;
pub use expect::Expectation;
pub use expect::Must;
pub use expect::Place;
pub use expect::Row;
pub use part::PART;
pub use part::Part;
pub use part::part;
pub use stage::Judge;
pub use stage::Stage;
pub use stage::Stop;

/// A war story.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens in it, in one line.
    pub story: &'static str,
    /// Sets it up, makes the fault, and has looked for what must be found. What it makes is gone when
    /// it returns.
    pub play: fn(&Stage<'_>) -> Result<(), Stop>,
    /// The processes that it has, by name.
    pub parts: &'static [(&'static str, PartBody)],
}

/// What a process of a scenario does.
pub type PartBody = fn(&mut Part) -> anyhow::Result<()>;

/// All of them, in the order in which they are listed and run.
pub const SCENARIOS: &[Scenario] = &[
    scenario::cpu_contention::SCENARIO,
    scenario::cpu_throttle::SCENARIO,
    scenario::lock_owner_preempted::SCENARIO,
    scenario::event_loop::SCENARIO,
    scenario::tcp_rto::SCENARIO,
    scenario::tcp_rto_response::SCENARIO,
    scenario::veth_drop::SCENARIO,
    scenario::peer_slow::SCENARIO,
    scenario::nagle::SCENARIO,
    scenario::syn_drop::SCENARIO,
    scenario::netem_loss::SCENARIO,
    scenario::netem_delay::SCENARIO,
];

/// The scenario of that name.
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

/// Plays a scenario. Everything that it made is gone when this returns, also where it panicked.
///
/// # Errors
/// [`Stop`] says why it was not played to its end.
pub fn play(scenario: &Scenario, stage: &Stage<'_>) -> Result<(), Stop> {
    let played = catch_unwind(AssertUnwindSafe(|| (scenario.play)(stage)));
    // What a child does when it is killed or interrupted with us is no failure of the scenario.
    stage.check()?;
    played.unwrap_or_else(|_| Err(Stop::Failed(anyhow!("the scenario panicked"))))
}

#[cfg(test)]
mod tests {
    use super::SCENARIOS;
    use super::Scenario;
    use super::Stage;
    use super::Stop;
    use super::play;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;

    static MADE: AtomicBool = AtomicBool::new(false);

    /// Something that a scenario makes.
    struct Guard;

    impl Drop for Guard {
        fn drop(&mut self) {
            MADE.store(false, Ordering::Relaxed);
        }
    }

    const PANICS: Scenario = Scenario {
        name: "panics",
        story: "",
        play: |_| {
            let _guard = Guard;
            MADE.store(true, Ordering::Relaxed);
            panic!("on purpose");
        },
        parts: &[],
    };

    #[test]
    fn a_panic_is_a_failure_and_leaves_nothing() {
        let ended = Arc::new(AtomicBool::new(false));
        let stage = Stage::new(PANICS.name, 0, ended.clone(), &|_| Ok(()));
        let played = play(&PANICS, &stage);
        assert!(matches!(played, Err(Stop::Failed(_))), "{played:?}");
        assert!(!MADE.load(Ordering::Relaxed), "what it made is left");
        // Where somebody wanted the end, that is why.
        ended.store(true, Ordering::Relaxed);
        assert!(matches!(play(&PANICS, &stage), Err(Stop::Ended)));
    }

    #[test]
    fn names_are_told_apart() {
        for (at, scenario) in SCENARIOS.iter().enumerate() {
            let others = &SCENARIOS[at + 1..];
            assert!(others.iter().all(|other| other.name != scenario.name));
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(scenario.name.chars().all(letters), "{}", scenario.name);
        }
    }
}
