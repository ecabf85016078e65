// SPDX-License-Identifier: Apache-2.0
//! What a boot proved: each stage's output against what had to be in it.
//!
//! Nothing passes by silence: a test counts only where its own line says so, a stage only where it
//! began and ended, and a boot only where the guest came to its end with a clean kernel log.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;

use crate::guest::End;
use crate::guest::Outcome;
use crate::libtest;
use crate::list::Does;
use crate::list::Kernel;
use crate::plan::Plan;
use crate::plan::Planned;
use crate::stream::Part;

/// What `timeout` exits with when it had to end a program, by asking or by force.
const TIMED_OUT: [i32; 2] = [124, 137];
/// Lines of a kernel log that say that something is broken.
const BROKEN: [&str; 5] = [
    "BUG:",
    "WARNING:",
    "Oops:",
    "general protection fault",
    "UBSAN:",
];
/// What looks like it and is the host's fault: a virtual CPU that lost the host for seconds.
const HOST: [&str; 3] = ["soft lockup", "detected stalls", "rcu_"];

/// A failure, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) why: String,
    /// Whether something was seen to be wrong, and not only nothing seen because the guest died.
    pub(crate) is_assertion: bool,
}

/// What became of one stage, or of one boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// As `stage/test`.
    pub(crate) passed: Vec<String>,
    pub(crate) failed: Vec<Failure>,
    /// Excepted tests that failed, as was to be expected.
    pub(crate) excepted: Vec<String>,
    /// Excepted tests that passed: the exception can go.
    pub(crate) surprises: Vec<String>,
    /// Instructions that the verifier walked through, by program.
    pub(crate) verified: Option<BTreeMap<String, u64>>,
    /// Causes that `doctor` says cannot be told.
    pub(crate) costs: Option<BTreeSet<String>>,
}

impl Verdict {
    fn fail(&mut self, what: impl Into<String>, why: impl Into<String>, is_assertion: bool) {
        self.failed.push(Failure {
            what: what.into(),
            why: why.into(),
            is_assertion,
        });
    }

    /// Whether all of a stage (`stage`), or one test of it (`stage/test`), passed.
    pub(crate) fn proves(&self, proof: &str) -> bool {
        self.passed.iter().any(|name| is_within(name, proof)) && !self.refutes(proof)
    }

    /// Whether something of it failed, excepted or not.
    fn refutes(&self, proof: &str) -> bool {
        let failed = self.failed.iter().map(|failure| &failure.what);
        failed
            .chain(&self.excepted)
            .any(|name| is_within(name, proof))
    }

    /// Whether nothing is known of it: no such test has run.
    pub(crate) fn knows_nothing_of(&self, proof: &str) -> bool {
        !self.proves(proof) && !self.refutes(proof)
    }

    /// Adds what another stage or boot has shown.
    pub(crate) fn add(&mut self, other: Verdict) {
        self.passed.extend(other.passed);
        self.failed.extend(other.failed);
        self.excepted.extend(other.excepted);
        self.surprises.extend(other.surprises);
        self.verified = other.verified.or(self.verified.take());
        self.costs = other.costs.or(self.costs.take());
    }
}

/// Whether a name is that of a test (`stage/test`), or of a test of that stage.
fn is_within(name: &str, proof: &str) -> bool {
    name == proof || name.split('/').next() == Some(proof)
}

/// Judges each stage of a boot, and the boot itself.
pub(crate) fn boot(kernel: &Kernel, plan: &Plan<'_>, outcome: &Outcome) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = plan
        .stages
        .iter()
        .map(|planned| {
            let name = &planned.stage.name;
            let part = outcome.out.iter().find(|part| part.name == *name);
            stage(kernel, planned, part, outcome)
        })
        .collect();
    let mut whole = Verdict::default();
    match &outcome.end {
        End::Done => {}
        End::Died(how) => whole.fail("the guest", format!("died: {how}"), false),
        // A hang is never tried again: it is what a missed waking or a dead lock looks like.
        End::Hung(how) => whole.fail("the guest", format!("hung {how}"), true),
    }
    for line in broken_lines(&outcome.console) {
        whole.fail("the guest's kernel", line, true);
    }
    verdicts.push(whole);
    verdicts
}

/// Lines by which a kernel says that it is not well.
fn broken_lines(console: &str) -> Vec<&str> {
    let lines = console.lines();
    lines
        .filter(|line| BROKEN.iter().any(|word| line.contains(word)))
        .filter(|line| !HOST.iter().any(|word| line.contains(word)))
        .collect()
}

