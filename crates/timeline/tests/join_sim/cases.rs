// SPDX-License-Identifier: Apache-2.0
//! The programs that the join is judged on, and what is wanted of each.
//!
//! Those that the product promises to join have a least share; those that cannot be joined have a
//! most of nothing; the others are there to provoke wrong joins and to print what is left unjoined.

use super::host::MS;
use super::host::US;
use super::observe::Clock;
use super::observe::Ran;
use super::observe::Setting;
use super::observe::Tally;
use super::observe::judge;
use super::programs::Collector;
use super::programs::Elsewhere;
use super::programs::Peers;
use super::programs::Running;
use super::programs::Service;
use super::programs::Shape;

/// A program, its clock and its losses, and which share of its root spans may be joined.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    cpus: usize,
    gil: bool,
    service: Service,
    clock: Clock,
    lost_one_in: u64,
    least: f64,
    most: f64,
    /// Its spans move so seldom that one is joined wrong, about once in the life of such a kind.
    pub(crate) seldom: bool,
    /// Which share of the spans must have come after its collector was found out.
    disproved: f64,
}

fn case(name: &'static str, cpus: usize, service: &Service) -> Case {
    Case {
        name,
        cpus,
        gil: false,
        service: service.clone(),
        clock: Clock::default(),
        lost_one_in: 0,
        least: 0.0,
        most: 1.0,
        seldom: false,
        disproved: 0.0,
    }
}

impl Case {
    fn gil(mut self) -> Case {
        self.gil = true;
        self
    }

    fn with(mut self, change: impl Fn(&mut Service)) -> Case {
        change(&mut self.service);
        self
    }

    fn clock(mut self, change: impl Fn(&mut Clock)) -> Case {
        change(&mut self.clock);
        self
    }

    fn lost(mut self, one_in: u64) -> Case {
        self.lost_one_in = one_in;
        self
    }

    fn at_least(mut self, share: f64) -> Case {
        self.least = share;
        self
    }

    fn seldom(mut self) -> Case {
        self.seldom = true;
        self
    }

    /// A collector that must be found out, for this share of the spans in time.
    fn behind(mut self, collector: Collector, disproved: f64) -> Case {
        self.service.collector = Some(collector);
        self.disproved = disproved;
        self
    }

    fn refused(mut self) -> Case {
        self.most = 0.0;
        self
    }

    /// What is wrong, or missing of what must be joined, in words.
    pub(crate) fn problem(&self, tally: &Tally) -> Option<String> {
        let few = tally.joined_share() < self.least;
        self.wrongs(tally)
            .or_else(|| few.then(|| format!("{}: joined {:.4}", self.name, tally.joined_share())))
    }

    /// The same, and its collector must have been found out in time.
    pub(crate) fn problem_at_length(&self, tally: &Tally) -> Option<String> {
        let disproved = tally.disproved as f64 / tally.spans as f64;
        let late = disproved < self.disproved;
        let name = self.name;
        self.problem(tally).or_else(|| {
            late.then(|| format!("{name}: its collector was disproved for {disproved:.2}"))
        })
    }

    /// What is wrong and not only missing, in words.
    pub(crate) fn wrongs(&self, tally: &Tally) -> Option<String> {
        let (denied, credited, share) = (tally.denied, tally.credited, tally.joined_share());
        let right = denied == 0 && credited == 0 && share <= self.most;
        let name = self.name;
        (!right).then(|| {
            format!(
                "{name}: {share:.4} joined, {denied} spans denied to their process, {credited} \
                 credited to a collector"
            )
        })
    }

    /// Runs it on a scheduler until so many spans have begun, and judges the join.
    pub(crate) fn run(
        &self,
        on: impl Fn(&Setting, Running) -> Ran,
        seed: u64,
        spans: usize,
    ) -> Tally {
        let setting = Setting {
            seed,
            cpus: self.cpus,
            gil: self.gil,
            lost_one_in: self.lost_one_in,
            spans,
        };
        let ran = on(&setting, Running::new(self.service.clone()));
        judge(ran, self.clock, seed)
    }
}

fn pool(threads: usize) -> Shape {
    Shape::Pool {
        threads,
        lifo: false,
    }
}

fn tasks(workers: usize, strays: u64) -> Shape {
    Shape::Tasks { workers, strays }
}

