// SPDX-License-Identifier: Apache-2.0
//! Known waits inside known spans: the causes of the answer against the program's own clock and the
//! kernel's own counters.
//!
//! A cause is right within 1 % or 1 ms of the truth, whichever is larger. What the thread spent on a
//! CPU or queued for one during a wait is no part of the wait: schedstat says how much that was.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::process::Process;
use crate::programs::Program;
use crate::programs::Start;
use crate::programs::Transport;
use crate::programs::repository;
use crate::programs::start;
use crate::programs::start_hog;
use crate::truth::TrueWait;
use crate::truth::Truth;

/// How often each kind runs with a trifling wait, so that the join learns it.
const WARM_UP: &str = "300";
/// How often each kind then waits for long.
const LONG_WAITS: usize = 5;
/// A wait shorter than this was warm-up.
const LONG_NS: u64 = 100_000_000;
/// More runnable threads than CPUs.
const HOGS: usize = 4;
/// The CPU limit of the throttled kind.
const CPU_LIMIT: f64 = 0.25;
/// How long a phase of the program, and then an answer, may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// The kinds of `programs/python/waits.py`, in its order.
const KINDS: [&str; 5] = ["sleep", "lock", "pipe", "contend", "throttle"];

/// Runs `waits.py` against an agent and checks every long wait.
pub(crate) fn check_known_waits(transport: Transport) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(directory.path());
    let truth = run_waits(&agent, transport, directory.path());

    eprintln!("\nkind      truth ms  answer ms  cause");
    let mut problems = Vec::new();
    for kind in KINDS {
        let waits: Vec<&TrueWait> = truth
            .waits
            .iter()
            .filter(|wait| wait.kind == kind && wait.wall_ns > LONG_NS)
            .collect();
        assert_eq!(waits.len(), LONG_WAITS, "long waits of kind {kind}");
        for wait in waits {
            problems.extend(check_wait(&explanation(&agent, wait), wait, &truth));
        }
    }
    assert!(
        problems.is_empty(),
        "{}\nthe agent said:\n{}",
        problems.join("\n"),
        agent.tail()
    );
}

/// Runs `mutex.c` and checks the one wait of the span that it writes to a file.
pub(crate) fn check_mutex() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(directory.path());
    let spans = directory.path().join("spans.json");
    let mut command = Command::new(repository("target/programs/mutex"));
    command.arg(&spans);
    let program = Process::start("mutex", command);
    let line = program.wait_for_line("wait ", PATIENCE);
    let words: Vec<u64> = line
        .split(' ')
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let [waited_ns, holder_tid] = words[..] else {
        panic!("not a line of mutex: {line}")
    };

    let spans = spans.to_str().expect("a UTF-8 path");
    let answers = agent.explain(&["--spans", spans]);
    let answer = answers.values().next().expect("the span is answered");
    assert_eq!(answer["status"], "complete", "{answer}");
    assert_eq!(answer["join"]["how"], "attribute", "{answer}");
    assert_eq!(answer["join"]["tid"], program.pid(), "{answer}");
    assert_sums(answer);
    let lock = cause(answer, "lock.futex").unwrap_or_else(|| panic!("no lock.futex in {answer}"));
    let lock_ns = lock["ns"].as_u64().unwrap_or(0);
    assert!(
        near(lock_ns, waited_ns),
        "lock.futex is {lock_ns} ns, waited {waited_ns}: {answer}"
    );
    assert_eq!(lock["chain"][0]["how"], "held", "{answer}");
    assert_eq!(lock["chain"][0]["tid"], holder_tid, "{answer}");
    assert_eq!(lock["chain"][0]["cause"], "wait.sleep", "{answer}");
}

/// Runs the program through all its phases; its truth.
fn run_waits(agent: &Agent, transport: Transport, directory: &Path) -> Truth {
    let cgroup = Cgroup::create("lacuna-e2e");
    let cpu_stat = cgroup.cpu_stat();
    let mut running = start(&Start {
        program: Program::Python("waits"),
        arguments: &[WARM_UP, &LONG_WAITS.to_string()],
        service: "waits",
        to: agent.endpoint(transport),
        directory,
        environment: &[("CPU_STAT_FILE", cpu_stat.to_str().expect("a UTF-8 path"))],
    });
    let mut hogs = Vec::new();
    for kind in KINDS {
        running
            .process
            .wait_for_line(&format!("ready {kind}"), PATIENCE);
        match kind {
            "contend" => hogs.extend((0..HOGS).map(|_| start_hog())),
            "throttle" => {
                // Not before: in a cgroup of its own it would have had a CPU to itself beside the hogs.
                hogs.clear();
                cgroup.add(running.process.pid());
                cgroup.limit(Some(CPU_LIMIT));
            }
            _ => {}
        }
        running.process.say("go on");
    }
    running.process.wait_for_line("ready end", PATIENCE);
    cgroup.limit(None);
    running.process.say("go on");
    running.wait_until_done();
    Truth::read(&running.truth)
}

