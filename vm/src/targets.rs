// SPDX-License-Identifier: Apache-2.0
//! Which programs cargo has built, by what it says of itself (`--message-format=json`).
//!
//! This program never builds: it may run as root, and what root builds the user cannot rebuild.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;

/// One line of cargo's messages; of other kinds of message only the kind is read.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// A program that was built.
#[derive(Debug, PartialEq, Eq)]
struct Built {
    /// Folder of its package.
    package: PathBuf,
    target: String,
    is_test: bool,
    file: PathBuf,
}

/// Everything that was built.
#[derive(Debug)]
pub(crate) struct Targets(Vec<Built>);

impl Targets {
    /// Reads what cargo said.
    pub(crate) fn read(messages: &Path) -> Result<Targets> {
        let text = fs::read_to_string(messages).with_context(|| {
            format!(
                "cannot read {}: `make matrix` builds and writes it",
                messages.display()
            )
        })?;
        Targets::parse(&text)
    }

    /// Reads the text of cargo's messages.
    pub(crate) fn parse(text: &str) -> Result<Targets> {
        let mut all = Vec::new();
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let message: Message = serde_json::from_str(line).context("what cargo said")?;
            let (Some(manifest), Some(target), Some(profile), Some(file)) = (
                message.manifest_path,
                message.target,
                message.profile,
                message.executable,
            ) else {
                continue;
            };
            if message.reason == "compiler-artifact" {
                all.push(Built {
                    package: manifest.parent().unwrap_or(&manifest).to_owned(),
                    target: target.name,
                    is_test: profile.test,
                    file,
                });
            }
        }
        Ok(Targets(all))
    }

    /// A test binary of the package in this folder.
    pub(crate) fn tests(&self, package: &Path, target: &str) -> Result<&Path> {
        self.find(package, target, true)
    }

    /// A program or an example of the package in this folder.
    pub(crate) fn program(&self, package: &Path, target: &str) -> Result<&Path> {
        self.find(package, target, false)
    }

    fn find(&self, package: &Path, target: &str, is_test: bool) -> Result<&Path> {
        let found = self.0.iter().find(|built| {
            built.package == package && built.target == target && built.is_test == is_test
        });
        let what = if is_test { "tests" } else { "program" };
        let found = found.with_context(|| {
            format!(
                "cargo has built no {what} {target} of {}",
                package.display()
            )
        })?;
        Ok(&found.file)
    }
}

#[cfg(test)]
mod tests {
    use super::Targets;
    use std::path::Path;

    const SAID: &str = r#"   Compiling nothing
{"reason":"build-script-executed","package_id":"x","linked_libs":[]}
{"reason":"compiler-artifact","package_id":"x","manifest_path":"/p/crates/a/Cargo.toml","target":{"kind":["lib"],"name":"a"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","package_id":"x","manifest_path":"/p/crates/a/Cargo.toml","target":{"kind":["test"],"name":"life"},"profile":{"test":true},"executable":"/p/target/debug/deps/life-1"}
{"reason":"compiler-artifact","package_id":"x","manifest_path":"/p/Cargo.toml","target":{"kind":["bin"],"name":"b"},"profile":{"test":true},"executable":"/p/target/debug/deps/b-2"}
{"reason":"compiler-artifact","package_id":"x","manifest_path":"/p/Cargo.toml","target":{"kind":["bin"],"name":"b"},"profile":{"test":false},"executable":"/p/target/debug/b"}
{"reason":"build-finished","success":true}
"#;

    #[test]
    fn programs_and_tests_are_told_apart_by_package_and_kind() {
        let targets = Targets::parse(SAID).unwrap();
        let (a, b) = (Path::new("/p/crates/a"), Path::new("/p"));
        let life = Path::new("/p/target/debug/deps/life-1");
        assert_eq!(targets.tests(a, "life").unwrap(), life);
        assert_eq!(
            targets.program(b, "b").unwrap(),
            Path::new("/p/target/debug/b")
        );
        assert!(targets.tests(b, "b").unwrap().ends_with("b-2"));
        let missing = targets.tests(b, "life").unwrap_err().to_string();
        assert!(missing.contains("life"), "{missing}");
        assert!(targets.program(a, "a").is_err());
    }
}
