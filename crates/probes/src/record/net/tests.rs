// SPDX-License-Identifier: Apache-2.0
//! Rings of phases, made by hand: what is told of them, and that noise tells nothing impossible.

use super::told;
use crate::skel::types::net_phase;
use crate::skel::types::net_record;
use lacuna_timeline::event::Connection;
use lacuna_timeline::event::Dropped;
use lacuna_timeline::event::NetState;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::PHASES_MAX;
use lacuna_timeline::event::Retransmits;

const UNACKED: u32 = NetState::UNACKED.0;
const HERE: u32 = NetState::HERE.0;
const ARRIVED: u32 = NetState::ARRIVED.0;
const LOST: u32 = NetState::LOST.0;
const PEER_LOST: u32 = NetState::PEER_LOST.0;
const UNKNOWN: u32 = u32::MAX;

fn phase(at: Ns, state: u32) -> net_phase {
    net_phase {
        at,
        since_us: UNKNOWN,
        state,
    }
}

/// A record of a wait from instant 1,000,000 on, with these in its rings, oldest first.
fn record(own: &[net_phase], mirror: &[net_phase]) -> net_record {
    let mut record = net_record {
        out: 1_000_000,
        ..Default::default()
    };
    for (turn, &phase) in own.iter().enumerate() {
        let places = record.own.len();
        record.own[turn % places] = phase;
    }
    for (turn, &phase) in mirror.iter().enumerate() {
        let places = record.mirror.len();
        record.mirror[turn % places] = phase;
    }
    (record.own_before, record.own_after) = (own.len() as u32, own.len() as u32);
    (record.mirror_before, record.mirror_after) = (mirror.len() as u32, mirror.len() as u32);
    record
}

fn seen(record: &net_record) -> Connection {
    told(record).seen
}

fn states(seen: &Connection) -> Vec<(Ns, u32)> {
    let phases = seen.phases.iter();
    phases.map(|phase| (phase.at, phase.state.0)).collect()
}

#[test]
fn the_phase_in_force_comes_first_and_then_those_of_the_wait() {
    let own = [phase(100, 2), phase(900_000, 4), phase(1_200_000, 8)];
    let seen = seen(&record(&own, &[]));
    assert_eq!(states(&seen), [(900_000, 4), (1_200_000, 8)]);
    assert!(!seen.cut);
}

#[test]
fn before_the_first_phase_nothing_is_known() {
    let seen = seen(&record(&[phase(1_200_000, 8)], &[]));
    assert_eq!(states(&seen), [(1_200_000, 8)]);
    assert!(seen.cut);
}

#[test]
fn a_sample_replaces_what_was_before_it() {
    let own = [phase(900_000, 4), phase(1_200_000, 8)];
    let mut record = record(&own, &[phase(950_000, HERE | ARRIVED)]);
    record.sample = phase(1_000_000, UNACKED);
    let seen = seen(&record);
    assert_eq!(states(&seen), [(1_000_000, UNACKED), (1_200_000, 8)]);
    assert!(!seen.cut);
}

#[test]
fn the_mirror_changes_only_what_it_can_know() {
    let own = [phase(900_000, UNACKED | HERE), phase(1_300_000, HERE)];
    let mut lost = phase(1_100_000, HERE | PEER_LOST);
    lost.since_us = 50;
    let mirror = [lost, phase(1_200_000, HERE | ARRIVED)];
    let seen = seen(&record(&own, &mirror));
    let expected = [
        (900_000, UNACKED | HERE),
        (1_100_000, UNACKED | HERE | PEER_LOST),
        (1_200_000, UNACKED | HERE | ARRIVED),
        (1_300_000, HERE),
    ];
    assert_eq!(states(&seen), expected);
    assert_eq!(seen.phases[1].since, Some(1_050_000));
    assert_eq!(seen.phases[2].since, None, "that was of the loss");
}

#[test]
fn only_the_late_phase_itself_is_late() {
    let late = NetState::LATE.0;
    let own = [phase(900_000, UNACKED | HERE | late)];
    let mirror = [phase(1_100_000, HERE), phase(1_200_000, HERE | ARRIVED)];
    let expected = [
        (900_000, UNACKED | HERE | late),
        (1_200_000, UNACKED | HERE | ARRIVED),
    ];
    assert_eq!(states(&seen(&record(&own, &mirror))), expected);
}

#[test]
fn bytes_join_those_that_had_arrived_at_an_unknown_instant() {
    let joined = NetState::JOINED.0;
    let own = [
        phase(900_000, UNACKED | HERE),
        phase(1_400_000, UNACKED | HERE | LOST),
    ];
    let mirror = [
        phase(950_000, HERE | ARRIVED),
        phase(1_200_000, HERE | ARRIVED),
        phase(1_300_000, HERE | ARRIVED),
    ];
    let seen = seen(&record(&own, &mirror));
    let expected = [
        (900_000, UNACKED | HERE),
        (950_000, UNACKED | HERE | ARRIVED),
        (1_200_000, UNACKED | HERE | ARRIVED | joined),
        (1_300_000, UNACKED | HERE | ARRIVED | joined),
        (1_400_000, UNACKED | HERE | LOST | joined),
    ];
    assert_eq!(states(&seen), expected);
}

