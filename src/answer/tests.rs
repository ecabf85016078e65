// SPDX-License-Identifier: Apache-2.0
//! The JSON of the answers is the contract's, byte for byte, and each identity is really checked.

use lacuna_timeline::Cause;

use super::CauseAnswer;
use super::Culprit;
use super::CulpritKind;
use super::Evidence;
use super::Explanation;
use super::FaultCounts;
use super::GapSums;
use super::Join;
use super::JoinHow;
use super::ListedSpan;
use super::Reach;
use super::RunReport;
use super::RunSchema;
use super::RunTotal;
use super::SpanAnswer;
use super::SpanHead;
use super::SpanList;
use super::StateSums;
use super::Status;
use super::Switches;
use super::ThreadReport;
use super::UnixNs;

fn cause(cause: Cause, ns: u64) -> CauseAnswer {
    let mut state = StateSums::default();
    match cause {
        Cause::Cpu => state.running_ns = ns,
        Cause::RunqPreempted | Cause::RunqWakeup | Cause::RunqIdle => state.runnable_ns = ns,
        Cause::Unknown => {}
        _ => state.blocked_ns = ns,
    }
    CauseAnswer {
        cause,
        ns,
        count: 1,
        state,
        estimated_ns: 0,
        culprits: Vec::new(),
        evidence: Evidence::default(),
        chain: Vec::new(),
        reason: (cause == Cause::Unknown).then(|| "no-thread".to_owned()),
    }
}

fn run_report() -> RunReport {
    let causes = vec![cause(Cause::WaitSleep, 700), cause(Cause::Cpu, 300)];
    RunReport {
        schema: RunSchema::default(),
        command: vec!["sleep".to_owned(), "1".to_owned()],
        exit_status: 0,
        wall_ns: 1_000,
        threads: vec![ThreadReport {
            tid: 7,
            pid: 7,
            comm: "sleep".to_owned(),
            start_unix_ns: UnixNs(1_763_800_000_000_000_000),
            wall_ns: 1_000,
            causes: causes.clone(),
            switches: Switches {
                voluntary: 1,
                involuntary: 0,
            },
            faults: FaultCounts {
                minor: 60,
                major: 0,
            },
            migrations: 0,
        }],
        total: RunTotal {
            wall_ns: 1_000,
            causes,
        },
        lost_records: 0,
    }
}

fn span_answer() -> SpanAnswer {
    let mut throttle = cause(Cause::Throttle, 100);
    throttle.state = StateSums {
        runnable_ns: 100,
        ..StateSums::default()
    };
    throttle.estimated_ns = 40;
    let mut other = cause(Cause::WaitOther, 30);
    other.estimated_ns = 10;
    let causes = vec![throttle, other, cause(Cause::Unknown, 20)];
    let mut span_causes = causes.clone();
    span_causes.push(cause(Cause::Cpu, 50));
    SpanAnswer {
        head: SpanHead {
            trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
            span_id: "b7ad6b7169203331".to_owned(),
            parent_span_id: String::new(),
            name: "POST /pay".to_owned(),
            service: "payments".to_owned(),
            start_unix_ns: UnixNs(5),
            wall_ns: 200,
            status: Status::Complete,
            children_seen: 1,
            gap_ns: 150,
            explained_ns: 60,
            other_ns: 30,
            estimated_ns: 40,
            blur_ns: 0,
            clock_error_ns: 100,
            join: Join {
                how: JoinHow::SingleThread,
                score: 1.0,
                candidates: 1,
                pid: 8,
                tid: 9,
                comm: "worker".to_owned(),
                why: String::new(),
            },
        },
        causes,
        span_causes,
        process: None,
        episodes: Vec::new(),
        reach: Reach::default(),
    }
}

#[track_caller]
fn broken(answer: &SpanAnswer, what: &str) {
    let violation = answer.check().expect_err("the identity must be checked");
    assert!(violation.what.contains(what), "{violation}");
}

