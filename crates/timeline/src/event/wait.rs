// SPDX-License-Identifier: Apache-2.0
//! How a thread left the CPU, and what it was doing in the kernel then.
//!
//! Facts only: which cause they amount to is decided in `cause/blocked.rs`.

use super::DetourKind;
use super::Ns;
use super::ObjectId;

/// How and why a thread left the CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Off {
    /// When (switch-out).
    pub at: Ns,
    /// Still runnable, or blocked and in which way.
    pub state: OffState,
    /// What it was doing in the kernel.
    pub wait: Wait,
    /// Detours that were open then, outermost first; at most [`OPEN_DETOURS_MAX`].
    pub detours: Vec<DetourKind>,
}

/// How many open detours a record carries; deeper ones are not seen.
pub const OPEN_DETOURS_MAX: usize = 4;

/// The thread's state as it left the CPU (from `preempt` and masked `prev_state` bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OffState {
    /// Preempted, or yielded: it could have gone on at once.
    Runnable,
    /// Interruptible sleep.
    Sleeping,
    /// Uninterruptible sleep; `io` is `in_iowait`, `killable` is `TASK_WAKEKILL`.
    Uninterruptible,
    /// Uninterruptible that does not count as load (`TASK_NOLOAD`), e.g. an idle kernel thread.
    Idle,
    /// Stopped by a signal.
    Stopped,
    /// Stopped by a tracer.
    Traced,
    /// Parked kernel thread.
    Parked,
    /// Frozen (v1 freezer, system suspend, or a frozen v2 cgroup).
    Frozen,
    /// Blocked on an rt-mutex based lock (`TASK_RTLOCK_WAIT`).
    RtLock,
    /// A state that this table does not know.
    Other,
}

/// What the thread was doing in the kernel when it left the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Wait {
    /// How it had entered the kernel.
    pub entry: Entry,
    /// The first four system call arguments, as far as they are meaningful for `entry`.
    pub args: [u64; 4],
    /// What its descriptor argument pointed at.
    pub object: Option<ObjectId>,
    /// What its futex word said.
    pub futex: Option<Futex>,
    /// `task->in_iowait`.
    pub iowait: bool,
    /// What is known of the end of a poll-like wait.
    pub polled: Polled,
}

/// What is known of a poll-like wait beyond its call: how `object` stands to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Polled {
    /// Nothing. The object is what the call itself names: an epoll instance, or a sole descriptor.
    #[default]
    No,
    /// An epoll instance had the object ready, and it alone, as the thread was woken. It had had nothing
    /// ready as the thread fell asleep, so this ended the wait. Or a request of an io_uring for the object,
    /// and it alone, could go on or was done.
    Ended(Asked),
    /// The object was all that the call asked about, and no signal was there as the thread was woken: it
    /// ended the wait, unless the timeout did.
    Sole(Asked),
}

/// Which readiness of an object was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// Whether it can be read; errors and hang-ups are told besides, here and everywhere.
    Input,
    /// Whether it can be written to, which of a connection also says that it is made.
    Output,
    /// Both, or only errors and hang-ups. (A TCP connection that had something to read as the thread was
    /// woken from an epoll wait is always [`Asked::Input`].)
    Either,
    /// To be connected, by a request of an io_uring.
    Connect,
}

/// How a thread had entered the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Entry {
    /// By this system call.
    Call(Call),
    /// By an exception or interrupt: a blocked wait is then a page fault's.
    Fault,
    /// It is a kernel thread or io worker: no system call.
    KernelThread,
    /// Not recorded (the thread was runnable, or the registers could not be read).
    #[default]
    NotRecorded,
}

