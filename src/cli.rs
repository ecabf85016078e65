// SPDX-License-Identifier: Apache-2.0
//! The command line: what can be asked of Lacuna, parsed and checked, before anything is done.
//!
//! Texts of the help are in `cli/help.rs`, values with a grammar of their own in files of theirs.
//! Nothing is opened here but the configuration file of the agent. What cannot be understood ends
//! the program with [`EXIT_COULD_NOT_RUN`] and a message that says where (before a command of the user's
//! with 125, so that it is never mistaken for the command's own status).

mod address;
mod config;
mod duration;
mod help;
mod inject;
mod selector;
#[cfg(test)]
mod tests;
mod trace_id;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap::error::ErrorKind;

use crate::answer::RunName;
use crate::blind::WORKER;
use crate::command::EXIT_LACUNA_FAILED;
use crate::command::STAGE;
use crate::ladder::Target;

pub(crate) use address::Address;
pub(crate) use config::AgentSettings;
pub(crate) use inject::Inject;
pub(crate) use selector::Selector;
pub(crate) use selector::Watch;
pub(crate) use trace_id::TraceId;

/// Exit status: everything went well.
pub(crate) const EXIT_GOOD: u8 = 0;
/// Exit status: it ran, and found something (`doctor`, `ladder`).
pub(crate) const EXIT_FOUND: u8 = 1;
/// Exit status: it could not run.
pub(crate) const EXIT_COULD_NOT_RUN: u8 = 2;

/// Most bursts of a run of `blind`: beyond it a bar of its picture is less than a dot wide.
const BURSTS_MAX: i64 = 1_000;
/// Most hogs of `blind`; each is a process.
const HOGS_MAX: i64 = 256;

/// Longest time that `explain` may be asked to wait, seconds.
const WAIT_MAX_SECONDS: f64 = 3_600.0;

/// The whole command line.
#[derive(Parser, Debug)]
#[command(
    name = "lacuna",
    version,
    about = help::ABOUT,
    long_about = help::LONG_ABOUT,
    after_help = help::AFTER,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct CommandLine {
    #[command(subcommand)]
    task: Task,
}

/// What is asked for.
#[derive(Subcommand, Debug)]
pub(crate) enum Task {
    #[command(
        about = help::RUN,
        long_about = help::RUN_LONG,
        after_long_help = help::RUN_AFTER,
        override_usage = "lacuna run [OPTIONS] -- CMD..."
    )]
    Run(RunArgs),
    #[command(
        about = help::AGENT,
        long_about = help::AGENT_LONG,
        after_long_help = help::AGENT_AFTER
    )]
    Agent(AgentArgs),
    #[command(
        about = help::EXPLAIN,
        long_about = help::EXPLAIN_LONG,
        after_long_help = help::EXPLAIN_AFTER,
        override_usage = "lacuna explain [OPTIONS] TRACE_ID\n       lacuna explain [OPTIONS] --spans FILE"
    )]
    Explain(ExplainArgs),
    #[command(
        about = help::BLIND,
        long_about = help::BLIND_LONG,
        after_long_help = help::BLIND_AFTER
    )]
    Blind(BlindArgs),
    #[command(
        about = help::EVENTS,
        long_about = help::EVENTS_LONG,
        after_long_help = help::EVENTS_AFTER,
        override_usage = "lacuna events [OPTIONS] -- CMD...\n       lacuna events [OPTIONS] --pid PID [--for TIME]"
    )]
    Events(EventsArgs),
    #[command(
        about = help::LADDER,
        long_about = help::LADDER_LONG,
        after_long_help = help::LADDER_AFTER,
        override_usage = "lacuna ladder [OPTIONS] --pid N"
    )]
    Ladder(LadderArgs),
    #[command(
        about = help::DOCTOR,
        long_about = help::DOCTOR_LONG,
        after_long_help = help::DOCTOR_AFTER
    )]
    Doctor(DoctorArgs),
    #[command(about = help::LAB, long_about = help::LAB_LONG, after_long_help = help::LAB_AFTER)]
    Lab(LabArgs),
    /// A process of a scenario of the lab, or its agent: only `lacuna lab` starts it.
    #[command(name = lacuna_lab::PART, hide = true)]
    Part(BareArgs),
    /// A process of `lacuna blind`: only that starts it.
    #[command(name = WORKER, hide = true)]
    BlindWorker(BareArgs),
    /// The inside of a held command: only `lacuna run` starts it.
    #[command(name = STAGE, hide = true)]
    Stage(BareArgs),
    /// Holds, lets go and mirrors a command as `lacuna run` does, and watches nothing: for tests.
    #[command(name = "__bare", hide = true)]
    Bare(BareArgs),
}

