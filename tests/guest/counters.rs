// SPDX-License-Identifier: Apache-2.0
//! Workers whose waits are known, under `lacuna run`, and their reports held against the kernel's
//! own final counters of each (`workers.py`).

use serde_json::Value;

use crate::machine::script;
use crate::report::Report;
use crate::report::ns;
use crate::report::run;

/// What an emulated guest may be off by: an emulated CPU can stand still between the moment that the
/// scheduler notes and the one that the program does.
const OFF_BY_NS: u64 = 20_000_000;
/// The same as a share: 1 in so many.
const OFF_BY_PART: u64 = 20;

/// A scene of `workers.py` that was run.
pub(crate) struct Scene {
    report: Report,
    notes: Vec<Value>,
}

/// One worker: what the kernel counted, and what the report says.
pub(crate) struct Worker<'a> {
    pub(crate) truth: &'a Value,
    pub(crate) thread: &'a Value,
}

impl Scene {
    /// Runs it to its end.
    pub(crate) fn run(words: &[&str]) -> Scene {
        let workers = script("workers.py");
        let command = [&["python3", &workers], words].concat();
        let ran = run(&[], &command);
        assert!(ran.status.success(), "{}", ran.said);
        Scene::of(ran.report, &ran.said)
    }

    /// One that has ended and said this.
    pub(crate) fn of(report: Report, said: &str) -> Scene {
        let lines = said.lines().filter(|line| line.starts_with('{'));
        let notes = lines.map(|line| serde_json::from_str(line).expect("JSON"));
        let scene = Scene {
            notes: notes.collect(),
            report,
        };
        assert_eq!(scene.report.lost_records(), 0, "{said}");
        scene
    }

    /// What was noted of that kind.
    pub(crate) fn notes(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let notes: Vec<&Value> = self.notes.iter().collect();
        let kind = kind.to_owned();
        notes.into_iter().filter(move |note| note["kind"] == *kind)
    }

    /// Every worker of that kind, its counters already compared.
    pub(crate) fn workers(&self, kind: &str) -> Vec<Worker<'_>> {
        let workers = self.notes(kind).map(|truth| {
            let threads = self.report.threads().iter();
            let mut own = threads.filter(|thread| thread["tid"] == truth["pid"]);
            let thread = own
                .next()
                .unwrap_or_else(|| panic!("{truth} is not in the report"));
            let worker = Worker { truth, thread };
            worker.assert_counted();
            worker
        });
        workers.collect()
    }

    /// The only one of that kind.
    pub(crate) fn worker(&self, kind: &str) -> Worker<'_> {
        let mut workers = self.workers(kind);
        assert_eq!(workers.len(), 1, "workers of kind {kind}");
        workers.remove(0)
    }
}

impl Worker<'_> {
    /// A number of the kernel's, or of its own notes.
    pub(crate) fn noted(&self, key: &str) -> u64 {
        ns(&self.truth[key])
    }

    /// A cause of the report.
    pub(crate) fn cause(&self, name: &str) -> Option<&Value> {
        let causes = self.thread["causes"].as_array().expect("causes");
        causes.iter().find(|cause| cause["cause"] == name)
    }

    /// How long; 0 without it. Unknown has several reasons.
    pub(crate) fn cause_ns(&self, name: &str) -> u64 {
        let causes = self.thread["causes"].as_array().expect("causes");
        let named = causes.iter().filter(|cause| cause["cause"] == name);
        named.map(|cause| ns(&cause["ns"])).sum()
    }

    /// How long it waited for anything but a CPU.
    pub(crate) fn blocked_ns(&self) -> u64 {
        self.in_state("blocked_ns")
    }

    fn in_state(&self, state: &str) -> u64 {
        let causes = self.thread["causes"].as_array().expect("causes");
        causes.iter().map(|cause| ns(&cause["state"][state])).sum()
    }

    /// What the report says is what the kernel counted: on the CPU, queued for one, and every switch.
    #[track_caller]
    fn assert_counted(&self) {
        let (thread, truth) = (self.thread, self.truth);
        let running = self.in_state("running_ns");
        assert!(near(running, self.noted("on_cpu_ns")), "{truth} {thread:#}");

        // Where the CPU had to be woken first the kernel counts from when it was told; whoever is on
        // its way to that CPU is queued nowhere yet.
        let behind: u64 = ["runq.wakeup", "runq.preempted", "throttle"]
            .iter()
            .map(|name| self.cause_ns(name))
            .sum();
        let queued = self.noted("queued_ns");
        let idle = self.cause_ns("runq.idle");
        assert!(
            behind < queued || near(behind, queued),
            "{truth} {thread:#}"
        );
        let all = behind + idle;
        assert!(all > queued || near(all, queued), "{truth} {thread:#}");

        let switches = &thread["switches"];
        for kind in ["voluntary", "involuntary"] {
            assert_eq!(ns(&switches[kind]), self.noted(kind), "{truth} {thread:#}");
        }
        let unknown = self.cause_ns("unknown");
        assert!(near(unknown, 0), "{truth} {thread:#}");
    }
}

/// Equal as far as emulated time can tell.
pub(crate) fn near(one: u64, other: u64) -> bool {
    one.abs_diff(other) <= OFF_BY_NS.max(other / OFF_BY_PART)
}
