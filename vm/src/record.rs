// SPDX-License-Identifier: Apache-2.0
//! What the last run of the matrix has shown, kept in `vm/recorded.json` beside the list: the causes
//! of each kernel, and what each program costs its verifier.
//!
//! The next run is compared with it. Only a pinned kernel is recorded, and a test that failed proves
//! nothing: what is here is at most what was shown.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use crate::judge::Verdict;
use crate::list::List;

/// A program that costs the verifier this much more than before is a jump, in percent.
const JUMP_PERCENT: u64 = 10;

/// What a run has shown, by the name of the kernel.
pub(crate) type Records = BTreeMap<String, Record>;

/// What a run has shown of one kernel.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) release: String,
    /// Causes that tests have proved there.
    pub(crate) proved: BTreeSet<String>,
    /// Causes that cannot be told there.
    pub(crate) cannot: BTreeSet<String>,
    /// How many the verifier walked through, by program.
    pub(crate) instructions: BTreeMap<String, u64>,
}

/// Reads the file; one that does not exist is empty.
pub(crate) fn read(path: &Path) -> Result<Records> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Records::new()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The text of the file.
pub(crate) fn text(records: &Records) -> Result<String> {
    Ok(serde_json::to_string_pretty(records)? + "\n")
}

impl Record {
    /// What a run of a kernel has shown, with what it has not looked at as it was before.
    pub(crate) fn new(
        list: &List,
        release: &str,
        verdict: &Verdict,
        before: Option<&Record>,
    ) -> Record {
        let stands = |cause: &str, tests: &[String]| {
            let was_proved = before.is_some_and(|before| before.proved.contains(cause));
            let of = |test: &String| {
                verdict.proves(test) || (was_proved && verdict.knows_nothing_of(test))
            };
            tests.iter().all(of)
        };
        let proofs = list.proof.iter();
        let proved = proofs.filter(|(cause, tests)| stands(cause, tests));
        Record {
            release: release.to_owned(),
            proved: proved.map(|(cause, _)| cause.clone()).collect(),
            cannot: verdict.costs.clone().unwrap_or_default(),
            instructions: verdict.verified.clone().unwrap_or_default(),
        }
    }

    /// Causes that are proved here and not there.
    pub(crate) fn proves_beyond<'a>(&'a self, other: &'a Record) -> Vec<&'a str> {
        let more = self.proved.difference(&other.proved);
        more.map(String::as_str).collect()
    }

    /// What is different for the verifier, worst news first; growth below a jump is not news.
    pub(crate) fn jumps_since(&self, before: &Record) -> Vec<String> {
        let mut news = Vec::new();
        for (program, &now) in &self.instructions {
            match before.instructions.get(program) {
                None => news.push(format!("{program} is new: {now} instructions")),
                Some(&was) if now * 100 > was * (100 + JUMP_PERCENT) => news.push(format!(
                    "JUMP of {program}: {was} to {now} instructions, {} % more",
                    (now - was) * 100 / was.max(1)
                )),
                Some(_) => {}
            }
        }
        let gone = before.instructions.keys();
        let gone = gone.filter(|program| !self.instructions.contains_key(*program));
        news.extend(gone.map(|program| format!("{program} is gone")));
        news.sort_by_key(|line| !line.starts_with("JUMP"));
        news
    }
}

#[cfg(test)]
mod tests {
    use super::List;
    use super::Record;
    use super::Verdict;

    fn record(programs: &[(&str, u64)]) -> Record {
        Record {
            instructions: programs
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            ..Record::default()
        }
    }

    #[test]
    fn a_jump_is_shown_first_and_small_growth_is_not() {
        let before = record(&[("a", 1000), ("b", 1000), ("c", 10), ("d", 5)]);
        let after = record(&[("a", 1100), ("b", 1101), ("c", 9), ("e", 7)]);
        assert_eq!(
            after.jumps_since(&before),
            [
                "JUMP of b: 1000 to 1101 instructions, 10 % more",
                "e is new: 7 instructions",
                "d is gone",
            ]
        );
        assert!(before.jumps_since(&before).is_empty());
    }

    #[test]
    fn a_run_says_only_what_it_has_looked_at() {
        let list = List::parse(include_str!("../kernels.toml")).unwrap();
        let (cause, tests) = list
            .proof
            .iter()
            .find(|(_, tests)| tests.len() == 1)
            .unwrap();
        let passed = Verdict {
            passed: tests.clone(),
            ..Verdict::default()
        };
        let failed = Verdict {
            excepted: tests.clone(),
            ..Verdict::default()
        };
        let silent = Verdict::default();
        let proved = |verdict: &Verdict, before: Option<&Record>| {
            Record::new(&list, "1", verdict, before)
                .proved
                .contains(cause)
        };
        let before = Record::new(&list, "1", &passed, None);
        assert!(before.proved.contains(cause));
        assert!(!proved(&silent, None) && proved(&silent, Some(&before)));
        assert!(
            !proved(&failed, Some(&before)),
            "what failed is proved no more"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_empty_and_one_that_is_broken_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recorded.json");
        assert!(super::read(&path).unwrap().is_empty());
        let records = [("6.1".to_owned(), record(&[("a", 1)]))].into();
        std::fs::write(&path, super::text(&records).unwrap()).unwrap();
        assert_eq!(super::read(&path).unwrap(), records);
        std::fs::write(&path, "{").unwrap();
        assert!(super::read(&path).is_err());
    }
}
