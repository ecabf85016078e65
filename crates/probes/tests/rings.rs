// SPDX-License-Identifier: Apache-2.0
//! What ended a wait for completions of an io_uring: named where the kernel side could know it, and never
//! wrongly.
//!
//! Truth is what the waiting thread was told by the kernel, the inode of what it was told about, when the
//! test itself made what ready, and what a classifier on the cable noted.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::assert_close;
use common::disk::Disk;
use common::exchange::Exchange;
use common::exchange::THINKS;
use common::exchange::asked_across;
use common::exchange::asked_in_vain;
use common::exchange::assert_between;
use common::exchange::slack_ns;
use common::exchange::time_in;
use common::network::Namespace;
use common::network::Pair;
use common::network::Place;
use common::now;
use common::polling;
use common::polling::Source;
use common::polling::Wait;
use common::polling::Waited;
use common::until;
use common::uring;
use common::uring::Ring;
use common::worker::Worker;
use lacuna_timeline::Cause;
use lacuna_timeline::event::Asked;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::NetState;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::ObjectKind;
use lacuna_timeline::event::Polled;
use lacuna_timeline::event::ThreadId;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io_uring::IoringOp;
use rustix::io_uring::IoringSetupFlags;
use rustix::net::AddressFamily;
use rustix::net::SocketType;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// How often each descriptor ends a wait.
const ROUNDS: usize = 3;
/// For waits that end by their timeout.
const TIMEOUT: Duration = Duration::from_millis(20);
/// How long what is expected to come is waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// From a disk.
const READS: usize = 32;
const POLLIN: u16 = 1;
const INPUT: Polled = Polled::Ended(Asked::Input);

/// How readiness is asked for.
#[derive(Clone, Copy, Default)]
struct How {
    /// By one request for all times.
    again: bool,
    /// The thread names the ring by a number of its own.
    registered: bool,
}

/// Waits for one of the sources by requests for readiness; each is asked for anew where it must be. (Each ring
/// has sources of its own: what another one asked before it was closed may still be answered for a while.)
fn polled(sources: &Arc<Vec<Source>>, setup: IoringSetupFlags, how: How) -> Waited {
    let How { again, registered } = how;
    let polled = sources.clone();
    polling::waits(sources, ROUNDS * sources.len(), move || {
        let mut ring = Ring::new(setup);
        assert!(!registered || ring.register());
        let mut over: Vec<usize> = (0..polled.len()).collect();
        move |_| {
            for place in over.drain(..) {
                ring.poll(place, &polled[place].fd, POLLIN, again);
            }
            let (wait, done) = ring.wait();
            over.extend((!done.more).then_some(done.place));
            wait
        }
    })
}

#[test]
fn root_what_ended_a_wait_for_readiness_is_named() {
    for (nth, setup) in uring::setups().into_iter().enumerate() {
        let sources = Arc::new(polling::sources());
        let how = How {
            again: nth % 2 == 1,
            registered: false,
        };
        let seen = polled(&sources, setup, how);
        polling::each_is_named(&seen, &sources, Call::IoWait, INPUT);
    }
}

/// The ring is not named by a descriptor, but by its place in a table of the thread; 5.18 on.
#[test]
fn root_a_registered_ring_is_the_same() {
    let setup = IoringSetupFlags::empty();
    let sources = Arc::new(polling::sources());
    let registered = Ring::new(setup).register();
    let how = How {
        again: true,
        registered,
    };
    let seen = polled(&sources, setup, how);
    polling::each_is_named(&seen, &sources, Call::IoWait, INPUT);
}

/// What reads from such a source, and how much of it.
fn reads(source: &Source) -> (IoringOp, u32) {
    match source.name {
        "TCP listener" => (IoringOp::Accept, 0),
        "Unix socket" | "UDP socket" | "TCP connection" => (IoringOp::Recv, 1),
        _ => (IoringOp::Read, 8),
    }
}

fn set_blocking(source: &Source, blocks: bool) {
    rustix::io::ioctl_fionbio(&source.fd, !blocks).unwrap();
}

fn ask_to_read(ring: &mut Ring, place: usize, source: &Source) {
    set_blocking(source, true);
    match reads(source) {
        (IoringOp::Accept, _) => ring.plain(IoringOp::Accept, place, &source.fd),
        (op, bytes) => ring.transfer(op, place, &source.fd, bytes),
    }
}

