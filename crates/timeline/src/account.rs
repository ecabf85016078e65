// SPDX-License-Identifier: Apache-2.0
//! The account: windows of a thread in, causes that add up to them out.
//!
//! These are the answer's types and the identities that hold for it; `account/tally.rs` fills them
//! from the segments that `walk.rs` makes of the records. Nothing here formats or looks up names.
//!
//! Promise: the shares of an account add up to the length of its windows, to the nanosecond;
//! [`Account::check`] proves it for each answer, and whoever gives answers away calls it.

mod episodes;
mod evidence;
mod net;
mod sums;
mod tally;
mod total;

pub use net::NetEvidence;
pub(crate) use tally::Tally;
pub(crate) use tally::least;

use crate::cause::Cause;
use crate::event::Call;
use crate::event::Faults;
use crate::event::Ns;
use crate::event::ObjectId;
use crate::event::Polled;
use crate::event::StackId;
use crate::event::ThreadId;
use crate::event::Waker;

/// How many episodes an account lists: the longest, in time order.
pub const EPISODES_MAX: usize = 64;

/// How many culprits a share lists before the others become [`Who::Rest`].
pub const CULPRITS_MAX: usize = 16;

/// How many pieces of evidence of each kind a share lists; the largest.
pub const EVIDENCE_MAX: usize = 8;

/// Where the time of some windows of one thread went.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Account {
    /// Length of the windows together.
    pub wall_ns: Ns,
    /// One for each cause that has time, in order of precedence.
    pub shares: Vec<Share>,
    /// The longest stretches with one cause and one culprit; at most [`EPISODES_MAX`], in time order.
    pub episodes: Vec<Episode>,
    /// How many there were before the short ones were left out.
    pub episodes_total: u64,
    /// How much time may belong to another cause of the same wait, because an amount is exact and
    /// its place is not (rules 6 and 11).
    pub blur_ns: Ns,
    /// Records that are proved to be missing in these windows.
    pub lost_records: u64,
    /// What the kernel counted beside the time.
    pub counts: Counts,
}

/// One cause's part of an account.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The cause.
    pub cause: Cause,
    /// How much.
    pub ns: Ns,
    /// In how many intervals.
    pub count: u64,
    /// Of `ns`: on a CPU. The three add up to `ns`, except for `unknown`, where they are 0.
    pub running_ns: Ns,
    /// Of `ns`: runnable, and not running.
    pub runnable_ns: Ns,
    /// Of `ns`: blocked.
    pub blocked_ns: Ns,
    /// Of `ns`: an estimate.
    pub estimated_ns: Ns,
    /// Who or what it was, largest first. Those of a `runq.*` cause add up to `ns`.
    pub culprits: Vec<Culprit>,
    /// What it was seen by.
    pub evidence: Evidence,
    /// Of its longest wait that another thread ended: what that thread did meanwhile.
    pub chain: Vec<Link>,
    /// Why it is unknown, largest first; only for `unknown`, where they add up to `ns`.
    pub reasons: Vec<(Reason, Ns)>,
}

/// Who or what took the time, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Who.
    pub who: Who,
    /// How much.
    pub ns: Ns,
}

/// Kinds of culprits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// This thread ran instead, or held the lock.
    Thread(ThreadId),
    /// A file, connection, pipe, ...
    Object(ObjectId),
    /// The cgroup whose limit it was (kernfs id).
    Cgroup(u64),
    /// Nobody: the CPU was idle, or had to be reached first.
    Idle,
    /// Others together.
    Rest,
    /// Not covered by what was recorded, or cut by the window so that it cannot be placed.
    Uncovered,
}

/// What a share was seen by; each list has the largest [`EVIDENCE_MAX`], largest first.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Evidence {
    /// System calls that waited.
    pub calls: Vec<(Call, Ns)>,
    /// What their descriptors pointed at.
    pub objects: Vec<(ObjectId, Ns)>,
    /// Kernel stacks of waits.
    pub stacks: Vec<(StackId, Ns)>,
    /// Hashes of futex addresses.
    pub futexes: Vec<(u64, Ns)>,
    /// Who ended the waits.
    pub wakers: Vec<(Waker, Ns)>,
    /// What was told of the TCP connections that were waited for.
    pub connections: Vec<NetEvidence>,
    /// What is known of the end of poll-like waits; never [`Polled::No`].
    pub polled: Vec<(Polled, Ns)>,
    /// Waits that a CPU limit lengthened.
    pub throttled: u64,
}

/// What the kernel counted in the windows, beside the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// Switch-outs into a blocked state, and a thread's last one.
    pub voluntary: u64,
    /// Switch-outs while runnable; being made runnable for the first time is none.
    pub involuntary: u64,
    /// Switch-ins on another CPU than the previous one.
    pub migrations: u64,
    /// Page faults, by the records whose switch-out lies in the windows.
    pub faults: Faults,
}

/// A maximal stretch with one cause and one culprit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// From, `CLOCK_MONOTONIC`.
    pub start: Ns,
    /// How long.
    pub ns: Ns,
    /// Its cause.
    pub cause: Cause,
    /// Its largest culprit that has a name.
    pub culprit: Option<Who>,
    /// Why, where it is unknown.
    pub reason: Option<Reason>,
}

