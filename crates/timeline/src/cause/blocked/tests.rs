// SPDX-License-Identifier: Apache-2.0
//! One test per row of the decision, each wait written as the facts that a record has.

use super::Awaited;
use super::Blocked;
use super::ObjectClass;
use super::Verdict;
use super::blocked_cause;
use super::polls_nothing;
use super::verdict;
use crate::cause::Cause;
use crate::cause::StackClass;
use crate::event::Asked;
use crate::event::Call;
use crate::event::DetourKind;
use crate::event::Entry;
use crate::event::FutexKind;
use crate::event::OffState;
use crate::event::Polled;
use crate::event::Wait;

/// An interruptible wait in a call, nothing else known.
fn call(call: Call) -> Blocked {
    Blocked {
        state: OffState::Sleeping,
        entry: Entry::Call(call),
        no_descriptors: false,
        object: None,
        futex: None,
        owner_lives: false,
        iowait: false,
        polled: Polled::No,
        may_have_timed_out: false,
        detour: None,
        stack: None,
    }
}

/// The same on an object.
fn on(kind: Call, object: ObjectClass) -> Blocked {
    Blocked {
        object: Some(object),
        ..call(kind)
    }
}

/// The same, waiting for block I/O.
fn io(kind: Call, object: ObjectClass) -> Blocked {
    Blocked {
        state: OffState::Uninterruptible,
        iowait: true,
        ..on(kind, object)
    }
}

/// The same with a stack of one telling function.
fn with_stack(wait: Blocked, function: &str) -> Blocked {
    Blocked {
        stack: Some(StackClass::of(&[
            Box::from("schedule"),
            Box::from(function),
        ])),
        ..wait
    }
}

/// A wait in a page fault.
fn fault(iowait: bool) -> Blocked {
    Blocked {
        state: OffState::Uninterruptible,
        entry: Entry::Fault,
        iowait,
        ..call(Call::Yield)
    }
}

#[track_caller]
fn is(wait: Blocked, cause: Cause) {
    assert_eq!(blocked_cause(&wait), cause, "{wait:?}");
}

#[test]
fn detours_win_over_everything() {
    for (kind, cause) in [
        (DetourKind::Compaction, Cause::MemCompaction),
        (DetourKind::MemcgReclaim, Cause::MemLimit),
        (DetourKind::DirectReclaim, Cause::MemReclaim),
    ] {
        let wait = with_stack(io(Call::Write, ObjectClass::File), "wbt_wait");
        is(
            Blocked {
                detour: Some(kind),
                ..wait
            },
            cause,
        );
    }
}

#[test]
fn stacks_of_slow_paths_win_over_states_and_calls() {
    let frozen = Blocked {
        state: OffState::Frozen,
        ..call(Call::Read)
    };
    is(
        with_stack(frozen, "__mem_cgroup_handle_over_high"),
        Cause::MemLimit,
    );
    is(
        with_stack(call(Call::Write), "balance_dirty_pages"),
        Cause::DiskDirty,
    );
    is(
        with_stack(io(Call::Read, ObjectClass::File), "rq_qos_wait"),
        Cause::DiskLimit,
    );
    is(
        with_stack(call(Call::Memory), "out_of_memory"),
        Cause::MemOom,
    );
    is(
        with_stack(call(Call::Memory), "throttle_direct_reclaim"),
        Cause::MemReclaim,
    );
}

#[test]
fn stopped_threads_wait_for_nothing_else() {
    for state in [OffState::Stopped, OffState::Traced, OffState::Frozen] {
        is(
            Blocked {
                state,
                ..call(Call::Nanosleep)
            },
            Cause::WaitStopped,
        );
    }
}

#[test]
fn faults_are_told_apart_by_stack() {
    is(with_stack(fault(true), "filemap_fault"), Cause::MemFault);
    is(with_stack(fault(true), "do_swap_page"), Cause::MemSwap);
    is(
        with_stack(fault(false), "rwsem_down_read_slowpath"),
        Cause::LockKernel,
    );
    is(with_stack(fault(true), "fuse_read_folio"), Cause::FsRemote);
    is(
        with_stack(fault(true), "folio_wait_bit_common"),
        Cause::MemFault,
    );
    is(with_stack(fault(false), "worker"), Cause::WaitOther);
    is(fault(true), Cause::WaitOther);
}

