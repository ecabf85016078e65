// SPDX-License-Identifier: Apache-2.0
//! Questions to the explainer, and the door that the API asks through.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use lacuna_timeline::Ns;
use lacuna_timeline::join::SpanKey;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::answer::Explanation;
use crate::answer::ListedSpan;
use crate::answer::SpanAnswer;
use crate::answer::SpanList;
use crate::answer::Status;
use crate::api::Answers;
use crate::api::SpansQuery;
use crate::explain::conceal_others;
use crate::otlp::OtlpCounters;
use crate::otlp::SpanIn;
use crate::serve::Peer;

use super::shared::Shared;
use super::shared::lock;
use super::spans::Found;
use super::spans::Spans;
use super::spans::key_of;
use super::subject::Kinds;
use super::subject::Subject;

/// What the explainer is asked.
pub(crate) enum Ask {
    /// To answer these again: what was answered was not kept.
    Again(Vec<SpanKey>),
    /// To explain spans that were brought along.
    Explain(Question),
}

/// Spans that somebody brought and asks about.
pub(crate) struct Question {
    /// The spans.
    pub(super) spans: Vec<SpanIn>,
    /// Who asks.
    pub(super) peer: Peer,
    /// When an answer must be given, complete or not.
    deadline: Instant,
    reply: oneshot::Sender<Explanation>,
}

/// A question that waits for the horizon.
pub(super) struct Asked {
    /// Its spans, apart from those that were exported.
    pub(super) spans: Spans,
    question: Question,
}

impl Asked {
    /// A question whose spans have been placed.
    pub(super) fn new(question: Question, spans: Spans) -> Asked {
        Asked { spans, question }
    }

    /// When the latest of its spans can be answered.
    pub(super) fn end(&self) -> Ns {
        let keys = self.keys().into_iter();
        let dues = keys.filter_map(|key| Some(self.spans.get(key)?.place.window.due()));
        dues.max().unwrap_or(0)
    }

    /// Its spans, in the order in which they were brought.
    pub(super) fn keys(&self) -> Vec<SpanKey> {
        self.question.spans.iter().map(key_of).collect()
    }

    /// Whether it has waited long enough, or nobody waits for it any more.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.question.deadline || self.question.reply.is_closed()
    }

    /// Gives the answer. That nobody waits for it any more is no error.
    pub(super) fn reply(self, answers: Vec<SpanAnswer>) {
        let shown = as_shown(answers, self.question.peer);
        let _ = self.question.reply.send(shown);
    }
}

/// Answers as far as their reader may know: root on this host everything, others no other process's name.
fn as_shown(mut answers: Vec<SpanAnswer>, reader: Peer) -> Explanation {
    if !matches!(reader, Peer::Unix { uid: 0, .. }) {
        answers.iter_mut().for_each(conceal_others);
    }
    answers.into()
}

/// Where the API asks.
pub(crate) struct Door {
    shared: Arc<Shared>,
    otlp: Arc<OtlpCounters>,
    spans: Arc<Mutex<Spans>>,
    asks: mpsc::Sender<Ask>,
    changed: watch::Receiver<u64>,
    ready: Arc<AtomicBool>,
}

impl Door {
    /// A door to the explainer at the other end of `asks`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        otlp: Arc<OtlpCounters>,
        spans: Arc<Mutex<Spans>>,
        asks: mpsc::Sender<Ask>,
        changed: watch::Receiver<u64>,
        ready: Arc<AtomicBool>,
    ) -> Door {
        Door {
            shared,
            otlp,
            spans,
            asks,
            changed,
            ready,
        }
    }

    /// What is known of a trace now, and which of its spans must be answered again.
    fn look(&self, trace: u128, relearn: bool) -> (Vec<SpanAnswer>, Vec<SpanKey>) {
        let mut spans = lock(&self.spans);
        let (found, again) = spans.trace(trace, relearn);
        let pending: Vec<SpanKey> = found
            .iter()
            .filter_map(|found| match found {
                Found::Pending(span) => Some(key_of(span)),
                Found::Answered(_) => None,
            })
            .collect();
        let mut answers: Vec<SpanAnswer> = found
            .into_iter()
            .filter_map(|found| match found {
                Found::Answered(answer) => Some(answer.clone()),
                Found::Pending(_) => None,
            })
            .collect();
        let mut kinds = Kinds::default();
        for key in pending {
            let subject = Subject::of(&spans, key, &mut kinds);
            answers.extend(subject.map(|subject| {
                crate::explain::without_thread(&subject.facts(0, 0), Status::Pending)
            }));
        }
        answers.sort_by_key(|answer| answer.head.start_unix_ns);
        (answers, again)
    }
}

impl Answers for Door {
    async fn trace(&self, trace_id: [u8; 16], peer: Peer, wait: Duration) -> Option<Explanation> {
        let trace = u128::from_be_bytes(trace_id);
        let deadline = tokio::time::Instant::now() + wait;
        let mut changed = self.changed.clone();
        let mut first = true;
        loop {
            changed.mark_unchanged();
            let (answers, again) = self.look(trace, std::mem::take(&mut first));
            if !again.is_empty() {
                // A full queue only means that the answer comes later than asked for.
                let _ = self.asks.try_send(Ask::Again(again));
            }
            let pending = answers
                .iter()
                .any(|answer| answer.head.status == Status::Pending);
            let late = tokio::time::timeout_at(deadline, async {
                match answers.is_empty() || pending {
                    true => changed.changed().await.is_err(),
                    false => true,
                }
            });
            if late.await.unwrap_or(true) {
                return (!answers.is_empty()).then(|| as_shown(answers, peer));
            }
        }
    }

    fn spans(&self, query: &SpansQuery) -> SpanList {
        let wanted = |span: &ListedSpan| {
            span.head.gap_ns >= query.min_gap_ns
                && query
                    .service
                    .as_ref()
                    .is_none_or(|service| *service == span.head.service)
        };
        lock(&self.spans).list(query.limit, wanted).into()
    }

    async fn explain(&self, spans: Vec<SpanIn>, peer: Peer, wait: Duration) -> Explanation {
        let (reply, answer) = oneshot::channel();
        let question = Question {
            spans,
            peer,
            deadline: Instant::now() + wait,
            reply,
        };
        // Only an agent that is ending has nobody to ask; then nothing is known.
        if self.asks.send(Ask::Explain(question)).await.is_err() {
            return Vec::new().into();
        }
        answer.await.unwrap_or_else(|_| Vec::new().into())
    }

    fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn health(&self) -> serde_json::Value {
        // Each lock by itself: the counts need not be of one instant.
        let recorder = self.shared.recorder().stats();
        let spans = lock(&self.spans).counts();
        let tally = self.shared.tally().clone();
        super::health::report(
            &tally,
            spans,
            &recorder,
            &self.otlp,
            &self.shared.counters(),
            self.shared.violations.load(Ordering::Relaxed),
        )
    }
}
