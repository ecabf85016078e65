// SPDX-License-Identifier: Apache-2.0
//! Which process a span came from (rule 15 of the design): from the connection that carried it, and
//! from what its resource claims, as far as that may be believed.
//!
//! Anybody can send a span with somebody else's pid. So the connection's own socket decides; a claim
//! is only honoured where it is the owner of that socket, or shares its user and container. A
//! connection over which two services speak is a collector's, and then the owner says nothing. A
//! wrong process is worse than none: every doubt ends in [`Origin::Unknown`] with its reason.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use lacuna_host::process::PeerCredentials;
use lacuna_host::process::ProcessFacts;
use lacuna_host::process::is_forked_worker_of;
use lacuna_host::root::Root;
use lacuna_host::socket::ConnectionOwners;

use crate::serve::Connection;
use crate::serve::Peer;

/// How many connections are remembered; the oldest are forgotten first and looked up again.
const CONNECTIONS_MAX: usize = 4096;

/// How many different claims over one connection are remembered; at the limit all are forgotten.
const CLAIMS_MAX: usize = 64;

/// How long what was decided holds: then the process may have ended, or become another program.
const DECISION_LIFETIME: Duration = Duration::from_secs(10);

/// What a span's resource says of its process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Claim<'a> {
    /// `service.instance.id`, or `service.name` where that is missing.
    pub(crate) identity: &'a str,
    /// `process.pid`, in the process's own pid namespace.
    pub(crate) pid: Option<u32>,
    /// `process.executable.name`, or empty.
    pub(crate) executable: &'a str,
    /// `telemetry.sdk.language`, or empty.
    pub(crate) language: &'a str,
}

/// The same, to be remembered.
#[derive(PartialEq, Eq, Hash)]
struct OwnedClaim {
    identity: Box<str>,
    pid: Option<u32>,
    executable: Box<str>,
    language: Box<str>,
}

impl OwnedClaim {
    fn of(claim: &Claim<'_>) -> OwnedClaim {
        OwnedClaim {
            identity: claim.identity.into(),
            pid: claim.pid,
            executable: claim.executable.into(),
            language: claim.language.into(),
        }
    }
}

/// Where a span came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// This process.
    Process(Arc<ProcessFacts>),
    /// It cannot be said.
    Unknown(WhyUnknown),
}

/// Why a process cannot be named.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum WhyUnknown {
    /// The other end of the connection is not a process of this host that we can see.
    NoOwner,
    /// Several processes hold the connection, and nothing says which of them speaks.
    SeveralOwners,
    /// Several services speak over one connection: its owner is a collector.
    Collector,
    /// The owner is not a program of the kind that the span says it comes from.
    OtherProgram,
    /// The claimed pid is neither the owner nor of its user and container.
    ClaimRefused,
}

impl WhyUnknown {
    /// A fixed word for counters and answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            WhyUnknown::NoOwner => "no-owner",
            WhyUnknown::SeveralOwners => "several-owners",
            WhyUnknown::Collector => "collector",
            WhyUnknown::OtherProgram => "other-program",
            WhyUnknown::ClaimRefused => "claim-refused",
        }
    }
}

/// What is known of one connection.
struct Known {
    owners: Vec<ProcessFacts>,
    identity: Box<str>,
    collector: bool,
    /// What was decided over it, and when: to look for a claimed process takes milliseconds.
    decided: HashMap<OwnedClaim, (Instant, Origin)>,
}

/// The origins of the spans that come in, by connection.
pub(crate) struct Origins {
    root: Root,
    owners: ConnectionOwners,
    known: HashMap<u64, Known>,
}

impl Origins {
    /// Knows nothing yet; `root` is where `/proc` is.
    pub(crate) fn new(root: Root) -> Origins {
        Origins {
            owners: ConnectionOwners::new(root.clone()),
            root,
            known: HashMap::new(),
        }
    }

    /// The process that a span with this resource, over this connection, came from.
    pub(crate) fn of(&mut self, connection: &Connection, claim: &Claim<'_>) -> Origin {
        match connection.peer {
            Peer::Tcp { local, peer } => self.over_tcp(connection.number, local, peer, claim),
            Peer::Unix { pid, uid, .. } => self.asked(PeerCredentials { uid, pid }, claim),
        }
    }