fn read(sources: &Arc<Vec<Source>>, setup: IoringSetupFlags) -> Waited {
    let read = sources.clone();
    polling::waits(sources, ROUNDS * sources.len(), move || {
        let mut ring = Ring::new(setup);
        let mut over: Vec<usize> = (0..read.len()).collect();
        move |_| {
            for place in over.drain(..) {
                ask_to_read(&mut ring, place, &read[place]);
            }
            let (wait, done) = ring.wait();
            assert!(done.result >= 0, "{done:?}");
            over.push(done.place);
            set_blocking(&read[done.place], false);
            wait
        }
    })
}

#[test]
fn root_what_was_read_is_named() {
    for setup in uring::setups() {
        let sources = Arc::new(polling::sources());
        let seen = read(&sources, setup);
        polling::each_is_named(&seen, &sources, Call::IoWait, INPUT);
    }
}

/// A thread waits on a ring of its own, in the ways that are asked for; what was recorded of it.
fn waited<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> (Session, ThreadId, T) {
    let mut session = Session::start();
    let worker = Worker::start("rings", None, move |_| wait());
    let tid = worker.tid;
    let seen = worker.join();
    session.drain_past(now());
    let thread = session.id(tid);
    (session, thread, seen)
}

/// The sleep that the wait ended with is nobody's.
#[track_caller]
fn is_not_named(session: &Session, thread: ThreadId, wait: &Wait) {
    let sleep = session.sleep_of(thread, Call::IoWait, wait);
    assert_eq!(sleep.off.wait.polled, Polled::No, "{sleep:?}");
    assert_eq!(
        session.object_of(sleep).kind,
        ObjectKind::Other,
        "the ring itself"
    );
    assert_eq!(session.cause(sleep), Cause::WaitPoll);
}

#[test]
fn root_a_timeout_ends_a_wait_for_nothing() {
    let (session, thread, log) = waited(|| {
        let quiet = polling::pipe();
        let one = |setup| {
            let mut ring = Ring::new(setup);
            ring.poll(0, &quiet.fd, POLLIN, false);
            let (timed_out, none) = ring.wait_for(1, Some(TIMEOUT));
            assert!(none.is_empty());
            ring.timeout(1, TIMEOUT);
            let (requested, _) = ring.wait();
            assert_eq!(requested.ready, Some(1));
            [timed_out, requested]
        };
        let setups = uring::setups().into_iter();
        setups.flat_map(one).collect::<Vec<Wait>>()
    });
    for wait in &log {
        is_not_named(&session, thread, wait);
    }
}

/// One of two becomes ready, but both are waited for, and no more comes: what was ready before the time was
/// over did not end the wait.
#[test]
fn root_a_timeout_is_not_taken_for_what_came_before_it() {
    let (session, thread, log) = waited(|| {
        let one = |setup| {
            let (soon, quiet) = (polling::pipe(), polling::pipe());
            let mut ring = Ring::new(setup);
            ring.poll(0, &soon.fd, POLLIN, false);
            ring.poll(1, &quiet.fd, POLLIN, false);
            let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
            let helper = Worker::start("writes", None, move |_| {
                polling::until_blocked(me);
                soon.make_ready();
                soon
            });
            let (wait, done) = ring.wait_for(2, Some(PATIENCE));
            assert_eq!(done.len(), 1);
            drop(helper.join());
            wait
        };
        let setups = uring::setups().into_iter();
        setups.map(one).collect::<Vec<Wait>>()
    });
    for wait in &log {
        is_not_named(&session, thread, wait);
    }
}

/// With a thread of the kernel that looks after the ring, that one is woken by what becomes ready, and wakes.
#[test]
fn root_of_a_ring_that_is_looked_after_nothing_is_invented() {
    let sources = Arc::new(polling::sources());
    let setup = IoringSetupFlags::SQPOLL;
    let (session, thread, log) = polled(&sources, setup, How::default());
    for wait in &log {
        is_not_named(&session, thread, wait);
    }
}

/// What a worker of the kernel did for the thread is not what the thread waited for by itself.
#[test]
fn root_what_a_worker_has_done_is_not_named() {
    let (session, thread, log) = waited(|| {
        let disk = Disk::new();
        let one = |setup| {
            let mut file = File::create(disk.path.join("flushed")).unwrap();
            file.write_all(&[1; 1 << 16]).unwrap();
            let mut ring = Ring::new(setup);
            ring.plain(IoringOp::Fsync, 0, &file);
            let (wait, done) = ring.wait();
            assert_eq!(done.result, 0);
            wait
        };
        let setups = uring::setups().into_iter();
        setups.map(one).collect::<Vec<Wait>>()
    });
    for wait in &log {
        let sleeps = session.sleeps(thread, Call::IoWait, wait.begun, wait.ended);
        for sleep in sleeps {
            assert_eq!(sleep.off.wait.polled, Polled::No, "{sleep:?}");
        }
    }
}

