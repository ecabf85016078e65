// SPDX-License-Identifier: Apache-2.0
//! Runs the matrix: each kernel, each boot, what is said about it, and what is kept of it.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;

use crate::MatrixArgs;
use crate::cache;
use crate::document;
use crate::fetch;
use crate::fetch::Debian;
use crate::guest;
use crate::guest::End;
use crate::guest::Job;
use crate::image;
use crate::image::Image;
use crate::judge;
use crate::judge::Verdict;
use crate::list::Boot;
use crate::list::Kernel;
use crate::list::List;
use crate::plan;
use crate::plan::Plan;
use crate::record;
use crate::record::Record;
use crate::record::Records;
use crate::show;
use crate::targets::Targets;

/// How often a boot is started whose guest died before anything was seen to be wrong.
const STARTS_MAX: u32 = 2;
/// What the matrix is made of.
pub(crate) const LIST: &str = "vm/kernels.toml";
/// What is kept between runs.
const RECORDED: &str = "vm/recorded.json";
/// What is made of it for people.
const DOCUMENT: &str = "docs/kernels.md";

/// Gets a kernel and makes it ready, saying loudly where it is not the pinned one.
pub(crate) fn image(kernel: &Kernel, cache: &Path) -> Result<Image> {
    let fetched = fetch::fetch(kernel, cache, &mut Debian::new(kernel, cache))?;
    if let Some(why) = &fetched.fallback {
        println!(
            "!!! {}: FALLBACK to {}, because {} cannot be had: {why}",
            kernel.name, fetched.release, kernel.release
        );
    }
    image::make(&fetched, cache)
}

