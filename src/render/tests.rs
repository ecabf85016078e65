// SPDX-License-Identifier: Apache-2.0
//! What people see, as files: each answer in `snapshots/*.json` is rendered for a pipe, for a
//! terminal (`ESC` stands for the escape character) and with --verbose, and compared with the text
//! file beside it. `UPDATE=1` writes the text files instead; read the difference before committing.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use super::Style;
use super::blind;
use super::events;
use super::explanation;
use super::json;
use super::lab;
use super::plain;
use super::plain::plain_up_to;
use super::quantity::Column;
use super::quantity::grouped;
use super::quantity::instant;
use super::quantity::percent;
use super::run;
use crate::answer::BlindReport;
use crate::answer::EventsReport;
use crate::answer::Explanation;
use crate::answer::LabReport;
use crate::answer::LabRow;
use crate::answer::LabSchema;
use crate::answer::RunReport;
use crate::answer::ScenarioReport;
use crate::answer::ScenarioStatus;

const PIPE: Style = Style {
    colour: false,
    bars: false,
    verbose: false,
};
const STYLES: [(&str, Style); 4] = [
    ("pipe", PIPE),
    (
        "terminal",
        Style {
            colour: true,
            bars: true,
            verbose: false,
        },
    ),
    (
        "no-color",
        Style {
            colour: false,
            bars: true,
            verbose: false,
        },
    ),
    (
        "verbose",
        Style {
            colour: false,
            bars: false,
            verbose: true,
        },
    ),
];

fn snapshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/render/snapshots")
}

fn read_answer(name: &str) -> String {
    fs::read_to_string(snapshots().join(format!("{name}.json"))).unwrap()
}

fn read_explanation(name: &str) -> Explanation {
    let answer: Explanation = serde_json::from_str(&read_answer(name)).unwrap();
    answer.spans.iter().for_each(|span| span.check().unwrap());
    answer
}

fn read_run(name: &str) -> RunReport {
    let report: RunReport = serde_json::from_str(&read_answer(name)).unwrap();
    report.check().unwrap();
    report
}