/// Reads past the page cache.
#[test]
fn root_what_was_read_from_a_disk_is_a_disk_read() {
    let (session, thread, log) = waited(|| {
        let disk = Disk::new();
        let path = disk.path.join("read");
        let mut file = File::create(&path).unwrap();
        file.write_all(&vec![1; 4096 * READS]).unwrap();
        file.sync_all().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECT;
        let file = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
        let ino = rustix::fs::fstat(&file).unwrap().st_ino;
        let each = |setup| {
            let mut ring = Ring::new(setup);
            let one = |nth: usize| {
                ring.read_at(0, &file, 4096, nth as u64 * 4096);
                let (wait, done) = ring.wait();
                assert_eq!(done.result, 4096);
                wait
            };
            (0..READS).map(one).collect::<Vec<Wait>>()
        };
        let setups = uring::setups().into_iter();
        (ino, setups.map(each).collect::<Vec<Vec<Wait>>>())
    });
    let (ino, log) = log;
    for of_setup in &log {
        let sleeps = of_setup
            .iter()
            .flat_map(|wait| session.sleeps(thread, Call::IoWait, wait.begun, wait.ended));
        let named = sleeps.filter(|sleep| sleep.off.wait.polled != Polled::No);
        let count = named.map(|sleep| {
            assert_eq!(sleep.off.wait.polled, INPUT, "{sleep:?}");
            assert_eq!(session.object_of(sleep).ino, ino);
            assert_eq!(session.cause(sleep), Cause::DiskRead);
        });
        let count = count.count();
        assert!(count > 0, "none of {READS} reads was named");
    }
}

/// The same exchange, waiting for the answer on a ring.
fn exchange_on_a_ring(stream: &mut TcpStream, byte: u8) -> Exchange {
    let mut ring = Ring::new(IoringSetupFlags::empty());
    let asked = now();
    stream.write_all(&[byte]).unwrap();
    ring.transfer(IoringOp::Recv, 0, &*stream, 1);
    let (wait, done) = ring.wait();
    assert_eq!(done.result, 1);
    Exchange {
        asked,
        answered: wait.ended,
        tid: rustix::thread::gettid().as_raw_nonzero().get() as u32,
    }
}

/// What the account gives a cause of the wait.
fn share(session: &Session, cycle: &Cycle, wanted: Cause) -> Ns {
    let shares = session.shares(cycle);
    let of = shares.iter().filter(|(cause, _)| *cause == wanted);
    of.map(|(_, ns)| ns).sum()
}

#[test]
fn root_a_request_lost_while_its_thread_waits_on_a_ring_is_lost_until_it_is_acknowledged() {
    let mut session = Session::start();
    let pair = Pair::new();
    let (_pair, exchange, trail) = asked_in_vain(pair, exchange_on_a_ring, Place::RightIn);
    session.drain_past(now());
    let (cycle, seen) = session.longest(exchange.tid, Call::IoWait);
    assert!(cycle.end < exchange.answered && cycle.off.at > exchange.asked);
    assert_eq!(cycle.off.wait.polled, INPUT);
    let sent = &seen.phases[0];
    assert!(
        sent.state.has(NetState::UNACKED) && sent.state.has(NetState::ASKED),
        "{seen:#?}"
    );
    assert_between(
        "sent",
        sent.at,
        exchange.asked,
        trail.left_out[0].at + slack_ns(),
    );
    let lost_ns = time_in(cycle, seen, |state| {
        state.has(NetState::LOST) && !state.has(NetState::ARRIVED)
    });
    assert_close(
        "lost",
        lost_ns,
        trail.right_in[2].at - trail.right_in[1].at,
        slack_ns(),
    );
    let told = share(&session, cycle, Cause::NetRetransmit);
    let noticeable = trail.right_in[0].at + seen.srtt_ns;
    let truth = trail.right_in[2].at - noticeable.max(cycle.off.at);
    assert_close("net.retransmit", told, truth, slack_ns());
    let peer = share(&session, cycle, Cause::NetPeer);
    let thought = cycle.waking.unwrap() - trail.right_in[2].at;
    assert_close("net.peer", peer, thought, slack_ns());
}

