// SPDX-License-Identifier: Apache-2.0
//! `lacuna lab`: the war stories, reproduced on this machine, and Lacuna's answers held against what
//! was true.
//!
//! `lacuna-lab` makes them happen and knows the truth; the agent under test answers; the verdict is
//! made here, in one pure function. Whatever was made goes with its guards before this ends, also
//! when somebody wants it to end in the middle.

mod agent;
mod verdict;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use lacuna_host::Root;
use lacuna_host::sys::KernelVersion;
use lacuna_host::sys::is_emulated;
use lacuna_lab::Expectation;
use lacuna_lab::SCENARIOS;
use lacuna_lab::Scenario;
use lacuna_lab::Stage;
use lacuna_lab::Stop;
use lacuna_lab::die_with_parent;

use crate::answer::LabReport;
use crate::answer::LabSchema;
use crate::answer::ScenarioReport;
use crate::answer::ScenarioStatus;
use crate::cli::EXIT_COULD_NOT_RUN;
use crate::cli::EXIT_FOUND;
use crate::cli::EXIT_GOOD;
use crate::cli::Format;
use crate::cli::LabListArgs;
use crate::cli::LabRunArgs;
use crate::ending::Ending;
use crate::render;

use agent::TestedAgent;
use verdict::Accuracy;
use verdict::Verdict;
use verdict::judge;

/// The part that is the agent under test: `__lab -- PARENT agent OPTIONS…`.
const AGENT: &str = "agent";

/// `lacuna lab list`
///
/// # Errors
/// Nobody reads.
pub(crate) fn list(args: &LabListArgs) -> Result<ExitCode> {
    let text = match args.format.format {
        Format::Text => render::scenarios(SCENARIOS.iter().map(|one| (one.name, one.story))),
        Format::Json => {
            let all = SCENARIOS.iter();
            let all = all.map(|one| serde_json::json!({"name": one.name, "story": one.story}));
            let all: Vec<_> = all.collect();
            render::json(&serde_json::json!({"schema": "lacuna.lab-list/1", "scenarios": all}))?
        }
    };
    write(&text)?;
    Ok(ExitCode::from(EXIT_GOOD))
}

/// `lacuna lab run`
///
/// # Errors
/// There is no such scenario, or no agent can be started.
pub(crate) fn run(args: &LabRunArgs) -> Result<ExitCode> {
    let wanted = wanted(args)?.repeat(args.repeat.into());
    let root = Root::host();
    let ending = Ending::listen()?;
    let mut report = LabReport {
        schema: LabSchema::default(),
        kernel: KernelVersion::read(&root).map_or(String::new(), |kernel| kernel.to_string()),
        emulated: is_emulated(&root),
        scenarios: Vec::new(),
    };
    let played = play_all(&wanted, args, &ending, &mut report);
    ending.end_if_told();
    played?;
    let style = render::Style::of(&std::io::stdout(), false);
    write(&match args.format.format {
        Format::Text => render::lab(&report, style),
        Format::Json => render::json(&report)?,
    })?;
    Ok(ExitCode::from(exit_status(&report)))
}

/// What is asked for, in the order of the list.
fn wanted(args: &LabRunArgs) -> Result<Vec<&'static Scenario>> {
    for name in &args.names {
        if lacuna_lab::scenario(name).is_none() {
            bail!("there is no scenario {name:?}: see `lacuna lab list`");
        }
    }
    let is_wanted = |one: &&Scenario| args.all || args.names.iter().any(|name| name == one.name);
    Ok(SCENARIOS.iter().filter(is_wanted).collect())
}

/// Everything that is made here is gone when this returns.
fn play_all(
    wanted: &[&'static Scenario],
    args: &LabRunArgs,
    ending: &Ending,
    report: &mut LabReport,
) -> Result<()> {
    let agent = match TestedAgent::start(ending) {
        Ok(agent) => agent,
        Err(stop) => bail!("{stop}"),
    };
    let accuracy = match report.emulated {
        true => Accuracy::Emulated,
        false => Accuracy::Exact,
    };
    for &scenario in wanted {
        eprintln!("lab: {}", scenario.name);
        let verdicts = RefCell::new(Vec::new());
        let look = |expected: &Expectation| {
            let answer = agent.answer(&expected.trace_id, &expected.span_id, ending)?;
            let mut expected = expected.clone();
            if args.falsify {
                falsify(&mut expected);
            }
            let verdict = judge(&expected, &answer, accuracy);
            if args.verbose {
                let style = render::Style::of(&std::io::stderr(), true);
                eprint!("{}", render::explanation(&vec![answer].into(), style));
            }
            verdicts.borrow_mut().push(verdict);
            Ok(())
        };
        let stage = Stage::new(scenario.name, agent.otlp_port(), ending.flag(), &look);
        let played = lacuna_lab::play(scenario, &stage);
        if matches!(played, Err(Stop::Ended)) {
            break;
        }
        let verdicts = verdicts.take();
        report
            .scenarios
            .push(scenario_report(scenario, played, verdicts));
    }
    Ok(())
}

fn scenario_report(
    scenario: &Scenario,
    played: Result<(), Stop>,
    verdicts: Vec<Verdict>,
) -> ScenarioReport {
    let nothing_found = verdicts.is_empty();
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    for verdict in verdicts {
        rows.extend(verdict.rows);
        problems.extend(verdict.problems);
    }
    let status = match &played {
        Err(Stop::NotHere(_)) => ScenarioStatus::NotRun,
        Ok(()) if problems.is_empty() && !nothing_found => ScenarioStatus::Passed,
        _ => ScenarioStatus::Failed,
    };
    match played {
        Err(stop) => problems.push(stop.to_string()),
        Ok(()) if nothing_found => problems.push("nothing was looked for".to_owned()),
        Ok(()) => {}
    }
    ScenarioReport {
        name: scenario.name.to_owned(),
        status,
        why: problems.join("; "),
        rows,
    }
}

/// Makes every truth wrong by more than any accuracy allows: for the test that a lie is found out.
fn falsify(expected: &mut Expectation) {
    let largest_ns = expected.rows.iter().map(|row| row.truth_ns).max();
    for row in &mut expected.rows {
        row.truth_ns += largest_ns.unwrap_or(0) / 2 + 100_000_000;
    }
}

fn exit_status(report: &LabReport) -> u8 {
    let has = |status| report.scenarios.iter().any(|one| one.status == status);
    match () {
        () if has(ScenarioStatus::Failed) => EXIT_FOUND,
        () if has(ScenarioStatus::Passed) => EXIT_GOOD,
        () => EXIT_COULD_NOT_RUN,
    }
}

/// A process of a scenario, or the agent under test; `words` are those after the hidden subcommand.
///
/// # Errors
/// What it had to do failed.
pub(crate) fn part(words: &[OsString]) -> Result<ExitCode> {
    if let [parent, part, options @ ..] = words
        && part == AGENT
    {
        let parent = parent.to_str().context("no process id")?.parse()?;
        // The tie to the lab outlives becoming the agent.
        die_with_parent(parent)?;
        let mut agent = Command::new("/proc/self/exe");
        agent.arg0("lacuna").arg("agent").args(options);
        return Err(agent.exec()).context("cannot become the agent");
    }
    lacuna_lab::part(words)?;
    Ok(ExitCode::from(EXIT_GOOD))
}

fn write(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the report"),
    }
}
