// SPDX-License-Identifier: Apache-2.0
//! What the caller decides before loading, and what it learns afterwards: plain data.
//!
//! Nothing here talks to the kernel. Every number has its unit in its name or its comment.

use lacuna_timeline::event::Ns;

/// Smallest ring that is worth loading, bytes.
pub const RING_BYTES_MIN: u32 = 64 << 10;
/// Largest ring, bytes (part of the memory budget of docs/overhead.md).
pub const RING_BYTES_MAX: u32 = 16 << 20;
/// How many ports of ours a connecting process is recognised by.
pub const OTLP_PORTS_MAX: usize = 4;

/// How to load the probes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Ring buffer size; rounded up to a power of two between [`RING_BYTES_MIN`] and
    /// [`RING_BYTES_MAX`].
    pub ring_bytes: u32,
    /// Whose switches are recorded from the start.
    pub watch: Watch,
    /// Never record this process (the agent itself: its own work must not feed it).
    pub ignore_tgid: Option<u32>,
    /// Faults to inject, for tests.
    pub faults: FaultPlan,
    /// Merge short cycles of one kind (overload, rule 11).
    pub merge_short: bool,
    /// Follow TCP connections (the group `net`): what a wait on one was for. Without, each such wait is
    /// one of which the connection is known, and not what it was like.
    pub net: bool,
    /// A process that connects to one of these ports becomes watched; at most
    /// [`OTLP_PORTS_MAX`], more are refused.
    pub otlp_ports: Vec<u16>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ring_bytes: 8 << 20,
            watch: Watch::All,
            ignore_tgid: None,
            faults: FaultPlan::default(),
            merge_short: false,
            net: true,
            otlp_ports: Vec::new(),
        }
    }
}

/// Whose switches are recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// Every thread of the host.
    All,
    /// Processes named by `watch_process`, and those that connect to our ports.
    Selected,
}

/// Faults that the kernel side injects into itself (rule 12). All off by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultPlan {
    /// Drop every n-th record as if the ring were full; 0: none.
    pub drop_every: u32,
    /// Drop every exit record as if the ring were full.
    pub drop_exits: bool,
    /// Skip every n-th waking as if the program had been skipped; 0: none. Moves the same counter.
    pub skip_wakings_every: u32,
    /// Skip every n-th switch to a watched thread out of one that is not, as if the kernel did not trace it;
    /// 0: none. Nothing counts that, nor the next three.
    pub untraced_switches_every: u32,
    /// Skip what is sent again.
    pub untraced_resent: bool,
    /// Skip what arrives without bytes.
    pub untraced_acks: bool,
    /// Skip what this host drops, as where the kernel does not say why.
    pub untraced_drops: bool,
    /// Make room for no more threads than this; 0: as many as there may be. Only where there is a
    /// limit ([`KernelFacts::threads_max`]).
    pub threads_max: u32,
}

/// What one call of `drain` did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drained {
    /// How many records it read.
    pub records: u64,
    /// Every record that was reserved before this instant has been given out (rule 10).
    pub horizon: Ns,
}

/// What the kernel side has counted since load. One epoch (rule 9): if any of the first four
/// moved, what has no proof of its own is unknown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// When this was read.
    pub at: Ns,
    /// Records that found no room in the ring (injected drops included).
    pub ring_drops: u64,
    /// Task storage that could not be made.
    pub storage_failures: u64,
    /// Runs of the program on `sched_switch` that the kernel skipped (`recursion_misses`).
    pub switches_skipped: u64,
    /// Runs of the other programs that the kernel skipped; injected skips of wakings included.
    pub programs_skipped: u64,
    /// The same by program name, only those above 0.
    pub skipped_by_program: Vec<(String, u64)>,
    /// Records of a kind or a length that the decoder does not know.
    pub unknown_records: u64,
    /// Detours that ended or began unseen, or lay deeper than a record can carry. The first two are
    /// numbered, so that the thread's next record shows them missing.
    pub detours_lost: u64,
    /// TCP connections for which no place could be made, or which had to give it up within a wait: such waits
    /// have no account of the connection.
    pub connections_lost: u64,
    /// Records read so far, by name of their kind.
    pub records_by_kind: Vec<(&'static str, u64)>,
}

/// What each program cost while it was measured.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RunStats {
    /// How long was measured.
    pub window_ns: Ns,
    /// One row a program.
    pub programs: Vec<ProgramCost>,
}

/// The cost of one program, by the kernel's own count (`bpf_stats`; its own clock reads, some
/// 20 to 40 ns a run, are included).
#[derive(Clone, PartialEq, Debug)]
pub struct ProgramCost {
    /// Program name.
    pub name: String,
    /// Runs within the window.
    pub runs: u64,
    /// Nanoseconds within the window.
    pub ns: u64,
}

/// What became of one hook that was tried for real.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookReport {
    /// The hook, e.g. `tp_btf/sched_switch`.
    pub hook: String,
    /// Our program on it.
    pub program: String,
    /// The error text of the verifier or the operating system.
    pub outcome: Result<(), String>,
}

/// How much of one program the verifier walked through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramSize {
    /// Program name.
    pub name: String,
    /// Instructions; a program of more than a million is refused.
    pub verified_insns: u64,
}

/// What the running kernel can do, as far as answers depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelFacts {
    /// How many threads can be known at once; `None`: no limit of ours, each has its place with its
    /// task (5.12). Threads beyond it are counted as storage failures and are unknown.
    pub threads_max: Option<u32>,
    /// Whether a switch says the state that the thread leaves in (5.18). Without, a thread that is
    /// being woken at that instant counts as sleeping.
    pub switch_says_state: bool,
    /// How CPU time that a limit denied is measured.
    pub limits: LimitClock,
    /// Whether a waker can be told from an interrupt on top of it. Without, wakers are unknown.
    pub wakers: bool,
    /// Whether a dropped packet says why (5.17). Without, what this host itself drops of a connection is
    /// known from what the connection tried and did not send, in ticks where a thread polls, and not where.
    pub drop_reasons: bool,
    /// Whether kernel memory is read by typed loads (6.2) instead of a helper's copies, which cost more
    /// at each switch.
    pub typed_loads: bool,
}

/// How CPU time that a limit denied is measured (rule 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitClock {
    /// There are no limits in this kernel.
    NoLimits,
    /// By the clock of the queue's load average: an estimate, and its place is not known (before 6.6).
    Estimated,
    /// By the queue's own clock (6.6). A thread that is woken into a throttled queue waits there.
    Queue,
    /// The same, and the kernel marks the thread that a limit took off the CPU (6.18).
    Task,
}
