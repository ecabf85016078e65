// SPDX-License-Identifier: Apache-2.0
//! What a simulated program and the scheduler that it runs on know of each other: scripts of steps,
//! spans with their truth, and a seeded generator.
//!
//! Two schedulers are hosts: the quick one of `core.rs`, which only keeps who ran when, and the
//! account's (`../simulator/`), which also makes the records that the kernel side would send.

/// Nanoseconds.
pub(crate) type Ns = u64;
pub(crate) const US: Ns = 1_000;
pub(crate) const MS: Ns = 1_000_000;
pub(crate) const SECOND: Ns = 1_000_000_000;
/// The simulation starts here, so that offsets into the past have somewhere to go.
pub(crate) const BEGIN: Ns = 100 * SECOND;

/// SplitMix64: small, seedable, good enough for coincidences.
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// In [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Exponential with this mean, at least 1.
    pub(crate) fn around(&mut self, mean: Ns) -> Ns {
        ((-(1.0 - self.unit()).ln()) * mean as f64) as Ns + 1
    }
}

/// One step of a thread's script.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// On a CPU for so long. Under a GIL: holding it.
    Run(Ns),
    /// The same without the GIL.
    RunFree(Ns),
    /// Off the CPU for so long.
    Block(Ns),
    /// Takes the timestamp of a span's start, or end.
    Start(usize),
    End(usize),
    /// The thread had nothing to do, and a connection with this port at its other end ended that.
    /// Nothing happens where it did not wait.
    Heard(u16),
    /// The thread reads a request from such a connection, without having waited for it.
    Took(u16),
    /// Tells the program.
    Tell(u64),
    /// The thread ends.
    Exit,
}

/// A span with its truth.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) kind: u32,
    pub(crate) parent: Option<usize>,
    pub(crate) start: Ns,
    pub(crate) end: Ns,
    pub(crate) start_thread: usize,
    pub(crate) end_thread: usize,
    /// Some of it ran on another thread in between.
    pub(crate) strayed: bool,
    /// The port of its peer that it names.
    pub(crate) port: Option<u16>,
}

/// Whose thread it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The service's.
    #[default]
    Service,
    /// That of a collector, through which the service's spans are sent.
    Collector,
}

/// A scheduler, as a program sees it.
pub(crate) trait Host {
    /// The generator that everything is drawn from.
    fn rng(&mut self) -> &mut Rng;
    /// A new thread; it starts with this script.
    fn spawn(&mut self, owner: Owner, script: &[Step]) -> usize;
    /// More to do for a thread; an idle one is woken.
    fn give(&mut self, thread: usize, script: &[Step]);
    /// Tells the program `what` after so long.
    fn timer(&mut self, after: Ns, what: u64);
    /// The spans so far.
    fn spans(&mut self) -> &mut Vec<Span>;
}

/// A new span, not started yet.
pub(crate) fn new_span(host: &mut dyn Host, kind: u32, parent: Option<usize>) -> usize {
    let none = usize::MAX;
    let (start_thread, end_thread) = (none, none);
    let spans = host.spans();
    spans.push(Span {
        kind,
        parent,
        start: 0,
        end: 0,
        start_thread,
        end_thread,
        strayed: false,
        port: None,
    });
    spans.len() - 1
}

/// What drives the threads.
pub(crate) trait Program {
    /// Called once.
    fn begin(&mut self, host: &mut dyn Host);
    /// The thread's script has ended: give it more, or leave it idle until it is given some.
    fn idle(&mut self, host: &mut dyn Host, thread: usize);
    /// A timer, or a `Tell` of a thread.
    fn told(&mut self, host: &mut dyn Host, what: u64);
}
