// SPDX-License-Identifier: Apache-2.0
//! What must run in a boot of a kernel: commands, and the tests that each must answer for.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use crate::guest::Job;
use crate::libtest;
use crate::list::Does;
use crate::list::Kernel;
use crate::list::List;
use crate::list::Stage;
use crate::targets::Targets;

/// A stage that must run.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) job: Job,
    /// The tests that must pass, or be excepted; empty for stages that are no tests.
    pub(crate) tests: Vec<String>,
    /// Tests that may fail on this kernel, with the reason.
    pub(crate) may_fail: BTreeMap<String, String>,
}

/// What is planned for a boot.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    pub(crate) stages: Vec<Planned<'a>>,
    /// Stages that this kernel leaves out, with the reason.
    pub(crate) left_out: Vec<(&'a str, &'a str)>,
}

/// Finds commands and tests of these stages of a boot.
pub(crate) fn plan<'a>(
    list: &'a List,
    kernel: &'a Kernel,
    stages: &[&'a str],
    root: &Path,
    targets: &Targets,
) -> Result<Plan<'a>> {
    let mut plan = Plan::default();
    for name in stages {
        let stage = list.stage(name)?;
        let whole = |e: &&crate::list::Except| e.stage == *name && e.test.is_none();
        if let Some(except) = kernel.except.iter().find(whole) {
            plan.left_out.push((name, &except.why));
            continue;
        }
        let planned =
            planned(kernel, stage, root, targets).with_context(|| format!("stage {name}"))?;
        plan.stages.push(planned);
    }
    Ok(plan)
}

fn planned<'a>(
    kernel: &Kernel,
    stage: &'a Stage,
    root: &Path,
    targets: &Targets,
) -> Result<Planned<'a>> {
    let mut tests = Vec::new();
    let (folder, command) = match &stage.does {
        Does::Tests {
            package,
            target,
            prefix,
            ignored,
            least,
        } => {
            let folder = package_folder(root, package);
            let binary = targets.tests(&folder, target)?;
            tests = libtest::list(binary, prefix, *ignored)?;
            ensure!(
                tests.len() >= *least,
                "{} tests begin with {prefix}, where the list asks for at least {least}",
                tests.len()
            );
            (folder, test_command(binary, *ignored, &tests))
        }
        Does::Doctor => {
            let binary = targets.program(&package_folder(root, "."), "lacuna")?;
            let words = [&*binary.to_string_lossy(), "doctor", "--format", "json"];
            (root.to_owned(), words.map(str::to_owned).to_vec())
        }
        Does::Verifier => {
            let folder = package_folder(root, "crates/probes");
            let binary = targets.program(&folder, "verifier")?;
            (folder, vec![binary.display().to_string()])
        }
    };
    let job = Job {
        stage: stage.name.clone(),
        limit: Duration::from_secs(stage.limit_s),
        folder,
        command,
    };
    let may_fail = may_fail(kernel, stage, &tests)?;
    Ok(Planned {
        stage,
        job,
        tests,
        may_fail,
    })
}

fn package_folder(root: &Path, package: &str) -> PathBuf {
    match package {
        "." => root.to_owned(),
        _ => root.join(package),
    }
}

/// One test at a time: they measure the machine.
fn test_command(binary: &Path, ignored: bool, tests: &[String]) -> Vec<String> {
    let mut command = vec![binary.display().to_string()];
    command.extend(["--exact", "--test-threads", "1"].map(str::to_owned));
    if ignored {
        command.push("--ignored".to_owned());
    }
    command.extend(tests.iter().cloned());
    command
}

/// The exceptions of this kernel that are about this stage. One for a test that is gone must go too.
fn may_fail(kernel: &Kernel, stage: &Stage, tests: &[String]) -> Result<BTreeMap<String, String>> {
    let mut may_fail = BTreeMap::new();
    for except in kernel.except.iter().filter(|e| e.stage == stage.name) {
        let Some(test) = &except.test else { continue };
        ensure!(
            tests.contains(test),
            "kernel {} excepts the test {test}, which does not exist",
            kernel.name
        );
        may_fail.insert(test.clone(), except.why.clone());
    }
    Ok(may_fail)
}

