// SPDX-License-Identifier: Apache-2.0
//! Segments that do not arrive, in waits for what they would have brought. The truth is what a classifier on the
//! cable noted of each, and the kernel's counters of the namespace.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::assert_close;
use common::exchange::MS;
use common::exchange::asked_across;
use common::exchange::asked_in_vain;
use common::exchange::assert_at;
use common::exchange::exchange;
use common::exchange::exchange_polled;
use common::exchange::exchange_polled_shortly;
use common::exchange::first;
use common::exchange::slack_ns;
use common::exchange::time_in;
use common::network::CABLE;
use common::network::Dropper;
use common::network::Pair;
use common::now;
use lacuna_probes::Config;
use lacuna_probes::FaultPlan;
use lacuna_probes::Watch;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::DropReason;
use lacuna_timeline::event::NetState;
use lacuna_timeline::event::Retransmits;

/// The client's request is dropped twice at the server's end of the cable: sent, probe, timeout.
#[test]
fn root_a_request_lost_on_its_way_is_lost_until_it_is_acknowledged() {
    let mut session = Session::start();
    let pair = Pair::new();
    let dropper = Dropper::on_the_way_in(&pair.right);
    let (pair, exchange, noted) = asked_in_vain(pair, exchange, dropper);
    session.drain_past(now());
    assert_eq!(noted.iter().filter(|noted| noted.dropped).count(), 2);
    let (sent, arrived) = (noted[0].at, noted[2].at);
    let (cycle, seen) = session.longest(exchange.tid, Call::Recv);
    let lost = first(seen, NetState::LOST).expect("it was lost");
    assert_at("retransmitted", lost.at, noted[1].at);
    let phase = &seen.phases[0];
    assert!(
        phase.state.has(NetState::UNACKED) && phase.at == cycle.off.at,
        "{seen:#?}"
    );
    if lacuna_probes::kernel_facts().unwrap().drop_reasons {
        let dropped = seen.dropped.expect("it was dropped on this host");
        assert_eq!(
            (dropped.count, dropped.reason),
            (2, DropReason::TcIn),
            "{seen:#?}"
        );
        assert_eq!(dropped.netns, pair.right.inum());
        assert_eq!(dropped.device.text(), CABLE);
        let phase = first(seen, NetState::DROPPED).unwrap();
        assert_at("dropped", phase.since.unwrap(), sent);
    } else {
        assert_at("first sent", lost.since.expect("known"), sent);
    }
    // The acknowledgement may be delayed; that it has arrived is told when it does.
    let lost_ns = time_in(cycle, seen, |state| {
        state.has(NetState::LOST) && !state.has(NetState::ARRIVED)
    });
    assert_close("lost", lost_ns, arrived - noted[1].at, slack_ns());
    assert_eq!(
        (
            seen.retransmits.probes,
            seen.retransmits.timeouts,
            seen.retransmits.fast
        ),
        (
            pair.left.counter("TCPLossProbes") as u16,
            pair.left.counter("TCPTimeouts") as u16,
            0
        ),
        "{seen:#?}"
    );
    assert!(first(seen, NetState::ARRIVED).is_none_or(|phase| phase.at + slack_ns() > arrived));
}

/// The trial of the design: in epoll the connection is known only as the wait ends, and so is what was sent.
#[test]
fn root_a_request_lost_while_its_thread_polls_is_told_from_its_sending() {
    let mut session = Session::start();
    let pair = Pair::new();
    let dropper = Dropper::on_the_way_in(&pair.right);
    let (_pair, exchange, noted) = asked_in_vain(pair, exchange_polled, dropper);
    session.drain_past(now());
    let (cycle, seen) = session.longest(exchange.tid, Call::EpollWait);
    assert!(cycle.end < exchange.answered && cycle.off.at > exchange.asked);
    let sent = &seen.phases[0];
    assert!(
        sent.state.has(NetState::UNACKED) && sent.state.has(NetState::ASKED),
        "{seen:#?}"
    );
    assert_at("sent", sent.at, noted[0].at);
    let lost_ns = time_in(cycle, seen, |state| {
        state.has(NetState::LOST) && !state.has(NetState::ARRIVED)
    });
    assert_close("lost", lost_ns, noted[2].at - noted[1].at, slack_ns());
    assert_eq!(
        (seen.retransmits.probes, seen.retransmits.timeouts),
        (1, 1),
        "{seen:#?}"
    );
    assert_eq!(first(seen, NetState::LATE), None, "{seen:#?}");
}

