// SPDX-License-Identifier: Apache-2.0
//! `lacuna blind` held against the kernel's own counters, and what it leaves behind: nothing.
//!
//! Nothing is expected of the machine to be quiet. What the bursts say of themselves is bracketed by
//! `/proc/PID/schedstat` of the process that makes them: time on a CPU and time queued for one.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::ClockId;
use serde_json::Value;

use crate::now_ns;
use crate::number;
use crate::program::Program;
use crate::program::as_nobody;
use crate::program::lacuna;
use crate::program::through;
use crate::until;

/// As many culprits as an answer names.
const CULPRITS_MAX: usize = 16;
/// What schedstat may lag behind: a thread on a CPU is charged at ticks.
const TICK_NS: u64 = 10_000_000;

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// How long a process has been on a CPU and queued for one.
#[derive(Clone, Copy, Debug)]
struct Schedstat {
    run_ns: u64,
    delay_ns: u64,
}

fn schedstat(pid: u32) -> Option<Schedstat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(|word| word.parse().ok());
    Some(Schedstat {
        run_ns: numbers.next()??,
        delay_ns: numbers.next()??,
    })
}

/// State and parent of a process, behind whatever it calls itself.
fn state_and_parent(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

fn comm(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    text.trim_end().to_owned()
}

/// The living children of a process, by what they are called.
fn children(parent: u32) -> Vec<(u32, String)> {
    let entries = std::fs::read_dir("/proc").expect("processes");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let own = pids.filter(|pid| {
        state_and_parent(*pid).is_some_and(|(state, its)| its == parent && state != "Z")
    });
    own.map(|pid| (pid, comm(pid))).collect()
}

/// Whether a process of `lacuna blind` is no more.
fn is_gone(pid: u32) -> bool {
    // The dead may wait to be taken away; and the number may be another's by now.
    state_and_parent(pid).is_none_or(|(state, _)| state == "Z") || !comm(pid).starts_with("lacuna-")
}

fn blind(words: &[&str]) -> Command {
    let mut command = lacuna();
    command.args(["blind", "--format", "json"]).args(words);
    command
}

/// Every burst is what ran and its gap, every run its bursts; and where causes are named, they are the
/// gap of every burst and of every run, to the nanosecond.
#[track_caller]
fn assert_adds_up(report: &Value) {
    let sum = |list: &[Value], part: &str| list.iter().map(|one| number(&one[part])).sum::<u64>();
    let named = report.get("causes_missing").is_none();
    for run in list(&report["runs"]) {
        let samples = list(&run["samples"]);
        assert_eq!(samples.len() as u64, number(&report["bursts"]));
        let mut by_cause: BTreeMap<&str, u64> = BTreeMap::new();
        for sample in samples {
            let (wall_ns, gap_ns) = (number(&sample["wall_ns"]), number(&sample["gap_ns"]));
            assert_eq!(number(&sample["on_cpu_ns"]) + gap_ns, wall_ns, "{sample:#}");
            assert_eq!(
                !list(&sample["causes"]).is_empty(),
                named && gap_ns > 0,
                "{sample:#}"
            );
            for cause in list(&sample["causes"]) {
                let name = cause["cause"].as_str().expect("a name");
                *by_cause.entry(name).or_default() += number(&cause["ns"]);
            }
            let causes_ns = sum(list(&sample["causes"]), "ns");
            assert_eq!(causes_ns, if named { gap_ns } else { 0 }, "{sample:#}");
        }
        for part in ["wall_ns", "on_cpu_ns", "gap_ns", "clock_excess_ns"] {
            assert_eq!(number(&run["total"][part]), sum(samples, part), "{part}");
        }
        for cause in list(&run["causes"]) {
            let name = cause["cause"].as_str().expect("a name");
            assert_eq!(by_cause.remove(name), Some(number(&cause["ns"])), "{name}");
        }
        assert_eq!(
            by_cause,
            BTreeMap::new(),
            "causes of bursts that the run has not"
        );
        for figure in ["wall_ns", "on_cpu_ns", "gap_ns"] {
            let mut values: Vec<u64> = samples.iter().map(|one| number(&one[figure])).collect();
            values.sort_unstable();
            let at = |percent: usize| values[(values.len() * percent).div_ceil(100) - 1];
            assert_eq!(number(&run[figure]["p50"]), at(50), "{figure}");
            assert_eq!(number(&run[figure]["p99"]), at(99), "{figure}");
        }
        let share = number(&run["gap_ns"]["p50"]) as f64 / number(&run["wall_ns"]["p50"]) as f64;
        // A parser may round the last digit.
        let stated = run["gap_share"].as_f64().expect("a share");
        assert!((stated - share).abs() < 1e-9, "{stated}, not {share}");
    }
}

/// The process of the bursts, without Lacuna around it: its parent is this test.
struct Burster {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Burster {
    fn start() -> Burster {
        let mut child = lacuna()
            .args(["__blind", "--", &std::process::id().to_string()])
            .args(["lacuna-burst", "100000000"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("lacuna starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = stdout.lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "ready");
        Burster { child, lines }
    }

    /// What the kernel says of it while it waits.
    fn waiting(&self) -> Schedstat {
        let pid = self.child.id();
        until("it waits", || {
            let (state, _) = state_and_parent(pid)?;
            (state == "S").then_some(())
        });
        schedstat(pid).expect("it is there")
    }

    /// So many bursts: wall time and time on a CPU of all of them.
    fn bursts(&mut self, count: usize) -> (u64, u64) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{count}").expect("it reads");
        let (mut wall_ns, mut on_cpu_ns) = (0, 0);
        for _ in 0..count {
            let line = self.lines.next().expect("a line").expect("text");
            let numbers: Vec<u64> = line
                .split(' ')
                .map(|word| word.parse().expect("a number"))
                .collect();
            wall_ns += numbers[1] - numbers[0];
            on_cpu_ns += numbers[2];
        }
        (wall_ns, on_cpu_ns)
    }
}

impl Drop for Burster {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Uses CPUs for nothing until dropped.
struct Hog(Child);

impl Drop for Hog {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Bursts with so many hogs of the test's own, by the process's own clocks and by the kernel's counters.
fn assert_bursts_are_as_the_kernel_has_them(hogs: usize) {
    let hog = || {
        let mut command = Command::new("sh");
        Hog(command
            .args(["-c", "while :; do :; done"])
            .spawn()
            .expect("sh"))
    };
    let mut burster = Burster::start();
    let _hogs: Vec<Hog> = (0..hogs).map(|_| hog()).collect();
    let before = burster.waiting();
    let from_ns = now_ns(ClockId::Monotonic);
    let (wall_ns, on_cpu_ns) = burster.bursts(5);
    let after = burster.waiting();
    let elapsed_ns = now_ns(ClockId::Monotonic) - from_ns;
    let outside_ns = elapsed_ns - wall_ns;
    let run_ns = after.run_ns - before.run_ns;
    let delay_ns = after.delay_ns - before.delay_ns;
    let what = format!(
        "wall {wall_ns}, on CPU {on_cpu_ns}, outside {outside_ns}; schedstat: ran {run_ns}, queued {delay_ns}"
    );
    // What ran within the bursts ran, and what ran besides was outside of them.
    assert!(on_cpu_ns <= run_ns + TICK_NS, "{what}");
    assert!(run_ns <= on_cpu_ns + outside_ns + TICK_NS, "{what}");
    // It waits for nothing else than a CPU within a burst: whatever it queued for is in the gaps, or outside.
    assert!(
        delay_ns <= (wall_ns - on_cpu_ns) + outside_ns + TICK_NS,
        "{what}"
    );
    // The work is the same whoever is beside: about what it was calibrated to.
    assert!((200_000_000..1_000_000_000).contains(&on_cpu_ns), "{what}");
}

#[test]
fn root_bursts_alone_are_as_the_kernel_has_them() {
    assert_bursts_are_as_the_kernel_has_them(0);
}

#[test]
fn root_bursts_beside_hogs_are_as_the_kernel_has_them() {
    assert_bursts_are_as_the_kernel_has_them(4);
}

#[test]
fn root_causes_of_every_burst_add_up_and_agree_with_the_kernels_queueing() {
    let directory = tempfile::tempdir().expect("a directory");
    let picture = directory.path().join("blind.svg");
    let offset_ns = now_ns(ClockId::Realtime) - now_ns(ClockId::Monotonic);
    let words = [
        "--bursts",
        "6",
        "--hogs",
        "6",
        "--svg",
        picture.to_str().expect("UTF-8"),
    ];
    let mut running = blind(&words)
        .stdout(Stdio::piped())
        .spawn()
        .expect("lacuna starts");
    // All that the kernel says of the process of the bursts while that lives.
    let lacuna = running.id();
    let burster = until("the process of the bursts", || {
        let mut found = children(lacuna).into_iter();
        found
            .find(|(_, comm)| comm == "lacuna-burst")
            .map(|(pid, _)| pid)
    });
    let mut seen: Vec<(u64, Schedstat)> = Vec::new();
    while let Some(stat) = schedstat(burster).filter(|_| !is_gone(burster)) {
        seen.push((now_ns(ClockId::Monotonic), stat));
        thread::sleep(Duration::from_millis(2));
        assert!(seen.len() < 1_000_000, "it never ends");
    }
    let mut text = String::new();
    let mut stdout = running.stdout.take().expect("piped");
    std::io::Read::read_to_string(&mut stdout, &mut text).expect("text");
    assert!(running.wait().expect("it ends").success(), "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        report.get("causes_missing").is_none(),
        "{:#}",
        report["causes_missing"]
    );
    assert_adds_up(&report);
    let names: Vec<&Value> = list(&report["runs"])
        .iter()
        .map(|run| &run["name"])
        .collect();
    assert_eq!(names, ["quiet", "contended"]);

    for run in list(&report["runs"]) {
        assert_queued_as_the_kernel_has_it(run, &seen, offset_ns);
        // Two clocks of the kernel's, stamped some microseconds apart at each switch.
        let total = &run["total"];
        let (excess_ns, on_cpu_ns) = (
            number(&total["clock_excess_ns"]),
            number(&total["on_cpu_ns"]),
        );
        assert!(excess_ns <= on_cpu_ns / 50, "{total:#}");
    }
    let contended = &list(&report["runs"])[1];
    let preempted = list(&contended["causes"])
        .iter()
        .find(|cause| cause["cause"] == "runq.preempted");
    let culprits = list(&preempted.expect("hogs ran instead")["culprits"]);
    let hogs = culprits
        .iter()
        .filter(|culprit| culprit["name"] == "lacuna-hog");
    let named = culprits
        .iter()
        .filter(|culprit| culprit["kind"] == "thread");
    // The largest are named; where no hog is, that many others had more of the CPU than any.
    assert!(
        hogs.count() > 0 || named.count() >= CULPRITS_MAX,
        "{contended:#}"
    );
    let picture = std::fs::read_to_string(picture).expect("a picture");
    assert_eq!(picture.matches("<title>burst ").count(), 12);
}

/// What a run says its bursts queued for a CPU, against the growth of the run delay around them and of
/// what of it can only have been between them.
fn assert_queued_as_the_kernel_has_it(run: &Value, seen: &[(u64, Schedstat)], offset_ns: u64) {
    let samples = list(&run["samples"]);
    let start = |sample: &Value| number(&sample["start_unix_ns"]) - offset_ns;
    let from_ns = start(&samples[0]);
    let last = &samples[samples.len() - 1];
    let to_ns = start(last) + number(&last["wall_ns"]);
    // Looked at every few milliseconds; where the machine is busy, less often.
    let before = seen
        .iter()
        .rfind(|(at, _)| *at < from_ns)
        .expect("seen before");
    let after = seen.iter().find(|(at, _)| *at > to_ns);
    let after = after.or(seen.last()).expect("seen after");
    let delay_ns = after.1.delay_ns - before.1.delay_ns;
    // Time around the bursts in which it may have queued as well, or that was not seen any more.
    let around_ns = (to_ns - from_ns) - number(&run["total"]["wall_ns"])
        + (from_ns - before.0)
        + after.0.abs_diff(to_ns);
    let causes = list(&run["causes"]);
    let queued = causes.iter().filter(|cause| {
        let name = cause["cause"].as_str().expect("a name");
        ["runq.preempted", "runq.wakeup", "throttle"].contains(&name)
    });
    let (mut queued_ns, mut waits) = (0, 0);
    for cause in queued {
        queued_ns += number(&cause["ns"]);
        waits += number(&cause["count"]);
    }
    let unknown = causes.iter().find(|cause| cause["cause"] == "unknown");
    let unknown_ns = unknown.map_or(0, |cause| number(&cause["ns"]));
    // Rule of the probes' own tests: 1 % and some microseconds a wait; and what a tick hides at each end.
    let slack_ns = delay_ns / 50 + waits * 5_000 + around_ns + 2 * TICK_NS;
    let what =
        format!("queued {queued_ns} in {waits}, kernel {delay_ns}, around {around_ns}: {run:#}");
    assert!(queued_ns <= delay_ns + slack_ns, "{what}");
    assert!(delay_ns <= queued_ns + unknown_ns + slack_ns, "{what}");
}

#[test]
fn root_without_privilege_it_says_what_is_missing_and_measures() {
    let command = as_nobody(blind(&["--bursts", "3", "--hogs", "2"]));
    let (status, said) = Program::start(command).end();
    assert_eq!(status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_str(&said).expect("JSON");
    let why = report["causes_missing"].as_str().expect("a reason");
    assert!(why.contains("CAP_BPF and CAP_PERFMON are missing"), "{why}");
    assert_adds_up(&report);
    for run in list(&report["runs"]) {
        assert_eq!(run["causes"], serde_json::json!([]));
    }
    let mut text = lacuna();
    text.args(["blind", "--bursts", "1", "--only", "quiet"]);
    let (status, said) = Program::start(as_nobody(text)).end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(
        said.contains("no causes: cannot load the probes: "),
        "{said}"
    );
}

/// Starts a long measurement, waits until all of its processes are at work, ends it by that signal, and
/// waits until none of them is left.
fn assert_nothing_is_left_by(signal: Signal) {
    // Whoever runs the tests in the background may have them ignore signals.
    let mut command = through(&["env", "--default-signal"]);
    command.args([
        "blind",
        "--only",
        "contended",
        "--hogs",
        "3",
        "--bursts",
        "1000",
    ]);
    let mut running = Program::start(as_nobody(command));
    let lacuna = running.pid();
    let at_work = until("three hogs", || {
        let found = children(lacuna);
        // They run, or could: a hog waits for nothing.
        let runs = |pid| state_and_parent(pid).is_some_and(|(state, _)| state == "R");
        let hogs = found
            .iter()
            .filter(|(pid, comm)| comm == "lacuna-hog" && runs(*pid));
        (hogs.count() == 3 && found.len() == 4).then_some(found)
    });
    running.signal(signal);
    let (status, said) = running.end();
    assert_eq!(status.signal(), Some(signal.as_raw()), "{said}");
    for (pid, comm) in at_work {
        // Whatever ended Lacuna, at once or soon.
        until(&format!("the end of {comm} {pid}"), || {
            is_gone(pid).then_some(())
        });
    }
}

#[test]
fn root_an_interrupt_leaves_nothing_behind() {
    assert_nothing_is_left_by(Signal::INT);
}

#[test]
fn root_a_request_to_end_leaves_nothing_behind() {
    assert_nothing_is_left_by(Signal::TERM);
}

#[test]
fn root_being_killed_leaves_nothing_behind() {
    assert_nothing_is_left_by(Signal::KILL);
}
