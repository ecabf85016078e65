// SPDX-License-Identifier: Apache-2.0
//! Verdicts about an answer that is right, and about each way to be wrong.

use lacuna_lab::Expectation;
use lacuna_lab::Must;
use lacuna_lab::Place;
use lacuna_lab::Row;
use serde_json::Value;
use serde_json::json;

use super::Accuracy;
use super::Verdict;
use super::judge;

const MS: u64 = 1_000_000;

fn expected() -> Expectation {
    let queued = Row::of_gap(&["runq.wakeup", "runq.preempted"], 700 * MS, "schedstat");
    let lock = Row {
        causes: &["runq.preempted"],
        place: Place::Chain {
            of: "lock.futex",
            tid: 8,
            how: "held",
        },
        truth_ns: 90 * MS,
        truth_from: "the owner's schedstat",
        musts: Vec::new(),
    };
    let blame = |truth_ns| Must::Blame {
        name: "backup".to_owned(),
        truth_ns,
    };
    Expectation {
        trace_id: "1".repeat(32),
        span_id: "2".repeat(16),
        tid: 7,
        rows: vec![
            queued.must(blame(Some(640 * MS..=690 * MS))),
            Row::of_gap(&["lock.futex"], 100 * MS, "clock"),
            lock.must(blame(None)),
            Row::of_gap(&["cpu"], 195 * MS, "CPU clock")
                .must(Must::Evidence {
                    key: "object",
                    text: "ledger".to_owned(),
                })
                .must(Must::Within {
                    span: "report",
                    truth_ns: 120 * MS,
                }),
        ],
    }
}

fn cause(name: &str, ms: u64, culprits: &Value, chain: &Value) -> Value {
    let state = match name {
        "cpu" => "running_ns",
        _ if name.starts_with("runq") => "runnable_ns",
        _ => "blocked_ns",
    };
    let mut sums = json!({"running_ns": 0, "runnable_ns": 0, "blocked_ns": 0});
    sums[state] = json!(ms * MS);
    json!({
        "cause": name, "ns": ms * MS, "count": 1, "state": sums, "estimated_ns": 0,
        "culprits": culprits, "evidence": {"object": "the ledger"}, "chain": chain,
    })
}

fn within(name: &str, ms: u64) -> Value {
    let ids = ("3".repeat(32), "4".repeat(16));
    json!({"trace_id": ids.0, "span_id": ids.1, "name": name, "service": "x", "ns": ms * MS})
}

fn culprit(kind: &str, name: &str, ms: u64) -> Value {
    json!({"kind": kind, "name": name, "pid": 9, "tid": 9, "ns": ms * MS, "detail": ""})
}

/// A second: what was so, as an answer has it.
fn answer() -> Value {
    let blame = json!([
        culprit("thread", "backup", 330),
        culprit("thread", "kworker", 5),
        culprit("thread", "backup", 260),
        culprit("rest", "", 55),
    ]);
    let woken = json!([culprit("thread", "backup", 50)]);
    let chain = json!([{
        "tid": 8, "pid": 7, "comm": "ledger", "how": "held", "cause": "runq.preempted",
        "ns": 90 * MS, "culprits": [culprit("thread", "backup", 89)],
    }]);
    let mut cpu = cause("cpu", 195, &json!([]), &json!([]));
    cpu["evidence"]["spans"] = json!([within("report", 120), within("other", 9)]);
    let causes = json!([
        cause("runq.preempted", 650, &blame, &json!([])),
        cause("runq.wakeup", 50, &woken, &json!([])),
        cause("lock.futex", 100, &json!([]), &chain),
        cause("wait.other", 5, &json!([]), &json!([])),
        cpu,
    ]);
    json!({
        "trace_id": "1", "span_id": "2", "parent_span_id": "", "name": "x", "service": "x",
        "start_unix_ns": "1", "wall_ns": 1000 * MS, "status": "complete", "children_seen": 0,
        "gap_ns": 1000 * MS, "explained_ns": 995 * MS, "other_ns": 5 * MS, "estimated_ns": 0,
        "blur_ns": 0, "clock_error_ns": 0,
        "join": {"how": "attribute", "score": 1.0, "candidates": 1, "pid": 7, "tid": 7, "comm": "x"},
        "causes": causes, "span_causes": causes, "episodes": [],
        "recorder_from_unix_ns": "0", "lost_records": 0,
    })
}

fn verdict(answer: &Value, expected: &Expectation, accuracy: Accuracy) -> Verdict {
    let answer = serde_json::from_value(answer.clone()).expect("an answer");
    judge(expected, &answer, accuracy)
}

/// What the one problem of a changed answer must say.
#[track_caller]
fn wrong(change: impl FnOnce(&mut Value), says: &str) {
    let mut changed = answer();
    change(&mut changed);
    let found = verdict(&changed, &expected(), Accuracy::Exact).problems;
    assert!(
        found.iter().any(|problem| problem.contains(says)),
        "{says} is not in {found:?}"
    );
}