/// The client's own end drops it: nothing is ever sent again, only tried again.
#[test]
fn root_a_request_that_this_host_does_not_let_out_is_dropped_and_never_lost() {
    let mut session = Session::start();
    let pair = Pair::new();
    let dropper = Dropper::on_the_way_out(&pair.left);
    let (pair, exchange, noted) = asked_in_vain(pair, exchange, dropper);
    session.drain_past(now());
    let (cycle, seen) = session.longest(exchange.tid, Call::Recv);
    assert_eq!(
        pair.left.counter("RetransSegs"),
        0,
        "nothing was sent again"
    );
    assert_eq!(seen.retransmits, Retransmits::default());
    assert_eq!(first(seen, NetState::LOST), None, "{seen:#?}");
    let phase = first(seen, NetState::DROPPED).expect("it was dropped");
    assert!(
        phase.at == cycle.off.at && phase.state.has(NetState::UNSENT),
        "{seen:#?}"
    );
    let dropped_ns = time_in(cycle, seen, |state| {
        state.has(NetState::DROPPED) && !state.has(NetState::ARRIVED)
    });
    assert_close(
        "dropped",
        dropped_ns,
        noted[2].at - cycle.off.at,
        slack_ns(),
    );
    if lacuna_probes::kernel_facts().unwrap().drop_reasons {
        let dropped = seen.dropped.expect("with its reason");
        assert_eq!(
            (dropped.count, dropped.reason),
            (2, DropReason::TcOut),
            "{seen:#?}"
        );
        assert_at("since", phase.since.unwrap(), noted[0].at);
    }
}

/// The answer is dropped at the server's own end, then on its way; both are the other end's troubles.
#[test]
fn root_a_lost_answer_is_the_other_ends_loss() {
    let mut session = Session::start();
    let pair = Pair::new();
    let dropper = Dropper::on_the_way_in(&pair.left);
    let (pair, exchange, noted) = asked_in_vain(pair, exchange, dropper);
    session.drain_past(now());
    let (cycle, seen) = session.longest(exchange.tid, Call::Recv);
    assert!(noted[1].dropped && !noted[2].dropped, "{noted:?}");
    let lost = first(seen, NetState::PEER_LOST).expect("the other end lost it");
    assert_at("retransmitted", lost.at, noted[1].at);
    assert_at("first sent", lost.since.expect("known"), noted[0].at);
    let lost_ns = time_in(cycle, seen, |state| state.has(NetState::PEER_LOST));
    assert_close("lost", lost_ns, noted[2].at - noted[1].at, slack_ns());
    assert_eq!(first(seen, NetState::LOST), None, "{seen:#?}");
    assert!(pair.right.counter("RetransSegs") >= 2);
}

/// In epoll nothing is seen of the request before the answer is dropped; it was on its way all the same.
#[test]
fn root_an_answer_lost_while_its_thread_polls_was_asked_for_before() {
    let mut session = Session::start();
    let pair = Pair::new();
    let dropper = Dropper::on_the_way_in(&pair.left);
    let (_pair, exchange, noted) = asked_in_vain(pair, exchange_polled_shortly, dropper);
    session.drain_past(now());
    let (cycle, seen) = session.longest(exchange.tid, Call::EpollWait);
    let sent = &seen.phases[0];
    assert!(
        sent.state.has(NetState::UNACKED) && sent.state.has(NetState::ASKED),
        "{seen:#?}"
    );
    assert_at("sent", sent.at, exchange.asked);
    let lost = NetState::PEER_DROPPED.with(NetState::PEER_LOST);
    let lost_ns = time_in(cycle, seen, |state| state.has(lost));
    assert!(lost_ns >= noted[2].at - noted[1].at, "{lost_ns} {seen:#?}");
}

