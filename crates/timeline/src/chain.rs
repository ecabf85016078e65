// SPDX-License-Identifier: Apache-2.0
//! The chain: a wait that another thread ended is no answer yet; what was *that* thread doing?
//!
//! From the longest wait of a share the walk goes to the thread that ended it, looks at the same
//! window only, takes what took most of it there, and goes on while that is again a wait that a
//! thread ended. The window only shrinks, no thread is met twice, and the depth and the work are
//! limited, so it ends. "Held" is said only of a lock whose owner was read from it (rule 19).

use std::ops::Range;

use crate::account::Account;
use crate::account::How;
use crate::account::Link;
use crate::account::Tally;
use crate::cause::Cause;
use crate::event::Ns;
use crate::event::ThreadId;
use crate::event::Waker;
use crate::recorder::Recorder;
use crate::segment::BlockedPart;
use crate::segment::Seen;
use crate::segment::Segment;
use crate::segment::Sink;

/// How many links a chain may have.
pub const DEPTH_MAX: usize = 8;

/// How many segments of a thread a link may look at; a longer stretch ends the chain.
pub const LINK_SEGMENTS_MAX: u64 = 4_096;

/// A wait that another thread may have ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    /// The part of the wait that is looked at.
    pub(crate) window: Range<Ns>,
    pub(crate) waker: Waker,
    /// Who held the lock as the wait began, where it was for one.
    pub(crate) owner: Option<ThreadId>,
    /// Which futex.
    pub(crate) address_hash: Option<u64>,
    /// Whose turn it was at the other end of a connection, where that is here.
    pub(crate) peer: Option<ThreadId>,
}

impl Ended {
    pub(crate) fn ns(&self) -> Ns {
        self.window.end - self.window.start
    }
}

/// Where a chain goes on.
struct Step {
    thread: ThreadId,
    how: How,
    window: Range<Ns>,
}

impl Recorder {
    /// Adds to each share the chain of its longest wait.
    pub(crate) fn add_chains(
        &self,
        waiter: ThreadId,
        account: &mut Account,
        longest: &[(Cause, Ended)],
    ) {
        for share in &mut account.shares {
            let wait = longest.iter().find(|item| item.0 == share.cause);
            if let Some((cause, wait)) = wait.filter(|item| is_followed(item.0)) {
                share.chain = self.chain(waiter, *cause, wait.clone());
            }
        }
    }

    /// The chain of one wait.
    fn chain(&self, waiter: ThreadId, cause: Cause, wait: Ended) -> Vec<Link> {
        let mut links: Vec<Link> = Vec::new();
        let mut next = self.ended_by(cause, &wait);
        while let Some(step) = next.take() {
            let met = step.thread == waiter || links.iter().any(|link| link.thread == step.thread);
            if met || links.len() == DEPTH_MAX {
                break;
            }
            let mut tally = Tally::brief(LINK_SEGMENTS_MAX);
            self.walk(step.thread, step.window.clone(), &mut tally);
            if tally.is_full() {
                break;
            }
            let Some((cause, ns, longest, culprit)) = tally.dominant() else {
                break;
            };
            links.push(Link {
                thread: step.thread,
                how: step.how,
                start: step.window.start,
                end: step.window.end,
                cause,
                ns,
                culprit,
            });
            let longest = longest.filter(|_| is_followed(cause));
            next = longest.and_then(|wait| self.ended_by(cause, &wait));
        }
        links
    }

    /// Who ended a wait, and in which part of it they are answerable for it.
    fn ended_by(&self, cause: Cause, wait: &Ended) -> Option<Step> {
        let window = wait.window.clone();
        let waker = match wait.waker {
            Waker::Thread(thread) => Some(thread),
            Waker::HardIrq | Waker::SoftIrq | Waker::Idle | Waker::Unknown => None,
        };
        let held = |thread, window| {
            Some(Step {
                thread,
                how: How::Held,
                window,
            })
        };
        if matches!(cause, Cause::NetPeer | Cause::NetSend) {
            return wait.peer.map(|thread| Step {
                thread,
                how: How::Woke,
                window,
            });
        }
        let Some(owner) = wait.owner.filter(|_| cause == Cause::LockFutex) else {
            return waker.map(|thread| Step {
                thread,
                how: How::Woke,
                window,
            });
        };
        match waker {
            // Woken by the owner's unlock; or not by a thread at all: the lock was never given.
            Some(thread) if thread == owner => held(owner, window),
            None => held(owner, window),
            // It changed hands. Who woke us had waited for it too, or it is not known since when
            // it held the lock.
            Some(thread) => match self.took_over(thread, owner, wait) {
                Some(at) if at - window.start > window.end - at => held(owner, window.start..at),
                Some(at) => held(thread, at..window.end),
                None => Some(Step {
                    thread,
                    how: How::Woke,
                    window,
                }),
            },
        }
    }

    /// When, within a wait, its lock went from the owner to another waiter, by that one's own wait.
    fn took_over(&self, thread: ThreadId, owner: ThreadId, wait: &Ended) -> Option<Ns> {
        let mut search = TakeOver {
            owner,
            address_hash: wait.address_hash?,
            window: wait.window.clone(),
            at: None,
            segments: 0,
        };
        self.walk(thread, wait.window.clone(), &mut search);
        search.at.filter(|at| wait.window.contains(at))
    }
}

/// Causes whose waits another thread's doings explain.
fn is_followed(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::LockFutex
            | Cause::LockKernel
            | Cause::NetPeer
            | Cause::NetSend
            | Cause::WaitNotify
            | Cause::WaitPipe
            | Cause::WaitChild
            | Cause::WaitPoll
            | Cause::WaitOther
    )
}

/// Finds the last wait for a lock that its owner ended.
struct TakeOver {
    owner: ThreadId,
    address_hash: u64,
    window: Range<Ns>,
    at: Option<Ns>,
    segments: u64,
}

impl Sink for TakeOver {
    fn segment(&mut self, segment: &Segment<'_>) {
        self.segments += 1;
        if let Seen::Blocked(BlockedPart { off, .. }) = segment.seen {
            let same = off.wait.futex.map(|word| word.address_hash) == Some(self.address_hash);
            if same && off.waker == Waker::Thread(self.owner) {
                self.at = off.waking.filter(|at| *at <= self.window.end);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.segments >= LINK_SEGMENTS_MAX
    }
}
