// SPDX-License-Identifier: Apache-2.0
//! What is known of a span before the join, and what the join says of it.
//!
//! Only facts: the caller (who knows OTLP, sockets and clocks) fills [`SpanFacts`]; the rules that
//! turn them into a [`Joined`] are in the files beside. A refusal always says why.

use crate::event::Ns;
use crate::event::ProcessId;
use crate::event::ThreadId;
use std::num::NonZeroU16;

/// A span's identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SpanKey {
    /// Trace id, big-endian.
    pub trace: u128,
    /// Span id, big-endian.
    pub span: u64,
}

/// A kind of span within its process: instrumentation scope and span name, interned by the caller.
/// One number must mean one pair for as long as the [`super::Joiner`] lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KindId(pub u32);

/// A child span in the same process, by its instants on the parent's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildFacts {
    /// Its kind.
    pub kind: KindId,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub start: Ns,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub end: Ns,
}

/// Where a span stands among the spans of its process. Children usually arrive before their parent,
/// so the caller must not call a span a root only because its parent has not come yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It has no parent in its process: no parent at all, or one that is known to be elsewhere.
    Root,
    /// This span of the same process is its topmost ancestor.
    Under(SpanKey),
    /// Its parent has not been seen: it may yet arrive. Less can be concluded from such a span.
    Unknown,
}

/// What a span claims about its thread. Anybody can claim anything: it is checked, not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Claims<'a> {
    /// `thread.native_id` or `os.thread.id`: an OS thread id, in the process's own pid namespace
    /// or in the initial one.
    pub native_tid: Option<u64>,
    /// `thread.id`: the runtime's own number. Honoured only where it is a thread's FS base.
    pub managed_id: Option<u64>,
    /// `thread.name`: honoured only where its first 15 bytes are the name of exactly one thread.
    pub name: Option<&'a str>,
}

/// A span, as far as the join cares.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SpanFacts<'a> {
    /// Who it is.
    pub key: SpanKey,
    /// The process it came from, settled by the caller (rule 15).
    pub process: ProcessId,
    /// Its kind.
    pub kind: KindId,
    /// Start, `CLOCK_MONOTONIC`.
    pub start: Ns,
    /// End, `CLOCK_MONOTONIC`; not before `start`, or the span is refused.
    pub end: Ns,
    /// Half-width of the clock offset between the span's clock and ours.
    pub error_ns: Ns,
    /// The largest power of ten that divides both Unix timestamps (see [`grain_ns`]). A single
    /// span's trailing zeros may be chance; the least over a process is its clock's tick.
    pub grain_ns: Ns,
    /// Where it stands among the spans of its process.
    pub place: Place,
    /// Its direct children in the same process, as far as they have arrived.
    pub children: &'a [ChildFacts],
    /// `CLOCK_REALTIME` was stepped, or the host suspended, between its start and its end.
    pub clock_stepped: bool,
    /// What it says of its thread.
    pub claims: Claims<'a>,
    /// The port of the other end of the connection that its request came by, where it answers one
    /// and says so.
    pub peer_port: Option<NonZeroU16>,
}

/// The coarsest tick that two Unix timestamps are multiples of: a power of ten, at most 10 ms.
///
/// 10 ms is the coarsest clock worth joining by; a rarer, coarser one would be a *maybe* at nearly
/// every instant.
pub fn grain_ns(start_unix_ns: Ns, end_unix_ns: Ns) -> Ns {
    let mut grain = 1;
    while grain < GRAIN_NS_MAX
        && start_unix_ns.is_multiple_of(grain * 10)
        && end_unix_ns.is_multiple_of(grain * 10)
    {
        grain *= 10;
    }
    grain
}

/// The coarsest clock tick that is told apart.
pub const GRAIN_NS_MAX: Ns = 10_000_000;

/// By what a thread was found; the public names are `contract.md`'s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum How {
    /// An explicit thread id or name on the span that stood every check.
    Attribute,
    /// A thread context published by the program (not decided here).
    Context,
    /// The instants of the span and its children.
    Timestamps,
    /// The only thread of its process that can serve spans.
    SingleThread,
    /// No thread: only the process is known.
    Process,
    /// Not even the process is known, or nothing of it was observed then.
    None,
}

impl How {
    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            How::Attribute => "attribute",
            How::Context => "context",
            How::Timestamps => "timestamps",
            How::SingleThread => "single-thread",
            How::Process => "process",
            How::None => "none",
        }
    }
}

/// Why a span has its thread, or has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// It has one.
    Found,
    /// Its end is before its start, or it straddles a clock step or a suspend.
    Unusable,
    /// The recorder knows no thread of that process in that window.
    Unobserved,
    /// There may have been threads then that the recorder does not know.
    Incomplete,
    /// Too few spans of its kind were seen yet.
    Learning,
    /// More kinds or processes than are learned at once.
    TooMany,
    /// Spans of this kind do not start and end on one thread.
    NotOneThread,
    /// The kind may only look like one-thread because of a thread that is nearly always running.
    BusyThread,
    /// The process's clock is biased, or nothing shows that it is not.
    Clock,
    /// No thread was on a CPU at all of its instants.
    NoCandidate,
    /// Several could be it.
    Ambiguous,
    /// One more may be it, but its records are not complete there.
    Maybe,
    /// One could be it, but not surely enough.
    Unsure,
}

impl Why {
    /// A fixed word for metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Why::Found => "found",
            Why::Unusable => "unusable",
            Why::Unobserved => "unobserved",
            Why::Incomplete => "incomplete",
            Why::Learning => "learning",
            Why::TooMany => "too-many",
            Why::NotOneThread => "not-one-thread",
            Why::BusyThread => "busy-thread",
            Why::Clock => "clock",
            Why::NoCandidate => "no-candidate",
            Why::Ambiguous => "ambiguous",
            Why::Maybe => "maybe",
            Why::Unsure => "unsure",
        }
    }
}

/// What became of the span's own claim about its thread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Claim {
    /// It made none that can be checked.
    Absent,
    /// It was checked, and is the answer.
    Honoured,
    /// It fits, but too few claims of that kind of span were checked yet.
    Unproved,
    /// It contradicts the records: no such thread, not alive, or off the CPU. To be counted.
    Refused,
}

/// The join's answer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Joined {
    /// By what.
    pub how: How,
    /// The thread; `Some` exactly for attribute, context, timestamps and single-thread.
    pub thread: Option<ThreadId>,
    /// Probability of being right under the model (docs/design/0002-join.md); 0 without a thread.
    pub score: f64,
    /// How many threads were possible by instants alone, maybes included.
    pub candidates: u32,
    /// Why.
    pub why: Why,
    /// What became of an explicit claim.
    pub claim: Claim,
}

impl Joined {
    /// A refusal.
    pub(super) fn refused(why: Why, candidates: u32) -> Joined {
        let how = if why == Why::Unobserved {
            How::None
        } else {
            How::Process
        };
        Joined {
            how,
            thread: None,
            score: 0.0,
            candidates,
            why,
            claim: Claim::Absent,
        }
    }

    /// A thread.
    pub(super) fn found(how: How, thread: ThreadId, score: f64, candidates: u32) -> Joined {
        let thread = Some(thread);
        Joined {
            how,
            thread,
            score,
            candidates,
            why: Why::Found,
            claim: Claim::Absent,
        }
    }
}