/// `lacuna run`
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) format: FormatArg,
    /// Write the report to FILE instead of standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) verbose: VerboseArg,
    /// Inject faults into the loader: drop-every=N, drop-exit, skip-wakings=N (for tests of Lacuna itself)
    #[arg(long, value_name = "FAULT[,FAULT...]", hide = true, default_value = "")]
    pub(crate) inject: Inject,
    /// The command to run, and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// `lacuna agent`
#[derive(Args, Debug)]
pub(crate) struct AgentArgs {
    /// Take spans over OTLP/gRPC at ADDR [default: 127.0.0.1:4317]
    #[arg(long, value_name = "ADDR")]
    otlp_grpc: Option<Address>,
    /// Take spans over OTLP/HTTP at ADDR [default: 127.0.0.1:4318]
    #[arg(long, value_name = "ADDR")]
    otlp_http: Option<Address>,
    /// Answer questions at ADDR [default: unix:/run/lacuna/api.sock]
    #[arg(long, value_name = "ADDR")]
    api: Option<Address>,
    /// Read settings from FILE; options given here win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Record what SELECTOR selects, and nothing else (see below)
    #[arg(long, value_name = "SELECTOR", num_args = 1..)]
    watch: Vec<Selector>,
    /// Watch less above so many kernel records a second [default: 50000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    record_budget: Option<u32>,
}

/// `lacuna explain`
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    question: QuestionArgs,
    /// Where the agent answers: http://HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL", default_value = address::API_DEFAULT, value_parser = Address::parse_url)]
    pub(crate) agent: Address,
    /// Wait at most SECS until the spans can be answered completely
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = parse_wait)]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) format: FormatArg,
    #[command(flatten)]
    pub(crate) verbose: VerboseArg,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct QuestionArgs {
    /// The trace to explain: 32 hexadecimal digits
    #[arg(value_name = "TRACE_ID")]
    trace_id: Option<TraceId>,
    /// Explain the spans of an OTLP/JSON file instead ("-": standard input)
    #[arg(long, value_name = "FILE")]
    spans: Option<PathBuf>,
}

/// What `lacuna explain` is to explain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Question {
    /// A trace that the agent has received.
    Trace(TraceId),
    /// The spans of a file; `-` is standard input.
    Spans(PathBuf),
}

/// `lacuna blind`
#[derive(Args, Debug)]
pub(crate) struct BlindArgs {
    /// Bursts of work in each run
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=BURSTS_MAX))]
    pub(crate) bursts: u32,
    /// Processes that use the CPUs for nothing beside the contended run
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=HOGS_MAX))]
    pub(crate) hogs: u32,
    /// Make one of the two runs only
    #[arg(long, value_name = "RUN", value_parser = parse_run)]
    pub(crate) only: Option<RunName>,
    /// Draw the bursts as a bar chart into FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: FormatArg,
    #[command(flatten)]
    pub(crate) verbose: VerboseArg,
}

/// `lacuna events`
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) format: FormatArg,
    /// Write the report to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    subject: SubjectArgs,
    /// For how long, as in 500ms, 10s or 2m
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "10s",
        conflicts_with = "command",
        value_parser = duration::parse
    )]
    pub(crate) window: Duration,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct SubjectArgs {
    /// Count what process PID does, instead of a command
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// The command to run, and its arguments
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// What `lacuna events` is to count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EventsOf<'a> {
    /// A command, from its start to its end.
    Command(&'a [OsString]),
    /// A process that runs already.
    Process(u32),
}

impl EventsArgs {
    /// What was asked: the parser lets exactly one of the two through.
    pub(crate) fn of(&self) -> EventsOf<'_> {
        let command = EventsOf::Command(&self.subject.command);
        self.subject.pid.map_or(command, EventsOf::Process)
    }
}

/// `lacuna doctor`
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// `lacuna lab`
#[derive(Args, Debug)]
#[command(subcommand_required = true, disable_help_subcommand = true)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    pub(crate) task: LabTask,
}

/// What the lab is to do.
#[derive(Subcommand, Debug)]
pub(crate) enum LabTask {
    #[command(about = help::LAB_LIST)]
    List(LabListArgs),
    #[command(
        about = help::LAB_RUN,
        long_about = help::LAB_RUN_LONG,
        after_long_help = help::LAB_RUN_AFTER,
        override_usage = "lacuna lab run [OPTIONS] NAME...\n       lacuna lab run [OPTIONS] --all"
    )]
    Run(LabRunArgs),
}

