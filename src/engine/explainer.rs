// SPDX-License-Identifier: Apache-2.0
//! The explainer: spans in, their process found, their horizon waited for, their answers made.
//!
//! One thread. It takes batches from the receivers and questions from the API, and whenever the
//! horizon has passed a span's end (never before), lets the join learn from it, asks the join for
//! its thread, and makes its answer. The recorder is locked for a bounded number of spans at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use lacuna_host::root::Root;
use lacuna_timeline::Ns;
use lacuna_timeline::join::How;
use lacuna_timeline::join::Joined;
use lacuna_timeline::join::Joiner;
use lacuna_timeline::join::SpanKey;
use lacuna_timeline::recorder::Recorder;
use lacuna_timeline::recorder::Whereabouts;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::answer::SpanAnswer;
use crate::answer::Status;
use crate::explain::Names;
use crate::explain::answer;
use crate::explain::without_thread;
use crate::otlp::Batch;
use crate::otlp::SpanIn;
use crate::serve::Connection;

use super::origin::Origins;
use super::place::Placer;
use super::question::Ask;
use super::question::Asked;
use super::second_look::Refused;
use super::second_look::SecondLook;
use super::served::Served;
use super::shared::Shared;
use super::shared::lock;
use super::spans::Counted;
use super::spans::Entry;
use super::spans::Place;
use super::spans::Spans;
use super::subject::Kinds;
use super::subject::Subject;

/// How often the horizon is looked at while spans wait for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many spans are answered before the recorder is let go for its feed.
const ANSWERS_PER_LOCK: usize = 256;

/// How many questions may wait at once; one more is answered at once, with what is known.
const ASKED_MAX: usize = 64;

/// Makes the answers.
pub(crate) struct Explainer {
    shared: Arc<Shared>,
    spans: Arc<Mutex<Spans>>,
    placer: Placer,
    joiner: Joiner,
    kinds: Kinds,
    /// Spans to be answered, soonest end first.
    pending: BinaryHeap<Reverse<(Ns, SpanKey)>>,
    second_look: SecondLook,
    served: Served,
    asked: Vec<Asked>,
    changed: watch::Sender<u64>,
}

impl Explainer {
    /// Explains into `spans`, and says so on `changed`.
    pub(crate) fn new(
        root: &Root,
        shared: Arc<Shared>,
        spans: Arc<Mutex<Spans>>,
        changed: watch::Sender<u64>,
    ) -> Explainer {
        Explainer {
            placer: Placer::new(Origins::new(root.clone()), shared.clone()),
            shared,
            spans,
            joiner: Joiner::default(),
            kinds: Kinds::default(),
            pending: BinaryHeap::new(),
            second_look: SecondLook::default(),
            served: Served::default(),
            asked: Vec::new(),
            changed,
        }
    }

    /// Explains until nobody is left who could bring spans or questions.
    ///
    /// # Errors
    /// This thread's event loop cannot be made.
    pub(crate) fn run(
        mut self,
        mut batches: mpsc::Receiver<Batch>,
        mut asks: mpsc::Receiver<Ask>,
    ) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .context("cannot make the explainer's event loop")?;
        runtime.block_on(async {
            loop {
                tokio::select! {
                    batch = batches.recv() => match batch {
                        Some(batch) => self.take(batch),
                        None => return,
                    },
                    ask = asks.recv() => match ask {
                        Some(ask) => self.ask(ask),
                        None => return,
                    },
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                self.settle();
            }
        });
        Ok(())
    }

    /// Takes a batch in.
    fn take(&mut self, batch: Batch) {
        let Batch {
            connection,
            exporter,
            spans,
            ..
        } = batch;
        for span in spans {
            let place = self.placer.place(&connection, &exporter, &span);
            self.keep(span, place);
        }
    }

    fn keep(&mut self, span: SpanIn, place: Place) {
        let mut spans = lock(&self.spans);
        let to_answer = spans.insert(span, place);
        for key in to_answer {
            let end = spans.get(key).map_or(0, due);
            self.shared.want(end);
            self.pending.push(Reverse((end, key)));
        }
    }

