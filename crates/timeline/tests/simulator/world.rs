// SPDX-License-Identifier: Apache-2.0
//! A simulated scheduler: CPUs with queues, and threads that run, block, wake, are preempted,
//! migrate, are throttled, enter detours, are born and die. It marks the truth as it goes and tells
//! `kernel.rs` what the tracepoints would have seen. It knows nothing of the recorder.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use lacuna_timeline::Cause;
use lacuna_timeline::Ns;
use lacuna_timeline::ThreadId;
use lacuna_timeline::cause::detour_cause;
use lacuna_timeline::event::DetourKind;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Waker;

use crate::kernel::Kernel;
use crate::kernel::waits;
use crate::parts::Cpu;
use crate::parts::Place;
use crate::parts::Step;
use crate::parts::Thread;
use crate::rng::Rng;
use crate::truth::Times;
use crate::truth::Truth;

/// Detours shorter than this would be sums (rule 8); the simulator makes none.
const DETOUR_NS_MIN: Ns = 10_000;

/// Who ran on a CPU, and when.
pub(crate) type Occupancy = Vec<(ThreadId, Range<Ns>)>;

/// The whole simulated host.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Ns,
    pub(crate) threads: Vec<Thread>,
    pub(crate) kernel: Kernel,
    /// Who ran where, by CPU.
    pub(crate) occupancy: Vec<Occupancy>,
    cpus: Vec<Cpu>,
    agenda: BinaryHeap<Reverse<(Ns, u64, Step)>>,
    steps: u64,
    end: Ns,
    births_left: u32,
}

impl World {
    /// A host with so many CPUs and threads, that runs for so long.
    pub(crate) fn run(seed: u64, cpus: usize, threads: usize, length: Ns) -> World {
        let start = 1_000_000;
        let mut world = World {
            rng: Rng::new(seed),
            now: start,
            threads: Vec::new(),
            kernel: Kernel::default(),
            occupancy: vec![Vec::new(); cpus],
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            agenda: BinaryHeap::new(),
            steps: 0,
            end: start + length,
            births_left: threads as u32,
        };
        for _ in 0..threads {
            world.birth();
        }
        world.later(20_000, Step::Balance);
        world.later(50_000, Step::Limit);
        while let Some(Reverse((at, _, step))) = world.agenda.pop() {
            if at >= world.end {
                break;
            }
            world.now = at;
            world.step(step);
        }
        world.now = world.end;
        world.finish();
        world
    }

    fn later(&mut self, delay: Ns, step: Step) {
        self.steps += 1;
        self.agenda
            .push(Reverse((self.now + delay, self.steps, step)));
    }

    fn birth(&mut self) {
        let at = self.threads.len();
        let id = ThreadId(100 + at as u64);
        self.threads.push(Thread {
            id,
            born: self.now,
            died: None,
            first_in: None,
            truth: Truth::new(self.now, Cause::RunqIdle),
            running: Times::default(),
            queued: Vec::new(),
            detours: Vec::new(),
            cpu: 0,
            place: Place::Moving,
            since: self.now,
            woken: true,
            migrated: false,
            turn: 0,
        });
        self.kernel.born(id, self.now);
        let cpu = self.any_cpu();
        self.later(500, Step::Enqueue(at, cpu));
    }

