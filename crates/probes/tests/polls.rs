// SPDX-License-Identifier: Apache-2.0
//! What ended a poll-like wait: named where the kernel side could know it, and never wrongly.
//!
//! Truth is what the waiting thread was told by the kernel, the inode of what it was told about, and
//! when the test itself made what ready.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::child::Steps;
use common::kernel;
use common::now;
use common::polling;
use common::polling::Source;
use common::polling::Wait;
use common::polling::Waited;
use common::until;
use common::worker::Worker;
use lacuna_timeline::Cause;
use lacuna_timeline::event::Asked;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::ObjectKind;
use lacuna_timeline::event::Polled;
use lacuna_timeline::event::ThreadId;
use lacuna_timeline::event::Waker;
use rustix::event::FdSetElement;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::epoll::EventFlags;
use rustix::process::Signal;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often each descriptor ends a wait.
const ROUNDS: usize = 3;
/// For waits that end by their timeout.
const TIMEOUT: Duration = Duration::from_millis(20);
/// How long threads that race for something wait for it at most.
const PATIENCE: Duration = Duration::from_millis(500);
const READABLE: Polled = Polled::Sole(Asked::Input);

/// Waits as a thread does that needs nothing for it.
fn waits(
    sources: &Arc<Vec<Source>>,
    times: usize,
    wait: impl Fn(usize) -> Wait + Send + 'static,
) -> Waited {
    polling::waits(sources, times, move || wait)
}

fn epoll_of_every_kind(how: EventFlags) {
    let sources = Arc::new(polling::sources());
    let set = polling::set(&sources, EventFlags::IN | how);
    let times = ROUNDS * sources.len();
    let seen = waits(&sources, times, move |_| polling::epoll_wait(&set, None));
    let ended = Polled::Ended(Asked::Input);
    polling::each_is_named(&seen, &sources, Call::EpollWait, ended);
}

#[test]
fn root_what_ended_an_epoll_wait_is_named() {
    epoll_of_every_kind(EventFlags::empty());
}

#[test]
fn root_what_ended_an_edge_triggered_epoll_wait_is_named() {
    epoll_of_every_kind(EventFlags::ET);
}

/// Polls some descriptors; which was ready.
fn poll(sources: &[&Source], asked: PollFlags, timeout: Option<Duration>) -> Wait {
    let mut list: Vec<PollFd<'_>> = sources
        .iter()
        .map(|source| PollFd::new(&source.fd, asked))
        .collect();
    let timeout = timeout.map(polling::timespec);
    let begun = now();
    rustix::event::poll(&mut list, timeout.as_ref()).unwrap();
    let ended = now();
    let ready = list.iter().position(|fd| !fd.revents().is_empty());
    Wait {
        begun,
        ended,
        ready,
    }
}

#[test]
fn root_what_a_poll_of_one_waited_for_is_named() {
    let sources = Arc::new(polling::sources());
    let polled = sources.clone();
    let seen = waits(&sources, sources.len(), move |nth| Wait {
        ready: Some(nth),
        ..poll(&[&polled[nth]], PollFlags::IN, None)
    });
    polling::each_is_named(&seen, &sources, Call::Poll, READABLE);
}

/// Selects one descriptor to read; whether it was ready.
fn select(source: &Source) -> Wait {
    let fd = source.fd.as_raw_fd();
    let mut set = vec![FdSetElement::default(); rustix::event::fd_set_num_elements(1, fd + 1)];
    rustix::event::fd_set_insert(&mut set, fd);
    let begun = now();
    // SAFETY: the set has room for the descriptor, which is open.
    let ready = unsafe { rustix::event::select(fd + 1, Some(&mut set), None, None, None) };
    Wait {
        begun,
        ended: now(),
        ready: (ready.unwrap() == 1).then_some(0),
    }
}

#[test]
fn root_what_a_select_of_one_waited_for_is_named() {
    let sources = Arc::new(polling::sources());
    let selected = sources.clone();
    let seen = waits(&sources, sources.len(), move |nth| Wait {
        ready: Some(nth),
        ..select(&selected[nth])
    });
    polling::each_is_named(&seen, &sources, Call::Select, READABLE);
}

#[test]
fn root_a_poll_of_two_names_neither() {
    let sources = Arc::new(vec![polling::pipe(), polling::pipe()]);
    let polled = sources.clone();
    let (session, thread, log) = waits(&sources, 2, move |_| {
        poll(&[&polled[0], &polled[1]], PollFlags::IN, None)
    });
    for wait in &log {
        let sleep = session.sleep_of(thread, Call::Poll, wait);
        assert_eq!(sleep.off.wait.polled, Polled::No);
        assert_eq!(sleep.off.wait.object, None);
        assert_eq!(session.cause(sleep), Cause::WaitPoll);
    }
}

