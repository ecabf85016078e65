// SPDX-License-Identifier: Apache-2.0
//! "The network was slow", they said. It was the destination, and the network must not be blamed.
//!
//! `bank` sleeps over a question and then computes a little. Nothing is lost and nothing is delayed
//! between the two.
//!
//! Truth: `bank`'s own clock, from the moment that a question had come to the moment that it is
//! answered. (It had come before `bank` had a CPU to take it: `schedstat` says how long before.)

use anyhow::Context;
use anyhow::anyhow;

use crate::Expectation;
use crate::Place;
use crate::Row;
use crate::Scenario;
use crate::Stage;
use crate::Stop;
use crate::net::ATTEMPTS;
use crate::net::STANDS_STILL;
use crate::net::any_of;
use crate::talk::PARTS;
use crate::talk::Question;
use crate::talk::Talk;
use crate::talk::Told;
use crate::talk::Waits;
use crate::talk::Way;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "peer-slow",
    story: "the peer takes its time, and the network is not to blame",
    play,
    parts: PARTS,
};

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let mut talk = Talk::start(stage, Way::Cable)?;
    for waits in [Waits::Read, Waits::Epoll] {
        let (told, [slept_ns, computed_ns]) = ask(&mut talk, waits)?;
        let clock = "bank's clock, schedstat";
        let peer = Row::of_gap(&["net.peer"], slept_ns + computed_ns, clock)
            .must(talk.blamed())
            .must(talk.evidence("peer-on-this-host"));
        let of_bank = Row {
            place: Place::Chain {
                of: "net.peer",
                tid: talk.bank.pid(),
                how: "woke",
            },
            ..Row::of_gap(&["wait.sleep"], slept_ns, clock)
        };
        let [cpu, queued] = told.own_rows();
        stage.must_find(&Expectation {
            rows: vec![peer, of_bank, cpu, queued],
            trace_id: told.span.trace_id,
            span_id: told.span.span_id,
            tid: told.span.tid,
        })?;
    }
    Ok(())
}

/// Asks until `bank` has slept for the most of it, also where others take the CPU from it while it computes:
/// how long it slept, and how long it took besides.
fn ask(talk: &mut Talk<'_>, waits: Waits) -> Result<(Told, [u64; 2]), Stop> {
    for _ in 0..ATTEMPTS {
        talk.ask(Question {
            work_ns: any_of(1..=5) * 1_000_000,
            ..Question::slow(waits, 300..=600)
        })?;
        let told = talk.told()?;
        let exchange = told.exchanges.first().context("nothing was asked")?;
        let bank_ns = exchange.answered_ns.saturating_sub(exchange.heard_ns);
        let computed_ns = bank_ns.saturating_sub(exchange.slept_ns);
        let [slept_ns, computed_ns] = told.waited([exchange.slept_ns, computed_ns]);
        if slept_ns > computed_ns {
            return Ok((told, [slept_ns, computed_ns]));
        }
    }
    Err(Stop::Failed(anyhow!(STANDS_STILL)))
}
