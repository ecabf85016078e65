// SPDX-License-Identifier: Apache-2.0
//! Known waits inside known spans: the causes of the answer against the program's own clock and the
//! kernel's own counters.
//!
//! A cause is right within 1 % or 1 ms of the truth, whichever is larger. What the thread spent on a
//! CPU or queued for one during a wait is no part of the wait: schedstat says how much that was.
//! schedstat is no judge of a single switch (docs/testing.md), but of a span with many.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::agent::Agent;
use crate::answer::assert_sums;
use crate::answer::cause;
use crate::answer::cause_ns;
use crate::answer::explanation;
use crate::answer::near;
use crate::cgroup::Cgroup;
use crate::process::Process;
use crate::programs::Program;
use crate::programs::Running;
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
/// More runnable threads than CPUs.
const HOGS: usize = 4;
/// Few enough for each to be named in each wait, also where other programs run.
const RIVALS: usize = 2;
/// The CPU limit of the throttled kind.
const CPU_LIMIT: f64 = 0.15;
/// How long a phase of the program, and then an answer, may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// What schedstat counts as queued.
const QUEUED: [&str; 3] = ["runq.wakeup", "runq.preempted", "throttle"];
/// The kinds of `programs/python/waits.py`, in its order.
const KINDS: [&str; 6] = ["sleep", "lock", "pipe", "contend", "share", "throttle"];

/// Runs `waits.py` against an agent and checks every long wait.
pub(crate) fn check_known_waits(transport: Transport) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(directory.path());
    let truth = run_waits(&agent, transport, directory.path());

    eprintln!("\nkind      truth ms  answer ms  cause");
    let mut problems = Vec::new();
    for kind in KINDS {
        // The long ones are the last.
        let waits = truth.waits.iter().rev().filter(|wait| wait.kind == kind);
        let answers: Vec<(Value, TrueWait)> = waits
            .take(LONG_WAITS)
            .map(|wait| (explanation(&agent, wait), wait.clone()))
            .collect();
        for (answer, wait) in &answers {
            problems.extend(check_wait(answer, wait, &truth));
        }
        if kind == "contend" {
            problems.extend(check_hogs(&answers));
        }
        let denied_ns: u64 = answers.iter().map(|(_, wait)| wait.throttled_ns).sum();
        assert!(
            kind != "throttle" || denied_ns > 0,
            "the limit was never reached"
        );
    }
    assert!(
        problems.is_empty(),
        "{}\nthe agent counted: {}\nand said:\n{}",
        problems.join("\n"),
        agent.get("/healthz").1,
        agent.tail()
    );
}

/// Proves the truth itself: what the program reads of itself is of one instant.
pub(crate) fn check_readings() {
    let status = Command::new(repository(".cache/venv/bin/python"))
        .arg(repository("tests/e2e/programs/python/readings_test.py"))
        .status()
        .expect("python can be run");
    assert!(status.success(), "a torn reading was believed");
}

/// Runs `mutex.c`: its quick spans are exported, so that their kind is learned; the slow one is
/// asked about in a file, and its one wait is checked.
pub(crate) fn check_mutex() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let agent = Agent::start(directory.path());
    let [quick, slow] = ["quick.json", "slow.json"].map(|name| directory.path().join(name));
    let mut command = Command::new(repository("target/programs/mutex"));
    command.args([&quick, &slow]);
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
    agent.export_json(&fs::read_to_string(&quick).expect("the program wrote its spans"));
    wait_until_answered(&agent, "mutex");

    let answers = agent.explain(&["--spans", slow.to_str().expect("a UTF-8 path")]);
    let answer = answers.values().next().expect("the span is answered");
    assert_eq!(answer["status"], "complete", "{answer}");
    assert_eq!(answer["join"]["how"], "attribute", "{answer}");
    assert_eq!(answer["join"]["tid"], program.pid(), "{answer}");
    assert_sums(answer);
    let lock = cause(answer, "lock.futex").unwrap_or_else(|| panic!("no lock.futex in {answer}"));
    let lock_ns = lock["ns"].as_u64().unwrap_or(0);
    assert!(
        near(lock_ns, waited_ns, 0),
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
    let ready = |running: &Running, kind: &str| {
        running
            .process
            .wait_for_line(&format!("ready {kind}"), PATIENCE);
    };
    for kind in ["sleep", "lock", "pipe"] {
        ready(&running, kind);
        running.process.say("");
    }

    for (kind, hogs, next) in [("contend", HOGS, "share"), ("share", RIVALS, "throttle")] {
        ready(&running, kind);
        let hogs: Vec<Process> = (0..hogs).map(|_| start_hog()).collect();
        let pids: Vec<String> = hogs.iter().map(|hog| hog.pid().to_string()).collect();
        running.process.say(&pids.join(" "));
        ready(&running, next);
    }

    // Not before: in a cgroup of its own it would have had a CPU to itself beside the hogs. Only the
    // thread that is measured: `cpu.stat` counts queues, one a CPU (rule 7), so another thread that
    // is denied the other CPU meanwhile would count double.
    let main_thread = running.process.pid();
    cgroup.add(running.process.pid(), main_thread);
    cgroup.limit(Some(CPU_LIMIT));
    running.process.say("");
    ready(&running, "end");
    cgroup.limit(None);
    running.process.say("");
    running.wait_until_done();
    Truth::read(&running.truth)
}