/// It thinks, on this host: no loss is told, and who thinks is.
#[test]
fn root_a_slow_peer_of_a_wait_on_a_ring_is_the_peer() {
    let mut session = Session::start();
    let (pair, exchange, server) = asked_across(Pair::new(), exchange_on_a_ring, || ());
    let thinks = server.tid;
    server.join();
    assert_eq!(pair.left.counter("RetransSegs"), 0);
    session.drain_past(now());
    let (cycle, seen) = session.longest(exchange.tid, Call::IoWait);
    assert_eq!(seen.peer_thread, Some(session.id(thinks)));
    let peer = share(&session, cycle, Cause::NetPeer);
    assert_close(
        "net.peer",
        peer,
        cycle.waking.unwrap() - cycle.off.at,
        slack_ns(),
    );
    assert!(peer >= THINKS.as_nanos() as Ns / 2, "{peer}");
}

#[test]
fn root_a_send_on_a_ring_that_finds_no_room_is_a_send() {
    let (session, thread, wait) = waited(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut from = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut to, _) = listener.accept().unwrap();
        from.set_nodelay(true).unwrap();
        from.set_nonblocking(true).unwrap();
        while from.write(&[1; 1 << 16]).is_ok() {}
        from.set_nonblocking(false).unwrap();
        let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let reader = Worker::start("reads", None, move |_| {
            polling::until_blocked(me);
            std::thread::sleep(THINKS);
            while to.read(&mut [0; 1 << 16]).unwrap() > 0 {}
        });
        let mut ring = Ring::new(IoringSetupFlags::empty());
        ring.transfer(IoringOp::Send, 0, &from, 4096);
        let (wait, done) = ring.wait();
        assert_eq!(done.result, 4096);
        drop(from);
        reader.join();
        wait
    });
    let sleep = session.sleep_of(thread, Call::IoWait, &wait);
    assert_eq!(sleep.off.wait.polled, Polled::Ended(Asked::Output));
    let sends = share(&session, sleep, Cause::NetSend);
    assert_close(
        "net.send",
        sends,
        sleep.waking.unwrap() - sleep.off.at,
        slack_ns(),
    );
    assert!(sends >= THINKS.as_nanos() as Ns / 2, "{sends}");
}

/// A listener whose queue is full drops what asks to connect; it is asked again after a second.
#[test]
fn root_a_connect_on_a_ring_is_a_connect() {
    let mut session = Session::start();
    let place = Arc::new(Namespace::alone());
    let within = place.clone();
    let (tell, told) = channel();
    let client = Worker::start("connects", None, move |_| {
        within.enter();
        let listener = full_listener();
        let address = listener.local_addr().unwrap();
        let _waits = TcpStream::connect(address).unwrap();
        tell.send(listener).unwrap();
        let kind = (AddressFamily::INET, SocketType::STREAM);
        let socket = rustix::net::socket(kind.0, kind.1, None).unwrap();
        let mut ring = Ring::new(IoringSetupFlags::empty());
        ring.connect(0, &socket, &encoded(address));
        let (wait, done) = ring.wait();
        assert_eq!(done.result, 0);
        wait
    });
    let listener = told.recv().unwrap();
    until("a connection that is not let in", || {
        place.counter("ListenDrops") > 0
    });
    let (_first, _) = listener.accept().unwrap();
    let tid = client.tid;
    let wait = client.join();
    session.drain_past(now());
    let sleep = session.sleep_of(session.id(tid), Call::IoWait, &wait);
    assert_eq!(sleep.off.wait.polled, Polled::Ended(Asked::Connect));
    let connects = share(&session, sleep, Cause::NetConnect);
    assert_close(
        "net.connect",
        connects,
        sleep.waking.unwrap() - sleep.off.at,
        slack_ns(),
    );
}

/// With room for one connection that nobody has accepted.
fn full_listener() -> TcpListener {
    let kind = (AddressFamily::INET, SocketType::STREAM);
    let listener = rustix::net::socket(kind.0, kind.1, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    rustix::net::bind(&listener, &any).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    TcpListener::from(listener)
}

/// `struct sockaddr_in` of include/uapi/linux/in.h.
fn encoded(address: SocketAddr) -> [u8; 16] {
    let SocketAddr::V4(address) = address else {
        panic!("{address}");
    };
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&AddressFamily::INET.as_raw().to_ne_bytes());
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&address.ip().octets());
    bytes
}
