// SPDX-License-Identifier: Apache-2.0
//! What a connection was like in a wait on it. The truth is the test's own clock around each call, and the
//! kernel's counters of the namespace.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::assert_close;
use common::exchange::MS;
use common::exchange::THINKS;
use common::exchange::asked_across;
use common::exchange::assert_between;
use common::exchange::caused;
use common::exchange::exchange;
use common::exchange::first;
use common::exchange::serve;
use common::exchange::slack_ns;
use common::exchange::time_in;
use common::exchange::until_it_reads;
use common::kernel;
use common::network::Dropper;
use common::network::Namespace;
use common::network::Pair;
use common::network::Posts;
use common::network::RIGHT;
use common::now;
use common::until;
use common::worker::Worker;
use lacuna_probes::Config;
use lacuna_probes::FaultPlan;
use lacuna_probes::Watch;
use lacuna_timeline::Cause;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::NetState;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::Retransmits;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::epoll;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::sync::Arc;

#[test]
fn root_a_request_that_arrives_is_acknowledged_and_then_the_peers() {
    let mut session = Session::start();
    let pair = Pair::new();
    let posts = Posts::new(&pair);
    let (_pair, exchange, server) = asked_across(pair, exchange, || ());
    let server_tid = server.tid;
    server.join();
    session.drain_past(now());
    let trail = posts.trail(exchange.asked);
    let (cycle, seen) = session.longest_in(&exchange, Call::Recv);
    assert!(cycle.off.at > exchange.asked && cycle.end < exchange.answered);
    let state = seen.phases[0].state;
    assert!(
        state.has(NetState::HERE) && state.has(NetState::ASKED),
        "{seen:#?}"
    );
    for trouble in [
        NetState::LOST,
        NetState::DROPPED,
        NetState::GAP,
        NetState::PEER_LOST,
        NetState::PEER_DROPPED,
        NetState::UNSENT,
        NetState::LATE,
        NetState::UNFOLLOWED,
    ] {
        assert_eq!(first(seen, trouble), None, "{trouble:?} {seen:#?}");
    }
    // It had arrived before the thread left its CPU, or did soon after.
    let on_the_way =
        |state: NetState| state.has(NetState::UNACKED) && !state.has(NetState::ARRIVED);
    let on_the_way = time_in(cycle, seen, on_the_way);
    let waited = |until: Ns| until.saturating_sub(cycle.off.at);
    let (passed, arrived) = (trail.right_in[0].at, trail.asked_by());
    assert_between("on the way", on_the_way, waited(passed), waited(arrived));
    let peers_ns = caused(&session, cycle, Cause::NetPeer);
    let (least, ended) = (trail.right_out[0].at - arrived.max(cycle.off.at), cycle.end);
    assert_between(
        "the peer's",
        peers_ns,
        least,
        waited(ended) - waited(passed),
    );
    assert_eq!(seen.retransmits, Retransmits::default());
    assert_eq!((seen.dropped, seen.cut), (None, false));
    assert!(!seen.accepted, "this end called connect");
    assert!(
        seen.srtt_ns > 0 && seen.rtt_min_ns > 0 && seen.rto_ns >= 200 * MS,
        "{seen:?}"
    );
    assert_eq!(seen.peer_thread, Some(session.id(server_tid)));
    // The wait that this question ended; before the first one was answered nobody had waited over there.
    let told = session.told(server_tid, Call::Recv);
    let asked = exchange.asked..exchange.answered;
    let ended = told.iter().find(|(cycle, _)| asked.contains(&cycle.end));
    let accepted = &ended.expect("it was waiting for the question").1.seen;
    assert!(accepted.accepted, "{accepted:?}");
    let idle = ended.unwrap().0;
    let idle_ns = caused(&session, idle, Cause::NetIdle);
    let blocked_ns = idle.waking.unwrap_or(idle.end) - idle.off.at;
    assert_close("idle", idle_ns, blocked_ns, slack_ns());
    // It has read answers before, whether or not it had to wait for them.
    assert_eq!(accepted.peer_thread, Some(session.id(exchange.tid)));
}

