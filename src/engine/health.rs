// SPDX-License-Identifier: Apache-2.0
//! Counts of what the agent did and could not do: nothing is lost without being counted here.
//!
//! `/healthz` shows them. Keys are added, never renamed.

use std::collections::BTreeMap;

use lacuna_probes::Counters;
use lacuna_timeline::join::Claim;
use lacuna_timeline::recorder::Stats;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::otlp::OtlpCounters;
use crate::otlp::Outcome;
use crate::otlp::Refusal;
use crate::otlp::Transport;

use super::spans::Counted;
use super::spans::SpanCounts;

/// What the explainer counts, by fixed words.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// Spans answered for the first time.
    pub(super) answered: u64,
    /// Those by how their thread was found.
    pub(super) joins: BTreeMap<&'static str, u64>,
    /// Those without a thread by why.
    pub(super) unjoined: BTreeMap<&'static str, u64>,
    /// Spans whose process is not known, by why.
    pub(super) unknown_processes: BTreeMap<&'static str, u64>,
    /// Spans that claimed a thread which the records contradict.
    pub(super) claims_refused: u64,
    /// How often a process was to be watched that there was no room for.
    pub(super) unwatched: u64,
}

impl Tally {
    /// Counts a span's answer; `before` is as what it was counted before, where it was.
    pub(super) fn count(&mut self, before: Option<&Counted>, now: &Counted) {
        if let Some(before) = before {
            self.add(before, -1);
        } else {
            self.answered += 1;
            self.claims_refused += u64::from(now.joined.claim == Claim::Refused);
        }
        self.add(now, 1);
    }

    fn add(&mut self, counted: &Counted, change: i64) {
        let Counted { joined, doubt } = counted;
        let unjoined = joined.thread.is_none().then_some(joined.why.name());
        let words = [
            (&mut self.joins, Some(joined.how.name())),
            (&mut self.unjoined, unjoined),
            (&mut self.unknown_processes, *doubt),
        ];
        for (counts, word) in words {
            if let Some(word) = word {
                let count = counts.entry(word).or_default();
                *count = count.saturating_add_signed(change);
            }
        }
    }
}

/// Everything that is counted, as JSON.
pub(super) fn report(
    tally: &Tally,
    spans: SpanCounts,
    recorder: &Stats,
    otlp: &OtlpCounters,
    kernel: &Counters,
    violations: u64,
) -> Value {
    json!({
        "status": "ok",
        "lost_records": kernel.ring_drops,
        "violations": violations,
        "spans": {
            "received": spans.received,
            "repeated": spans.repeated,
            "dropped": spans.dropped,
            "dropped_unanswered": spans.dropped_pending,
            "answered": tally.answered,
        },
        "joins": tally.joins,
        "unjoined": tally.unjoined,
        "unknown_processes": tally.unknown_processes,
        "claims_refused": tally.claims_refused,
        "unwatched": tally.unwatched,
        "recorder": {
            "bytes": recorder.bytes,
            "threads": recorder.threads,
            "records": recorder.records,
            "segments": recorder.segments,
            "records_in": recorder.records_in,
            "evicted": recorder.evicted,
            "lost": recorder.lost,
            "late": recorder.late,
            "malformed": recorder.malformed,
            "threads_forgotten": recorder.threads_forgotten,
            "facts_dropped": recorder.facts_dropped,
        },
        "kernel": {
            "storage_failures": kernel.storage_failures,
            "switches_skipped": kernel.switches_skipped,
            "programs_skipped": kernel.programs_skipped,
            "unknown_records": kernel.unknown_records,
            "detours_lost": kernel.detours_lost,
            "connections_lost": kernel.connections_lost,
        },
        "otlp": otlp_report(otlp),
    })
}

fn otlp_report(otlp: &OtlpCounters) -> Value {
    let requests: BTreeMap<&str, BTreeMap<&str, u64>> = Transport::ALL
        .into_iter()
        .map(|transport| {
            let outcomes = Outcome::ALL
                .into_iter()
                .map(|outcome| (outcome.name(), otlp.requests(transport, outcome)));
            (transport.name(), outcomes.collect())
        })
        .collect();
    let refused: BTreeMap<&str, u64> = Refusal::ALL
        .into_iter()
        .map(|reason| (reason.name(), otlp.spans_refused(reason)))
        .collect();
    json!({
        "requests": requests,
        "spans_received": otlp.spans_received(),
        "spans_accepted": otlp.spans_accepted(),
        "spans_refused": refused,
        "spans_dropped": otlp.spans_dropped(),
    })
}

#[cfg(test)]
mod tests {
    use super::Counters;
    use super::OtlpCounters;
    use super::Tally;
    use super::report;
    use crate::engine::spans::SpanCounts;
    use lacuna_timeline::recorder::Stats;

    #[test]
    fn what_the_kernel_side_could_not_tell_is_shown() {
        let kernel = Counters {
            ring_drops: 1,
            storage_failures: 2,
            switches_skipped: 3,
            programs_skipped: 4,
            unknown_records: 5,
            detours_lost: 6,
            connections_lost: 7,
            ..Counters::default()
        };
        let (tally, spans) = (Tally::default(), SpanCounts::default());
        let (recorder, otlp) = (Stats::default(), OtlpCounters::default());
        let report = report(&tally, spans, &recorder, &otlp, &kernel, 0);
        assert_eq!(report["lost_records"], 1);
        let shown = report["kernel"].as_object().expect("an object").values();
        assert_eq!(shown.filter_map(|count| count.as_u64()).sum::<u64>(), 27);
    }
}
