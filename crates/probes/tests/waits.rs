// SPDX-License-Identifier: Apache-2.0
//! What a wait was: system call, descriptor, futex and stack (rules 17 to 19).
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::child::Steps;
use common::disk::Disk;
use common::kernel;
use common::kernel::Freezer;
use common::now;
use common::until;
use common::worker::Worker;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::Futex;
use lacuna_timeline::event::FutexKind;
use lacuna_timeline::event::ObjectInfo;
use lacuna_timeline::event::ObjectKind;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::ThreadId;
use lacuna_timeline::event::Waker;
use std::io::Read;
use std::io::Write;
use std::time::Duration;

const SYS_FUTEX: u32 = 202;

impl Session {
    /// Every cycle of the thread that waited in this call.
    fn waits(&self, thread: ThreadId, call: Call) -> Vec<&Cycle> {
        let all = self.cycles(thread, 0, u64::MAX);
        let in_call = |cycle: &&Cycle| cycle.off.wait.entry == Entry::Call(call);
        all.into_iter().filter(in_call).collect()
    }

    fn object(&self, cycle: &Cycle) -> Option<&ObjectInfo> {
        let id = cycle.off.wait.object?;
        self.events.iter().find_map(|event| match event {
            Event::Object(info) if info.object == id => Some(info),
            _ => None,
        })
    }

    fn frames(&self, cycle: &Cycle) -> Vec<Box<str>> {
        let of = |event: &Event| match event {
            Event::Stack(info) if Some(info.stack) == cycle.stack => Some(info.frames.clone()),
            _ => None,
        };
        self.events.iter().find_map(of).unwrap_or_default()
    }
}

/// The longest of the waits.
#[track_caller]
fn longest<'a>(cycles: &[&'a Cycle]) -> &'a Cycle {
    let length = |cycle: &&&Cycle| cycle.end - cycle.off.at;
    cycles.iter().max_by_key(length).expect("there was a wait")
}

#[test]
fn root_a_sleep_is_a_sleep_of_its_length() {
    let mut session = Session::start();
    let worker = Worker::start("sleeps", None, |_| {
        std::thread::sleep(Duration::from_millis(1));
        let begun = now();
        std::thread::sleep(Duration::from_millis(80));
        (begun, now())
    });
    let tid = worker.tid;
    let (begun, ended) = worker.join();
    session.drain_past(ended);
    let waits = session.waits(session.id(tid), Call::Nanosleep);
    let wait = longest(&waits);
    assert_eq!(wait.off.state, OffState::Sleeping);
    assert!(wait.off.at > begun && wait.end < ended);
    let waking = wait.waking.expect("something woke it");
    assert!(waking - wait.off.at >= 79_000_000, "{wait:?}");
    assert_eq!(wait.waker, Waker::HardIrq, "a timer");
}

#[test]
fn root_a_read_of_a_pipe_names_the_pipe_and_its_writer() {
    let mut session = Session::start();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let ino = rustix::fs::fstat(&reader).unwrap().st_ino;
    let reads = Worker::start("reads", Some(0), move |_| {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got.len()
    });
    let reader_tid = reads.tid;
    let writes = Worker::start("writes", Some(1), move |_| {
        until("a blocked reader", || {
            kernel::blocked_in(std::process::id(), reader_tid) == Some(0)
        });
        std::thread::sleep(Duration::from_millis(20));
        writer.write_all(b"x").unwrap();
    });
    let writer_tid = writes.tid;
    writes.join();
    assert_eq!(reads.join(), 1);
    session.drain_past(now());
    let waits = session.waits(session.id(reader_tid), Call::Read);
    let wait = longest(&waits);
    let object = session.object(wait).expect("the pipe was told");
    assert_eq!((object.kind, object.ino), (ObjectKind::Pipe, ino));
    assert_eq!(wait.waker, Waker::Thread(session.id(writer_tid)));
    let frames = session.frames(wait);
    assert!(
        frames.iter().any(|name| name.contains("pipe_read")),
        "{frames:?}"
    );
}

#[test]
fn root_a_socket_is_told_with_its_ends() {
    let mut session = Session::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Worker::start("serves", None, move |_| {
        let (mut stream, peer) = listener.accept().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(b"x").unwrap();
        peer.port()
    });
    let client = Worker::start("asks", None, move |_| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
    });
    let tid = client.tid;
    client.join();
    let client_port = server.join();
    session.drain_past(now());
    let waits = session.waits(session.id(tid), Call::Recv);
    let object = session
        .object(longest(&waits))
        .expect("the socket was told");
    let ObjectKind::Tcp(ends) = object.kind else {
        panic!("{object:?}");
    };
    assert_eq!((ends.local_port, ends.remote_port), (client_port, port));
    assert_eq!(ends.remote[10..], [0xff, 0xff, 127, 0, 0, 1]);
    assert!(ends.netns > 0);
}