    fn any_cpu(&mut self) -> usize {
        self.rng.below(self.cpus.len() as u64) as usize
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::BurstEnd(at, turn) if self.threads[at].turn == turn => self.decide(at),
            Step::SliceEnd(cpu, turn) if self.cpus[cpu].turn == turn => self.slice_end(cpu),
            Step::BurstEnd(..) | Step::SliceEnd(..) => {}
            Step::Wake(at) => self.wake(at),
            Step::Enqueue(at, cpu) => self.enqueue(at, cpu),
            Step::LeaveIdle(cpu) => {
                self.cpus[cpu].leaving_idle = false;
                self.pick(cpu, true);
            }
            Step::Balance => self.balance(),
            Step::Limit => self.limit(),
            Step::LetGo(at) => self.let_go(at),
        }
    }

    /// What a running thread does next.
    fn decide(&mut self, at: usize) {
        match self.rng.below(20) {
            0 => self.yields(at),
            1 => self.sleeps_without_waking(at),
            2 if self.threads.len() > 3 => self.exits(at),
            3 => self.kernel.renamed(self.threads[at].id, self.now),
            4 | 5 if self.threads[at].detours.len() < 3 => self.enters_detour(at),
            6..=9 if !self.threads[at].detours.is_empty() => self.leaves_detour(at),
            10 => self.blocks(at, true),
            _ => self.blocks(at, false),
        }
        if self.threads[at].place == Place::OnCpu {
            self.goes_on(at);
        }
    }

    /// Another burst on the CPU.
    fn goes_on(&mut self, at: usize) {
        self.threads[at].turn += 1;
        let turn = self.threads[at].turn;
        let burst = self.rng.between(1_000, 60_000);
        self.later(burst, Step::BurstEnd(at, turn));
    }

    fn enters_detour(&mut self, at: usize) {
        let kinds = [
            DetourKind::Compaction,
            DetourKind::MemcgReclaim,
            DetourKind::DirectReclaim,
        ];
        let kind = kinds[self.rng.below(3) as usize];
        let now = self.now;
        let thread = &mut self.threads[at];
        thread.detours.push((kind, now));
        thread.truth.mark(now, detour_cause(kind));
    }

    fn leaves_detour(&mut self, at: usize) {
        let now = self.now;
        let thread = &mut self.threads[at];
        let long = thread
            .detours
            .last()
            .filter(|open| now - open.1 >= DETOUR_NS_MIN);
        let Some((kind, begin)) = long.copied() else {
            return;
        };
        thread.detours.pop();
        let cause = thread.on_cpu_cause();
        thread.truth.mark(now, cause);
        self.kernel.detour(thread.id, kind, begin, now);
    }

    /// Off the CPU, which then takes the next.
    fn leaves_cpu(&mut self, at: usize, state: OffState, place: Place, cause: Cause) {
        let now = self.now;
        let thread = &mut self.threads[at];
        let cpu = thread.cpu;
        thread.running.add(thread.since..now);
        self.occupancy[cpu].push((thread.id, thread.since..now));
        thread.truth.mark(now, cause);
        thread.place = place;
        thread.since = now;
        thread.turn += 1;
        thread.migrated = false;
        thread.woken = false;
        let kinds: Vec<DetourKind> = thread.detours.iter().map(|open| open.0).collect();
        self.kernel.out(thread.id, now, state, kinds);
        self.cpus[cpu].current = None;
    }

    fn yields(&mut self, at: usize) {
        self.requeues(at, OffState::Runnable);
    }

    /// It went to sleep with a signal pending: it never left the queue.
    fn sleeps_without_waking(&mut self, at: usize) {
        self.requeues(at, OffState::Sleeping);
    }

    fn requeues(&mut self, at: usize, state: OffState) {
        let cpu = self.threads[at].cpu;
        self.leaves_cpu(at, state, Place::Queued, Cause::RunqPreempted);
        self.kernel.enqueued(self.threads[at].id, self.now);
        self.cpus[cpu].queue.push_back(at);
        self.pick(cpu, false);
    }

    fn exits(&mut self, at: usize) {
        let cpu = self.threads[at].cpu;
        while let Some((kind, begin)) = self.threads[at].detours.pop() {
            if self.now - begin >= DETOUR_NS_MIN {
                self.kernel
                    .detour(self.threads[at].id, kind, begin, self.now);
            } else {
                // Too young to have ended: it has another burst to live.
                let thread = &mut self.threads[at];
                thread.detours.push((kind, begin));
                thread.truth.mark(self.now, detour_cause(kind));
                return;
            }
        }
        let now = self.now;
        let thread = &mut self.threads[at];
        thread.running.add(thread.since..now);
        self.occupancy[cpu].push((thread.id, thread.since..now));
        thread.truth.mark(now, Cause::Unknown);
        thread.place = Place::Dead;
        thread.died = Some(now);
        thread.turn += 1;
        self.kernel.exited(thread.id, now);
        self.cpus[cpu].current = None;
        if self.births_left > 0 {
            self.births_left -= 1;
            self.birth();
        }
        self.pick(cpu, false);
    }

    /// Blocks; `early`: it is woken before it has left the CPU.
    fn blocks(&mut self, at: usize, early: bool) {
        let cpu = self.threads[at].cpu;
        let kinds = waits();
        let any = self.rng.below(kinds.len() as u64) as usize;
        // A thread mostly waits for the same thing, so that there is something to merge.
        let wait = &kinds[if self.rng.one_in(4) {
            any
        } else {
            at % kinds.len()
        }];
        let inner = self.threads[at]
            .detours
            .last()
            .map(|open| detour_cause(open.0));
        let begin = self.threads[at].since;
        let first = if early {
            Cause::RunqIdle
        } else {
            inner.unwrap_or(wait.cause)
        };
        let place = if early { Place::Moving } else { Place::Blocked };
        self.leaves_cpu(at, wait.state, place, first);
        let id = self.threads[at].id;
        self.kernel.waits_for(id, wait);
        if early {
            let age = self
                .rng
                .below(self.now - begin + 1)
                .max(1)
                .min(self.now - begin);
            self.threads[at].woken = true;
            self.kernel.waking(id, self.now - age, Waker::SoftIrq);
            self.later(700, Step::Enqueue(at, cpu));
        } else {
            let sleep = self.rng.between(500, 300_000);
            self.later(sleep, Step::Wake(at));
        }
        self.pick(cpu, false);
    }

    fn wake(&mut self, at: usize) {
        let running = self.cpus.iter().find_map(|cpu| cpu.current);
        let waker = running.map_or(Waker::HardIrq, |by| Waker::Thread(self.threads[by].id));
        let now = self.now;
        let thread = &mut self.threads[at];
        thread.truth.mark(now, Cause::RunqIdle);
        thread.place = Place::Moving;
        thread.woken = true;
        self.kernel.waking(thread.id, now, waker);
        let cpu = self.any_cpu();
        let delay = self.rng.between(200, 3_000);
        self.later(delay, Step::Enqueue(at, cpu));
    }

    /// Onto a queue: behind others, or on an idle CPU that must first leave idle.
    fn enqueue(&mut self, at: usize, cpu: usize) {
        let now = self.now;
        self.kernel.enqueued(self.threads[at].id, now);
        self.stands(at, cpu);
        self.cpus[cpu].queue.push_back(at);
        self.needs_cpu(cpu);
    }

    /// It is on a queue from now on.
    fn stands(&mut self, at: usize, cpu: usize) {
        let now = self.now;
        let alone = self.cpus[cpu].current.is_none() && self.cpus[cpu].queue.is_empty();
        let thread = &mut self.threads[at];
        let cause = if alone {
            Cause::RunqIdle
        } else {
            thread.queue_cause()
        };
        thread.truth.mark(now, cause);
        thread.place = Place::Queued;
        thread.cpu = cpu;
        thread.since = now;
    }

    /// An idle CPU with a queue leaves idle.
    fn needs_cpu(&mut self, cpu: usize) {
        let idle = self.cpus[cpu].current.is_none() && !self.cpus[cpu].leaving_idle;
        if idle {
            self.cpus[cpu].leaving_idle = true;
            let delay = self.rng.between(300, 20_000);
            self.later(delay, Step::LeaveIdle(cpu));
        }
    }

    /// The next of a queue comes on the CPU.
    fn pick(&mut self, cpu: usize, from_idle: bool) {
        let Some(at) = self.cpus[cpu].queue.pop_front() else {
            return;
        };
        let now = self.now;
        let thread = &mut self.threads[at];
        thread.queued.push((cpu, thread.since..now));
        let cause = thread.on_cpu_cause();
        thread.truth.mark(now, cause);
        thread.place = Place::OnCpu;
        thread.cpu = cpu;
        thread.since = now;
        thread.first_in.get_or_insert(now);
        self.kernel
            .comes_in(thread.id, now, cpu, from_idle, &self.occupancy[cpu]);
        self.cpus[cpu].current = Some(at);
        self.cpus[cpu].turn += 1;
        let turn = self.cpus[cpu].turn;
        let slice = self.rng.between(5_000, 100_000);
        self.later(slice, Step::SliceEnd(cpu, turn));
        self.goes_on(at);
    }

    /// Preempts where somebody waits.
    fn slice_end(&mut self, cpu: usize) {
        if let Some(at) = self.cpus[cpu]
            .current
            .filter(|_| !self.cpus[cpu].queue.is_empty())
        {
            self.requeues(at, OffState::Runnable);
        }
    }

    /// Moves one queued thread to another CPU, once a wait: earlier waits have no position each.
    fn balance(&mut self) {
        let from = self.any_cpu();
        let to = self.any_cpu();
        let busy = self.cpus[from].current.is_some();
        let last = self.cpus[from].queue.back().copied();
        if let Some(at) = last.filter(|&at| busy && from != to && !self.threads[at].migrated) {
            self.cpus[from].queue.pop_back();
            let now = self.now;
            let thread = &mut self.threads[at];
            thread.queued.push((from, thread.since..now));
            thread.migrated = true;
            thread.place = Place::Moving;
            thread.truth.mark(now, Cause::RunqIdle);
            self.kernel.migrates(thread.id, now);
            let delay = self.rng.between(100, 2_000);
            self.later(delay, Step::Enqueue(at, to));
        }
        let delay = self.rng.between(5_000, 60_000);
        self.later(delay, Step::Balance);
    }

    /// A limit strikes one thread, running or queued.
    fn limit(&mut self) {
        let at = self.rng.below(self.threads.len() as u64) as usize;
        let thread = &self.threads[at];
        let (cpu, id, place) = (thread.cpu, thread.id, thread.place);
        let queued = place == Place::Queued && self.cpus[cpu].current.is_some() && !thread.migrated;
        if place == Place::OnCpu {
            self.leaves_cpu(at, OffState::Runnable, Place::Throttled, Cause::Throttle);
            self.kernel.enqueued(id, self.now);
        } else if queued {
            self.cpus[cpu].queue.retain(|&other| other != at);
            let now = self.now;
            let thread = &mut self.threads[at];
            thread.queued.push((cpu, thread.since..now));
            thread.truth.mark(now, Cause::Throttle);
            thread.place = Place::Throttled;
        }
        if self.threads[at].place == Place::Throttled && place != Place::Throttled {
            self.kernel.throttled(id, self.now);
            let length = self.rng.between(1_000, 400_000);
            self.later(length, Step::LetGo(at));
            if place == Place::OnCpu {
                self.pick(cpu, false);
            }
        }
        let delay = self.rng.between(20_000, 200_000);
        self.later(delay, Step::Limit);
    }

    fn let_go(&mut self, at: usize) {
        let cpu = self.threads[at].cpu;
        self.kernel.let_go(self.threads[at].id, self.now);
        // A limit that has struck a queued thread may strike again only in its next wait.
        self.threads[at].migrated = true;
        self.stands(at, cpu);
        self.cpus[cpu].queue.push_back(at);
        self.needs_cpu(cpu);
    }

    /// Closes the truth at the end.
    fn finish(&mut self) {
        let now = self.now;
        for thread in &mut self.threads {
            if thread.place == Place::OnCpu {
                thread.running.add(thread.since..now);
                self.occupancy[thread.cpu].push((thread.id, thread.since..now));
            }
            if thread.died.is_none() {
                let cause = thread.truth.cause();
                thread.truth.mark(now, cause);
                let open = thread.detours.iter().map(|open| open.0).collect();
                let on_cpu = thread.place == Place::OnCpu;
                let queued = matches!(thread.place, Place::Queued | Place::Throttled);
                let open = on_cpu.then_some(open);
                self.kernel.looked_at(thread.id, now, queued, open);
            }
        }
    }
}
