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
use lacuna_timeline::event::Call;
use lacuna_timeline::event::DetourKind;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::event::Waker;

use crate::kernel::CONNECTION;
use crate::kernel::Kernel;
use crate::kernel::WaitKind;
use crate::kernel::waits;
use crate::net::Exchange;
use crate::parts::Cpu;
use crate::parts::Place;
use crate::parts::Step;
use crate::parts::Thread;
use crate::parts::Until;
use crate::rng::Rng;
use crate::served::Served;
use crate::truth::Times;
use crate::truth::Truth;

/// Detours shorter than this would be sums (rule 8); the simulator makes none.
pub(crate) const DETOUR_NS_MIN: Ns = 10_000;

/// How often the iterator looks at all threads of a host that serves.
pub(crate) const LOOK_EVERY: Ns = 1_000_000_000;

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
    pub(crate) cpus: Vec<Cpu>,
    /// How many times slower than in the account's runs everything is that befalls threads.
    pub(crate) pace: Ns,
    /// The program that runs here, where the threads do not do as they like.
    pub(crate) served: Option<Served>,
    agenda: BinaryHeap<Reverse<(Ns, u64, Step)>>,
    steps: u64,
    end: Ns,
    births_left: u32,
}

impl World {
    /// A host with so many CPUs, that begins then and has no threads yet.
    pub(crate) fn new(seed: u64, cpus: usize, now: Ns) -> World {
        World {
            rng: Rng::new(seed),
            now,
            threads: Vec::new(),
            kernel: Kernel::default(),
            occupancy: vec![Vec::new(); cpus],
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            pace: 1,
            served: None,
            agenda: BinaryHeap::new(),
            steps: 0,
            end: Ns::MAX,
            births_left: 0,
        }
    }

    /// A host with so many CPUs and threads, that runs for so long; threads do as they like.
    pub(crate) fn run(seed: u64, cpus: usize, threads: usize, length: Ns) -> World {
        let start = 1_000_000;
        let mut world = World::new(seed, cpus, start);
        world.end = start + length;
        world.births_left = threads as u32;
        for _ in 0..threads {
            world.birth(None);
        }
        world.go(|_| false);
        world.now = world.end;
        world.finish();
        world
    }

    /// Runs until its end, or until it is done.
    pub(crate) fn go(&mut self, is_done: impl Fn(&World) -> bool) {
        self.later(20_000, Step::Balance);
        self.later(50_000, Step::Limit);
        while let Some(Reverse((at, _, step))) = self.agenda.pop() {
            if at >= self.end || is_done(self) {
                break;
            }
            self.now = at;
            self.step(step);
        }
    }

    pub(crate) fn later(&mut self, delay: Ns, step: Step) {
        self.steps += 1;
        self.agenda
            .push(Reverse((self.now + delay, self.steps, step)));
    }

