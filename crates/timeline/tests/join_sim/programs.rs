// SPDX-License-Identifier: Apache-2.0
//! Programs that make spans: pools, a thread per request, event loops, tasks that move, spans that
//! end elsewhere, helpers and exporters. One `Service` with knobs, so that they can be mixed.

use super::host::Host;
use super::host::MS;
use super::host::Ns;
use super::host::Owner;
use super::host::Program;
use super::host::SECOND;
use super::host::Step;
use super::host::US;
use super::host::new_span;
use std::collections::VecDeque;

/// How requests get their threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// A fixed pool; an idle thread is taken from the end (`lifo`), or the longest idle.
    Pool { threads: usize, lifo: bool },
    /// A thread is born for each request and dies with it.
    PerRequest,
    /// Each request is a task, resumed after each wait on any of the workers; the one that had it
    /// before is preferred but for one time in `strays`. One worker: an event loop on the main
    /// thread.
    Tasks { workers: usize, strays: u64 },
}

/// Which spans end on another thread than they started on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Elsewhere {
    Never,
    Always,
    OneIn(u64),
    /// All requests from this number on.
    From(usize),
    /// Requests of the last kind only.
    LastKind,
}

/// A collector on the same host: a thread of another process that the spans are sent through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Collector {
    /// It gets each of the exporter's batches, and sends it on 200 ms later.
    Batches,
    /// It gets each span as soon as that has ended.
    EachSpan,
    /// It gets batches, and has so much else to do that it is on a CPU 20 % of the time.
    Busy,
}

/// How requests come in over connections, each client's over its own, and who waits for those.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Peers {
    /// It is not said.
    Unsaid,
    /// The thread that runs a request has waited for its connection, if it had nothing to do.
    Runner,
    /// The main thread waits for all connections, and hands the requests on.
    Poller,
    /// The same, and whoever runs a request reads it.
    Handed,
    /// The runner waits, but one time in so many its bytes are there already, and another thread
    /// hears of a connection with the same port.
    Reused(u64),
    /// A second thread waits for the same connection, and wakes too.
    Shared,
    /// The port is one of another connection: that of a proxy's client.
    Forwarded,
}

/// A program.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) shape: Shape,
    /// Requests that are under way at once; each that ends is followed by another after `think`.
    pub(crate) clients: usize,
    pub(crate) think: Ns,
    /// A request is so many segments of running, with waits between them.
    pub(crate) segments: usize,
    pub(crate) run: Ns,
    pub(crate) wait: Ns,
    /// The waits are child spans.
    pub(crate) children: bool,
    /// Children run on an executor's threads.
    pub(crate) executor: bool,
    pub(crate) kinds: u32,
    pub(crate) elsewhere: Elsewhere,
    /// A thread that runs and pauses for about so long, for ever.
    pub(crate) helper: Option<(Ns, Ns)>,
    /// A batch exporter: a few milliseconds of work each second.
    pub(crate) exporter: bool,
    pub(crate) collector: Option<Collector>,
    /// One in so many requests is run by the accepting main thread (a full queue).
    pub(crate) caller_runs: Option<u64>,
    /// Share of a segment that runs without the GIL, in percent.
    pub(crate) free_percent: u64,
    pub(crate) peers: Peers,
}

impl Default for Service {
    fn default() -> Self {
        Service {
            shape: Shape::Pool {
                threads: 8,
                lifo: false,
            },
            clients: 4,
            think: 5 * MS,
            segments: 3,
            run: MS,
            wait: 5 * MS,
            children: false,
            executor: false,
            kinds: 1,
            elsewhere: Elsewhere::Never,
            helper: None,
            exporter: true,
            collector: None,
            caller_runs: None,
            free_percent: 0,
            peers: Peers::Unsaid,
        }
    }
}

/// A task of `Shape::Tasks`.
struct Task {
    root: usize,
    segments: VecDeque<Vec<Step>>,
    worker: Option<usize>,
}

