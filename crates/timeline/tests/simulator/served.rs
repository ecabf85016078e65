// SPDX-License-Identifier: Apache-2.0
//! A program with spans on the simulated host: threads that follow scripts, whose timestamps they
//! take themselves, under everything that the scheduler and the kernel do to them.
//!
//! The programs are those of the join's simulator; there is no GIL here.

use std::collections::VecDeque;

use lacuna_timeline::Ns;

use crate::join_sim::host::BEGIN;
use crate::join_sim::host::Host;
use crate::join_sim::host::Owner;
use crate::join_sim::host::Program;
use crate::join_sim::host::Rng;
use crate::join_sim::host::Span;
use crate::join_sim::host::Step as Do;
use crate::join_sim::observe::process_of;
use crate::parts::Place;
use crate::parts::Step;
use crate::parts::Until;
use crate::world::LOOK_EVERY;
use crate::world::World;

/// What befalls threads comes this many times slower than in the account's runs: slices of up to
/// 5 ms, a limit that strikes every 1 to 10 ms.
const PACE: Ns = 50;

/// A thread that has come on a CPU runs for so long before it does anything of its own.
const RETURN_NS: Ns = 500;

/// A program and its threads' scripts.
pub(crate) struct Served {
    /// Away while it is asked.
    program: Option<Box<dyn Program>>,
    rng: Rng,
    scripts: Vec<Script>,
    pub(crate) spans: Vec<Span>,
}

/// What a thread is to do.
#[derive(Default)]
struct Script {
    steps: VecDeque<Do>,
    /// What is left of the current stretch on a CPU.
    left: Ns,
    /// When it was resumed last, where it is on a CPU.
    since: Option<Ns>,
    /// It has nothing to do and waits to be woken.
    idle: bool,
}

impl Served {
    /// A thread is on a CPU: how long it has yet to run.
    pub(crate) fn resume(&mut self, at: usize, now: Ns) -> Ns {
        let script = &mut self.scripts[at];
        script.left = script.left.max(RETURN_NS);
        script.since = Some(now);
        script.left
    }

    /// A thread leaves its CPU.
    pub(crate) fn pause(&mut self, at: usize, now: Ns) {
        let script = &mut self.scripts[at];
        let ran = script.since.take().map_or(0, |since| now - since);
        script.left = script.left.saturating_sub(ran);
    }
}

impl Host for World {
    fn rng(&mut self) -> &mut Rng {
        &mut self.served().rng
    }

    fn spawn(&mut self, owner: Owner, script: &[Do]) -> usize {
        let at = self.birth(Some(process_of(owner)));
        let steps = script.iter().copied().collect();
        self.served().scripts.push(Script {
            steps,
            ..Script::default()
        });
        at
    }

    fn give(&mut self, thread: usize, script: &[Do]) {
        let given = &mut self.served().scripts[thread];
        given.steps.extend(script);
        if std::mem::take(&mut given.idle) {
            if let Some(&Do::Heard(port)) = script.first() {
                let (id, now) = (self.threads[thread].id, self.now);
                self.kernel.heard(id, now, port);
            }
            let latency = self.rng.between(500, 5_000);
            self.later(latency, Step::Wake(thread));
        }
    }

    fn timer(&mut self, after: Ns, what: u64) {
        self.later(after, Step::Timer(what));
    }

    fn spans(&mut self) -> &mut Vec<Span> {
        &mut self.served().spans
    }
}

impl World {
    /// Runs a program on so many CPUs until so many spans have begun.
    pub(crate) fn serve(seed: u64, cpus: usize, program: Box<dyn Program>, spans: usize) -> World {
        let mut world = World::new(seed, cpus, BEGIN);
        world.pace = PACE;
        world.served = Some(Served {
            program: Some(program),
            rng: Rng(seed),
            scripts: Vec::new(),
            spans: Vec::new(),
        });
        world.ask(|program, world| program.begin(world));
        world.later(LOOK_EVERY, Step::Look);
        world.go(|world| {
            let begun = world.served.as_ref().map_or(0, |served| served.spans.len());
            begun >= spans
        });
        world.finish();
        world
    }

    fn served(&mut self) -> &mut Served {
        self.served.as_mut().expect("a program runs here")
    }

    /// Asks the program, which may do something with its host.
    fn ask(&mut self, ask: impl FnOnce(&mut dyn Program, &mut World)) {
        let mut program = self.served().program.take().expect("it is not asked twice");
        ask(&mut *program, self);
        self.served().program = Some(program);
    }

    /// Tells the program something.
    pub(crate) fn tell(&mut self, what: u64) {
        self.ask(|program, world| program.told(world, what));
    }

    /// A stretch of a thread on a CPU is over: the steps up to the next stretch, which take no time.
    pub(crate) fn advance(&mut self, at: usize) {
        self.served().scripts[at].left = 0;
        if self.rng.one_in(20) && self.threads[at].detours.len() < 3 {
            self.enters_detour(at);
        } else if self.rng.one_in(3) {
            self.leaves_detour(at);
        }
        loop {
            let Some(step) = self.served().scripts[at].steps.pop_front() else {
                self.ask(|program, world| program.idle(world, at));
                let script = &mut self.served().scripts[at];
                if script.steps.is_empty() {
                    script.idle = true;
                    return self.blocks(at, Until::Woken);
                }
                continue;
            };
            let now = self.now;
            match step {
                Do::Run(ns) | Do::RunFree(ns) => {
                    self.served().scripts[at].left = ns;
                    return self.goes_on(at);
                }
                Do::Block(ns) => return self.blocks(at, Until::After(ns)),
                Do::Start(span) => {
                    let span = &mut self.served().spans[span];
                    (span.start, span.start_thread) = (now, at);
                }
                Do::End(span) => {
                    let span = &mut self.served().spans[span];
                    (span.end, span.end_thread) = (now, at);
                }
                Do::Took(port) => {
                    let id = self.threads[at].id;
                    self.kernel.took(id, now, port);
                }
                // What ended the wait was noted with it.
                Do::Heard(_) => {}
                Do::Tell(what) => self.tell(what),
                Do::Exit => {
                    self.exits(at);
                    if self.threads[at].place == Place::OnCpu {
                        // A detour that it is in must end first.
                        self.served().scripts[at].steps.push_front(Do::Exit);
                        self.served().scripts[at].left = 20_000;
                        self.goes_on(at);
                    }
                    return;
                }
            }
        }
    }
}
