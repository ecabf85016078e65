// SPDX-License-Identifier: Apache-2.0
//! Is an answer true? One span's answer against what a scenario says was so.
//!
//! Pure. The bounds are the project's promise (docs/lab.md): an amount within 1 % or 1 ms of the
//! truth, whichever is larger, and no amount more exact than the main one; all that no truth speaks
//! of together at most 2 % of the gap, and `wait.other` at most 1 %; sums exact. On an emulated machine, whose time is distorted: the cause
//! that the scenario is about is the largest, and amounts are within 5 % or 20 ms.

use std::ops::RangeInclusive;

use lacuna_lab::Expectation;
use lacuna_lab::Must;
use lacuna_lab::Place;
use lacuna_lab::Row;

use crate::answer::CauseAnswer;
use crate::answer::ChainLink;
use crate::answer::Culprit;
use crate::answer::CulpritKind;
use crate::answer::LabRow;
use crate::answer::LinkHow;
use crate::answer::SpanAnswer;
use crate::answer::Status;

/// The main truth is at least so many times what it may be off by.
const TELLING: u64 = 4;

/// How near to the truth an answer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Accuracy {
    /// Of a real machine.
    Exact,
    /// Of an emulated one.
    Emulated,
}

impl Accuracy {
    fn slack_ns(self, truth_ns: u64) -> u64 {
        match self {
            Accuracy::Exact => (truth_ns / 100).max(1_000_000),
            Accuracy::Emulated => (truth_ns / 20).max(20_000_000),
        }
    }
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Verdict {
    /// One for each of the expectation's.
    pub(crate) rows: Vec<LabRow>,
    /// What is wrong, in words; nothing where all is right.
    pub(crate) problems: Vec<String>,
}

/// Holds an answer against what is expected.
pub(crate) fn judge(expected: &Expectation, answer: &SpanAnswer, accuracy: Accuracy) -> Verdict {
    let mut verdict = Verdict::default();
    let join = &answer.head.join;
    if answer.head.status != Status::Complete {
        let status = format!("{:?}", answer.head.status).to_lowercase();
        verdict.problems.push(format!("the answer is {status}"));
    }
    if join.tid != expected.tid {
        let (tid, why) = (join.tid, &join.why);
        let problem = format!("thread {} ran it, the answer is {tid} {why}", expected.tid);
        verdict.problems.push(problem.trim_end().to_owned());
    }
    if let Err(violation) = answer.check() {
        verdict.problems.push(violation.to_string());
    }
    // Nanoseconds that the main cause may be off by are missing, or too many, in the others.
    let main = expected.rows.first();
    let main_slack_ns = main.map_or(0, |row| accuracy.slack_ns(row.truth_ns));
    // What is hardly more than an answer may be off by proves nothing.
    if main.is_none_or(|row| row.truth_ns < TELLING * main_slack_ns) {
        let problem = "what the scenario is about hardly happened".to_owned();
        verdict.problems.push(problem);
    }
    for row in &expected.rows {
        let slack_ns = accuracy.slack_ns(row.truth_ns).max(main_slack_ns);
        let (row, problems) = judge_row(row, answer, slack_ns);
        verdict.rows.push(row);
        verdict.problems.extend(problems);
    }
    let lost = answer.reach.lost_records;
    match accuracy {
        Accuracy::Exact => verdict.problems.extend(others(expected, answer)),
        Accuracy::Emulated => verdict.problems.extend(larger(expected, answer)),
    }
    if lost > 0 && !verdict.problems.is_empty() {
        let problem = format!("{lost} kernel records were lost: the machine was too busy");
        verdict.problems.push(problem);
    }
    verdict
}

fn judge_row(row: &Row, answer: &SpanAnswer, slack_ns: u64) -> (LabRow, Vec<String>) {
    let name = name(row);
    let seen = Seen::of(row, answer);
    let mut problems = Vec::new();
    if seen.ns.abs_diff(row.truth_ns) > slack_ns {
        let (answer, truth) = (ms(seen.ns), ms(row.truth_ns));
        problems.push(format!("{name}: {answer} instead of {truth}"));
    }
    for must in &row.musts {
        let problem = match must {
            Must::Nothing => {
                (seen.ns > 0).then(|| format!("{} of it, and there was none", ms(seen.ns)))
            }
            Must::Blame { name, truth_ns } => seen.blame(name, truth_ns.as_ref(), slack_ns),
            Must::Within { span, truth_ns } => seen.within(span, *truth_ns, slack_ns),
            Must::Evidence { key, text } => seen.evidence(key, text),
        };
        problems.extend(problem.map(|problem| format!("{name}: {problem}")));
    }
    let row = LabRow {
        cause: name,
        truth_ns: row.truth_ns,
        answer_ns: seen.ns,
        culprit: seen.culprit(),
        truth_from: row.truth_from.to_owned(),
        right: problems.is_empty(),
    };
    (row, problems)
}

fn name(row: &Row) -> String {
    let causes = row.causes.join(" + ");
    match row.place {
        Place::Gap => causes,
        Place::Chain { of, .. } => format!("{of} <- {causes}"),
    }
}

/// What an answer says where a row looks.
struct Seen<'a> {
    ns: u64,
    culprits: Vec<&'a Culprit>,
    causes: Vec<&'a CauseAnswer>,
}

