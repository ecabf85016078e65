// SPDX-License-Identifier: Apache-2.0
//! The report for people: aligned, coloured on a terminal, plain in a pipe.
//!
//! It shows what the JSON has and nothing else, with one exception: hooks of which the same is to be
//! said share a row, because a host without privilege refuses every one of them.

use super::Check;
use super::Report;
use super::Status;
use super::every_cause;
use crate::render::Style;

/// Width of the text.
const COLUMNS: usize = 100;

/// Columns of a status, with the blank behind it.
const STATUS_WIDTH: usize = 9;

/// Columns of a name, with the blanks behind it.
const NAME_WIDTH: usize = 27;

/// Where the text of a row starts.
const INDENT: usize = 2 + STATUS_WIDTH + NAME_WIDTH;

/// One word, padded before the colours are put around it: they have no width.
fn word(status: Status, style: Style) -> String {
    let (word, colour) = match status {
        Status::Ok => ("ok", "32"),
        Status::Degraded => ("degraded", "33"),
        Status::Missing => ("missing", "31"),
    };
    if style.colour {
        format!("\x1b[{colour}m{word:<STATUS_WIDTH$}\x1b[0m")
    } else {
        format!("{word:<STATUS_WIDTH$}")
    }
}

/// The whole report.
pub(super) fn render(report: &Report, style: Style) -> String {
    let kernel = if report.kernel.is_empty() {
        "unknown"
    } else {
        &report.kernel
    };
    let mut text = format!("kernel {kernel}\n\n");
    let mut hooks: Vec<&Check> = report
        .checks
        .iter()
        .filter(|check| is_hook(check))
        .collect();
    for check in &report.checks {
        if !is_hook(check) {
            row(&mut text, style, check, &check.name);
            continue;
        }
        // The first hook that has not had its row yet takes those along that say the same.
        let (same, others): (Vec<&Check>, Vec<&Check>) = hooks
            .into_iter()
            .partition(|hook| says_the_same(hook, check));
        hooks = others;
        match same.as_slice() {
            [] => {}
            [one] => row(&mut text, style, one, &one.name),
            several => {
                // What each refusal says beyond its first line is its own.
                let shared = Check {
                    why: first_line(&check.why).to_owned(),
                    ..check.clone()
                };
                row(
                    &mut text,
                    style,
                    &shared,
                    &format!("{} hooks", several.len()),
                );
            }
        }
    }
    text.push_str(summary(report));
    text
}

fn is_hook(check: &Check) -> bool {
    check.name.starts_with("hook ")
}

fn says_the_same(one: &Check, other: &Check) -> bool {
    (one.status, first_line(&one.why), &one.costs)
        == (other.status, first_line(&other.why), &other.costs)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn row(text: &mut String, style: Style, check: &Check, name: &str) {
    text.push_str(&format!(
        "  {}{name:<NAME_WIDTH$}",
        word(check.status, style)
    ));
    if name.chars().count() >= NAME_WIDTH {
        // A long name has a line of its own.
        text.push_str(&format!("\n{:INDENT$}", ""));
    }
    text.push_str(&wrapped(&check.why));
    let costs = match check.costs.len() {
        0 => String::new(),
        count if count == every_cause().count() => "every cause".to_owned(),
        _ => check.costs.join(", "),
    };
    for (title, value) in [("costs", costs), ("fix", check.fix.clone())] {
        if !value.is_empty() {
            text.push_str(&format!(
                "{:INDENT$}{}",
                "",
                wrapped(&format!("{title}: {value}"))
            ));
        }
    }
}

/// Words on as many lines as they need; all but the first are indented, the last is ended.
fn wrapped(words: &str) -> String {
    let mut lines = String::new();
    let mut width = INDENT;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if width > INDENT && width + 1 + length > COLUMNS {
            lines.push_str(&format!("\n{:INDENT$}", ""));
            width = INDENT;
        }
        if width > INDENT {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += length;
    }
    lines.push('\n');
    lines
}

fn summary(report: &Report) -> &'static str {
    let any = |status| report.checks.iter().any(|check| check.status == status);
    match (any(Status::Missing), any(Status::Degraded)) {
        (false, false) => "\neverything works on this host\n",
        (false, true) => "\nevery cause can be told on this host\n",
        (true, _) => "\nsome causes cannot be told on this host\n",
    }
}
