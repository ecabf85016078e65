// SPDX-License-Identifier: Apache-2.0
//! Lacuna: where the time of a span went that no child span explains.
//!
//! This binary is glue: `lacuna-probes` brings kernel events, `lacuna-timeline` gives them meaning,
//! `lacuna-host` knows the host. Nothing is decided here but what to ask and how to show it.

mod answer;
mod api;
mod cli;
mod command;
mod otlp;
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
        Task::Bare(arguments) => command::bare(&arguments.command),
        Task::Run(_) | Task::Agent(_) | Task::Explain(_) | Task::Doctor(_) => {
            Err(anyhow::anyhow!("this command is not part of this build"))
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("lacuna: {error:#}");
        ExitCode::from(cli::EXIT_COULD_NOT_RUN)
    })
}
