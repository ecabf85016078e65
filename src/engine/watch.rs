// SPDX-License-Identifier: Apache-2.0
//! Whose switches are recorded: everything while that is cheap, then those that matter (rule 16).
//!
//! `auto` watches the whole host while its record rate is under a budget (`budget.rs`), and over it
//! the processes that send spans. A narrowed agent says so in `unknown`, reason `not-watched`; it
//! never fills in.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use lacuna_host::process::ProcessFacts;
use lacuna_host::process::processes;
use lacuna_host::root::Root;
use lacuna_probes::Probes;
use lacuna_probes::Watch as Scope;
use lacuna_timeline::event::ThreadInfo;

use crate::cli::Selector;
use crate::cli::Watch;

use super::budget::Budget;
use super::budget::Level;
use super::shared::Shared;

/// How often the rate is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many new processes wait to be held against the selectors; one more is held against them
/// at its next rename or exec only, and counted.
const NEW_MAX: usize = 4_096;

/// Decides whose switches are recorded.
pub(crate) struct Watcher {
    root: Root,
    plan: Plan,
    new: Vec<u32>,
    started: bool,
}

enum Plan {
    Auto(Auto),
    Selected(Vec<Selector>),
    /// Set once by the caller and left alone (`run`).
    Fixed,
}

/// What has been counted since the last look.
struct Auto {
    budget: Budget,
    records: u64,
    switches: Option<u64>,
    looked: Instant,
}

impl Watcher {
    /// What the agent was told to watch.
    pub(crate) fn new(root: &Root, watch: Watch, budget_per_second: u64) -> Watcher {
        let plan = match watch {
            Watch::Selected(selectors) if !selectors.contains(&Selector::All) => {
                Plan::Selected(selectors)
            }
            Watch::Selected(_) => Plan::Fixed,
            Watch::Auto => Plan::Auto(Auto {
                budget: Budget::new(budget_per_second),
                records: 0,
                switches: None,
                looked: Instant::now(),
            }),
        };
        Watcher {
            root: root.clone(),
            plan,
            new: Vec::new(),
            started: false,
        }
    }

    /// Leaves whatever the probes were loaded with.
    pub(crate) fn fixed(root: &Root) -> Watcher {
        Watcher {
            root: root.clone(),
            plan: Plan::Fixed,
            new: Vec::new(),
            started: false,
        }
    }

    /// What the probes are to be loaded with.
    pub(crate) fn scope(&self) -> Scope {
        match self.plan {
            Plan::Selected(_) => Scope::Selected,
            Plan::Auto(_) | Plan::Fixed => Scope::All,
        }
    }

    /// A thread appeared or changed its name.
    pub(super) fn seen(&mut self, info: &ThreadInfo) {
        if matches!(self.plan, Plan::Selected(_)) && self.new.len() < NEW_MAX {
            self.new.push(info.tid);
        }
    }

    /// Records were drained: keeps the budget, and holds new processes against the selectors.
    pub(super) fn drained(
        &mut self,
        records: u64,
        probes: &mut Probes,
        shared: &Shared,
    ) -> Result<()> {
        let mut named = shared.take_to_watch();
        named.sort_unstable();
        named.dedup();
        match &mut self.plan {
            Plan::Fixed => {}
            Plan::Auto(auto) => {
                watch_all(&self.root, &named, probes, shared)?;
                auto.records += records;
                if auto.looked.elapsed() >= LOOK_EVERY {
                    auto.look(&self.root, probes)?;
                }
            }
            Plan::Selected(selectors) => {
                let mut new = std::mem::take(&mut self.new);
                if !std::mem::replace(&mut self.started, true) {
                    new.extend(processes(&self.root)?);
                }
                for pid in new {
                    if select(&self.root, selectors, pid, probes).is_err() {
                        forget_ended(&self.root, probes)?;
                        let selected = select(&self.root, selectors, pid, probes);
                        shared.tally().unwatched += u64::from(selected.is_err());
                    }
                }
            }
        }
        Ok(())
    }
}

impl Auto {
    fn look(&mut self, root: &Root, probes: &mut Probes) -> Result<()> {
        let now = context_switches(root);
        let switches = now
            .zip(self.switches)
            .map(|(now, was)| now.saturating_sub(was));
        let level = self
            .budget
            .look(self.records, switches, self.looked.elapsed());
        (self.records, self.switches, self.looked) = (0, now, Instant::now());
        match level {
            None => {}
            Some(Level::Everything) => {
                probes.set_merge_short(false)?;
                probes.set_watch(Scope::All)?;
            }
            Some(Level::Senders) => probes.set_watch(Scope::Selected)?,
            Some(Level::SendersMerged) => probes.set_merge_short(true)?,
        }
        Ok(())
    }
}

/// The host's context switches since boot (`ctxt` of `/proc/stat`).
fn context_switches(root: &Root) -> Option<u64> {
    let stat = root.read("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("ctxt "))?;
    line.trim().parse().ok()
}

/// Watches processes that were named. The kernel's table of them has a limit; there those that have
/// ended make room, and where that is not enough, it is counted.
fn watch_all(root: &Root, named: &[u32], probes: &mut Probes, shared: &Shared) -> Result<()> {
    let mut refused = named.to_vec();
    refused.retain(|&tgid| probes.watch_process(tgid).is_err());
    if !refused.is_empty() {
        forget_ended(root, probes)?;
        refused.retain(|&tgid| probes.watch_process(tgid).is_err());
    }
    shared.tally().unwatched += refused.len() as u64;
    Ok(())
}

/// Takes processes that have ended out of the selection.
fn forget_ended(root: &Root, probes: &mut Probes) -> Result<()> {
    for tgid in probes.watched_processes() {
        if !root.path(format!("/proc/{tgid}")).exists() {
            probes.unwatch_process(tgid)?;
        }
    }
    Ok(())
}

/// Watches a process if any selector takes it. One that has ended meanwhile is none.
fn select(root: &Root, selectors: &[Selector], pid: u32, probes: &mut Probes) -> Result<()> {
    let Ok(facts) = ProcessFacts::read(root, pid) else {
        return Ok(());
    };
    if let Some(selector) = selectors.iter().find(|one| takes(one, &facts, root, pid)) {
        match selector {
            Selector::Pid(_) => probes.watch_descendants(facts.tgid)?,
            _ => probes.watch_process(facts.tgid)?,
        }
    }
    Ok(())
}

fn takes(selector: &Selector, facts: &ProcessFacts, root: &Root, pid: u32) -> bool {
    match selector {
        Selector::All => true,
        Selector::Pid(wanted) => wanted.get() == facts.tgid,
        Selector::Comm(name) => {
            let thread = root.read(format!("/proc/{pid}/comm"));
            *name == *facts.comm || thread.is_ok_and(|comm| comm.trim_end_matches('\n') == name)
        }
        Selector::Cgroup(path) => facts
            .cgroup
            .all()
            .any(|own| std::path::Path::new(own).starts_with(path)),
        Selector::Container(id) => facts
            .container()
            .is_some_and(|container| container.starts_with(id.as_str())),
        Selector::Pod(uid) => facts.cgroup.pod().is_some_and(|pod| pod == *uid),
        Selector::Unit(unit) => facts.unit() == Some(unit),
    }
}