/// A running service.
pub(crate) struct Running {
    service: Service,
    main: usize,
    workers: Vec<usize>,
    idle: VecDeque<usize>,
    backlog: VecDeque<Vec<Step>>,
    finisher: usize,
    helper: Option<usize>,
    collector: usize,
    tasks: Vec<Task>,
    ready: VecDeque<usize>,
    served: usize,
    handed: Vec<Vec<Step>>,
}

/// What a timer or a `Tell` means: the low byte; the rest is its argument.
const ARRIVE: u64 = 0;
const ACCEPT: u64 = 1;
const DONE: u64 = 2;
const WAITS: u64 = 3;
const RESUME: u64 = 4;
const HAND: u64 = 5;
const EXPORT: u64 = 6;
const COLLECT: u64 = 7;

/// The port of a client's connection.
fn port(client: u64) -> u16 {
    40_000 + client as u16
}

impl Running {
    pub(crate) fn new(service: Service) -> Running {
        Running {
            service,
            main: 0,
            workers: Vec::new(),
            idle: VecDeque::new(),
            backlog: VecDeque::new(),
            finisher: 0,
            helper: None,
            collector: 0,
            tasks: Vec::new(),
            ready: VecDeque::new(),
            served: 0,
            handed: Vec::new(),
        }
    }

    /// About this much running, some of it without the GIL.
    fn run(&self, host: &mut dyn Host, mean: Ns) -> Vec<Step> {
        let ns = host.rng().around(mean);
        let free = ns * self.service.free_percent / 100;
        let run = Step::Run(ns - free);
        if free > 0 {
            vec![run, Step::RunFree(free)]
        } else {
            vec![run]
        }
    }

    /// Hands `script` to the finishing thread when the giver gets there.
    fn hand(&mut self, script: Vec<Step>) -> Step {
        self.handed.push(script);
        Step::Tell(HAND | (self.handed.len() as u64 - 1) << 8)
    }

    /// The script of one request, cut at its waits; the last piece tells that it is done.
    fn request(&mut self, host: &mut dyn Host, client: u64) -> (usize, Vec<(Vec<Step>, Ns)>) {
        let service = self.service.clone();
        self.served += 1;
        let kind = host.rng().below(service.kinds.into()) as u32;
        let root = new_span(host, kind, None);
        host.spans()[root].port = match service.peers {
            Peers::Unsaid => None,
            Peers::Forwarded => Some(port(host.rng().below(service.clients as u64))),
            _ => Some(port(client)),
        };
        let done = Step::Tell(DONE | client << 8);
        let elsewhere = match service.elsewhere {
            Elsewhere::Never => false,
            Elsewhere::Always => true,
            Elsewhere::OneIn(n) => host.rng().one_in(n),
            Elsewhere::From(n) => self.served >= n,
            Elsewhere::LastKind => kind + 1 == service.kinds,
        };
        let mut pieces = Vec::new();
        let mut piece = self.run(host, 30 * US);
        piece.push(Step::Start(root));
        for segment in 0..service.segments {
            piece.extend(self.run(host, service.run));
            if segment + 1 == service.segments {
                break;
            }
            let wait = host.rng().around(service.wait);
            if !service.children {
                pieces.push((std::mem::take(&mut piece), wait));
                continue;
            }
            let child = new_span(host, 100 + kind, Some(root));
            if service.executor {
                let script = [Step::Start(child), Step::Run(50 * US), Step::End(child)];
                piece.push(self.hand(script.to_vec()));
                pieces.push((std::mem::take(&mut piece), wait + 300 * US));
            } else {
                piece.push(Step::Start(child));
                piece.push(Step::Run(10 * US));
                pieces.push((std::mem::take(&mut piece), wait));
                piece.push(Step::Run(10 * US));
                piece.push(Step::End(child));
            }
        }
        if elsewhere {
            let script = vec![Step::Run(20 * US), Step::End(root), done];
            piece.push(self.hand(script));
        } else {
            piece.push(Step::End(root));
            piece.push(done);
        }
        piece.extend(self.run(host, 20 * US));
        pieces.push((piece, 0));
        (root, pieces)
    }