    /// Takes a question in.
    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Again(keys) => {
                let spans = lock(&self.spans);
                for key in keys {
                    let end = spans.get(key).map_or(0, due);
                    self.pending.push(Reverse((end, key)));
                }
            }
            Ask::Explain(question) => {
                let connection = Connection {
                    number: 0,
                    peer: question.peer,
                };
                let mut own = Spans::default();
                for span in &question.spans {
                    let known = lock(&self.spans)
                        .get(super::spans::key_of(span))
                        .map(|entry| entry.place);
                    let place = self.placer.place_asked(&connection, span, known);
                    own.insert(span.clone(), place);
                }
                let asked = Asked::new(question, own);
                self.shared.want(asked.end());
                if self.asked.len() < ASKED_MAX {
                    self.asked.push(asked);
                } else {
                    self.reply(asked);
                }
            }
        }
    }

    /// Answers what the horizon has passed.
    fn settle(&mut self) {
        let horizon = self.shared.horizon();
        loop {
            let mut due = Vec::new();
            while due.len() < ANSWERS_PER_LOCK
                && self
                    .pending
                    .peek()
                    .is_some_and(|Reverse((end, _))| *end <= horizon)
            {
                due.extend(self.pending.pop().map(|Reverse((_, key))| key));
            }
            if due.is_empty() {
                break;
            }
            self.settle_some(&due);
            self.changed.send_modify(|changes| *changes += 1);
        }
        if self.placer.is_due(horizon) {
            let shared = self.shared.clone();
            self.judge(horizon, &shared.recorder().whereabouts());
        }
        for refused in self
            .second_look
            .due(Instant::now())
            .chunks(ANSWERS_PER_LOCK)
        {
            self.look_again(refused);
            self.changed.send_modify(|changes| *changes += 1);
        }
        let (due, waiting) = std::mem::take(&mut self.asked)
            .into_iter()
            .partition(|asked| asked.end() <= horizon || asked.is_late());
        self.asked = waiting;
        for asked in due {
            self.reply(asked);
        }
    }

    fn settle_some(&mut self, due: &[SpanKey]) {
        let shared = self.shared.clone();
        let all = self.spans.clone();
        let recorder = shared.recorder();
        let mut spans = lock(&all);
        // First all are learned from, then all are answered: what one span shows settles another.
        let whereabouts = recorder.whereabouts();
        for &key in due {
            spans.replace(key, |place| self.placer.settled(place));
            if spans.meet(key)
                && let Some(subject) = Subject::of(&spans, key, &mut self.kinds)
                && let (Some(entry), Some(facts)) = (spans.get(key), subject.owner_facts())
            {
                self.placer.learn(&entry.place, &facts, &whereabouts);
            }
        }
        drop(spans);
        self.judge(shared.horizon(), &whereabouts);
        let mut spans = lock(&all);
        for &key in due {
            spans.replace(key, |place| self.placer.settled(place));
            if spans
                .get(key)
                .is_some_and(|entry| entry.place.process.is_some())
                && spans.observe(key)
                && let Some(subject) = Subject::of(&spans, key, &mut self.kinds)
                && let Some(facts) = subject.join_facts()
            {
                self.joiner.observe(&facts, &whereabouts);
            }
        }
        for &key in due {
            if let Some((answer, joined)) = self.answer(&spans, key, &recorder, &whereabouts) {
                let before = self.count(&mut spans, key, joined);
                if before.is_none_or(|before| before.joined.how == How::None) {
                    self.note(&spans, key, joined, None);
                }
                spans.answer(key, answer);
            }
        }
    }

    /// Judges anew whose spans are whose; those that were answered otherwise are answered again.
    fn judge(&mut self, horizon: Ns, whereabouts: &Whereabouts<'_>) {
        let spans = lock(&self.spans);
        for source in self.placer.judge(horizon, whereabouts) {
            let placer = &self.placer;
            let again = spans
                .answered_of(source)
                .filter(|(_, entry)| placer.settled(entry.place).process != entry.place.process);
            self.pending
                .extend(again.map(|(key, entry)| Reverse((due(entry), key))));
        }
    }

    /// Counts an answer; says as what its span was counted before.
    fn count(&self, spans: &mut Spans, key: SpanKey, joined: Joined) -> Option<Counted> {
        let place = spans.get(key)?.place;
        let doubt = place.owner.and(place.why_unknown);
        let now = Counted { joined, doubt };
        let before = spans.count(key, now);
        self.shared.tally().count(before.as_ref(), &now);
        before
    }

    /// Answers spans again whose threads were refused for what may be known by now.
    fn look_again(&mut self, refused: &[Refused]) {
        let shared = self.shared.clone();
        let all = self.spans.clone();
        let recorder = shared.recorder();
        let whereabouts = recorder.whereabouts();
        let mut spans = lock(&all);
        for before in refused {
            let start = spans.get(before.key).and_then(start_of);
            if start.is_none_or(|start| start < recorder.reach()) {
                continue;
            }
            let answered = self.answer(&spans, before.key, &recorder, &whereabouts);
            if let Some((answer, joined)) = answered {
                self.count(&mut spans, before.key, joined);
                self.note(&spans, before.key, joined, Some(*before));
                spans.answer(before.key, answer);
            }
        }
    }

    /// Remembers what may change.
    fn note(&mut self, spans: &Spans, key: SpanKey, joined: Joined, before: Option<Refused>) {
        let process = spans.get(key).and_then(|entry| entry.place.process);
        if let Some(process) = process {
            self.second_look
                .note(process, key, joined, before, Instant::now());
        }
    }

    /// The answer of one span behind the horizon.
    fn answer(
        &mut self,
        spans: &Spans,
        key: SpanKey,
        recorder: &Recorder,
        whereabouts: &Whereabouts<'_>,
    ) -> Option<(SpanAnswer, Joined)> {
        let subject = Subject::of(spans, key, &mut self.kinds)?;
        let shared = &self.shared;
        let from = shared.clock.to_unix(recorder.reach());
        let lost = shared.lost_records.load(Ordering::Relaxed);
        let facts = subject.facts(from, lost);
        let names = Names {
            recorder,
            cgroups: &shared.cgroups,
        };
        let joined = match subject.join_facts() {
            Some(of_join) => self.joiner.join(&of_join, whereabouts),
            None => subject.unjoined(),
        };
        let window = facts.window.start..facts.window.end;
        let others = joined
            .thread
            .map(|thread| self.served.within(thread, &window, facts.span));
        let answer = answer(&facts, &joined, &others.unwrap_or_default(), &names);
        if let Some(thread) = joined.thread {
            self.served.note(thread, window, facts.span);
        }
        // The identities are checked on what goes out, not only in tests (invariant 3).
        if answer.check().is_err() {
            shared.violations.fetch_add(1, Ordering::Relaxed);
        }
        Some((answer, joined))
    }

    /// Answers a question with what is known now.
    fn reply(&mut self, mut asked: Asked) {
        let shared = self.shared.clone();
        let recorder = shared.recorder();
        let whereabouts = recorder.whereabouts();
        let horizon = shared.horizon();
        let keys = asked.keys();
        for &key in &keys {
            asked.spans.replace(key, |place| self.placer.settled(place));
        }
        let answers = keys.into_iter().filter_map(|key| {
            let entry = asked.spans.get(key)?;
            if due(entry) <= horizon {
                let answer = self.answer(&asked.spans, key, &recorder, &whereabouts);
                return answer.map(|(answer, _)| answer);
            }
            let subject = Subject::of(&asked.spans, key, &mut self.kinds)?;
            Some(without_thread(&subject.facts(0, 0), Status::Pending))
        });
        let answers: Vec<SpanAnswer> = answers.collect();
        asked.reply(answers);
    }
}

/// When a span can be answered.
fn due(entry: &Entry) -> Ns {
    entry.place.window.due()
}

/// When it began, where it has a place on the clock.
fn start_of(entry: &Entry) -> Option<Ns> {
    Some(entry.place.window.instants()?.start)
}
