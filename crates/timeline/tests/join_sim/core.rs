// SPDX-License-Identifier: Apache-2.0
//! A small scheduler: threads with scripts on a few CPUs, and the exact record of who ran when.
//!
//! It is not a model of Linux. It only has to make the same coincidences: threads that queue, are
//! preempted, sleep, hand work on, and are on a CPU together. What a program does is its own say
//! (`programs.rs`); the clock errors and losses are added later (`observe.rs`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::VecDeque;

use super::host::BEGIN;
use super::host::Host;
use super::host::MS;
use super::host::Ns;
use super::host::Owner;
use super::host::Program;
use super::host::Rng;
use super::host::Span;
use super::host::Step;
use super::host::US;

/// What a context switch costs.
const SWITCH: Ns = 2 * US;

/// A thread and its record.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    pub(crate) owner: Owner,
    pub(crate) born: Ns,
    pub(crate) died: Option<Ns>,
    /// When it was on a CPU: from, to; both ends included.
    pub(crate) ran: Vec<(Ns, Ns)>,
    /// When a connection ended its wait, and the port at the other end.
    pub(crate) heard: Vec<(Ns, u16)>,
    /// It has been idle since it last did anything.
    waited: bool,
    script: VecDeque<Step>,
    /// What is left of the current `Run`, and whether it needs the GIL.
    left: Ns,
    free: bool,
    on_since: Ns,
    /// What is left of its time slice.
    budget: Ns,
    pub(crate) idle: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake(usize),
    Tick(usize),
    Timer(u64),
}

pub(crate) struct Core {
    pub(crate) now: Ns,
    pub(crate) rng: Rng,
    pub(crate) threads: Vec<Thread>,
    pub(crate) spans: Vec<Span>,
    /// Who took a request without a wait, and the port at the other end.
    pub(crate) took: Vec<(Ns, usize, u16)>,
    cpus: Vec<Option<usize>>,
    /// With a GIL, CPU 0 is the one that holders run on.
    gil: bool,
    slice: Ns,
    ready: [VecDeque<usize>; 2],
    events: BinaryHeap<Reverse<(Ns, u64, Event)>>,
    serial: u64,
}

impl Host for Core {
    fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    fn spawn(&mut self, owner: Owner, script: &[Step]) -> usize {
        let id = self.threads.len();
        let script = script.iter().copied().collect();
        self.threads.push(Thread {
            owner,
            born: self.now,
            script,
            ..Thread::default()
        });
        self.post(self.now + 20 * US, Event::Wake(id));
        id
    }

    fn give(&mut self, thread: usize, script: &[Step]) {
        self.threads[thread].script.extend(script);
        if std::mem::take(&mut self.threads[thread].idle) {
            self.threads[thread].waited = true;
            let latency = 3 * US + self.rng.around(5 * US);
            self.post(self.now + latency, Event::Wake(thread));
        }
    }

    fn timer(&mut self, after: Ns, what: u64) {
        self.post(self.now + after, Event::Timer(what));
    }

    fn spans(&mut self) -> &mut Vec<Span> {
        &mut self.spans
    }
}

impl Core {
    pub(crate) fn new(seed: u64, cpus: usize, gil: bool) -> Core {
        Core {
            now: BEGIN,
            rng: Rng(seed),
            threads: Vec::new(),
            spans: Vec::new(),
            took: Vec::new(),
            cpus: vec![None; cpus],
            gil,
            slice: if gil { 5 * MS } else { 3 * MS },
            ready: [VecDeque::new(), VecDeque::new()],
            events: BinaryHeap::new(),
            serial: 0,
        }
    }