#[test]
fn a_right_answer_is_right() {
    for accuracy in [Accuracy::Exact, Accuracy::Emulated] {
        let found = verdict(&answer(), &expected(), accuracy);
        assert_eq!(found.problems, Vec::<String>::new());
        assert!(found.rows.iter().all(|row| row.right));
        let of = |at: usize| (&*found.rows[at].cause, found.rows[at].answer_ns / MS);
        assert_eq!(of(0), ("runq.wakeup + runq.preempted", 700));
        assert_eq!(of(2), ("lock.futex <- runq.preempted", 90));
        assert_eq!(found.rows[0].culprit, "backup");
    }
}

#[test]
fn a_false_truth_is_found_out_in_each_row() {
    for accuracy in [Accuracy::Exact, Accuracy::Emulated] {
        for at in 0..expected().rows.len() {
            let mut expected = expected();
            let mut lies = expected.clone();
            super::super::falsify(&mut lies);
            expected.rows[at] = lies.rows[at].clone();
            let found = verdict(&answer(), &expected, accuracy);
            let right: Vec<bool> = found.rows.iter().map(|row| row.right).collect();
            assert!(!right[at] && right.iter().filter(|right| !**right).count() == 1);
            assert!(!found.problems.is_empty());
        }
    }
}

#[test]
fn each_way_to_be_wrong_has_its_words() {
    wrong(|answer| answer["status"] = json!("pending"), "is pending");
    wrong(|answer| answer["join"]["tid"] = json!(8), "thread 7 ran it");
    wrong(|answer| answer["gap_ns"] = json!(999 * MS), "ns are");
    wrong(
        |answer| answer["causes"][4]["ns"] = json!(187 * MS),
        "cpu: 187.000 ms",
    );
    wrong(
        |answer| answer["causes"][0]["ns"] = json!(642 * MS),
        "preempted: 692.000 ms",
    );
    wrong(
        |answer| {
            answer["causes"][0]["culprits"] = json!([]);
            answer["causes"][1]["culprits"] = json!([]);
        },
        "nobody is blamed, and not backup",
    );
    wrong(
        |answer| answer["causes"][2]["chain"][0]["culprits"][0]["name"] = json!("kworker"),
        "kworker is blamed, and not backup",
    );
    wrong(
        |answer| answer["causes"][0]["culprits"][0]["ns"] = json!(260 * MS),
        "backup is blamed for 570.000 ms (with the unnamed 625.000 ms), and had 640.000",
    );
    wrong(
        |answer| answer["causes"][2]["chain"][0]["how"] = json!("woke"),
        "lock.futex <- runq.preempted: 0.000 ms",
    );
    wrong(
        |answer| answer["causes"][4]["evidence"] = json!({"object": "a journal"}),
        "and not ledger",
    );
    wrong(
        |answer| answer["causes"][4]["evidence"]["spans"] = json!([within("other", 120)]),
        "cpu: 0.000 ms of it were within report, instead of 120.000 ms",
    );
    wrong(
        |answer| answer["causes"][4]["evidence"] = json!({}),
        "nothing is said of object",
    );
}

#[test]
fn what_nobody_expected_is_a_trifle_or_wrong() {
    let more = |name: &str, ms: u64| {
        let mut changed = answer();
        changed["causes"][3] = cause(name, ms, &json!([]), &json!([]));
        changed["other_ns"] = json!(if name == "wait.other" { ms * MS } else { 0 });
        changed
    };
    let found = |changed| {
        verdict(&changed, &expected(), Accuracy::Exact)
            .problems
            .join("; ")
    };
    assert!(!found(more("disk.read", 20)).contains("other causes"));
    assert!(found(more("disk.read", 21)).contains("other causes have more than 2 %"));
    assert!(!found(more("wait.other", 10)).contains("wait.other has"));
    assert!(found(more("wait.other", 11)).contains("wait.other has more than 1 %"));
}

#[test]
fn emulated_time_asks_for_the_largest() {
    let mut changed = answer();
    changed["causes"][4]["ns"] = json!(214 * MS);
    let found = verdict(&changed, &expected(), Accuracy::Emulated);
    assert!(found.rows[3].right, "within 20 ms");
    changed["causes"][3]["ns"] = json!(701 * MS);
    let found = verdict(&changed, &expected(), Accuracy::Emulated);
    let words = "wait.other is larger than runq.wakeup + runq.preempted";
    assert!(found.problems.iter().any(|problem| problem == words));
}

#[test]
fn a_fault_that_did_not_happen_proves_nothing() {
    let mut expected = expected();
    expected.rows = vec![Row::of_gap(&["disk.read"], 3 * MS, "clock")];
    let problems = verdict(&answer(), &expected, Accuracy::Exact).problems;
    assert!(
        problems.iter().any(|one| one.contains("hardly happened")),
        "{problems:?}"
    );
}
