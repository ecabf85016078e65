// SPDX-License-Identifier: Apache-2.0
//! Rust test binaries: which tests one has, and what its output says of each.
//!
//! A test counts as passed only by a line that names it and says `ok`; what is not said has not run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::tool;

/// The tests of a binary whose names begin so, their modules left away: either those that are marked
/// `#[ignore]`, or those that are not.
pub(crate) fn list(binary: &Path, prefix: &str, ignored: bool) -> Result<Vec<String>> {
    let ask = |more: &[&str]| -> Result<Vec<String>> {
        let mut command = Command::new(binary);
        command.args(["--list", "--format", "terse"]).args(more);
        Ok(names(&tool::text(&mut command)?, prefix))
    };
    let marked = ask(&["--ignored"])?;
    if ignored {
        return Ok(marked);
    }
    let mut all = ask(&[])?;
    all.retain(|name| !marked.contains(name));
    Ok(all)
}

fn names(listed: &str, prefix: &str) -> Vec<String> {
    let names = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    names
        .filter(|name| {
            let last = name.rsplit("::").next().unwrap_or(name);
            last.starts_with(prefix)
        })
        .map(str::to_owned)
        .collect()
}

/// What became of each test that the output names: `true` if it passed.
pub(crate) fn results(output: &str) -> BTreeMap<String, bool> {
    let mut results = BTreeMap::new();
    // What a test's children print comes between its name and its result.
    let mut running: Option<String> = None;
    for line in output.lines() {
        if let Some((name, rest)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
            .or_else(|| Some((line.strip_prefix("test ")?.strip_suffix(" ...")?, "")))
        {
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            running = Some(name.to_owned());
            if let Some(passed) = result(rest) {
                results.insert(name.to_owned(), passed);
                running = None;
            }
        } else if let Some(passed) = result(line)
            && let Some(name) = running.take()
        {
            results.insert(name, passed);
        }
    }
    results
}

/// How a line ends that tells a result; `ignored` is none.
fn result(text: &str) -> Option<bool> {
    match text.trim_end() {
        "ok" => Some(true),
        text if text.ends_with("FAILED") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::names;
    use super::results;

    #[test]
    fn tests_are_chosen_by_their_own_names() {
        let listed =
            "root_a: test\nmod::root_b: test\nroot_mod::c: test\nd: test\nroot_e: benchmark\n";
        assert_eq!(names(listed, "root_"), ["root_a", "mod::root_b"]);
    }

    #[test]
    fn only_what_is_said_to_be_ok_has_passed() {
        let output = "
running 7 tests
test a ... ok
test mod::b ... FAILED
test c ... a child says this
ok
test d ... ignored, only in a guest
test e - should panic ... ok
test f ... and this
ok is what it says
test g ... ";
        let results = results(output);
        let passed = |name: &str| results.get(name).copied();
        assert_eq!(passed("a"), Some(true));
        assert_eq!(passed("mod::b"), Some(false));
        assert_eq!(passed("c"), Some(true));
        assert_eq!(passed("d"), None, "an ignored test has not run");
        assert_eq!(passed("e"), Some(true));
        assert_eq!(passed("f"), None, "it was cut off");
        assert_eq!(passed("g"), None);
    }
}