    /// A question over the Unix socket: its peer may claim any process that it could look into.
    fn asked(&self, peer: PeerCredentials, claim: &Claim<'_>) -> Origin {
        let Some(claimed) = claim.pid else {
            return Origin::Unknown(WhyUnknown::NoOwner);
        };
        let Ok(target) = ProcessFacts::read(&self.root, claimed) else {
            return Origin::Unknown(WhyUnknown::NoOwner);
        };
        if peer.may_ask_about(&self.root, &target) {
            Origin::Process(Arc::new(target))
        } else {
            Origin::Unknown(WhyUnknown::ClaimRefused)
        }
    }

    fn over_tcp(
        &mut self,
        number: u64,
        local: SocketAddr,
        peer: SocketAddr,
        claim: &Claim<'_>,
    ) -> Origin {
        if !self.known.contains_key(&number) {
            self.remember(number, local, peer, claim);
        }
        let Some(known) = self.known.get_mut(&number) else {
            return Origin::Unknown(WhyUnknown::NoOwner);
        };
        if !known.collector && *known.identity != *claim.identity {
            known.collector = true;
            known.decided.clear();
        }
        let owned = OwnedClaim::of(claim);
        if let Some((at, origin)) = known.decided.get(&owned)
            && at.elapsed() < DECISION_LIFETIME
        {
            return origin.clone();
        }
        let origin = decide(&self.root, &known.owners, known.collector, claim);
        if known.decided.len() >= CLAIMS_MAX {
            known.decided.clear();
        }
        let decided = (Instant::now(), origin.clone());
        known.decided.insert(owned, decided);
        origin
    }

    fn remember(&mut self, number: u64, local: SocketAddr, peer: SocketAddr, claim: &Claim<'_>) {
        if self.known.len() >= CONNECTIONS_MAX {
            // Connection numbers only grow, so the smallest are the oldest.
            let mut numbers: Vec<u64> = self.known.keys().copied().collect();
            numbers.sort_unstable();
            for old in &numbers[..CONNECTIONS_MAX / 2] {
                self.known.remove(old);
            }
        }
        let owners = match self.owners.owners(local, peer) {
            Ok(owners) if owners.complete => owners.holders,
            _ => Vec::new(),
        };
        let owners = owners
            .into_iter()
            .filter_map(|holder| ProcessFacts::read(&self.root, holder.tgid).ok())
            .collect();
        let known = Known {
            owners,
            identity: claim.identity.into(),
            collector: false,
            decided: HashMap::new(),
        };
        self.known.insert(number, known);
    }
}

/// The rule itself, on facts.
fn decide(root: &Root, owners: &[ProcessFacts], collector: bool, claim: &Claim<'_>) -> Origin {
    if owners.is_empty() {
        return Origin::Unknown(WhyUnknown::NoOwner);
    }
    if let Some(claimed) = claim.pid {
        return decide_claimed(root, owners, collector, claimed, claim);
    }
    match owners {
        _ if collector => Origin::Unknown(WhyUnknown::Collector),
        [owner] if fits(root, owner, claim) => Origin::Process(Arc::new(owner.clone())),
        [_] => Origin::Unknown(WhyUnknown::OtherProgram),
        _ => Origin::Unknown(WhyUnknown::SeveralOwners),
    }
}

/// The span names its process: believed only where the connection's owner may say so.
fn decide_claimed(
    root: &Root,
    owners: &[ProcessFacts],
    collector: bool,
    claimed_pid: u32,
    claim: &Claim<'_>,
) -> Origin {
    let is_claimed = |owner: &&ProcessFacts| owner.own_pid() == claimed_pid;
    if let Some(owner) = owners.iter().find(is_claimed) {
        return Origin::Process(Arc::new(owner.clone()));
    }
    for owner in owners {
        let Some(claimed) = find_claimed(root, owner, claimed_pid) else {
            continue;
        };
        // A worker of a pre-fork server repeats what its parent said before the fork.
        if !collector && is_forked_worker_of(root, owner, &claimed) {
            return Origin::Process(Arc::new(owner.clone()));
        }
        if owner.may_speak_for(&claimed) && fits(root, &claimed, claim) {
            return Origin::Process(Arc::new(claimed));
        }
    }
    Origin::Unknown(WhyUnknown::ClaimRefused)
}

/// The process that calls itself `pid` in the owner's pid namespace.
fn find_claimed(root: &Root, owner: &ProcessFacts, pid: u32) -> Option<ProcessFacts> {
    let namespace = owner.pid_namespace?;
    let tgid = lacuna_host::pidns::process_in_namespace(root, namespace, pid)?;
    ProcessFacts::read(root, tgid).ok()
}