#[test]
fn run_report_is_the_contracts_json() {
    let text = serde_json::to_string(&run_report()).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"schema":"lacuna.run/1","command":["sleep","1"],"exit_status":0,"wall_ns":1000,"#,
            r#""threads":[{"tid":7,"pid":7,"comm":"sleep","start_unix_ns":"1763800000000000000","wall_ns":1000,"#,
            r#""causes":[{"cause":"wait.sleep","ns":700,"count":1,"state":{"running_ns":0,"runnable_ns":0,"blocked_ns":700},"#,
            r#""estimated_ns":0,"culprits":[],"evidence":{},"chain":[]},"#,
            r#"{"cause":"cpu","ns":300,"count":1,"state":{"running_ns":300,"runnable_ns":0,"blocked_ns":0},"#,
            r#""estimated_ns":0,"culprits":[],"evidence":{},"chain":[]}],"#,
            r#""switches":{"voluntary":1,"involuntary":0},"faults":{"minor":60,"major":0},"migrations":0}],"#,
            r#""total":{"wall_ns":1000,"causes":[{"cause":"wait.sleep","ns":700,"count":1,"#,
            r#""state":{"running_ns":0,"runnable_ns":0,"blocked_ns":700},"estimated_ns":0,"culprits":[],"evidence":{},"chain":[]},"#,
            r#"{"cause":"cpu","ns":300,"count":1,"state":{"running_ns":300,"runnable_ns":0,"blocked_ns":0},"#,
            r#""estimated_ns":0,"culprits":[],"evidence":{},"chain":[]}]},"lost_records":0}"#,
        )
    );
    assert_eq!(
        serde_json::from_str::<RunReport>(&text).unwrap(),
        run_report()
    );
}

