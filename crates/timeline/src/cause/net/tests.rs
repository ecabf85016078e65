// SPDX-License-Identifier: Apache-2.0
//! Whatever is told of a connection, its pieces partition the wait and say of each instant what the
//! rules say of it. (The rules themselves are shown row by row in `tests/scenarios/net-*.txt`.)

use super::Aspect;
use super::Awaited;
use super::View;
use super::pieces;
use crate::cause::Cause;
use crate::event::Asked;
use crate::event::Connection;
use crate::event::NetState;
use crate::event::Ns;
use crate::event::PHASES_MAX;
use crate::event::Phase;
use crate::event::Retransmits;
use crate::event::ThreadId;
use crate::rng::Rng;

const AWAITED: [Awaited; 6] = {
    const fn awaited(asked: Asked, polled: bool) -> Awaited {
        Awaited { asked, polled }
    }
    [
        awaited(Asked::Input, false),
        awaited(Asked::Output, false),
        awaited(Asked::Either, false),
        awaited(Asked::Input, true),
        awaited(Asked::Output, true),
        awaited(Asked::Either, true),
    ]
};

/// Who waits.
const WAITER: ThreadId = ThreadId(1);

/// Any connection in a wait of some 60 ns, of which instants and bits may contradict each other.
fn connection(rng: &mut Rng) -> Connection {
    let mut phases: Vec<Phase> = (0..rng.between(1, PHASES_MAX as u64))
        .map(|_| {
            let at = rng.between(1, 90);
            Phase {
                at,
                since: (!rng.one_in(3)).then(|| rng.between(1, at)),
                // Few bits at once, or some rule would never be reached.
                state: NetState((rng.next() & rng.next() & 0x3_ffff) as u32),
            }
        })
        .collect();
    phases.sort_by_key(|phase| phase.at);
    Connection {
        accepted: rng.one_in(2),
        reader: rng.one_in(3).then_some(ThreadId(2)),
        retransmits: Retransmits {
            timeouts: rng.below(2) as u16,
            probes: rng.below(2) as u16,
            fast: 0,
        },
        srtt_ns: rng.below(9),
        rtt_min_ns: rng.below(9),
        phases,
        ..Connection::default()
    }
}

#[test]
fn every_nanosecond_has_what_the_rules_say_of_it() {
    let mut seen: Vec<(Cause, Option<Aspect>)> = Vec::new();
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let told = connection(&mut rng);
        let start = rng.between(1, 40);
        let blocked = start..start + rng.between(1, 60);
        for awaited in AWAITED {
            let view = View::new(&told, WAITER, awaited, &blocked);
            let pieces = pieces(&told, WAITER, awaited, &blocked);
            let mut at: Ns = blocked.start;
            for piece in &pieces {
                assert_eq!(piece.range.start, at, "seed {seed}: a gap or an overlap");
                assert!(at < piece.range.end, "seed {seed}: an empty piece");
                at = piece.range.end;
            }
            assert_eq!(at, blocked.end, "seed {seed}: not all of it");
            let arrival = view.arrival(blocked.end);
            for at in blocked.clone() {
                let piece = pieces.iter().find(|piece| piece.range.contains(&at));
                let piece = piece.expect("it is in one");
                // What the rules say, up to the arrival that ended the wait.
                let judged = if at < arrival { at } else { arrival - 1 };
                let rule = view.at(judged.max(blocked.start));
                assert_eq!(
                    (piece.cause, piece.aspect),
                    rule,
                    "seed {seed} at {at}: {told:?}"
                );
                if !seen.contains(&rule) {
                    seen.push(rule);
                }
            }
        }
    }
    // Every rule was reached: two ways of loss each way, held back by the kernel or by the program, two windows and neither, on the way, the two
    // kinds of peer, which may have spoken last, nobody, and for each that is awaited not known.
    assert_eq!(seen.len(), 4 + 2 + 3 + 1 + 4 + 1 + 3, "{seen:?}");
}

#[test]
fn numbers_at_the_end_of_their_range_do_no_harm() {
    let phase = |at, since, state| Phase { at, since, state };
    let all = NetState(u32::MAX);
    let told = Connection {
        srtt_ns: Ns::MAX,
        rtt_min_ns: Ns::MAX,
        cut: true,
        phases: vec![
            phase(1, Some(Ns::MAX), all),
            phase(Ns::MAX, Some(1), NetState::UNACKED.with(NetState::LOST)),
        ],
        ..Connection::default()
    };
    for awaited in AWAITED {
        let pieces = pieces(&told, WAITER, awaited, &(5..Ns::MAX));
        let sum: Ns = pieces
            .iter()
            .map(|piece| piece.range.end - piece.range.start)
            .sum();
        assert_eq!(sum, Ns::MAX - 5);
    }
}

#[test]
fn a_wait_of_which_nothing_is_told_is_one_piece() {
    let told = Connection::default();
    for awaited in AWAITED {
        let pieces = pieces(&told, WAITER, awaited, &(5..50));
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].range, 5..50);
        assert_eq!(pieces[0].cause, awaited.unseen());
        assert_eq!(pieces[0].aspect, Some(Aspect::NotKnown));
    }
}