/// On a CPU 72 % of the time.
const HELPER: Option<(u64, u64)> = Some((5 * MS, 2 * MS));
/// On a CPU nearly always.
const SPINNER: Option<(u64, u64)> = Some((100 * MS, US));

fn flask() -> Service {
    Service {
        shape: Shape::PerRequest,
        free_percent: 5,
        ..Service::default()
    }
}

/// Eight threads that keep two CPUs full, none above half of one.
fn full() -> Service {
    Service {
        clients: 8,
        think: 200 * US,
        run: 2 * MS,
        wait: 2 * MS,
        ..Service::default()
    }
}

/// Every program.
pub(crate) fn all() -> Vec<Case> {
    let mut all = threads();
    all.extend(wide());
    all.extend(loops());
    all.extend(elsewhere());
    all.extend(clocks_and_losses());
    all.extend(collected());
    all.extend(connected());
    all
}

/// One thread per span, on few CPUs.
fn threads() -> Vec<Case> {
    let (base, flask, full) = (Service::default(), flask(), full());
    let lifo = Shape::Pool {
        threads: 8,
        lifo: true,
    };
    vec![
        case("thread per request, GIL", 2, &flask)
            .gil()
            .at_least(0.99),
        case("same, slow traffic", 2, &flask)
            .gil()
            .with(|s| s.think = 200 * MS)
            .at_least(0.99),
        case("same, GIL always taken", 2, &flask)
            .gil()
            .with(|s| (s.clients, s.think) = (16, MS))
            .at_least(0.99),
        case("same, with children", 2, &flask)
            .gil()
            .with(|s| s.children = true)
            .at_least(0.99),
        case("same, helper 72 %", 2, &flask)
            .gil()
            .with(|s| s.helper = HELPER)
            .at_least(0.95),
        case("pool 8, CPUs full", 2, &full).at_least(0.99),
        case("same, two kinds", 2, &full)
            .with(|s| s.kinds = 2)
            .at_least(0.99),
        case("same, latest idle thread first", 2, &full)
            .with(|s| (s.shape, s.clients) = (lifo, 5))
            .at_least(0.99),
        case("same, main thread runs 1 in 300", 2, &full)
            .with(|s| s.caller_runs = Some(300))
            .at_least(0.99),
        case("pool 6, helper 72 %", 2, &base)
            .with(|s| (s.shape, s.helper) = (pool(6), HELPER))
            .at_least(0.95),
        case("pool 6, helper 99 %", 4, &base).with(|s| (s.shape, s.helper) = (pool(6), SPINNER)),
        case("pool 4, one CPU", 1, &base)
            .with(|s| s.shape = pool(4))
            .at_least(0.99),
        case("pool 8, main thread runs 1 in 1000", 4, &base)
            .with(|s| s.caller_runs = Some(1000))
            .at_least(0.99),
        case("pool 8, main thread runs 1 in 50", 4, &base)
            .with(|s| s.caller_runs = Some(50))
            .at_least(0.99),
    ]
}

/// Many threads on many CPUs.
fn wide() -> Vec<Case> {
    let base = Service::default();
    let sixteen = Service {
        shape: pool(16),
        clients: 14,
        think: MS,
        ..base.clone()
    };
    let many = Service {
        shape: pool(64),
        clients: 56,
        wait: 4 * MS,
        ..base.clone()
    };
    let quiet = Service {
        run: 300 * US,
        wait: 6 * MS,
        think: 10 * MS,
        ..many.clone()
    };
    let short = Service {
        segments: 1,
        run: 30 * US,
        think: 100 * US,
        ..base
    };
    vec![
        case("pool 8 of 8 CPUs, 30 us spans", 8, &short),
        case("pool 16 of 16 CPUs, 30 % busy", 16, &sixteen),
        case("same, with children", 16, &sixteen).with(|s| s.children = true),
        case("same, children on an executor", 16, &sixteen)
            .with(|s| (s.children, s.executor) = (true, true)),
        case("pool 8, CPUs full, same", 2, &full())
            .with(|s| (s.children, s.executor) = (true, true)),
        case("pool 64 of 64 CPUs, 17 % busy", 64, &many),
        case("same, with children", 64, &many).with(|s| s.children = true),
        case("pool 64 of 64 CPUs, 5 % busy", 64, &quiet),
    ]
}

