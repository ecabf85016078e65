// SPDX-License-Identifier: Apache-2.0
//! The one place where blocked time is given its cause.
//!
//! Everything that a record says of a wait comes in as [`Blocked`]; one [`Cause`] comes out. What
//! two facts leave open stays `wait.other`: a cause is named only where it is certain.

use super::Awaited;
use super::Cause;
use super::StackClass;
use crate::event::Asked;
use crate::event::Call;
use crate::event::DetourKind;
use crate::event::Entry;
use crate::event::FutexKind;
use crate::event::ObjectKind;
use crate::event::OffState;
use crate::event::Polled;
use crate::event::Wait;

/// Everything known of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// How the thread left the CPU.
    pub state: OffState,
    /// How it had entered the kernel.
    pub entry: Entry,
    /// It waits for no descriptor: a `poll` or `select` of none.
    pub no_descriptors: bool,
    /// What its descriptor pointed at, where it has one and that is known.
    pub object: Option<ObjectClass>,
    /// What its futex word looked like.
    pub futex: Option<FutexKind>,
    /// The owner named by the futex was a living thread of the same process, and another one.
    pub owner_lives: bool,
    /// `task->in_iowait`.
    pub iowait: bool,
    /// What is known of the end of a poll-like wait.
    pub polled: Polled,
    /// Whoever woke it may have been its timeout: neither a thread nor a softirq. (Timeouts of polls are
    /// told in hard interrupts.)
    pub may_have_timed_out: bool,
    /// The innermost kernel detour that was open.
    pub detour: Option<DetourKind>,
    /// What its kernel stack proves; `None`: none was taken, or its symbols are hidden.
    pub stack: Option<StackClass>,
}

/// [`ObjectKind`] without addresses: what waits are told apart by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "as in ObjectKind")]
pub enum ObjectClass {
    File,
    RemoteFile,
    BlockDevice,
    CharDevice,
    Pipe,
    Notification,
    Timer,
    Epoll,
    UnixSocket,
    Tcp,
    TcpListener,
    Datagram,
    OtherSocket,
    Other,
}

impl ObjectClass {
    /// Every class; the recorder stores one as its place here.
    pub(crate) const ALL: [ObjectClass; 14] = [
        ObjectClass::File,
        ObjectClass::RemoteFile,
        ObjectClass::BlockDevice,
        ObjectClass::CharDevice,
        ObjectClass::Pipe,
        ObjectClass::Notification,
        ObjectClass::Timer,
        ObjectClass::Epoll,
        ObjectClass::UnixSocket,
        ObjectClass::Tcp,
        ObjectClass::TcpListener,
        ObjectClass::Datagram,
        ObjectClass::OtherSocket,
        ObjectClass::Other,
    ];
}

impl From<ObjectKind> for ObjectClass {
    fn from(kind: ObjectKind) -> ObjectClass {
        match kind {
            ObjectKind::File => ObjectClass::File,
            ObjectKind::RemoteFile => ObjectClass::RemoteFile,
            ObjectKind::BlockDevice => ObjectClass::BlockDevice,
            ObjectKind::CharDevice => ObjectClass::CharDevice,
            ObjectKind::Pipe => ObjectClass::Pipe,
            ObjectKind::Notification => ObjectClass::Notification,
            ObjectKind::Timer => ObjectClass::Timer,
            ObjectKind::Epoll => ObjectClass::Epoll,
            ObjectKind::UnixSocket => ObjectClass::UnixSocket,
            ObjectKind::Tcp(_) => ObjectClass::Tcp,
            ObjectKind::TcpListener(_) => ObjectClass::TcpListener,
            ObjectKind::Datagram(_) => ObjectClass::Datagram,
            ObjectKind::OtherSocket => ObjectClass::OtherSocket,
            ObjectKind::Other => ObjectClass::Other,
        }
    }
}

/// The cause of the time spent inside a detour, on the CPU or blocked.
pub fn detour_cause(kind: DetourKind) -> Cause {
    match kind {
        DetourKind::Compaction => Cause::MemCompaction,
        DetourKind::MemcgReclaim => Cause::MemLimit,
        DetourKind::DirectReclaim => Cause::MemReclaim,
    }
}

/// Whether a wait names no descriptor at all: it can only end by its timeout or a signal.
pub fn polls_nothing(wait: &Wait) -> bool {
    match wait.entry {
        Entry::Call(Call::Poll) => wait.args[1] == 0,
        Entry::Call(Call::Select) => wait.args[0] == 0,
        _ => false,
    }
}