#[test]
fn what_has_all_arrived_is_not_unsent_any_more() {
    let dropped = NetState::DROPPED.0;
    let unsent = NetState::UNSENT.0 | NetState::NAGLE.0 | NetState::WINDOW.0;
    let own = [phase(900_000, UNACKED | HERE | dropped | unsent)];
    let mirror = [phase(1_100_000, HERE), phase(1_200_000, HERE | ARRIVED)];
    let expected = [
        (900_000, UNACKED | HERE | dropped | unsent),
        (1_200_000, UNACKED | HERE | dropped | ARRIVED),
    ];
    assert_eq!(states(&seen(&record(&own, &mirror))), expected);
}

#[test]
fn what_may_have_been_written_to_meanwhile_is_left_out() {
    let own: Vec<net_phase> = (1..=10).map(|n| phase(n * 200_000, n as u32)).collect();
    let mut record = record(&own, &[]);
    // Turns 2 to 9 are there; the place of turn 2 is where the next one is being written.
    let whole = seen(&record);
    assert_eq!(whole.phases[0].at, 1_000_000);
    assert!(!whole.cut);
    // Three more came while it was copied: turns 2 to 5 may be torn, and 5 was in force.
    record.own_after += 3;
    let torn = seen(&record);
    assert_eq!(torn.phases[0].at, 1_400_000);
    assert!(torn.cut);
}

#[test]
fn too_many_phases_are_cut_at_the_front() {
    let own: Vec<net_phase> = (0..7)
        .map(|n| phase(990_000 + n * 10_000, 1 + n as u32))
        .collect();
    let mirror: Vec<net_phase> = (0..3)
        .map(|n| {
            phase(
                1_015_000 + n * 10_000,
                if n % 2 == 0 { HERE } else { HERE | ARRIVED },
            )
        })
        .collect();
    let seen = seen(&record(&own, &mirror));
    assert_eq!(seen.phases.len(), PHASES_MAX);
    assert!(seen.cut);
    assert_eq!(seen.phases.last().map(|phase| phase.at), Some(1_050_000));
}

#[test]
fn counts_from_before_the_wait_are_not_of_it() {
    let mut record = record(&[phase(900_000, 4)], &[]);
    record.resent = [3, 2, 1];
    (record.dropped.count, record.peer_dropped.count) = (70_000, 2);
    record.resent_at = 999_999;
    (record.dropped.at, record.peer_dropped.at) = (999_999, 999_999);
    let before = seen(&record);
    assert_eq!(
        (before.retransmits, before.dropped, before.peer_dropped),
        (Retransmits::default(), None, None)
    );
    record.peer_dropped.at = 1_000_000;
    let answers = seen(&record);
    let count_of = |dropped: Option<Dropped>| dropped.map(|dropped| dropped.count);
    assert_eq!(count_of(answers.peer_dropped), Some(2));
    assert_eq!(answers.dropped, None);
    (record.resent_at, record.dropped.at) = (1_000_000, 1_000_000);
    let within = seen(&record);
    let counts = within.retransmits;
    assert_eq!((counts.timeouts, counts.probes, counts.fast), (3, 2, 1));
    assert_eq!(count_of(within.dropped), Some(u16::MAX));
}

#[test]
fn a_drop_that_holds_as_the_wait_begins_is_of_it() {
    let dropped = |since_us| net_phase {
        since_us,
        ..phase(1_000_000, NetState::DROPPED.0)
    };
    let drops = |since_us| {
        let mut record = record(&[dropped(since_us)], &[]);
        (record.dropped.count, record.dropped.at) = (1, 990_500);
        seen(&record).dropped.map(|dropped| dropped.count)
    };
    // Microseconds are rounded down: it may have begun up to one earlier than it says.
    assert_eq!((drops(9), drops(10)), (Some(1), Some(1)));
    assert_eq!((drops(8), drops(UNKNOWN)), (None, None));
}

#[test]
fn noise_tells_nothing_impossible() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..20_000 {
        let mut record = net_record {
            out: noise() % 1000,
            own_before: noise() as u32,
            own_after: noise() as u32,
            mirror_before: noise() as u32 % 6,
            mirror_after: noise() as u32 % 8,
            ..Default::default()
        };
        for phase in record.own.iter_mut().chain(record.mirror.iter_mut()) {
            *phase = net_phase {
                at: noise() % 1000,
                since_us: noise() as u32 % 3,
                state: noise() as u32,
            };
        }
        let seen = seen(&record);
        assert!(seen.phases.len() <= PHASES_MAX);
        assert!(seen.phases.is_sorted_by_key(|phase| phase.at));
        let follows = |at: Ns, since: Option<Ns>| at > 0 && since.is_none_or(|since| since <= at);
        assert!(
            seen.phases
                .iter()
                .all(|phase| follows(phase.at, phase.since))
        );
    }
}
