// SPDX-License-Identifier: Apache-2.0
//! The vocabulary: what happened, to which thread, when.
//!
//! These are decoded facts, not wire bytes: `lacuna-probes` turns ring records into them, the
//! simulator makes them from a known truth, and both look the same from here. Nothing here decides
//! what a fact means; `cause.rs` does.
//!
//! All instants are `CLOCK_MONOTONIC` nanoseconds ([`Ns`]); 0 is never a valid instant, and where
//! an instant may be missing the type says `Option`.

pub mod net;
pub mod object;
pub mod wait;

pub use net::Connection;
pub use net::DeviceName;
pub use net::DropReason;
pub use net::Dropped;
pub use net::Net;
pub use net::NetState;
pub use net::PHASES_MAX;
pub use net::Phase;
pub use net::Retransmits;
pub use net::Took;
pub use object::Endpoints;
pub use object::ObjectInfo;
pub use object::ObjectKind;
pub use object::StackInfo;
pub use wait::Asked;
pub use wait::Call;
pub use wait::Entry;
pub use wait::Futex;
pub use wait::FutexKind;
pub use wait::OPEN_DETOURS_MAX;
pub use wait::Off;
pub use wait::OffState;
pub use wait::Polled;
pub use wait::Wait;

/// An instant on `CLOCK_MONOTONIC`, or a length of time; nanoseconds.
pub type Ns = u64;

/// A thread, by an id of our own that survives `exec`, renaming and reuse of its tid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ThreadId(pub u64);

/// A process: thread group id plus the start of its leader, so that a reused pid is another process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ProcessId {
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// `group_leader->start_time`, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: Ns,
}

/// A file, socket, pipe, ... as the kernel side resolved it at switch-out; 64-bit hash of its identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ObjectId(pub u64);

/// A kernel stack, by the hash of its frames.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StackId(pub u64);

/// The kernel's 16-byte thread name (`comm`), without its trailing zeros, lossily as UTF-8.
pub type Comm = Box<str>;

/// Everything that the account can be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A thread was seen for the first time, renamed, or went through `exec`: the newest one holds.
    Thread(ThreadInfo),
    /// A thread came back on a CPU: one whole cycle of running, then waiting.
    Cycle(Cycle),
    /// What the connection was like that a thread waited for in one of its cycles.
    Net(Net),
    /// A thread took a request from a connection for which it had not just waited.
    Took(Took),
    /// Several cycles of one kind, summed by the kernel side under overload.
    Merged(Merged),
    /// A kernel detour of 10 microseconds or more has ended.
    Detour(Detour),
    /// A thread left its CPU for the last time.
    Exit(Exit),
    /// What a thread was doing when the iterator looked: confirms silence.
    Snapshot(Snapshot),
    /// What the iterator saw of a thread that has not switched yet.
    Asleep(Asleep),
    /// What an [`ObjectId`] stands for.
    Object(ObjectInfo),
    /// What a [`StackId`] stands for.
    Stack(StackInfo),
    /// A stretch of time in which records may be missing that carry no proof of their own.
    Doubt(Doubt),
}

/// Who a thread is.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadInfo {
    /// Our id.
    pub thread: ThreadId,
    /// The process it belongs to.
    pub process: ProcessId,
    /// Kernel thread id in the initial pid namespace.
    pub tid: u32,
    /// Thread id in the thread's own pid namespace (what glibc and the SDKs know).
    pub ns_tid: u32,
    /// Process id in the thread's own pid namespace.
    pub ns_tgid: u32,
    /// The kernel's name of the thread.
    pub comm: Comm,
    /// A kernel thread or io worker: it has no meaningful user registers.
    pub kernel: bool,
    /// `task->start_time`.
    pub start_ns: Ns,
    /// From here on its records are complete (its first switch after attach, or its birth).
    pub since: Ns,
    /// cgroup id (v2) or 0.
    pub cgroup: u64,
    /// User FS base (x86-64: glibc's `pthread_self()`), 0 where unknown.
    pub fs_base: u64,
}

