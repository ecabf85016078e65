// SPDX-License-Identifier: Apache-2.0
//! More connections than are kept, and connections that are no more: what is known of a wait stays true, what
//! is not known is counted and told as such. The truth is what the test itself does, and the kernel's counters.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::exchange::Exchange;
use common::exchange::MS;
use common::exchange::THINKS;
use common::exchange::exchange;
use common::exchange::first;
use common::exchange::ordered;
use common::exchange::until_it_reads;
use common::holes;
use common::kernel;
use common::network::LEFT;
use common::network::Pair;
use common::network::RIGHT;
use common::now;
use common::worker::Worker;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::NetState;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::sockopt::set_socket_reuseaddr;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::SocketAddrV4;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Connections of one storm on one CPU. Both ends of each are on this host, and there is a storm on each of two
/// CPUs: so these are four times as many entries of the 32,768 that there are.
fn storm() -> u32 {
    if kernel::emulated() { 10_000 } else { 25_000 }
}

/// Ends a connection at once, so that its ports are free again.
fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// How many storms a connection may live through: the kernel drops what it believes to be least used, and
/// one storm is not always enough for it to believe that of a given connection.
const STORMS_MAX: u32 = 6;

/// Opens and ends connections, one after the other, on each CPU: the kernel takes none of the 128 entries that
/// a CPU touched last for little used before that CPU needs room itself.
fn blow() {
    for cpu in [0, 1] {
        Worker::start("storms", Some(cpu), |_| storm_here()).join();
    }
}

fn storm_here() {
    let others = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = others.local_addr().unwrap().port();
    for number in 0..storm() {
        // Ports are used again after some ten thousand.
        let host = Ipv4Addr::new(127, 1, 0, (number / 5_000) as u8);
        let stream = TcpStream::connect((host, port)).unwrap();
        let (accepted, _) = others.accept().unwrap();
        reset(stream);
        drop(accepted);
    }
}

/// How the connection stood as a thread began its longest wait for an answer; `None`: it is told only that a
/// record is missing.
#[track_caller]
fn told_of(session: &Session, tid: u32, exchange: &Exchange) -> Option<NetState> {
    let cycles = session.cycles(session.id(tid), exchange.asked, exchange.answered);
    let waits = cycles.into_iter();
    let wait = waits
        .filter(|cycle| cycle.off.wait.entry == Entry::Call(Call::Recv))
        .max_by_key(|cycle| cycle.end - cycle.off.at)
        .expect("it waited");
    assert!(wait.net, "there is one, or it is missing: {wait:?}");
    let mut told = session.told(tid, Call::Recv).into_iter();
    let (cycle, net) = told.find(|(cycle, _)| cycle.seq == wait.seq)?;
    ordered(cycle, &net.seen);
    assert_eq!(net.seen.phases[0].at, cycle.off.at, "{net:#?}");
    assert_eq!(first(&net.seen, NetState::LOST), None, "{net:#?}");
    Some(net.seen.phases[0].state)
}

/// A connection that fell out while a thread waited for it is not known, and known again from its next wait
/// on; as long as it did not, what is told of it stays true.
#[test]
fn root_a_connection_that_falls_out_is_missed_and_found_again() {
    let mut session = Session::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go_on, stormed) = channel();
    let server = Worker::start("serves", None, move |_| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 {
            match byte[0] {
                b'f' => stormed.recv().unwrap(),
                _ => std::thread::sleep(THINKS),
            }
            stream.write_all(&byte).unwrap();
        }
    });
    let (ask, asked) = channel();
    let (answer, answers) = channel();
    let client = Worker::start("asks", None, move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        for byte in asked {
            answer.send(exchange(&mut stream, byte)).unwrap();
        }
    });
    let tid = client.tid;
    let mut storms = 0;
    let mut missed = false;
    while !missed {
        assert!(storms < STORMS_MAX, "it never fell out");
        ask.send(b'f').unwrap();
        until_it_reads(tid);
        blow();
        go_on.send(()).unwrap();
        let exchange = answers.recv().unwrap();
        session.drain_past(now());
        match told_of(&session, tid, &exchange) {
            Some(state) => assert!(state.has(NetState::ASKED), "{state:?}"),
            None => missed = true,
        }
        storms += 1;
    }
    let counters = session.probes.counters().unwrap();
    assert!(counters.connections_lost >= 1, "{counters:?}");
    // Both ends may have spoken last within one tick of the kernel: then it does not say which.
    let not_sure = NetState::ASKED.with(NetState::UNFOLLOWED);
    for either in [not_sure, NetState::ASKED] {
        ask.send(b't').unwrap();
        let exchange = answers.recv().unwrap();
        session.drain_past(now());
        let state = told_of(&session, tid, &exchange).expect("it is known again");
        assert!(state.has(either), "{state:?}");
    }
    drop(ask);
    client.join();
    server.join();
}

