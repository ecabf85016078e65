// SPDX-License-Identifier: Apache-2.0
//! Which processes are looked at: by id, name, container, unit, or the port that they listen on.
//!
//! A pid may be that of any thread: its process is meant. What cannot be looked at is refused here, with
//! what it is and what to do, before anything is measured.

use std::collections::HashSet;
use std::io;

use anyhow::Result;
use anyhow::bail;
use lacuna_host::Root;
use lacuna_host::process::ProcessError;
use lacuna_host::process::ProcessFacts;
use lacuna_host::process::processes;
use lacuna_host::socket::inodes_of;
use lacuna_host::tcp::TcpSockets;
use lacuna_host::thread::ThreadStat;

/// The most processes that are looked at in one run; a name that takes more is refused, so that nothing
/// is left out silently.
pub(super) const PROCESSES_MAX: usize = 32;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Pid(u32),
    Comm(String),
    Container(String),
    Unit(String),
    /// Of a listening TCP socket.
    Port(u16),
}

/// The processes that are meant, at least one.
///
/// # Errors
/// There is none, or none that can be looked at.
pub(super) fn select(root: &Root, target: &Target) -> Result<Vec<ProcessFacts>> {
    let found = match target {
        Target::Pid(pid) => vec![by_pid(root, *pid)?],
        Target::Comm(name) => all(root, |facts| *facts.comm == **name)?,
        Target::Container(id) => all(root, |facts| {
            facts.container().is_some_and(|own| own.starts_with(&**id))
        })?,
        Target::Unit(unit) => all(root, |facts| facts.unit() == Some(unit))?,
        Target::Port(port) => by_port(root, *port)?,
    };
    match found.len() {
        0 => bail!("{}", nobody(target)),
        1..=PROCESSES_MAX => Ok(found),
        many => bail!(
            "{many} processes are meant, more than the {PROCESSES_MAX} that are looked at together: \
             take one of them with --pid"
        ),
    }
}

fn nobody(target: &Target) -> String {
    match target {
        Target::Pid(pid) => format!("there is no process {pid}"),
        Target::Comm(name) => {
            format!("no process is called {name:?} (threads of the kernel are not looked at)")
        }
        Target::Container(id) => format!("no process is in a container {id}"),
        Target::Unit(unit) => format!("no process is in the unit {unit}"),
        Target::Port(port) => format!(
            "no process that may be looked into listens on TCP port {port} (other users' need root)"
        ),
    }
}

fn by_pid(root: &Root, pid: u32) -> Result<ProcessFacts> {
    let facts = match ProcessFacts::read(root, pid) {
        Ok(facts) => facts,
        Err(ProcessError::Gone) => bail!("{}", nobody(&Target::Pid(pid))),
        Err(ProcessError::Unreadable(error)) => bail!("cannot look at process {pid}: {error}"),
    };
    let stat = ThreadStat::read(root, facts.tgid, facts.tgid);
    if stat.as_ref().is_ok_and(ThreadStat::is_ended_process) {
        bail!(
            "process {pid} ({}) has ended; only its parent has not taken it away yet",
            facts.comm
        );
    }
    if stat.is_ok_and(|stat| stat.is_kernel) {
        bail!(
            "{pid} is {}, a thread of the kernel: it has no switches of its own choice, no limits \
             and no sockets to judge",
            facts.comm
        );
    }
    Ok(facts)
}

/// Whether there is something to look at: it is not the kernel's own and has not ended.
fn is_watchable(root: &Root, facts: &ProcessFacts) -> bool {
    let stat = ThreadStat::read(root, facts.tgid, facts.tgid);
    stat.is_ok_and(|stat| !stat.is_kernel && !stat.is_ended_process())
}

/// Every process but the kernel's own, those that have ended, and this one.
fn all(root: &Root, is_meant: impl Fn(&ProcessFacts) -> bool) -> io::Result<Vec<ProcessFacts>> {
    let own = std::process::id();
    let pids = processes(root)?.into_iter().filter(|&pid| pid != own);
    let facts = pids.filter_map(|pid| ProcessFacts::read(root, pid).ok());
    let meant = facts.filter(|facts| is_meant(facts) && is_watchable(root, facts));
    Ok(meant.collect())
}

/// Those that have a listening socket of that port open, in whichever network namespace.
fn by_port(root: &Root, port: u16) -> io::Result<Vec<ProcessFacts>> {
    let mut listening: HashSet<u64> = HashSet::new();
    let mut namespaces = HashSet::new();
    let mut found = Vec::new();
    let mut candidates = all(root, |_| true)?;
    // A namespace that may not be entered has nobody that may be looked into.
    candidates.retain(|facts| facts.net_namespace.is_some());
    for facts in &candidates {
        if namespaces.insert(facts.net_namespace)
            && let Ok(sockets) = TcpSockets::of(root, facts.tgid)
        {
            let _whole = sockets.each(|socket| {
                if socket.listens() && socket.local.port() == port {
                    listening.insert(socket.inode);
                }
            });
        }
    }
    for facts in candidates {
        let inodes = inodes_of(root, facts.tgid).unwrap_or_default();
        if inodes.iter().any(|inode| listening.contains(inode)) {
            found.push(facts);
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
