// SPDX-License-Identifier: Apache-2.0
//! The text of `lacuna run`: where the time of each thread went, and of all of them together.

use std::cmp::Reverse;

use super::blame::Owner;
use super::causes;
use super::paint::Style;
use super::plain::plain;
use super::quantity::count;
use super::quantity::grouped;
use super::spans::lost_records;
use crate::answer::RunReport;
use crate::answer::ThreadReport;

/// Threads that have a block of their own, the longest ones.
const THREADS_SHOWN: usize = 16;
/// Columns that the causes of a thread are indented by.
const INDENT: usize = 4;

/// The whole report.
pub(crate) fn run(report: &RunReport, style: Style) -> String {
    let mut text = format!(
        "{}   {}   exit status {}\n",
        style.strong(&command_line(&report.command)),
        style.column(report.wall_ns).show(report.wall_ns),
        report.exit_status
    );
    let shown = longest(&report.threads, style);
    for thread in &shown {
        text.push_str(&block(thread, style));
    }
    let left_out = report.threads.len() - shown.len();
    if left_out > 0 {
        let more = count(left_out as u64, "more thread", "more threads");
        text.push_str(&format!("  and {more}, in the total below\n"));
    }
    if report.threads.len() > 1 {
        text.push_str(&format!(
            "  {}   {} of {}\n",
            style.strong("in total"),
            style
                .column(report.total.wall_ns)
                .show(report.total.wall_ns),
            count(report.threads.len() as u64, "thread", "threads"),
        ));
        text.push_str(&causes::lines(&report.total.causes, None, INDENT, style));
    }
    text.push_str(&lost_records(report.lost_records));
    text
}

/// The longest threads, in the order of the report.
fn longest(threads: &[ThreadReport], style: Style) -> Vec<&ThreadReport> {
    let mut order: Vec<(usize, &ThreadReport)> = threads.iter().enumerate().collect();
    if !style.verbose {
        order.sort_by_key(|(_, thread)| Reverse(thread.wall_ns));
        order.truncate(THREADS_SHOWN);
        order.sort_by_key(|(place, _)| *place);
    }
    order.into_iter().map(|(_, thread)| thread).collect()
}

/// "thread 1301 worker (pid 1300)   1 003 ms   3 voluntary and 1 involuntary switches, ..."
fn block(thread: &ThreadReport, style: Style) -> String {
    let process = match thread.pid == thread.tid {
        true => String::new(),
        false => format!(" (pid {})", thread.pid),
    };
    let name = format!("thread {} {}{process}", thread.tid, plain(&thread.comm));
    let mut line = format!(
        "  {}   {}   {}\n",
        style.strong(&name),
        style.column(thread.wall_ns).show(thread.wall_ns),
        style.faint(&counters(thread)),
    );
    let owner = Owner {
        pid: thread.pid,
        comm: &thread.comm,
    };
    line.push_str(&causes::lines(&thread.causes, Some(owner), INDENT, style));
    line
}

fn counters(thread: &ThreadReport) -> String {
    let switches = thread.switches;
    format!(
        "switches {} voluntary, {} involuntary; faults {} minor, {} major; {}",
        grouped(switches.voluntary),
        grouped(switches.involuntary),
        grouped(thread.faults.minor),
        grouped(thread.faults.major),
        count(thread.migrations, "migration", "migrations"),
    )
}

/// The command as it could be typed.
pub(super) fn command_line(command: &[String]) -> String {
    let words = command.iter().map(|word| {
        let bare = |c: char| c.is_alphanumeric() || "-_./:=,+@%^".contains(c);
        match !word.is_empty() && word.chars().all(bare) {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', "'\\''")),
        }
    });
    plain(&words.collect::<Vec<_>>().join(" "))
}