/// Whether a process can be the program that a span says it comes from.
fn fits(root: &Root, process: &ProcessFacts, claim: &Claim<'_>) -> bool {
    let link = std::fs::read_link(root.path(format!("/proc/{}/exe", process.tgid)));
    let Ok(link) = link else {
        return false;
    };
    let name = link.file_name().map(|name| name.to_string_lossy());
    let Some(name) = name else {
        return false;
    };
    let name = name.trim_end_matches(" (deleted)");
    let executable_fits = claim.executable.is_empty()
        || claim.executable.ends_with(name)
        || &*process.comm == claim.executable
        || is_interpreter(name);
    executable_fits && language_fits(claim.language, name)
}

/// Interpreters, by the start of their file's name, and the SDK language that runs in each.
const INTERPRETERS: [(&str, &str); 12] = [
    ("python", "python"),
    ("pypy", "python"),
    ("uwsgi", "python"),
    ("node", "nodejs"),
    ("bun", "nodejs"),
    ("deno", "nodejs"),
    ("java", "java"),
    ("ruby", "ruby"),
    ("php", "php"),
    ("apache2", "php"),
    ("dotnet", "dotnet"),
    ("beam", "erlang"),
];

/// The languages that need one of those; programs in any other are files of their own.
const INTERPRETED: [&str; 6] = ["python", "nodejs", "java", "ruby", "php", "erlang"];

fn is_interpreter(name: &str) -> bool {
    INTERPRETERS.iter().any(|row| name.starts_with(row.0))
}

/// A Python span does not come from a native program, nor a Go span from a Python interpreter.
fn language_fits(language: &str, executable: &str) -> bool {
    let runs = INTERPRETERS
        .iter()
        .find(|row| executable.starts_with(row.0));
    match runs {
        _ if language.is_empty() => true,
        Some(row) => row.1 == language || (row.1 == "nodejs" && language == "webjs"),
        None => !INTERPRETED.contains(&language),
    }
}

#[cfg(test)]
mod tests {
    use super::Claim;
    use super::Origin;
    use super::WhyUnknown;
    use super::decide;
    use super::language_fits;
    use lacuna_host::process::ProcessFacts;
    use lacuna_host::root::Root;
    use std::sync::Arc;

    fn own() -> ProcessFacts {
        ProcessFacts::read(&Root::host(), std::process::id()).unwrap()
    }

    fn check(owners: &[ProcessFacts], collector: bool, claim: &Claim<'_>, expected: &Origin) {
        assert_eq!(
            &decide(&Root::host(), owners, collector, claim),
            expected,
            "{claim:?}"
        );
    }

    #[test]
    fn the_owner_of_the_connection_is_the_process() {
        let expected = Origin::Process(Arc::new(own()));
        check(&[own()], false, &Claim::default(), &expected);
        let pid = Some(own().own_pid());
        let claim = Claim {
            pid,
            ..Claim::default()
        };
        check(&[own()], false, &claim, &expected);
        // Also over a collector's connection: it is its own claim.
        check(&[own()], true, &claim, &expected);
    }

    #[test]
    fn doubt_names_nobody() {
        let claim = Claim::default();
        check(&[], false, &claim, &Origin::Unknown(WhyUnknown::NoOwner));
        check(
            &[own()],
            true,
            &claim,
            &Origin::Unknown(WhyUnknown::Collector),
        );
        let two = [own(), own()];
        check(
            &two,
            false,
            &claim,
            &Origin::Unknown(WhyUnknown::SeveralOwners),
        );
        let python = Claim {
            language: "python",
            ..claim
        };
        check(
            &[own()],
            false,
            &python,
            &Origin::Unknown(WhyUnknown::OtherProgram),
        );
    }

    #[test]
    fn a_claim_that_is_nobodys_is_refused() {
        // pid_max is at most 2^22, so nobody has this one.
        let claim = Claim {
            pid: Some(1 << 30),
            ..Claim::default()
        };
        check(
            &[own()],
            false,
            &claim,
            &Origin::Unknown(WhyUnknown::ClaimRefused),
        );
    }

    #[test]
    fn a_claim_of_another_users_process_is_refused() {
        let mut owner = own();
        owner.uids = [65534; 3];
        // Process 1 is root's in every pid namespace that has one.
        let claim = Claim {
            pid: Some(1),
            ..Claim::default()
        };
        check(
            &[owner],
            false,
            &claim,
            &Origin::Unknown(WhyUnknown::ClaimRefused),
        );
    }

    #[test]
    fn languages_need_their_interpreters() {
        assert!(language_fits("python", "python3.11"));
        assert!(!language_fits("python", "rotel"));
        assert!(!language_fits("rust", "python3.11"));
        assert!(language_fits("rust", "payments"));
        assert!(language_fits("", "anything"));
    }
}
