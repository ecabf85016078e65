// SPDX-License-Identifier: Apache-2.0
//! `docs/kernels.md`: the support table, cause by kernel, from the list and what runs have shown.
//!
//! Nothing in it is written by hand: a sentence that is wrong there is wrong in `vm/kernels.toml` or
//! here. The same list and records give the same text.

use std::fmt::Write as _;

use lacuna_timeline::Cause;

use crate::list::Kernel;
use crate::list::List;
use crate::record::Records;

const HEAD: &str = "\
# Kernels

Written by `make matrix` from `vm/kernels.toml` and from what its last run has shown; not by hand. A run that shows less fails.

- **proved**: a test inside that kernel holds the cause against the kernel's own counters, or against the program that made the wait.
- **yes**: every hook that it comes from loads and attaches there, and no test that is about this cause by itself has passed in that kernel.
- **no**: cannot be told there; below is why. Such time is another cause or `unknown`, never a guess.
- **?**: the matrix has not been through that kernel yet.

";

/// The text of the document.
pub(crate) fn text(list: &List, records: &Records) -> String {
    let mut text = HEAD.to_owned();
    table(&mut text, list, records);
    for kernel in &list.kernels {
        about(&mut text, kernel);
    }
    text
}

fn table(text: &mut String, list: &List, records: &Records) {
    let _ = write!(text, "| cause |");
    for kernel in &list.kernels {
        let _ = write!(text, " {} |", kernel.name);
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(list.kernels.len()));
    for cause in Cause::all() {
        if cause == Cause::Unknown {
            continue;
        }
        let _ = write!(text, "| `{}` |", cause.name());
        for kernel in &list.kernels {
            let _ = write!(text, " {} |", cell(cause, kernel, records));
        }
        text.push('\n');
    }
}

fn cell(cause: Cause, kernel: &Kernel, records: &Records) -> &'static str {
    let name = cause.name();
    match records.get(&kernel.name) {
        None => "?",
        Some(record) if record.cannot.contains(name) => "no",
        Some(record) if record.proved.contains(name) => "proved",
        Some(_) => "yes",
    }
}

fn about(text: &mut String, kernel: &Kernel) {
    let _ = writeln!(
        text,
        "\n## {}\n\nDebian's `{}`.",
        kernel.name, kernel.release
    );
    if kernel.cannot.is_empty() && kernel.except.is_empty() {
        let _ = writeln!(text, "It has everything that Lacuna uses.");
    }
    if !kernel.cannot.is_empty() {
        let _ = writeln!(
            text,
            "\n| it cannot | it came with | upstream commit | causes lost | what is done instead |\n\
             |---|---|---|---|---|"
        );
    }
    for cannot in &kernel.cannot {
        let costs: Vec<String> = cannot.costs.iter().map(|c| format!("`{c}`")).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            cannot.what,
            cannot.since,
            cannot.commit.as_deref().unwrap_or("-"),
            if costs.is_empty() {
                "none".to_owned()
            } else {
                costs.join(", ")
            },
            cannot.instead
        );
    }
    if !kernel.except.is_empty() {
        let _ = writeln!(text, "\nNot held there:\n");
    }
    for except in &kernel.except {
        let test = except
            .test
            .as_ref()
            .map_or(String::new(), |test| format!("/{test}"));
        let _ = writeln!(text, "- `{}{test}`: {}", except.stage, except.why);
    }
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::list::List;
    use crate::record::Record;
    use crate::record::Records;

    const LIST: &str = include_str!("../kernels.toml");
    const OLD: &str = r#"
[[kernel]]
name = "4.4"
archives = ["http://example.org/debian old main"]
release = "4.4.0-1-cloud-amd64"
series = "4.4."
packages = [{ prefix = "linux-image-", version = "4.4.1", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }]
cannot = [{ what = "quota clock", since = "4.5", commit = "abc", doctor = "clock", costs = ["throttle"], instead = "nothing" }]
except = [{ stage = "doctor", why = "too old to be asked" }]

"#;

    fn line<'a>(text: &'a str, start: &str) -> &'a str {
        text.lines().find(|line| line.starts_with(start)).unwrap()
    }

    #[test]
    fn each_cause_of_each_kernel_is_what_was_shown() {
        let first = LIST.find("[[kernel]]").unwrap();
        let list = List::parse(&format!("{}{OLD}{}", &LIST[..first], &LIST[first..])).unwrap();
        let mut records = Records::new();
        let old = Record {
            cannot: ["throttle".to_owned()].into(),
            proved: ["cpu".to_owned()].into(),
            ..Record::default()
        };
        records.insert("4.4".to_owned(), old);
        let text = text(&list, &records);
        assert!(line(&text, "| cause |").starts_with("| cause | 4.4 | "));
        assert!(line(&text, "| `throttle` |").starts_with("| `throttle` | no | ? |"));
        assert!(line(&text, "| `cpu` |").starts_with("| `cpu` | proved | ? |"));
        assert!(line(&text, "| `wait.child` |").starts_with("| `wait.child` | yes | ? |"));
        assert_eq!(
            line(&text, "| quota clock"),
            "| quota clock | 4.5 | abc | `throttle` | nothing |"
        );
        assert!(text.contains("- `doctor`: too old to be asked"));
        assert!(
            !text.contains("| `unknown` |"),
            "a row of its own says nothing"
        );
    }

    #[test]
    fn a_difference_in_what_was_shown_is_a_difference_in_the_text() {
        let list = List::parse(LIST).unwrap();
        let none = Records::new();
        let some = [(list.kernels[0].name.clone(), Record::default())].into();
        assert_ne!(text(&list, &none), text(&list, &some));
        assert_eq!(text(&list, &some), text(&list, &some));
    }
}