    /// A new thread, of that process where it is said.
    pub(crate) fn birth(&mut self, process: Option<ProcessId>) -> usize {
        let at = self.threads.len();
        let id = thread_id(at);
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
            exchange: Vec::new(),
        });
        self.kernel.born(id, self.now, process);
        let cpu = self.any_cpu();
        self.later(500, Step::Enqueue(at, cpu));
        at
    }

    pub(crate) fn any_cpu(&mut self) -> usize {
        self.rng.below(self.cpus.len() as u64) as usize
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::BurstEnd(at, turn) if self.threads[at].turn == turn => match self.served {
                Some(_) => self.advance(at),
                None => self.decide(at),
            },
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
            Step::Look => {
                self.look();
                self.later(LOOK_EVERY, Step::Look);
            }
            Step::Timer(what) => self.tell(what),
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
            10 => self.blocks(at, Until::Early),
            _ => {
                let sleep = self.rng.between(500, 300_000);
                self.blocks(at, Until::After(sleep));
            }
        }
        if self.threads[at].place == Place::OnCpu {
            self.goes_on(at);
        }
    }

    /// Another burst on the CPU, or the rest of one.
    pub(crate) fn goes_on(&mut self, at: usize) {
        self.threads[at].turn += 1;
        let turn = self.threads[at].turn;
        let burst = match &mut self.served {
            Some(served) => served.resume(at, self.now),
            None => self.rng.between(1_000, 60_000),
        };
        self.later(burst, Step::BurstEnd(at, turn));
    }

    /// Off the CPU, which then takes the next.
    pub(crate) fn leaves_cpu(&mut self, at: usize, state: OffState, place: Place, cause: Cause) {
        let now = self.now;
        if let Some(served) = &mut self.served {
            served.pause(at, now);
        }
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

    pub(crate) fn exits(&mut self, at: usize) {
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
            self.birth(None);
        }
        self.pick(cpu, false);
    }

    /// Blocks.
    pub(crate) fn blocks(&mut self, at: usize, until: Until) {
        let early = until == Until::Early;
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
        } else if let Until::After(sleep) = until {
            if wait.wait.object == Some(CONNECTION) {
                self.exchanges(at, wait, inner.is_none(), sleep);
            }
            self.later(sleep, Step::Wake(at));
        }
        self.pick(cpu, false);
    }

    /// Something befalls the connection that it waits for; `counts`: it is in no detour, which comes first.
    fn exchanges(&mut self, at: usize, wait: &WaitKind, counts: bool, sleep: Ns) {
        let (out, wake) = (self.now, self.now + sleep);
        let exchange = match wait.wait.entry {
            Entry::Call(Call::Send) => Exchange::output(&mut self.rng, out, wake),
            _ => Exchange::input(&mut self.rng, out, wake),
        };
        let thread = &mut self.threads[at];
        self.kernel.told(thread.id, exchange.told);
        if counts {
            thread.exchange = exchange.truth;
        }
    }

    fn wake(&mut self, at: usize) {
        let running = self.cpus.iter().find_map(|cpu| cpu.current);
        let waker = running.map_or(Waker::HardIrq, |by| Waker::Thread(self.threads[by].id));
        let now = self.now;
        let thread = &mut self.threads[at];
        for (at, cause) in thread.exchange.drain(..) {
            thread.truth.mark(at.min(now), cause);
        }
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
    pub(crate) fn stands(&mut self, at: usize, cpu: usize) {
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
    pub(crate) fn needs_cpu(&mut self, cpu: usize) {
        let idle = self.cpus[cpu].current.is_none() && !self.cpus[cpu].leaving_idle;
        if idle {
            self.cpus[cpu].leaving_idle = true;
            let delay = self.rng.between(300, 20_000);
            self.later(delay, Step::LeaveIdle(cpu));
        }
    }

    /// The next of a queue comes on the CPU.
    pub(crate) fn pick(&mut self, cpu: usize, from_idle: bool) {
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
        let slice = self.rng.between(5_000, 100_000) * self.pace;
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

    /// Closes the truth at the end.
    pub(crate) fn finish(&mut self) {
        let now = self.now;
        for thread in &mut self.threads {
            if thread.place == Place::OnCpu {
                thread.running.add(thread.since..now);
                self.occupancy[thread.cpu].push((thread.id, thread.since..now));
            }
            if thread.died.is_none() {
                let cause = thread.truth.cause();
                thread.truth.mark(now, cause);
            }
        }
        self.look();
    }

    /// The iterator looks at every thread that lives.
    fn look(&mut self) {
        for thread in self.threads.iter().filter(|thread| thread.died.is_none()) {
            let open = thread.detours.iter().map(|open| open.0).collect();
            let on_cpu = thread.place == Place::OnCpu;
            let queued = matches!(thread.place, Place::Queued | Place::Throttled);
            let open = on_cpu.then_some(open);
            self.kernel.looked_at(thread.id, self.now, queued, open);
        }
    }
}

/// The id of the thread at a place in [`World::threads`].
pub(crate) fn thread_id(at: usize) -> ThreadId {
    ThreadId(at as u64 + 1)
}
