// SPDX-License-Identifier: Apache-2.0
//! From a simulated run to what the join gets, spans with clock errors among it; and the score of
//! its answers against the truth. Where presence comes from is the scheduler's (`record.rs`).

use super::host::BEGIN;
use super::host::MS;
use super::host::Ns;
use super::host::Owner;
use super::host::Rng;
use super::host::SECOND;
use super::host::Span;
use lacuna_timeline::ThreadId;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::ChildFacts;
use lacuna_timeline::join::Claims;
use lacuna_timeline::join::Joined;
use lacuna_timeline::join::Joiner;
use lacuna_timeline::join::KindId;
use lacuna_timeline::join::Place;
use lacuna_timeline::join::Presence;
use lacuna_timeline::join::Readers;
use lacuna_timeline::join::Reading;
use lacuna_timeline::join::Source;
use lacuna_timeline::join::SpanFacts;
use lacuna_timeline::join::SpanKey;
use lacuna_timeline::join::Why;
use lacuna_timeline::join::grain_ns;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::num::NonZeroU16;

/// The one process of a run.
const PROCESS: ProcessId = ProcessId {
    tgid: 1_000,
    start_ns: BEGIN,
};

/// The collector that some programs send their spans through.
const COLLECTOR: ProcessId = ProcessId {
    tgid: 2_000,
    start_ns: BEGIN,
};

/// Whose threads these are.
pub(crate) fn process_of(owner: Owner) -> ProcessId {
    match owner {
        Owner::Service => PROCESS,
        Owner::Collector => COLLECTOR,
    }
}

/// A span's timestamps as the client's clock gives them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// Ahead by so much, always.
    pub(crate) bias: i64,
    /// Ahead by this many nanoseconds more for each second.
    pub(crate) drift: i64,
    /// Truncated to multiples of this; 0 and 1: exact.
    pub(crate) tick: Ns,
    /// Read once per root span with an error of up to this, as some runtimes do.
    pub(crate) anchor: Ns,
}

/// A span as it arrives, with its truth.
struct Sent {
    key: SpanKey,
    kind: KindId,
    start: Ns,
    end: Ns,
    grain: Ns,
    place: Place,
    children: Vec<ChildFacts>,
    truth: Option<ThreadId>,
    port: Option<u16>,
    /// How many root spans of its kind ended before it.
    before: u64,
}

impl Sent {
    fn facts(&self) -> SpanFacts<'_> {
        SpanFacts {
            key: self.key,
            process: PROCESS,
            kind: self.kind,
            start: self.start,
            end: self.end,
            error_ns: 300,
            grain_ns: self.grain,
            place: self.place,
            children: &self.children,
            clock_stepped: false,
            claims: Claims::default(),
            peer_port: self.port.and_then(NonZeroU16::new),
        }
    }
}

fn key(i: usize) -> SpanKey {
    SpanKey {
        trace: 1,
        span: i as u64 + 1,
    }
}

/// The spans of a run that have ended, in the order of their ends.
fn sent(spans: &[Span], clock: Clock, rng: &mut Rng) -> Vec<Sent> {
    let mut anchors = HashMap::new();
    let mut read = |root: usize, at: Ns| {
        let anchor = *anchors
            .entry(root)
            .or_insert_with(|| rng.below(clock.anchor + 1)) as i64;
        let drift = clock.drift * ((at - BEGIN) / MS) as i64 / 1_000;
        let at = (at as i64 + clock.bias + drift + anchor) as Ns;
        at / clock.tick.max(1) * clock.tick.max(1)
    };
    let ended: Vec<usize> = (0..spans.len()).filter(|&i| spans[i].end > 0).collect();
    let mut sent: BTreeMap<usize, Sent> = BTreeMap::new();
    for &i in &ended {
        let span = &spans[i];
        let root = span.parent.unwrap_or(i);
        let (start, end) = (read(root, span.start), read(root, span.end));
        let one_thread = span.start_thread == span.end_thread && !span.strayed;
        let truth = one_thread.then_some(ThreadId(span.start_thread as u64 + 1));
        let place = span
            .parent
            .map_or(Place::Root, |parent| Place::Under(key(parent)));
        let (kind, children) = (KindId(span.kind), Vec::new());
        let (key, grain) = (key(i), grain_ns(start, end));
        sent.insert(
            i,
            Sent {
                key,
                kind,
                start,
                end,
                grain,
                place,
                children,
                truth,
                port: span.port,
                before: 0,
            },
        );
    }
    for &i in &ended {
        if let Some(parent) = spans[i].parent {
            let child = &sent[&i];
            let child = ChildFacts {
                kind: child.kind,
                start: child.start,
                end: child.end,
            };
            if let Some(parent) = sent.get_mut(&parent) {
                parent.children.push(child);
            }
        }
    }
    let mut sent: Vec<Sent> = sent.into_values().collect();
    sent.sort_by_key(|span| span.end);
    let mut before: HashMap<KindId, u64> = HashMap::new();
    for span in &mut sent {
        let count = before.entry(span.kind).or_default();
        span.before = *count;
        *count += 1;
    }
    sent
}

