// SPDX-License-Identifier: Apache-2.0
//! `lacuna run`: a command under observation, and at its end where its time went.
//!
//! The command is held before its first instruction until the probes watch it, so nothing of it is
//! missed. Its records go through the same recorder and account as an agent's. A command that
//! outlives the recorder's memory is accounted piece by piece, always up to a switch-in, so that no
//! wait is cut in two.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use lacuna_host::Root;
use lacuna_probes::Config;
use lacuna_probes::FaultPlan;
use lacuna_probes::Watch;
use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::ThreadId;
use lacuna_timeline::account::Account;
use lacuna_timeline::event::ThreadInfo;
use lacuna_timeline::recorder::BUDGET_BYTES;
use lacuna_timeline::recorder::Recorder;

use crate::answer::FaultCounts;
use crate::answer::RunReport;
use crate::answer::RunSchema;
use crate::answer::RunTotal;
use crate::answer::Switches;
use crate::answer::ThreadReport;
use crate::answer::UnixNs;
use crate::cli::Format;
use crate::cli::Inject;
use crate::cli::RunArgs;
use crate::command;
use crate::command::Ended;
use crate::engine::Feed;
use crate::engine::Shared;
use crate::engine::Watcher;
use crate::explain::Names;
use crate::explain::causes;
use crate::render;
use crate::render::Style;

/// Recorder memory in use from which on the past is accounted and may be forgotten.
const ACCOUNT_FROM_BYTES: usize = BUDGET_BYTES / 2;

/// Threads of which a report speaks; the time of further ones is in the total only, and how many
/// they were is said.
const THREADS_MAX: usize = 65_536;

/// Runs the command and reports. The exit status is the command's.
///
/// # Errors
/// Lacuna itself failed (125); the command was not run, or ran to its end.
pub(crate) fn run(args: RunArgs) -> Result<ExitCode> {
    // Opened first: a report that cannot be written is not worth running a command for.
    let output = args.output.as_deref().map(open).transpose()?;
    let root = Root::host();
    let shared = Arc::new(Shared::new(&root, Recorder::new(BUDGET_BYTES))?);
    let config = Config {
        watch: Watch::Selected,
        ignore_tgid: Some(std::process::id()),
        faults: faults(&args.inject),
        ..Config::default()
    };
    let mut feed = Feed::load(&config, Watcher::fixed(&root), shared.clone())?;
    let held = command::hold(&args.command)?;
    feed.probes().watch_descendants(held.pid)?;
    let mut ledger = Ledger::default();
    feed.confirm(&mut |event| ledger.see(event))?;
    let leader = held.pid;
    let mut running = held.release()?;
    ledger.began = running.released_ns;
    let ended = loop {
        feed.turn(&mut |event| ledger.see(event))?;
        if let Some(ended) = running.wait_for(Duration::ZERO)? {
            break ended;
        }
        let recorder = shared.recorder();
        if recorder.stats().bytes > ACCOUNT_FROM_BYTES {
            ledger.account_past(&recorder);
        }
    };
    feed.confirm(&mut |event| ledger.see(event))?;
    let report = ledger.report(&args, leader, &ended, &shared);
    show(&args, output, &report)?;
    Ok(command::exit_as(ended.status))
}

fn faults(inject: &Inject) -> FaultPlan {
    let every = |n: Option<std::num::NonZeroU32>| n.map_or(0, std::num::NonZeroU32::get);
    FaultPlan {
        drop_every: every(inject.drop_every),
        drop_exits: inject.drop_exit,
        skip_wakings_every: every(inject.skip_wakings),
        ..FaultPlan::default()
    }
}

fn open(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write the report to {}", path.display()))
}

fn show(args: &RunArgs, output: Option<File>, report: &RunReport) -> Result<()> {
    let verbose = args.verbose.verbose;
    let style = match output {
        None => Style::of(&std::io::stderr(), verbose),
        Some(_) => Style {
            verbose,
            ..Style::default()
        },
    };
    let text = match args.format.format {
        Format::Json => render::json(report)?,
        Format::Text => render::run(report, style),
    };
    match output {
        Some(mut file) => file
            .write_all(text.as_bytes())
            .context("cannot write the report"),
        // Whoever reads standard error may be gone by now; the command's status still counts.
        None => {
            let _ = std::io::stderr().write_all(text.as_bytes());
            Ok(())
        }
    }
}

/// A thread is made and then first made runnable, a command is let go and then comes on a CPU: its
/// time begins with the second, as long as that is not later than this. Later only means that its
/// first records were lost, and then that time is `unknown`.
const START_WITHIN_NS: Ns = 1_000_000_000;

/// What is known of the command's threads so far.
#[derive(Default)]
struct Ledger {
    began: Ns,
    /// Everybody who was seen; only those with records are the command's.
    names: BTreeMap<ThreadId, ThreadInfo>,
    threads: BTreeMap<ThreadId, Past>,
    /// Threads that there was no room for.
    beyond: u64,
}