/// The complete answer about a wait's span.
fn explanation(agent: &Agent, wait: &TrueWait) -> Value {
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

/// What is not as it must be about one wait, in words.
fn check_wait(answer: &Value, wait: &TrueWait, truth: &Truth) -> Vec<String> {
    assert_sums(answer);
    let span = &truth.spans[&wait.span_id];
    let mut problems = Vec::new();
    if answer["join"]["tid"] != span.tids[0] {
        problems.push(format!(
            "{}: ran on {:?}, answer {}",
            wait.kind, span.tids, answer["join"]
        ));
        return problems;
    }
    let blocked_ns = wait.wall_ns.saturating_sub(wait.on_cpu_ns + wait.queued_ns);
    let mut expect = |causes: &[&str], truth_ns: u64| {
        let answer_ns: u64 = causes.iter().map(|name| cause_ns(answer, name)).sum();
        let (truth_ms, answer_ms) = (truth_ns as f64 / 1e6, answer_ns as f64 / 1e6);
        let names = causes.join(" + ");
        eprintln!("{:<8}{truth_ms:>10.3}{answer_ms:>11.3}  {names}", wait.kind);
        if !near(answer_ns, truth_ns) {
            problems.push(format!(
                "{}: {names} {answer_ms} ms, not {truth_ms} ms",
                wait.kind
            ));
        }
    };
    match wait.kind.as_str() {
        "sleep" => expect(&["wait.sleep"], blocked_ns),
        "pipe" => expect(&["wait.pipe"], blocked_ns),
        "lock" => {
            expect(&["wait.notify"], blocked_ns);
            problems.extend(check_releaser(answer, truth, span.end_unix_ns));
        }
        "contend" => {
            expect(
                &["runq.wakeup", "runq.preempted", "throttle"],
                wait.queued_ns,
            );
            problems.extend(check_hogs(answer));
        }
        "throttle" => {
            expect(&["throttle"], wait.throttled_ns);
            expect(
                &["runq.wakeup", "runq.preempted", "throttle"],
                wait.queued_ns,
            );
        }
        other => panic!("a kind of wait that is not known: {other}"),
    }
    problems
}

/// The chain of a lock wait must lead to the thread that released it, which slept meanwhile.
fn check_releaser(answer: &Value, truth: &Truth, end_unix_ns: u64) -> Option<String> {
    let holders = truth
        .spans
        .values()
        .filter(|span| span.name == "lock.holder");
    let holder = holders.min_by_key(|span| span.end_unix_ns.abs_diff(end_unix_ns))?;
    let link = &cause(answer, "wait.notify")?["chain"][0];
    let right = link["how"] == "woke" && link["tid"] == holder.tids[0];
    let right = right && link["cause"] == "wait.sleep";
    (!right).then(|| {
        format!(
            "lock: released by {:?} from sleep, answer {link}",
            holder.tids
        )
    })
}

/// Most of the time for which others ran instead must be the hogs'.
fn check_hogs(answer: &Value) -> Option<String> {
    let queued = ["runq.wakeup", "runq.preempted"];
    let waits = queued.iter().filter_map(|name| cause(answer, name));
    let culprits = waits.flat_map(|wait| wait["culprits"].as_array().into_iter().flatten());
    let hogs = culprits.filter(|culprit| culprit["name"] == "backup");
    let hogs_ns: u64 = hogs.filter_map(|culprit| culprit["ns"].as_u64()).sum();
    let queued_ns: u64 = queued.iter().map(|name| cause_ns(answer, name)).sum();
    let blamed = hogs_ns * 10 >= queued_ns * 9;
    (!blamed).then(|| format!("contend: backup had {hogs_ns} of {queued_ns} ns: {answer}"))
}

/// The identities of contract.md: nothing is lost and nothing counted twice.
fn assert_sums(answer: &Value) {
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

fn cause<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    answer["span_causes"]
        .as_array()?
        .iter()
        .find(|cause| cause["cause"] == name)
}

fn cause_ns(answer: &Value, name: &str) -> u64 {
    cause(answer, name)
        .and_then(|cause| cause["ns"].as_u64())
        .unwrap_or(0)
}

/// Within 1 % or 1 ms, whichever is larger.
fn near(answer_ns: u64, truth_ns: u64) -> bool {
    answer_ns.abs_diff(truth_ns) <= (truth_ns / 100).max(1_000_000)
}