/// A system call by meaning. `lacuna-probes` maps each architecture's numbers to these; calls that
/// mean the same wait share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `read`, `readv`, `pread64`, `preadv`, `preadv2`.
    Read,
    /// `write`, `writev`, `pwrite64`, `pwritev`, `pwritev2`.
    Write,
    /// `recvfrom`, `recvmsg`, `recvmmsg`.
    Recv,
    /// `sendto`, `sendmsg`, `sendmmsg`.
    Send,
    /// `sendfile`, `splice`, `tee`, `vmsplice`, `copy_file_range`.
    Splice,
    /// `connect`.
    Connect,
    /// `accept`, `accept4`.
    Accept,
    /// `futex` waiting (`FUTEX_WAIT`, `FUTEX_WAIT_BITSET`, `FUTEX_WAIT_REQUEUE_PI`), `futex_wait`, `futex_waitv`.
    FutexWait,
    /// `futex` taking a priority-inheriting lock (`FUTEX_LOCK_PI`, `FUTEX_LOCK_PI2`).
    FutexLockPi,
    /// Any other `futex` operation (wake, requeue).
    FutexOther,
    /// `nanosleep`, `clock_nanosleep`.
    Nanosleep,
    /// `epoll_wait`, `epoll_pwait`, `epoll_pwait2`.
    EpollWait,
    /// `poll`, `ppoll`.
    Poll,
    /// `select`, `pselect6`.
    Select,
    /// `io_uring_enter`, `io_getevents`, `io_pgetevents`.
    IoWait,
    /// `fsync`, `fdatasync`, `sync`, `syncfs`, `sync_file_range`, `msync`.
    Sync,
    /// `open`, `openat`, `openat2`, `stat` family, `rename`, `unlink`, `mkdir`, ...: path walks.
    Path,
    /// `close`.
    Close,
    /// `ioctl`, `fcntl`, `flock`: by descriptor, otherwise unknown.
    Control,
    /// `wait4`, `waitid`.
    WaitChild,
    /// `vfork`, `clone`/`clone3` (blocks in `vfork` style), `fork`.
    Fork,
    /// `execve`, `execveat`.
    Exec,
    /// `exit`, `exit_group`.
    Exit,
    /// `pause`, `rt_sigsuspend`, `rt_sigtimedwait`.
    Signal,
    /// `mq_timedreceive`, `mq_timedsend`, `msgrcv`, `msgsnd`, `semop`, `semtimedop`.
    MessageQueue,
    /// `mmap`, `munmap`, `mprotect`, `madvise`, `brk`, `mremap`, ...
    Memory,
    /// `sched_yield`.
    Yield,
    /// Any other, by its number on the architecture it was recorded on.
    Other(u32),
}

impl Call {
    /// What people call it: the system call that stands for its like.
    pub fn name(self) -> String {
        let name = match self {
            Call::Read => "read",
            Call::Write => "write",
            Call::Recv => "recv",
            Call::Send => "send",
            Call::Splice => "splice",
            Call::Connect => "connect",
            Call::Accept => "accept",
            Call::FutexWait => "futex",
            Call::FutexLockPi => "futex_lock_pi",
            Call::FutexOther => "futex_wake",
            Call::Nanosleep => "nanosleep",
            Call::EpollWait => "epoll_wait",
            Call::Poll => "poll",
            Call::Select => "select",
            Call::IoWait => "io_wait",
            Call::Sync => "fsync",
            Call::Path => "open",
            Call::Close => "close",
            Call::Control => "ioctl",
            Call::WaitChild => "wait4",
            Call::Fork => "fork",
            Call::Exec => "execve",
            Call::Exit => "exit",
            Call::Signal => "pause",
            Call::MessageQueue => "msgrcv",
            Call::Memory => "mmap",
            Call::Yield => "sched_yield",
            Call::Other(number) => return format!("system call {number}"),
        };
        name.to_owned()
    }
}

/// What was read of a futex at switch-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Futex {
    /// What kind of user-space object it is certain to be, if any.
    pub kind: FutexKind,
    /// The owner as the object names it: a tid **in the process's pid namespace**; 0: none named.
    pub owner_ns_tid: u32,
    /// Hash of the address (the address itself never leaves the host).
    pub address_hash: u64,
}

/// The user-space object behind a futex word, judged by operation, value and layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FutexKind {
    /// Looks like a contended glibc mutex: `FUTEX_WAIT` for 2, with an owner field.
    /// The owner must be a living thread of the same process for this to be believed.
    GlibcMutex,
    /// Looks like a write-locked glibc rwlock; believed under the same condition.
    GlibcRwlock,
    /// A priority-inheriting futex: the kernel's own protocol, certain.
    Pi,
    /// Condition variable, semaphore, park, or a lock that names no owner.
    Unowned,
}