/// What blocked time is put down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// One cause, all of it.
    Cause(Cause),
    /// A TCP connection: what held of that at each instant decides (`cause/net.rs`).
    Connection(Awaited),
}

impl Verdict {
    /// The cause where nothing more is known.
    pub fn cause(self) -> Cause {
        match self {
            Verdict::Cause(cause) => cause,
            Verdict::Connection(awaited) => awaited.unseen(),
        }
    }
}

/// The cause of blocked time of which only the wait itself is known.
pub fn blocked_cause(wait: &Blocked) -> Cause {
    verdict(wait).cause()
}

/// What blocked time is put down to.
pub fn verdict(wait: &Blocked) -> Verdict {
    if let Some(kind) = wait.detour {
        return Verdict::Cause(detour_cause(kind));
    }
    let by_stack = wait.stack.and_then(StackClass::cause);
    if let Some(cause) = by_stack.filter(|cause| is_detour(*cause)) {
        return Verdict::Cause(cause);
    }
    if matches!(
        wait.state,
        OffState::Stopped | OffState::Traced | OffState::Frozen
    ) {
        return Verdict::Cause(Cause::WaitStopped);
    }
    let by_call = match wait.entry {
        Entry::Call(call) => connection(call, wait).map_or_else(
            || Verdict::Cause(call_cause(call, wait)),
            Verdict::Connection,
        ),
        Entry::Fault => Verdict::Cause(fault_cause(wait)),
        Entry::KernelThread | Entry::NotRecorded => Verdict::Cause(Cause::WaitOther),
    };
    match by_stack {
        // A futex sleeps in the same functions whatever it is; its word tells more.
        Some(Cause::WaitNotify | Cause::WaitPoll) | None => by_call,
        // No room to send on a connection, whatever call it came by.
        Some(Cause::NetSend) if wait.object == Some(ObjectClass::Tcp) => {
            Verdict::Connection(Awaited {
                asked: Asked::Output,
                polled: false,
            })
        }
        // Calls that are what they are wherever they block; where both say something, the order
        // of causes decides.
        Some(stack) if is_certain(by_call.cause()) => Verdict::Cause(by_call.cause().min(stack)),
        // Otherwise the function that it sleeps in knows better than the call it came by.
        Some(stack) => Verdict::Cause(stack),
    }
}

/// What a call awaits of the TCP connection that it is for; `None`: it is for none.
fn connection(call: Call, wait: &Blocked) -> Option<Awaited> {
    if wait.object != Some(ObjectClass::Tcp) {
        return None;
    }
    let (asked, polled) = match call {
        Call::Read | Call::Recv => (Asked::Input, false),
        Call::Write | Call::Send => (Asked::Output, false),
        Call::Poll | Call::Select | Call::EpollWait | Call::IoWait => (ended_by(wait)?, true),
        _ => return None,
    };
    // A handshake is not a phase of a connection: as in `connect`.
    if asked == Asked::Connect {
        return None;
    }
    Some(Awaited { asked, polled })
}

/// What was asked of the object that ended a poll-like wait; `None`: none is known to have ended it.
fn ended_by(wait: &Blocked) -> Option<Asked> {
    match wait.polled {
        Polled::No => None,
        Polled::Ended(asked) => Some(asked),
        // A timer's descriptor is told in hard interrupts too, but either way it was a timer.
        Polled::Sole(asked) => {
            let certain = !wait.may_have_timed_out || wait.object == Some(ObjectClass::Timer);
            certain.then_some(asked)
        }
    }
}

/// Causes of group 3, which a stack can prove.
fn is_detour(cause: Cause) -> bool {
    (Cause::MemCompaction..=Cause::DiskLimit).contains(&cause)
}

/// Causes that a call and its object prove wherever in the call the thread sleeps.
fn is_certain(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::FsRemote | Cause::DiskFlush | Cause::LockFutex | Cause::WaitNotify
    )
}

/// The cause of a wait in a page fault whose stack says no more.
fn fault_cause(wait: &Blocked) -> Cause {
    // With a stack at hand swap, remote files and locks are ruled out, and what is left of I/O in
    // a fault is a file page. Without one it may be either.
    if wait.iowait && wait.stack.is_some() {
        Cause::MemFault
    } else {
        Cause::WaitOther
    }
}