/// Makes kernels ready, and says where they are.
pub(crate) fn fetch(names: &[String], root: &Path) -> Result<ExitCode> {
    let list = List::read(&root.join(LIST))?;
    for kernel in chosen(&list, names)? {
        let image = image(kernel, &cache(root)?)?;
        println!("{}: {}", kernel.name, image.kernel.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the document, for a change of the list that no run has to prove.
pub(crate) fn document(root: &Path) -> Result<ExitCode> {
    let list = List::read(&root.join(LIST))?;
    let records = record::read(&root.join(RECORDED))?;
    fs::write(root.join(DOCUMENT), document::text(&list, &records))?;
    Ok(ExitCode::SUCCESS)
}

/// A run of the matrix.
struct Matrix<'a> {
    list: &'a List,
    args: &'a MatrixArgs,
    root: &'a Path,
    targets: Targets,
    /// What was known before, with what this run has shown where it is to be recorded.
    records: Records,
    passed: usize,
    failed: Vec<String>,
}

/// Runs what was asked for; the last line is for `scripts/test` to count.
pub(crate) fn run(args: &MatrixArgs, root: &Path) -> Result<ExitCode> {
    let list = List::read(&root.join(LIST))?;
    for boot in &args.boots {
        list.boot(boot)?;
    }
    for stage in &args.stages {
        list.stage(stage)?;
    }
    let mut matrix = Matrix {
        list: &list,
        args,
        root,
        targets: Targets::read(&root.join(&args.built))?,
        records: record::read(&root.join(RECORDED))?,
        passed: 0,
        failed: Vec::new(),
    };
    for kernel in chosen(&list, &args.kernels)? {
        println!("\n== kernel {}", kernel.name);
        if let Err(error) = matrix.kernel(kernel) {
            matrix.failed.push(format!("{}: {error:#}", kernel.name));
        }
    }
    matrix.keep()?;
    println!();
    for failure in &matrix.failed {
        println!("FAILED {failure}");
    }
    let good = matrix.failed.is_empty() && matrix.passed > 0;
    println!(
        "test result: {}. {} passed; {} failed",
        if good { "ok" } else { "FAILED" },
        matrix.passed,
        matrix.failed.len()
    );
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The kernels of these names, each once; all without names.
fn chosen<'a>(list: &'a List, names: &[String]) -> Result<Vec<&'a Kernel>> {
    let asked: Result<Vec<&Kernel>> = names.iter().map(|name| list.kernel(name)).collect();
    let asked = asked?;
    let wanted = |kernel: &&Kernel| asked.is_empty() || asked.iter().any(|k| k.name == kernel.name);
    Ok(list.kernels.iter().filter(wanted).collect())
}

impl Matrix<'_> {
    /// One kernel, all of its boots, and what it has shown.
    fn kernel(&mut self, kernel: &Kernel) -> Result<()> {
        let image = image(kernel, &cache(self.root)?)?;
        let mut verdict = Verdict::default();
        for boot in &self.list.boots {
            if !self.args.boots.is_empty() && !self.args.boots.contains(&boot.name) {
                continue;
            }
            let stages = &self.args.stages;
            let plan = plan::plan(self.list, kernel, boot, stages, self.root, &self.targets)
                .with_context(|| format!("boot {}", boot.name))?;
            for (stage, why) in &plan.left_out {
                println!("  {stage} is left out on {}: {why}", kernel.name);
            }
            if !plan.stages.is_empty() {
                verdict.add(start(kernel, &image, boot, &plan)?);
            }
        }
        if self.is_whole() {
            self.check_proofs(kernel, &verdict);
        }
        let name = &kernel.name;
        self.passed += verdict.passed.len();
        let failures = verdict.failed.iter();
        let failures = failures.map(|failure| format!("{name}: {}: {}", failure.what, failure.why));
        self.failed.extend(failures);
        self.compare(kernel, &image, &verdict);
        Ok(())
    }

    /// Whether every boot and stage of a kernel is run.
    fn is_whole(&self) -> bool {
        self.args.stages.is_empty() && self.args.boots.is_empty()
    }

    /// A proof that names a test which has not run, where its stage is not left out, is a mistake.
    fn check_proofs(&mut self, kernel: &Kernel, verdict: &Verdict) {
        let left_out = |stage: &str| {
            let whole = kernel.except.iter().filter(|except| except.test.is_none());
            whole.into_iter().any(|except| except.stage == stage)
        };
        for (cause, tests) in &self.list.proof {
            for test in tests.iter().filter(|test| verdict.knows_nothing_of(test)) {
                if !left_out(test.split('/').next().unwrap_or_default()) {
                    let name = &kernel.name;
                    let failure = format!("{name}: the proof of {cause}, {test}, did not run");
                    self.failed.push(failure);
                }
            }
        }
    }

    /// Compares with the last run, and takes this one for the last where that is asked for.
    fn compare(&mut self, kernel: &Kernel, image: &Image, verdict: &Verdict) {
        let is_complete = verdict.verified.is_some() && verdict.costs.is_some();
        if !is_complete {
            return;
        }
        let before = self.records.get(&kernel.name);
        let record = Record::new(self.list, &image.release, verdict, before);
        let none = Record::default();
        for line in record.jumps_since(before.unwrap_or(&none)) {
            println!("!!! {}: verifier: {line}", kernel.name);
        }
        // Another release is another kernel: the document says nothing about it.
        if image.release != kernel.release {
            println!("!!! {}: not compared with {DOCUMENT}", kernel.name);
            return;
        }
        if self.args.record {
            self.records.insert(kernel.name.clone(), record);
            return;
        }
        let before = before.unwrap_or(&none);
        for cause in record.proves_beyond(before) {
            println!(
                "!!! {}: {cause} is proved, which {DOCUMENT} does not say",
                kernel.name
            );
        }
        for cause in before.proves_beyond(&record) {
            let name = &kernel.name;
            let failure =
                format!("{name}: {DOCUMENT} says that {cause} is proved: not in this run");
            self.failed.push(failure);
        }
    }

    /// Writes what was shown, or fails where the document is not made of the list and the records.
    fn keep(&mut self) -> Result<()> {
        let document = self.root.join(DOCUMENT);
        let text = document::text(self.list, &self.records);
        let committed = fs::read_to_string(&document).unwrap_or_default();
        if self.args.record {
            fs::write(self.root.join(RECORDED), record::text(&self.records)?)?;
            fs::write(&document, &text)?;
        }
        if committed == text {
            return Ok(());
        }
        for line in text
            .lines()
            .filter(|line| !committed.lines().any(|old| old == *line))
        {
            println!("!!! {DOCUMENT}: now {line}");
        }
        match self.args.record {
            true => println!("!!! {DOCUMENT} was written anew: look at it and commit it"),
            false => self.failed.push(format!(
                "{DOCUMENT} is not made of {LIST} and {RECORDED}: `lacuna-vm document` writes it"
            )),
        }
        Ok(())
    }
}

