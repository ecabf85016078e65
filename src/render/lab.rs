// SPDX-License-Identifier: Apache-2.0
//! The text of `lacuna lab`: the list, and a table of truth and answer.

use super::paint::Style;
use super::plain::left;
use super::plain::plain;
use super::plain::right;
use super::plain::width;
use super::quantity::grouped;
use crate::answer::LabReport;
use crate::answer::LabRow;
use crate::answer::ScenarioStatus;

/// Titles of the columns.
const TITLES: [&str; 6] = [
    "cause",
    "truth",
    "answer",
    "difference",
    "culprit",
    "truth from",
];
/// Which of them are numbers.
const NUMBERS: std::ops::Range<usize> = 1..4;

/// Names and stories, a line each.
pub(crate) fn scenarios<'a>(all: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> String {
    let names = all.clone().map(|one| width(one.0)).max().unwrap_or(0);
    all.map(|(name, story)| format!("{}  {story}\n", left(name, names)))
        .collect()
}

/// Each scenario with its rows, and at the end how many went how.
pub(crate) fn lab(report: &LabReport, style: Style) -> String {
    let rows = report.scenarios.iter().flat_map(|one| &one.rows).map(cells);
    let widths = rows.fold(TITLES.map(width), |mut widths, cells| {
        for (column, cell) in widths.iter_mut().zip(&cells) {
            *column = width(cell).max(*column);
        }
        widths
    });
    let mut text = String::new();
    for scenario in &report.scenarios {
        let status = match scenario.status {
            ScenarioStatus::Passed => "passed",
            ScenarioStatus::Failed => "FAILED",
            ScenarioStatus::NotRun => "not run",
        };
        text.push_str(&style.strong(&format!("{}  {status}", plain(&scenario.name))));
        text.push('\n');
        if !scenario.rows.is_empty() {
            let titles = line(&TITLES.map(str::to_owned), &widths, true);
            text.push_str(&style.faint(&titles));
            text.push('\n');
        }
        for row in &scenario.rows {
            text.push_str(&line(&cells(row), &widths, row.right));
            text.push('\n');
        }
        for why in scenario.why.split("; ").filter(|why| !why.is_empty()) {
            text.push_str(&format!("  {}\n", plain(why)));
        }
    }
    let count = |status| {
        report
            .scenarios
            .iter()
            .filter(|one| one.status == status)
            .count()
    };
    text.push_str(&format!(
        "{} passed, {} failed, {} not run\n",
        count(ScenarioStatus::Passed),
        count(ScenarioStatus::Failed),
        count(ScenarioStatus::NotRun)
    ));
    text
}

fn cells(row: &LabRow) -> [String; 6] {
    let sign = match row.answer_ns < row.truth_ns {
        true => "-",
        false => "+",
    };
    let difference = ms(row.answer_ns.abs_diff(row.truth_ns));
    [
        plain(&row.cause),
        ms(row.truth_ns),
        ms(row.answer_ns),
        format!("{sign}{difference}"),
        plain(&row.culprit),
        plain(&row.truth_from),
    ]
}

fn line(cells: &[String; 6], widths: &[usize; 6], right_one: bool) -> String {
    let mark = match right_one {
        true => "  ",
        false => "! ",
    };
    let columns = cells.iter().zip(widths).enumerate();
    let columns = columns.map(|(at, (cell, &width))| match NUMBERS.contains(&at) {
        true => right(cell, width),
        false => left(cell, width),
    });
    let columns: Vec<String> = columns.collect();
    format!("{mark}{}", columns.join("  "))
        .trim_end()
        .to_owned()
}

/// Milliseconds to the microsecond, in every row alike so that they compare.
fn ms(ns: u64) -> String {
    format!("{}.{:03} ms", grouped(ns / 1_000_000), ns / 1_000 % 1_000)
}