#[test]
fn a_futex_is_a_lock_only_with_a_living_owner() {
    let futex = |kind, owner_lives| Blocked {
        futex: Some(kind),
        owner_lives,
        ..call(Call::FutexWait)
    };
    is(futex(FutexKind::GlibcMutex, true), Cause::LockFutex);
    is(futex(FutexKind::GlibcMutex, false), Cause::WaitNotify);
    is(futex(FutexKind::GlibcRwlock, true), Cause::LockFutex);
    is(futex(FutexKind::GlibcRwlock, false), Cause::WaitNotify);
    is(futex(FutexKind::Pi, false), Cause::LockFutex);
    is(futex(FutexKind::Unowned, true), Cause::WaitNotify);
    is(call(Call::FutexWait), Cause::WaitNotify);
    is(call(Call::FutexLockPi), Cause::LockFutex);
    is(
        with_stack(call(Call::FutexLockPi), "rt_mutex_slowlock"),
        Cause::LockFutex,
    );
    is(
        with_stack(futex(FutexKind::GlibcMutex, true), "futex_wait_queue"),
        Cause::LockFutex,
    );
    is(call(Call::FutexOther), Cause::WaitOther);
}

#[test]
fn block_io_is_read_write_or_flush() {
    is(io(Call::Read, ObjectClass::File), Cause::DiskRead);
    is(io(Call::Splice, ObjectClass::BlockDevice), Cause::DiskRead);
    is(io(Call::Write, ObjectClass::File), Cause::DiskWrite);
    is(io(Call::Sync, ObjectClass::File), Cause::DiskFlush);
    is(call(Call::Sync), Cause::DiskFlush);
    is(io(Call::Path, ObjectClass::Other), Cause::DiskRead);
    is(io(Call::Exec, ObjectClass::Other), Cause::DiskRead);
    is(io(Call::Memory, ObjectClass::Other), Cause::DiskRead);
    is(
        with_stack(io(Call::Write, ObjectClass::File), "jbd2_log_wait_commit"),
        Cause::DiskFlush,
    );
    is(
        with_stack(io(Call::Write, ObjectClass::File), "__bread_gfp"),
        Cause::DiskRead,
    );
    is(
        with_stack(io(Call::Sync, ObjectClass::File), "__mutex_lock"),
        Cause::DiskFlush,
    );
    is(on(Call::Read, ObjectClass::File), Cause::WaitOther);
}

#[test]
fn io_uring_pretends_to_wait_for_io_and_is_a_poll() {
    is(io(Call::IoWait, ObjectClass::Other), Cause::WaitPoll);
}

#[test]
fn remote_files_are_remote_in_every_call() {
    for kind in [
        Call::Read,
        Call::Write,
        Call::Splice,
        Call::Sync,
        Call::Close,
        Call::Control,
    ] {
        is(io(kind, ObjectClass::RemoteFile), Cause::FsRemote);
    }
    is(
        with_stack(call(Call::Path), "nfs_wait_bit_killable"),
        Cause::FsRemote,
    );
}

#[test]
fn kernel_locks_are_found_by_stack_only() {
    is(
        with_stack(on(Call::Write, ObjectClass::Pipe), "__mutex_lock"),
        Cause::LockKernel,
    );
    is(
        with_stack(on(Call::Send, ObjectClass::Tcp), "__lock_sock"),
        Cause::LockKernel,
    );
    is(
        with_stack(call(Call::Path), "rwsem_down_write_slowpath"),
        Cause::LockKernel,
    );
}