/// `lacuna lab list`
#[derive(Args, Debug)]
pub(crate) struct LabListArgs {
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// `lacuna lab run`
#[derive(Args, Debug)]
pub(crate) struct LabRunArgs {
    /// The scenarios to run, by name
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub(crate) names: Vec<String>,
    /// Run all of them
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// Run them so often; amounts that are chosen at random are others each time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) repeat: u16,
    #[command(flatten)]
    pub(crate) format: FormatArg,
    /// Show on standard error what `lacuna explain --verbose` would say
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// Make every truth wrong (for tests of the lab itself)
    #[arg(long, hide = true)]
    pub(crate) falsify: bool,
}

/// `lacuna ladder`
#[derive(Args, Debug)]
pub(crate) struct LadderArgs {
    #[command(flatten)]
    process: ProcessArgs,
    /// Look for so long, as in 500ms, 10s or 2m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    pub(crate) window: Duration,
    #[command(flatten)]
    pub(crate) format: FormatArg,
    #[command(flatten)]
    pub(crate) verbose: VerboseArg,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct ProcessArgs {
    /// The process with that id, or with a thread of that id
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pid: Option<u32>,
    /// Every process of that name
    #[arg(long, value_name = "NAME")]
    comm: Option<String>,
    /// Every process of the container whose id begins so
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// Every process of that systemd unit
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,
    /// Every process that listens on that TCP port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

impl LadderArgs {
    /// Which processes are meant: the parser lets exactly one of the options through.
    ///
    /// # Errors
    /// A name or an id that no process can have.
    pub(crate) fn target(&self) -> Result<Target> {
        let given = &self.process;
        let selector = |kind: &str, value: &Option<String>| {
            let text = value.as_ref().map(|value| format!("{kind}:{value}"));
            text.map(|text| text.parse::<Selector>().map_err(anyhow::Error::msg))
        };
        let selectors = [
            selector("comm", &given.comm),
            selector("container", &given.container),
            selector("unit", &given.unit),
        ];
        match selectors.into_iter().flatten().next().transpose()? {
            Some(Selector::Comm(name)) => Ok(Target::Comm(name)),
            Some(Selector::Container(id)) => Ok(Target::Container(id)),
            Some(Selector::Unit(unit)) => Ok(Target::Unit(unit)),
            _ => given
                .pid
                .map(Target::Pid)
                .or(given.port.map(Target::Port))
                .context("no process is named"),
        }
    }
}

/// A command and nothing else, for the hidden tasks.
#[derive(Args, Debug)]
pub(crate) struct BareArgs {
    /// The command, and its arguments.
    #[arg(required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// `--format`
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct FormatArg {
    /// Text for people, or JSON with a stable schema
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// How an answer is written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[value(rename_all = "lower")]
pub(crate) enum Format {
    Text,
    Json,
}

/// `--verbose`
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct VerboseArg {
    /// Show public names, exact nanoseconds and all evidence; shorten nothing
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

impl ExplainArgs {
    /// What was asked: the parser lets exactly one of the two through.
    pub(crate) fn question(&self) -> Option<Question> {
        let trace = self.question.trace_id.clone().map(Question::Trace);
        trace.or_else(|| self.question.spans.clone().map(Question::Spans))
    }
}

/// Parses this program's command line. `Err`: there is nothing to do but to end with that status;
/// the help that was asked for, or what is wrong, has been printed.
pub(crate) fn parse() -> Result<Task, u8> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // What is wrong before a command of the user's is never mistaken for that command's own status.
    let for_command = match arguments.get(1).and_then(|task| task.to_str()) {
        Some("run") => true,
        Some("events") => arguments.iter().any(|word| word == "--"),
        _ => false,
    };
    CommandLine::try_parse_from(arguments)
        .map(|line| line.task)
        .map_err(|error| {
            // Where not even that can be written, the status still says it.
            let _ = error.print();
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => EXIT_GOOD,
                _ if for_command => EXIT_LACUNA_FAILED,
                _ => EXIT_COULD_NOT_RUN,
            }
        })
}

fn parse_run(text: &str) -> Result<RunName, String> {
    match text {
        "quiet" => Ok(RunName::Quiet),
        "contended" => Ok(RunName::Contended),
        _ => Err("must be quiet or contended".to_owned()),
    }
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.0..=WAIT_MAX_SECONDS).contains(&seconds) {
        return Err(format!("must be from 0 to {WAIT_MAX_SECONDS} seconds"));
    }
    Ok(Duration::from_secs_f64(seconds))
}