#[test]
fn root_an_epoll_instance_in_another_is_what_ended_the_wait() {
    let inner = polling::pipe();
    let outer = polling::pipe();
    let set = polling::set(std::slice::from_ref(&outer), EventFlags::IN);
    let nested = polling::set(std::slice::from_ref(&inner), EventFlags::IN);
    let data = rustix::event::epoll::EventData::new_u64(1);
    rustix::event::epoll::add(&set, &nested, data, EventFlags::IN).unwrap();
    let sources = Arc::new(vec![outer, inner]);
    let (session, thread, log) = waits(&sources, 2, move |_| polling::epoll_wait(&set, None));
    let sleeps: Vec<&Cycle> = log
        .iter()
        .map(|wait| session.sleep_of(thread, Call::EpollWait, wait))
        .collect();
    assert_eq!(session.object_of(sleeps[0]).ino, sources[0].ino());
    let wait = &sleeps[1].off.wait;
    assert_eq!(wait.polled, Polled::Ended(Asked::Input));
    assert_eq!(session.object_of(sleeps[1]).kind, ObjectKind::Epoll);
    assert_eq!(session.cause(sleeps[1]), Cause::WaitPoll);
}

/// A thread waits for a pipe that nobody writes to, until its time is over.
fn timed_out(wait: impl Fn(&Source) -> Wait + Send + 'static) -> (Session, ThreadId, Vec<Wait>) {
    let mut session = Session::start();
    let worker = Worker::start("polls", None, move |_| {
        let quiet = polling::pipe();
        (0..ROUNDS).map(|_| wait(&quiet)).collect::<Vec<Wait>>()
    });
    let tid = worker.tid;
    let log = worker.join();
    session.drain_past(now());
    let thread = session.id(tid);
    (session, thread, log)
}

#[test]
fn root_a_timeout_ends_an_epoll_wait_for_nothing() {
    let (session, thread, log) = timed_out(|quiet| {
        let set = polling::set(std::slice::from_ref(quiet), EventFlags::IN);
        polling::epoll_wait(&set, Some(TIMEOUT))
    });
    for wait in &log {
        assert_eq!(wait.ready, None);
        let sleep = session.sleep_of(thread, Call::EpollWait, wait);
        assert_eq!(sleep.off.wait.polled, Polled::No);
        assert_eq!(session.object_of(sleep).kind, ObjectKind::Epoll);
        assert_eq!(session.cause(sleep), Cause::WaitPoll);
    }
}

#[test]
fn root_a_timeout_ends_a_poll_of_one_for_nothing() {
    let (session, thread, log) = timed_out(|quiet| poll(&[quiet], PollFlags::IN, Some(TIMEOUT)));
    for wait in &log {
        assert_eq!(wait.ready, None);
        let sleep = session.sleep_of(thread, Call::Poll, wait);
        assert_eq!(sleep.off.wait.polled, READABLE);
        assert_eq!(sleep.waker, Waker::HardIrq);
        assert_eq!(session.object_of(sleep).kind, ObjectKind::Pipe);
        assert_eq!(session.cause(sleep), Cause::WaitPoll);
    }
}

/// A child waits for its input, which is all that it waits for: a signal ends a wait, then, where the call
/// goes on by itself, it is stopped for a while, then comes the input. Its sleeps. (Of the first, another
/// signal's, nothing is said: it may have begun before the child was watched.)
fn signalled(kind: &str, call: Call) -> (Session, Vec<Cycle>) {
    let program = kernel::compile("polls.c");
    let mut session = Session::start();
    let mut child = Steps::start(&program, &[kind]);
    let pid = child.pid();
    session.probes.watch_process(pid).unwrap();
    let process = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let signal = |signal| rustix::process::kill_process(process, signal).unwrap();
    let blocked = || until("a child that polls", || polling::is_blocked(pid, pid));
    for _ in 0..2 {
        blocked();
        signal(Signal::USR1);
        let interrupted = rustix::io::Errno::INTR.raw_os_error();
        assert_eq!(child.numbers::<i32>(), [interrupted]);
    }
    blocked();
    if call == Call::Poll {
        signal(Signal::STOP);
        until("a stopped child", || kernel::state(pid, pid) == Some('T'));
        signal(Signal::CONT);
        until("a child that sleeps again", || {
            kernel::state(pid, pid) == Some('S')
        });
    }
    child.step();
    assert_eq!(child.numbers::<i32>(), [0]);
    child.finish();
    std::fs::remove_file(Path::new(&program)).unwrap();
    session.drain_past(now());
    let thread = session.id(pid);
    let sleeps = session.sleeps(thread, call, 0, Ns::MAX);
    let sleeps = sleeps.into_iter().cloned().collect();
    (session, sleeps)
}

