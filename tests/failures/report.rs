// SPDX-License-Identifier: Apache-2.0
//! `lacuna run` by a test, and its report held against the identities of the contract.

use std::path::Path;
use std::process::Command;
use std::process::ExitStatus;

use serde_json::Value;

use crate::program::Program;
use crate::program::lacuna;

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    /// What Lacuna and the command said.
    pub(crate) said: String,
    pub(crate) report: Report,
}

/// A report; every sum in it holds.
pub(crate) struct Report(pub(crate) Value);

/// `lacuna run` with options, its report in that file.
pub(crate) fn command(report: &Path, options: &[&str], words: &[&str]) -> Command {
    let mut command = lacuna();
    command.args(["run", "--format", "json", "--output"]);
    command.arg(report).args(options).arg("--").args(words);
    command
}

/// Runs a command and checks its report. Needs root.
pub(crate) fn run(options: &[&str], words: &[&str]) -> Ran {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("report.json");
    let (status, said) = Program::start(command(&file, options, words)).end();
    let report = Report::read(&file, &said);
    assert!(
        !said.contains("panicked") && !said.contains("does not hold"),
        "{said}"
    );
    Ran {
        status,
        said,
        report,
    }
}

impl Report {
    /// Reads a report and checks every sum in it.
    pub(crate) fn read(file: &Path, said: &str) -> Report {
        let text = std::fs::read_to_string(file);
        let text = text.unwrap_or_else(|error| panic!("no report: {error}; it said:\n{said}"));
        let report = Report(serde_json::from_str(&text).expect("JSON"));
        report.check();
        report
    }

    fn check(&self) {
        let mut wall_ns = 0;
        for thread in self.threads() {
            wall_ns += ns(&thread["wall_ns"]);
            assert_sums(thread);
        }
        let total = &self.0["total"];
        assert_eq!(ns(&total["wall_ns"]), wall_ns, "the total of all threads");
        assert_sums(total);
    }

    pub(crate) fn threads(&self) -> &[Value] {
        self.0["threads"].as_array().expect("threads")
    }

    pub(crate) fn lost_records(&self) -> u64 {
        ns(&self.0["lost_records"])
    }

    /// Time of all threads, nanoseconds.
    pub(crate) fn total_ns(&self) -> u64 {
        ns(&self.0["total"]["wall_ns"])
    }

    /// Unknown time of all threads: each reason with its nanoseconds.
    pub(crate) fn unknown(&self) -> Vec<(String, u64)> {
        let causes = self.0["total"]["causes"].as_array().expect("causes");
        let unknown = causes.iter().filter(|cause| cause["cause"] == "unknown");
        unknown.flat_map(reasons).collect()
    }
}

/// The reasons of one cause, which add up to it; where there is one only it is `reason`.
fn reasons(cause: &Value) -> Vec<(String, u64)> {
    let main = cause["reason"].as_str().expect("a reason");
    let Some(reasons) = cause["evidence"]["reasons"].as_object() else {
        return vec![(main.to_owned(), ns(&cause["ns"]))];
    };
    let reasons: Vec<_> = reasons
        .iter()
        .map(|(reason, amount)| (reason.clone(), ns(amount)))
        .collect();
    let sum: u64 = reasons.iter().map(|(_, ns)| ns).sum();
    assert_eq!(sum, ns(&cause["ns"]), "{cause:#}");
    assert!(
        reasons.iter().any(|(reason, _)| reason == main),
        "{cause:#}"
    );
    reasons
}

/// A number of an answer.
pub(crate) fn ns(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// Causes add up to the whole, states to their cause, who ran instead to what was waited.
fn assert_sums(whole: &Value) {
    let causes = whole["causes"].as_array().expect("causes");
    let sum: u64 = causes.iter().map(|cause| ns(&cause["ns"])).sum();
    assert_eq!(sum, ns(&whole["wall_ns"]), "{whole:#}");
    for cause in causes {
        let name = cause["cause"].as_str().expect("a name");
        let states = ["running_ns", "runnable_ns", "blocked_ns"];
        let state: u64 = states.iter().map(|state| ns(&cause["state"][state])).sum();
        if name == "unknown" {
            assert!(cause["reason"].is_string(), "unknown says why: {cause:#}");
        } else {
            assert_eq!(state, ns(&cause["ns"]), "{cause:#}");
        }
        if name.starts_with("runq.") {
            let culprits = cause["culprits"].as_array().expect("culprits");
            let blamed: u64 = culprits.iter().map(|culprit| ns(&culprit["ns"])).sum();
            assert_eq!(blamed, ns(&cause["ns"]), "{cause:#}");
        }
    }
}
