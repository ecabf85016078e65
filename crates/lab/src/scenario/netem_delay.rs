// SPDX-License-Identifier: Apache-2.0
//! A long way, on which nothing is lost: 80 milliseconds there, and as many back. Some packets come twice, so
//! that the ends are told of what they had already.
//!
//! Truth: `payments`'s and `bank`'s clocks: a question is on its way until `bank` has it; from then on it is
//! the peer's turn, and the way back. That nothing was lost, `tc -s qdisc` says.

use anyhow::anyhow;

use crate::Expectation;
use crate::Must;
use crate::Row;
use crate::Scenario;
use crate::Stage;
use crate::Stop;
use crate::net::ATTEMPTS;
use crate::net::LATE_PARTS;
use crate::net::PORTS;
use crate::net::STANDS_STILL;
use crate::net::any_of;
use crate::net::disturb;
use crate::net::drops_of;
use crate::talk::Exchange;
use crate::talk::PARTS;
use crate::talk::Question;
use crate::talk::Talk;
use crate::talk::Told;
use crate::talk::Waits;
use crate::talk::Way;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "netem-delay",
    story: "the way is long, some packets come twice, and nothing is lost on it",
    play,
    parts: PARTS,
};

/// Questions in a request.
const TIMES: u32 = 6;

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let mut talk = Talk::start(stage, Way::Switched)?;
    let switch = talk.switch()?;
    let delay_ms = any_of(70..=90);
    let line = format!("delay {delay_ms}ms 5ms duplicate 30%");
    for port in PORTS {
        disturb(switch, port, &line)?;
    }
    // Both ends' kernel sides learn how long the way is now.
    talk.ask(Question {
        times: TIMES,
        ..Question::slow(Waits::Read, 0..=0)
    })?;
    talk.told()?;
    for waits in [Waits::Read, Waits::Epoll] {
        let told = ask(&mut talk, waits, delay_ms * 1_000_000)?;
        for port in PORTS {
            if drops_of(switch, port)? > 0 {
                return Err(Stop::Failed(anyhow!("the queue has dropped something")));
            }
        }
        find(stage, &talk, told)?;
    }
    Ok(())
}

/// Asks until the ways take about as long as `netem` has them take, each that long.
fn ask(talk: &mut Talk<'_>, waits: Waits, delay_ns: u64) -> Result<Told, Stop> {
    for _ in 0..ATTEMPTS {
        talk.ask(Question {
            times: TIMES,
            ..Question::slow(waits, 20..=60)
        })?;
        let told = talk.told()?;
        let [out_ns, _, back_ns] = sums(&told);
        let late_ns = (out_ns + back_ns).saturating_sub(2 * u64::from(TIMES) * delay_ns);
        if late_ns <= back_ns / LATE_PARTS {
            return Ok(told);
        }
    }
    Err(Stop::Failed(anyhow!(STANDS_STILL)))
}

fn find(stage: &Stage<'_>, talk: &Talk<'_>, told: Told) -> Result<(), Stop> {
    let [out_ns, bank_ns, back_ns] = sums(&told);
    let [out_ns, peer_ns] = told.waited([out_ns, bank_ns + back_ns]);
    let clocks = "payments's and bank's clocks";
    let peer = Row::of_gap(&["net.peer"], peer_ns, clocks)
        .must(talk.blamed())
        .must(talk.evidence("peer-on-this-host"));
    let lost = Row::of_gap(&["net.retransmit"], 0, "tc -s qdisc").must(Must::Nothing);
    let [cpu, queued] = told.own_rows();
    stage.must_find(&Expectation {
        rows: vec![
            peer,
            Row::of_gap(&["net.ack"], out_ns, clocks).must(talk.blamed()),
            lost,
            cpu,
            queued,
        ],
        trace_id: told.span.trace_id,
        span_id: told.span.span_id,
        tid: told.span.tid,
    })
}

/// How long the questions of a request, `bank` and the answers took.
fn sums(told: &Told) -> [u64; 3] {
    let all = told.exchanges.iter().map(Exchange::stretches_ns);
    all.fold([0; 3], |sums, one| {
        std::array::from_fn(|n| sums[n] + one[n])
    })
}
