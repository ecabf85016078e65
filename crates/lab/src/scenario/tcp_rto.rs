// SPDX-License-Identifier: Apache-2.0
//! 1.2 seconds of retransmission timeouts, while the program sat in `epoll_wait`.
//!
//! A question is lost on the way, and so are the first copies of it. Once the service waits in a read
//! and once in `epoll_wait`.
//!
//! Truth: the notes of the wire that lost it, `payments`'s own clock before it wrote, and the
//! smoothed round trip that the kernel had then (`TCP_INFO`): a loss begins one round trip after the segment
//! was first sent, and ends where a copy arrives. `bank`'s own clock says what was its.

use anyhow::Context;
use lacuna_host::Root;
use lacuna_host::netstat::TcpTrouble;

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
use crate::wire::loss;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "tcp-rto",
    story: "the request is lost on its way, time and again, while the service sits in epoll_wait",
    play,
    parts: PARTS,
};

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let mut talk = Talk::start(
        stage,
        Way::Wire {
            delay_us: any_of(500..=4_000),
            is_hidden: false,
        },
    )?;
    lose_question(stage, &mut talk, Waits::Read, 1)?;
    lose_question(stage, &mut talk, Waits::Epoll, 3)
}

/// Loses so many copies of a question.
fn lose_question(
    stage: &Stage<'_>,
    talk: &mut Talk<'_>,
    waits: Waits,
    copies: u32,
) -> Result<(), Stop> {
    let (from, question) = (End::Asker, Question::slow(waits, 0..=60));
    talk.wire(&Order::Lose { from, copies })?;
    let round_trip_ns = talk.round_trip_ns(from)?;
    let timeouts_before = timeouts(talk.payments.pid())?;
    talk.ask(question)?;
    let told = talk.told()?;
    let timeouts = timeouts(talk.payments.pid())? - timeouts_before;
    let notes = talk.wire(&Order::Tell)?;
    let lost = loss(&notes, from, copies).context("the wire did not lose the question")?;
    let exchange = told.exchanges.first().context("nothing was asked")?;
    let loss_ns = lost
        .arrived_ns
        .saturating_sub(exchange.asked_ns + round_trip_ns);
    let answer = loss(&notes, End::Answerer, 0).context("no answer passed the wire")?;
    // Whatever was no timeout was the probe of a tail.
    let again = u64::from(lost.copies - 1);
    let probes = again.saturating_sub(timeouts);
    let counts = format!(r#"{{"fast":0,"probes":{probes},"timeouts":{timeouts}}}"#);
    let peer_ns = answer.arrived_ns.saturating_sub(lost.arrived_ns);
    let [ack_ns, loss_ns, peer_ns] = told.waited([round_trip_ns, loss_ns, peer_ns]);
    let retransmit = Row::of_gap(&["net.retransmit"], loss_ns, "the wire's notes, TCP_INFO")
        .must(talk.blamed())
        .must(talk.evidence("lost-out"))
        .must(talk.evidence(counts));
    let [cpu, queued] = told.own_rows();
    stage.must_find(&Expectation {
        rows: vec![
            retransmit,
            Row::of_gap(&["net.ack"], ack_ns, "TCP_INFO: round trip"),
            Row::of_gap(&["net.peer"], peer_ns, "the wire's notes"),
            cpu,
            queued,
        ],
        trace_id: told.span.trace_id,
        span_id: told.span.span_id,
        tid: told.span.tid,
    })
}

/// Retransmission timers that ran out in the network of a process.
fn timeouts(pid: u32) -> Result<u64, Stop> {
    let trouble =
        TcpTrouble::read(&Root::host(), pid).context("cannot read the counters of TCP")?;
    Ok(trouble
        .timeouts
        .context("this kernel does not count timeouts")?)
}
