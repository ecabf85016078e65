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
use common::exchange::asked_in_vain_from_rest;
use common::exchange::assert_at;
use common::exchange::assert_between;
use common::exchange::caused;
use common::exchange::exchange;
use common::exchange::exchange_polled;
use common::exchange::exchange_polled_shortly;
use common::exchange::first;
use common::exchange::slack_ns;
use common::exchange::tick_ns;
use common::exchange::time_in;
use common::network::CABLE;
use common::network::Noted;
use common::network::Pair;
use common::network::Place;
use common::now;
use lacuna_probes::Config;
use lacuna_probes::FaultPlan;
use lacuna_probes::Watch;
use lacuna_timeline::Cause;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::DropReason;
use lacuna_timeline::event::NetState;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::Retransmits;

/// No later than this is what left then stamped: where it is paced (BBR), with when it may leave, which is some
/// microseconds ahead.
fn stamped(left: &Noted) -> Ns {
    left.at + slack_ns()
}

/// The client's request is dropped twice at the server's end of the cable: sent, probe, timeout.
#[test]
fn root_a_request_lost_on_its_way_is_lost_until_it_is_acknowledged() {
    let mut session = Session::start();
    let pair = Pair::new();
    let (pair, exchange, trail) = asked_in_vain(pair, exchange, Place::RightIn);
    session.drain_past(now());
    let (sent, arrives) = (&trail.left_out, &trail.right_in);
    let (cycle, seen) = session.longest_in(&exchange, Call::Recv);
    let lost = first(seen, NetState::LOST).expect("it was lost");
    assert_between("retransmitted", lost.at, sent[1].at, arrives[1].at);
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
        assert_at("dropped", phase.since.unwrap(), arrives[0].at);
    } else {
        let since = lost.since.expect("known");
        assert_between("first sent", since, exchange.asked, stamped(&sent[0]));
    }
    // The acknowledgement may be delayed; that it has arrived is told when it does.
    let lost_ns = time_in(cycle, seen, |state| {
        state.has(NetState::LOST) && !state.has(NetState::ARRIVED)
    });
    let arrived = lost.at + lost_ns;
    assert_between("arrived", arrived, arrives[2].at, trail.asked_by());
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
    let told = first(seen, NetState::ARRIVED);
    assert!(told.is_none_or(|phase| phase.at >= arrives[2].at));
}

/// The trial of the design: in epoll the connection is known only as the wait ends, and so is what was sent.
#[test]
fn root_a_request_lost_while_its_thread_polls_is_told_from_its_sending() {
    let mut session = Session::start();
    let pair = Pair::new();
    let (_pair, exchange, trail) = asked_in_vain(pair, exchange_polled, Place::RightIn);
    session.drain_past(now());
    let (cycle, seen) = session.longest_in(&exchange, Call::EpollWait);
    assert!(cycle.end < exchange.answered && cycle.off.at > exchange.asked);
    let sent = &seen.phases[0];
    assert!(
        sent.state.has(NetState::UNACKED) && sent.state.has(NetState::ASKED),
        "{seen:#?}"
    );
    let left = stamped(&trail.left_out[0]);
    assert_between("sent", sent.at, exchange.asked, left);
    let lost = first(seen, NetState::LOST).expect("it was lost");
    let (left, came) = (trail.left_out[1].at, trail.right_in[1].at);
    assert_between("retransmitted", lost.at, left, came);
    let lost_ns = time_in(cycle, seen, |state| {
        state.has(NetState::LOST) && !state.has(NetState::ARRIVED)
    });
    let arrived = lost.at + lost_ns;
    assert_between("arrived", arrived, trail.right_in[2].at, trail.asked_by());
    // It is one from a round trip after the sending on, or from the drop, where that is told.
    let caused_ns = caused(&session, cycle, Cause::NetRetransmit);
    let begun = (trail.right_in[0].at + seen.srtt_ns).max(cycle.off.at);
    let (least, most) = (
        trail.right_in[2].at - begun,
        trail.asked_by() - cycle.off.at,
    );
    assert_between("caused", caused_ns, least, most);
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
    let (pair, exchange, trail) = asked_in_vain(pair, exchange, Place::LeftOut);
    session.drain_past(now());
    let (cycle, seen) = session.longest_in(&exchange, Call::Recv);
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
    let let_out = cycle.off.at + dropped_ns;
    let at_last = trail.left_out[2].at - slack_ns();
    assert_between("let out", let_out, at_last, trail.asked_by());
    if lacuna_probes::kernel_facts().unwrap().drop_reasons {
        let dropped = seen.dropped.expect("with its reason");
        assert_eq!(
            (dropped.count, dropped.reason),
            (2, DropReason::TcOut),
            "{seen:#?}"
        );
        assert_eq!(seen.peer_dropped, None, "the answer came through");
        assert_at("since", phase.since.unwrap(), trail.left_out[0].at);
    }
}