/// As where the kernel does not trace what runs on top of some threads: no hook tells of it.
fn untraced(faults: FaultPlan) -> Session {
    Session::with(Config {
        watch: Watch::Selected,
        faults,
        ..Config::default()
    })
}

#[test]
fn root_a_retransmission_that_is_not_traced_is_found_out() {
    let mut session = untraced(FaultPlan {
        untraced_resent: true,
        ..FaultPlan::default()
    });
    let pair = Pair::new();
    let dropper = Dropper::on_the_way_in(&pair.right);
    let (pair, exchange, noted) = asked_in_vain(pair, exchange, dropper);
    session.drain_past(now());
    let (_, seen) = session.longest(exchange.tid, Call::Recv);
    let lost = first(seen, NetState::LOST);
    let lost = lost.unwrap_or_else(|| panic!("it was lost: {seen:#?}"));
    if !lost.state.has(NetState::DROPPED) {
        assert_at("first sent", lost.since.expect("known"), noted[0].at);
    }
    assert_eq!(first(seen, NetState::LATE), None, "{seen:#?}");
    let Retransmits {
        timeouts,
        probes,
        fast,
    } = seen.retransmits;
    assert_eq!(
        u64::from(timeouts + probes + fast),
        pair.left.counter("RetransSegs"),
        "{seen:#?}"
    );
}

#[test]
fn root_a_lost_answer_whose_retransmission_is_not_traced_is_found_out() {
    let mut session = untraced(FaultPlan {
        untraced_resent: true,
        ..FaultPlan::default()
    });
    let pair = Pair::new();
    let dropper = Dropper::on_the_way_in(&pair.left);
    let (_pair, exchange, noted) = asked_in_vain(pair, exchange, dropper);
    session.drain_past(now());
    let (_, seen) = session.longest(exchange.tid, Call::Recv);
    assert!(noted[1].dropped && !noted[2].dropped, "{noted:?}");
    let lost = first(seen, NetState::PEER_LOST).expect("the other end lost it");
    if !lost.state.has(NetState::PEER_DROPPED) {
        assert_at("first sent", lost.since.expect("known"), noted[0].at);
    }
    assert_at("arrived", lost.at, noted[2].at);
    assert_eq!(first(seen, NetState::LOST), None, "{seen:#?}");
}

/// When all was acknowledged is known from the kernel's own clock of it.
#[test]
fn root_an_acknowledgement_that_is_not_traced_is_put_where_it_was() {
    let mut session = untraced(FaultPlan {
        untraced_acks: true,
        ..FaultPlan::default()
    });
    let (_pair, exchange, server) = asked_across(Pair::new(), exchange, || ());
    server.join();
    session.drain_past(now());
    let (cycle, seen) = session.longest(exchange.tid, Call::Recv);
    assert!(
        seen.phases[0].state.has(NetState::UNACKED),
        "it had not been acknowledged as the thread left its CPU, by what was traced: {seen:#?}"
    );
    assert_eq!(first(seen, NetState::LATE), None, "{seen:#?}");
    // The other end delays it by 40 ms at most (TCP_DELACK_MIN), and thinks for 150.
    let on_the_way = time_in(cycle, seen, |state| state.has(NetState::UNACKED));
    assert!(
        on_the_way < 100 * MS && cycle.end - cycle.off.at > 140 * MS,
        "{on_the_way} {seen:#?}"
    );
}
