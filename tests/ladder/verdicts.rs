// SPDX-License-Identifier: Apache-2.0
//! Twenty windows of two seconds for each kind of process, several kinds side by side where they do not
//! disturb each other, and a table of what was said.

use std::fs;
use std::path::Path;
use std::thread;

use crate::link::FAR_ADDRESS;
use crate::link::Link;
use crate::worker::Answer;
use crate::worker::Worker;
use crate::worker::ladder;

#[path = "../e2e/cgroup.rs"]
mod cgroup;

use cgroup::Cgroup;

const WINDOWS: usize = 20;
/// How many more are looked at, as often as that, while other work disturbs some of them.
const ATTEMPTS: usize = 3;
/// Of processes that are as any other: whether there is a quiet window for them is not up to the test.
const ORDINARY_WINDOWS: usize = 5;
const WINDOW_MS: u64 = 2_000;
/// Below this by its own clock a program was not kept waiting: 0.7 % of the window, less than the 1 % at
/// which the ladder suspects, for what the program does before and after the window.
const QUIET_NS: u64 = 14_000_000;
/// From this on, by its own clock, a program was kept waiting for a large part of the window.
const LATE_NS: u64 = 800_000_000;
/// From this on, by `cpu.stat`, a limit took most of the window. Other work on this machine can keep a
/// process from that: what has no CPU at all is not throttled.
const THROTTLED_NS: u64 = 1_200_000_000;

/// Before all other work of this machine, however busy it is; the worker leaves it some of each CPU, so
/// that the kernel need not take it.
const FIRST: [&str; 3] = ["chrt", "-f", "1"];

const WAITS: &[&str] = &["runq.preempted", "runq.wakeup"];

/// What is true of a process in a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Truth {
    /// It suffers from what it was made to suffer from.
    Sick,
    /// It suffers from nothing.
    Healthy,
    /// Other work on this machine disturbed it: it suffers less than it should, or more.
    Disturbed,
}

/// A process to look at.
struct Subject<'a> {
    name: &'static str,
    worker: &'a Worker,
    /// What it is to suffer from; none: it is healthy.
    causes: &'static [&'static str],
    /// By how much it has suffered so far, and how much of it in a window makes it sick.
    suffered: Box<dyn Fn() -> u64 + Sync + 'a>,
    sick_from: u64,
    /// Other work may keep it from being what it is in every window.
    may_be_disturbed: bool,
}

impl<'a> Subject<'a> {
    fn that_may_be_disturbed(self) -> Subject<'a> {
        Subject {
            may_be_disturbed: true,
            ..self
        }
    }

    /// Healthy as long as nobody keeps it waiting.
    fn healthy(name: &'static str, worker: &'a Worker) -> Subject<'a> {
        Subject {
            name,
            worker,
            causes: &[],
            suffered: Box::new(|| worker.late_ns()),
            sick_from: QUIET_NS,
            may_be_disturbed: false,
        }
    }

    /// Kept from its CPU, by its own clock.
    fn contended(name: &'static str, worker: &'a Worker) -> Subject<'a> {
        Subject {
            causes: WAITS,
            sick_from: LATE_NS,
            ..Subject::healthy(name, worker)
        }
    }

    fn truth(&self, suffered: u64) -> Truth {
        match (self.causes, suffered >= self.sick_from) {
            ([], false) => Truth::Healthy,
            ([_, ..], true) => Truth::Sick,
            _ => Truth::Disturbed,
        }
    }

    fn is_right(&self, truth: Truth, answer: &Answer) -> bool {
        let cause = answer.cause();
        let waits = WAITS.contains(&cause);
        match truth {
            Truth::Sick => self.causes.contains(&cause) && answer.status == 1,
            Truth::Healthy => cause == "none" && answer.status == 0,
            Truth::Disturbed => waits || cause == "none" || self.causes.contains(&cause),
        }
    }
}

/// The tally of one process.
#[derive(Default)]
struct Row {
    proved: usize,
    disturbed: usize,
    wrong: Vec<String>,
}