/// A thread's past: what has been accounted, and up to where it could be.
#[derive(Default)]
struct Past {
    account: Account,
    /// Everything before is in `account`; 0: nothing is.
    until: Ns,
    /// Its latest switch-in that has been recorded.
    last_in: Ns,
    /// Of the first thread: the switch-in that ended its wait to be let go.
    let_go: Option<Ns>,
}

impl Ledger {
    /// Notes who has records. Only watched threads have any.
    fn see(&mut self, event: &Event) {
        let (thread, last_in) = match event {
            Event::Thread(info) => {
                self.names.insert(info.thread, info.clone());
                return;
            }
            Event::Cycle(cycle) => (cycle.thread, cycle.end),
            Event::Merged(merged) => (merged.thread, merged.end),
            Event::Exit(exit) => (exit.thread, 0),
            Event::Snapshot(snapshot) => (snapshot.thread, 0),
            _ => return,
        };
        if self.threads.len() >= THREADS_MAX && !self.threads.contains_key(&thread) {
            self.beyond += 1;
            return;
        }
        let past = self.threads.entry(thread).or_default();
        past.last_in = past.last_in.max(last_in);
        if let Event::Cycle(cycle) = event
            && (cycle.off.at..cycle.end).contains(&self.began)
        {
            past.let_go.get_or_insert(cycle.end);
        }
    }

    /// When a thread's time begins: when it is first made runnable; the first thread's, when it
    /// first comes on a CPU after the command was let go.
    fn began(&self, thread: ThreadId) -> Ns {
        let past = self.threads.get(&thread);
        if let Some(let_go) = past.and_then(|past| past.let_go) {
            return let_go;
        }
        let Some(info) = self.names.get(&thread) else {
            return self.began;
        };
        let made = info.start_ns.max(self.began);
        match info.since.saturating_sub(made) < START_WITHIN_NS {
            true => made.max(info.since),
            false => made,
        }
    }

    /// Accounts every thread up to its latest switch-in.
    fn account_past(&mut self, recorder: &Recorder) {
        let ids: Vec<ThreadId> = self.threads.keys().copied().collect();
        for thread in ids {
            let began = self.began(thread);
            let Some(past) = self.threads.get_mut(&thread) else {
                continue;
            };
            let window = past.until.max(began)..past.last_in;
            if window.start < window.end {
                past.until = window.end;
                past.account.add(&recorder.account(thread, &[window]));
            }
        }
    }

    fn report(&mut self, args: &RunArgs, leader: u32, ended: &Ended, shared: &Shared) -> RunReport {
        let recorder = shared.recorder();
        let names = Names {
            recorder: &recorder,
            cgroups: &shared.cgroups,
        };
        // The record of its end is exact; that its parent noticed came later.
        let is_leader = |thread: &&ThreadId| {
            let info = self.names.get(thread);
            info.is_some_and(|info| info.tid == leader && info.process.tgid == leader)
        };
        let first = self
            .threads
            .keys()
            .copied()
            .find(|thread| is_leader(&thread));
        let end = first
            .and_then(|thread| recorder.ended(thread))
            .unwrap_or(ended.ended_ns);
        let start = first.map_or(self.began, |thread| self.began(thread));
        let mut total = Account::default();
        let mut threads = Vec::new();
        for (&thread, past) in &self.threads {
            let began = self.began(thread);
            let until = recorder.ended(thread).unwrap_or(end).min(end);
            let mut account = past.account.clone();
            let window = past.until.max(began)..until;
            if window.start < window.end {
                let rest = recorder.account(thread, &[window]);
                if past.until == 0 {
                    account = rest;
                } else {
                    account.add(&rest);
                }
            }
            total.add(&account);
            threads.push(self.thread_report(thread, began, &account, &names, shared));
        }
        threads.sort_by_key(|thread: &ThreadReport| (thread.start_unix_ns, thread.tid));
        let report = RunReport {
            schema: RunSchema::default(),
            command: args
                .command
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            exit_status: command::shell_status(ended.status),
            wall_ns: end.saturating_sub(start),
            total: RunTotal {
                wall_ns: total.wall_ns,
                causes: causes(&total, &names),
            },
            threads,
            lost_records: shared.lost_records.load(Ordering::Relaxed),
        };
        if let Err(violation) = report.check() {
            eprintln!("lacuna: a sum does not hold, which is a defect of lacuna: {violation}");
        }
        report
    }

    fn thread_report(
        &self,
        thread: ThreadId,
        began: Ns,
        account: &Account,
        names: &Names<'_>,
        shared: &Shared,
    ) -> ThreadReport {
        let info = self.names.get(&thread);
        let counts = &account.counts;
        ThreadReport {
            tid: info.map_or(0, |info| info.tid),
            pid: info.map_or(0, |info| info.process.tgid),
            comm: info.map_or(String::new(), |info| info.comm.to_string()),
            start_unix_ns: UnixNs(shared.clock.to_unix(began)),
            wall_ns: account.wall_ns,
            causes: causes(account, names),
            switches: Switches {
                voluntary: counts.voluntary,
                involuntary: counts.involuntary,
            },
            faults: FaultCounts {
                minor: counts.faults.minor.into(),
                major: counts.faults.major.into(),
            },
            migrations: counts.migrations,
        }
    }
}
