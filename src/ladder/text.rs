// SPDX-License-Identifier: Apache-2.0
//! The ladder for people: a step at a time, as it completes. Shows what the JSON has and nothing else.
//!
//! Names in it come from observed programs and are hostile: everything goes through `plain_up_to`.

use super::steps::ProcessReport;
use super::steps::Step;
use super::values::Value;
use super::values::Values;
use super::verdict::Sure;
use super::verdict::Verdict;
use crate::render::Style;
use crate::render::duration;
use crate::render::grouped;
use crate::render::plain_up_to;

/// Longest text in one place, characters: a kernel stack has some hundred.
const TEXT_CHARS_MAX: usize = 400;
/// Where the text of a step starts.
const INDENT: usize = 4;
/// Width of the lines of values.
const COLUMNS: usize = 100;

/// What is said at once, before anything is measured.
pub(super) fn header(pid: u32, comm: &str, threads: u64, uid: u32, window_ns: u64) -> String {
    format!(
        "{} (pid {pid}, user {uid}, {})   looking for {}\n",
        plain(comm),
        crate::render::count(threads, "thread", "threads"),
        duration(window_ns)
    )
}

/// Whose steps follow.
pub(super) fn title(pid: u32, comm: &str) -> String {
    format!("\n{} (pid {pid})\n", plain(comm))
}

/// One step: its verdict, what it means, what to do, and its numbers.
pub(super) fn step(step: &Step, style: Style) -> String {
    let cause = step.cause.map(|cause| match style.verbose {
        true => cause.name().to_owned(),
        false => format!("{} ({})", cause.phrase(), cause.name()),
    });
    let mut text = format!(
        "{:>2}  {:<18}{}",
        step.step,
        step.name,
        word(step.verdict, style)
    );
    if let Some(cause) = cause {
        text.push_str(&format!("  {cause}"));
    }
    text.push('\n');
    text.push_str(&wrapped(&step.why, INDENT));
    if !step.next.is_empty() {
        text.push_str(&wrapped(&format!("next: {}", step.next), INDENT));
    }
    let found = step.verdict > Verdict::Ok;
    let only_lists = step
        .values
        .iter()
        .all(|(_, value)| matches!(value, Value::List(_)));
    let with_lists = found || only_lists || style.verbose;
    text.push_str(&values(&step.values, INDENT, with_lists));
    text
}

/// The last line.
pub(super) fn conclusion(report: &ProcessReport) -> String {
    let most = match (report.conclusion.cause, report.conclusion.sure) {
        (Some(cause), sure) => {
            let sure = match sure {
                Sure::Certain => "certain",
                Sure::Likely => "likely",
                Sure::Unclear => "unclear, only a hint",
            };
            let (phrase, name) = (cause.phrase(), cause.name());
            format!("most likely cause: {phrase} ({name}), {sure}")
        }
        (None, Sure::Unclear) => {
            let void = report.steps.iter();
            let void = void.filter(|step| step.verdict == Verdict::NotAvailable);
            let void: Vec<&str> = void.map(|step| step.name).collect();
            format!(
                "nothing found; unclear, as there is nothing to read for {}",
                void.join(", ")
            )
        }
        (None, _) => "nothing found in what the kernel counts".to_owned(),
    };
    let then = match report.conclusion.cause {
        Some(_) => "what proves it",
        None => "what sees more",
    };
    format!("=>  {most}; {then}: {}\n", plain(&report.conclusion.next))
}

fn word(verdict: Verdict, style: Style) -> String {
    let (word, colour) = match verdict {
        Verdict::Ok => ("ok", "32"),
        Verdict::Suspect => ("suspect", "33"),
        Verdict::Cause => ("cause", "31"),
        Verdict::NotAvailable => ("not available", "90"),
    };
    match style.colour {
        true => format!("\u{1b}[{colour}m{word}\u{1b}[0m"),
        false => word.to_owned(),
    }
}

fn plain(text: &str) -> String {
    plain_up_to(text, TEXT_CHARS_MAX)
}

/// A number of CPUs, or another one that is neither a count nor an amount.
pub(super) fn decimal(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The numbers as `name value` pairs; lists an item a line.
fn values(values: &Values, indent: usize, with_lists: bool) -> String {
    let pairs = values.iter().filter_map(|(name, value)| pair(name, value));
    let pairs: Vec<String> = pairs.collect();
    let mut text = match pairs.is_empty() {
        true => String::new(),
        false => wrapped(&pairs.join(",\u{20}"), indent),
    };
    for (name, value) in values.iter() {
        if let Value::List(items) = value
            && with_lists
        {
            for item in items {
                let pairs = item.iter().filter_map(|(name, value)| pair(name, value));
                let line = pairs.collect::<Vec<_>>().join(", ");
                text.push_str(&wrapped(&format!("{}: {line}", words(name)), indent + 2));
            }
        }
    }
    text
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// `name value unit`; nothing for lists and for what is not so.
fn pair(name: &str, value: &Value) -> Option<String> {
    let amount = match value {
        Value::List(_) | Value::Is(false) => return None,
        Value::Is(true) => return Some(words(name)),
        Value::Text(text) => plain(text),
        Value::Ratio(ratio) if name.ends_with("_share") => format!("{} %", decimal(ratio * 100.0)),
        Value::Ratio(ratio) => decimal(*ratio),
        Value::Number(ns) if name.ends_with("_ns") => duration(*ns),
        Value::Number(bytes) if name.ends_with("_bytes") => format!("{} bytes", grouped(*bytes)),
        Value::Number(number) if name == "tid" => number.to_string(),
        Value::Number(number) => grouped(*number),
    };
    let units = ["_ns", "_bytes"];
    let bare = units.iter().find_map(|unit| name.strip_suffix(unit));
    Some(format!("{} {amount}", words(bare.unwrap_or(name))))
}

/// Words on as many lines as they need, each indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in plain(text).split(' ') {
        let length = word.chars().count();
        if width > 0 && indent + width + 1 + length > COLUMNS {
            lines.push('\n');
            width = 0;
        }
        match width {
            0 => lines.push_str(&" ".repeat(indent)),
            _ => lines.push(' '),
        }
        width += length + usize::from(width > 0);
        lines.push_str(word);
    }
    lines.push('\n');
    lines
}
