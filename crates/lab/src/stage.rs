// SPDX-License-Identifier: Apache-2.0
//! What a scenario has at hand on the lab's side: where spans go, processes, CPUs, and the word that
//! somebody wants it to end.
//!
//! Nothing waits here without looking at that word, so that a scenario returns soon after Ctrl-C and
//! its guards clean up.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use anyhow::Context;
use rustix::thread::CpuSet;
use rustix::thread::sched_getaffinity;

use crate::Expectation;
use crate::actor::Actor;
use crate::part::HOG;

/// Where a scenario is played.
pub struct Stage<'a> {
    scenario: &'static str,
    otlp_port: u16,
    ended: Arc<AtomicBool>,
    judge: &'a Judge<'a>,
}

/// Holds an answer against what is expected of it.
pub type Judge<'a> = dyn Fn(&Expectation) -> Result<(), Stop> + 'a;

/// Why a scenario has nothing to be found.
#[derive(Debug)]
pub enum Stop {
    /// This host lacks what it needs; in words.
    NotHere(String),
    /// Somebody asked for the end.
    Ended,
    /// Something that had to work did not.
    Failed(anyhow::Error),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHere(why) => f.write_str(why),
            Self::Ended => f.write_str("it was told to end"),
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stage({}, {})", self.scenario, self.otlp_port)
    }
}

impl<'a> Stage<'a> {
    /// For the scenario of that name; spans go to an agent's OTLP/HTTP port on loopback, and what
    /// is expected of them to `judge`. Once `ended` is true it ends.
    pub fn new(
        scenario: &'static str,
        otlp_port: u16,
        ended: Arc<AtomicBool>,
        judge: &'a Judge<'a>,
    ) -> Self {
        Self {
            scenario,
            otlp_port,
            ended,
            judge,
        }
    }

    /// Asks about a span while its service still lives, and holds the answer against the truth.
    ///
    /// # Errors
    /// There is no answer. That it is wrong is no error here.
    pub fn must_find(&self, expectation: &Expectation) -> Result<(), Stop> {
        self.check()?;
        (self.judge)(expectation)
    }

    /// The port that services send their spans to.
    pub fn otlp_port(&self) -> u16 {
        self.otlp_port
    }

    /// A CPU that the scenario may have for itself: the first of those that the lab may run on.
    ///
    /// # Errors
    /// The kernel does not say which these are.
    pub fn cpu(&self) -> Result<usize, Stop> {
        let allowed = sched_getaffinity(None).context("cannot read the own CPUs")?;
        let first = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu));
        Ok(first.context("there is no CPU")?)
    }

    /// Starts a process of this scenario.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, part: &str, arguments: &[String]) -> Result<Actor<'_>, Stop> {
        Actor::start(self, self.scenario, part, arguments)
    }

    /// Starts a process of that name that uses all it gets of a CPU; it is at it when this returns.
    /// `nice` is its priority, of 0 as usual down to -20: twice the CPU for each three less.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn hog(&self, name: &str, cpu: usize, nice: i32) -> Result<Actor<'_>, Stop> {
        let hog = self.start(HOG, &[name.to_owned(), cpu.to_string(), nice.to_string()])?;
        hog.hear::<()>()?;
        Ok(hog)
    }

    /// Goes on, unless somebody asked for the end.
    ///
    /// # Errors
    /// [`Stop::Ended`].
    pub fn check(&self) -> Result<(), Stop> {
        match self.ended.load(Ordering::Relaxed) {
            true => Err(Stop::Ended),
            false => Ok(()),
        }
    }
}