    fn accept(&mut self, host: &mut dyn Host, client: u64) {
        let (root, pieces) = self.request(host, client);
        if let Shape::Tasks { .. } = self.service.shape {
            let id = self.tasks.len() as u64;
            let waits = |(mut steps, wait): (Vec<Step>, Ns)| {
                if wait > 0 {
                    steps.push(Step::Tell(WAITS | id << 8 | wait << 32));
                }
                steps
            };
            let segments = pieces.into_iter().map(waits).collect();
            self.tasks.push(Task {
                root,
                segments,
                worker: None,
            });
            self.resume(host, id as usize);
            return;
        }
        let mut script = self.heard(host, client);
        for (steps, wait) in pieces {
            script.extend(steps);
            if wait > 0 {
                script.push(Step::Block(wait));
            }
        }
        if self
            .service
            .caller_runs
            .is_some_and(|n| host.rng().one_in(n))
        {
            host.give(self.main, &script);
        } else if self.service.shape == Shape::PerRequest {
            script.push(Step::Exit);
            host.spawn(Owner::Service, &script);
        } else if let Some(worker) = self.take_idle(host) {
            host.give(worker, &script);
        } else {
            self.backlog.push_back(script);
        }
    }

    /// What the thread that runs a client's request has heard, or reads, of its connection; and what others have.
    fn heard(&mut self, host: &mut dyn Host, client: u64) -> Vec<Step> {
        let heard = Step::Heard(port(client));
        let (runner, other) = match self.service.peers {
            Peers::Runner | Peers::Forwarded => (true, false),
            Peers::Shared => (true, true),
            Peers::Reused(n) => {
                let reused = host.rng().one_in(n);
                (!reused, reused)
            }
            Peers::Handed => return vec![Step::Took(port(client))],
            Peers::Unsaid | Peers::Poller => (false, false),
        };
        // The longest idle is the runner's to be; this is the one that comes after it.
        if let Some(&second) = self.idle.get(1).filter(|_| other) {
            let run = host.rng().around(200 * US);
            host.give(second, &[heard, Step::Run(run)]);
            self.idle.remove(1);
        }
        if runner { vec![heard] } else { Vec::new() }
    }

    fn take_idle(&mut self, host: &mut dyn Host) -> Option<usize> {
        match self.service.shape {
            Shape::Pool { lifo: true, .. } => self.idle.pop_back(),
            Shape::Tasks { .. } if !self.idle.is_empty() => {
                let i = host.rng().below(self.idle.len() as u64) as usize;
                self.idle.remove(i)
            }
            _ => self.idle.pop_front(),
        }
    }

    /// A task can go on: on the worker that it had, if that is idle and it does not stray.
    fn resume(&mut self, host: &mut dyn Host, task: usize) {
        let Shape::Tasks { strays, .. } = self.service.shape else {
            return;
        };
        let stays = !host.rng().one_in(strays);
        let before = self.tasks[task].worker.filter(|_| stays);
        if let Some(worker) = before {
            let at = self.idle.iter().position(|&idle| idle == worker);
            if let Some(at) = at {
                self.idle.remove(at);
            }
            // A task that stays waits for its own worker.
            self.start_piece(host, task, worker);
            return;
        }
        match self.take_idle(host) {
            Some(worker) => self.start_piece(host, task, worker),
            None => self.ready.push_back(task),
        }
    }

    fn start_piece(&mut self, host: &mut dyn Host, task: usize, worker: usize) {
        let Some(steps) = self.tasks[task].segments.pop_front() else {
            return;
        };
        let task = &mut self.tasks[task];
        if task.worker.is_some_and(|before| before != worker) {
            host.spans()[task.root].strayed = true;
        }
        task.worker = Some(worker);
        host.give(worker, &steps);
    }
}

