// SPDX-License-Identifier: Apache-2.0
//! `lacuna.blind/1`: how much of the time of a fixed piece of work the program itself cannot see.
//!
//! Where the causes could be observed, those of each burst add up to its gap and those of a run to the
//! gaps of its bursts; [`BlindReport::check`] says whether they do.

use serde::Deserialize;
use serde::Serialize;

use lacuna_timeline::Cause;

use super::CauseAnswer;
use super::UnixNs;
use super::cause_name;
use super::check::Violation;
use super::check::causes_add_up;
use super::check::equal;

/// The schema of a [`BlindReport`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) enum BlindSchema {
    #[default]
    #[serde(rename = "lacuna.blind/1")]
    V1,
}

/// Wall time against time on a CPU, quiet and beside hogs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct BlindReport {
    pub(crate) schema: BlindSchema,
    /// Bursts of each run.
    pub(crate) bursts: u32,
    /// Processes that use the CPUs beside the bursts of the contended run.
    pub(crate) hogs: u32,
    /// The CPU time that a burst was calibrated to.
    pub(crate) burst_ns: u64,
    pub(crate) runs: Vec<BlindRun>,
    /// Why no causes are named; left out where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) causes_missing: Option<String>,
}

/// Whether anything of ours ran beside the bursts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunName {
    /// Nothing of ours.
    Quiet,
    /// The hogs.
    Contended,
}

/// The bursts under one condition.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct BlindRun {
    pub(crate) name: RunName,
    pub(crate) wall_ns: Figure,
    pub(crate) on_cpu_ns: Figure,
    pub(crate) gap_ns: Figure,
    /// The median gap as a share of the median wall time.
    pub(crate) gap_share: f64,
    /// All bursts together.
    pub(crate) total: BlindTotal,
    /// Of all gaps together; adds up to `total.gap_ns`. Empty where they could not be observed.
    pub(crate) causes: Vec<CauseAnswer>,
    /// Burst by burst, in time order.
    pub(crate) samples: Vec<Sample>,
    /// Kernel records that were lost meanwhile; their time is `unknown`.
    pub(crate) lost_records: u64,
}

/// The distribution of one quantity over the bursts of a run, by nearest rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The median.
    pub(crate) p50: u64,
    /// The 99th percentile: of fewer than 100 bursts the largest.
    pub(crate) p99: u64,
}

/// Sums over the bursts of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct BlindTotal {
    pub(crate) wall_ns: u64,
    pub(crate) on_cpu_ns: u64,
    pub(crate) gap_ns: u64,
    /// How much more the CPU clock said than `on_cpu_ns`.
    pub(crate) clock_excess_ns: u64,
}

/// One burst.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) start_unix_ns: UnixNs,
    /// What a span around it would record.
    pub(crate) wall_ns: u64,
    /// What its thread's CPU clock says, less `clock_excess_ns`.
    pub(crate) on_cpu_ns: u64,
    /// The rest of the wall time.
    pub(crate) gap_ns: u64,
    /// How much longer the CPU clock says the thread ran than the switch records leave it: they are
    /// stamped by two clocks, some microseconds apart at each switch.
    pub(crate) clock_excess_ns: u64,
    /// Adds up to `gap_ns`. Empty where it could not be observed.
    pub(crate) causes: Vec<SampleCause>,
}

/// One cause's part of the gap of one burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SampleCause {
    #[serde(with = "cause_name")]
    pub(crate) cause: Cause,
    pub(crate) ns: u64,
}

impl BlindTotal {
    /// The sums of some bursts.
    pub(crate) fn of(samples: &[Sample]) -> BlindTotal {
        let sum_of = |part: fn(&Sample) -> u64| samples.iter().map(part).sum();
        BlindTotal {
            wall_ns: sum_of(|one| one.wall_ns),
            on_cpu_ns: sum_of(|one| one.on_cpu_ns),
            gap_ns: sum_of(|one| one.gap_ns),
            clock_excess_ns: sum_of(|one| one.clock_excess_ns),
        }
    }
}

impl BlindReport {
    /// Every burst is its time on a CPU and its gap, every run is its bursts; and where the causes were
    /// observed, they are the gap of every burst and of every run.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        for run in &self.runs {
            run.check(self.causes_missing.is_none())?;
        }
        Ok(())
    }
}

impl BlindRun {
    fn check(&self, observed: bool) -> Result<(), Violation> {
        for sample in &self.samples {
            let parts_ns = u128::from(sample.on_cpu_ns) + u128::from(sample.gap_ns);
            equal(sample.wall_ns.into(), parts_ns, || "a burst".to_owned())?;
            if observed {
                let causes_ns = sample.causes.iter().map(|part| u128::from(part.ns)).sum();
                equal(sample.gap_ns.into(), causes_ns, || {
                    "the gap of a burst".to_owned()
                })?;
            }
        }
        let total = BlindTotal::of(&self.samples);
        for (name, stated_ns, summed_ns) in [
            ("wall_ns", self.total.wall_ns, total.wall_ns),
            ("on_cpu_ns", self.total.on_cpu_ns, total.on_cpu_ns),
            ("gap_ns", self.total.gap_ns, total.gap_ns),
            (
                "clock_excess_ns",
                self.total.clock_excess_ns,
                total.clock_excess_ns,
            ),
        ] {
            let what = || format!("{name} of the bursts");
            equal(stated_ns.into(), summed_ns.into(), what)?;
        }
        if !observed {
            return Ok(());
        }
        causes_add_up(&self.causes, self.total.gap_ns, || "the gaps".to_owned())?;
        for cause in &self.causes {
            let of_cause = |part: &&SampleCause| part.cause == cause.cause;
            let parts = self.samples.iter().flat_map(|sample| &sample.causes);
            let sum_ns = parts.filter(of_cause).map(|part| u128::from(part.ns)).sum();
            equal(cause.ns.into(), sum_ns, || {
                format!("{} of the bursts", cause.cause.name())
            })?;
        }
        Ok(())
    }
}