/// Threads wait on connections that others end, in each way, at any instant.
#[test]
fn root_connections_that_end_in_waits_leave_their_threads_whole() {
    let rounds = if kernel::emulated() { 50 } else { 1_000 };
    let mut session = Session::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (give, given) = channel::<TcpStream>();
    let ends = Worker::start("ends", Some(1), move |_| {
        for (round, stream) in given.into_iter().enumerate() {
            match round % 4 {
                0 => reset(stream),
                1 => drop(stream),
                2 => stream.shutdown(Shutdown::Write).unwrap(),
                _ => stream.shutdown(Shutdown::Both).unwrap(),
            }
        }
    });
    let reads = Worker::start("reads", Some(0), move |_| {
        for _ in 0..rounds {
            let mut stream = TcpStream::connect(address).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            give.send(accepted).unwrap();
            // Nothing comes: its end, or an error.
            let _ = stream.write(b"w");
            assert!(!matches!(stream.read(&mut [0]), Ok(1)));
        }
    });
    let tid = reads.tid;
    reads.join();
    ends.join();
    session.drain_past(now());
    assert_eq!(holes(&session.links(session.id(tid))), 0);
    let told = session.told(tid, Call::Recv);
    assert!(!told.is_empty(), "none had to wait");
    for (cycle, net) in told {
        assert_eq!(Some(net.connection), cycle.off.wait.object);
        ordered(cycle, &net.seen);
        assert_eq!(first(&net.seen, NetState::LOST), None, "{net:#?}");
        assert_eq!(first(&net.seen, NetState::PEER_LOST), None, "{net:#?}");
    }
    let counters = session.probes.counters().unwrap();
    assert_eq!(counters.unknown_records, 0, "{counters:?}");
}

/// The same addresses and ports, one connection after the other: none inherits anything.
#[test]
fn root_a_connection_with_the_ports_of_another_is_another() {
    let mut session = Session::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        panic!("IPv4");
    };
    let rounds = 20;
    let server = Worker::start("serves", None, move |_| {
        for _ in 0..rounds {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0]).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            stream.write_all(&[0]).unwrap();
            // Its end: a reset.
            assert!(!matches!(stream.read(&mut [0]), Ok(1)));
        }
    });
    let client = Worker::start("asks", None, move |_| {
        let mut port = 0;
        for _ in 0..rounds {
            let mut stream = connect_from(port, address);
            port = stream.local_addr().unwrap().port();
            exchange(&mut stream, b't');
            reset(stream);
        }
    });
    let tid = client.tid;
    client.join();
    server.join();
    session.drain_past(now());
    let told = session.told(tid, Call::Recv);
    assert!(told.len() > rounds / 2, "{}", told.len());
    for (cycle, net) in told {
        ordered(cycle, &net.seen);
        assert!(!net.seen.cut, "{net:#?}");
        let state = net.seen.phases[0].state;
        assert!(
            state.has(NetState::ASKED) && state.has(NetState::HERE),
            "{net:#?}"
        );
        assert_eq!(first(&net.seen, NetState::LATE), None, "{net:#?}");
        assert_eq!(first(&net.seen, NetState::LOST), None, "{net:#?}");
    }
}

/// A connection from a port; from any, if that is 0.
fn connect_from(port: u16, to: SocketAddrV4) -> TcpStream {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    TcpStream::from(socket)
}

