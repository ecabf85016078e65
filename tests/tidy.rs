// SPDX-License-Identifier: Apache-2.0
//! The rules of the house that no linter knows, checked over the files of the repository.
//!
//! Each test lists every place that breaks its rule, with what to do about it. Reading text is
//! enough for all of them; nothing here parses a language. `CONTRIBUTING.md` gives the reasons.

use lacuna_timeline::Cause;
use std::fs;
use std::path::Path;

/// Code lines of a file, without blank lines and comments.
const FILE_LINES_MAX: usize = 500;
/// Longer files that may stay, each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];
/// Folders that are not the project's text.
const SKIPPED: [&str; 4] = [".git", ".cache", "target", "node_modules"];
/// Where `unsafe` is allowed: the loader, and one file of system calls.
const UNSAFE_ALLOWED: [&str; 2] = ["crates/probes/", "crates/host/src/sys.rs"];

/// A file of the repository.
struct Text {
    /// From the root of the repository, with `/`.
    path: String,
    content: String,
}

impl Text {
    fn has_extension(&self, extensions: &[&str]) -> bool {
        extensions
            .iter()
            .any(|extension| self.path.ends_with(&format!(".{extension}")))
    }

    /// Rust, C, Python, shell, make.
    fn is_source(&self) -> bool {
        self.has_extension(&["rs", "c", "h", "py", "sh"])
            || self.path == "Makefile"
            || self.content.starts_with("#!")
    }

    /// Lines with their numbers, from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.content
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the project; what is not UTF-8 is no text.
fn texts() -> Vec<Text> {
    let mut folders = vec![repository().to_owned()];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            // In a work tree of its own, `.git` is a file.
            if SKIPPED.contains(&name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file()
                && let Ok(content) = fs::read_to_string(&path)
            {
                let path = path.strip_prefix(repository()).expect("within it");
                texts.push(Text {
                    path: path.to_string_lossy().into_owned(),
                    content,
                });
            }
        }
    }
    assert!(
        texts.len() > 20,
        "the repository was not found at {}",
        repository().display()
    );
    texts.sort_by(|a, b| a.path.cmp(&b.path));
    texts
}

/// Fails with every place that breaks a rule.
fn assert_none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Places (`path:line: text`) of the given files where the line breaks a rule.
fn places<'a>(
    texts: impl Iterator<Item = &'a Text>,
    breaks: impl Fn(&Text, &str) -> bool,
) -> Vec<String> {
    let mut places = Vec::new();
    for text in texts {
        let lines = text.lines().filter(|(_, line)| breaks(text, line));
        places.extend(lines.map(|(number, line)| {
            let line = line.trim();
            format!("{}:{number}: {line}", text.path)
        }));
    }
    places
}

#[test]
fn every_source_file_names_its_licence() {
    let texts = texts();
    let broken = texts.iter().filter(|text| text.is_source()).filter(|text| {
        let line = usize::from(text.content.starts_with("#!"));
        let first = text.content.lines().nth(line).unwrap_or_default();
        !first.contains("SPDX-License-Identifier: ") || !first.contains("Apache-2.0")
    });
    assert_none(
        "the first line of a source file (after #!) is its SPDX line",
        broken.map(|text| text.path.clone()).collect(),
    );
}

#[test]
fn files_are_short() {
    let texts = texts();
    let long = texts
        .iter()
        .filter(|text| text.is_source())
        .filter_map(|text| {
            let lines = text.lines().filter(|(_, line)| is_code(line)).count();
            let allowed = LONG_FILES.iter().any(|(path, _)| *path == text.path);
            (lines > FILE_LINES_MAX && !allowed).then(|| format!("{}: {lines} lines", text.path))
        });
    assert_none(
        &format!("a file has at most {FILE_LINES_MAX} lines of code; split it by topic"),
        long.collect(),
    );
    for (path, reason) in LONG_FILES {
        assert!(
            repository().join(path).exists(),
            "{path} ({reason}) is gone; so be its exception"
        );
    }
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    let comments = ["//", "/*", "* ", "*/", "# "];
    !line.is_empty() && line != "*" && !comments.iter().any(|start| line.starts_with(start))
}

#[test]
fn rust_imports_one_thing_a_line() {
    let texts = texts();
    let rust = texts.iter().filter(|text| text.has_extension(&["rs"]));
    let broken = places(rust, |_, line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let import = words.first() == Some(&"use")
            || words.first().is_some_and(|word| word.starts_with("pub"))
                && words.get(1) == Some(&"use");
        import && (line.contains('{') || line.contains("::*"))
    });
    assert_none(
        "an import is one line and names one thing, so that changes merge",
        broken,
    );
}