/// Write, write, read: the second small segment waits for the acknowledgement of the first, which the other
/// end delays. That it does so shows only once both ends have taken to answering each other.
#[test]
fn root_a_small_segment_that_nagle_holds_back_is_told() {
    let mut session = Session::start();
    let pair = Pair::new();
    let dropper = Dropper::on_the_way_in(&pair.right);
    let listener = pair.right.within(|| TcpListener::bind((RIGHT, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let server = Worker::start("serves", None, move |_| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut both = [0; 2];
        while stream.read_exact(&mut both).is_ok() {
            stream.write_all(&both).unwrap();
        }
    });
    let client = Worker::start("asks", None, move |_| {
        pair.left.enter();
        let mut stream = TcpStream::connect(address).unwrap();
        for _ in 0..16 {
            stream.write_all(b"a").unwrap();
            stream.write_all(b"b").unwrap();
            stream.read_exact(&mut [0; 2]).unwrap();
        }
        pair
    });
    let tid = client.tid;
    let pair = client.join();
    server.join();
    session.drain_past(now());
    assert!(pair.right.counter("DelayedACKs") > 0, "none was delayed");
    let (cycle, seen) = session.longest(tid, Call::Recv);
    assert!(seen.phases[0].state.has(NetState::NAGLE), "{seen:#?}");
    let held_ns = time_in(cycle, seen, |state| state.has(NetState::NAGLE));
    assert!(held_ns >= 20 * MS, "{held_ns} {seen:#?}");
    // It was let go when it came by.
    let noted = dropper.noted();
    let come_by = noted.iter().map(|noted| noted.at);
    let let_go = come_by.filter(|&at| at < cycle.end).max().unwrap();
    assert_close("held back", held_ns, let_go - cycle.off.at, slack_ns());
    assert_eq!(caused(&session, cycle, Cause::NetNagle), held_ns);
}

/// In epoll nothing is seen of what was written; what is held back was written after what had arrived.
#[test]
fn root_a_small_segment_that_is_held_back_after_the_first_arrived_is_told() {
    let mut session = Session::start();
    let pair = Pair::new();
    let listener = pair.right.within(|| TcpListener::bind((RIGHT, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let server = Worker::start("serves", None, move |_| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut both = [0; 2];
        loop {
            let mut first = [PollFd::new(&stream, PollFlags::IN)];
            rustix::event::poll(&mut first, None).unwrap();
            // Nobody waits for the last one.
            let _gone = tell.send(());
            if stream.read_exact(&mut both).is_err() {
                return;
            }
            stream.write_all(&both).unwrap();
        }
    });
    let client = Worker::start("asks", None, move |_| {
        pair.left.enter();
        let mut stream = TcpStream::connect(address).unwrap();
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let data = epoll::EventData::new_u64(0);
        epoll::add(&set, &stream, data, epoll::EventFlags::IN).unwrap();
        for _ in 0..16 {
            stream.write_all(b"a").unwrap();
            told.recv().unwrap();
            stream.write_all(b"b").unwrap();
            let mut ready = Vec::with_capacity(1);
            epoll::wait(&set, rustix::buffer::spare_capacity(&mut ready), None).unwrap();
            stream.read_exact(&mut [0; 2]).unwrap();
        }
        pair
    });
    let tid = client.tid;
    let pair = client.join();
    server.join();
    session.drain_past(now());
    assert!(pair.right.counter("DelayedACKs") > 0, "none was delayed");
    let (cycle, seen) = session.longest(tid, Call::EpollWait);
    let held_ns = time_in(cycle, seen, |state| state.has(NetState::NAGLE));
    assert!(held_ns >= 20 * MS, "{held_ns} {seen:#?}");
}

#[test]
fn root_a_write_to_a_peer_that_does_not_read_waits_for_its_window() {
    let mut session = Session::start();
    let pair = Pair::new();
    let listener = pair.right.within(|| TcpListener::bind((RIGHT, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let (writer_tid, known) = std::sync::mpsc::channel();
    let server = Worker::start("reads late", None, move |_| {
        let (mut stream, _) = listener.accept().unwrap();
        let writer: u32 = known.recv().unwrap();
        until("a blocked writer", || {
            matches!(kernel::blocked_in(std::process::id(), writer), Some(1 | 44))
        });
        std::thread::sleep(THINKS);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.len()
    });
    let client = Worker::start("writes", None, move |_| {
        pair.left.enter();
        let mut stream = TcpStream::connect(address).unwrap();
        let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        writer_tid.send(tid).unwrap();
        stream.write_all(&vec![7; 16 << 20]).unwrap();
        pair
    });
    let tid = client.tid;
    let pair = client.join();
    assert_eq!(server.join(), 16 << 20);
    session.drain_past(now());
    let (cycle, seen) = session.longest(tid, Call::Send);
    let state = seen.phases[0].state;
    assert!(
        state.has(NetState::UNSENT) && state.has(NetState::UNACKED),
        "{seen:#?}"
    );
    let closed_ns = time_in(cycle, seen, |state| state.has(NetState::WINDOW));
    let all_ns = cycle.waking.unwrap_or(cycle.end) - cycle.off.at;
    assert!(
        all_ns >= 20 * MS && closed_ns >= all_ns / 10 * 9,
        "{closed_ns} {seen:#?}"
    );
    assert_eq!(caused(&session, cycle, Cause::NetSend), all_ns);
    drop(pair);
}

/// A listener whose queue is full drops what asks to connect; it is asked again after a second.
#[test]
fn root_a_connect_to_a_full_listener_is_asked_again() {
    let mut session = Session::start();
    let place = Namespace::alone();
    let listener = place.within(|| {
        let listener = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        rustix::net::bind(&listener, &any).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        TcpListener::from(listener)
    });
    let address = listener.local_addr().unwrap();
    let place = Arc::new(place);
    let within = place.clone();
    let client = Worker::start("connects", None, move |_| {
        within.enter();
        let _waits = TcpStream::connect(address).unwrap();
        let begun = now();
        let second = TcpStream::connect(address).unwrap();
        drop(second);
        (begun, now())
    });
    let tid = client.tid;
    until("a connection that is not let in", || {
        place.counter("ListenDrops") > 0
    });
    let (_first, _) = listener.accept().unwrap();
    let (begun, ended) = client.join();
    session.drain_past(now());
    let (cycle, seen) = session.longest(tid, Call::Connect);
    assert!(cycle.off.at > begun && cycle.end < ended);
    let again = place.counter("TCPTimeouts");
    assert!(again > 0);
    assert_eq!(u64::from(seen.retransmits.timeouts), again, "{seen:#?}");
    let lost = first(seen, NetState::LOST).expect("it was lost");
    let since = lost.since.expect("when it was first sent");
    assert!(since >= begun && since <= cycle.off.at, "{seen:#?}");
    let all_ns = cycle.waking.unwrap_or(cycle.end) - cycle.off.at;
    assert_eq!(caused(&session, cycle, Cause::NetConnect), all_ns);
}

#[test]
fn root_a_wait_for_a_datagram_is_one() {
    let mut session = Session::start();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = receiver.local_addr().unwrap();
    let receives = Worker::start("receives", None, move |_| {
        let begun = now();
        receiver.recv(&mut [0]).unwrap();
        (begun, now())
    });
    let tid = receives.tid;
    until_it_reads(tid);
    std::thread::sleep(THINKS);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sent = now();
    sender.send_to(b"x", address).unwrap();
    let (begun, ended) = receives.join();
    session.drain_past(ended);
    let all = session.cycles(session.id(tid), begun, ended);
    let wait = all.into_iter().max_by_key(|cycle| cycle.end - cycle.off.at);
    let wait = wait.expect("it waited");
    let caused_ns = caused(&session, wait, Cause::NetDatagram);
    let least = sent - wait.off.at;
    assert_between("a datagram", caused_ns, least, ended - wait.off.at);
}

#[test]
fn root_ipv6_and_mapped_addresses_find_their_other_end() {
    for (bind, connect) in [("::1", "::1"), ("::", "127.0.0.1")] {
        let mut session = Session::start();
        let listener = TcpListener::bind((bind, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Worker::start("serves", None, move |_| serve(listener));
        let server_tid = server.tid;
        let client = Worker::start("asks", None, move |_| {
            let mut stream = TcpStream::connect((connect, port)).unwrap();
            until_it_reads(server_tid);
            exchange(&mut stream, b't')
        });
        let exchange = client.join();
        server.join();
        session.drain_past(now());
        let (cycle, seen) = session.longest_in(&exchange, Call::Recv);
        assert!(cycle.end - cycle.off.at > 100 * MS);
        let state = seen.phases[0].state;
        assert!(
            state.has(NetState::HERE) && state.has(NetState::ASKED),
            "{seen:#?}"
        );
        let peers = |state: NetState| !state.has(NetState::UNACKED) || state.has(NetState::ARRIVED);
        let peers_ns = time_in(cycle, seen, peers);
        let all = cycle.waking.unwrap_or(cycle.end) - cycle.off.at;
        assert_close("the peer's", peers_ns, all, slack_ns());
        assert_eq!(seen.peer_thread, Some(session.id(server_tid)));
    }
}

/// Of a connection from before the probes only what it is now is told.
#[test]
fn root_nothing_is_made_up_of_a_connection_from_before_the_probes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (start, started) = std::sync::mpsc::channel();
    let server = Worker::start("serves", None, move |_| serve(listener));
    let client = Worker::start("asks", None, move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        exchange(&mut stream, b'q');
        started.recv().unwrap();
        exchange(&mut stream, b't')
    });
    let mut session = Session::start();
    start.send(()).unwrap();
    let exchange = client.join();
    server.join();
    session.drain_past(now());
    let (cycle, seen) = session.longest_in(&exchange, Call::Recv);
    assert!(cycle.end - cycle.off.at > 100 * MS);
    assert_eq!(seen.phases[0].at, cycle.off.at, "{seen:#?}");
    assert!(!seen.cut);
    for phase in &seen.phases {
        assert!(!phase.state.has(NetState::LOST), "{seen:#?}");
    }
}

/// Records are dropped: of each cycle that says there is one it is either there or missed. Each seventh, because
/// an exchange takes three to six of them, and each third might be the same one of every exchange.
#[test]
fn root_a_lost_record_of_a_connection_is_missed() {
    let mut session = Session::with(Config {
        watch: Watch::Selected,
        faults: FaultPlan {
            drop_every: 7,
            ..FaultPlan::default()
        },
        ..Config::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Worker::start("serves", None, move |_| serve(listener));
    let client = Worker::start("asks", None, move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        for _ in 0..400 {
            exchange(&mut stream, b'q');
        }
    });
    client.join();
    server.join();
    session.drain_past(now());
    let has_net = |cycle: &Cycle| {
        session.events.iter().any(|event| match event {
            Event::Net(net) => (net.thread, net.seq) == (cycle.thread, cycle.seq),
            _ => false,
        })
    };
    let cycles = session.events.iter().filter_map(|event| match event {
        Event::Cycle(cycle) => Some(cycle),
        _ => None,
    });
    let (mut there, mut missed) = (0, 0);
    for cycle in cycles {
        match (cycle.net, has_net(cycle)) {
            (true, true) => there += 1,
            (true, false) => missed += 1,
            (false, has) => assert!(!has, "{cycle:?}"),
        }
    }
    assert!(there > 20 && missed > 20, "{there} {missed}");
    assert!(session.probes.counters().unwrap().ring_drops > 0);
}

/// Without the group nothing is told, and nothing is said to be missing.
#[test]
fn root_without_the_group_no_connection_is_told() {
    let mut session = Session::with(Config {
        watch: Watch::Selected,
        net: false,
        ..Config::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Worker::start("serves", None, move |_| serve(listener));
    let client = Worker::start("asks", None, move |_| {
        exchange(&mut TcpStream::connect(address).unwrap(), b't')
    });
    let tid = client.join().tid;
    server.join();
    session.drain_past(now());
    assert!(session.told(tid, Call::Recv).is_empty());
    let cycles = session.cycles(session.id(tid), 0, Ns::MAX);
    assert!(!cycles.is_empty() && cycles.iter().all(|cycle| !cycle.net));
}

/// A thread may come on a CPU unseen, out of a thread whose switches the kernel does not trace. What the
/// connection was like is told all the same, as that is found out. (On its own CPU every other of its ends
/// is missed.)
#[test]
fn root_a_wait_whose_end_is_not_traced_tells_of_its_connection() {
    let mut session = Session::with(Config {
        watch: Watch::Selected,
        faults: FaultPlan {
            untraced_switches_every: 2,
            ..FaultPlan::default()
        },
        ..Config::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Worker::start("serves", Some(1), move |_| serve(listener));
    let client = Worker::start("asks", Some(0), move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        for _ in 0..8 {
            exchange(&mut stream, b't');
        }
    });
    let tid = client.tid;
    client.join();
    server.join();
    session.drain_past(now());
    let waits: Vec<Cycle> = session
        .cycles(session.id(tid), 0, Ns::MAX)
        .into_iter()
        .filter(|cycle| cycle.off.wait.entry == Entry::Call(Call::Recv))
        .filter(|cycle| cycle.end - cycle.off.at > 100 * MS)
        .cloned()
        .collect();
    assert!(waits.len() >= 6, "{waits:#?}");
    let unseen = waits.iter().filter(|cycle| cycle.stack.is_none()).count();
    assert!(unseen >= 1, "every end was traced: {waits:#?}");
    let told = session.told(tid, Call::Recv);
    for wait in &waits {
        let net = told.iter().find(|(cycle, _)| cycle.seq == wait.seq);
        let (_, net) = net.expect("its connection was told");
        assert_eq!(Some(net.connection), wait.off.wait.object);
        let phases = &net.seen.phases;
        assert!(phases[0].at <= wait.off.at, "{net:#?}");
        assert!(phases[0].state.has(NetState::ASKED), "{net:#?}");
    }
}
