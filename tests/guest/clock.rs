// SPDX-License-Identifier: Apache-2.0
//! A wall clock that is set while spans are under way: no thread is claimed for a span that straddles it,
//! and what comes after is right again.

use std::process::Command;

use lacuna_host::clock::monotonic_ns;
use serde_json::Value;

use crate::agent::Agent;
use crate::machine::Machine;
use crate::machine::output;
use crate::otlp::now_unix_ns;
use crate::pool;
use crate::pool::Pool;

const SECOND_NS: i64 = 1_000_000_000;

/// The wall clock, which shows again what it would have shown when this is dropped.
struct WallClock {
    offset_ns: i128,
}

impl WallClock {
    fn now() -> WallClock {
        WallClock {
            offset_ns: offset_ns(),
        }
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        let to = i128::from(monotonic_ns()) + self.offset_ns;
        let (seconds, rest) = (to / 1_000_000_000, to % 1_000_000_000);
        let mut date = Command::new("date");
        date.args(["-s", &format!("@{seconds}.{rest:09}")]);
        output(date);
    }
}

/// What the wall clock shows beyond the one that nobody sets.
fn offset_ns() -> i128 {
    i128::from(now_unix_ns()) - i128::from(monotonic_ns())
}

/// Nobody is named, all of it is unknown.
fn assert_refused(answer: &Value) {
    let how = answer["join"]["how"].as_str().expect("how");
    assert!(["process", "none"].contains(&how), "{answer:#}");
    assert_eq!(answer["join"]["tid"], 0, "{answer:#}");
    assert_eq!(answer["explained_ns"], 0, "{answer:#}");
    assert_eq!(answer["causes"][0]["cause"], "unknown", "{answer:#}");
    assert_eq!(answer["causes"][0]["ns"], answer["gap_ns"], "{answer:#}");
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_a_span_that_straddles_a_clock_step_is_refused() {
    let _machine = Machine::alone();
    let agent = Agent::start();
    let mut pool = Pool::of(pool::start(), &agent);
    let _as_it_was = WallClock::now();
    pool.serve_until_joined();

    // Forwards, which makes it an hour long and its answer no later; then backwards by less than the span
    // is long, so that its end is still behind its start.
    for by_ns in [3_600 * SECOND_NS, -SECOND_NS] {
        let before = offset_ns();
        let spans = pool.tell(&format!("step {by_ns}"));
        let stepped = offset_ns() - before;
        assert!(
            (stepped - i128::from(by_ns)).abs() < i128::from(SECOND_NS),
            "{stepped}"
        );
        let answers = pool.answers(&spans);
        assert_refused(&answers[0]);
        let length = spans[0]["end"].as_u64().zip(spans[0]["start"].as_u64());
        let length = length.map(|(end, start)| end - start);
        assert_eq!(answers[0]["wall_ns"].as_u64(), length);
        pool.serve_until_joined();
    }

    // Backwards by more than it is long: it ends before it starts, is not taken, and is counted.
    let refused = agent.count("/otlp/spans_refused/end-before-start");
    pool.tell(&format!("step {}", -1_800 * SECOND_NS));
    assert_eq!(
        agent.count("/otlp/spans_refused/end-before-start"),
        refused + 1
    );
    pool.serve_until_joined();
    agent.assert_well();
}