/// One boot, started again once if its guest died and nothing was seen to be wrong.
fn start(kernel: &Kernel, image: &Image, boot: &Boot, plan: &Plan<'_>) -> Result<Verdict> {
    let jobs: Vec<Job> = plan
        .stages
        .iter()
        .map(|planned| planned.job.clone())
        .collect();
    let mut starts = 1;
    loop {
        let outcome = guest::run(image, boot, &jobs, &mut |_| ())?;
        let verdicts = judge::boot(kernel, plan, &outcome);
        show::boot(image, boot, plan, &outcome, &verdicts);
        let whole = verdicts
            .into_iter()
            .fold(Verdict::default(), |mut whole, verdict| {
                whole.add(verdict);
                whole
            });
        if starts >= STARTS_MAX || !may_start_again(&outcome.end, &whole) {
            return Ok(whole);
        }
        println!("!!! the guest died before anything was seen to be wrong: once more");
        starts += 1;
    }
}

/// A guest that died says nothing, unless something had failed before.
fn may_start_again(end: &End, verdict: &Verdict) -> bool {
    matches!(end, End::Died(_)) && !verdict.failed.iter().any(|failure| failure.is_assertion)
}

#[cfg(test)]
mod tests {
    use super::End;
    use super::Verdict;
    use super::chosen;
    use super::document;
    use super::fs;
    use super::may_start_again;
    use super::record;
    use crate::judge::Failure;
    use crate::list::List;

    #[test]
    fn only_a_death_without_a_failed_assertion_is_tried_again() {
        let verdict = |is_assertion| Verdict {
            failed: vec![Failure {
                what: "x".to_owned(),
                why: "y".to_owned(),
                is_assertion,
            }],
            ..Verdict::default()
        };
        let died = End::Died("at once".to_owned());
        assert!(may_start_again(&died, &verdict(false)));
        assert!(!may_start_again(&died, &verdict(true)));
        assert!(!may_start_again(
            &End::Hung("in x".to_owned()),
            &verdict(false)
        ));
        assert!(!may_start_again(&End::Done, &verdict(false)));
    }

    #[test]
    fn the_document_is_what_the_list_and_the_last_runs_say() {
        let root = crate::root();
        let list = List::read(&root.join(super::LIST)).unwrap();
        let records = record::read(&root.join(super::RECORDED)).unwrap();
        let committed = fs::read_to_string(root.join(super::DOCUMENT)).unwrap();
        let text = document::text(&list, &records);
        assert!(
            committed == text,
            "`target/debug/lacuna-vm document` writes docs/kernels.md"
        );
    }

    #[test]
    fn kernels_are_chosen_by_name_once() {
        let list = List::parse(include_str!("../kernels.toml")).unwrap();
        let names = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
            let kernels = chosen(&list, &asked).map(|k| k.iter().map(|k| &*k.name).collect());
            kernels.map_err(|error| error.to_string())
        };
        let all: Vec<&str> = list.kernels.iter().map(|kernel| &*kernel.name).collect();
        let newest = all[all.len() - 1];
        assert_eq!(names(&[]), Ok(all.clone()));
        assert_eq!(names(&["newest", "6.1", newest]), Ok(vec!["6.1", newest]));
        assert!(names(&["6.1", "2.4"]).is_err(), "never silently fewer");
    }
}