impl<'a> Seen<'a> {
    fn of(row: &Row, answer: &'a SpanAnswer) -> Seen<'a> {
        let is_one = |name: &str| row.causes.contains(&name);
        match row.place {
            Place::Gap => {
                let causes = answer.causes.iter();
                let causes: Vec<_> = causes.filter(|one| is_one(one.cause.name())).collect();
                Seen {
                    ns: causes.iter().map(|cause| cause.ns).sum(),
                    culprits: causes.iter().flat_map(|cause| &cause.culprits).collect(),
                    causes,
                }
            }
            Place::Chain { of, tid, how } => {
                let chains = answer.causes.iter().filter(|one| one.cause.name() == of);
                let links = chains.flat_map(|one| &one.chain).filter(|link| {
                    link.tid == tid && word(link) == how && is_one(link.cause.name())
                });
                let links: Vec<_> = links.collect();
                Seen {
                    ns: links.iter().map(|link| link.ns).sum(),
                    culprits: links.iter().flat_map(|link| &link.culprits).collect(),
                    causes: Vec::new(),
                }
            }
        }
    }

    /// Who is named first: a culprit, else another span that it was within.
    fn culprit(&self) -> String {
        let mut spans = self.causes.iter().flat_map(|cause| &cause.evidence.spans);
        let named = self.named().into_iter().next().map(|one| one.0);
        let named = named.or_else(|| Some(spans.next()?.span.name.clone()));
        named.unwrap_or_default()
    }

    /// Everybody who is named, those of one name together, who had most first.
    fn named(&self) -> Vec<(String, u64)> {
        let mut named: Vec<(String, u64)> = Vec::new();
        for culprit in self.culprits.iter().filter(|culprit| is_named(culprit)) {
            match named.iter_mut().find(|one| one.0 == culprit.name) {
                Some(one) => one.1 += culprit.ns,
                None => named.push((culprit.name.clone(), culprit.ns)),
            }
        }
        named.sort_by_key(|one| std::cmp::Reverse(one.1));
        named
    }

    /// From the least that can be theirs to the most must overlap with what was.
    fn blame(
        &self,
        name: &str,
        truth_ns: Option<&RangeInclusive<u64>>,
        slack_ns: u64,
    ) -> Option<String> {
        let named = self.named();
        let first = named.first().map_or("nobody", |one| &one.0);
        // Others may have had more of it, where how much was theirs is known.
        let is_there = match truth_ns {
            Some(_) => named.iter().any(|one| one.0.contains(name)),
            None => first.contains(name),
        };
        if !is_there {
            return Some(format!("{first} is blamed, and not {name}"));
        }
        let theirs = named.iter().filter(|one| one.0.contains(name));
        let least_ns: u64 = theirs.map(|one| one.1).sum();
        let unnamed = self.culprits.iter().filter(|culprit| !is_named(culprit));
        let most_ns = least_ns + unnamed.map(|culprit| culprit.ns).sum::<u64>();
        let (from_ns, to_ns) = truth_ns.map(|truth| (*truth.start(), *truth.end()))?;
        let is_near = most_ns + slack_ns >= from_ns && least_ns <= to_ns + slack_ns;
        (!is_near).then(|| {
            let [least, most, from, to] = [least_ns, most_ns, from_ns, to_ns].map(ms);
            format!(
                "{name} is blamed for {least} (with the unnamed {most}), and had {from} to {to}"
            )
        })
    }

    /// Of its time so much was within another span.
    fn within(&self, span: &str, truth_ns: u64, slack_ns: u64) -> Option<String> {
        let spans = self.causes.iter().flat_map(|cause| &cause.evidence.spans);
        let those = spans.filter(|within| within.span.name == span);
        let within_ns: u64 = those.map(|within| within.ns).sum();
        (within_ns.abs_diff(truth_ns) > slack_ns).then(|| {
            let (within, truth) = (ms(within_ns), ms(truth_ns));
            format!("{within} of it were within {span}, instead of {truth}")
        })
    }

    fn evidence(&self, key: &str, text: &str) -> Option<String> {
        let said: Vec<String> = self
            .causes
            .iter()
            .filter_map(|cause| serde_json::to_value(&cause.evidence).ok())
            .filter_map(|evidence| evidence.get(key).map(ToString::to_string))
            .collect();
        let is_there = said.iter().any(|said| said.contains(text));
        (!is_there).then(|| match said.as_slice() {
            [] => format!("nothing is said of {key}, which is {text}"),
            said => format!("{key} is {}, and not {text}", said.join(", ")),
        })
    }
}

fn is_named(culprit: &Culprit) -> bool {
    let kinds = [
        CulpritKind::Rest,
        CulpritKind::Uncovered,
        CulpritKind::Unknown,
    ];
    !kinds.contains(&culprit.kind)
}

fn word(link: &ChainLink) -> &'static str {
    match link.how {
        LinkHow::Held => "held",
        LinkHow::Woke => "woke",
    }
}

