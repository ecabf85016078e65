// SPDX-License-Identifier: Apache-2.0
//! What a walk gives away: segments of a window, one after the other without a gap.

use std::ops::Range;

use crate::account::Reason;
use crate::cause::Aspect;
use crate::cause::Cause;
use crate::detours::Piece;
use crate::event::Ns;
use crate::event::ShortDetours;
use crate::event::ThreadId;
use crate::record::OffCpu;
use crate::record::Record;
use crate::record::Sums;
use crate::record::Told;

/// A part of a window.
#[derive(Debug)]
pub(crate) struct Segment<'r> {
    /// Clipped to the window.
    pub(crate) range: Range<Ns>,
    /// As it was, before it was clipped.
    pub(crate) full: Range<Ns>,
    pub(crate) seen: Seen<'r>,
}

/// What a thread did in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen<'r> {
    /// It is not known.
    Unknown { reason: Reason, place: Place },
    /// On the CPU, in no known detour. `before` and `total`: how much of this stretch on the CPU
    /// lies before the segment, and how much there is; short detours are spread over it. `whole`: all
    /// of it is in the window and known, so what is spread adds up to what was measured.
    Cpu {
        short: &'r ShortDetours,
        before: Ns,
        total: Ns,
        whole: bool,
    },
    /// On the CPU, in a detour.
    Detour { piece: &'r Piece },
    /// Runnable.
    Runnable {
        cause: Cause,
        off: &'r OffCpu,
        blamed: bool,
    },
    /// Denied the CPU by a limit.
    Throttled { off: &'r OffCpu },
    /// Blocked.
    Blocked(BlockedPart<'r>),
    /// Merged cycles; the cause is of their blocked part.
    Sums { sums: &'r Sums, cause: Cause },
}

/// A wait, or the part of one that has one cause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockedPart<'r> {
    pub(crate) cause: Cause,
    /// More of a wait for a connection.
    pub(crate) aspect: Option<Aspect>,
    pub(crate) off: &'r OffCpu,
    /// When the wait began.
    pub(crate) began: Ns,
    /// Who waits.
    pub(crate) waiter: ThreadId,
    /// Who held the lock, where it is one.
    pub(crate) owner: Option<ThreadId>,
    /// The cgroup, where it was reclaimed for.
    pub(crate) detail: u64,
    /// How long is an estimate: its waking, or something that befell its connection, may not have been seen.
    pub(crate) estimated: bool,
}

impl BlockedPart<'_> {
    /// The thread at the other end that keeps it waiting: it is to answer, or to read.
    pub(crate) fn peer(&self) -> Option<ThreadId> {
        match (&self.off.net, self.aspect) {
            (Told::Seen(seen), Some(Aspect::PeerHere | Aspect::SpokeHere | Aspect::Window)) => {
                seen.peer_thread
            }
            _ => None,
        }
    }
}

/// Whether a thread was on a CPU where its cause is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It was.
    OnCpu,
    /// It was not, or it did not exist.
    OffCpu,
    /// Neither is proved.
    Unclear,
}

/// Takes the segments of a window, in order.
pub(crate) trait Sink {
    /// The next segment.
    fn segment(&mut self, segment: &Segment<'_>);
    /// A record that left the CPU within the window; it comes before its segments.
    fn record(&mut self, _record: &Record) {}
    /// Records proved to be missing in a hole that touches the window.
    fn lost(&mut self, _records: u64) {}
    /// How much time of the wait that follows may be a limit's or a queue's.
    fn blur(&mut self, _ns: Ns) {}
    /// Enough: what is left of the window is not wanted.
    fn is_full(&self) -> bool {
        false
    }
}