/// Compares in the styles named, all in one file, so that they can be read side by side.
#[track_caller]
fn compare(name: &str, styles: &[&str], render: impl Fn(Style) -> String) {
    let mut seen = String::new();
    for (style_name, style) in STYLES.iter().filter(|(name, _)| styles.contains(name)) {
        let text = render(*style);
        assert!(text.ends_with('\n'), "{style_name}");
        assert!(
            !text.lines().any(|line| line.ends_with(' ')),
            "{style_name}: {text}"
        );
        let text = text.replace('\u{1b}', "ESC");
        seen.push_str(&format!("=== {style_name}\n{text}"));
    }
    let path = snapshots().join(format!("{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &seen).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(
        seen == expected,
        "{name} is now (UPDATE=1 accepts it):\n{seen}\nand was:\n{expected}"
    );
}

#[track_caller]
fn compare_explanation(name: &str, styles: &[&str]) {
    let answer = read_explanation(name);
    compare(name, styles, |style| explanation(&answer, style));
}

#[test]
fn the_opening_story() {
    compare_explanation("upi-gap", &["pipe", "terminal", "no-color", "verbose"]);
}

#[test]
fn a_tree_of_services_with_a_lock_and_its_chain() {
    compare_explanation("tree", &["pipe", "verbose"]);
}

#[test]
fn a_request_within_which_the_thread_served_another() {
    compare_explanation("event-loop", &["pipe", "verbose"]);
}

#[test]
fn truth_and_answer_side_by_side() {
    let row = |cause: &str, truth_ns, answer_ns, culprit: &str, right| LabRow {
        cause: cause.to_owned(),
        truth_ns,
        answer_ns,
        culprit: culprit.to_owned(),
        truth_from: "a clock".to_owned(),
        right,
    };
    let scenario = |name: &str, status, why: &str, rows| ScenarioReport {
        name: name.to_owned(),
        status,
        why: why.to_owned(),
        rows,
    };
    let rows = vec![
        row("throttle", 1_239_304_000, 1_239_290_400, "/a\u{7}", true),
        row("cpu", 150_000_000, 158_200_000, "", false),
    ];
    let report = LabReport {
        schema: LabSchema::default(),
        kernel: "6.1".to_owned(),
        emulated: false,
        scenarios: vec![
            scenario("good", ScenarioStatus::Passed, "", rows[..1].to_vec()),
            scenario("bad", ScenarioStatus::Failed, "cpu: no; more", rows),
            scenario("nix", ScenarioStatus::NotRun, "no cgroups", Vec::new()),
        ],
    };
    compare("lab", &["pipe", "terminal"], |style| lab(&report, style));
}

#[test]
fn every_status_and_join_says_what_it_is() {
    compare_explanation("statuses", &["pipe"]);
}

#[test]
fn small_times_are_never_nothing() {
    compare_explanation("small", &["pipe", "verbose"]);
}

#[test]
fn hostile_spans_harm_nobody() {
    compare_explanation("hostile", &["pipe", "terminal"]);
    let answer = read_explanation("hostile");
    let text = explanation(&answer, PIPE);
    assert!(
        text.chars().all(|c| c == '\n' || !plain::is_hostile(c)),
        "{text}"
    );
    let line = json(&answer).unwrap();
    assert!(
        line.trim_end().chars().all(|c| !plain::is_hostile(c)),
        "{line}"
    );
    assert_eq!(serde_json::from_str::<Explanation>(&line).unwrap(), answer);
}

#[test]
fn a_command_of_one_thread() {
    let report = read_run("run-sleep");
    compare("run-sleep", &["pipe", "terminal", "verbose"], |style| {
        run(&report, style)
    });
}

#[test]
fn a_command_of_several_processes() {
    let report = read_run("run-build");
    compare("run-build", &["pipe"], |style| run(&report, style));
}

/// The answer itself is made in `explain/net/tests.rs`.
#[test]
fn what_befell_connections() {
    let report = read_run("net");
    compare("net", &["pipe", "verbose"], |style| run(&report, style));
}

#[test]
fn events_of_a_command_and_of_a_process() {
    for (name, styles) in [
        ("events-command", &["pipe", "terminal"][..]),
        ("events-process", &["pipe"]),
    ] {
        let report: EventsReport = serde_json::from_str(&read_answer(name)).unwrap();
        report.check().unwrap();
        compare(name, styles, |style| events(&report, style));
        let line = json(&report).unwrap();
        assert_eq!(serde_json::from_str::<EventsReport>(&line).unwrap(), report);
    }
}

fn read_blind(name: &str) -> BlindReport {
    let report: BlindReport = serde_json::from_str(&read_answer(name)).unwrap();
    report.check().unwrap();
    report
}

#[test]
fn bursts_with_and_without_causes() {
    for (name, styles) in [
        ("blind", &["pipe", "terminal", "verbose"][..]),
        ("blind-unseen", &["pipe"]),
    ] {
        let report = read_blind(name);
        compare(name, styles, |style| blind(&report, style));
        let line = json(&report).unwrap();
        assert_eq!(serde_json::from_str::<BlindReport>(&line).unwrap(), report);
    }
}

#[test]
fn many_threads_are_told_together() {
    let mut report = read_run("run-sleep");
    let one = report.threads[0].clone();
    for place in 1..40 {
        let mut thread = one.clone();
        thread.tid += place;
        report.threads.push(thread);
    }
    let text = run(&report, PIPE);
    assert!(
        text.contains("\n  and 24 more threads, in the total below\n"),
        "{text}"
    );
    assert!(text.contains(" of 40 threads\n"), "{text}");
    let everything = run(
        &report,
        Style {
            verbose: true,
            ..PIPE
        },
    );
    assert_eq!(everything.matches("\n  thread ").count(), 40);
}

#[test]
fn depth_and_breadth_are_bounded() {
    let answer = read_explanation("upi-gap");
    let mut spans = vec![answer.spans[0].clone()];
    for place in 0x1_0000_0001..=0x1_0000_270f_u64 {
        let mut deeper = answer.spans[0].clone();
        deeper.head.parent_span_id = spans[spans.len() - 1].head.span_id.clone();
        deeper.head.span_id = format!("{place:016x}");
        spans.push(deeper);
    }
    let text = explanation(
        &spans.clone().into(),
        Style {
            verbose: true,
            ..PIPE
        },
    );
    assert_eq!(text.matches(", began ").count(), 32);

    assert!(text.contains("and 9 968 more spans, the longest 4 812 000 000 ns\n"));

    for span in &mut spans[1..] {
        span.head.parent_span_id = answer.spans[0].head.span_id.clone();
        span.head.gap_ns = 0;
    }
    let text = explanation(&spans.into(), PIPE);
    assert!(
        text.contains("  and 9 987 more spans, the longest 4 812 ms\n"),
        "{text}"
    );
}

#[test]
fn an_answer_without_spans_says_so() {
    assert_eq!(explanation(&Vec::new().into(), PIPE), "no spans\n");
}

#[test]
fn numbers() {
    assert_eq!(grouped(0), "0");
    assert_eq!(grouped(999), "999");
    assert_eq!(grouped(1_000), "1 000");
    assert_eq!(grouped(u64::MAX), "18 446 744 073 709 551 615");
    let show = |max_ns, ns| Column::fitting(max_ns).show(ns);
    assert_eq!(show(4_812_000_000, 4_812_499_999), "4 812 ms");
    assert_eq!(show(4_812_000_000, 4_812_500_000), "4 813 ms");
    assert_eq!(show(4_812_000_000, 499_999), "<1 ms");
    assert_eq!(show(4_812_000_000, 0), "0 ms");
    assert_eq!(show(38_000_000, 1_250_000), "1.3 ms");
    assert_eq!(show(38_000_000, 1), "<0.1 ms");
    assert_eq!(show(4_000_000, 4_000_000), "4.00 ms");
    assert_eq!(show(9_999_999, 9_999_999), "10.00 ms");
    assert_eq!(show(1_000_000, 4_999), "<0.01 ms");
    assert_eq!(show(999_999, 999_999), "1 000 us");
    assert_eq!(show(1_000, 55), "0.06 us");
    assert_eq!(show(999, 999), "999 ns");

    assert_eq!(show(u64::MAX, u64::MAX), "18 446 744 073 710 ms");
}

#[test]
fn shares() {
    assert_eq!(percent(1, 1), "100 %");
    assert_eq!(percent(999_999, 1_000_000), "99.9 %");
    assert_eq!(percent(990, 1_000), "99.0 %");
    assert_eq!(percent(989, 1_000), "98 %");
    assert_eq!(percent(5, 1_000), "0.5 %");
    assert_eq!(percent(1, 1_000_000), "<0.1 %");
    assert_eq!(percent(0, 7), "0 %");
    assert_eq!(percent(0, 0), "100 %");
    assert_eq!(percent(u64::MAX, u64::MAX), "100 %");
}

#[test]
fn dates() {
    assert_eq!(instant(0), "1970-01-01 00:00:00.000000000 UTC");
    assert_eq!(
        instant(951_782_400_000_000_000),
        "2000-02-29 00:00:00.000000000 UTC"
    );
    assert_eq!(
        instant(1_763_832_642_123_456_789),
        "2025-11-22 17:30:42.123456789 UTC"
    );
    assert_eq!(instant(u64::MAX), "2554-07-21 23:34:33.709551615 UTC");
}

#[test]
fn text_is_neutralised_and_cut() {
    assert_eq!(plain::plain("naïve 名前"), "naïve 名前");
    assert_eq!(plain::plain("\u{1b}[2J\u{7}"), "\\x1b[2J\\x07");
    assert_eq!(
        plain::plain("a\r\n\tb\u{9b}31m\u{7f}"),
        "a\\x0d\\n\\tb\\x9b31m\\x7f"
    );
    assert_eq!(plain::plain("a\u{202e}b\u{200b}"), "a\\u{202e}b\\u{200b}");
    assert_eq!(plain_up_to("abcdef", 6), "abcdef");
    assert_eq!(plain_up_to("abcdefg", 6), "abcde…");
    assert_eq!(plain_up_to("abcd\u{1b}", 6), "abcd…");
    assert_eq!(plain_up_to("abc", 0), "…");
}