/// All that no row speaks of is a trifle.
fn others(expected: &Expectation, answer: &SpanAnswer) -> Vec<String> {
    let gap_ns = answer.head.gap_ns;
    let rest: Vec<&CauseAnswer> = unexpected(expected, answer).collect();
    let rest_ns: u64 = rest.iter().map(|cause| cause.ns).sum();
    let mut problems = Vec::new();
    if rest_ns > gap_ns / 50 {
        let list = rest
            .iter()
            .map(|one| format!("{} {}", one.cause.name(), ms(one.ns)));
        let list: Vec<String> = list.collect();
        let list = list.join(", ");
        problems.push(format!(
            "other causes have more than 2 % of the gap: {list}"
        ));
    }
    if answer.head.other_ns > gap_ns / 100 {
        let other = ms(answer.head.other_ns);
        problems.push(format!("wait.other has more than 1 % of the gap: {other}"));
    }
    problems
}

/// Nothing is larger than what the scenario is about.
fn larger(expected: &Expectation, answer: &SpanAnswer) -> Option<String> {
    let main = expected.rows.first()?;
    let main_ns = Seen::of(main, answer).ns;
    let rest = answer.causes.iter();
    let mut rest = rest.filter(|one| !main.causes.contains(&one.cause.name()));
    let larger = rest.find(|cause| cause.ns > main_ns)?;
    Some(format!(
        "{} is larger than {}",
        larger.cause.name(),
        name(main)
    ))
}

fn unexpected<'a>(
    expected: &'a Expectation,
    answer: &'a SpanAnswer,
) -> impl Iterator<Item = &'a CauseAnswer> {
    let of_gap = expected.rows.iter().filter(|row| row.place == Place::Gap);
    let known: Vec<&str> = of_gap.flat_map(|row| row.causes.iter().copied()).collect();
    let causes = answer.causes.iter();
    causes.filter(move |cause| !known.contains(&cause.cause.name()))
}

fn ms(ns: u64) -> String {
    format!("{}.{:03} ms", ns / 1_000_000, ns / 1_000 % 1_000)
}

#[cfg(test)]
mod tests;