/// Event loops, and tasks that move.
fn loops() -> Vec<Case> {
    let looped = Service {
        shape: tasks(1, 1),
        clients: 8,
        ..Service::default()
    };
    let tokio = Service {
        shape: tasks(4, 1),
        clients: 8,
        ..Service::default()
    };
    let saturate = |s: &mut Service| (s.clients, s.think) = (16, 100 * US);
    vec![
        case("event loop, GIL", 2, &looped).gil().at_least(0.99),
        case("same, saturated", 2, &looped)
            .gil()
            .with(saturate)
            .at_least(0.99),
        case("same, biased 40 ms", 2, &looped)
            .gil()
            .clock(|c| c.bias = 40_000_000)
            .refused(),
        case("same, saturated, biased 40 ms", 2, &looped)
            .gil()
            .with(saturate)
            .clock(|c| c.bias = 40_000_000),
        case("tasks on 4 workers", 4, &tokio).refused(),
        case("same, 1 in 10 moves", 4, &tokio)
            .with(|s| s.shape = tasks(4, 10))
            .refused(),
        case("same, 1 in 300 moves", 4, &tokio)
            .with(|s| s.shape = tasks(4, 300))
            .seldom(),
        case("same, CPUs full", 2, &tokio).with(saturate).refused(),
        case("same, helper 72 %", 4, &tokio)
            .with(|s| s.helper = HELPER)
            .refused(),
    ]
}

/// Spans that end on another thread.
fn elsewhere() -> Vec<Case> {
    let full = full();
    let always = Service {
        elsewhere: Elsewhere::Always,
        ..Service::default()
    };
    let one_in = |n| move |s: &mut Service| s.elsewhere = Elsewhere::OneIn(n);
    vec![
        case("ends elsewhere", 2, &always).refused(),
        case("same, helper 72 %", 2, &always)
            .with(|s| s.helper = HELPER)
            .refused(),
        case("same, helper 99 %", 4, &always)
            .with(|s| s.helper = SPINNER)
            .refused(),
        case("same, 40 us spans, helper 72 %", 4, &always)
            .with(|s| (s.segments, s.run, s.helper) = (1, 40 * US, HELPER))
            .refused(),
        case("ends elsewhere, 1 in 10", 2, &full)
            .with(one_in(10))
            .refused(),
        case("ends elsewhere, 1 in 500", 2, &full)
            .with(one_in(500))
            .seldom(),
        case("ends elsewhere, 1 in 3000", 2, &full)
            .with(one_in(3_000))
            .seldom(),
        case("ends elsewhere after a while", 2, &full)
            .with(|s| s.elsewhere = Elsewhere::From(2_500))
            .seldom(),
        case("one kind of three ends elsewhere", 2, &full)
            .with(|s| (s.kinds, s.elsewhere) = (3, Elsewhere::LastKind)),
    ]
}

/// Clocks that are wrong or coarse, and records that were lost.
fn clocks_and_losses() -> Vec<Case> {
    let (flask, full) = (flask(), full());
    vec![
        case("pool 8, biased 30 ms", 2, &full)
            .clock(|c| c.bias = 30_000_000)
            .refused(),
        case("pool 8, biased -300 ms", 2, &full)
            .clock(|c| c.bias = -300_000_000)
            .refused(),
        case("pool 8, biased 0.5 ms", 2, &full)
            .clock(|c| c.bias = 500_000)
            .refused(),
        case("pool 8, biased 20 us", 2, &full).clock(|c| c.bias = 20_000),
        case("pool 8, drifts by 50 ppm", 2, &full).clock(|c| c.drift = 50_000),
        case("pool 8, drifts by 0.1 ppm", 2, &full)
            .clock(|c| c.drift = 100)
            .seldom(),
        case("pool 8, anchored within 1 ms", 2, &full)
            .clock(|c| c.anchor = 1_000_000)
            .refused(),
        case("pool 8, ticks of 1 us", 2, &full)
            .clock(|c| c.tick = 1_000)
            .at_least(0.99),
        case("pool 8, ticks of 1 ms", 2, &full).clock(|c| c.tick = 1_000_000),
        case("thread per request, ticks of 1 ms", 2, &flask)
            .gil()
            .clock(|c| c.tick = 1_000_000),
        case("same, biased 30 ms", 2, &flask)
            .gil()
            .clock(|c| c.bias = 30_000_000)
            .refused(),
        case("same, anchored within 1 ms", 2, &flask)
            .gil()
            .clock(|c| c.anchor = 1_000_000)
            .refused(),
        case("same, 20 % of the records lost", 2, &flask)
            .gil()
            .lost(5),
        case("pool 8, 2 % of the records lost", 2, &full).lost(50),
        case("pool 8, 20 % of the records lost", 2, &full).lost(5),
        case("same, ends elsewhere, 1 in 500", 2, &full)
            .with(|s| s.elsewhere = Elsewhere::OneIn(500))
            .lost(50)
            .seldom(),
        case("tasks on 4 workers, 20 % lost", 4, &full)
            .with(|s| s.shape = tasks(4, 1))
            .lost(5)
            .refused(),
        case("event loop, 2 % of the records lost", 2, &full)
            .gil()
            .with(|s| s.shape = tasks(1, 1))
            .lost(50),
    ]
}

