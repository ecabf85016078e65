// SPDX-License-Identifier: Apache-2.0
//! Descriptors that can be polled, each with what makes it ready; waits for them, as the waiting thread
//! sees them and as they were recorded.

use super::Session;
use super::kernel;
use super::now;
use super::until;
use super::worker::Worker;
use lacuna_timeline::Cause;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::ObjectInfo;
use lacuna_timeline::event::ObjectKind;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Polled;
use lacuna_timeline::event::ThreadId;
use lacuna_timeline::event::Waker;
use lacuna_timeline::recorder::Recorder;
use rustix::event::EventfdFlags;
use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::event::epoll::EventData;
use rustix::event::epoll::EventFlags;
use rustix::pipe::PipeFlags;
use rustix::time::Itimerspec;
use rustix::time::TimerfdClockId;
use rustix::time::TimerfdFlags;
use rustix::time::TimerfdTimerFlags;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// System call numbers of the calls that the tests wait in: poll, epoll_wait, pselect6, ppoll, epoll_pwait,
/// io_uring_enter.
const POLL_CALLS: [u32; 6] = [7, 232, 270, 271, 281, 426];

/// A descriptor, what makes it ready, and what a wait that it ends must be called; `None`: that hangs on more
/// than what it is.
pub struct Source {
    pub name: &'static str,
    pub fd: OwnedFd,
    pub cause: Option<Cause>,
    is_output: bool,
    /// A kernel may have a worker read from it for an io_uring, because it cannot try without waiting.
    may_need_worker: bool,
    is_kind: fn(&ObjectKind) -> bool,
    act: Box<dyn Fn() + Send + Sync>,
}

impl Source {
    pub fn make_ready(&self) {
        (self.act)();
    }

    /// Takes everything that there is to read, or to accept; fills what can be written to only.
    pub fn drain(&self) {
        let mut bytes = [0; 4096];
        if self.is_output {
            while rustix::io::write(&self.fd, &bytes).is_ok() {}
            return;
        }
        while rustix::io::read(&self.fd, &mut bytes).is_ok_and(|got| got > 0) {}
        while rustix::net::accept(&self.fd).is_ok() {}
    }

    pub fn ino(&self) -> u64 {
        rustix::fs::fstat(&self.fd).unwrap().st_ino
    }

    /// Whether this is what was told of it.
    pub fn is(&self, object: &ObjectInfo) -> bool {
        (self.is_kind)(&object.kind) && object.ino == self.ino()
    }
}

fn source(
    name: &'static str,
    fd: impl Into<OwnedFd>,
    (is_kind, cause): (fn(&ObjectKind) -> bool, Option<Cause>),
    act: impl Fn() + Send + Sync + 'static,
) -> Source {
    let fd = fd.into();
    rustix::io::ioctl_fionbio(&fd, true).unwrap();
    Source {
        name,
        fd,
        cause,
        is_output: false,
        may_need_worker: matches!(name, "pipe" | "eventfd" | "timerfd"),
        is_kind,
        act: Box::new(act),
    }
}

/// Something to read in a pipe.
pub fn pipe() -> Source {
    let (end, other) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    let kind = |kind: &ObjectKind| *kind == ObjectKind::Pipe;
    source("pipe", end, (kind, Some(Cause::WaitPipe)), move || {
        rustix::io::write(&other, b"x").unwrap();
    })
}

/// Room in a pipe that is full: to drain it is to fill it.
pub fn full_pipe() -> Source {
    let (other, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    let kind = |kind: &ObjectKind| *kind == ObjectKind::Pipe;
    let size = rustix::pipe::fcntl_getpipe_size(&end).unwrap();
    let mut source = source("full pipe", end, (kind, Some(Cause::WaitPipe)), move || {
        rustix::io::read(&other, vec![0; size].as_mut_slice()).unwrap();
    });
    source.is_output = true;
    source.drain();
    source
}

fn eventfd() -> Source {
    let end = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let other = end.try_clone().unwrap();
    let kind = |kind: &ObjectKind| *kind == ObjectKind::Notification;
    source("eventfd", end, (kind, Some(Cause::WaitPipe)), move || {
        rustix::io::write(&other, &1_u64.to_ne_bytes()).unwrap();
    })
}

fn timerfd() -> Source {
    let end = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC);
    let end = end.unwrap();
    let other = end.try_clone().unwrap();
    let kind = |kind: &ObjectKind| *kind == ObjectKind::Timer;
    source("timerfd", end, (kind, Some(Cause::WaitSleep)), move || {
        let once = Itimerspec {
            it_interval: timespec(Duration::ZERO),
            it_value: timespec(Duration::from_millis(5)),
        };
        rustix::time::timerfd_settime(&other, TimerfdTimerFlags::empty(), &once).unwrap();
    })
}