/// One cycle of a thread: on the CPU from `prev_in` to `out`, off it from `out` to `end`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cycle {
    /// Whose.
    pub thread: ThreadId,
    /// Per-thread record number; every attempted record counts, so a lost one leaves a hole.
    pub seq: u64,
    /// When it had come on the CPU; `None` if that was not seen.
    pub prev_in: Option<Ns>,
    /// When it left the CPU, how, and for what.
    pub off: Off,
    /// The latest `sched_waking` (or `sched_wakeup_new`) since `prev_in`; raw, not clamped.
    /// `None`: none was seen.
    pub waking: Option<Ns>,
    /// Who woke it.
    pub waker: Waker,
    /// When it was put on the run queue of the CPU where it then ran (`last_queued`).
    pub enqueued: Option<Ns>,
    /// That CPU was idle until it switched to this thread: nobody ran instead.
    pub from_idle: bool,
    /// Time it queued on other CPUs before it was migrated, and when the last such stretch ended.
    pub migrated: Option<Migrated>,
    /// A CPU bandwidth limit denied the CPU within this wait.
    pub throttle: Option<Throttle>,
    /// When it came back on a CPU.
    pub end: Ns,
    /// The CPU that it came back on.
    pub cpu: u16,
    /// Who ran on that CPU between `enqueued` and `end`.
    pub blame: Blame,
    /// The kernel stack of the wait, where one was taken.
    pub stack: Option<StackId>,
    /// A [`Net`] of the same number tells what the connection was like.
    pub net: bool,
    /// Page faults since the previous record of this thread.
    pub faults: Faults,
    /// Short detours since the previous record of this thread.
    pub short: ShortDetours,
    /// The number of its latest attempted [`Detour`]; 0: none yet.
    pub detour_seq: u64,
}

/// Who woke a thread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Waker {
    /// This thread, running in process context.
    Thread(ThreadId),
    /// A hard interrupt (timer, device).
    HardIrq,
    /// A softirq (network receive, timer wheel, ...), whoever it ran on top of.
    SoftIrq,
    /// The idle task.
    Idle,
    /// Not known.
    #[default]
    Unknown,
}

/// Runnable time on CPUs that the thread left by migration while it was queued.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Migrated {
    /// Growth of `sched_info.run_delay` since switch-out up to the last migration.
    pub waited_ns: Ns,
    /// When it was last migrated.
    pub at: Ns,
}

/// CPU time that a bandwidth limit denied within a wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Throttle {
    /// How long.
    pub ns: Ns,
    /// When the limit let go, where the place is exact; `None`: only the amount is.
    pub until: Option<Ns>,
    /// The amount itself is an estimate (before 6.6, rule 6).
    pub estimated: bool,
    /// cgroup whose queue it was (kernfs id), 0 unknown.
    pub cgroup: u64,
}

/// Who ran on the CPU while this thread was queued there; the parts add up to the wait looked at.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Blame {
    /// The largest, each with its nanoseconds; at most 4.
    pub culprits: Vec<(ThreadId, Ns)>,
    /// What other threads had.
    pub rest_ns: Ns,
    /// What the bounded ring no longer covered.
    pub uncovered_ns: Ns,
}

/// Page faults counted by the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Faults {
    /// Served without I/O.
    pub minor: u32,
    /// Served with I/O.
    pub major: u32,
}

/// Detours of less than 10 microseconds each, as sums: they have no position. They are part of the
/// time on the CPU between the previous switch-in and the switch-out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ShortDetours {
    /// Direct compaction, nanoseconds.
    pub compaction_ns: u32,
    /// Reclaim for a memory cgroup's limit, nanoseconds.
    pub memcg_ns: u32,
    /// Direct or node reclaim, nanoseconds.
    pub reclaim_ns: u32,
}