fn stage(
    kernel: &Kernel,
    planned: &Planned<'_>,
    part: Option<&Part>,
    outcome: &Outcome,
) -> Verdict {
    let name = &planned.stage.name;
    let mut verdict = Verdict::default();
    let Some(part) = part else {
        verdict.fail(name, "did not run", false);
        return verdict;
    };
    let status = match part.status {
        Some(status) if TIMED_OUT.contains(&status) => {
            let limit = planned.stage.limit_s;
            verdict.fail(name, format!("did not end within {limit} s"), true);
            status
        }
        Some(status) => status,
        None => {
            verdict.fail(name, "was cut off", false);
            -1
        }
    };
    match &planned.stage.does {
        Does::Tests { .. } => tests(planned, part, status, &mut verdict),
        Does::Doctor => doctor(kernel, name, &part.text, &mut verdict),
        Does::Verifier => {
            let said = outcome.err.get(name).map_or("", |text| text.trim());
            verifier(name, part, said, &mut verdict);
        }
    }
    verdict
}

fn tests(planned: &Planned<'_>, part: &Part, status: i32, verdict: &mut Verdict) {
    let stage = &planned.stage.name;
    let results = libtest::results(&part.text);
    for test in &planned.tests {
        let name = format!("{stage}/{test}");
        let excepted = planned.may_fail.contains_key(test);
        match (results.get(test), excepted) {
            (Some(true), false) => verdict.passed.push(name),
            (Some(true), true) => {
                verdict.surprises.push(name.clone());
                verdict.passed.push(name);
            }
            (Some(false), false) => verdict.fail(name, "failed", true),
            (Some(false), true) => verdict.excepted.push(name),
            // Excepted or not: that it may fail is no reason for it not to run.
            (None, _) => verdict.fail(name, "did not run", false),
        }
    }
    let any_failed = results.values().any(|passed| !passed);
    let ended = part.status.is_some() && !TIMED_OUT.contains(&status);
    if ended && (status != 0) != any_failed {
        verdict.fail(stage, format!("ended with status {status}"), true);
    }
}

/// The part of `lacuna doctor --format json` that is compared.
#[derive(Deserialize)]
struct Report {
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    status: String,
    why: String,
    costs: Vec<String>,
}

/// The list and `doctor` must say the same of what this kernel cannot: neither may know more.
fn doctor(kernel: &Kernel, stage: &str, text: &str, verdict: &mut Verdict) {
    let report: Report = match serde_json::from_str(text.trim()) {
        Ok(report) => report,
        Err(error) => return verdict.fail(stage, format!("no report: {error}"), true),
    };
    let mut failures = Vec::new();
    let mut said = BTreeSet::new();
    for check in report.checks.iter().filter(|check| check.status != "ok") {
        let known = kernel.cannot.iter().find(|cannot| {
            let part = cannot.doctor.as_deref();
            part.is_some_and(|part| check.name.contains(part))
        });
        if known.is_none() {
            failures.push(format!(
                "says that {} is {}, which the list does not: {}",
                check.name, check.status, check.why
            ));
        }
        said.extend(check.costs.iter().cloned());
    }
    for cannot in &kernel.cannot {
        let Some(part) = cannot.doctor.as_deref() else {
            continue;
        };
        let degraded = |check: &Check| check.status != "ok" && check.name.contains(part);
        if !report.checks.iter().any(degraded) {
            failures.push(format!("finds nothing wrong with {part}: the list does"));
        }
    }
    let listed: BTreeSet<String> = kernel.cannot.iter().flat_map(|c| c.costs.clone()).collect();
    if said != listed {
        failures.push(format!("says that it costs {said:?}, the list {listed:?}"));
    }
    if failures.is_empty() {
        verdict.passed.push(stage.to_owned());
    }
    for failure in failures {
        verdict.fail(stage, failure, true);
    }
    verdict.costs = Some(said);
}

fn verifier(stage: &str, part: &Part, said: &str, verdict: &mut Verdict) {
    if part.status != Some(0) {
        return verdict.fail(stage, format!("the programs do not load: {said}"), true);
    }
    let counts = part.text.lines().filter_map(|line| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    let verified: BTreeMap<String, u64> = counts.collect();
    if verified.is_empty() {
        return verdict.fail(stage, "no program was named", true);
    }
    verdict.passed.push(stage.to_owned());
    verdict.verified = Some(verified);
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