/// The peer's network goes while a thread waits for its answer: nothing comes, and nothing is made up.
#[test]
fn root_a_namespace_that_vanishes_takes_nothing_with_it() {
    let mut session = Session::start();
    let Pair { left, right } = Pair::new();
    let listener = right.within(|| TcpListener::bind((RIGHT, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let client = Worker::start("asks", None, move |_| {
        left.enter();
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(900)))
            .unwrap();
        stream.write_all(b"?").unwrap();
        let answer = stream.read(&mut [0]);
        assert!(answer.is_err(), "{answer:?}");
        left
    });
    let tid = client.tid;
    let (stream, _) = listener.accept().unwrap();
    until_it_reads(tid);
    right.cut();
    reset(stream);
    drop((listener, right));
    client.join();
    session.drain_past(now());
    let (cycle, seen) = session.longest(tid, Call::Recv);
    assert!(cycle.end - cycle.off.at > 800 * MS);
    assert!(seen.phases[0].state.has(NetState::ASKED), "{seen:#?}");
    assert_eq!(first(seen, NetState::HEARD), None, "{seen:#?}");
    assert_eq!(first(seen, NetState::PEER_LOST), None, "{seen:#?}");
}

/// Of a half-closed connection the kernel traces no arrivals, and that is said.
#[test]
fn root_a_half_closed_connection_is_said_not_to_be_followed() {
    let mut session = Session::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Worker::start("serves", None, move |_| {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        std::thread::sleep(THINKS);
        stream.write_all(b"!").unwrap();
    });
    let client = Worker::start("asks", None, move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"?").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    });
    let tid = client.tid;
    client.join();
    server.join();
    session.drain_past(now());
    let (cycle, seen) = session.longest(tid, Call::Recv);
    assert!(cycle.end - cycle.off.at > 100 * MS);
    assert!(seen.phases[0].state.has(NetState::UNFOLLOWED), "{seen:#?}");
}

/// SYNs of connections that never come: none takes a place, and who waits meanwhile is told as ever.
#[test]
fn root_a_flood_of_syns_takes_no_place() {
    let count = if kernel::emulated() { 1_000 } else { 20_000 };
    let mut session = Session::start();
    let Pair { left, right } = Pair::new();
    let listener = right.within(|| TcpListener::bind((RIGHT, 0)).unwrap());
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        panic!("IPv4");
    };
    let stream = left.within(|| TcpStream::connect(address).unwrap());
    let port = stream.local_addr().unwrap().port();
    let (mut accepted, _) = listener.accept().unwrap();
    let client = Worker::start("asks", None, move |_| {
        let mut stream = stream;
        exchange(&mut stream, b't')
    });
    until_it_reads(client.tid);
    let before = right.counter("InSegs");
    left.within(|| flood(address, port, count));
    let arrived = right.counter("InSegs") - before;
    assert!(arrived >= u64::from(count), "{arrived}");
    accepted.write_all(b"!").unwrap();
    let asked = client.join();
    session.drain_past(now());
    let (cycle, seen) = session.longest(asked.tid, Call::Recv);
    assert!(cycle.off.at > asked.asked && cycle.end < asked.answered);
    let state = seen.phases[0].state;
    assert!(
        state.has(NetState::ASKED) && state.has(NetState::HERE),
        "{seen:#?}"
    );
    assert_eq!(first(seen, NetState::LATE), None, "{seen:#?}");
    let counters = session.probes.counters().unwrap();
    assert_eq!(counters.connections_lost, 0, "{counters:?}");
}

/// Asks to connect from so many ports, but one, and never answers.
fn flood(to: SocketAddrV4, but: u16, count: u16) {
    let raw = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::RAW,
        Some(rustix::net::ipproto::TCP),
    )
    .unwrap();
    for from in (1_024..).filter(|&from| from != but).take(count.into()) {
        // RFC 9293, 3.1: ports, numbers, 20 bytes of header with SYN, window, checksum.
        let mut syn = [0; 20];
        syn[..2].copy_from_slice(&u16::to_be_bytes(from));
        syn[2..4].copy_from_slice(&to.port().to_be_bytes());
        syn[12..16].copy_from_slice(&[0x50, 2, 0xff, 0xff]);
        let sum = checksum(to, &syn);
        syn[16..18].copy_from_slice(&sum.to_be_bytes());
        rustix::net::sendto(&raw, &syn, rustix::net::SendFlags::empty(), &to).unwrap();
    }
}

/// Over the segment and its addresses.
fn checksum(to: SocketAddrV4, segment: &[u8; 20]) -> u16 {
    let ends = [LEFT.octets(), to.ip().octets()].concat();
    let all = [&ends[..], &[0, 6, 0, 20], segment].concat();
    let mut sum: u32 = all
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