fn unix() -> Source {
    let (end, other) = UnixStream::pair().unwrap();
    let kind = |kind: &ObjectKind| *kind == ObjectKind::UnixSocket;
    source(
        "Unix socket",
        end,
        (kind, Some(Cause::WaitPipe)),
        move || {
            rustix::io::write(&other, b"x").unwrap();
        },
    )
}

fn udp() -> Source {
    let end = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = end.local_addr().unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let kind = |kind: &ObjectKind| matches!(kind, ObjectKind::Datagram(_));
    source(
        "UDP socket",
        end,
        (kind, Some(Cause::NetDatagram)),
        move || {
            other.send_to(b"x", to).unwrap();
        },
    )
}

fn listener() -> Source {
    let end = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = end.local_addr().unwrap();
    let kind = |kind: &ObjectKind| matches!(kind, ObjectKind::TcpListener(_));
    source(
        "TCP listener",
        end,
        (kind, Some(Cause::NetIdle)),
        move || {
            drop(TcpStream::connect(to).unwrap());
        },
    )
}

pub fn connection() -> Source {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let end = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    let kind = |kind: &ObjectKind| matches!(kind, ObjectKind::Tcp(_));
    source("TCP connection", end, (kind, None), move || {
        rustix::io::write(&other, b"x").unwrap();
    })
}

/// One of each kind.
pub fn sources() -> Vec<Source> {
    vec![
        pipe(),
        eventfd(),
        timerfd(),
        unix(),
        udp(),
        listener(),
        connection(),
    ]
}

/// One wait, as the waiting thread saw it.
#[derive(Debug)]
pub struct Wait {
    pub begun: Ns,
    pub ended: Ns,
    /// Which was ready; `None`: it timed out.
    pub ready: Option<usize>,
}

/// An epoll instance with all of these in it, each by its place.
pub fn set(sources: &[Source], how: EventFlags) -> OwnedFd {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    for (place, source) in sources.iter().enumerate() {
        epoll::add(&set, &source.fd, EventData::new_u64(place as u64), how).unwrap();
    }
    set
}

pub fn timespec(time: Duration) -> Timespec {
    Timespec::try_from(time).unwrap()
}

/// Waits until one is ready, or the time is over.
pub fn epoll_wait(set: &OwnedFd, timeout: Option<Duration>) -> Wait {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(1);
    let begun = now();
    let timeout = timeout.map(timespec);
    let buffer = rustix::buffer::spare_capacity(&mut events);
    epoll::wait(set, buffer, timeout.as_ref()).unwrap();
    Wait {
        begun,
        ended: now(),
        ready: events.first().map(|event| { event.data }.u64() as usize),
    }
}

/// Whether a thread sleeps in a call that polls.
pub fn is_blocked(pid: u32, tid: u32) -> bool {
    kernel::blocked_in(pid, tid).is_some_and(|call| POLL_CALLS.contains(&call))
}

/// Until a thread of this process does.
#[track_caller]
pub fn until_blocked(tid: u32) {
    until("a thread that polls", || {
        is_blocked(std::process::id(), tid)
    });
}

/// A session, a thread of it that has waited, and what it saw of each wait.
pub type Waited = (Session, ThreadId, Vec<Wait>);

