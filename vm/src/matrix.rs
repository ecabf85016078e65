// SPDX-License-Identifier: Apache-2.0
//! Runs the matrix: each kernel, each boot, what is said about it, and what is kept of it.
//!
//! Boots run side by side, as many as this machine has CPUs: a guest uses one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

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
use crate::side::by_side;
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
    /// Stages that are not asked for, each with its kernel.
    left_out: Vec<(&'a str, &'a str)>,
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
    let left_out = left_out(&list, &args.leave_out)?;
    let mut matrix = Matrix {
        list: &list,
        args,
        left_out,
        root,
        targets: Targets::read(&root.join(&args.built))?,
        records: record::read(&root.join(RECORDED))?,
        passed: 0,
        failed: Vec::new(),
    };
    let kernels = chosen(&list, &args.kernels)?;
    let images = matrix.images(&kernels);
    let starts = matrix.starts(&images);
    let names: Vec<&str> = starts.iter().map(|start| &*start.kernel.name).collect();
    let verdicts = by_side(starts.iter().collect(), cpus(), Start::run);
    let mut of_kernels: BTreeMap<&str, Verdict> = BTreeMap::new();
    for (name, verdict) in names.into_iter().zip(verdicts) {
        match verdict {
            Ok(verdict) => of_kernels.entry(name).or_default().add(verdict),
            Err(error) => matrix.failed.push(format!("{name}: {error:#}")),
        }
    }
    for (kernel, image) in &images {
        let verdict = of_kernels.remove(&*kernel.name).unwrap_or_default();
        matrix.judge(kernel, image, &verdict);
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

/// Stages that are not asked for, given as `KERNEL/STAGE`.
fn left_out<'a>(list: &'a List, names: &'a [String]) -> Result<Vec<(&'a str, &'a str)>> {
    let one = |name: &'a String| {
        let (kernel, stage) = name.split_once('/').context("KERNEL/STAGE")?;
        anyhow::Ok((&*list.kernel(kernel)?.name, &*list.stage(stage)?.name))
    };
    let one = |name| one(name).with_context(|| format!("cannot leave out {name}"));
    names.iter().map(one).collect()
}

/// One boot of a kernel that must be run.
struct Start<'a> {
    kernel: &'a Kernel,
    image: &'a Image,
    boot: &'a Boot,
    plan: Plan<'a>,
}

/// How many guests run at once.
fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl<'a> Matrix<'a> {
    /// The kernels that can be had; the others have failed.
    fn images(&mut self, kernels: &[&'a Kernel]) -> Vec<(&'a Kernel, Image)> {
        let mut images = Vec::new();
        for kernel in kernels {
            match cache(self.root).and_then(|cache| image(kernel, &cache)) {
                Ok(image) => images.push((*kernel, image)),
                Err(error) => self.failed.push(format!("{}: {error:#}", kernel.name)),
            }
        }
        images
    }

    /// What is to be started: the newest kernels first, which take longest, so that no long one is last.
    fn starts<'b>(&mut self, images: &'b [(&'a Kernel, Image)]) -> Vec<Start<'b>>
    where
        'a: 'b,
    {
        let mut starts = Vec::new();
        for (kernel, image) in images.iter().rev() {
            for boot in &self.list.boots {
                if !self.args.boots.is_empty() && !self.args.boots.contains(&boot.name) {
                    continue;
                }
                let stages = self.stages(kernel, boot);
                let plan = plan::plan(self.list, kernel, &stages, self.root, &self.targets);
                match plan {
                    Ok(plan) => starts.push(Start {
                        kernel,
                        image,
                        boot,
                        plan,
                    }),
                    Err(error) => {
                        let (name, boot) = (&kernel.name, &boot.name);
                        self.failed.push(format!("{name}: boot {boot}: {error:#}"));
                    }
                }
            }
        }
        for start in &starts {
            for (stage, why) in &start.plan.left_out {
                println!("  {stage} is left out on {}: {why}", start.kernel.name);
            }
        }
        starts.retain(|start| !start.plan.stages.is_empty());
        starts
    }

    /// The stages of a boot that are asked for.
    fn stages<'b>(&self, kernel: &Kernel, boot: &'b Boot) -> Vec<&'b str> {
        let asked = &self.args.stages;
        let stages = boot.stages.iter();
        stages
            .filter(|stage| asked.is_empty() || asked.contains(stage))
            .map(|stage| &**stage)
            .filter(|stage| !self.left_out.contains(&(&*kernel.name, *stage)))
            .collect()
    }

    /// What all boots of a kernel have shown.
    fn judge(&mut self, kernel: &Kernel, image: &Image, verdict: &Verdict) {
        if self.is_whole() {
            self.check_proofs(kernel, verdict);
        }
        let name = &kernel.name;
        self.passed += verdict.passed.len();
        let failures = verdict.failed.iter();
        let failures = failures.map(|failure| format!("{name}: {}: {}", failure.what, failure.why));
        self.failed.extend(failures);
        self.compare(kernel, image, verdict);
    }

    /// Whether every boot and stage of a kernel is run.
    fn is_whole(&self) -> bool {
        self.args.stages.is_empty() && self.args.boots.is_empty() && self.left_out.is_empty()
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

impl Start<'_> {
    /// Boots, and once more if the guest died and nothing was seen to be wrong.
    fn run(&self) -> Result<Verdict> {
        let jobs = self.plan.stages.iter();
        let jobs: Vec<Job> = jobs.map(|planned| planned.job.clone()).collect();
        let mut starts = 1;
        loop {
            let outcome = guest::run(self.image, self.boot, &jobs, &mut |_| ())?;
            let verdicts = judge::boot(self.kernel, &self.plan, &outcome);
            show::boot(self.image, self.boot, &self.plan, &outcome, &verdicts);
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

    #[test]
    fn only_what_there_is_can_be_left_out() {
        let list = List::parse(include_str!("../kernels.toml")).unwrap();
        let newest = &*list.kernels.last().unwrap().name;
        let left_out = |name: &str| {
            let names = [name.to_owned()];
            let left_out = super::left_out(&list, &names).map(|all| format!("{all:?}"));
            left_out.map_err(|error| format!("{error:#}"))
        };
        assert_eq!(
            left_out("newest/life"),
            Ok(format!("[({newest:?}, \"life\")]"))
        );
        for wrong in ["life", "6.1", "2.4/life", "6.1/live"] {
            assert!(left_out(wrong).unwrap_err().contains(wrong));
        }
    }
}
