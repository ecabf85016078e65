// SPDX-License-Identifier: Apache-2.0
//! Exchanges over a TCP connection, and what was told of the waits in them.

use super::Session;
use super::kernel;
use super::network::Pair;
use super::network::Place;
use super::network::Posts;
use super::network::RIGHT;
use super::network::Trail;
use super::now;
use super::until;
use super::worker::Worker;
use lacuna_timeline::Cause;
use lacuna_timeline::Recorder;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Connection;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::Net;
use lacuna_timeline::event::NetState;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::Phase;
use rustix::event::epoll;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

/// How long the server thinks in most of these.
pub const THINKS: Duration = Duration::from_millis(150);

const SYS_RECVFROM: u32 = 45;

/// More than any test records.
const RECORDER_BYTES: usize = 64 << 20;

/// A microsecond.
pub const US: Ns = 1000;
/// A millisecond.
pub const MS: Ns = 1_000_000;

/// What one exchange was to the client.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    pub asked: Ns,
    pub answered: Ns,
    pub tid: u32,
}

impl Session {
    /// What was told of a wait of this thread, with its cycle.
    pub fn told(&self, tid: u32, call: Call) -> Vec<(&Cycle, &Net)> {
        let thread = self.id(tid);
        let net = |cycle: &Cycle| {
            self.events.iter().find_map(|event| match event {
                Event::Net(net) if (net.thread, net.seq) == (thread, cycle.seq) => Some(net),
                _ => None,
            })
        };
        let all = self.cycles(thread, 0, Ns::MAX);
        let in_call = |cycle: &&Cycle| cycle.off.wait.entry == Entry::Call(call);
        let told = all.into_iter().filter(in_call);
        told.filter_map(|cycle| Some((cycle, net(cycle)?)))
            .collect()
    }

    /// Of the longest such wait.
    #[track_caller]
    pub fn longest(&self, tid: u32, call: Call) -> (&Cycle, &Connection) {
        self.longest_since(0, tid, call)
    }

    /// Of the longest in an exchange: one before it may take longer, on a busy machine.
    #[track_caller]
    pub fn longest_in(&self, exchange: &Exchange, call: Call) -> (&Cycle, &Connection) {
        self.longest_since(exchange.asked, exchange.tid, call)
    }

    #[track_caller]
    fn longest_since(&self, from: Ns, tid: u32, call: Call) -> (&Cycle, &Connection) {
        let told = self.told(tid, call);
        let (cycle, net) = told
            .into_iter()
            .filter(|(cycle, _)| cycle.off.at >= from)
            .max_by_key(|(cycle, _)| cycle.end - cycle.off.at)
            .expect("a wait on a connection was told");
        assert!(cycle.net, "its cycle says so");
        assert_eq!(Some(net.connection), cycle.off.wait.object);
        ordered(cycle, &net.seen);
        (cycle, &net.seen)
    }
}

/// How much of a wait, from its switch-out to its waking, has that cause.
#[track_caller]
pub fn caused(session: &Session, cycle: &Cycle, cause: Cause) -> Ns {
    let mut recorder = Recorder::new(RECORDER_BYTES);
    for event in &session.events {
        recorder.push(event.clone());
    }
    recorder.confirm(session.horizon);
    let wait = cycle.off.at..cycle.waking.unwrap_or(cycle.end);
    recorder.account(cycle.thread, &[wait]).ns(cause)
}

/// What must hold of all of them.
#[track_caller]
pub fn ordered(cycle: &Cycle, seen: &Connection) {
    assert!(
        seen.phases.is_sorted_by_key(|phase| phase.at),
        "{:#?}",
        seen.phases
    );
    let first = seen.phases.first().expect("a phase");
    assert!(seen.cut || first.at <= cycle.off.at, "{seen:#?}");
    for phase in &seen.phases {
        assert!(
            phase.since.is_none_or(|since| since <= phase.at),
            "{phase:?}"
        );
        assert!(phase.at <= cycle.end, "{phase:?}");
    }
}

/// How long the connection was in such a state while the thread was blocked.
pub fn time_in(cycle: &Cycle, seen: &Connection, wanted: impl Fn(NetState) -> bool) -> Ns {
    let end = cycle.waking.unwrap_or(cycle.end);
    let ends = seen.phases.iter().skip(1).map(|phase| phase.at);
    let pieces = seen.phases.iter().zip(ends.chain([end]));
    pieces
        .filter(|(phase, _)| wanted(phase.state))
        .map(|(phase, until)| until.min(end).saturating_sub(phase.at.max(cycle.off.at)))
        .sum()
}

pub fn first(seen: &Connection, bits: NetState) -> Option<&Phase> {
    seen.phases.iter().find(|phase| phase.state.has(bits))
}

/// Sooner than an acknowledgement is delayed (`TCP_DELACK_MIN`, 40 ms), so that the answer brings it.
const THINKS_SHORTLY: Duration = Duration::from_millis(15);

/// Accepts one connection and answers each byte with one, after thinking where the byte says so.
pub fn serve(listener: TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 {
        match byte[0] {
            b't' => std::thread::sleep(THINKS),
            b's' => std::thread::sleep(THINKS_SHORTLY),
            _ => {}
        }
        stream.write_all(&byte).unwrap();
    }
}