/// A thread waits again and again, and each time the next descriptor is made ready once it sleeps. What
/// it saw, and what was recorded of it. `prepare` runs in the thread.
pub fn waits<W: FnMut(usize) -> Wait>(
    sources: &Arc<Vec<Source>>,
    times: usize,
    prepare: impl FnOnce() -> W + Send + 'static,
) -> Waited {
    let mut session = Session::start();
    let done = Arc::new(AtomicUsize::new(0));
    let (watched, counted) = (sources.clone(), done.clone());
    let worker = Worker::start("polls", None, move |_| {
        let mut wait = prepare();
        let one = |nth| {
            let wait = wait(nth);
            if let Some(ready) = wait.ready {
                watched[ready].drain();
            }
            counted.fetch_add(1, Ordering::Release);
            wait
        };
        (0..times).map(one).collect::<Vec<Wait>>()
    });
    for nth in 0..times {
        until_blocked(worker.tid);
        sources[nth % sources.len()].make_ready();
        until("the end of the wait", || done.load(Ordering::Acquire) > nth);
    }
    let tid = worker.tid;
    let log = worker.join();
    session.drain_past(now());
    let thread = session.id(tid);
    (session, thread, log)
}

/// Each wait has the object that ended it, and its cause. A waking that the kernel did not trace says nothing, and
/// is rare; nor does that of a worker of the kernel.
#[track_caller]
pub fn each_is_named(
    (session, thread, log): &Waited,
    sources: &[Source],
    call: Call,
    polled: Polled,
) {
    let mut untraced = 0;
    for (nth, wait) in log.iter().enumerate() {
        let source = &sources[nth % sources.len()];
        let name = source.name;
        assert_eq!(wait.ready, Some(nth % sources.len()), "{name}");
        let sleep = session.sleep_of(*thread, call, wait);
        if sleep.waking.is_none() && untraced == 0 {
            untraced += 1;
            continue;
        }
        if source.may_need_worker && session.is_woken_by_worker(sleep) {
            assert_eq!(sleep.off.wait.polled, Polled::No, "{name}: {sleep:?}");
            continue;
        }
        assert_eq!(sleep.off.wait.polled, polled, "{name}: {sleep:?}");
        let object = session.object_of(sleep);
        assert!(source.is(object), "{name}: {object:?}");
        if let Some(cause) = source.cause {
            assert_eq!(session.cause(sleep), cause, "{name}");
        }
    }
}

impl Session {
    /// The sleeps of the thread in this call that began and ended within the window.
    pub fn sleeps(&self, thread: ThreadId, call: Call, from: Ns, to: Ns) -> Vec<&Cycle> {
        let all = self.cycles(thread, from, to);
        let asleep = |cycle: &&Cycle| {
            let off = &cycle.off;
            let slept = off.state == OffState::Sleeping && off.at >= from;
            slept && off.wait.entry == Entry::Call(call)
        };
        all.into_iter().filter(asleep).collect()
    }

    /// The sleep that a wait ended with.
    #[track_caller]
    pub fn sleep_of(&self, thread: ThreadId, call: Call, wait: &Wait) -> &Cycle {
        let sleeps = self.sleeps(thread, call, wait.begun, wait.ended);
        sleeps.last().expect("it slept")
    }

    /// Whether a thread of the kernel woke it.
    fn is_woken_by_worker(&self, cycle: &Cycle) -> bool {
        let Waker::Thread(waker) = cycle.waker else {
            return false;
        };
        self.events.iter().any(
            |event| matches!(event, Event::Thread(info) if info.thread == waker && info.kernel),
        )
    }

    /// What was told of the object of a wait.
    #[track_caller]
    pub fn object_of(&self, cycle: &Cycle) -> &ObjectInfo {
        let id = cycle.off.wait.object.expect("an object");
        let mut told = self.events.iter().filter_map(|event| match event {
            Event::Object(info) if info.object == id => Some(info),
            _ => None,
        });
        told.next().expect("the object was told")
    }

    /// What an account says of the blocked time of a cycle.
    #[track_caller]
    pub fn shares(&self, cycle: &Cycle) -> Vec<(Cause, Ns)> {
        let mut recorder = Recorder::new(64 << 20);
        for event in &self.events {
            recorder.push(event.clone());
        }
        recorder.confirm(self.horizon);
        let window = cycle.off.at..cycle.waking.expect("it was woken");
        let account = recorder.account(cycle.thread, &[window]);
        let shares = account.shares.iter();
        shares.map(|share| (share.cause, share.ns)).collect()
    }

    /// The same where it is one cause.
    #[track_caller]
    pub fn cause(&self, cycle: &Cycle) -> Cause {
        let shares = self.shares(cycle);
        let [(cause, _)] = shares[..] else {
            panic!("{shares:?}");
        };
        cause
    }
}