/// Waits until every span of a service that came so far is answered.
fn wait_until_answered(agent: &Agent, service: &str) {
    let deadline = Instant::now() + PATIENCE;
    let pending = |answer: &Value| answer["status"] == "pending";
    loop {
        let answers = agent.spans(service);
        if !answers.is_empty() && !answers.values().any(pending) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "no answers about {service}:\n{}",
            agent.tail()
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
    // What the thread did in the span before and after the readings is in the answer and not in the
    // truth; under load it may be preempted there.
    let outside_ns = answer["wall_ns"]
        .as_u64()
        .unwrap_or(0)
        .saturating_sub(wait.wall_ns);
    let blocked_ns = wait.wall_ns.saturating_sub(wait.on_cpu_ns + wait.queued_ns);
    let mut expect = |causes: &[&str], truth_ns: u64| {
        let answer_ns: u64 = causes.iter().map(|name| cause_ns(answer, name)).sum();
        let (truth_ms, answer_ms) = (truth_ns as f64 / 1e6, answer_ns as f64 / 1e6);
        let names = causes.join(" + ");
        eprintln!("{:<8}{truth_ms:>10.3}{answer_ms:>11.3}  {names}", wait.kind);
        if !near(answer_ns, truth_ns, outside_ns) {
            problems.push(format!(
                "{}: {names} {answer_ms} ms, not {truth_ms} ms, in {}",
                wait.kind, answer["span_causes"]
            ));
        }
    };
    match wait.kind.as_str() {
        "sleep" => expect(&["wait.sleep"], blocked_ns),
        "pipe" => expect(&["wait.pipe"], blocked_ns),
        "lock" => {
            // Beside the lock there is the interpreter's, a mutex of glibc: its holder may be preempted.
            expect(&["wait.notify", "lock.futex"], blocked_ns);
            problems.extend(check_releaser(answer, truth, span.end_unix_ns));
        }
        "contend" => expect(&QUEUED, wait.queued_ns),
        "share" => {
            expect(&QUEUED, wait.queued_ns);
            problems.extend(check_share(answer, wait, outside_ns));
        }
        "throttle" => {
            expect(&QUEUED, wait.queued_ns);
            expect(&["throttle"], wait.throttled_ns);
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
    let holder = holders.min_by_key(|span| span.end_unix_ns.abs_diff(end_unix_ns));
    let holder = holder.expect("the program notes its holders");
    let link = cause(answer, "wait.notify").map_or(&Value::Null, |cause| &cause["chain"][0]);
    let right = link["how"] == "woke" && link["tid"] == holder.tids[0];
    let right = right && link["cause"] == "wait.sleep";
    (!right).then(|| {
        format!(
            "lock: released by {:?} from sleep, answer {link}",
            holder.tids
        )
    })
}

/// The hogs must be blamed for what they had of the CPU that the thread waited for.
///
/// That is all that they ran meanwhile, less what they can have run on the other CPUs: at most the
/// whole time on each. So it is a lower bound, and a sharp one where the hogs have the machine to
/// themselves.
fn check_hogs(answers: &[(Value, TrueWait)]) -> Option<String> {
    let others = thread::available_parallelism().map_or(1, usize::from) as u64 - 1;
    let of_hogs =
        |(answer, _): &(Value, TrueWait)| blamed_ns(answer, |culprit| culprit["name"] == "backup");
    let blamed_ns: u64 = answers.iter().map(of_hogs).sum();
    let sum = |of: fn(&TrueWait) -> u64| -> u64 { answers.iter().map(|(_, wait)| of(wait)).sum() };
    let least_ns = sum(|wait| wait.rivals_ns).saturating_sub(others * sum(|wait| wait.wall_ns));
    let queued_ns = sum(|wait| wait.queued_ns);
    let percent = |ns: u64| 100.0 * ns as f64 / queued_ns as f64;
    let (blamed, least) = (percent(blamed_ns), percent(least_ns));
    eprintln!(
        "contend: backup had at least {least:.1} % of the wait, and {blamed:.1} % of the blame"
    );
    (blamed < least - 5.0).then(|| {
        format!("contend: backup had at least {least} % of the wait, and {blamed} % of the blame")
    })
}

/// On one CPU the hogs have run for exactly as long as the thread waited for them: that is their
/// blame, but for waits in which more others ran than are named.
fn check_share(answer: &Value, wait: &TrueWait, outside_ns: u64) -> Option<String> {
    let hogs_ns = blamed_ns(answer, |culprit| culprit["name"] == "backup");
    let unnamed_ns = blamed_ns(answer, |culprit| {
        culprit["kind"] == "rest" || culprit["kind"] == "uncovered"
    });
    let ran_ns = wait.rivals_ns;
    let right = near(
        ran_ns.clamp(hogs_ns, hogs_ns + unnamed_ns),
        ran_ns,
        outside_ns,
    );
    let line = format!(
        "share: backup ran {} ms, is blamed for {} ms, and {} ms are not named",
        ran_ns as f64 / 1e6,
        hogs_ns as f64 / 1e6,
        unnamed_ns as f64 / 1e6
    );
    eprintln!("{line}");
    (!right).then_some(line)
}

/// Of the time on queues, what some culprits are blamed for.
fn blamed_ns(answer: &Value, is_one: impl Fn(&Value) -> bool) -> u64 {
    let causes = ["runq.wakeup", "runq.preempted"].into_iter();
    let causes = causes.filter_map(|name| cause(answer, name));
    let culprits = causes.flat_map(|cause| cause["culprits"].as_array().into_iter().flatten());
    culprits
        .filter(|culprit| is_one(culprit))
        .filter_map(|culprit| culprit["ns"].as_u64())
        .sum()
}