/// The answer is dropped at the server's own end, then on its way; both are the other end's troubles.
#[test]
fn root_a_lost_answer_is_the_other_ends_loss() {
    let mut session = Session::start();
    let pair = Pair::new();
    let (pair, exchange, trail) = asked_in_vain(pair, exchange, Place::LeftIn);
    session.drain_past(now());
    let (cycle, seen) = session.longest_in(&exchange, Call::Recv);
    let (sent, arrives) = (&trail.right_out, &trail.left_in);
    assert!(arrives[1].dropped && !arrives[2].dropped, "{trail:?}");
    let lost = first(seen, NetState::PEER_LOST).expect("the other end lost it");
    assert_between("retransmitted", lost.at, sent[1].at, arrives[1].at);
    let since = lost.since.expect("known");
    assert_between(
        "first sent",
        since,
        trail.answered_from(),
        stamped(&sent[0]),
    );
    let lost_ns = time_in(cycle, seen, |state| state.has(NetState::PEER_LOST));
    let arrived = lost.at + lost_ns;
    assert_between("arrived", arrived, arrives[2].at, exchange.answered);
    assert_eq!(first(seen, NetState::LOST), None, "{seen:#?}");
    assert!(pair.right.counter("RetransSegs") >= 2);
    assert_eq!(seen.dropped, None, "the request came through");
    if lacuna_probes::kernel_facts().unwrap().drop_reasons {
        let dropped = seen.peer_dropped.expect("it was dropped on this host");
        assert_eq!((dropped.count, dropped.reason), (2, DropReason::TcIn));
        assert_eq!(dropped.netns, pair.left.inum());
        assert_eq!(dropped.device.text(), CABLE);
    }
}