#[cfg(test)]
mod tests {
    use super::plan;
    use crate::list::Except;
    use crate::list::List;
    use crate::targets::Targets;
    use std::path::Path;

    const BUILT: &str = r#"
{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","target":{"name":"lacuna"},"profile":{"test":false},"executable":"/p/target/debug/lacuna"}
{"reason":"compiler-artifact","manifest_path":"/p/crates/probes/Cargo.toml","target":{"name":"verifier"},"profile":{"test":false},"executable":"/p/target/debug/examples/verifier"}
{"reason":"compiler-artifact","manifest_path":"/p/crates/probes/Cargo.toml","target":{"name":"life"},"profile":{"test":true},"executable":"LIFE"}
"#;

    /// A list whose last kernel has this exception, and a test binary with these tests.
    fn planned(except: Option<Except>, tests: &[String], only: &str) -> Result<String, String> {
        let mut list = List::parse(include_str!("../kernels.toml")).unwrap();
        let last = list.kernels.last_mut().unwrap();
        last.except = except.into_iter().collect();
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("life");
        let lines: String = tests.iter().map(|test| format!("{test}: test\n")).collect();
        let script =
            format!("#!/bin/sh\ncase \"$*\" in *--ignored*) exit;; esac\ncat <<end\n{lines}end\n");
        std::fs::write(&binary, script).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&binary, executable).unwrap();
        let built = BUILT.replace("LIFE", &binary.display().to_string());
        let targets = Targets::parse(&built).unwrap();
        let kernel = list.kernels.last().unwrap();
        let plan = plan(&list, kernel, &[only], Path::new("/p"), &targets);
        let plan = plan.map_err(|error| format!("{error:#}"))?;
        let stages = plan.stages.iter().map(|stage| stage.job.command.join(" "));
        let left_out = plan
            .left_out
            .iter()
            .map(|(stage, why)| format!("not {stage}: {why}"));
        let may_fail = plan
            .stages
            .iter()
            .flat_map(|stage| stage.may_fail.keys().cloned());
        let all: Vec<String> = stages.chain(left_out).chain(may_fail).collect();
        Ok(all
            .join("; ")
            .replace(&binary.display().to_string(), "LIFE"))
    }

    fn except(stage: &str, test: Option<&str>) -> Option<Except> {
        Some(Except {
            stage: stage.to_owned(),
            test: test.map(str::to_owned),
            why: "a reason".to_owned(),
        })
    }

    /// More than the list asks of any stage.
    fn enough() -> Vec<String> {
        (10..60).map(|number| format!("root_{number}")).collect()
    }

    #[test]
    fn a_stage_is_a_command_with_every_test_by_name() {
        let doctor = planned(None, &[], "doctor").unwrap();
        assert_eq!(doctor, "/p/target/debug/lacuna doctor --format json");
        let mut tests = enough();
        let names = tests.join(" ");
        tests.push("other".to_owned());
        let life = planned(None, &tests, "life").unwrap();
        assert_eq!(life, format!("LIFE --exact --test-threads 1 {names}"));
    }

    #[test]
    fn fewer_tests_than_the_list_asks_for_are_a_mistake() {
        let error = planned(None, &enough()[..3], "life").unwrap_err();
        assert!(error.contains("3 tests begin with root_"), "{error}");
    }

    #[test]
    fn what_was_not_built_cannot_be_planned() {
        let error = planned(None, &enough(), "schedule").unwrap_err();
        assert!(
            error.contains("cargo has built no tests schedule"),
            "{error}"
        );
    }

    #[test]
    fn exceptions_are_known_by_name_and_said() {
        let whole = planned(except("life", None), &enough(), "life").unwrap();
        assert_eq!(whole, "not life: a reason");
        let one = planned(except("life", Some("root_11")), &enough(), "life").unwrap();
        assert!(
            one.ends_with("; root_11") && one.contains("root_10 root_11"),
            "{one}"
        );
        let gone = planned(except("life", Some("root_z")), &enough(), "life").unwrap_err();
        assert!(gone.contains("root_z, which does not exist"), "{gone}");
    }
}