#[test]
fn explanation_has_the_contracts_order_and_comes_back() {
    let explanation = Explanation::from(vec![span_answer()]);
    let text = serde_json::to_string(&explanation).unwrap();
    let mut from = 0;
    for key in [
        r#"{"schema":"lacuna.explanation/1","spans":[{"trace_id":"#,
        r#""span_id":"#,
        r#""parent_span_id":"""#,
        r#""name":"#,
        r#""service":"#,
        r#""start_unix_ns":"5""#,
        r#""wall_ns":200"#,
        r#""status":"complete""#,
        r#""children_seen":1"#,
        r#""gap_ns":150"#,
        r#""explained_ns":60"#,
        r#""other_ns":30"#,
        r#""estimated_ns":40"#,
        r#""blur_ns":0"#,
        r#""clock_error_ns":100"#,
        r#""join":{"how":"single-thread","score":1.0,"candidates":1,"pid":8,"tid":9,"comm":"worker"}"#,
        r#""causes":["#,
        r#""reason":"no-thread""#,
        r#""span_causes":["#,
        r#""episodes":[]"#,
        r#""recorder_from_unix_ns":"0""#,
        r#""lost_records":0}]}"#,
    ] {
        let at = text[from..].find(key);
        from += at.unwrap_or_else(|| panic!("{key} is not after its predecessor in {text}"));
    }
    assert!(
        !text.contains(r#""process":"#),
        "only where the join is process"
    );
    assert_eq!(
        serde_json::from_str::<Explanation>(&text).unwrap(),
        explanation
    );
}

#[test]
fn listed_spans_have_no_account() {
    let SpanAnswer { head, reach, .. } = span_answer();
    let text = serde_json::to_string(&SpanList::from(vec![ListedSpan { head, reach }])).unwrap();
    assert!(
        text.starts_with(r#"{"schema":"lacuna.spans/1","spans":[{"trace_id":"#),
        "{text}"
    );
    for key in ["causes", "episodes", "process\":{"] {
        assert!(!text.contains(key), "{key} in {text}");
    }
    assert_eq!(
        serde_json::from_str::<SpanList>(&text).unwrap().spans.len(),
        1
    );
}

#[test]
fn another_schema_or_cause_is_refused_and_another_field_is_not() {
    let text = serde_json::to_string(&run_report()).unwrap();
    let newer = text.replace("lacuna.run/1", "lacuna.run/2");
    assert!(serde_json::from_str::<RunReport>(&newer).is_err());
    let stranger = text.replace("wait.sleep", "wait.tea");
    assert!(serde_json::from_str::<RunReport>(&stranger).is_err());
    let number = text.replace(r#""1763800000000000000""#, "1763800000000000000");
    assert!(serde_json::from_str::<RunReport>(&number).is_err());
    let wider = text.replace(r#""exit_status""#, r#""mood":"good","exit_status""#);
    assert_eq!(
        serde_json::from_str::<RunReport>(&wider).unwrap(),
        run_report()
    );
}

#[test]
fn evidence_keeps_what_it_does_not_know() {
    let json = r#"{"call":"futex","rto":4}"#;
    let evidence: Evidence = serde_json::from_str(json).unwrap();
    assert_eq!(evidence.call.as_deref(), Some("futex"));
    assert_eq!(serde_json::to_string(&evidence).unwrap(), json);
}

#[test]
fn run_identities_are_checked() {
    let good = run_report();
    good.check().unwrap();

    let mut report = good.clone();
    report.threads[0].causes[0].ns += 1;
    assert_eq!(report.check().unwrap_err().what, "causes of thread 7");

    let mut report = good.clone();
    report.total.wall_ns += 1;
    assert_eq!(report.check().unwrap_err().what, "wall time of the threads");

    let mut report = good;
    report.total.causes.pop();
    assert_eq!(report.check().unwrap_err().what, "causes of total");
}

#[test]
fn span_identities_are_checked() {
    let good = span_answer();
    good.check().unwrap();

    let mut answer = good.clone();
    answer.head.gap_ns += 1;
    broken(&answer, "causes of gap");
    let mut answer = good.clone();
    answer.head.wall_ns += 1;
    broken(&answer, "causes of span");
    let mut answer = good.clone();
    answer.head.explained_ns += 1;
    broken(&answer, "explained_ns");
    let mut answer = good.clone();
    answer.head.other_ns += 10;
    broken(&answer, "other_ns");
    let mut answer = good.clone();
    answer.causes[0].estimated_ns = 101;
    broken(&answer, "estimate in throttle");
    let mut answer = good.clone();
    answer.causes[0].state.running_ns = 1;
    broken(&answer, "states of throttle");
    let mut answer = good;
    answer.head.status = Status::Pending;
    broken(&answer, "pending");
    answer.causes.clear();
    answer.span_causes.clear();
    answer.check().unwrap();
}

#[test]
fn blame_for_a_cpu_is_complete() {
    let mut answer = span_answer();
    answer.causes[0].cause = Cause::RunqWakeup;
    broken(&answer, "culprits of runq.wakeup");
    let culprit = |kind, ns| Culprit {
        kind,
        name: String::new(),
        pid: 0,
        tid: 0,
        ns,
        process: String::new(),
        detail: String::new(),
    };
    answer.causes[0].culprits = vec![
        culprit(CulpritKind::Rest, 60),
        culprit(CulpritKind::Uncovered, 40),
    ];
    answer.check().unwrap();
    answer.causes[0].cause = Cause::RunqIdle;
    answer.check().unwrap();
    answer.causes[0].culprits.pop();
    broken(&answer, "culprits of runq.idle");
}

#[test]
fn a_gap_has_four_parts() {
    let answer = span_answer();
    let sums = GapSums::of(&answer.causes);
    let expected = GapSums {
        explained_ns: 60,
        unknown_ns: 20,
        other_ns: 30,
        estimated_ns: 40,
    };
    assert_eq!(sums, expected);
    assert_eq!(
        sums.explained_ns + sums.unknown_ns + sums.other_ns + sums.estimated_ns,
        150
    );
}
