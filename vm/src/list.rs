// SPDX-License-Identifier: Apache-2.0
//! The list of kernels, boots and stages: `vm/kernels.toml`, read and checked.
//!
//! Whatever the matrix must do is data there; nothing in this program knows a kernel by its name. A
//! list that contradicts itself is refused before anything is booted.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use lacuna_timeline::Cause;
use serde::Deserialize;

/// The name by which the last kernel of the list can be asked for.
pub(crate) const NEWEST: &str = "newest";

/// All of `vm/kernels.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// Oldest first.
    #[serde(rename = "kernel")]
    pub(crate) kernels: Vec<Kernel>,
    #[serde(rename = "boot")]
    pub(crate) boots: Vec<Boot>,
    #[serde(rename = "stage")]
    pub(crate) stages: Vec<Stage>,
    /// By the public name of a cause: the tests (`stage` or `stage/test`) that prove it where they
    /// pass.
    pub(crate) proof: BTreeMap<String, Vec<String>>,
}

/// One kernel, and where it comes from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    /// As in `make matrix KERNEL=`.
    pub(crate) name: String,
    /// What follows the address in a line of apt's sources.
    pub(crate) archives: Vec<String>,
    /// The pinned release, as `uname -r` says it.
    pub(crate) release: String,
    /// How releases of the same series begin: the fallback is the newest of these.
    pub(crate) series: String,
    pub(crate) packages: Vec<Package>,
    /// What the agent has to do without here.
    #[serde(default)]
    pub(crate) cannot: Vec<Cannot>,
    /// What need not hold here.
    #[serde(default)]
    pub(crate) except: Vec<Except>,
}

/// A Debian package of a kernel; its name is the prefix and the release.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Package {
    pub(crate) prefix: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
}

/// Something that a kernel lacks and Lacuna would use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cannot {
    pub(crate) what: String,
    /// The first version that has it.
    pub(crate) since: String,
    /// The upstream commit that brought it.
    pub(crate) commit: Option<String>,
    /// The check of `lacuna doctor` that says so: a part of its name.
    pub(crate) doctor: Option<String>,
    /// Public names of the causes that cannot be told because of it.
    #[serde(default)]
    pub(crate) costs: Vec<String>,
    /// What is done instead, or what gets weaker.
    pub(crate) instead: String,
}

/// A stage, or one test of it, that need not pass on a kernel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Except {
    pub(crate) stage: String,
    /// Without one the stage is left out altogether; with one it is run, and may fail.
    pub(crate) test: Option<String>,
    pub(crate) why: String,
}

/// Which version of control groups a guest has.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cgroup {
    V1,
    V2,
    Hybrid,
}

/// One start of a guest, and the stages that run in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Boot {
    pub(crate) name: String,
    /// What is added to the kernel's command line.
    #[serde(default)]
    pub(crate) arguments: String,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) cgroup: Cgroup,
    pub(crate) stages: Vec<String>,
}

/// One program that runs in a guest.
#[derive(Debug, Deserialize)]
pub(crate) struct Stage {
    pub(crate) name: String,
    /// After this long the guest ends it.
    pub(crate) limit_s: u64,
    #[serde(flatten)]
    pub(crate) does: Does,
}

/// What a stage is.
#[derive(Debug, Deserialize)]
#[serde(tag = "does", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Does {
    /// Some tests of a test binary.
    Tests {
        /// Folder of the package, from the root of the repository.
        package: String,
        /// Name of the test target; the package's own name, with `_`, for its unit tests.
        target: String,
        /// How the names of its tests begin, their modules left away.
        prefix: String,
        /// Whether they are marked `#[ignore]`.
        #[serde(default)]
        ignored: bool,
        /// Fewer tests than this is a mistake: somebody has renamed them.
        least: usize,
    },
    /// `lacuna doctor`, compared with what the list says that the kernel cannot.
    Doctor,
    /// Loads every program and tells how long the verifier looked at each.
    Verifier,
}

impl List {
    /// Reads and checks the list.
    pub(crate) fn read(path: &Path) -> Result<List> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        List::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads and checks the text of a list.
    pub(crate) fn parse(text: &str) -> Result<List> {
        let list: List = toml::from_str(text)?;
        list.check()?;
        Ok(list)
    }

    /// The kernel of this name, or the newest.
    pub(crate) fn kernel(&self, name: &str) -> Result<&Kernel> {
        let found = match name {
            NEWEST => self.kernels.last(),
            _ => self.kernels.iter().find(|kernel| kernel.name == name),
        };
        found.with_context(|| {
            let names: Vec<_> = self.kernels.iter().map(|k| k.name.as_str()).collect();
            format!("no kernel {name}: there are {}, {NEWEST}", names.join(", "))
        })
    }

