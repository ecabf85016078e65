// SPDX-License-Identifier: Apache-2.0
//! Records that are lost, on purpose, on a live workload: what they would have said is `unknown`,
//! with its reason, and every sum stays exact (rules 9 and 12 of the design).

use crate::report::Report;
use crate::report::run;

/// Two processes that give a line to each other, some 20,000 switches.
const PING_PONG: [&str; 3] = [
    "bash",
    "-c",
    "coproc cat
     for ((i = 0; i < 5000; i++)); do
         echo x >&${COPROC[1]}; read -r -u ${COPROC[0]}
     done",
];

/// The ping-pong with these faults, and what it cost.
fn ping_pong(faults: &str) -> Report {
    let ran = run(&["--inject", faults], &PING_PONG);
    assert!(ran.status.success(), "{}", ran.said);
    let report = ran.report;
    assert!(report.threads().len() >= 2, "{:#}", report.0);
    let (lost, whole) = (report.lost_records(), report.total_ns());
    eprintln!("faults {faults:?}: {lost} records lost of {whole} ns");
    for (reason, ns) in report.unknown() {
        eprintln!("  {ns} ns unknown: {reason}");
    }
    report
}

/// The reasons of all unknown time, and how much there is.
fn reasons(report: &Report) -> (Vec<String>, u64) {
    let unknown = report.unknown();
    let sum = unknown.iter().map(|(_, ns)| ns).sum();
    (unknown.into_iter().map(|(reason, _)| reason).collect(), sum)
}

#[test]
fn root_without_faults_only_what_was_not_observed_is_unknown() {
    let report = ping_pong("");
    assert_eq!(report.lost_records(), 0);
    let (reasons, unknown_ns) = reasons(&report);
    let expected = |reason: &String| reason == "not-observed";
    assert!(reasons.iter().all(expected), "{reasons:?}");
    // A thread is unknown until its first switch after it was born, which is microseconds.
    assert!(unknown_ns < report.total_ns() / 100, "{unknown_ns} ns");
}

#[test]
fn root_a_lost_record_is_unknown_time() {
    let report = ping_pong("drop-every=7");
    assert!(report.lost_records() > 100, "{}", report.lost_records());
    let (reasons, unknown_ns) = reasons(&report);
    assert!(reasons.contains(&"lost".to_owned()), "{reasons:?}");
    // One record in seven is gone, and with it its stretch; the rest is known all the same.
    let whole = report.total_ns();
    assert!(unknown_ns > whole / 100, "{unknown_ns} of {whole} ns");
    assert!(unknown_ns < whole / 2, "{unknown_ns} of {whole} ns");
}

#[test]
fn root_a_lost_last_record_is_unknown_time() {
    let report = ping_pong("drop-exit");
    assert!(report.lost_records() >= 2, "{}", report.lost_records());
    for thread in report.threads() {
        let causes = thread["causes"].as_array().expect("causes");
        let unknown = causes.iter().find(|cause| cause["cause"] == "unknown");
        let unknown = unknown.unwrap_or_else(|| panic!("its end was seen: {thread:#}"));
        let reason = unknown["reason"].as_str().expect("a reason");
        assert!(["lost", "not-confirmed"].contains(&reason), "{thread:#}");
    }
}

#[test]
fn root_a_skipped_waking_is_unknown_time() {
    let report = ping_pong("skip-wakings=5");
    let (reasons, unknown_ns) = reasons(&report);
    assert!(
        reasons.contains(&"program-skipped".to_owned()),
        "{reasons:?}"
    );
    assert!(unknown_ns < report.total_ns(), "{unknown_ns} ns");
}

#[test]
fn root_all_faults_at_once_break_no_sum() {
    let report = ping_pong("drop-every=2,drop-exit,skip-wakings=2");
    assert!(report.lost_records() > 1_000, "{}", report.lost_records());
    let (reasons, _) = reasons(&report);
    assert!(!reasons.is_empty());
}
