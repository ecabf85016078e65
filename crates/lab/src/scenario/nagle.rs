// SPDX-License-Identifier: Apache-2.0
//! Write, write, read, without `TCP_NODELAY`: 40 milliseconds each time.
//!
//! The second part of a question is small, so it is held back until the first is acknowledged, and the peer
//! delays its acknowledgement, because it has nothing to answer yet.
//!
//! Truth: from `payments`'s own clock before it wrote the second part to where the wire between the
//! two passed the acknowledgement on.

use anyhow::anyhow;

use crate::Expectation;
use crate::Row;
use crate::Scenario;
use crate::Stage;
use crate::Stop;
use crate::net::ATTEMPTS;
use crate::net::STANDS_STILL;
use crate::talk::Exchange;
use crate::talk::PARTS;
use crate::talk::Question;
use crate::talk::Talk;
use crate::talk::Told;
use crate::talk::Waits;
use crate::talk::Way;
use crate::wire::End;
use crate::wire::Order;
use crate::wire::Segment;
use crate::wire::acknowledged_ns;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "nagle",
    story: "write, write, read without TCP_NODELAY, and a peer that delays its acknowledgements",
    play,
    parts: PARTS,
};

/// Questions in a request.
const TIMES: u32 = 5;

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let way = Way::Wire {
        delay_us: 500,
        is_hidden: false,
    };
    let mut talk = Talk::start(stage, way)?;
    for waits in [Waits::Read, Waits::Epoll] {
        let (told, held_ns) = ask(&mut talk, waits)?;
        let [cpu, queued] = told.own_rows();
        let rest_ns = told.amounts.blocked_ns().saturating_sub(held_ns);
        stage.must_find(&Expectation {
            rows: vec![
                Row::of_gap(
                    &["net.nagle"],
                    held_ns,
                    "payments's clock, the wire's notes",
                )
                .must(talk.blamed()),
                Row::of_gap(&["net.ack", "net.peer"], rest_ns, "clock: the rest"),
                cpu,
                queued,
            ],
            trace_id: told.span.trace_id,
            span_id: told.span.span_id,
            tid: told.span.tid,
        })?;
    }
    Ok(())
}

/// Asks until no timer sent a second part that was held back, and it waited for nothing else half as long as for
/// those; how long they were.
fn ask(talk: &mut Talk<'_>, waits: Waits) -> Result<(Told, u64), Stop> {
    for _ in 0..ATTEMPTS {
        talk.wire(&Order::Lose {
            from: End::Asker,
            copies: 0,
        })?;
        talk.ask(Question {
            times: TIMES,
            in_two: true,
            ..Question::slow(waits, 0..=0)
        })?;
        let told = talk.told()?;
        let notes = talk.wire(&Order::Tell)?;
        let held_ns = held_ns(&notes, &told.exchanges);
        let blocked_ns = told.amounts.blocked_ns();
        if let Some(held_ns) = held_ns.filter(|&held_ns| 2 * blocked_ns <= 3 * held_ns) {
            return Ok((told, held_ns));
        }
    }
    Err(Stop::Failed(anyhow!(STANDS_STILL)))
}

/// How long the second part of each question was held back: until the first was acknowledged, not at all where
/// that was before it was written. `None` where one was sent before that.
fn held_ns(notes: &[Segment], exchanges: &[Exchange]) -> Option<u64> {
    let parts = notes.iter();
    let parts = parts.filter(|one| one.from == End::Asker && one.bytes > 0);
    let second: Vec<&Segment> = parts.skip(1).step_by(2).collect();
    let held = exchanges.iter().zip(second).map(|(exchange, second)| {
        let until_ns = acknowledged_ns(notes, End::Asker, second.first)?;
        let held_ns = until_ns.saturating_sub(exchange.asked_ns);
        (until_ns <= second.at_ns).then_some(held_ns)
    });
    held.sum()
}
