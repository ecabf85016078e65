// SPDX-License-Identifier: Apache-2.0
//! What was seen of one process in one window: growths, never totals. The input of `rule.rs`.
//!
//! A source that could not be read, or that the kernel does not fill, is [`Void`] with its reason:
//! that is not the same as a source that says 0.

use std::net::SocketAddr;

/// Why a source says nothing, and what would make it speak.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Void {
    /// What is wrong, as a clause: "PSI is off".
    pub(crate) why: String,
    /// What would help, as a clause: "boot with psi=1".
    pub(crate) fix: String,
}

impl Void {
    pub(crate) fn new(why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            fix: fix.into(),
        }
    }
}

/// What a source says, or why it says nothing.
pub(crate) type Seen<T> = Result<T, Void>;

/// One thread, from the first reading to the second.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ThreadGrowth {
    pub(crate) tid: u32,
    pub(crate) comm: String,
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
    pub(crate) on_cpu_ns: u64,
    /// Runnable and not running, throttled time included.
    pub(crate) run_delay_ns: u64,
    /// How often it was given a CPU.
    pub(crate) slices: u64,
    /// What one waiting for the CPU lasts with nobody in the way, as far as it was looked at: the
    /// cost of a switch itself, which threads that switch all the time pay all the time.
    pub(crate) switch_cost_ns: u64,
    /// Its state at both readings, if it got no CPU between them.
    pub(crate) still: Option<Still>,
}

/// A thread that got no CPU in the whole window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Still {
    /// The letter of its state, the same at both readings.
    pub(crate) state: char,
    /// Its kernel stack, innermost function first; empty where it may not be read.
    pub(crate) stack: Vec<Box<str>>,
}

/// The threads of the process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Threads {
    /// Those that were there at both readings.
    pub(crate) both: Vec<ThreadGrowth>,
    /// Those that began in the window.
    pub(crate) started: u64,
    /// Those that ended in it; what they did is in no number here.
    pub(crate) ended: u64,
}

/// A group with a CPU limit: the process's, or one around it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct LimitedGroup {
    pub(crate) path: String,
    /// The limit, in CPUs.
    pub(crate) cpus: f64,
    pub(crate) periods: u64,
    pub(crate) throttled_periods: u64,
    /// Sum over the group's queues, one for each CPU.
    pub(crate) throttled_ns: u64,
}

/// A TCP connection of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Connection {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// It was not answered yet: its segments are SYNs.
    pub(crate) connecting: bool,
    pub(crate) retransmits: u64,
    /// `None`: the kernel does not count them.
    pub(crate) segments_out: Option<u64>,
    pub(crate) timeouts: Option<u64>,
    /// Time in recoveries from a timeout that ended in the window.
    pub(crate) recovery_ns: Option<u64>,
    /// A timeout has not brought an acknowledgement yet.
    pub(crate) recovering: bool,
    /// It has data that it cannot send though the peer's window is open: this host drops it.
    pub(crate) held_here: bool,
    /// Segments taken for lost, at the second reading.
    pub(crate) lost: u32,
    pub(crate) unacked: u32,
    pub(crate) rto_ns: u64,
    pub(crate) rtt_ns: u64,
    pub(crate) congestion_window: u32,
    pub(crate) busy_ns: Option<u64>,
    /// Time in which the peer's window was too small.
    pub(crate) window_limited_ns: Option<u64>,
    pub(crate) buffer_limited_ns: Option<u64>,
}

/// A listening socket of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listener {
    pub(crate) local: SocketAddr,
    /// Connections that it dropped.
    pub(crate) drops: u64,
    pub(crate) queued: u32,
    pub(crate) queue_max: u32,
}

/// TCP of the process, and of its network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tcp {
    pub(crate) connections: Vec<Connection>,
    pub(crate) listeners: Vec<Listener>,
    /// There were more sockets than were looked at.
    pub(crate) cut: bool,
}

/// TCP of a whole network namespace: the process's and everybody else's in there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NetNamespace {
    pub(crate) segments_out: u64,
    pub(crate) retransmits: u64,
    pub(crate) timeouts: Option<u64>,
    pub(crate) listen_overflows: Option<u64>,
}

/// Faults and switches of the process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) minor_faults: u64,
    pub(crate) major_faults: u64,
    /// From `perf_event_open`.
    pub(crate) perf: Option<Perf>,
}

/// What perf counted, over how many threads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Perf {
    pub(crate) threads: u64,
    pub(crate) context_switches: u64,
    pub(crate) migrations: u64,
    pub(crate) minor_faults: u64,
    pub(crate) major_faults: u64,
    pub(crate) cycles: Option<u64>,
    pub(crate) instructions: Option<u64>,
    /// Why these two are not counted.
    pub(crate) no_hardware: Option<String>,
}

/// Pressure of one resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stall {
    /// `cpu`, `memory` or `io`.
    pub(crate) resource: &'static str,
    /// Of the process's own group, not only of the host.
    pub(crate) own_group: bool,
    pub(crate) some_ns: u64,
    pub(crate) full_ns: u64,
}

/// Sums over the threads of the process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct DelayGrowth {
    pub(crate) block_io_ns: u64,
    pub(crate) swap_in_ns: u64,
    pub(crate) reclaim_ns: u64,
    pub(crate) thrashing_ns: Option<u64>,
    pub(crate) compaction_ns: Option<u64>,
}

/// Calls and bytes of the process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct IoGrowth {
    pub(crate) read_calls: u64,
    pub(crate) write_calls: u64,
    pub(crate) storage_read_bytes: u64,
    pub(crate) storage_written_bytes: u64,
}

/// A group with a memory controller: the process's, or one around it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MemoryGroup {
    pub(crate) path: String,
    pub(crate) limit_bytes: Option<u64>,
    pub(crate) high: u64,
    pub(crate) max: u64,
    pub(crate) oom_kills: u64,
}

/// All that was seen of a process.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Facts {
    pub(crate) window_ns: u64,
    pub(crate) threads: Seen<Threads>,
    pub(crate) limits: Seen<Vec<LimitedGroup>>,
    pub(crate) tcp: Seen<Tcp>,
    pub(crate) namespace: Option<NetNamespace>,
    pub(crate) counters: Seen<Counters>,
    /// Why perf did not count, where it did not.
    pub(crate) perf_void: Option<Void>,
    pub(crate) stalls: Seen<Vec<Stall>>,
    pub(crate) delays: Seen<DelayGrowth>,
    pub(crate) io: Seen<IoGrowth>,
    pub(crate) memory: Seen<Vec<MemoryGroup>>,
}
