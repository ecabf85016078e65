// SPDX-License-Identifier: Apache-2.0
//! The rule of step 3: losses, and what is easily taken for one.

use std::net::SocketAddr;

use lacuna_timeline::Cause;

use super::MS;
use super::WINDOW_NS;
use super::is;
use super::void;
use crate::ladder::facts::Connection;
use crate::ladder::facts::Listener;
use crate::ladder::facts::NetNamespace;
use crate::ladder::facts::Seen;
use crate::ladder::facts::Tcp;
use crate::ladder::rule::recovering_ns;
use crate::ladder::rule::tcp as judge;
use crate::ladder::verdict::Finding;
use crate::ladder::verdict::Verdict;

fn tcp(seen: &Seen<Tcp>, window_ns: u64) -> Finding {
    judge(seen, None, window_ns)
}

fn connection() -> Connection {
    let address: SocketAddr = "10.0.0.1:443".parse().unwrap();
    Connection {
        local: address,
        peer: address,
        connecting: false,
        retransmits: 0,
        segments_out: Some(1_000),
        timeouts: Some(0),
        recovery_ns: Some(0),
        recovering: false,
        held_here: false,
        lost: 0,
        unacked: 0,
        rto_ns: 200 * MS,
        rtt_ns: MS,
        congestion_window: 10,
        busy_ns: Some(0),
        window_limited_ns: Some(0),
        buffer_limited_ns: Some(0),
    }
}

fn with(connection: Connection) -> Seen<Tcp> {
    Ok(Tcp {
        connections: vec![connection],
        ..Tcp::default()
    })
}

#[test]
fn losses_are_told_from_slow_peers() {
    is(&tcp(&with(connection()), WINDOW_NS), Verdict::Ok, None);
    is(&tcp(&Ok(Tcp::default()), WINDOW_NS), Verdict::Ok, None);
    let once = Connection {
        retransmits: 1,
        ..connection()
    };
    let retransmit = Some(Cause::NetRetransmit);
    is(&tcp(&with(once), WINDOW_NS), Verdict::Suspect, retransmit);
    let often = Connection {
        retransmits: 10,
        ..connection()
    };
    is(&tcp(&with(often), WINDOW_NS), Verdict::Cause, retransmit);
    let timer = Connection {
        retransmits: 1,
        recovering: true,
        ..connection()
    };
    let found = tcp(&with(timer), WINDOW_NS);
    is(&found, Verdict::Cause, retransmit);
    assert_eq!(
        found.lost_ns,
        201 * MS,
        "the timer that has run out, and a round trip"
    );
    let slow = Connection {
        window_limited_ns: Some(900 * MS),
        ..connection()
    };
    is(
        &tcp(&with(slow), WINDOW_NS),
        Verdict::Suspect,
        Some(Cause::NetSend),
    );
}

#[test]
fn what_this_host_drops_itself_is_a_loss_without_retransmission() {
    let held = Connection {
        held_here: true,
        ..connection()
    };
    let found = tcp(&with(held), WINDOW_NS);
    is(&found, Verdict::Cause, Some(Cause::NetRetransmit));
    assert!(found.why.contains("this host itself"), "{found:?}");
    let unanswered = Connection {
        connecting: true,
        recovering: true,
        retransmits: 2,
        ..connection()
    };
    is(
        &tcp(&with(unanswered), WINDOW_NS),
        Verdict::Cause,
        Some(Cause::NetConnect),
    );
}

#[test]
fn recovery_is_as_long_as_the_kernel_says_and_never_longer_than_the_window() {
    let told = Connection {
        retransmits: 3,
        recovery_ns: Some(600 * MS),
        ..connection()
    };
    assert_eq!(recovering_ns(&told, WINDOW_NS), 600 * MS);
    let not_told = Connection {
        recovery_ns: None,
        ..told.clone()
    };
    assert_eq!(
        recovering_ns(&not_told, WINDOW_NS),
        3 * MS,
        "a round trip each"
    );
    let long = Connection {
        recovery_ns: Some(u64::MAX),
        recovering: true,
        ..told
    };
    assert_eq!(recovering_ns(&long, WINDOW_NS), WINDOW_NS);
}

#[test]
fn a_full_accept_queue_is_named() {
    let listener = |drops| Listener {
        local: "0.0.0.0:8080".parse().unwrap(),
        drops,
        queued: 5,
        queue_max: 5,
    };
    let with = |drops| -> Seen<Tcp> {
        Ok(Tcp {
            listeners: vec![listener(drops)],
            ..Tcp::default()
        })
    };
    is(&tcp(&with(0), WINDOW_NS), Verdict::Ok, None);
    is(
        &tcp(&with(3), WINDOW_NS),
        Verdict::Suspect,
        Some(Cause::NetConnect),
    );
}

#[test]
fn numbers_beside_a_void_source_say_whose_they_are() {
    let all = NetNamespace {
        segments_out: 100,
        retransmits: 90,
        ..NetNamespace::default()
    };
    let found = judge(&void(), Some(&all), WINDOW_NS);
    is(&found, Verdict::NotAvailable, None);
    assert!(found.why.contains("it is off"), "{found:?}");
    assert!(
        found.why.contains("everybody in its network namespace"),
        "{found:?}"
    );
    let found = tcp(&void(), WINDOW_NS);
    assert!(!found.why.contains("numbers"), "there are none: {found:?}");
}