/// Programs that export through a collector on the same host, whose connection it is.
fn collected() -> Vec<Case> {
    let tokio = Service {
        shape: tasks(4, 1),
        clients: 8,
        ..Service::default()
    };
    vec![
        case("thread per request, collector", 2, &flask())
            .gil()
            .behind(Collector::Batches, 0.5)
            .at_least(0.99),
        case("pool 8, CPUs full, collector", 2, &full()).behind(Collector::Batches, 0.5),
        case("same, busy collector", 4, &full()).behind(Collector::Busy, 0.25),
        case("same, that gets each span", 4, &full()).behind(Collector::EachSpan, 0.0),
        case("tasks on 4 workers, collector", 4, &tokio)
            .behind(Collector::Batches, 0.5)
            .refused(),
        case("ends elsewhere, collector", 2, &Service::default())
            .with(|s| s.elsewhere = Elsewhere::Always)
            .behind(Collector::Batches, 0.5)
            .refused(),
        case("pool 8, biased 30 ms, collector", 2, &full())
            .clock(|c| c.bias = 30_000_000)
            .behind(Collector::Batches, 0.5)
            .refused(),
        case("pool 8, ticks of 1 ms, collector", 2, &full())
            .clock(|c| c.tick = 1_000_000)
            .behind(Collector::Batches, 0.5),
        case("pool 8, 20 % lost, collector", 2, &full())
            .lost(5)
            .behind(Collector::Batches, 0.0),
    ]
}

/// Programs whose spans say by which peer's port their request came.
fn connected() -> Vec<Case> {
    let many = Service {
        shape: pool(64),
        clients: 56,
        wait: 4 * MS,
        peers: Peers::Runner,
        ..Service::default()
    };
    let of = |peers| move |s: &mut Service| s.peers = peers;
    vec![
        case("pool 64 of 64 CPUs, ports", 64, &many),
        case("same, a poller hands on", 64, &many).with(of(Peers::Poller)),
        case("same, and runs 1 in 2 itself", 64, &many)
            .with(|s| (s.peers, s.caller_runs) = (Peers::Poller, Some(2))),
        case("same, and runs 1 in 50 itself", 64, &many)
            .with(|s| (s.peers, s.caller_runs) = (Peers::Poller, Some(50))),
        case("same, 1 in 3 a port used again", 64, &many).with(of(Peers::Reused(3))),
        case("same, 1 in 1000", 64, &many).with(of(Peers::Reused(1_000))),
        case("same, shared connections", 64, &many).with(of(Peers::Shared)),
        case("same, ports of a proxy's clients", 64, &many).with(of(Peers::Forwarded)),
        case("same, ends elsewhere", 64, &many)
            .with(|s| s.elsewhere = Elsewhere::Always)
            .refused(),
        case("same, ends elsewhere, 1 in 500", 64, &many)
            .with(|s| s.elsewhere = Elsewhere::OneIn(500))
            .seldom(),
        case("same, 2 % lost", 64, &many).lost(50),
        case("pool 8, CPUs full, ports", 2, &full())
            .with(of(Peers::Runner))
            .at_least(0.99),
        case("same, a poller hands on", 2, &full()).with(of(Peers::Poller)),
        case("same, and runs 1 in 10 itself", 2, &full())
            .with(|s| (s.peers, s.caller_runs) = (Peers::Poller, Some(10))),
        case("same, 1 in 1000 a port used again", 2, &full()).with(of(Peers::Reused(1_000))),
        case("tasks on 4 workers, ports", 4, &full())
            .with(|s| (s.shape, s.peers) = (tasks(4, 1), Peers::Runner))
            .refused(),
        case("pool 64, a poller hands on, and they read", 64, &many).with(of(Peers::Handed)),
    ]
}