#[test]
fn open_ends_have_a_number() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let texts = texts();
    let broken = places(texts.iter().filter(|text| text.is_source()), |_, line| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '(' && c != '#');
        words.any(|word| {
            let marked = marks.iter().find(|mark| word.starts_with(**mark));
            marked.is_some_and(|mark| {
                let rest = &word[mark.len()..];
                rest.is_empty() || (rest.starts_with('(') && !rest.starts_with("(#"))
            })
        })
    });
    assert_none(
        "an open end names the issue that will close it, as in `(#12)`",
        broken,
    );
}

#[test]
fn documents_link_to_what_exists() {
    let texts = texts();
    let mut broken = Vec::new();
    for text in texts.iter().filter(|text| text.has_extension(&["md"])) {
        let folder = repository().join(&text.path).parent().unwrap().to_owned();
        for (number, line) in text.lines() {
            let dead = links(line)
                .into_iter()
                .filter(|target| !folder.join(target).exists());
            broken.extend(dead.map(|target| format!("{}:{number}: {target}", text.path)));
        }
    }
    assert_none("a relative link in a document leads somewhere", broken);
}

/// The relative targets of the Markdown links in a line, without their fragments.
fn links(line: &str) -> Vec<&str> {
    let targets = line
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let paths = targets.map(|target| target.split('#').next().unwrap_or_default());
    paths
        .filter(|path| !path.is_empty() && !path.contains(':'))
        .collect()
}

#[test]
fn nothing_speaks_of_one_machine() {
    let private = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
    ];
    let texts = texts();
    // Lock files name the public registry, nothing else.
    let broken = places(texts.iter(), |_, line| {
        private.iter().any(|path| line.contains(path))
    });
    assert_none(
        "a path of somebody's machine means nothing elsewhere",
        broken,
    );
}

#[test]
fn unsafe_stays_where_it_is_allowed() {
    let forms = [
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "unsafe extern",
        "#[unsafe(",
    ];
    let texts = texts();
    let rust = texts.iter().filter(|text| {
        let allowed = UNSAFE_ALLOWED
            .iter()
            .any(|prefix| text.path.starts_with(prefix));
        text.has_extension(&["rs"]) && !allowed && text.path != "tests/tidy.rs"
    });
    let broken = places(rust, |_, line| forms.iter().any(|form| line.contains(form)));
    assert_none(
        "`unsafe` is for crates/probes and crates/host/src/sys.rs alone",
        broken,
    );
}

