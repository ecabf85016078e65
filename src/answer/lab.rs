// SPDX-License-Identifier: Apache-2.0
//! `lacuna.lab/1`: what `lacuna lab run` found, as types.
//!
//! A scenario that a host cannot make is `not-run` and says why; it is never `passed`. Nothing is
//! judged here.

use serde::Serialize;

/// Everything that was run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct LabReport {
    pub(crate) schema: LabSchema,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// This machine is emulated in software: its time is distorted, and accuracy asks for less.
    pub(crate) emulated: bool,
    /// In the order in which they ran.
    pub(crate) scenarios: Vec<ScenarioReport>,
}

/// The schema of a [`LabReport`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) enum LabSchema {
    #[default]
    #[serde(rename = "lacuna.lab/1")]
    V1,
}

/// One scenario.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct ScenarioReport {
    pub(crate) name: String,
    pub(crate) status: ScenarioStatus,
    /// What was wrong, or why it was not run; empty where it passed.
    pub(crate) why: String,
    /// Truth and answer, cause by cause.
    pub(crate) rows: Vec<LabRow>,
}

/// How a scenario went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ScenarioStatus {
    /// Every answer is as true as it must be.
    Passed,
    /// One is not, or there is none.
    Failed,
    /// This host cannot make it.
    NotRun,
}

/// Truth and answer about one cause.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct LabRow {
    /// The public name; of several `A + B`, of a link of a chain `A <- B`.
    pub(crate) cause: String,
    /// What was so.
    pub(crate) truth_ns: u64,
    /// What was answered.
    pub(crate) answer_ns: u64,
    /// Who is named in the answer first; empty for nobody.
    pub(crate) culprit: String,
    /// What says what was so.
    pub(crate) truth_from: String,
    /// The answer is as near to the truth as it must be, and names whom it must.
    pub(crate) right: bool,
}
