// SPDX-License-Identifier: Apache-2.0
//! Lacuna: where the time of a span went that no child span explains.
//!
//! This binary is glue: `lacuna-probes` brings kernel events, `lacuna-timeline` gives them meaning,
//! `lacuna-host` knows the host. Nothing is decided here but what to ask and how to show it.

mod agent;
mod answer;
mod api;
mod ask;
mod blind;
mod cli;
mod command;
mod doctor;
mod ending;
mod engine;
mod events;
mod explain;
mod lab;
mod ladder;
mod otlp;
mod patience;
mod render;
mod run;
mod serve;

use std::process::ExitCode;

use cli::Task;

fn main() -> ExitCode {
    let task = match cli::parse() {
        Ok(task) => task,
        Err(status) => return ExitCode::from(status),
    };
    let done = match task {
        Task::Stage(arguments) => Ok(command::stage(&arguments.command)),
        Task::Blind(arguments) => blind::run(&arguments),
        Task::BlindWorker(arguments) => blind::work_for(&arguments.command),
        Task::Part(arguments) => lab::part(&arguments.command),
        Task::Bare(arguments) => command::bare(&arguments.command),
        Task::Lab(arguments) => match arguments.task {
            cli::LabTask::List(arguments) => lab::list(&arguments),
            cli::LabTask::Run(arguments) => lab::run(&arguments),
        },
        Task::Doctor(arguments) => doctor::run(&arguments),
        Task::Ladder(arguments) => ladder::run(&arguments),
        Task::Run(arguments) => return watched(arguments),
        Task::Agent(arguments) => agent::run(arguments),
        Task::Events(arguments) => return events::run(&arguments),
        Task::Explain(arguments) => ask::explain(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("lacuna: {error:#}");
        ExitCode::from(cli::EXIT_COULD_NOT_RUN)
    })
}

/// `lacuna run` says with a status of its own that Lacuna failed, as it mirrors the command's.
fn watched(arguments: cli::RunArgs) -> ExitCode {
    run::run(arguments).unwrap_or_else(|error| {
        eprintln!("lacuna: {error:#}");
        ExitCode::from(command::EXIT_LACUNA_FAILED)
    })
}