/// The cause of a wait in a system call, by the call and what its descriptor points at.
fn call_cause(call: Call, wait: &Blocked) -> Cause {
    match call {
        Call::FutexWait => futex_cause(wait),
        Call::FutexLockPi => Cause::LockFutex,
        Call::Nanosleep => Cause::WaitSleep,
        Call::Poll | Call::Select if wait.no_descriptors => Cause::WaitSleep,
        Call::Poll | Call::Select | Call::EpollWait => polled_cause(wait),
        Call::IoWait => requested_cause(wait),
        Call::Accept => Cause::NetIdle,
        Call::Connect => connect_cause(wait.object),
        Call::Read | Call::Recv | Call::Splice => input_cause(wait),
        Call::Write | Call::Send => output_cause(wait),
        Call::Sync if wait.object == Some(ObjectClass::RemoteFile) => Cause::FsRemote,
        Call::Sync => Cause::DiskFlush,
        Call::Close | Call::Control if wait.object == Some(ObjectClass::RemoteFile) => {
            Cause::FsRemote
        }
        // Walking a path, mapping and executing a file read blocks; who waits for a write there
        // waits for the journal, and its stack says so.
        Call::Path | Call::Exec | Call::Memory if wait.iowait => Cause::DiskRead,
        Call::WaitChild | Call::Fork => Cause::WaitChild,
        Call::Signal => Cause::WaitNotify,
        Call::MessageQueue => Cause::WaitPipe,
        Call::FutexOther
        | Call::Path
        | Call::Close
        | Call::Control
        | Call::Exec
        | Call::Exit
        | Call::Memory
        | Call::Yield
        | Call::Other(_) => Cause::WaitOther,
    }
}

/// Rule 19: a lock only where the kernel's own protocol or a living owner says so, or idle pool
/// threads would look like lock contention.
fn futex_cause(wait: &Blocked) -> Cause {
    match wait.futex {
        Some(FutexKind::Pi) => Cause::LockFutex,
        Some(FutexKind::GlibcMutex | FutexKind::GlibcRwlock) if wait.owner_lives => {
            Cause::LockFutex
        }
        _ => Cause::WaitNotify,
    }
}

/// `connect`: a local socket waits for its listener's queue, TCP for the handshake.
fn connect_cause(object: Option<ObjectClass>) -> Cause {
    match object {
        Some(ObjectClass::Tcp) => Cause::NetConnect,
        Some(ObjectClass::UnixSocket) => Cause::WaitPipe,
        _ => Cause::WaitOther,
    }
}

/// Reading from something that has nothing to give yet.
fn input_cause(wait: &Blocked) -> Cause {
    match wait.object {
        Some(ObjectClass::RemoteFile) => Cause::FsRemote,
        Some(ObjectClass::File | ObjectClass::BlockDevice) if wait.iowait => Cause::DiskRead,
        Some(ObjectClass::Timer) => Cause::WaitSleep,
        Some(ObjectClass::TcpListener) => Cause::NetIdle,
        Some(ObjectClass::Datagram) => Cause::NetDatagram,
        Some(ObjectClass::Pipe | ObjectClass::UnixSocket | ObjectClass::Notification) => {
            Cause::WaitPipe
        }
        _ => Cause::WaitOther,
    }
}

/// A poll-like wait: what a read of the object that ended it would have been, where that is known. What
/// such a read cannot tell apart stays a poll.
fn polled_cause(wait: &Blocked) -> Cause {
    match ended_by(wait).map(|_| input_cause(wait)) {
        None | Some(Cause::WaitOther) => Cause::WaitPoll,
        Some(cause) => cause,
    }
}

/// A wait for completions: what the request that ended it would have been as a call of its own, where that
/// is known. What such a call cannot tell apart stays a poll.
fn requested_cause(wait: &Blocked) -> Cause {
    let cause = match ended_by(wait) {
        None => Cause::WaitPoll,
        Some(Asked::Connect) => connect_cause(wait.object),
        Some(Asked::Output) => output_cause(wait),
        Some(Asked::Input) => input_cause(wait),
        Some(Asked::Either) => match (input_cause(wait), output_cause(wait)) {
            (input, output) if input == output => input,
            _ => Cause::WaitPoll,
        },
    };
    match cause {
        Cause::WaitOther => Cause::WaitPoll,
        cause => cause,
    }
}

/// Writing to something that takes no more yet.
fn output_cause(wait: &Blocked) -> Cause {
    match wait.object {
        Some(ObjectClass::RemoteFile) => Cause::FsRemote,
        Some(ObjectClass::File | ObjectClass::BlockDevice) if wait.iowait => Cause::DiskWrite,
        Some(ObjectClass::Datagram) => Cause::NetDatagram,
        Some(ObjectClass::Pipe | ObjectClass::UnixSocket | ObjectClass::Notification) => {
            Cause::WaitPipe
        }
        _ => Cause::WaitOther,
    }
}

#[cfg(test)]
mod tests;