/// In epoll nothing is seen of the request before the answer is dropped; it was on its way all the same.
#[test]
fn root_an_answer_lost_while_its_thread_polls_was_asked_for_before() {
    let mut session = Session::start();
    let pair = Pair::new();
    let (_pair, exchange, trail) = asked_in_vain(pair, exchange_polled_shortly, Place::LeftIn);
    session.drain_past(now());
    let (cycle, seen) = session.longest_in(&exchange, Call::EpollWait);
    let sent = &seen.phases[0];
    assert!(
        sent.state.has(NetState::UNACKED) && sent.state.has(NetState::ASKED),
        "{seen:#?}"
    );
    let left = stamped(&trail.left_out[0]);
    assert_between("sent", sent.at, exchange.asked, left);
    let lost = NetState::PEER_DROPPED.with(NetState::PEER_LOST);
    let lost_ns = time_in(cycle, seen, |state| state.has(lost));
    assert!(
        lost_ns >= trail.left_in[2].at - trail.left_in[1].at,
        "{lost_ns} {seen:#?}"
    );
    // From the request's arrival on, until the answer was sent, the other end thought.
    let joined = first(seen, NetState::JOINED);
    assert_eq!(joined, None, "nothing was written in between: {seen:#?}");
    let peer_ns = caused(&session, cycle, Cause::NetPeer);
    let thought = trail.right_out[0].at - trail.right_in[0].at;
    assert_close("thought", peer_ns, thought, slack_ns());
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
    let (pair, exchange, trail) = asked_in_vain(pair, exchange, Place::RightIn);
    session.drain_past(now());
    let (_, seen) = session.longest_in(&exchange, Call::Recv);
    let lost = first(seen, NetState::LOST);
    let lost = lost.unwrap_or_else(|| panic!("it was lost: {seen:#?}"));
    if !lost.state.has(NetState::DROPPED) {
        let since = lost.since.expect("known");
        let left = stamped(&trail.left_out[0]);
        assert_between("first sent", since, exchange.asked, left);
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
    let (_pair, exchange, trail) = asked_in_vain(pair, exchange, Place::LeftIn);
    session.drain_past(now());
    let (_, seen) = session.longest_in(&exchange, Call::Recv);
    let arrives = &trail.left_in;
    assert!(arrives[1].dropped && !arrives[2].dropped, "{trail:?}");
    let lost = first(seen, NetState::PEER_LOST).expect("the other end lost it");
    if !lost.state.has(NetState::PEER_DROPPED) {
        let (since, sent) = (lost.since.expect("known"), stamped(&trail.right_out[0]));
        assert_between("first sent", since, trail.answered_from(), sent);
    }
    assert_between("arrived", lost.at, arrives[2].at, exchange.answered);
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
    let (cycle, seen) = session.longest_in(&exchange, Call::Recv);
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

/// Asserts that something was noted in the tick in which it was written. How late a tick was counted is not
/// known: what is written before it is counted is told one too early.
#[track_caller]
fn assert_in_tick(what: &str, measured: Ns, from: Ns, to: Ns) {
    let earliest = from.saturating_sub(slack_ns());
    assert_between(what, measured, earliest, to + tick_ns() + slack_ns());
}

/// Without a word of the drop, no hook fires from the writing to the acknowledgement. What that shows is that
/// the segment had been tried before, and since which tick there was something to send.
fn assert_dropped_unseen(from_rest: bool) {
    let mut session = untraced(FaultPlan {
        untraced_drops: true,
        ..FaultPlan::default()
    });
    let pair = Pair::new();
    let ask = match from_rest {
        true => asked_in_vain_from_rest,
        false => asked_in_vain,
    };
    let (pair, exchange, trail) = ask(pair, exchange_polled, Place::LeftOut);
    session.drain_past(now());
    let (cycle, seen) = session.longest_in(&exchange, Call::EpollWait);
    assert_eq!(pair.left.counter("RetransSegs"), 0);
    assert_eq!(seen.retransmits, Retransmits::default());
    assert_eq!(
        first(seen, NetState::LOST.with(NetState::LATE)),
        None,
        "{seen:#?}"
    );
    let dropped = first(seen, NetState::DROPPED).expect("it was dropped");
    let since = dropped.since.expect("known");
    let tried = trail.left_out[0].at;
    assert_in_tick("since", since, exchange.asked, tried);
    let dropped_ns = time_in(cycle, seen, |state| {
        state.has(NetState::DROPPED) && !state.has(NetState::ARRIVED)
    });
    let let_out = cycle.off.at.max(since) + dropped_ns;
    let at_last = trail.left_out[2].at - slack_ns();
    assert_between("let out", let_out, at_last, trail.asked_by());
    let caused_ns = caused(&session, cycle, Cause::NetRetransmit);
    assert_close("caused", caused_ns, dropped_ns, slack_ns());
    // Before that, and from the writing on, nothing is said.
    for pair in seen.phases.windows(2) {
        let says_nothing = pair[0]
            .state
            .has(NetState::ASKED.with(NetState::UNFOLLOWED));
        let later = pair[0].at >= dropped.at;
        assert!(later || says_nothing || pair[1].at <= tried, "{seen:#?}");
    }
}

#[test]
fn root_a_request_that_is_not_let_out_nor_traced_is_told_to_a_thread_that_polls() {
    assert_dropped_unseen(true);
}

/// While it is tried, an answer from before arrives once more.
#[test]
fn root_a_request_that_is_not_let_out_nor_traced_is_told_beside_other_segments() {
    assert_dropped_unseen(false);
}

#[test]
fn root_an_answer_that_is_not_let_out_nor_traced_is_not_the_peers_time() {
    let mut session = untraced(FaultPlan {
        untraced_drops: true,
        ..FaultPlan::default()
    });
    let pair = Pair::new();
    let (pair, exchange, trail) = asked_in_vain(pair, exchange_polled, Place::RightOut);
    session.drain_past(now());
    let (cycle, seen) = session.longest_in(&exchange, Call::EpollWait);
    assert_eq!(pair.right.counter("RetransSegs"), 0);
    let dropped = first(seen, NetState::PEER_DROPPED).expect("the other end's was dropped");
    let since = dropped.since.expect("known");
    let tried = trail.right_out[0].at;
    assert_in_tick("since", since, trail.answered_from(), tried);
    let arrives = trail.left_in.last().unwrap().at;
    assert_between("arrived", dropped.at, arrives, cycle.end);
}