/// Cycles that the kernel side merged: same kind of wait, no own positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// Whose.
    pub thread: ThreadId,
    /// The record number, as in [`Cycle`].
    pub seq: u64,
    /// Switch-in that the stretch starts with; `None` if that was not seen.
    pub prev_in: Option<Ns>,
    /// Switch-in that the stretch ends with.
    pub end: Ns,
    /// How many cycles.
    pub count: u32,
    /// Sum on the CPU. `running_ns + runnable_ns + idle_wake_ns + blocked_ns == end - prev_in`.
    pub running_ns: Ns,
    /// Sum queued behind others (`runq.wakeup` or, where `state` is runnable, `runq.preempted`).
    pub runnable_ns: Ns,
    /// Sum from waking to switch-in with nobody running instead (`runq.idle`).
    pub idle_wake_ns: Ns,
    /// Sum blocked.
    pub blocked_ns: Ns,
    /// How they all left the CPU.
    pub state: OffState,
    /// What they all waited for (without position there is no owner and no stack).
    pub wait: Wait,
    /// Page faults since the previous record of this thread.
    pub faults: Faults,
    /// Short detours since the previous record of this thread.
    pub short: ShortDetours,
    /// The number of its latest attempted [`Detour`]; 0: none yet.
    pub detour_seq: u64,
}

/// A kernel detour: a stretch that the thread spent inside one memory or disk slow path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detour {
    /// Whose.
    pub thread: ThreadId,
    /// The detour's own number, per thread from 1 and apart from [`Cycle::seq`]; every attempted
    /// record counts. Each other record carries the latest, which proves that none was lost.
    pub seq: u64,
    /// Which.
    pub kind: DetourKind,
    /// From.
    pub begin: Ns,
    /// To.
    pub end: Ns,
    /// Allocation order, or the id of the cgroup that was reclaimed for; 0 unknown.
    pub detail: u64,
}

/// Which slow path; causes of group 3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum DetourKind {
    /// Direct compaction.
    Compaction,
    /// Reclaim for a memory cgroup's limit.
    MemcgReclaim,
    /// Direct or node reclaim because the host is short.
    DirectReclaim,
}

/// A thread's last record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exit {
    /// Whose.
    pub thread: ThreadId,
    /// The record number, as in [`Cycle`].
    pub seq: u64,
    /// Its last switch-in; `None` if that was not seen.
    pub prev_in: Option<Ns>,
    /// Its `TASK_DEAD` switch-out.
    pub at: Ns,
    /// Page faults since the previous record of this thread.
    pub faults: Faults,
    /// Short detours since the previous record of this thread.
    pub short: ShortDetours,
    /// The number of its latest attempted [`Detour`]; 0: none yet.
    pub detour_seq: u64,
}

/// What the iterator saw of a thread. Confirms that no switch came between its last record and then.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Whose.
    pub thread: ThreadId,
    /// The number of its latest attempted record.
    pub seq: u64,
    /// When the iterator looked.
    pub at: Ns,
    /// Its latest switch-in; `None` if none was seen.
    pub last_in: Option<Ns>,
    /// Off the CPU since, and for what; `None`: it is on a CPU.
    pub off: Option<Off>,
    /// Detours that were open where it is on a CPU, outermost first.
    pub open: Vec<DetourKind>,
    /// The number of its latest attempted [`Detour`]; 0: none yet.
    pub detour_seq: u64,
    /// The latest waking since `last_in`: from there on it is runnable. Without one, off the CPU and
    /// not preempted, it is blocked: where it is on a run queue all the same, it did something unseen,
    /// and the kernel side sends no snapshot of it.
    pub waking: Option<Ns>,
}

/// A thread was off the CPU throughout, and has been since before anything was recorded of it: for what is
/// not known. Stretches of one beginning replace each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asleep {
    /// Whose.
    pub thread: ThreadId,
    /// When the iterator first found it off the CPU.
    pub from: Ns,
    /// When it still was.
    pub until: Ns,
}

/// A stretch in which something may have been missed: what has no proof of its own in it is unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Doubt {
    /// From (the previous reading of the counters).
    pub from: Ns,
    /// To (this reading).
    pub to: Ns,
    /// What moved.
    pub reason: DoubtReason,
}

/// Which counter moved.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DoubtReason {
    /// The ring had no room.
    RingFull,
    /// Task storage could not be made.
    StorageFailed,
    /// The kernel skipped a program other than the one on `sched_switch` (`recursion_misses`): a
    /// waking may be missing, so a blocked wait without one is not proved.
    ProgramSkipped,
    /// The kernel skipped the program on `sched_switch`: whole cycles may be missing without a
    /// hole in the numbers, so nothing within the stretch is proved.
    SwitchSkipped,
    /// The host was suspended (a clock that goes on during suspend would count it): the stretch is
    /// nobody's.
    Suspended,
}