/// How the join did on one program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) spans: u64,
    /// Root spans after the 200th of their kind, and of those the joined.
    pub(crate) roots: u64,
    pub(crate) roots_joined: u64,
    /// All spans, joined at once or when asked later.
    pub(crate) joined: u64,
    pub(crate) wrong: u64,
    /// Sum of (1 - score) of the joined: how many wrong ones the model expects.
    pub(crate) expected_wrong: f64,
    pub(crate) why: BTreeMap<&'static str, u64>,
    /// Spans that came while it was held against their own process that it did not take their
    /// timestamps: always wrong.
    pub(crate) denied: u64,
    /// Spans that came while it was believed that a collector had taken them, and while it was not
    /// believed any more that it might have.
    pub(crate) credited: u64,
    pub(crate) disproved: u64,
}

impl Tally {
    /// Titles of the columns of [`Tally::row`].
    pub(crate) const HEAD: &'static str =
        "program                               spans   joined  unjoined   wrong  expected  why not";

    /// One line of the table.
    pub(crate) fn row(&self, name: &str) -> String {
        let share = 100.0 * self.joined_share();
        let why: Vec<String> = self
            .why
            .iter()
            .map(|(why, n)| format!("{why} {n}"))
            .collect();
        format!(
            "{name:36} {:6} {share:6.2} % {:7.2} % {:7} {:9.4}  {}",
            self.spans,
            100.0 - share,
            self.wrong,
            self.expected_wrong,
            why.join(", ")
        )
    }

    /// Adds another run's.
    pub(crate) fn add(&mut self, other: &Tally) {
        self.spans += other.spans;
        self.roots += other.roots;
        self.roots_joined += other.roots_joined;
        self.joined += other.joined;
        self.wrong += other.wrong;
        self.expected_wrong += other.expected_wrong;
        self.denied += other.denied;
        self.credited += other.credited;
        self.disproved += other.disproved;
        for (why, n) in &other.why {
            *self.why.entry(why).or_default() += n;
        }
    }

    pub(crate) fn joined_share(&self) -> f64 {
        self.roots_joined as f64 / self.roots.max(1) as f64
    }

    fn note(&mut self, span: &Sent, answers: [Joined; 2]) {
        self.spans += 1;
        let last = answers[1];
        if span.place == Place::Root && span.before >= 200 {
            self.roots += 1;
            self.roots_joined += u64::from(last.thread.is_some());
            if last.why != Why::Found {
                *self.why.entry(last.why.name()).or_default() += 1;
            }
        }
        self.joined += u64::from(last.thread.is_some());
        let wrong = |answer: &Joined| answer.thread.is_some() && answer.thread != span.truth;
        self.wrong += u64::from(answers.iter().any(wrong));

        self.expected_wrong += last.thread.map_or(0.0, |_| 1.0 - last.score);
    }
}

fn source(process: ProcessId) -> Source {
    Source {
        process,
        service: 1,
    }
}

/// How a program is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) cpus: usize,
    pub(crate) gil: bool,
    /// One stretch in so many of each thread's time is lost; 0: none.
    pub(crate) lost_one_in: u64,
    /// Until so many spans have begun.
    pub(crate) spans: usize,
}

/// A program that was run.
pub(crate) struct Ran {
    pub(crate) spans: Vec<Span>,
    /// When the run ended: no horizon passes it.
    pub(crate) end: Ns,
    pub(crate) feed: Box<dyn Feed>,
}

/// Presence as far as a run has come.
pub(crate) trait Feed {
    /// Asks of everything that was to arrive until then.
    fn until(&mut self, at: Ns, ask: &mut dyn FnMut(&dyn Presence));
}

/// Sends the spans of a run to a joiner as a batch exporter does: each second's when it is over.
/// Each span is asked about when it is observed, and again when its batch is.
pub(crate) fn judge(mut ran: Ran, clock: Clock, seed: u64) -> Tally {
    let mut sent = sent(&ran.spans, clock, &mut Rng(seed ^ 0xc10c));
    sent.retain(|span| span.end <= ran.end);
    let mut joiner = Joiner::default();
    let mut tally = Tally::default();
    let mut readers = Readers::default();
    for batch in sent.chunk_by(|a, b| a.end / SECOND == b.end / SECOND) {
        let over = batch.last().map_or(0, |last| last.end / SECOND + 1) * SECOND;
        let over = over.min(ran.end);
        ran.feed.until(over, &mut |presence| {
            let facts = batch.iter().map(Sent::facts);
            let at_once: Vec<Joined> = facts.map(|span| joiner.observe(&span, presence)).collect();
            for (span, at_once) in batch.iter().zip(at_once) {
                let later = joiner.join(&span.facts(), presence);
                tally.note(span, [at_once, later]);
                for process in [PROCESS, COLLECTOR] {
                    readers.observe(source(process), &span.facts(), presence);
                }
            }
            readers.judge(over, presence);
        });
        let [own, collector] = [PROCESS, COLLECTOR].map(|of| readers.reading(source(of)));
        let spans = batch.len() as u64;
        tally.denied += spans * u64::from(own == Reading::Contradicted);
        tally.credited += spans * u64::from(collector == Reading::Shown);
        tally.disproved += spans * u64::from(collector == Reading::Contradicted);
    }
    tally
}