    fn post(&mut self, at: Ns, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, event)));
    }

    /// Runs until `spans` spans have ended.
    pub(crate) fn run(&mut self, program: &mut dyn Program, spans: usize) {
        program.begin(self);
        let mut steps = 0_u64;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            steps += 1;
            self.now = at.max(self.now);
            match event {
                Event::Timer(what) => program.told(self, what),
                Event::Wake(thread) => self.woken(program, thread),
                Event::Tick(cpu) => self.tick(program, cpu),
            }
            if self.spans.len() >= spans + 200 || steps > 400 * spans as u64 + 1_000_000 {
                break;
            }
        }
        for thread in &mut self.threads {
            if thread.on_since > 0 {
                thread.ran.push((thread.on_since, self.now));
            }
        }
    }

    /// A thread became runnable.
    fn woken(&mut self, program: &mut dyn Program, thread: usize) {
        if self.threads[thread].left == 0 && !self.advance(program, thread) {
            return;
        }
        self.enqueue(thread);
    }

    fn enqueue(&mut self, thread: usize) {
        let lane = usize::from(self.gil && self.threads[thread].free);
        self.ready[lane].push_back(thread);
        self.dispatch();
    }

    fn dispatch(&mut self) {
        for cpu in 0..self.cpus.len() {
            if self.cpus[cpu].is_some() {
                continue;
            }
            let lane = usize::from(self.gil && cpu > 0);
            let Some(thread) = self.ready[lane].pop_front() else {
                continue;
            };
            self.cpus[cpu] = Some(thread);
            self.threads[thread].on_since = self.now + SWITCH;
            self.threads[thread].budget = self.slice;
            self.now_runs(cpu, thread, SWITCH);
        }
    }

    fn now_runs(&mut self, cpu: usize, thread: usize, after: Ns) {
        let runs = &mut self.threads[thread];
        if runs.budget == 0 {
            runs.budget = self.slice;
        }
        let chunk = runs.left.min(runs.budget);
        runs.left -= chunk;
        runs.budget -= chunk;
        self.post(self.now + after + chunk, Event::Tick(cpu));
    }

    /// The running thread's chunk is over.
    fn tick(&mut self, program: &mut dyn Program, cpu: usize) {
        let Some(thread) = self.cpus[cpu] else { return };
        let lane = usize::from(self.gil && cpu > 0);
        let goes_on = self.threads[thread].left > 0 || self.advance(program, thread);
        let moves = self.gil && usize::from(self.threads[thread].free) != lane;
        let may_stay = self.threads[thread].budget > 0 || self.ready[lane].is_empty();
        if goes_on && !moves && may_stay {
            self.now_runs(cpu, thread, 0);
            return;
        }
        let since = std::mem::take(&mut self.threads[thread].on_since);
        self.threads[thread].ran.push((since, self.now));
        self.cpus[cpu] = None;
        if goes_on {
            self.enqueue(thread);
        } else {
            self.dispatch();
        }
    }

    /// Takes zero-time steps up to the next stretch on a CPU; false: the thread blocks or ends.
    fn advance(&mut self, program: &mut dyn Program, thread: usize) -> bool {
        let on_cpu = self.threads[thread].on_since > 0;
        loop {
            let Some(&step) = self.threads[thread].script.front() else {
                program.idle(self, thread);
                if self.threads[thread].script.is_empty() {
                    self.threads[thread].idle = true;
                    return false;
                }
                continue;
            };
            // A step that is done by the thread itself needs it on a CPU, and the GIL.
            let able = on_cpu && !(self.gil && self.threads[thread].free);
            if !able && !matches!(step, Step::Run(_) | Step::RunFree(_) | Step::Block(_)) {
                self.threads[thread].left = US / 2;
                self.threads[thread].free = false;
                return true;
            }
            self.threads[thread].script.pop_front();
            let waited = std::mem::take(&mut self.threads[thread].waited);
            match step {
                Step::Run(ns) | Step::RunFree(ns) => {
                    self.threads[thread].left = ns.max(1);
                    self.threads[thread].free = matches!(step, Step::RunFree(_));
                    return true;
                }
                Step::Block(ns) => {
                    self.post(self.now + ns, Event::Wake(thread));
                    return false;
                }
                Step::Start(span) => {
                    self.spans[span].start = self.now;
                    self.spans[span].start_thread = thread;
                }
                Step::End(span) => {
                    self.spans[span].end = self.now;
                    self.spans[span].end_thread = thread;
                }
                Step::Heard(port) if waited => {
                    let now = self.now;
                    self.threads[thread].heard.push((now, port));
                }
                Step::Heard(_) => {}
                Step::Took(port) => self.took.push((self.now, thread, port)),
                Step::Tell(what) => program.told(self, what),
                Step::Exit => {
                    self.threads[thread].died = Some(self.now);
                    self.threads[thread].script.clear();
                    return false;
                }
            }
        }
    }
}
