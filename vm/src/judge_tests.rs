// SPDX-License-Identifier: Apache-2.0
//! What passes, what fails, and that silence is never a pass.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Verdict;
use super::boot;
use crate::guest::End;
use crate::guest::Job;
use crate::guest::Outcome;
use crate::list::Cannot;
use crate::list::Kernel;
use crate::list::List;
use crate::list::Stage;
use crate::plan::Plan;
use crate::plan::Planned;
use crate::stream::Part;

fn list() -> List {
    List::parse(include_str!("../kernels.toml")).unwrap()
}

fn kernel(cannot: Vec<Cannot>) -> Kernel {
    let mut kernels = list().kernels;
    let mut kernel = kernels.pop().unwrap();
    kernel.cannot = cannot;
    kernel
}

fn planned<'a>(stage: &'a Stage, tests: &[&str], may_fail: &[&str]) -> Planned<'a> {
    let owned = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    Planned {
        stage,
        job: Job {
            stage: stage.name.clone(),
            limit: Duration::from_secs(stage.limit_s),
            folder: PathBuf::new(),
            command: Vec::new(),
        },
        tests: owned(tests),
        may_fail: owned(may_fail)
            .into_iter()
            .map(|name| (name, "a reason".to_owned()))
            .collect(),
    }
}

fn outcome(end: End, stage: &str, text: &str, status: Option<i32>) -> Outcome {
    Outcome {
        end,
        out: vec![Part {
            name: stage.to_owned(),
            text: text.to_owned(),
            status,
        }],
        err: BTreeMap::new(),
        console: String::new(),
        took: Duration::ZERO,
    }
}

/// Judges one stage of the list by what it said.
fn judge(stage: &str, tests: &[&str], may_fail: &[&str], outcome: &Outcome) -> Verdict {
    judge_on(&kernel(Vec::new()), stage, tests, may_fail, outcome)
}

fn judge_on(
    kernel: &Kernel,
    stage: &str,
    tests: &[&str],
    may_fail: &[&str],
    outcome: &Outcome,
) -> Verdict {
    let list = list();
    let stage = list.stage(stage).unwrap();
    let plan = Plan {
        stages: vec![planned(stage, tests, may_fail)],
        left_out: Vec::new(),
    };
    let mut whole = Verdict::default();
    for verdict in boot(kernel, &plan, outcome) {
        whole.add(verdict);
    }
    whole
}

/// What failed, as `what: why`, with a mark where it was an assertion.
fn failures(verdict: &Verdict) -> Vec<String> {
    let line = |f: &super::Failure| {
        let mark = if f.is_assertion { "!" } else { "?" };
        format!("{}: {}{mark}", f.what, f.why)
    };
    verdict.failed.iter().map(line).collect()
}

#[test]
fn tests_that_passed_are_named_with_their_stage() {
    let said = outcome(End::Done, "life", "test a ... ok\ntest b ... ok\n", Some(0));
    let verdict = judge("life", &["a", "b"], &[], &said);
    assert_eq!(verdict.passed, ["life/a", "life/b"]);
    assert!(verdict.failed.is_empty(), "{verdict:?}");
    assert!(verdict.proves("life") && verdict.proves("life/a"));
    assert!(!verdict.proves("lif") && !verdict.proves("life/c"));
    assert!(verdict.knows_nothing_of("life/c") && !verdict.knows_nothing_of("life"));
}

#[test]
fn a_failed_a_missing_and_an_ignored_test_fail() {
    let text = "test a ... ok\ntest b ... FAILED\ntest d ... ignored\n";
    let verdict = judge(
        "life",
        &["a", "b", "c", "d"],
        &[],
        &outcome(End::Done, "life", text, Some(101)),
    );
    assert_eq!(
        failures(&verdict),
        [
            "life/b: failed!",
            "life/c: did not run?",
            "life/d: did not run?"
        ]
    );
    assert!(!verdict.proves("life") && verdict.proves("life/a"));
}

#[test]
fn an_exception_may_fail_must_run_and_is_shown_when_it_passes() {
    let text = "test a ... FAILED\ntest b ... ok\n";
    let excepted = ["a", "b", "c"];
    let said = outcome(End::Done, "life", text, Some(101));
    let verdict = judge("life", &excepted, &excepted, &said);
    assert_eq!(verdict.excepted, ["life/a"]);
    assert_eq!(verdict.surprises, ["life/b"]);
    assert_eq!(failures(&verdict), ["life/c: did not run?"]);
    assert!(!verdict.proves("life"), "what failed proves nothing");
    assert!(!verdict.knows_nothing_of("life/a") && verdict.knows_nothing_of("life/x"));
}

