// SPDX-License-Identifier: Apache-2.0
//! The verdict over the join of a program's spans: every answer against the test's truth.
//!
//! A claim of a thread is wrong unless that thread, and no other, ran the span. Every answer that
//! the agent ever gave counts, also one that it changed later.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::scenario::Expected;
use crate::truth::TrueSpan;
use crate::truth::Truth;

/// A kind (process, scope, name) may be unknown for so many spans.
pub(crate) const LEARNING_SPANS: usize = 200;
/// Joins that claim a thread.
const THREAD_JOINS: [&str; 4] = ["attribute", "context", "timestamps", "single-thread"];

/// What was found of one program.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// What the program calls itself.
    pub(crate) service: String,
    /// Spans by the truth.
    pub(crate) spans: usize,
    /// Spans that the agent answered.
    pub(crate) answered: usize,
    /// How they were joined, with their number.
    hows: BTreeMap<String, usize>,
    /// Why spans were not joined, with their number.
    whys: BTreeMap<String, usize>,
    /// Claims of a thread that did not run the span, in words.
    pub(crate) wrong: Vec<String>,
    /// Root spans after the first [`LEARNING_SPANS`] of their kind, and how many were joined.
    roots: usize,
    joined_roots: usize,
}

impl Verdict {
    /// Judges the latest answers; `earlier` are wrong claims of answers before.
    pub(crate) fn over(
        service: &str,
        truth: &Truth,
        answers: &BTreeMap<String, Value>,
        earlier: Vec<String>,
    ) -> Verdict {
        let mut verdict = Verdict {
            service: service.to_owned(),
            spans: truth.spans.len(),
            answered: truth
                .spans
                .keys()
                .filter(|id| answers.contains_key(*id))
                .count(),
            wrong: earlier,
            ..Verdict::default()
        };
        verdict.wrong.extend(wrong_claims(truth, answers));
        verdict.wrong.sort();
        verdict.wrong.dedup();
        for id in truth.spans.keys() {
            let how = answers.get(id).map_or("no answer", how);
            *verdict.hows.entry(how.to_owned()).or_default() += 1;
            if let Some(why) = answers
                .get(id)
                .and_then(|answer| answer["join"]["why"].as_str())
            {
                *verdict.whys.entry(why.to_owned()).or_default() += 1;
            }
        }
        for (id, _) in learned_roots(truth) {
            verdict.roots += 1;
            let joined = answers.get(id).is_some_and(claims_a_thread);
            verdict.joined_roots += usize::from(joined);
        }
        verdict
    }

    /// What is not as it must be, in words; empty where all is well.
    pub(crate) fn problems(&self, expected: Expected) -> Vec<String> {
        let mut problems = Vec::new();
        let service = &self.service;
        if let Some(first) = self.wrong.first() {
            problems.push(format!(
                "{service}: {} wrong joins, first {first}",
                self.wrong.len()
            ));
        }
        if self.answered < self.spans {
            let missing = self.spans - self.answered;
            problems.push(format!(
                "{service}: no answer for {missing} of {} spans",
                self.spans
            ));
        }
        match expected {
            Expected::Joined(share) if self.root_share() < share => {
                let found = 100.0 * self.root_share();
                let wanted = 100.0 * share;
                problems.push(format!(
                    "{service}: {found:.2} % of roots joined, not {wanted} %"
                ));
            }
            Expected::Joined(_) => {}
            Expected::Refused => problems.extend(self.all_must_be("process")),
            Expected::Nobody => problems.extend(self.all_must_be("none")),
        }
        problems
    }

    fn all_must_be(&self, wanted: &str) -> Option<String> {
        let right = self.hows.get(wanted).copied().unwrap_or(0);
        let Verdict {
            service,
            spans,
            hows,
            ..
        } = self;
        (right < *spans).then(|| format!("{service}: {right} of {spans} are {wanted}: {hows:?}"))
    }

    fn root_share(&self) -> f64 {
        self.joined_roots as f64 / self.roots.max(1) as f64
    }
}

/// A row of the table.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict {
            service,
            spans,
            answered,
            roots,
            joined_roots,
            ..
        } = self;
        let wrong = self.wrong.len();
        let share = 100.0 * self.root_share();
        let hows: Vec<String> = self
            .hows
            .iter()
            .map(|(how, n)| format!("{how} {n}"))
            .collect();
        let hows = hows.join(", ");
        let whys: Vec<String> = self
            .whys
            .iter()
            .map(|(why, n)| format!("{why} {n}"))
            .collect();
        let whys = whys.join(", ");
        write!(f, "{service:<20}{spans:>7}{answered:>10}{wrong:>7}")?;
        write!(
            f,
            "{joined_roots:>8}/{roots:<6}{share:>7.2} %  {hows} ({whys})"
        )
    }
}