    /// The boot of this name.
    pub(crate) fn boot(&self, name: &str) -> Result<&Boot> {
        let found = self.boots.iter().find(|boot| boot.name == name);
        found.with_context(|| format!("no boot {name}"))
    }

    /// The stage of this name.
    pub(crate) fn stage(&self, name: &str) -> Result<&Stage> {
        let found = self.stages.iter().find(|stage| stage.name == name);
        found.with_context(|| format!("no stage {name}"))
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.kernels.is_empty(), "no kernel");
        unique("kernel", self.kernels.iter().map(|kernel| &*kernel.name))?;
        unique("boot", self.boots.iter().map(|boot| &*boot.name))?;
        unique("stage", self.stages.iter().map(|stage| &*stage.name))?;
        for kernel in &self.kernels {
            self.check_kernel(kernel)
                .with_context(|| format!("kernel {}", kernel.name))?;
        }
        for boot in &self.boots {
            for stage in &boot.stages {
                self.stage(stage)
                    .with_context(|| format!("boot {}", boot.name))?;
            }
        }
        for stage in &self.stages {
            let booted = self.boots.iter().any(|b| b.stages.contains(&stage.name));
            ensure!(booted, "stage {} is in no boot", stage.name);
        }
        for (cause, tests) in &self.proof {
            check_cause(cause)?;
            ensure!(!tests.is_empty(), "no test proves {cause}");
            for test in tests {
                let stage = test.split('/').next().unwrap_or_default();
                self.stage(stage)
                    .with_context(|| format!("proof of {cause}"))?;
            }
        }
        Ok(())
    }

    fn check_kernel(&self, kernel: &Kernel) -> Result<()> {
        ensure!(kernel.name != NEWEST, "{NEWEST} is the last of the list");
        ensure!(!kernel.packages.is_empty(), "no package");
        ensure!(!kernel.archives.is_empty(), "no archive");
        ensure!(
            kernel.release.starts_with(&kernel.series),
            "its release is not of its series"
        );
        for package in &kernel.packages {
            let digits = package.sha256.chars().all(|c| c.is_ascii_hexdigit());
            ensure!(
                package.sha256.len() == 64 && digits,
                "no SHA-256 of {}",
                package.prefix
            );
        }
        for cannot in &kernel.cannot {
            for cause in &cannot.costs {
                check_cause(cause)?;
            }
        }
        for except in &kernel.except {
            self.stage(&except.stage)?;
            ensure!(!except.why.is_empty(), "an exception without its reason");
        }
        Ok(())
    }
}

fn check_cause(name: &str) -> Result<()> {
    ensure!(Cause::from_name(name).is_some(), "no cause {name}");
    Ok(())
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_';
        ensure!(
            !name.is_empty() && name.chars().all(plain),
            "{what} {name:?}"
        );
        if seen.contains(&name) {
            bail!("two of {what} {name}");
        }
        seen.push(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::List;

    const GOOD: &str = include_str!("../kernels.toml");

    #[test]
    fn the_list_of_the_repository_is_good() {
        let list = List::parse(GOOD).unwrap();
        assert!(list.kernels.len() >= 2);
        let newest = list.kernel("newest").unwrap();
        assert_eq!(newest.name, list.kernels.last().unwrap().name);
        assert_eq!(list.kernel("6.1").unwrap().name, "6.1");
    }

    #[test]
    fn an_unknown_kernel_is_named_with_those_that_are_there() {
        let error = List::parse(GOOD).unwrap().kernel("2.4").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("2.4") && text.contains("6.1"), "{text}");
    }

    /// The list with one text replaced, and what is said of it.
    fn refusal(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from} is not in the list");
        let error = List::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        format!("{error:#}")
    }

    #[test]
    fn a_list_that_contradicts_itself_is_refused() {
        assert!(refusal("name = \"6.12\"", "name = \"6.1\"").contains("two of kernel 6.1"));
        assert!(refusal("\"doctor\",", "\"docter\",").contains("no stage docter"));
        assert!(refusal("series = \"6.1.\"", "series = \"6.2.\"").contains("not of its series"));
        assert!(refusal("sha256 = \"", "sha256 = \"x").contains("SHA-256"));
        assert!(refusal("[proof]\n", "[proof]\n\"no.cause\" = [\"life\"]\n").contains("no.cause"));
        assert!(refusal("[proof]\n", "[proof]\ncpu = [\"no\"]\n").contains("cpu"));
        assert!(refusal("cgroup = \"v2\"", "cgroup = \"v3\"").contains("v3"));
        assert!(refusal("series =", "serie =").contains("serie"));
    }
}