#[test]
fn root_a_signal_ends_an_epoll_wait_for_nothing() {
    let (session, sleeps) = signalled("epoll", Call::EpollWait);
    let sleeps = &sleeps[sleeps.len() - 2..];
    let polled = [0, 1].map(|nth| sleeps[nth].off.wait.polled);
    assert_eq!(polled, [Polled::No, Polled::Ended(Asked::Input)]);
    let kinds = [0, 1].map(|nth| session.object_of(&sleeps[nth]).kind);
    assert_eq!(kinds, [ObjectKind::Epoll, ObjectKind::Pipe]);
    assert_eq!(session.cause(&sleeps[1]), Cause::WaitPipe);
}

#[test]
fn root_a_signal_ends_a_poll_of_one_for_nothing() {
    let (session, sleeps) = signalled("poll", Call::Poll);
    let sleeps = &sleeps[sleeps.len() - 3..];
    let polled = [0, 1, 2].map(|nth| sleeps[nth].off.wait.polled);
    assert_eq!(polled, [Polled::No, Polled::No, READABLE]);
    let causes = [0, 1, 2].map(|nth| session.cause(&sleeps[nth]));
    assert_eq!(causes, [Cause::WaitPoll, Cause::WaitPoll, Cause::WaitPipe]);
    let input = session.object_of(&sleeps[2]);
    assert_eq!(input.kind, ObjectKind::Pipe);
}

#[test]
fn root_what_is_asked_of_a_descriptor_is_told() {
    let full = polling::full_pipe();
    let sources = Arc::new(vec![full]);
    let polled = sources.clone();
    let set = polling::set(&sources, EventFlags::OUT);
    let (session, thread, log) = waits(&sources, 3, move |nth| match nth {
        0 => poll(&[&polled[0]], PollFlags::OUT, None),
        1 => poll(&[&polled[0]], PollFlags::OUT | PollFlags::IN, None),
        _ => polling::epoll_wait(&set, None),
    });
    let expected = [
        (Call::Poll, Polled::Sole(Asked::Output)),
        (Call::Poll, Polled::Sole(Asked::Either)),
        (Call::EpollWait, Polled::Ended(Asked::Output)),
    ];
    for (wait, (call, polled)) in log.iter().zip(expected) {
        let sleep = session.sleep_of(thread, call, wait);
        assert_eq!(sleep.off.wait.polled, polled);
        assert_eq!(session.cause(sleep), Cause::WaitPipe);
    }
}

/// How often something is made ready where threads race for it.
fn races() -> usize {
    if kernel::emulated() { 60 } else { 300 }
}

/// When something may have been ready: from before it was made so until it was taken, or was no more.
struct MadeReady {
    ino: u64,
    from: Ns,
    to: Ns,
}

/// A thread that races for what becomes ready: which it has taken, and when it had.
type Racer = Worker<Vec<(usize, Ns)>>;

fn racer(sources: &Arc<Vec<Source>>, set: &Arc<OwnedFd>) -> Racer {
    let (sources, set) = (sources.clone(), set.clone());
    Worker::start("races", None, move |go_on| {
        let mut taken = Vec::new();
        while go_on() {
            if let Some(ready) = polling::epoll_wait(&set, Some(PATIENCE)).ready {
                sources[ready].drain();
                taken.push((ready, now()));
            }
        }
        taken
    })
}

/// Until nothing is left to take and all are asleep. One that was woken and has not run yet looks as if
/// it slept: what woke it is there still.
fn until_all_taken(sources: &[Source], racers: &[Racer]) {
    until("threads that have taken everything", || {
        let is_taken = |source: &Source| rustix::io::ioctl_fionread(&source.fd).unwrap() == 0;
        let pid = std::process::id();
        sources.iter().all(is_taken) && racers.iter().all(|r| polling::is_blocked(pid, r.tid))
    });
}

/// Every wait that names what ended it names something that became ready within it. How many do.
fn named_rightly(session: &Session, thread: ThreadId, made: &[MadeReady]) -> usize {
    let sleeps = session.sleeps(thread, Call::EpollWait, 0, Ns::MAX);
    let ended = |cycle: &&Cycle| cycle.off.wait.polled != Polled::No;
    let named = sleeps.into_iter().filter(ended);
    named
        .map(|sleep| {
            let object = session.object_of(sleep);
            assert_eq!(object.kind, ObjectKind::Pipe, "{sleep:?}");
            let waking = sleep.waking.expect("it was woken");
            let right = made.iter().any(|made| {
                made.ino == object.ino && made.from <= waking && made.to >= sleep.off.at
            });
            assert!(right, "{object:?} {sleep:?}");
        })
        .count()
}

