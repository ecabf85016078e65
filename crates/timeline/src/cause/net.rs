// SPDX-License-Identifier: Apache-2.0
//! The one place where a phase of a TCP connection becomes a cause.
//!
//! A wait for a connection is cut wherever what held of it changed, and each piece is given what was
//! in the way then: what had been lost, what was held back, bytes on the way, the other end, or
//! nobody. Nothing here knows windows or records; instants that contradict each other give a wrong
//! piece at most, never a gap, an overlap or a panic.

use std::ops::Range;

use super::Cause;
use crate::event::Asked;
use crate::event::Connection;
use crate::event::NetState;
use crate::event::Ns;
use crate::event::Phase;
use crate::event::Retransmits;
use crate::event::ThreadId;

/// What a thread waited for on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Awaited {
    /// Something to read, or room for what it wrote.
    pub asked: Asked,
    /// In a call that looks at descriptors and neither reads nor writes.
    pub polled: bool,
}

/// More of a piece than its cause says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Aspect {
    /// What we sent was lost.
    LostOut,
    /// This host dropped what we sent.
    DroppedOut,
    /// What the other end sent was lost.
    LostIn,
    /// This host dropped what the other end sent, which is here too.
    DroppedIn,
    /// The peer's receive window was closed.
    Window,
    /// The congestion window was full.
    Congestion,
    /// The program itself had asked for a small segment to be held back.
    Corked,
    /// Neither window was: pacing, or a send buffer smaller than what may be in flight.
    Pacing,
    /// The other end is on this host.
    PeerHere,
    /// It is not, as far as this host can see: the peer, or the way back.
    PeerElsewhere,
    /// It is, and spoke last, to the end that called `connect`: the rest of its answer, the answer to another
    /// request on the same connection, or something that nobody asked for; TCP does not say which.
    SpokeHere,
    /// The same where it is not on this host, as far as this host can see.
    SpokeElsewhere,
    /// What the connection was like then is not known.
    NotKnown,
}

impl Aspect {
    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Aspect::LostOut => "lost-out",
            Aspect::DroppedOut => "dropped-here-out",
            Aspect::LostIn => "lost-in",
            Aspect::DroppedIn => "dropped-here-in",
            Aspect::Window => "peer-window",
            Aspect::Congestion => "congestion-window",
            Aspect::Corked => "corked",
            Aspect::Pacing => "pacing-or-buffer",
            Aspect::PeerHere => "peer-on-this-host",
            Aspect::PeerElsewhere => "peer-or-way-back",
            Aspect::SpokeHere => "peer-spoke-last",
            Aspect::SpokeElsewhere => "peer-spoke-last-or-way-back",
            Aspect::NotKnown => "connection-state-not-known",
        }
    }
}

impl Awaited {
    /// The cause where nothing is known of the connection.
    pub fn unseen(self) -> Cause {
        match self.asked {
            _ if self.polled => Cause::WaitPoll,
            Asked::Output => Cause::NetSend,
            Asked::Input | Asked::Either | Asked::Connect => Cause::WaitOther,
        }
    }
}

/// A part of a wait.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) range: Range<Ns>,
    pub(crate) cause: Cause,
    pub(crate) aspect: Option<Aspect>,
}

/// Cuts a blocked stretch, from switch-out to waking, into pieces that follow each other.
pub(crate) fn pieces(
    seen: &Connection,
    waiter: ThreadId,
    awaited: Awaited,
    blocked: &Range<Ns>,
) -> Vec<Piece> {
    let view = View::new(seen, waiter, awaited, blocked);
    let judged = blocked.start..view.arrival(blocked.end);
    let mut cuts = view.cuts();
    cuts.retain(|at| judged.contains(at));
    cuts.push(blocked.start);
    cuts.sort_unstable();
    cuts.dedup();
    let mut pieces: Vec<Piece> = Vec::with_capacity(cuts.len());
    for (place, &start) in cuts.iter().enumerate() {
        let end = cuts.get(place + 1).copied().unwrap_or(blocked.end);
        let (cause, aspect) = view.at(start);
        match pieces.last_mut() {
            Some(last) if (last.cause, last.aspect) == (cause, aspect) => last.range.end = end,
            _ => pieces.push(Piece {
                range: start..end,
                cause,
                aspect,
            }),
        }
    }
    pieces
}

/// A wait that is ended by an arrival is woken within this time of it; later than this, the arrival
/// was not what was waited for.
const WAKE_LAG_NS_MAX: Ns = 1_000_000;

/// Losses, in the order in which they are looked for, and whether one is known only when what was
/// lost is sent again: then it began one smoothed round trip after that was first sent.
const LOSSES: [(NetState, bool, Aspect); 5] = [
    (NetState::PEER_DROPPED, false, Aspect::DroppedIn),
    (NetState::PEER_LOST, true, Aspect::LostIn),
    (NetState::GAP, false, Aspect::LostIn),
    (NetState::DROPPED, false, Aspect::DroppedOut),
    (NetState::LOST, true, Aspect::LostOut),
];