/// Looks at all of them at once, until each was proved in so many windows that nobody disturbed. Where
/// this machine is too busy for that, half of them must do; an answer that is wrong never does.
fn look_at(subjects: &[Subject<'_>], windows: usize) {
    let mut rows: Vec<Row> = subjects.iter().map(|_| Row::default()).collect();
    let mut looked = 0;
    let wants_more = |rows: &[Row], looked: usize| {
        let mut rows = rows.iter().zip(subjects);
        rows.any(|(row, subject)| row.proved < windows && !subject.may_be_disturbed)
            && looked < windows * ATTEMPTS
    };
    while looked < windows || wants_more(&rows, looked) {
        looked += 1;
        let look = |subject: &Subject<'_>| {
            let before = (subject.suffered)();
            let answer = ladder(subject.worker.pid(), WINDOW_MS);
            (answer, (subject.suffered)() - before)
        };
        thread::scope(|scope| {
            let looks: Vec<_> = subjects
                .iter()
                .map(|one| scope.spawn(|| look(one)))
                .collect();
            for ((row, subject), look) in rows.iter_mut().zip(subjects).zip(looks) {
                let (answer, suffered) = look.join().expect("it looked");
                let truth = subject.truth(suffered);
                row.disturbed += usize::from(truth == Truth::Disturbed);
                if !subject.is_right(truth, &answer) {
                    let said = answer.brief();
                    row.wrong.push(format!("{truth:?} ({suffered}): {said}"));
                } else if truth != Truth::Disturbed {
                    row.proved += 1;
                }
            }
        });
    }
    for (subject, row) in subjects.iter().zip(&rows) {
        eprintln!(
            "{:<20} {} of {looked} windows right, {} disturbed by other work, {} wrong",
            subject.name,
            row.proved,
            row.disturbed,
            row.wrong.len()
        );
    }
    for (subject, row) in subjects.iter().zip(&rows) {
        row.wrong
            .iter()
            .for_each(|wrong| eprintln!("{}: {wrong}", subject.name));
    }
    for (subject, row) in subjects.iter().zip(&rows) {
        assert!(row.wrong.is_empty(), "{}", subject.name);
        let proved = row.proved * 2 >= windows || subject.may_be_disturbed;
        assert!(proved, "{}: too little was proved", subject.name);
    }
}

/// What a group's limit has denied it so far, nanoseconds.
fn throttled_ns(cpu_stat: &Path) -> u64 {
    let text = fs::read_to_string(cpu_stat).expect("cpu.stat");
    let number = |key| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse::<u64>().ok()
    };
    let v2_ns = || Some(number("throttled_usec")? * 1_000);
    number("throttled_time").or_else(v2_ns).expect("a sum")
}

/// A group with a twentieth of a CPU, and the first right to it: it is the limit that denies it more.
fn limited_group() -> Cgroup {
    let group = Cgroup::create("lacuna-ladder");
    group.limit(Some(0.05));
    for (file, most) in [("cpu.shares", "262144"), ("cpu.weight", "10000")] {
        let file = group.cpu_stat().with_file_name(file);
        if file.exists() {
            fs::write(file, most).expect("its weight");
        }
    }
    group
}

#[test]
fn root_throttled_contended_and_lossy_processes_are_called_that() {
    let group = limited_group();
    let throttled = Worker::start(&[], "spin", &[]).pin(0);
    group.add(throttled.pid(), throttled.pid());
    let contended = Worker::start(&[], "spin", &[]).pin(1);
    let hogs = [(); 2].map(|()| Worker::start(&[], "spin", &[]).pin(1));

    let link = Link::create();
    let server = Worker::start(&link.far(), "serve", &[FAR_ADDRESS]);
    let address = format!("{FAR_ADDRESS}:{}", server.line("port "));
    let lossy = Worker::start(&link.near(), "ask", &[&address]);
    link.lose();

    look_at(
        &[
            Subject {
                name: "throttled",
                worker: &throttled,
                causes: &["throttle"],
                suffered: Box::new(|| throttled_ns(&group.cpu_stat())),
                sick_from: THROTTLED_NS,
                may_be_disturbed: false,
            },
            Subject::contended("contended", &contended),
            Subject {
                name: "lossy",
                worker: &lossy,
                causes: &["net.retransmit"],
                suffered: Box::new(|| link.lost()),
                sick_from: 1,
                may_be_disturbed: false,
            },
        ],
        WINDOWS,
    );
    drop((hogs, throttled));
}

#[test]
fn root_healthy_processes_are_called_healthy() {
    let idle = Worker::start(&[], "idle", &[]);
    let alone = Worker::start(&FIRST, "spin-most", &[]).pin(0);
    let on_one = ["chrt", "-f", "1", "taskset", "-c", "1"];
    let pair = Worker::start(&on_one, "ping-pong-most", &[]);
    look_at(
        &[
            Subject::healthy("idle", &idle),
            Subject::healthy("CPU-bound alone", &alone),
            Subject::healthy("ping-pong", &pair),
        ],
        WINDOWS,
    );
}

#[test]
fn root_ordinary_processes_are_called_healthy_unless_they_waited() {
    // As any process is scheduled: on a busy machine they wait, and are not healthy.
    let alone = Worker::start(&[], "spin", &[]).pin(0);
    let pair = Worker::start(&["taskset", "-c", "1"], "ping-pong", &[]);
    look_at(
        &[
            Subject::healthy("ordinary CPU-bound", &alone).that_may_be_disturbed(),
            Subject::healthy("ordinary ping-pong", &pair).that_may_be_disturbed(),
        ],
        ORDINARY_WINDOWS,
    );
}

#[test]
fn root_a_healthy_event_loop_is_told_from_a_ping_pong_beside_a_hog() {
    let event_loop = Worker::start(&FIRST, "event-loop", &[]).pin(0);
    // All three on one CPU: most waits of the pair are those of a healthy one.
    let pair = Worker::start(&["taskset", "-c", "1"], "ping-pong", &[]);
    let hog = Worker::start(&[], "spin", &[]).pin(1);
    look_at(
        &[
            Subject::healthy("event loop", &event_loop),
            Subject::contended("ping-pong beside hog", &pair),
        ],
        WINDOWS,
    );
    drop(hog);
}