/// The head of the table.
pub(crate) const TABLE_HEAD: &str =
    "program               spans  answered  wrong   roots joined after 200   joined by (why not)";

/// Claims of a thread that did not run the span, in words.
pub(crate) fn wrong_claims(truth: &Truth, answers: &BTreeMap<String, Value>) -> Vec<String> {
    let claimed = answers.iter().filter(|(_, answer)| claims_a_thread(answer));
    let known = claimed.filter_map(|(id, answer)| Some((id, answer, truth.spans.get(id)?)));
    known
        .filter(|(_, answer, span)| !is_right(answer, span))
        .map(|(id, answer, span)| {
            let TrueSpan {
                trace_id,
                name,
                tids,
                ..
            } = span;
            format!(
                "{trace_id}/{id} ({name}): {} but ran on {tids:?}",
                answer["join"]
            )
        })
        .collect()
}

fn is_right(answer: &Value, span: &TrueSpan) -> bool {
    let tid = answer["join"]["tid"].as_u64();
    span.tids.len() == 1 && tid == Some(u64::from(span.tids[0]))
}

fn claims_a_thread(answer: &Value) -> bool {
    THREAD_JOINS.contains(&how(answer))
}

fn how(answer: &Value) -> &str {
    answer["join"]["how"]
        .as_str()
        .expect("a span says how it was joined")
}

/// Root spans of each kind but for the first [`LEARNING_SPANS`] of it, by their ends.
fn learned_roots(truth: &Truth) -> Vec<(&String, &TrueSpan)> {
    let mut by_name: BTreeMap<&str, Vec<(&String, &TrueSpan)>> = BTreeMap::new();
    for (id, span) in &truth.spans {
        by_name.entry(&span.name).or_default().push((id, span));
    }
    let mut roots = Vec::new();
    for mut kind in by_name.into_values() {
        kind.sort_by_key(|(_, span)| span.end_unix_ns);
        roots.extend(
            kind.into_iter()
                .skip(LEARNING_SPANS)
                .filter(|(_, span)| span.root),
        );
    }
    roots
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;
    use serde_json::json;

    use super::Expected;
    use super::LEARNING_SPANS;
    use super::TrueSpan;
    use super::Truth;
    use super::Verdict;

    /// A truth of so many root spans, each on the threads given, and an answer for each.
    fn case(spans: usize, tids: &[u32], answer: &Value) -> (Truth, BTreeMap<String, Value>) {
        let mut truth = Truth::default();
        let mut answers = BTreeMap::new();
        for number in 0..spans {
            let span = TrueSpan {
                trace_id: format!("{number:032x}"),
                root: true,
                end_unix_ns: number as u64,
                tids: tids.to_vec(),
                name: "request".to_owned(),
            };
            truth.spans.insert(format!("{number:016x}"), span);
            answers.insert(format!("{number:016x}"), answer.clone());
        }
        (truth, answers)
    }

    fn problems(tids: &[u32], join: &Value, expected: Expected) -> Vec<String> {
        let (truth, answers) = case(LEARNING_SPANS + 100, tids, &json!({ "join": join }));
        Verdict::over("case", &truth, &answers, Vec::new()).problems(expected)
    }

    #[test]
    fn the_true_thread_is_right_and_any_other_is_wrong() {
        let join = json!({"how": "timestamps", "tid": 7});
        assert!(problems(&[7], &join, Expected::Joined(0.99)).is_empty());
        assert_eq!(problems(&[8], &join, Expected::Joined(0.99)).len(), 1);
        // A span that moved has no thread, not even one that it was on.
        assert_eq!(problems(&[7, 8], &join, Expected::Joined(0.99)).len(), 1);
    }

    #[test]
    fn refusing_everything_is_no_join() {
        let join = json!({"how": "process", "tid": 0});
        assert!(problems(&[7], &join, Expected::Refused).is_empty());
        assert_eq!(problems(&[7], &join, Expected::Joined(0.95)).len(), 1);
        assert_eq!(problems(&[7], &join, Expected::Nobody).len(), 1);
    }

    #[test]
    fn a_missing_answer_and_an_earlier_wrong_one_are_seen() {
        let join = json!({"how": "timestamps", "tid": 7});
        let (truth, mut answers) = case(LEARNING_SPANS + 100, &[7], &json!({ "join": join }));
        answers.pop_first();
        let earlier = vec!["it once said otherwise".to_owned()];
        let verdict = Verdict::over("case", &truth, &answers, earlier);
        assert_eq!(verdict.problems(Expected::Joined(0.99)).len(), 2);
    }
}
