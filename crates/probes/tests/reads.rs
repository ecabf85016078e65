// SPDX-License-Identifier: Apache-2.0
//! Who read what a thread asked over a connection: also one that never waited for that connection. The truth
//! is which of the test's own threads called `read`, and when.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::exchange::MS;
use common::exchange::THINKS;
use common::exchange::exchange;
use common::exchange::exchange_polled;
use common::exchange::until_it_reads;
use common::now;
use common::worker::Worker;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::ThreadId;
use rustix::event::epoll;
use rustix::net::RecvFlags;
use rustix::pipe::SpliceFlags;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::time::Duration;

/// What a client is asked to do next over its connection.
enum Ask {
    /// Ask and wait for the answer.
    Answered,
    /// Ask, and give up before anybody has read that.
    InVain,
}

/// A client that asks when it is told to, and says when it has been answered, or has given up.
struct Client {
    worker: Worker<()>,
    ask: Sender<Ask>,
    done: Receiver<()>,
}

impl Client {
    fn start(address: SocketAddr) -> Client {
        let (ask, asked) = channel();
        let (finish, done) = channel();
        let worker = Worker::start("asks", None, move |_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            for ask in asked {
                match ask {
                    Ask::Answered => drop(exchange(&mut stream, b'q')),
                    Ask::InVain => give_up(&mut stream),
                }
                finish.send(()).unwrap();
            }
        });
        Client { worker, ask, done }
    }

    fn tid(&self) -> u32 {
        self.worker.tid
    }

    /// Lets it ask, and waits until it waits for the answer.
    fn ask(&self) {
        self.ask.send(Ask::Answered).unwrap();
        until_it_reads(self.tid());
    }

    fn until_answered(&self) {
        self.done.recv().unwrap();
    }

    fn ask_in_vain(&self) {
        self.ask.send(Ask::InVain).unwrap();
        self.done.recv().unwrap();
    }

    /// Ends; which thread at the other end was told of each of its waits, in order.
    fn peers(self, session: &mut Session) -> Vec<Option<ThreadId>> {
        drop(self.ask);
        let tid = self.worker.tid;
        self.worker.join();
        session.drain_past(now());
        let told = session.told(tid, Call::Recv);
        told.iter().map(|(_, net)| net.seen.peer_thread).collect()
    }
}