pub fn exchange(stream: &mut TcpStream, byte: u8) -> Exchange {
    let asked = now();
    stream.write_all(&[byte]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    Exchange {
        asked,
        answered: now(),
        tid: rustix::thread::gettid().as_raw_nonzero().get() as u32,
    }
}

/// By how much an instant may differ from what the test noted of it.
pub fn slack_ns() -> Ns {
    if kernel::emulated() { 40 * MS } else { MS }
}

/// How long one of the kernel's ticks is.
pub fn tick_ns() -> Ns {
    rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse).tv_nsec as u64
}

/// Asserts that something was when the test noted it.
#[track_caller]
pub fn assert_at(what: &str, measured: Ns, noted: Ns) {
    let apart = measured.abs_diff(noted);
    assert!(apart <= slack_ns(), "{what}: {apart} ns apart");
}

/// Asserts that something was between two instants that it follows and goes before. (What is told goes by
/// whole microseconds.)
#[track_caller]
pub fn assert_between(what: &str, measured: Ns, from: Ns, to: Ns) {
    let range = from.saturating_sub(US)..=to + US;
    let (after, before) = (
        i128::from(measured) - i128::from(from),
        i128::from(to) - i128::from(measured),
    );
    assert!(
        range.contains(&measured),
        "{what}: {after} ns after the one, {before} before the other"
    );
}

/// Waits until that thread waits for input.
pub fn until_it_reads(tid: u32) {
    until("a thread that waits for input", || {
        kernel::blocked_in(std::process::id(), tid) == Some(SYS_RECVFROM)
    });
}

/// The same, waiting in epoll for an answer that comes before the question is acknowledged.
pub fn exchange_polled_shortly(stream: &mut TcpStream, byte: u8) -> Exchange {
    exchange_polled(stream, if byte == b't' { b's' } else { byte })
}

/// The same, waiting in epoll for the answer.
pub fn exchange_polled(stream: &mut TcpStream, byte: u8) -> Exchange {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let data = epoll::EventData::new_u64(0);
    epoll::add(&set, &stream, data, epoll::EventFlags::IN).unwrap();
    let asked = now();
    stream.write_all(&[byte]).unwrap();
    let mut ready = Vec::with_capacity(4);
    while ready.is_empty() {
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut ready), None).unwrap();
    }
    let answered = now();
    stream.read_exact(&mut [0]).unwrap();
    Exchange {
        asked,
        answered,
        tid: rustix::thread::gettid().as_raw_nonzero().get() as u32,
    }
}

/// A server on the right and a client on the left, which has had some quick exchanges. `prepare` runs before
/// the one that is looked at.
pub fn asked_across(
    pair: Pair,
    exchange: fn(&mut TcpStream, u8) -> Exchange,
    prepare: impl FnOnce() + Send + 'static,
) -> (Pair, Exchange, Worker<()>) {
    let listener = pair.right.within(|| TcpListener::bind((RIGHT, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let server = Worker::start("serves", None, move |_| serve(listener));
    let server_tid = server.tid;
    let client = Worker::start("asks", None, move |_| {
        pair.left.enter();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        for _ in 0..8 {
            exchange(&mut stream, b'q');
        }
        until_it_reads(server_tid);
        prepare();
        let exchange = exchange(&mut stream, b't');
        drop(stream);
        (pair, exchange)
    });
    let (pair, exchange) = client.join();
    (pair, exchange, server)
}

/// The same where the next two segments with data do not pass that place; what passed where.
pub fn asked_in_vain(
    pair: Pair,
    exchange: fn(&mut TcpStream, u8) -> Exchange,
    place: Place,
) -> (Pair, Exchange, Trail) {
    dropped_after(|| (), pair, exchange, place)
}

/// The same once the latest answer is acknowledged: else it is the request that acknowledges it, and where
/// that is dropped the answer is sent again.
pub fn asked_in_vain_from_rest(
    pair: Pair,
    exchange: fn(&mut TcpStream, u8) -> Exchange,
    place: Place,
) -> (Pair, Exchange, Trail) {
    let right = pair.right.again();
    let rest = move || until("all is acknowledged", || right.unacknowledged() == 0);
    dropped_after(rest, pair, exchange, place)
}

fn dropped_after(
    before: impl FnOnce() + Send + 'static,
    pair: Pair,
    exchange: fn(&mut TcpStream, u8) -> Exchange,
    place: Place,
) -> (Pair, Exchange, Trail) {
    let mut posts = Posts::new(&pair);
    let (tell, told) = channel();
    let (ready, go) = channel();
    let arm = Worker::start("arms", None, move |_| {
        told.recv().unwrap();
        before();
        posts.drop_next(place, 2);
        ready.send(()).unwrap();
        posts
    });
    let (pair, exchange, server) = asked_across(pair, exchange, move || {
        tell.send(()).unwrap();
        go.recv().unwrap();
    });
    server.join();
    let trail = arm.join().trail(exchange.asked);
    assert_eq!(trail.dropped(), 2, "{trail:?}");
    (pair, exchange, trail)
}
