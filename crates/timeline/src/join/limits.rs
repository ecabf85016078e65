// SPDX-License-Identifier: Apache-2.0
//! The numbers of the join: thresholds from the rules, and a limit for everything that grows.
//!
//! Thresholds trade joins for safety and were chosen on the simulator
//! (docs/design/0002-join.md); limits only bound memory and time, and at a limit detail is dropped
//! in the direction of refusing.

use crate::event::Ns;

/// Spans of a kind that must have been seen, each with complete records, before it is believed.
pub(super) const KIND_SPANS_MIN: u64 = 200;
/// A kind is not one-thread when more than one in this many of its spans has no candidate.
pub(super) const NO_CANDIDATE_ONE_IN: u64 = 1_000;
/// Spans after which a window of counts is half over; verdicts look at one to two halves.
pub(super) const HALF_SPANS: u64 = 2_048;
/// A kind is believed only while the chance of a wrong thread in it is estimated below this.
pub(super) const KIND_WRONG_MAX: f64 = 1e-4;
/// The same for a kind whose spans share threads, on several threads.
pub(super) const MULTIPLEXED_WRONG_MAX: f64 = 1e-7;
/// A thread is named only with at least this probability.
pub(super) const SCORE_MIN: f64 = 0.999_9;
/// Prior probability that a thread, or a kind, that has never misbehaved still can.
pub(super) const PRIOR: f64 = 0.5;
/// A thread that is on a CPU for more than this share of the time is left out as a test.
pub(super) const BUSY_SHARE: f64 = 0.5;
/// How many standard errors make a difference certain (rule 14).
pub(super) const STANDARD_ERRORS: f64 = 5.0;
/// Spans in which a busy thread was alone on a CPU at every instant, so that it must have run them.
pub(super) const PROVED_MIN: u64 = 100;
/// Certain joins of a kind without an overlap on one thread, before overlaps are held impossible.
pub(super) const ALONE_MIN: u64 = 200;
/// Spans with one candidate whose children were looked at, before a kind of child is believed to
/// run on its parent's thread.
pub(super) const EDGE_SOLE_MIN: u64 = 70;
/// Spans of a process that was only ever seen with one thread, before it is held to have only one.
pub(super) const SINGLE_SPANS_MIN: u64 = 20;
/// Joined root spans of one thread that are looked at for an overlap.
pub(super) const OVERLAP_LOOKS_MAX: usize = 1_024;
/// Checked claims of a kind before its claims are honoured.
pub(super) const CLAIMS_MIN: u64 = 20;
/// A wait for the connection of a span's request ended so long before the span began, or after, at
/// most: long enough to come on a CPU and to read the head of a request on a busy host.
pub(super) const HEARD_NS: Ns = 20_000_000;
/// Where one did so less long ago than this, nobody looks further back: that takes three times as long.
pub(super) const HEARD_NEAR_NS: Ns = 2_000_000;
/// Two threads whose waits ended less than this apart may have been told of the same request.
pub(super) const HEARD_APART_NS: Ns = 1_000_000;
/// Spans of a kind whose sole candidate was the one thread that had waited for their connection,
/// before that decides between several.
pub(super) const HEARD_RIGHT_MIN: u64 = 20;
/// Looks at which such a thread would have been seen not to be a candidate, likewise. It is known
/// where the span began; that it ended there too must show.
pub(super) const HEARD_LOOKS_MIN: u64 = 2_000;
/// Share of spans with a candidate below which a clock is biased (rule 14).
pub(super) const CLOCK_SHARE_MIN: f64 = 0.99;
/// Spans of a process before its clock is judged.
pub(super) const CLOCK_SPANS_MIN: u64 = 100;
/// Samples at one trial offset before that offset counts.
pub(super) const OFFSET_SAMPLES_MIN: u64 = 20;

/// Trial offsets into the past, logarithmic from 50 ms to 5 s (rule 14) and without common
/// divisors, so that no periodic program is in step with several of them.
pub(super) const OFFSETS: [Ns; 16] = [
    50_000_017,
    67_967_021,
    92_389_013,
    125_594_009,
    170_727_017,
    232_079_041,
    315_479_021,
    428_857_019,
    582_967_001,
    792_453_019,
    1_077_227_003,
    1_464_341_009,
    1_990_567_031,
    2_705_903_017,
    3_678_303_007,
    5_000_000_029,
];
/// Of which each learned span is tried at so many.
pub(super) const OFFSETS_PER_SPAN: usize = 8;
/// The first spans of a kind are all learned from in full, then one in [`LEARN_ONE_IN`].
pub(super) const LEARN_ALL: u64 = 512;
/// See [`LEARN_ALL`]. Spans without a candidate are counted always.
pub(super) const LEARN_ONE_IN: u64 = 8;
/// A verdict is renewed after so many spans of its kind or process.
pub(super) const RENEW_SPANS: u64 = 16;