/// Asks, and waits for an answer for a while only.
fn give_up(stream: &mut TcpStream) {
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    stream.write_all(b"v").unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(None).unwrap();
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads what was asked, all of it, and answers with one byte after thinking. It never waits for bytes.
fn answer(stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = [0; 64];
    assert!((&*stream).read(&mut bytes).unwrap() > 0);
    std::thread::sleep(THINKS / 10);
    (&*stream).write_all(b"a").unwrap();
}

/// What a thread is to do with a connection.
type Act = fn(&TcpStream);

/// A thread that does with a connection what it is told, one thing after the other.
struct Hand {
    worker: Worker<()>,
    tell: Sender<(TcpStream, Act)>,
    done: Receiver<()>,
}

impl Hand {
    fn start(name: &str) -> Hand {
        let (tell, told) = channel::<(TcpStream, Act)>();
        let (finish, done) = channel();
        let worker = Worker::start(name, None, move |_| {
            for (stream, act) in told {
                act(&stream);
                finish.send(()).unwrap();
            }
        });
        Hand { worker, tell, done }
    }

    fn act(&self, stream: &TcpStream, act: Act) {
        self.tell.send((stream.try_clone().unwrap(), act)).unwrap();
        self.done.recv().unwrap();
    }

    fn join(self) {
        drop(self.tell);
        self.worker.join();
    }
}

/// Which threads took requests of a client without a wait of their own that told so.
fn takers(session: &Session, server_end: &TcpStream) -> Vec<Option<ThreadId>> {
    let port = server_end.peer_addr().unwrap().port();
    let took = |event: &Event| match event {
        Event::Took(took) if took.peer_port.get() == port => Some(Some(took.thread)),
        _ => None,
    };
    session.events.iter().filter_map(took).collect()
}

/// The request is there before the connection is accepted, so nobody ever waits for it.
#[test]
fn root_a_server_that_accepts_and_reads_at_once_is_known() {
    for (ask, call) in [
        (exchange as fn(&mut TcpStream, u8) -> _, Call::Recv),
        (exchange_polled, Call::EpollWait),
    ] {
        let mut session = Session::start();
        let (listener, address) = listener();
        let client = Worker::start("asks", None, move |_| {
            let mut stream = TcpStream::connect(address).unwrap();
            ask(&mut stream, b'q');
        });
        let client_tid = client.tid;
        let server = Worker::start("serves", None, move |_| {
            common::until("a client that waits", || {
                let waits = common::kernel::blocked_in(std::process::id(), client_tid);
                waits.is_some_and(|number| WAITS_FOR_AN_ANSWER.contains(&number))
            });
            answer(&listener.accept().unwrap().0);
        });
        let server_tid = server.tid;
        client.join();
        server.join();
        session.drain_past(now());
        assert!(session.told(server_tid, Call::Recv).is_empty());
        let (cycle, seen) = session.longest(client_tid, call);
        assert!(cycle.end - cycle.off.at > 10 * MS);
        assert_eq!(seen.peer_thread, Some(session.id(server_tid)), "{seen:#?}");
        assert!(!seen.accepted);
    }
}

const SYS_SENDTO: u32 = 44;
/// `recvfrom`, `epoll_wait`, `epoll_pwait`.
const WAITS_FOR_AN_ANSWER: [u32; 3] = [45, 232, 281];

/// It waits on the listening socket, for many; of what it accepts it reads without a wait.
#[test]
fn root_an_event_loop_that_polls_its_listener_is_known() {
    let mut session = Session::start();
    let (listener, address) = listener();
    let client = Client::start(address);
    let client_tid = client.tid();
    let server = Worker::start("loops", None, move |_| {
        wait_until_ready(&listener);
        until_it_reads(client_tid);
        answer(&listener.accept().unwrap().0);
    });
    let server_tid = server.tid;
    client.ask();
    client.until_answered();
    server.join();
    let peers = client.peers(&mut session);
    assert_eq!(peers, [Some(session.id(server_tid))]);
}

/// Who accepts does not read: it hands the connection on, and later questions go to yet others.
#[test]
fn root_who_reads_is_meant_and_not_who_accepted_or_read_before() {
    let mut session = Session::start();
    let (listener, address) = listener();
    let client = Client::start(address);
    let (accept, first, second) = (
        Hand::start("accepts"),
        Hand::start("first"),
        Hand::start("second"),
    );
    client.ask();
    let (stream, _) = listener.accept().unwrap();
    // The one that accepts also looks, which takes nothing.
    accept.act(&stream, |stream| {
        assert_eq!(stream.peek(&mut [0]).unwrap(), 1)
    });
    first.act(&stream, answer);
    client.until_answered();
    for hand in [&second, &first, &first, &second] {
        client.ask();
        hand.act(&stream, answer);
        client.until_answered();
    }
    let peers = client.peers(&mut session);
    let [a, b] = [&first, &second].map(|hand| Some(session.id(hand.worker.tid)));
    assert_eq!(peers, [a, b, a, a, b]);
    assert_eq!(takers(&session, &stream), [a, b, a, a, b]);
    [accept, first, second].into_iter().for_each(Hand::join);
}

/// A wait for the connection says as much by itself, and a poller that hands on says less.
#[test]
fn root_a_read_is_told_where_no_wait_tells_it() {
    let mut session = Session::start();
    let (listener, address) = listener();
    let client = Client::start(address);
    let (waits, polls, reads) = (
        Hand::start("waits"),
        Hand::start("polls"),
        Hand::start("reads"),
    );
    client.ask();
    let (stream, _) = listener.accept().unwrap();
    reads.act(&stream, answer);
    client.until_answered();
    for (hand, act) in [(&waits, wait_and_answer as Act), (&polls, wait_until_ready)] {
        stream.set_nonblocking(false).unwrap();
        hand.tell.send((stream.try_clone().unwrap(), act)).unwrap();
        common::until("a thread that waits for the question", || {
            let waits = common::kernel::blocked_in(std::process::id(), hand.worker.tid);
            waits.is_some_and(|number| WAITS_FOR_AN_ANSWER.contains(&number))
        });
        client.ask.send(Ask::Answered).unwrap();
        hand.done.recv().unwrap();
        if hand.worker.tid == polls.worker.tid {
            reads.act(&stream, answer);
        }
        client.until_answered();
    }
    let peers = client.peers(&mut session);
    let [a, b] = [&reads, &waits].map(|hand| Some(session.id(hand.worker.tid)));
    assert_eq!(peers, [a, b, a]);
    assert_eq!(takers(&session, &stream), [a, a]);
    [waits, polls, reads].into_iter().for_each(Hand::join);
}

fn wait_and_answer(stream: &TcpStream) {
    assert_eq!((&*stream).read(&mut [0]).unwrap(), 1);
    std::thread::sleep(THINKS / 10);
    (&*stream).write_all(b"a").unwrap();
}

fn wait_until_ready(socket: &impl AsFd) {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let data = epoll::EventData::new_u64(0);
    epoll::add(&set, socket, data, epoll::EventFlags::IN).unwrap();
    let mut ready = Vec::with_capacity(4);
    while ready.is_empty() {
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut ready), None).unwrap();
    }
}