/// Two threads wait on one instance, and take what they are told of. One that takes something from a
/// level-triggered instance puts it back until it has, and wakes the other for it.
fn race_for_pipes(how: EventFlags) {
    let mut session = Session::start();
    let sources: Arc<Vec<Source>> = Arc::new((0..4).map(|_| polling::pipe()).collect());
    let set = Arc::new(polling::set(&sources, EventFlags::IN | how));
    let racers = [0, 1].map(|_| racer(&sources, &set));
    let mut begun = Vec::new();
    for nth in 0..races() {
        // Every other time both are asleep; else they are at work, or on their way to sleep.
        if nth % 2 == 0 {
            until_all_taken(&sources, &racers);
        }
        let place = nth * 7 % 5 % sources.len();
        begun.push((place, now()));
        sources[place].make_ready();
    }
    until_all_taken(&sources, &racers);
    let tids = [racers[0].tid, racers[1].tid];
    let taken = racers.map(Worker::finish).concat();
    session.drain_past(now());
    let made = begun.into_iter().map(|(place, from)| {
        let later = taken.iter().filter(|(of, at)| *of == place && *at > from);
        let to = later.map(|(_, at)| *at).min().expect("it was taken");
        let ino = sources[place].ino();
        MadeReady { ino, from, to }
    });
    let made: Vec<MadeReady> = made.collect();
    let named = tids.map(|tid| named_rightly(&session, session.id(tid), &made));
    let named = named[0] + named[1];
    assert!(named >= races() / 2, "{named} of {}", races());
}

#[test]
fn root_two_threads_on_one_instance_name_what_became_ready_or_nothing() {
    race_for_pipes(EventFlags::empty());
    race_for_pipes(EventFlags::ET);
    race_for_pipes(EventFlags::EXCLUSIVE);
}

/// Descriptors come into a set, become ready, leave it and are closed, all while a thread waits on it and
/// another one takes what is ready.
#[test]
fn root_descriptors_that_come_and_go_are_never_mistaken() {
    let mut session = Session::start();
    let set = Arc::new(polling::set(&[], EventFlags::IN));
    let workers = [0, 1].map(|_| {
        let set = set.clone();
        Worker::start("waits", None, move |go_on| {
            while go_on() {
                polling::epoll_wait(&set, Some(PATIENCE));
            }
        })
    });
    let come_and_go = [0, 1].map(|_| {
        let set = set.clone();
        Worker::start("comes", None, move |_| {
            let one = |nth| {
                let source = polling::pipe();
                let data = rustix::event::epoll::EventData::new_u64(0);
                let how = EventFlags::IN | EventFlags::ET;
                let from = now();
                rustix::event::epoll::add(&*set, &source.fd, data, how).unwrap();
                source.make_ready();
                if nth % 2 == 0 {
                    rustix::event::epoll::delete(&*set, &source.fd).unwrap();
                }
                let ino = source.ino();
                drop(source);
                let to = now();
                MadeReady { ino, from, to }
            };
            (0..races()).map(one).collect::<Vec<MadeReady>>()
        })
    });
    let made: Vec<MadeReady> = come_and_go.into_iter().flat_map(Worker::join).collect();
    let tids = [workers[0].tid, workers[1].tid];
    for worker in workers {
        worker.finish();
    }
    session.drain_past(now());
    let named = tids.map(|tid| named_rightly(&session, session.id(tid), &made));
    assert!(named[0] + named[1] > 0, "{named:?}");
}

#[test]
fn root_a_connection_with_bytes_was_ready_for_input_whatever_was_asked() {
    let sources = Arc::new(vec![polling::connection(), polling::pipe()]);
    let how = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
    let set = polling::set(&sources, how);
    // What can be written to is ready as it comes into the set.
    while polling::epoll_wait(&set, Some(Duration::ZERO))
        .ready
        .is_some()
    {}
    let times = sources.len();
    let (session, thread, log) = waits(&sources, times, move |_| polling::epoll_wait(&set, None));
    for (source, wait) in sources.iter().zip(&log) {
        let sleep = session.sleep_of(thread, Call::EpollWait, wait);
        let asked = match session.object_of(sleep).kind {
            ObjectKind::Tcp(_) => Asked::Input,
            _ => Asked::Either,
        };
        assert!(source.is(session.object_of(sleep)), "{}", source.name);
        assert_eq!(
            sleep.off.wait.polled,
            Polled::Ended(asked),
            "{}",
            source.name
        );
    }
}
