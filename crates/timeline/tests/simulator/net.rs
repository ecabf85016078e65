// SPDX-License-Identifier: Apache-2.0
//! What befalls a TCP connection while a thread waits for it: one exchange for each wait, with the
//! truth of each instant, and what the kernel side would have told of it.
//!
//! The truth is what the exchange was made of (who had the segment, who had not sent it yet), not what
//! the rules make of its phases.

use lacuna_timeline::Cause;
use lacuna_timeline::Ns;
use lacuna_timeline::event::Connection;
use lacuna_timeline::event::NetState;
use lacuna_timeline::event::Phase;

use crate::rng::Rng;

const ASKED: NetState = NetState::ASKED;
const UNACKED: NetState = NetState::UNACKED.with(ASKED);
const HERE: NetState = NetState::HERE.with(ASKED);

/// How many kinds of exchange there are.
pub(crate) const STORIES: u64 = 10;

/// An exchange.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange {
    /// What is told of it.
    pub(crate) told: Connection,
    /// What is true from each instant on, up to the waking.
    pub(crate) truth: Vec<(Ns, Cause)>,
}

impl Exchange {
    /// From an instant on it is in a state; of something that began at another.
    fn phase(&mut self, at: Ns, state: NetState, since: Option<Ns>) {
        self.told.phases.push(Phase { at, since, state });
    }

    fn truth(&mut self, at: Ns, cause: Cause) {
        self.truth.push((at, cause));
    }

    /// Any exchange of a wait for input: what was asked just before it, and an answer that ends it.
    pub(crate) fn input(rng: &mut Rng, out: Ns, wake: Ns) -> Exchange {
        let mut exchange = Exchange::default();
        let sent = out - rng.below(300);
        let answered = wake - rng.between(1, 200).min(wake - out);
        let mut at: Vec<Ns> = (0..3).map(|_| rng.between(out, answered)).collect();
        at.sort_unstable();
        exchange.told.srtt_ns = rng.below(400);
        exchange.told.rtt_min_ns = rng.below(400);
        exchange.truth(out, Cause::NetAck);
        match rng.below(STORIES) {
            0 => exchange.acknowledged(sent, at[1]),
            1 => exchange.answered_at_once(sent, out, answered),
            2 | 3 => exchange.lost_out(sent, out, [at[0], at[1]]),
            4 => exchange.arrives_here(sent, [at[0], at[1]]),
            5 => exchange.lost_in(sent, [at[0], at[1], at[2]]),
            6 => exchange.held_back(sent, [at[0], at[1]]),
            7 => exchange.waits_for_work(sent, rng.one_in(2)),
            8 => exchange.has_a_hole(sent, [at[0], at[1]], answered),
            _ => exchange.dropped_here(sent, [at[0], at[1]]),
        }
        exchange.phase(answered, NetState::HEARD, None);
        exchange
    }

    /// Any wait for room: whatever holds the bytes back, it is the same cause.
    pub(crate) fn output(rng: &mut Rng, out: Ns, wake: Ns) -> Exchange {
        let mut exchange = Exchange::default();
        let unsent = NetState::UNACKED.with(NetState::UNSENT);
        exchange.phase(out, unsent.with(NetState::WINDOW), Some(out));
        let later = rng.between(out, wake);
        exchange.phase(later, unsent.with(NetState::CWND), Some(out));
        exchange.truth(out, Cause::NetSend);
        exchange
    }

    fn acknowledged(&mut self, sent: Ns, acked: Ns) {
        self.phase(sent, UNACKED, Some(sent));
        self.phase(acked, ASKED, None);
        self.truth(acked, Cause::NetPeer);
    }

    /// The acknowledgement comes with the answer: what is known is the least that it took.
    fn answered_at_once(&mut self, sent: Ns, out: Ns, answered: Ns) {
        self.phase(sent, UNACKED, Some(sent));
        let arrived = sent + self.told.rtt_min_ns;
        // Faster than ever before: all of it was on the way.
        if arrived < answered {
            self.truth(arrived.max(out), Cause::NetPeer);
        }
    }

    fn lost_out(&mut self, sent: Ns, out: Ns, [again, acked]: [Ns; 2]) {
        self.phase(sent, UNACKED, Some(sent));
        self.phase(again, UNACKED.with(NetState::LOST), Some(sent));
        self.phase(acked, ASKED, None);
        let lost = sent + self.told.srtt_ns;
        if lost < acked {
            self.truth(lost.max(out), Cause::NetRetransmit);
        }
        self.truth(acked, Cause::NetPeer);
    }

    fn arrives_here(&mut self, sent: Ns, [arrived, acked]: [Ns; 2]) {
        let unacked = UNACKED.with(HERE);
        self.phase(sent, unacked, Some(sent));
        self.phase(arrived, unacked.with(NetState::ARRIVED), Some(sent));
        self.phase(acked, HERE, None);
        self.truth(arrived, Cause::NetPeer);
    }

    fn lost_in(&mut self, sent: Ns, [arrived, first, again]: [Ns; 3]) {
        let unacked = UNACKED.with(HERE);
        self.phase(sent, unacked, Some(sent));
        self.phase(arrived, HERE, None);
        self.phase(again, HERE.with(NetState::PEER_LOST), Some(first));
        self.truth(arrived, Cause::NetPeer);
        let lost = first + self.told.srtt_ns;
        self.truth(lost, Cause::NetRetransmit);
    }

    fn held_back(&mut self, sent: Ns, [let_go, acked]: [Ns; 2]) {
        let held = UNACKED.with(NetState::UNSENT).with(NetState::NAGLE);
        self.phase(sent, held, Some(sent));
        self.phase(let_go, UNACKED, Some(let_go));
        self.phase(acked, ASKED, None);
        self.truth = vec![(self.truth[0].0, Cause::NetNagle)];
        self.truth(let_go, Cause::NetAck);
        self.truth(acked, Cause::NetPeer);
    }

    fn waits_for_work(&mut self, before: Ns, answered: bool) {
        self.told.accepted = true;
        let state = if answered { ASKED } else { NetState::default() };
        self.phase(before, state, None);
        self.truth = vec![(self.truth[0].0, Cause::NetIdle)];
    }

    fn has_a_hole(&mut self, sent: Ns, [acked, beyond]: [Ns; 2], answered: Ns) {
        self.phase(sent, UNACKED, Some(sent));
        self.phase(acked, ASKED, None);
        self.phase(beyond, ASKED.with(NetState::GAP), Some(beyond));
        self.truth(acked, Cause::NetPeer);
        if beyond < answered {
            self.truth(beyond, Cause::NetRetransmit);
        }
    }

    fn dropped_here(&mut self, dropped: Ns, [sent, acked]: [Ns; 2]) {
        let unsent = UNACKED.with(NetState::UNSENT);
        self.phase(dropped, unsent.with(NetState::DROPPED), Some(dropped));
        self.phase(sent, UNACKED, Some(sent));
        self.phase(acked, ASKED, None);
        self.truth = vec![(self.truth[0].0, Cause::NetRetransmit)];
        self.truth(sent, Cause::NetAck);
        self.truth(acked, Cause::NetPeer);
    }
}
