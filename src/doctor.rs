// SPDX-License-Identifier: Apache-2.0
//! `lacuna doctor`: what works on this host, what does not, what that costs, and what to do.
//!
//! Every check answers three questions: what was found, which causes it costs (by public name), and
//! what would bring them back. What can be tried is tried (each hook is loaded and attached, a
//! connection is looked up) instead of being inferred from a version. Everything that is read below
//! `/proc` and `/sys` comes through a [`Root`], so that tests can present other hosts. Nothing is
//! changed on the host, and no fix is applied.

mod checks;
mod hooks;
mod kernel;
mod obstacle;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use obstacle::obstacle;

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use lacuna_host::Root;
use lacuna_host::clock::Clock;
use lacuna_host::socket::ConnectionOwners;
use lacuna_probes::HookReport;
use lacuna_probes::KernelFacts;
use lacuna_timeline::Cause;
use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::cli::EXIT_FOUND;
use crate::cli::EXIT_GOOD;
use crate::cli::Format;
use crate::render;
use crate::render::Style;

/// How long the trial connection to this process itself may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// `lacuna.doctor/1` of the contract.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Report {
    /// Always `lacuna.doctor/1`.
    schema: &'static str,
    /// The kernel's release, empty if it cannot be told.
    kernel: String,
    /// In the order in which one thing builds on another.
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Check {
    name: String,
    status: Status,
    /// What was found.
    why: String,
    /// Public names of the causes that cannot be told on this host because of it. Empty but for
    /// [`Status::Missing`].
    costs: Vec<&'static str>,
    /// What would help; empty where nothing needs to.
    fix: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// Every cause can still be told; what is weaker instead is said.
    Degraded,
    /// Causes cannot be told.
    Missing,
}

impl Check {
    fn ok(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status: Status::Ok,
            why: why.into(),
            costs: Vec::new(),
            fix: String::new(),
        }
    }

    fn degraded(name: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            status: Status::Degraded,
            fix: fix.into(),
            ..Self::ok(name, why)
        }
    }

    fn missing(
        name: impl Into<String>,
        why: impl Into<String>,
        costs: impl IntoIterator<Item = Cause>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Missing,
            costs: costs.into_iter().map(Cause::name).collect(),
            fix: fix.into(),
            ..Self::ok(name, why)
        }
    }
}

/// Every cause that says something: all but `unknown`, which is what is left without them.
fn every_cause() -> impl Iterator<Item = Cause> {
    Cause::all().filter(|&cause| cause != Cause::Unknown)
}

/// What was tried on the running host, beside what its files say.
struct Trials {
    /// Each hook, loaded and attached.
    hooks: Vec<HookReport>,
    /// What the probes make of this kernel.
    kernel: Result<KernelFacts, String>,
    /// Half-width of the error between the two clocks, nanoseconds.
    clock_error_ns: Result<u64, String>,
    /// Whether the owner of a connection was found.
    connection_owner: Result<(), String>,
}

impl Trials {
    fn make(root: &Root) -> Self {
        Self {
            hooks: lacuna_probes::try_each_hook(),
            kernel: lacuna_probes::kernel_facts().map_err(|error| error.to_string()),
            clock_error_ns: Clock::new()
                .map(|clock| clock.history().error_ns())
                .map_err(|error| error.to_string()),
            connection_owner: find_own_connection(root),
        }
    }
}

impl Report {
    /// Looks at everything.
    fn make(root: &Root, trials: &Trials) -> Self {
        let kernel = lacuna_host::sys::KernelVersion::read(root);
        let mut checks = vec![
            checks::kernel_version(kernel.as_ref()),
            checks::type_information(root),
            checks::lockdown(root),
            checks::capabilities(root, kernel.as_ref()),
            checks::more_capabilities(root),
            checks::locked_memory(root, kernel.as_ref()),
            checks::processes(root),
        ];
        checks.extend(trials.hooks.iter().map(hooks::check));
        checks.extend(kernel::checks(&trials.kernel));
        checks.extend([
            checks::kernel_symbols(root),
            checks::control_groups(root),
            checks::scheduler(root),
            checks::clocks(root, &trials.clock_error_ns),
            checks::connection_owner(&trials.connection_owner),
            checks::delay_accounting(root),
            checks::pressure(root),
        ]);
        Self {
            schema: "lacuna.doctor/1",
            kernel: kernel.map(|kernel| kernel.to_string()).unwrap_or_default(),
            checks,
        }
    }

    /// Whether something is missing that costs a cause.
    fn costs_a_cause(&self) -> bool {
        self.checks.iter().any(|check| !check.costs.is_empty())
    }
}

/// Runs `lacuna doctor`. The status says whether something is missing that costs a cause.
///
/// # Errors
/// The report could not be written.
pub(crate) fn run(arguments: &DoctorArgs) -> Result<ExitCode> {
    let root = Root::host();
    let trials = with_notice("trying each hook of the kernel ...", || Trials::make(&root));
    let report = Report::make(&root, &trials);
    let stdout = io::stdout();
    let text = match arguments.format.format {
        Format::Json => render::json(&report).context("writing the report")?,
        Format::Text => text::render(&report, Style::of(&stdout, false)),
    };
    stdout
        .lock()
        .write_all(text.as_bytes())
        .context("writing the report")?;
    let status = if report.costs_a_cause() {
        EXIT_FOUND
    } else {
        EXIT_GOOD
    };
    Ok(ExitCode::from(status))
}

/// Says on a terminal what takes some seconds, and takes it back when it is done.
fn with_notice<T>(words: &str, work: impl FnOnce() -> T) -> T {
    let mut stderr = io::stderr();
    let people = stderr.is_terminal();
    let mut show = |text: &str| {
        if people {
            // A notice that cannot be shown changes nothing.
            let _ = stderr.write_all(text.as_bytes());
        }
    };
    show(words);
    let done = work();
    show(&format!("\r{:width$}\r", "", width = words.len()));
    done
}

/// Connects to this process itself over loopback and looks for the other end's owner, as for every
/// exporting connection.
fn find_own_connection(root: &Root) -> Result<(), String> {
    let connect = || -> io::Result<(TcpStream, TcpStream, SocketAddr, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect_timeout(&listener.local_addr()?, TRIAL_TIMEOUT)?;
        let (accepted, peer) = listener.accept()?;
        let local = accepted.local_addr()?;
        Ok((client, accepted, local, peer))
    };
    let (_client, _accepted, local, peer) = connect().map_err(|error| error.to_string())?;
    let owners = ConnectionOwners::new(root.clone()).owners(local, peer);
    let owners = owners.map_err(|error| error.to_string())?;
    let own = std::process::id();
    if owners.holders.iter().any(|holder| holder.tgid == own) {
        return Ok(());
    }
    Err("the socket was found, and no process that has it open".to_owned())
}