#[test]
fn network_waits_by_call_and_socket() {
    is(on(Call::Connect, ObjectClass::Tcp), Cause::NetConnect);
    is(on(Call::Connect, ObjectClass::UnixSocket), Cause::WaitPipe);
    is(call(Call::Connect), Cause::WaitOther);
    is(call(Call::Accept), Cause::NetIdle);
    is(on(Call::Read, ObjectClass::TcpListener), Cause::NetIdle);
    is(on(Call::Recv, ObjectClass::Datagram), Cause::NetDatagram);
    is(on(Call::Send, ObjectClass::Datagram), Cause::NetDatagram);
    is(on(Call::Send, ObjectClass::Tcp), Cause::NetSend);
    is(on(Call::Write, ObjectClass::Tcp), Cause::NetSend);
    is(on(Call::Recv, ObjectClass::Tcp), Cause::WaitOther);
    is(on(Call::Read, ObjectClass::Tcp), Cause::WaitOther);
    is(on(Call::Recv, ObjectClass::OtherSocket), Cause::WaitOther);
}

#[test]
fn pipes_local_sockets_and_queues() {
    for object in [
        ObjectClass::Pipe,
        ObjectClass::UnixSocket,
        ObjectClass::Notification,
    ] {
        is(on(Call::Read, object), Cause::WaitPipe);
        is(on(Call::Write, object), Cause::WaitPipe);
    }
    is(call(Call::MessageQueue), Cause::WaitPipe);
    is(
        with_stack(call(Call::Path), "wait_for_partner"),
        Cause::WaitPipe,
    );
}

#[test]
fn sleeps_and_polls() {
    is(call(Call::Nanosleep), Cause::WaitSleep);
    is(on(Call::Read, ObjectClass::Timer), Cause::WaitSleep);
    for kind in [Call::Poll, Call::Select] {
        is(call(kind), Cause::WaitPoll);
        is(
            Blocked {
                no_descriptors: true,
                ..call(kind)
            },
            Cause::WaitSleep,
        );
    }
    is(call(Call::EpollWait), Cause::WaitPoll);
    is(
        with_stack(call(Call::EpollWait), "ep_poll"),
        Cause::WaitPoll,
    );
}

/// What a poll-like wait that an object is known to have ended is.
const POLLED: [(ObjectClass, Cause); 10] = [
    (ObjectClass::Pipe, Cause::WaitPipe),
    (ObjectClass::UnixSocket, Cause::WaitPipe),
    (ObjectClass::Notification, Cause::WaitPipe),
    (ObjectClass::Timer, Cause::WaitSleep),
    (ObjectClass::TcpListener, Cause::NetIdle),
    (ObjectClass::Datagram, Cause::NetDatagram),
    (ObjectClass::Tcp, Cause::WaitPoll),
    (ObjectClass::CharDevice, Cause::WaitPoll),
    (ObjectClass::Epoll, Cause::WaitPoll),
    (ObjectClass::OtherSocket, Cause::WaitPoll),
];

#[test]
fn a_poll_is_what_ended_it() {
    for (object, cause) in POLLED {
        let ended = |call| Blocked {
            polled: Polled::Ended(Asked::Input),
            ..on(call, object)
        };
        is(ended(Call::EpollWait), cause);
        is(with_stack(ended(Call::EpollWait), "ep_poll"), cause);
        // What was ready as it was woken was ready, whoever woke it.
        is(
            Blocked {
                may_have_timed_out: true,
                ..ended(Call::EpollWait)
            },
            cause,
        );
        for asked in [Asked::Input, Asked::Output, Asked::Either] {
            for call in [Call::Poll, Call::Select] {
                let sole = Blocked {
                    polled: Polled::Sole(asked),
                    ..on(call, object)
                };
                is(sole, cause);
                is(with_stack(sole, "do_sys_poll"), cause);
            }
        }
        is(on(Call::EpollWait, object), Cause::WaitPoll);
        is(on(Call::Poll, object), Cause::WaitPoll);
        is(on(Call::IoWait, object), Cause::WaitPoll);
    }
    let unknown = Blocked {
        polled: Polled::Ended(Asked::Input),
        ..call(Call::EpollWait)
    };
    is(unknown, Cause::WaitPoll);
}