#[test]
fn crates_know_only_what_they_may() {
    let manifest = |path: &str| -> toml::Table {
        fs::read_to_string(repository().join(path))
            .unwrap()
            .parse()
            .unwrap()
    };
    let dependencies = |path: &str| -> Vec<String> {
        let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
        let manifest = manifest(path);
        let tables = sections
            .iter()
            .filter_map(|section| manifest.get(*section)?.as_table());
        tables.flat_map(|table| table.keys().cloned()).collect()
    };
    let ours = |path: &str| -> Vec<String> {
        dependencies(path)
            .into_iter()
            .filter(|name| name.starts_with("lacuna"))
            .collect()
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(
        ours("crates/timeline/Cargo.toml"),
        none,
        "timeline is pure: it knows none of ours"
    );
    assert_eq!(
        ours("crates/host/Cargo.toml"),
        none,
        "host knows none of ours"
    );
    assert_eq!(
        ours("crates/probes/Cargo.toml"),
        ["lacuna-timeline"],
        "probes turns bytes into the vocabulary of timeline, and knows no more"
    );
    assert_eq!(
        ours("crates/lab/Cargo.toml"),
        ["lacuna-host"],
        "the lab's truth comes neither from the probes nor from what they mean"
    );
    for path in [
        "Cargo.toml",
        "crates/lab/Cargo.toml",
        "crates/timeline/Cargo.toml",
        "crates/host/Cargo.toml",
    ] {
        let names = dependencies(path);
        let libbpf: Vec<_> = names
            .iter()
            .filter(|name| name.starts_with("libbpf"))
            .collect();
        assert!(
            libbpf.is_empty(),
            "{path}: only probes knows libbpf, not {libbpf:?}"
        );
    }
}

#[test]
fn every_kernel_map_has_a_named_limit() {
    let texts = texts();
    let kernel_side = texts
        .iter()
        .filter(|text| text.path.starts_with("crates/probes/src/bpf/"));
    let mut maps = 0;
    let mut broken = Vec::new();
    for text in kernel_side {
        for (number, line) in text
            .lines()
            .filter(|(_, line)| line.contains("SEC(\".maps\")"))
        {
            maps += 1;
            let before: Vec<&str> = text.content.lines().take(number).collect();
            let start = before
                .iter()
                .rposition(|line| line.starts_with("struct {"))
                .unwrap_or(0);
            let definition = before[start..].join("\n");
            // The kernel bounds task storage by the tasks themselves, per-CPU state by the CPUs.
            let bounded = definition.contains("BPF_MAP_TYPE_TASK_STORAGE")
                || limit(&definition).is_some_and(|name| name == "1" || is_name(name));
            if !bounded {
                broken.push(format!("{}:{number}: {line}", text.path));
            }
        }
    }
    assert!(maps > 0, "no kernel map was found");
    assert_none(
        "the size of a kernel map is a constant with a name and a reason",
        broken,
    );
}

/// What a map definition says of its `max_entries`.
fn limit(definition: &str) -> Option<&str> {
    definition
        .split("max_entries,")
        .nth(1)?
        .split(')')
        .next()
        .map(str::trim)
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// The functions of a test file: name and body, with the bodies of those that are called by name.
fn functions(content: &str) -> Vec<(&str, String)> {
    let heads = content.split("\nfn ").skip(1);
    let own: Vec<(&str, &str)> = heads
        .filter_map(|rest| {
            let body = rest.split("\n}\n").next()?;
            Some((rest.split(['(', '<']).next()?, body))
        })
        .collect();
    let whole = |body: &str| {
        let called = |name: &str| body.contains(&format!("{name}("));
        let bodies = own.iter().filter(|(name, _)| called(name));
        let mut whole = body.to_owned();
        bodies.for_each(|(_, body)| whole.push_str(body));
        whole
    };
    own.iter()
        .map(|&(name, body)| (name, whole(body)))
        .collect()
}

fn mentions(body: &str, cause: Cause) -> bool {
    let mut after = body.split("Cause::").skip(1);
    let word = |rest: &str| {
        rest.split(|c: char| !c.is_alphanumeric()).next() == Some(&format!("{cause:?}"))
    };
    after.any(word)
}

/// What is shown of a cause in a kernel is in docs/kernels.md only if the list names the test.
#[test]
fn tests_that_assert_a_cause_are_named_as_its_proof() {
    let list: toml::Table = fs::read_to_string(repository().join("vm/kernels.toml"))
        .expect("the list of kernels")
        .parse()
        .expect("TOML");
    let proof = list["proof"].as_table().expect("a table");
    let named = |cause: &str, test: &str| {
        let tests = proof.get(cause).and_then(toml::Value::as_array);
        tests.is_some_and(|tests| tests.iter().any(|named| named.as_str() == Some(test)))
    };
    let stages = list["stage"].as_array().expect("a list").iter();
    let stages: Vec<&str> = stages.filter_map(|stage| stage["name"].as_str()).collect();
    let mut asserted = Vec::new();
    for text in texts() {
        let file = text.path.strip_prefix("crates/probes/tests/");
        let Some(stage) = file.and_then(|file| file.strip_suffix(".rs")) else {
            continue;
        };
        if !stages.contains(&stage) {
            continue;
        }
        let tests = functions(&text.content);
        let tests = tests.iter().filter(|(name, _)| name.starts_with("root_"));
        for (name, body) in tests {
            let causes = Cause::all().filter(|cause| mentions(body, *cause));
            asserted.extend(causes.map(|cause| (cause.name(), format!("{stage}/{name}"))));
        }
    }
    assert!(!asserted.is_empty(), "no test asserts a cause");
    let missing = asserted.iter().filter(|(cause, test)| !named(cause, test));
    let missing = missing.map(|(cause, test)| format!("{test} proves {cause}"));
    assert_none("name it in [proof] of vm/kernels.toml", missing.collect());
    // Of the network a test may tell what a connection was like, and no cause.
    let of_the_network = proof.iter().filter(|(cause, _)| cause.starts_with("net."));
    let claimed = of_the_network.flat_map(|(cause, tests)| {
        let tests = tests.as_array().into_iter().flatten();
        tests.filter_map(move |test| Some((cause.as_str(), test.as_str()?.to_owned())))
    });
    let claimed = claimed.filter(|claim| !asserted.contains(claim));
    let claimed = claimed.map(|(cause, test)| format!("{test} does not assert {cause}"));
    assert_none(
        "only a test that asserts it proves a cause",
        claimed.collect(),
    );
}