/// What the thread that ended a wait did in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Which thread.
    pub thread: ThreadId,
    /// How it ended the wait before.
    pub how: How,
    /// The window that it is looked at in.
    pub start: Ns,
    /// The end of that window.
    pub end: Ns,
    /// What took most of that window, for this thread.
    pub cause: Cause,
    /// How much of it.
    pub ns: Ns,
    /// The largest named culprit of that cause (who ran instead).
    pub culprit: Option<Culprit>,
}

/// How a thread ended another's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// It held the lock; only where the lock says so.
    Held,
    /// It woke the waiter.
    Woke,
}

impl How {
    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            How::Held => "held",
            How::Woke => "woke",
        }
    }
}

/// Why time is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A record was lost: its number is missing.
    Lost,
    /// The thread was not observed yet.
    NotObserved,
    /// The thread was switched without a record: not watched then, or a program was skipped.
    NotWatched,
    /// The kernel skipped a program then, and this has no other proof.
    ProgramSkipped,
    /// No later record or snapshot confirms it yet.
    NotConfirmed,
    /// A kernel detour that is still open may have begun in it.
    DetourOpen,
    /// It waits for a CPU and has not come back yet: for what is recorded when it does.
    StillQueued,
    /// The recorder no longer reaches it.
    Expired,
    /// The host was suspended.
    Suspended,
    /// No thread could be joined.
    NoThread,
    /// The thread is not known.
    NoSuchThread,
    /// A window's edge lies inside merged records.
    Merged,
    /// The thread did not exist yet.
    NotBorn,
    /// The thread had ended.
    Ended,
}

impl Reason {
    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Lost => "lost",
            Reason::NotObserved => "not-observed",
            Reason::NotWatched => "not-watched",
            Reason::ProgramSkipped => "program-skipped",
            Reason::NotConfirmed => "not-confirmed",
            Reason::DetourOpen => "detour-open",
            Reason::StillQueued => "still-queued",
            Reason::Expired => "expired",
            Reason::Suspended => "host-suspended",
            Reason::NoThread => "no-thread",
            Reason::NoSuchThread => "no-such-thread",
            Reason::Merged => "merged",
            Reason::NotBorn => "not-born",
            Reason::Ended => "ended",
        }
    }
}

/// An identity that does not hold: a defect of ours, counted as a conservation violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The shares do not add up to the windows.
    Sum {
        /// What the shares add up to.
        shares_ns: Ns,
        /// The windows' length.
        wall_ns: Ns,
    },
    /// A share's states do not add up to it.
    State(Cause),
    /// The culprits of a `runq.*` share do not add up to it.
    Culprits(Cause),
    /// More of a share is estimated than there is.
    Estimated(Cause),
    /// The reasons of `unknown` do not add up to it.
    Reasons,
}

impl Account {
    /// An account that says of all its time that it is unknown, and why.
    pub fn unknown(wall_ns: Ns, reason: Reason) -> Account {
        let mut account = Account::default();
        account.add_unknown(wall_ns, reason);
        account
    }

    /// The share of a cause, where it has time.
    pub fn share(&self, cause: Cause) -> Option<&Share> {
        self.shares.iter().find(|share| share.cause == cause)
    }

    /// Nanoseconds of a cause.
    pub fn ns(&self, cause: Cause) -> Ns {
        self.share(cause).map_or(0, |share| share.ns)
    }

    /// Estimated nanoseconds, without those of `unknown` and `wait.other`, which are counted there.
    pub fn estimated_ns(&self) -> Ns {
        self.shares
            .iter()
            .filter(|share| !matches!(share.cause, Cause::Unknown | Cause::WaitOther))
            .map(|share| share.estimated_ns)
            .sum()
    }

    /// Nanoseconds that are explained: `wall = explained + unknown + wait.other + estimated`.
    pub fn explained_ns(&self) -> Ns {
        self.wall_ns
            .saturating_sub(self.ns(Cause::Unknown))
            .saturating_sub(self.ns(Cause::WaitOther))
            .saturating_sub(self.estimated_ns())
    }

    /// Proves the identities of this account.
    ///
    /// # Errors
    /// The first that does not hold; it is always a defect of this crate.
    pub fn check(&self) -> Result<(), Violation> {
        let shares_ns = self.shares.iter().map(|share| share.ns).sum();
        if shares_ns != self.wall_ns {
            return Err(Violation::Sum {
                shares_ns,
                wall_ns: self.wall_ns,
            });
        }
        self.shares.iter().try_for_each(Share::check)
    }
}

impl Share {
    /// Proves the identities of this share.
    fn check(&self) -> Result<(), Violation> {
        if self.estimated_ns > self.ns {
            return Err(Violation::Estimated(self.cause));
        }
        if self.cause == Cause::Unknown {
            let reasons_ns: Ns = self.reasons.iter().map(|reason| reason.1).sum();
            return (reasons_ns == self.ns)
                .then_some(())
                .ok_or(Violation::Reasons);
        }
        if self.running_ns + self.runnable_ns + self.blocked_ns != self.ns {
            return Err(Violation::State(self.cause));
        }
        let culprits_ns: Ns = self.culprits.iter().map(|culprit| culprit.ns).sum();
        if self.cause.is_runq() && culprits_ns != self.ns {
            return Err(Violation::Culprits(self.cause));
        }
        Ok(())
    }

    /// The main reason, where it is unknown.
    pub fn reason(&self) -> Option<Reason> {
        self.reasons.first().map(|reason| reason.0)
    }
}