/// What a wait for completions is that such a request for an object has ended.
const REQUESTED: [(ObjectClass, Asked, Cause); 12] = [
    (ObjectClass::Pipe, Asked::Input, Cause::WaitPipe),
    (ObjectClass::Pipe, Asked::Output, Cause::WaitPipe),
    (ObjectClass::Pipe, Asked::Either, Cause::WaitPipe),
    (ObjectClass::Timer, Asked::Input, Cause::WaitSleep),
    (ObjectClass::TcpListener, Asked::Input, Cause::NetIdle),
    (ObjectClass::Tcp, Asked::Connect, Cause::NetConnect),
    (ObjectClass::UnixSocket, Asked::Connect, Cause::WaitPipe),
    (ObjectClass::File, Asked::Input, Cause::DiskRead),
    (ObjectClass::File, Asked::Output, Cause::DiskWrite),
    (ObjectClass::File, Asked::Either, Cause::WaitPoll),
    (ObjectClass::RemoteFile, Asked::Input, Cause::FsRemote),
    (ObjectClass::CharDevice, Asked::Input, Cause::WaitPoll),
];

#[test]
fn a_wait_for_completions_is_what_was_asked_for() {
    for (object, asked, cause) in REQUESTED {
        let wait = Blocked {
            polled: Polled::Ended(asked),
            ..io(Call::IoWait, object)
        };
        is(wait, cause);
        is(with_stack(wait, "io_cqring_wait"), cause);
        let unknown = Blocked {
            polled: Polled::No,
            ..wait
        };
        is(unknown, Cause::WaitPoll);
    }
    for asked in [Asked::Input, Asked::Output, Asked::Either] {
        let wait = Blocked {
            polled: Polled::Ended(asked),
            ..io(Call::IoWait, ObjectClass::Tcp)
        };
        let polled = true;
        let looked_at = Verdict::Connection(Awaited { asked, polled });
        assert_eq!(verdict(&wait), looked_at);
    }
}

#[test]
fn a_connection_that_ended_a_poll_is_looked_at() {
    let polled = |polled| {
        verdict(&Blocked {
            polled,
            ..on(Call::EpollWait, ObjectClass::Tcp)
        })
    };
    for asked in [Asked::Input, Asked::Output, Asked::Either] {
        let looked_at = Verdict::Connection(Awaited {
            asked,
            polled: true,
        });
        assert_eq!(polled(Polled::Ended(asked)), looked_at);
        assert_eq!(polled(Polled::Sole(asked)), looked_at);
    }
    assert_eq!(polled(Polled::No), Verdict::Cause(Cause::WaitPoll));
}

#[test]
fn a_poll_that_may_have_timed_out_is_nothing_else() {
    for (object, _) in POLLED {
        let timed_out = Blocked {
            polled: Polled::Sole(Asked::Input),
            may_have_timed_out: true,
            ..on(Call::Poll, object)
        };
        let timer = object == ObjectClass::Timer;
        is(
            timed_out,
            if timer {
                Cause::WaitSleep
            } else {
                Cause::WaitPoll
            },
        );
    }
}

#[test]
fn a_poll_of_no_descriptors_is_seen_in_its_arguments() {
    let wait = |kind, args| Wait {
        entry: Entry::Call(kind),
        args,
        ..Wait::default()
    };
    assert!(polls_nothing(&wait(Call::Poll, [0, 0, 5, 0])));
    assert!(!polls_nothing(&wait(Call::Poll, [1, 1, 5, 0])));
    assert!(polls_nothing(&wait(Call::Select, [0, 0, 0, 0])));
    assert!(!polls_nothing(&wait(Call::Select, [4, 0, 0, 0])));
    assert!(!polls_nothing(&wait(Call::Read, [0, 0, 0, 0])));
}

#[test]
fn children_and_signals() {
    is(call(Call::WaitChild), Cause::WaitChild);
    is(call(Call::Fork), Cause::WaitChild);
    is(
        with_stack(call(Call::Fork), "rwsem_down_write_slowpath"),
        Cause::LockKernel,
    );
    is(call(Call::Signal), Cause::WaitNotify);
}

#[test]
fn what_is_not_certain_is_other() {
    for kind in [
        Call::Close,
        Call::Control,
        Call::Exec,
        Call::Exit,
        Call::Memory,
        Call::Yield,
        Call::Path,
        Call::Other(999),
    ] {
        is(call(kind), Cause::WaitOther);
    }
    for entry in [Entry::KernelThread, Entry::NotRecorded] {
        is(
            Blocked {
                entry,
                ..call(Call::Yield)
            },
            Cause::WaitOther,
        );
    }
}
