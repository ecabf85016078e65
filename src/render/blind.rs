// SPDX-License-Identifier: Apache-2.0
//! The text of `lacuna blind`: of each run, what a span would record, what ran, and the gap.

use lacuna_timeline::Cause;

use super::causes;
use super::paint::Style;
use super::plain::plain_up_to;
use super::plain::right;
use super::quantity::Column;
use super::quantity::count;
use super::spans::lost_records;
use crate::answer::BlindReport;
use crate::answer::BlindRun;
use crate::answer::Figure;
use crate::answer::RunName;

/// Columns of a number with its unit, and of exact nanoseconds.
const NUMBER: usize = 12;
const NUMBER_EXACT: usize = 20;
/// The most of a reason that is shown: what to do stands at its end.
const WHY_CHARS_MAX: usize = 500;
/// Columns that the causes are indented by.
const INDENT: usize = 6;

/// The whole report.
pub(crate) fn blind(report: &BlindReport, style: Style) -> String {
    let mut text = format!(
        "{} of {} of CPU time\n",
        count(report.bursts.into(), "burst", "bursts"),
        Column::fitting(report.burst_ns).show(report.burst_ns)
    );
    for run in &report.runs {
        text.push_str(&one(run, report, style));
    }
    if let Some(why) = &report.causes_missing {
        text.push_str(&format!(
            "  no causes: {}\n",
            plain_up_to(why, WHY_CHARS_MAX)
        ));
    }
    text
}

fn one(run: &BlindRun, report: &BlindReport, style: Style) -> String {
    let (column, number) = match style.verbose {
        true => (Column::EXACT, NUMBER_EXACT),
        false => (Column::TENTHS_MS, NUMBER),
    };
    let name = title(run, report);
    let heads = ["p50", "p99"].map(|head| right(head, number));
    let mut text = format!("\n  {}\n", style.strong(&name));
    text.push_str(&format!("    {:8}{}\n", "", style.faint(&heads.concat())));
    let share = super::quantity::percent(run.gap_ns.p50, run.wall_ns.p50);
    for (what, figure, meaning) in [
        (
            "wall",
            run.wall_ns,
            "what a span around it records".to_owned(),
        ),
        ("on CPU", run.on_cpu_ns, "what ran of that".to_owned()),
        (
            "gap",
            run.gap_ns,
            format!("what the program cannot see: {share} of the wall time"),
        ),
    ] {
        let Figure { p50, p99 } = figure;
        let numbers = [p50, p99].map(|ns| right(&column.show(ns), number));
        text.push_str(&format!(
            "    {what:8}{}   {}\n",
            numbers.concat(),
            style.faint(&meaning)
        ));
    }
    if !run.causes.is_empty() {
        let all = style.column(run.total.gap_ns).show(run.total.gap_ns);
        text.push_str(&format!("    all gaps together {all}\n"));
        text.push_str(&causes::lines(&run.causes, None, INDENT, style));
        if run.causes.iter().any(|cause| cause.cause == Cause::Cpu) {
            let note =
                "(on CPU: interrupts, the hypervisor and switching, which are not the thread's)";
            text.push_str(&format!("      {}\n", style.faint(note)));
        }
    }
    text.push_str(&lost_records(run.lost_records));
    text
}

/// What a run is called.
pub(super) fn title(run: &BlindRun, report: &BlindReport) -> String {
    match run.name {
        RunName::Quiet => "alone".to_owned(),
        RunName::Contended => format!("beside {}", count(report.hogs.into(), "hog", "hogs")),
    }
}