/// While nobody has read the question, it is the one that alone ever read from it; of two, neither.
#[test]
fn root_of_several_readers_none_is_meant_before_one_has_read() {
    let mut session = Session::start();
    let (listener, address) = listener();
    let client = Client::start(address);
    let (first, second) = (Hand::start("first"), Hand::start("second"));
    client.ask();
    let (stream, _) = listener.accept().unwrap();
    first.act(&stream, answer);
    client.until_answered();
    client.ask_in_vain();
    client.ask();
    second.act(&stream, answer);
    client.until_answered();
    client.ask_in_vain();
    let peers = client.peers(&mut session);
    let [a, b] = [&first, &second].map(|hand| Some(session.id(hand.worker.tid)));
    assert_eq!(peers, [a, a, b, None]);
    [first, second].into_iter().for_each(Hand::join);
}

/// Bytes need not be copied to be read.
#[test]
fn root_a_reader_that_splices_is_known() {
    let mut session = Session::start();
    let (listener, address) = listener();
    let client = Client::start(address);
    let (other, splices) = (Hand::start("other"), Hand::start("splices"));
    client.ask();
    let (stream, _) = listener.accept().unwrap();
    other.act(&stream, answer);
    client.until_answered();
    client.ask();
    splices.act(&stream, |stream| {
        let (_out, into) = rustix::pipe::pipe().unwrap();
        let moved = rustix::pipe::splice(stream, None, into, None, 64, SpliceFlags::empty());
        assert_eq!(moved.unwrap(), 1);
        (&*stream).write_all(b"a").unwrap();
    });
    client.until_answered();
    let peers = client.peers(&mut session);
    let [a, b] = [&other, &splices].map(|hand| Some(session.id(hand.worker.tid)));
    assert_eq!(peers, [a, b]);
    [other, splices].into_iter().for_each(Hand::join);
}

/// A writer that waits for room is told who reads, however much that is.
#[test]
fn root_the_reader_of_a_bulk_transfer_is_known() {
    const BYTES: usize = 48 << 20;
    let mut session = Session::start();
    let (listener, address) = listener();
    let writer = Worker::start("writes", None, move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&vec![7; BYTES]).unwrap();
    });
    let (writer_tid, mut taken) = (writer.tid, 0);
    let reader = Worker::start("takes", None, move |_| {
        let (stream, _) = listener.accept().unwrap();
        let mut chunk = vec![0; 128 << 10];
        common::until("a writer that waits for room", || {
            common::kernel::blocked_in(std::process::id(), writer_tid) == Some(SYS_SENDTO)
        });
        loop {
            // Whenever it looks there is something: it waits with a clock, not for the connection.
            match rustix::net::recv(&stream, &mut *chunk, RecvFlags::DONTWAIT) {
                Ok((0, _)) => break taken,
                Ok((count, _)) => taken += count,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    });
    let reader_tid = reader.tid;
    writer.join();
    assert_eq!(reader.join(), BYTES);
    session.drain_past(now());
    let told = session.told(writer_tid, Call::Send);
    assert!(!told.is_empty(), "it never waited for room");
    let reader = Some(session.id(reader_tid));
    assert!(
        told.iter().all(|(_, net)| net.seen.peer_thread == reader),
        "{told:#?}"
    );
    assert_eq!(session.probes.counters().unwrap().connections_lost, 0);
}