/// A thread waits for a lock of this kind; what was read of its futex, and the owner's tid.
fn contended(kind: &str) -> (Cycle, Futex, u32) {
    let program = kernel::compile("locks.c");
    let mut session = Session::start();
    let mut child = Steps::start(&program, &[kind]);
    session.probes.watch_process(child.pid()).unwrap();
    child.step();
    let numbers = child.numbers();
    let (owner, waiter) = (numbers[0], numbers[1]);
    until("a thread that waits for the lock", || {
        kernel::blocked_in(owner, waiter) == Some(SYS_FUTEX)
    });
    child.step();
    child.finish();
    session.drain_past(now());
    let thread = session.id(waiter);
    let waits: Vec<&Cycle> = session.cycles(thread, 0, u64::MAX);
    let waits: Vec<&Cycle> = waits
        .into_iter()
        .filter(|cycle| cycle.off.wait.futex.is_some())
        .collect();
    let wait = longest(&waits).clone();
    std::fs::remove_file(program).unwrap();
    let futex = wait.off.wait.futex.unwrap();
    (wait, futex, owner)
}

#[test]
fn root_a_mutex_names_its_owner() {
    let (wait, futex, owner) = contended("mutex");
    assert_eq!(wait.off.wait.entry, Entry::Call(Call::FutexWait));
    assert_eq!(
        (futex.kind, futex.owner_ns_tid),
        (FutexKind::GlibcMutex, owner)
    );
    assert_eq!(
        wait.off.wait.args[0], futex.address_hash,
        "no address leaves"
    );
}

#[test]
fn root_a_rwlock_names_its_writer() {
    let (_, futex, owner) = contended("rwlock");
    assert_eq!(
        (futex.kind, futex.owner_ns_tid),
        (FutexKind::GlibcRwlock, owner)
    );
}

#[test]
fn root_a_priority_inheriting_mutex_names_its_owner() {
    let (wait, futex, owner) = contended("pi");
    assert_eq!(wait.off.wait.entry, Entry::Call(Call::FutexLockPi));
    assert_eq!((futex.kind, futex.owner_ns_tid), (FutexKind::Pi, owner));
}

#[test]
fn root_a_condition_variable_names_nobody() {
    let (wait, futex, _) = contended("condition");
    assert_eq!((futex.kind, futex.owner_ns_tid), (FutexKind::Unowned, 0));
    assert!(matches!(wait.waker, Waker::Thread(_)));
}

#[test]
fn root_a_flush_has_its_file_and_its_stack() {
    let mut session = Session::start();
    let name = format!("flush-{}", std::process::id());
    let disk = Disk::new();
    let file_path = disk.path.join(&name);
    let worker = Worker::start("flushes", None, move |_| {
        std::thread::sleep(Duration::from_millis(1));
        let mut file = std::fs::File::create(file_path).unwrap();
        for _ in 0..5 {
            file.write_all(&[7; 1 << 20]).unwrap();
            file.sync_all().unwrap();
        }
    });
    let tid = worker.tid;
    worker.join();
    session.drain_past(now());
    let waits = session.waits(session.id(tid), Call::Sync);
    assert!(!waits.is_empty());
    let wait = longest(&waits);
    let object = session.object(wait).expect("the file was told");
    assert_eq!(
        (object.kind, &*object.name),
        (ObjectKind::File, name.as_str())
    );
    for wait in waits {
        if wait.off.state == OffState::Uninterruptible {
            let frames = session.frames(wait);
            assert!(
                frames.iter().any(|name| name.contains("sync")),
                "{frames:?}"
            );
        }
    }
}

#[test]
fn root_a_frozen_thread_is_frozen_and_not_asleep() {
    let mut session = Session::start();
    let group = Freezer::new();
    let mut child = Steps::start(std::path::Path::new("sleep"), &["0.3"]);
    let pid = child.pid();
    session.probes.watch_process(pid).unwrap();
    until("a sleeping child", || {
        kernel::blocked_in(pid, pid) == Some(230)
    });
    group.take(pid);
    group.freeze(true);
    let frozen_at = now();
    group.freeze(false);
    child.finish();
    session.drain_past(now());
    let all = session.cycles(session.id(pid), 0, u64::MAX);
    let frozen: Vec<_> = all
        .iter()
        .filter(|cycle| cycle.off.state == OffState::Frozen)
        .collect();
    assert_eq!(frozen.len(), 1, "{all:#?}");
    assert!(frozen[0].off.at < frozen_at && frozen[0].end > frozen_at);
}

#[test]
fn root_an_interrupted_call_keeps_its_name() {
    let mut session = Session::start();
    let mut child = Steps::start(std::path::Path::new("sleep"), &["0.3"]);
    let pid = child.pid();
    session.probes.watch_process(pid).unwrap();
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    until("a sleeping child", || {
        kernel::blocked_in(pid, pid) == Some(230)
    });
    signal(rustix::process::Signal::STOP);
    until("a stopped child", || kernel::state(pid, pid) == Some('T'));
    signal(rustix::process::Signal::CONT);
    child.finish();
    session.drain_past(now());
    let thread = session.id(pid);
    let all = session.cycles(thread, 0, u64::MAX);
    assert!(
        all.iter().any(|cycle| cycle.off.state == OffState::Stopped),
        "{all:#?}"
    );
    let slept = session.waits(thread, Call::Nanosleep);
    let asleep = |cycle: &&&Cycle| cycle.off.state == OffState::Sleeping;
    assert!(slept.iter().filter(asleep).count() >= 1, "{all:#?}");
    assert!(
        session.waits(thread, Call::Other(219)).is_empty(),
        "{all:#?}"
    );
}