/// What we sent, and is lost.
const LOST_OUT: NetState = NetState::LOST.with(NetState::DROPPED);

/// Whether what a bit speaks of has arrived. A segment that was sent again and arrived had only its
/// acknowledgement late. What was dropped here was never sent as the kernel counts, so all that was
/// *sent* may have arrived while it has not.
fn has_arrived(state: NetState, bit: NetState) -> bool {
    let all = bit == NetState::LOST || !state.has(NetState::UNSENT);
    all && state.has(NetState::ARRIVED)
}

/// A wait for a connection, looked at.
struct View<'c> {
    seen: &'c Connection,
    awaited: Awaited,
    /// When the wait began.
    from: Ns,
    /// Another thread waited for it last.
    shared: bool,
}

impl<'c> View<'c> {
    fn new(
        seen: &'c Connection,
        waiter: ThreadId,
        awaited: Awaited,
        blocked: &Range<Ns>,
    ) -> View<'c> {
        let mut view = View {
            seen,
            awaited,
            from: blocked.start,
            shared: seen.reader.is_some_and(|reader| reader != waiter),
        };
        // Of the two that were asked for it was input where that arrived at the end.
        if awaited.asked == Asked::Either && view.arrival(blocked.end) < blocked.end {
            view.awaited.asked = Asked::Input;
        }
        view
    }

    fn phases(&self) -> &[Phase] {
        &self.seen.phases
    }

    /// When what ended the wait arrived, or its end where nothing did: the way from there to the waking
    /// belongs to what was waited for.
    fn arrival(&self, end: Ns) -> Ns {
        let last = self.phases().iter().rev().find(|phase| phase.at <= end);
        let ended_by = last.filter(|phase| {
            let in_time = phase.at > self.from && end - phase.at <= WAKE_LAG_NS_MAX;
            in_time && phase.state.has(NetState::HEARD)
        });
        ended_by.map_or(end, |phase| phase.at)
    }

    /// Every instant at which the answer may change.
    fn cuts(&self) -> Vec<Ns> {
        let mut cuts: Vec<Ns> = self.phases().iter().map(|phase| phase.at).collect();
        for place in 0..self.phases().len() {
            for (bit, resent, _) in LOSSES {
                cuts.extend(self.began(place, bit).map(|at| self.noticeable(at, resent)));
            }
            cuts.push(self.least_arrival(place));
        }
        cuts
    }

    /// The cause at an instant, and what more there is to say.
    fn at(&self, at: Ns) -> (Cause, Option<Aspect>) {
        let later = self.phases().partition_point(|phase| phase.at <= at);
        let place = later.checked_sub(1);
        let lost = LOSSES
            .into_iter()
            .find(|&(bit, resent, _)| self.is_lost(place, at, bit, resent));
        if let Some((_, _, aspect)) = lost {
            return (Cause::NetRetransmit, Some(aspect));
        }
        let proved = place.filter(|&place| self.is_proved(place));
        match (proved, self.awaited.asked) {
            (Some(place), Asked::Input) => self.receiving(place, at),
            (Some(place), Asked::Output) => self.sending(place),
            // Which of the two ended the wait is not known.
            (Some(_), Asked::Either | Asked::Connect) | (None, _) => {
                (self.awaited.unseen(), Some(Aspect::NotKnown))
            }
        }
    }

    /// Whether what a phase says is so up to the next one.
    fn is_proved(&self, place: usize) -> bool {
        let next = self.phases().get(place + 1);
        let is_late = next.is_some_and(|next| next.state.has(NetState::LATE));
        !is_late && !self.phases()[place].state.has(NetState::UNFOLLOWED)
    }

    /// Whether bytes were written in a phase that says that all had arrived, nobody saw when.
    fn is_joined(&self, place: usize) -> bool {
        let next = self.phases().get(place + 1);
        next.is_some_and(|next| next.state.has(NetState::JOINED))
    }

    /// Whether a loss is known to hold: by the phase that the instant lies in, or by a later one that
    /// says since when.
    fn is_lost(&self, place: Option<usize>, at: Ns, bit: NetState, resent: bool) -> bool {
        let proved = place.filter(|&place| self.is_proved(place));
        let now = proved.map(|place| self.phases()[place].state);
        let outwards = LOST_OUT.has(bit);
        let all_seen = place.is_none_or(|place| !self.is_joined(place));
        if outwards && all_seen && now.is_some_and(|now| has_arrived(now, bit)) {
            return false;
        }
        // A probe asks after an acknowledgement that is late; of a peer that takes no more, that says
        // nothing yet.
        let unread = now.is_some_and(|now| now.has(NetState::WINDOW));
        if bit == NetState::LOST && unread && self.is_only_probed() {
            return false;
        }
        let holds_now = now.is_some_and(|now| now.has(bit));
        let may_hold = now.is_none_or(|now| !outwards || now.has(NetState::UNACKED));
        // Of a phase that proves nothing, only later ones tell.
        let first = proved.or(place.map(|place| place + 1)).unwrap_or(0);
        let phases = self.phases().iter().enumerate().skip(first);
        let mut known = phases.filter(|(_, phase)| phase.state.has(bit));
        known.any(|(told, _)| match self.began(told, bit) {
            Some(began) => (holds_now || may_hold) && self.noticeable(began, resent) <= at,
            None => holds_now && Some(told) == place,
        })
    }

    /// What was sent again in this wait were probes at most.
    fn is_only_probed(&self) -> bool {
        let Retransmits { timeouts, fast, .. } = self.seen.retransmits;
        timeouts == 0 && fast == 0
    }

    /// Since when what a bit says is so, as of a phase that has the bit; by the latest phase that says so.
    fn began(&self, place: usize, bit: NetState) -> Option<Ns> {
        let until = self.phases()[..=place].iter().rev();
        let mut same = until.take_while(|phase| phase.state.has(bit));
        same.find(|phase| phase.state.since_bit() == Some(bit))?
            .since
    }

    /// From when on something that began then is loss.
    fn noticeable(&self, began: Ns, resent: bool) -> Ns {
        let delay = if resent { self.seen.srtt_ns } else { 0 };
        began.saturating_add(delay)
    }

    /// Waiting for room.
    fn sending(&self, place: usize) -> (Cause, Option<Aspect>) {
        let state = self.phases()[place].state;
        // Nothing stands in the way of it, so it is not known what is waited for.
        if !state.has(NetState::UNACKED.with(NetState::UNSENT)) {
            return (self.awaited.unseen(), Some(Aspect::NotKnown));
        }
        let aspect = if state.has(NetState::WINDOW) {
            Aspect::Window
        } else if state.has(NetState::CWND) {
            Aspect::Congestion
        } else {
            Aspect::Pacing
        };
        (Cause::NetSend, Some(aspect))
    }

    /// Waiting for something to read.
    fn receiving(&self, place: usize, at: Ns) -> (Cause, Option<Aspect>) {
        let state = self.phases()[place].state;
        let unsent = state.has(NetState::UNSENT);
        if state.has(NetState::NAGLE) {
            return (Cause::NetNagle, None);
        }
        if state.has(NetState::CORKED) {
            return (Cause::NetNagle, Some(Aspect::Corked));
        }
        // The peer does not even take what it is to answer.
        if unsent && state.has(NetState::WINDOW) {
            return (Cause::NetSend, Some(Aspect::Window));
        }
        if self.is_joined(place) {
            return (self.awaited.unseen(), Some(Aspect::NotKnown));
        }
        let under_way = state.has(NetState::UNACKED) && !has_arrived(state, NetState::UNACKED);
        if under_way && !(self.is_answered(place) && at >= self.least_arrival(place)) {
            return (Cause::NetAck, None);
        }
        let turn = self.turn(place);
        if !self.peer_owes(turn) {
            return (Cause::NetIdle, None);
        }
        let spoke_last = turn.has(NetState::HEARD) && !self.seen.accepted;
        let aspect = match (state.has(NetState::HERE), spoke_last) {
            (true, false) => Aspect::PeerHere,
            (false, false) => Aspect::PeerElsewhere,
            (true, true) => Aspect::SpokeHere,
            (false, true) => Aspect::SpokeElsewhere,
        };
        (Cause::NetPeer, Some(aspect))
    }

    /// What is under way is acknowledged by the answer itself and nothing of it was lost, so how long it
    /// was under way is not known, only how long at least. (An end on this host says when it arrived.)
    fn is_answered(&self, place: usize) -> bool {
        let mut before = self.phases()[place].state;
        for phase in &self.phases()[place + 1..] {
            if before.has(LOST_OUT) || has_arrived(phase.state, NetState::UNACKED) {
                return false;
            }
            if !phase.state.has(NetState::UNACKED) {
                return phase.state.has(NetState::HEARD) && !before.has(NetState::HEARD);
            }
            before = phase.state;
        }
        false
    }

    /// Before this instant what is under way in a phase cannot have been acknowledged.
    fn least_arrival(&self, place: usize) -> Ns {
        let sent = self.began(place, NetState::UNACKED);
        let sent = sent.unwrap_or(self.phases()[place].at.max(self.from));
        sent.saturating_add(self.seen.rtt_min_ns)
    }

    /// What says whose turn it is.
    fn turn(&self, place: usize) -> NetState {
        // What arrived in this very wait and did not end it was not all.
        let arrived = |phase: &&Phase| phase.at > self.from && phase.state.has(NetState::HEARD);
        let since = self.phases()[..=place].iter().rev().take_while(arrived);
        let turn = place.saturating_sub(since.count());
        self.phases()[turn].state
    }

    /// Whether it is the other end's turn. The end that called `connect` asks, the other one answers; where
    /// an answer ends only the two know, so whoever connected and waits, waits for the other one.
    fn peer_owes(&self, turn: NetState) -> bool {
        // Whoever looks after several connections does not wait for what another thread works on.
        !self.seen.accepted || (turn.has(NetState::HEARD) && !(self.shared && self.awaited.polled))
    }
}

#[cfg(test)]
mod tests;
