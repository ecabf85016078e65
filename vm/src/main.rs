// SPDX-License-Identifier: Apache-2.0
//! The kernel matrix: boots each kernel of `vm/kernels.toml` under QEMU and runs Lacuna's tests in it.
//!
//! `make matrix` is how it is used; this program takes what cargo has built and what the list says,
//! and decides. Needs root and, the first time, the network. It promises that nothing is skipped
//! silently: a kernel that cannot be had, a stage that did not end and a test that did not run fail it.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

mod document;
mod ending;
mod fetch;
mod guest;
mod hang;
mod image;
mod judge;
mod libtest;
mod list;
mod matrix;
mod plan;
mod record;
mod show;
mod side;
mod stream;
mod targets;
mod ticks;
mod tool;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use clap::Subcommand;

use crate::guest::End;
use crate::guest::Job;
use crate::list::List;
use crate::stream::Stream;

/// What a guest that died or hung is reported as, where its command's status would be.
const EXIT_GUEST: u8 = 125;

/// Boots kernels under QEMU and runs Lacuna's tests in them.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs what the list says.
    Matrix(MatrixArgs),
    /// Gets kernels and makes them ready, and boots nothing: for a machine that will lose its network.
    Fetch {
        /// Names of kernels, or `newest`; all by default.
        kernels: Vec<String>,
    },
    /// Writes docs/kernels.md anew, from the list and what the last runs have shown.
    Document,
    /// Runs one command in a guest that sees this machine's files; its exit status is the command's.
    Run {
        /// Name of the kernel, or `newest`.
        kernel: String,
        /// Which boot of the list.
        #[arg(long, default_value = "plain")]
        boot: String,
        /// Seconds after which the command is ended.
        #[arg(long, default_value_t = 300)]
        limit: u64,
        /// The command; it starts in this folder, and what it writes to files is lost.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// Which part of the matrix to run; all of it by default.
#[derive(clap::Args)]
struct MatrixArgs {
    /// Names of kernels, or `newest`.
    kernels: Vec<String>,
    /// Only this boot; may be repeated.
    #[arg(long = "boot")]
    boots: Vec<String>,
    /// Only this stage; may be repeated.
    #[arg(long = "stage")]
    stages: Vec<String>,
    /// Not this stage on this kernel; may be repeated.
    #[arg(long, value_name = "KERNEL/STAGE")]
    leave_out: Vec<String>,
    /// Write what was shown to vm/recorded.json and docs/kernels.md, instead of failing where the
    /// document claims more than was shown.
    #[arg(long)]
    record: bool,
    /// What cargo said when it built, from the root of the repository.
    #[arg(long, default_value = "target/vm/cargo.json")]
    built: PathBuf,
}

fn main() -> ExitCode {
    let what = Args::parse().what;
    let done = ending::clean_up_at_signals().and_then(|()| perform(what));
    done.unwrap_or_else(|error| {
        eprintln!("lacuna-vm: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform(what: What) -> Result<ExitCode> {
    match what {
        What::Matrix(args) => matrix::run(&args, &root()),
        What::Document => matrix::document(&root()),
        What::Fetch { kernels } => matrix::fetch(&kernels, &root()),
        What::Run {
            kernel,
            boot,
            limit,
            command,
        } => run(&kernel, &boot, Duration::from_secs(limit), command),
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Where kernels are kept: made if need be, and named without symbolic links, which the guest would
/// follow into its own files.
fn cache(root: &Path) -> Result<PathBuf> {
    let cache = root.join(".cache/kernels");
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    fs::canonicalize(&cache).with_context(|| cache.display().to_string())
}

fn run(kernel: &str, boot: &str, limit: Duration, command: Vec<String>) -> Result<ExitCode> {
    let root = root();
    let list = List::read(&root.join(matrix::LIST))?;
    let image = matrix::image(list.kernel(kernel)?, &cache(&root)?)?;
    let job = Job {
        stage: "command".to_owned(),
        limit,
        folder: std::env::current_dir().context("no folder to start in")?,
        command,
    };
    // A stream of its own, to show the command's output while it comes and nothing else.
    let mut seen = Stream::new(&guest::mark());
    let mut shown = 0;
    let outcome = guest::run(&image, list.boot(boot)?, &[job], &mut |bytes| {
        seen.push(bytes);
        let text = seen.parts.first().map_or("", |part| &part.text);
        print!("{}", text.get(shown..).unwrap_or_default());
        let _ = std::io::stdout().flush();
        shown = text.len();
    })?;
    for text in outcome.err.values() {
        eprint!("{text}");
    }
    if outcome.end != End::Done {
        eprintln!("{}\nlacuna-vm: {:?}", outcome.last_words(), outcome.end);
        return Ok(ExitCode::from(EXIT_GUEST));
    }
    let status = outcome.out.first().and_then(|part| part.status);
    let status = status.and_then(|status| u8::try_from(status).ok());
    Ok(ExitCode::from(status.unwrap_or(EXIT_GUEST)))
}