#[test]
fn an_exit_status_that_no_test_explains_fails() {
    for (text, status) in [("test a ... ok\n", 101), ("test a ... FAILED\n", 0)] {
        let verdict = judge(
            "life",
            &["a"],
            &[],
            &outcome(End::Done, "life", text, Some(status)),
        );
        let said = format!("life: ended with status {status}!");
        assert!(failures(&verdict).contains(&said), "{verdict:?}");
    }
}

#[test]
fn a_stage_that_hung_was_cut_off_or_never_began_fails() {
    let hung = outcome(End::Done, "life", "test a ... ", Some(124));
    let limit = list().stage("life").unwrap().limit_s;
    assert_eq!(
        failures(&judge("life", &["a"], &[], &hung)),
        [
            format!("life: did not end within {limit} s!"),
            "life/a: did not run?".to_owned()
        ]
    );
    let died = || End::Died("status 1".to_owned());
    let cut = outcome(died(), "life", "test a ... ok\n", None);
    assert_eq!(
        failures(&judge("life", &["a"], &[], &cut)),
        ["life: was cut off?", "the guest: died: status 1?"]
    );
    let never = outcome(died(), "waits", "", None);
    assert_eq!(
        failures(&judge("life", &["a"], &[], &never)),
        ["life: did not run?", "the guest: died: status 1?"]
    );
}

#[test]
fn a_guest_that_hangs_and_a_kernel_that_complains_fail_as_assertions() {
    let mut said = outcome(
        End::Hung("in life".to_owned()),
        "life",
        "test a ... ok\n",
        Some(0),
    );
    said.console =
        "[1.0] WARNING: CPU: 0 at kernel/bpf\n[2.0] watchdog: BUG: soft lockup - CPU#0\n"
            .to_owned();
    assert_eq!(
        failures(&judge("life", &["a"], &[], &said)),
        [
            "the guest: hung in life!",
            "the guest's kernel: [1.0] WARNING: CPU: 0 at kernel/bpf!"
        ],
        "the host's own delays are not the kernel's fault"
    );
}

fn report(checks: &[(&str, &str, &[&str])]) -> String {
    let checks: Vec<_> = checks
        .iter()
        .map(|(name, status, costs)| {
            serde_json::json!({"name": name, "status": status, "why": "w", "costs": costs, "fix": ""})
        })
        .collect();
    serde_json::json!({"schema": "lacuna.doctor/1", "kernel": "x", "checks": checks}).to_string()
}

fn clock() -> Cannot {
    Cannot {
        what: "quota clock".to_owned(),
        since: "6.6".to_owned(),
        commit: None,
        doctor: Some("clock".to_owned()),
        costs: vec!["throttle".to_owned()],
        instead: "none".to_owned(),
    }
}

fn doctor(cannot: Vec<Cannot>, text: &str) -> Verdict {
    let said = outcome(End::Done, "doctor", text, Some(1));
    judge_on(&kernel(cannot), "doctor", &[], &[], &said)
}

#[test]
fn doctor_and_the_list_must_say_the_same() {
    let good = report(&[
        ("clock of limits", "missing", &["throttle"]),
        ("BTF", "ok", &[]),
    ]);
    let verdict = doctor(vec![clock()], &good);
    assert_eq!(verdict.passed, ["doctor"], "{verdict:?}");
    assert!(verdict.costs.unwrap().contains("throttle"));

    let unlisted = doctor(Vec::new(), &good);
    assert!(
        failures(&unlisted)[0].contains("clock of limits"),
        "{unlisted:?}"
    );
    assert!(unlisted.passed.is_empty());

    let unsaid = doctor(vec![clock()], &report(&[("clock of limits", "ok", &[])]));
    assert!(
        failures(&unsaid)[0].contains("nothing wrong with clock"),
        "{unsaid:?}"
    );

    let others = report(&[("clock of limits", "missing", &["throttle", "cpu"])]);
    let costs = doctor(vec![clock()], &others);
    assert!(failures(&costs)[0].contains("cpu"), "{costs:?}");
    assert!(
        doctor(Vec::new(), "").passed.is_empty(),
        "no report is no agreement"
    );
}

#[test]
fn the_verifier_names_each_program_or_fails() {
    let judge = |text: &str, status| {
        judge(
            "verifier",
            &[],
            &[],
            &outcome(End::Done, "verifier", text, Some(status)),
        )
    };
    let good = judge("sched_switch 5012\nsched_waking 700\n", 0);
    assert_eq!(good.passed, ["verifier"]);
    let verified = good.verified.unwrap();
    assert_eq!(verified["sched_switch"], 5012);
    assert_eq!(verified.len(), 2);
    assert!(judge("", 0).passed.is_empty());
    assert!(judge("sched_switch 5012\n", 1).passed.is_empty());
}