impl Program for Running {
    fn begin(&mut self, host: &mut dyn Host) {
        self.main = host.spawn(Owner::Service, &[Step::Run(MS)]);
        self.finisher = host.spawn(Owner::Service, &[Step::Run(US)]);
        let workers = match self.service.shape {
            Shape::Pool { threads, .. } => threads,
            Shape::PerRequest => 0,
            Shape::Tasks { workers: 1, .. } => {
                self.workers.push(self.main);
                0
            }
            Shape::Tasks { workers, .. } => workers,
        };
        for _ in 0..workers {
            let worker = host.spawn(Owner::Service, &[Step::Run(10 * US)]);
            self.workers.push(worker);
        }
        self.helper = self
            .service
            .helper
            .map(|_| host.spawn(Owner::Service, &[Step::Run(US)]));
        if self.service.exporter {
            let exporter = host.spawn(Owner::Service, &[Step::Run(US)]) as u64;
            host.timer(SECOND, EXPORT | exporter << 8);
        }
        if self.service.collector.is_some() {
            self.collector = host.spawn(Owner::Collector, &[Step::Run(US)]);
        }
        // Some programs serve at once, while all of their threads are young.
        let quiet = if host.rng().one_in(2) {
            3 * SECOND
        } else {
            300 * MS
        };
        for client in 0..self.service.clients as u64 {
            let after = host.rng().around(self.service.think) + quiet;
            host.timer(after, ARRIVE | client << 8);
        }
    }

    fn idle(&mut self, host: &mut dyn Host, thread: usize) {
        if self.service.collector == Some(Collector::Busy) && thread == self.collector {
            let (run, pause) = (host.rng().around(2 * MS), host.rng().around(8 * MS));
            host.give(thread, &[Step::Run(run), Step::Block(pause)]);
        } else if Some(thread) == self.helper
            && let Some((run, pause)) = self.service.helper
        {
            let (run, pause) = (host.rng().around(run), host.rng().around(pause));
            host.give(thread, &[Step::Run(run), Step::Block(pause)]);
        } else if self.workers.contains(&thread) {
            if let Some(script) = self.backlog.pop_front() {
                host.give(thread, &script);
            } else if let Some(task) = self.ready.pop_front() {
                self.start_piece(host, task, thread);
            } else if !self.idle.contains(&thread) {
                self.idle.push_back(thread);
            }
        }
    }

    fn told(&mut self, host: &mut dyn Host, what: u64) {
        match what & 0xff {
            ARRIVE
                if self.service.shape
                    == (Shape::Tasks {
                        workers: 1,
                        strays: 1,
                    }) =>
            {
                self.accept(host, what >> 8);
            }
            ARRIVE => {
                let accept = [
                    Step::Heard(port(what >> 8)),
                    Step::Run(15 * US),
                    Step::Tell(ACCEPT | what >> 8 << 8),
                ];
                let skip =
                    usize::from(!matches!(self.service.peers, Peers::Poller | Peers::Handed));
                host.give(self.main, &accept[skip..]);
            }
            ACCEPT => self.accept(host, what >> 8),
            DONE => {
                let after = host.rng().around(self.service.think);
                host.timer(after, ARRIVE | what >> 8 << 8);
                if self.service.collector == Some(Collector::EachSpan) {
                    host.timer(80 * US, COLLECT | 100 << 8);
                }
            }
            WAITS => host.timer(what >> 32, RESUME | (what >> 8 & 0xff_ffff) << 8),
            RESUME => self.resume(host, (what >> 8) as usize),
            HAND => {
                let script = std::mem::take(&mut self.handed[(what >> 8) as usize]);
                host.give(self.finisher, &script);
            }
            EXPORT => {
                let run = host.rng().around(5 * MS);
                host.give((what >> 8) as usize, &[Step::Run(run)]);
                host.timer(SECOND, what);
                if self.service.collector.is_some() {
                    host.timer(3 * MS, COLLECT | 2_000 << 8);
                    host.timer(200 * MS, COLLECT | 1_000 << 8);
                }
            }
            COLLECT => {
                let run = host.rng().around((what >> 8) * US);
                host.give(self.collector, &[Step::Run(run)]);
            }
            _ => {}
        }
    }
}
