// SPDX-License-Identifier: Apache-2.0
//! The same loss on the way back: who waits has lost nothing, and cannot know.
//!
//! An answer is lost on the way, and so is the first copy of it. Where the other end is on this host and can be told by
//! its addresses, its kernel side knows. Where a router translates the addresses, nobody does: then
//! it is the peer, or the way back.
//!
//! Truth: the notes of the wire that lost it, `bank`'s own clock before it answered, and the smoothed
//! round trip that `bank`'s kernel side had then (`TCP_INFO`).

use anyhow::Context;

use crate::Expectation;
use crate::Row;
use crate::Scenario;
use crate::Stage;
use crate::Stop;
use crate::net::any_of;
use crate::talk::PARTS;
use crate::talk::Question;
use crate::talk::Talk;
use crate::talk::Waits;
use crate::talk::Way;
use crate::wire::End;
use crate::wire::Order;
use crate::wire::acknowledged_ns;
use crate::wire::loss;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "tcp-rto-response",
    story: "the answer is lost on its way: by a peer that can be seen, and by one that cannot",
    play,
    parts: PARTS,
};

/// Copies of an answer that are lost.
const COPIES: u32 = 2;

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    for is_hidden in [false, true] {
        let way = Way::Wire {
            delay_us: any_of(500..=4_000),
            is_hidden,
        };
        let mut talk = Talk::start(stage, way)?;
        for waits in [Waits::Read, Waits::Epoll] {
            lose_answer(stage, &mut talk, waits, is_hidden)?;
        }
    }
    Ok(())
}

fn lose_answer(
    stage: &Stage<'_>,
    talk: &mut Talk<'_>,
    waits: Waits,
    is_hidden: bool,
) -> Result<(), Stop> {
    // Longer than a delayed acknowledgement takes: else the answer is the acknowledgement, and with it
    // that is lost too.
    let question = Question::slow(waits, 100..=150);
    let (from, copies) = (End::Answerer, COPIES);
    talk.wire(&Order::Lose { from, copies })?;
    talk.settle(stage)?;
    let round_trip_ns = talk.round_trip_ns(from)?;
    talk.ask(question)?;
    let told = talk.told()?;
    let notes = talk.wire(&Order::Tell)?;
    let exchange = told.exchanges.first().context("nothing was asked")?;
    let lost = loss(&notes, from, COPIES).context("the wire did not lose the answer")?;
    let passed = loss(&notes, End::Asker, 0).context("no question passed the wire")?;
    let asked_ns = exchange.asked_ns;
    let rows = if is_hidden {
        let known_ns = acknowledged_ns(&notes, End::Asker, passed.end)
            .filter(|&known_ns| known_ns < exchange.answered_ns)
            .context("the question was not acknowledged before its answer")?;
        let peer_ns = lost.arrived_ns.saturating_sub(known_ns);
        let [ack_ns, peer_ns] = told.waited([known_ns.saturating_sub(asked_ns), peer_ns]);
        vec![
            peer_row(peer_ns)
                .must(talk.blamed())
                .must(talk.evidence("peer-or-way-back")),
            ack_row(ack_ns),
        ]
    } else {
        let lost_ns = exchange.answered_ns + round_trip_ns;
        let [ack_ns, peer_ns, retransmit_ns] = told.waited([
            passed.arrived_ns.saturating_sub(asked_ns),
            lost_ns.saturating_sub(passed.arrived_ns),
            lost.arrived_ns.saturating_sub(lost_ns),
        ]);
        vec![
            Row::of_gap(
                &["net.retransmit"],
                retransmit_ns,
                "the wire's notes, TCP_INFO",
            )
            .must(talk.blamed())
            .must(talk.evidence("lost-in")),
            peer_row(peer_ns),
            ack_row(ack_ns),
        ]
    };
    let rows = rows.into_iter().chain(told.own_rows()).collect();
    stage.must_find(&Expectation {
        rows,
        trace_id: told.span.trace_id,
        span_id: told.span.span_id,
        tid: told.span.tid,
    })
}

fn peer_row(truth_ns: u64) -> Row {
    Row::of_gap(&["net.peer"], truth_ns, "the wire's notes, bank's clock")
}

fn ack_row(truth_ns: u64) -> Row {
    Row::of_gap(&["net.ack"], truth_ns, "the wire's notes")
}
