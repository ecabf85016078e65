// SPDX-License-Identifier: Apache-2.0
//! End to end: real OpenTelemetry programs, a real agent, and the true thread of every span.
//!
//! The programs are in `programs/` and are built by `scripts/programs`. Each writes down itself
//! which thread ran each of its spans and how long it really waited; nothing of that is sent to the
//! agent. `docs/testing.md` says what each program proves.
//!
//! Tests named `root_*` load programs into the kernel and need root; run them one at a time, for
//! they measure. The other one proves the programs alone.

mod agent;
mod answer;
mod cgroup;
mod http;
mod nginx;
mod peers;
mod process;
mod programs;
mod scenario;
mod sink;
mod truth;
mod verdict;
mod waits;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::agent::Agent;
use crate::peers::Upstream;
use crate::peers::check_http2;
use crate::peers::check_java;
use crate::peers::check_nginx;
use crate::peers::check_redis;
use crate::programs::Transport;
use crate::scenario::SCENARIOS;
use crate::scenario::Scenario;
use crate::sink::Sink;
use crate::truth::Truth;
use crate::verdict::TABLE_HEAD;
use crate::verdict::Verdict;
use crate::verdict::wrong_claims;
use crate::waits::check_known_waits;
use crate::waits::check_mutex;
use crate::waits::check_readings;

/// How long the last spans of a program may take to be sent, and to be explained.
const ANSWER_PATIENCE: Duration = Duration::from_secs(40);
/// Fewer spans than this prove nothing about one wrong join in many.
const SPANS_MIN: usize = 20_000;
/// Enough to prove a program itself.
const PROOF_SPANS: usize = 240;

#[test]
fn programs_send_what_they_record() {
    let sink = Sink::start();
    for scenario in SCENARIOS {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let service = scenario.service;
        let to = sink.endpoint(scenario.receiver_transport());
        let done = scenario.run(to, directory.path(), PROOF_SPANS);
        let truth = Truth::read(&done.running.truth);
        assert!(
            truth.spans.len() >= PROOF_SPANS * 9 / 10,
            "{service} made too few spans"
        );

        let sent: BTreeMap<_, _> = truth
            .spans
            .iter()
            .map(|(id, span)| (id.clone(), span.end_unix_ns))
            .collect();
        let mut received = BTreeMap::new();
        let deadline = Instant::now() + ANSWER_PATIENCE;
        while received.len() < sent.len() && Instant::now() < deadline {
            received.append(&mut sink.take());
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(
            received, sent,
            "{service}: what came is not what its truth says"
        );
    }
}

#[test]
fn a_reading_that_a_switch_tore_is_taken_again() {
    check_readings();
}

#[test]
fn root_e2e_joins_are_never_wrong() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(directory.path());
    // For looking into one program; such a run never passes, as it proves nothing about the others.
    let only = std::env::var("E2E_ONLY").ok();
    let verdicts: Vec<(Scenario, Verdict)> = SCENARIOS
        .into_iter()
        .filter(|scenario| only.as_ref().is_none_or(|only| only == scenario.service))
        .map(|scenario| (scenario, verdict_over(&agent, &scenario, directory.path())))
        .collect();

    eprintln!("\n{TABLE_HEAD}");
    for (_, verdict) in &verdicts {
        eprintln!("{verdict}");
    }
    let spans: usize = verdicts.iter().map(|(_, verdict)| verdict.spans).sum();
    let wrong: usize = verdicts
        .iter()
        .map(|(_, verdict)| verdict.wrong.len())
        .sum();
    eprintln!("{spans} spans, {wrong} wrong joins\n");

    let problems: Vec<String> = verdicts
        .iter()
        .flat_map(|(scenario, verdict)| verdict.problems(scenario.expected))
        .collect();
    assert!(
        problems.is_empty(),
        "{}\nthe agent said:\n{}",
        problems.join("\n"),
        agent.tail()
    );
    assert!(
        spans >= SPANS_MIN,
        "{spans} spans are too few to prove anything"
    );
}

#[test]
fn root_e2e_known_waits_over_grpc() {
    check_known_waits(Transport::Grpc);
}

#[test]
fn root_e2e_known_waits_over_http() {
    check_known_waits(Transport::Http);
}

#[test]
fn root_e2e_glibc_mutex_is_a_lock_and_names_its_holder() {
    check_mutex();
}

#[test]
fn root_e2e_nginx_waits_for_its_slow_upstream() {
    check_nginx(Upstream::Kept);
}

#[test]
fn root_e2e_nginx_that_connects_anew_waits_for_its_slow_upstream() {
    check_nginx(Upstream::Anew);
}

#[test]
fn root_e2e_requests_that_share_a_connection_wait_for_its_peer() {
    check_http2();
}

#[test]
fn root_e2e_redis_runs_the_script_of_another_client() {
    check_redis();
}

#[test]
fn root_e2e_java_waits_through_the_threads_of_its_http_client() {
    check_java();
}

/// Runs a program and judges everything that the agent says about its spans.
fn verdict_over(agent: &Agent, scenario: &Scenario, directory: &Path) -> Verdict {
    let service = scenario.service;
    let to = agent.endpoint(scenario.receiver_transport());
    let done = scenario.run(to, directory, usize::MAX);
    let truth = Truth::read(&done.running.truth);

    let mut wrong = Vec::new();
    let deadline = Instant::now() + ANSWER_PATIENCE;
    loop {
        let answers = agent.spans(service);
        wrong.extend(wrong_claims(&truth, &answers));
        let settled = |id: &String| answers.get(id).is_some_and(|a| a["status"] != "pending");
        // What is refused too early is looked at again, some seconds later.
        let all_settled = truth.spans.keys().all(settled);
        let verdict = Verdict::over(service, &truth, &answers, wrong.clone());
        let is_right = all_settled && verdict.problems(scenario.expected).is_empty();
        if is_right || Instant::now() > deadline {
            eprintln!("{verdict}");
            return verdict;
        }
        thread::sleep(Duration::from_millis(500));
    }
}