/// A thread younger than this at a span's start is judged with all other such threads, as a class:
/// those that are born and die with their spans have no history of their own.
pub(super) const BRIEF_NS: Ns = 2_000_000_000;
/// Times that a younger thread was a candidate, before it is judged by its own history all the same.
pub(super) const HISTORY_MIN: u64 = 100;
/// Times that a young thread was a candidate, so that it is not forgotten when there is no room.
pub(super) const SEEN_OFTEN: u64 = 3;
/// On-CPU shares are sampled so often, of windows so long.
pub(super) const SHARE_EVERY_NS: Ns = 500_000_000;
/// Samples of on-CPU shares after which a half of their window is over.
pub(super) const SHARE_HALF_SAMPLES: u32 = 20;

/// Processes that are learned at once; the one silent for longest makes room.
pub(super) const PROCESSES_MAX: usize = 1_024;
/// Kinds per process; more are not learned, so their spans are refused.
pub(super) const KINDS_MAX: usize = 1_024;
/// Threads per kind with a history of their own; more are judged as the brief ones.
pub(super) const SERVERS_MAX: usize = 256;
/// Threads per process whose on-CPU share is kept; more count as busy.
pub(super) const SHARES_MAX: usize = 4_096;
/// Threads per kind that are kept as shared by several of its spans: two tell them apart.
pub(super) const SHARED_MAX: usize = 2;
/// Kinds of children per kind; instants of others are not used.
pub(super) const EDGES_MAX: usize = 64;
/// Children of a span whose instants are used, in the order they are given.
pub(super) const CHILDREN_MAX: usize = 8;
/// Joined root spans per process that are remembered, the oldest out first.
pub(super) const ROOTS_MAX: usize = 16_384;
/// Root spans per process that wait for a neighbour to be joined, the oldest out first.
pub(super) const PENDING_MAX: usize = 512;
/// A waiting root span with more candidates than this is not kept.
pub(super) const PENDING_CANDIDATES_MAX: usize = 16;

/// A clock is held to be wrong by no more than this; one that is looks as if somebody else read it.
pub(super) const LAG_NS_MAX: Ns = 2_000_000_000;
/// Lags are told apart so finely; instants are widened by more.
pub(super) const LAG_BIN_NS: Ns = 250_000;
/// Instants are widened by this on both sides for the look at all lags: for a clock that drifts by
/// 30 ppm over [`SAMPLE_SPREAD_NS_MAX`], or is anchored anew for each trace.
pub(super) const SAMPLE_SLACK_NS: Ns = 1_000_000;
/// Spans in such a look, the latest.
pub(super) const SAMPLE_MAX: usize = 128;
/// With fewer there is none.
pub(super) const SAMPLE_MIN: usize = 32;
/// From the first to the last of them.
pub(super) const SAMPLE_SPREAD_NS_MAX: Ns = 30_000_000_000;
/// Stretches on a CPU that are looked through; a process with more stays undecided.
pub(super) const STRETCHES_MAX: usize = 200_000;
/// Spans of a source that start less than this apart tell the same of its process.
pub(super) const READ_EVERY_NS: Ns = 10_000_000;
/// The same for a process that is shown to have taken the timestamps: it is looked at less often.
pub(super) const READ_AGAIN_NS: Ns = 100_000_000;
/// Spans that are looked at before a process may be shown to have taken their timestamps.
pub(super) const READ_SHOWN_MIN: u64 = 20;
/// Spans of a source before its process may be contradicted.
pub(super) const READ_SPANS_MIN: u64 = 200;
/// The process that took the timestamps is on a CPU at no smaller share of them.
pub(super) const READ_SHARE_MIN: f64 = 0.95;
/// Below this share at every lag, somebody else took them; what lies between says nothing.
pub(super) const READ_PEAK_MIN: f64 = 0.75;
/// A process that is on a CPU at more than this share of any instants cannot be told from another.
pub(super) const READ_CHANCE_MAX: f64 = 0.5;
/// Odds from which a process is shown to have taken the timestamps.
pub(super) const READ_SHOWN_ODDS: f64 = 1e4;
/// Sources that are learned at once; the one silent for longest makes room.
pub(super) const SOURCES_MAX: usize = 1_024;
