// SPDX-License-Identifier: Apache-2.0
//! A span with its family, as the join and the answer want it.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::ops::Range;
use std::sync::Arc;

use lacuna_timeline::Ns;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::ChildFacts;
use lacuna_timeline::join::Claim;
use lacuna_timeline::join::Claims;
use lacuna_timeline::join::How;
use lacuna_timeline::join::Joined;
use lacuna_timeline::join::KindId;
use lacuna_timeline::join::Place as Stand;
use lacuna_timeline::join::SpanFacts;
use lacuna_timeline::join::SpanKey;
use lacuna_timeline::join::Why;
use lacuna_timeline::join::grain_ns;

use crate::explain::Facts;
use crate::explain::SpanWindow;
use crate::otlp::SpanIn;
use crate::otlp::SpanKind;

use super::spans::Entry;
use super::spans::Spans;
use super::spans::Window;

/// How many kinds of spans (scope and name) are told apart; beyond it each span is a kind of its
/// own, and so never learned.
const KINDS_MAX: usize = 16_384;

/// Numbers for kinds of spans.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    known: HashMap<Arc<str>, HashMap<Box<str>, KindId>>,
    next: u32,
}

impl Kinds {
    fn of(&mut self, span: &SpanIn) -> KindId {
        let in_scope = self.known.get(&span.scope);
        if let Some(&kind) = in_scope.and_then(|names| names.get(&span.name)) {
            return kind;
        }
        let kind = KindId(self.next);
        self.next = self.next.wrapping_add(1);
        if (self.next as usize) <= KINDS_MAX {
            let names = self.known.entry(span.scope.clone()).or_default();
            names.insert(span.name.clone(), kind);
        }
        kind
    }
}

/// A span, its place, and its children.
pub(super) struct Subject<'a> {
    entry: &'a Entry,
    key: SpanKey,
    kind: KindId,
    stand: Stand,
    window: SpanWindow,
    /// All children that have a place on the clock.
    children: Vec<Range<Ns>>,
    /// Those of the same process.
    own_children: Vec<ChildFacts>,
    suspended_in_child: bool,
}

impl<'a> Subject<'a> {
    /// A span that is known.
    pub(super) fn of(spans: &'a Spans, key: SpanKey, kinds: &mut Kinds) -> Option<Subject<'a>> {
        let entry = spans.get(key)?;
        let mut children = Vec::new();
        let mut own_children = Vec::new();
        let mut suspended_in_child = false;
        for child in spans.children(key) {
            let Some(instants) = child.place.window.instants() else {
                continue;
            };
            if let Window::At(window) = child.place.window {
                suspended_in_child |= window.suspended_ns > 0;
            }
            if child.place.owner == entry.place.owner {
                own_children.push(ChildFacts {
                    kind: kinds.of(&child.span),
                    start: instants.start,
                    end: instants.end,
                });
            }
            children.push(instants);
        }
        Some(Subject {
            key,
            kind: kinds.of(&entry.span),
            stand: spans.stand(entry),
            window: window_of(entry),
            entry,
            children,
            own_children,
            suspended_in_child,
        })
    }

    /// What the join is asked; nothing where there is no process or no instant to ask about.
    pub(super) fn join_facts(&self) -> Option<SpanFacts<'_>> {
        self.facts_in(self.entry.place.process?)
    }

    /// The same as if the owner of its connection had made it.
    pub(super) fn owner_facts(&self) -> Option<SpanFacts<'_>> {
        self.facts_in(self.entry.place.owner?)
    }

    fn facts_in(&self, process: ProcessId) -> Option<SpanFacts<'_>> {
        let span = &self.entry.span;
        let instants = self.entry.place.window.instants()?;
        Some(SpanFacts {
            key: self.key,
            process,
            kind: self.kind,
            start: instants.start,
            end: instants.end,
            error_ns: self.window.error_ns,
            grain_ns: grain_ns(span.start_unix_ns, span.end_unix_ns),
            place: self.stand,
            children: &self.own_children,
            clock_stepped: matches!(self.entry.place.window, Window::Stepped(..))
                || self.window.suspended_ns > 0,
            claims: Claims {
                native_tid: span.os_thread_id.map(u64::from),
                managed_id: span.thread_id.and_then(|id| u64::try_from(id).ok()),
                name: span.thread_name.as_deref(),
            },
            // A client's peer is a server, whose port says nothing of this end.
            peer_port: match span.kind {
                SpanKind::Server => span.peer_port.and_then(NonZeroU16::new),
                _ => None,
            },
        })
    }

    /// The join of a span that the join cannot be asked about.
    pub(super) fn unjoined(&self) -> Joined {
        Joined {
            how: match self.entry.place.process {
                Some(_) => How::Process,
                None => How::None,
            },
            thread: None,
            score: 0.0,
            candidates: 0,
            why: Why::Unusable,
            claim: Claim::Absent,
        }
    }

    /// What the answer is made of.
    pub(super) fn facts(&self, recorder_from_unix_ns: u64, lost_records: u64) -> Facts<'_> {
        Facts {
            span: &self.entry.span,
            window: self.window,
            children: &self.children,
            suspended_in_child: self.suspended_in_child,
            process: self.entry.place.process,
            unplaced: self
                .entry
                .place
                .why_unknown
                .or(self.entry.place.window.why_nowhere()),
            lost_records,
            recorder_from_unix_ns,
        }
    }
}

/// The window that an answer is made for. A span without a place on the clock gets one of its
/// length at the clock's very beginning, where no record is.
fn window_of(entry: &Entry) -> SpanWindow {
    match entry.place.window {
        Window::At(window) | Window::Stepped(window, _) => window,
        Window::TooOld | Window::Nowhere => SpanWindow {
            start: 0,
            end: entry.span.end_unix_ns - entry.span.start_unix_ns,
            suspended_ns: 0,
            error_ns: 0,
        },
    }
}
