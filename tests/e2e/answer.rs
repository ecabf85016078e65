// SPDX-License-Identifier: Apache-2.0
//! The agent's answer about one known wait: fetched, held against the contract's identities, read.
//!
//! Here is the one measure of right that the tests of known waits share.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::agent::Agent;
use crate::truth::TrueWait;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// The complete answer about a wait's span.
pub(crate) fn explanation(agent: &Agent, wait: &TrueWait) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = agent.explanation(&wait.trace_id, &wait.span_id) {
            return answer;
        }
        let tail = || agent.tail();
        assert!(
            Instant::now() < deadline,
            "{wait:?} is not explained:\n{}",
            tail()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// The identities of contract.md: nothing is lost and nothing counted twice.
pub(crate) fn assert_sums(answer: &Value) {
    let sum = |list: &str| -> u64 {
        let causes = answer[list].as_array().expect("a list of causes");
        causes.iter().filter_map(|cause| cause["ns"].as_u64()).sum()
    };
    assert_eq!(
        Some(sum("causes")),
        answer["gap_ns"].as_u64(),
        "the gap adds up: {answer}"
    );
    assert_eq!(
        Some(sum("span_causes")),
        answer["wall_ns"].as_u64(),
        "the span adds up: {answer}"
    );
}

/// What an answer says of a cause in the whole span.
pub(crate) fn cause<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    answer["span_causes"]
        .as_array()?
        .iter()
        .find(|cause| cause["cause"] == name)
}

/// How long it says that was; 0 where it says nothing.
pub(crate) fn cause_ns(answer: &Value, name: &str) -> u64 {
    cause(answer, name)
        .and_then(|cause| cause["ns"].as_u64())
        .unwrap_or(0)
}

/// Within 1 % or 1 ms, whichever is larger; more by no more than what the truth does not cover.
pub(crate) fn near(answer_ns: u64, truth_ns: u64, outside_ns: u64) -> bool {
    let slack_ns = (truth_ns / 100).max(1_000_000);
    answer_ns + slack_ns >= truth_ns && answer_ns <= truth_ns + slack_ns + outside_ns
}
