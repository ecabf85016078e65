// SPDX-License-Identifier: Apache-2.0
//! The text of `lacuna events`: counters under a line that says whose they are.

use super::paint::Style;
use super::plain::plain;
use super::plain::right;
use super::plain::width;
use super::quantity::Column;
use super::quantity::count;
use super::quantity::grouped;
use super::run::command_line;
use crate::answer::Counter;
use crate::answer::EventsReport;
use crate::answer::Scope;
use crate::answer::Subject;

/// The whole report.
pub(crate) fn events(report: &EventsReport, style: Style) -> String {
    let wall = Column::fitting(report.wall_ns).show(report.wall_ns);
    let mut text = match &report.subject {
        Subject::Command {
            command,
            exit_status,
        } => format!(
            "{}   {wall}   exit status {exit_status}\n",
            style.strong(&command_line(command))
        ),
        Subject::Process {
            pid,
            comm,
            asked_ns,
            ended,
            ..
        } => {
            let name = style.strong(&format!("process {pid} {}", plain(comm)));
            let asked = Column::fitting(*asked_ns).show(*asked_ns);
            match ended {
                true => format!("{name}   {wall} of {asked}, then it ended\n"),
                false => format!("{name}   {wall}\n"),
            }
        }
    };
    let numbers = report.counts.values().map(|number| grouped(*number));
    let columns = numbers.map(|number| width(&number)).max().unwrap_or(0);
    for scope in SCOPES {
        let of_scope = |counter: &&Counter| report.scopes.get(counter) == Some(&scope);
        let counters: Vec<&Counter> = report.counts.keys().filter(of_scope).collect();
        if counters.is_empty() {
            continue;
        }
        text.push_str(&format!("  {}\n", style.faint(&whose(scope, report))));
        for counter in counters {
            let number = report.counts.get(counter).copied().unwrap_or(0);
            let number = right(&grouped(number), columns);
            text.push_str(&format!("    {number}  {}\n", name(*counter)));
        }
    }
    for (why, names) in missing(report) {
        text.push_str(&format!("  no {}: {}\n", names.join(", "), plain(why)));
    }
    text
}

/// What is missing, together where the reason is the same, in the order of the counters.
fn missing(report: &EventsReport) -> Vec<(&str, Vec<&'static str>)> {
    let mut reasons: Vec<(&str, Vec<&'static str>)> = Vec::new();
    for (counter, why) in &report.missing {
        match reasons.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, names)) => names.push(name(*counter)),
            None => reasons.push((why, vec![name(*counter)])),
        }
    }
    reasons
}

/// In the order that they are shown in.
const SCOPES: [Scope; 6] = [
    Scope::Tree,
    Scope::Threads,
    Scope::Process,
    Scope::ProcessAndChildren,
    Scope::FirstThread,
    Scope::NetworkNamespace,
];

fn whose(scope: Scope, report: &EventsReport) -> String {
    let words = match scope {
        Scope::Tree => "of all its threads, and of every descendant that its parent waited for",
        Scope::FirstThread => "of its first thread alone",
        Scope::Threads => return of_threads(report),
        Scope::Process => "of all its threads, also of those that have ended",
        Scope::ProcessAndChildren => {
            "of all its threads, and all of every child that it waited for"
        }
        Scope::NetworkNamespace => {
            let inode = report.net_namespace;
            let inode = inode.map_or(String::new(), |inode| format!(" net:[{inode}]"));
            return format!("of everybody in its network namespace{inode}");
        }
    };
    words.to_owned()
}

fn of_threads(report: &EventsReport) -> String {
    match report.subject {
        Subject::Process {
            threads_ended: ended @ 1..,
            ..
        } => format!(
            "of its threads, each second; of {} not what came after the last look",
            count(ended, "thread that ended", "threads that ended")
        ),
        _ => "of its threads".to_owned(),
    }
}

fn name(counter: Counter) -> &'static str {
    match counter {
        Counter::VoluntarySwitches => "voluntary context switches",
        Counter::InvoluntarySwitches => "involuntary context switches",
        Counter::MinorFaults => "minor page faults",
        Counter::MajorFaults => "major page faults",
        Counter::ReadSyscalls => "read calls",
        Counter::WriteSyscalls => "write calls",
        Counter::BytesReadFromStorage => "bytes read from storage",
        Counter::BytesWrittenToStorage => "bytes written to storage",
        Counter::Migrations => "migrations to another CPU",
        Counter::NetnsTcpSegmentsIn => "TCP segments in",
        Counter::NetnsTcpSegmentsOut => "TCP segments out",
        Counter::NetnsTcpRetransmits => "TCP retransmits",
    }
}
