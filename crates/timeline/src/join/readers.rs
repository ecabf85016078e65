// SPDX-License-Identifier: Apache-2.0
//! Whether a process took the timestamps of the spans that came by it (rule 15).
//!
//! Who holds the exporting connection may be a collector, a sidecar or a proxy. Whoever takes a
//! timestamp is on a CPU then, so for the true process *some* thread, not always the same one, was
//! on a CPU at every start and at every end; that holds for tasks that move and spans that end on
//! another thread too. A clock that is wrong by a lag has the same at that lag. Only where no lag
//! does it, over many spans and with complete records, is the process contradicted.
//!
//! This says nothing of threads, and nothing of who did take the timestamps.

use super::candidates::Instants;
use super::candidates::Window;
use super::counts::Share;
use super::facts::SpanFacts;
use super::lags::Ends;
use super::lags::peak;
use super::limits::LAG_NS_MAX;
use super::limits::OFFSETS;
use super::limits::READ_AGAIN_NS;
use super::limits::READ_CHANCE_MAX;
use super::limits::READ_EVERY_NS;
use super::limits::READ_PEAK_MIN;
use super::limits::READ_SHARE_MIN;
use super::limits::READ_SHOWN_MIN;
use super::limits::READ_SHOWN_ODDS;
use super::limits::READ_SPANS_MIN;
use super::limits::SAMPLE_MAX;
use super::limits::SAMPLE_MIN;
use super::limits::SAMPLE_SLACK_NS;
use super::limits::SAMPLE_SPREAD_NS_MAX;
use super::limits::SOURCES_MAX;
use super::presence::OnCpu;
use super::presence::Presence;
use crate::event::Ns;
use crate::event::ProcessId;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;

/// Spans of one service that came by one process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// The process that is held to have made them.
    pub process: ProcessId,
    /// Which service of those that came by it: the caller's number.
    pub service: u64,
}

/// What is known of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reading {
    /// Too little was seen, or the process is on a CPU too often to tell.
    #[default]
    Open,
    /// Its threads were on CPUs when the timestamps were taken, far beyond chance, be it at the
    /// lag of a wrong clock.
    Shown,
    /// At no lag were they: somebody else took these timestamps.
    Contradicted,
}

/// What was learned of all sources.
#[derive(Debug, Default)]
pub struct Readers {
    sources: HashMap<Source, Evidence>,
    turn: u64,
}

/// What was counted of one source since its last verdict.
#[derive(Debug, Default)]
struct Evidence {
    reading: Reading,
    turn: u64,
    /// Start of the last span that was looked at.
    last: Ns,
    /// Spans looked at, with complete records.
    spans: u64,
    /// At how many starts, and ends, some thread was on a CPU, of those where that is certain.
    starts: Share,
    ends: Share,
    /// The same at trial offsets: what chance does.
    chance: Share,
    /// Which offset is next.
    tried: usize,
    /// The latest spans that were looked at.
    sample: VecDeque<Ends>,
    /// A sample that waits for the records behind it.
    asked: Option<(Ns, Vec<Ends>)>,
}

impl Readers {
    /// Learns from a span, once, when the horizon has passed its end. `span.process` is not used:
    /// the source says whose threads to look at.
    pub fn observe(&mut self, source: Source, span: &SpanFacts<'_>, presence: &dyn Presence) {
        if super::unusable(span) {
            return;
        }
        self.turn += 1;
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            let silent = self.sources.iter().min_by_key(|(_, known)| known.turn);
            if let Some(silent) = silent.map(|(source, _)| *source) {
                self.sources.remove(&silent);
            }
        }
        let evidence = self.sources.entry(source).or_default();
        evidence.turn = self.turn;
        evidence.observe(source.process, span, presence);
    }

    /// What is known of a source.
    pub fn reading(&self, source: Source) -> Reading {
        self.sources
            .get(&source)
            .map_or(Reading::Open, |known| known.reading)
    }

    /// Up to when records are wanted, where a verdict waits for them.
    pub fn awaits(&self) -> Option<Ns> {
        let due = |known: &Evidence| known.asked.as_ref().map(|(due, _)| *due);
        self.sources.values().filter_map(due).max()
    }

    /// Judges the sources anew of which enough is known up to the horizon; returns those whose
    /// reading is another one now.
    pub fn judge(&mut self, horizon: Ns, presence: &dyn Presence) -> Vec<Source> {
        let mut changed = Vec::new();
        for (source, evidence) in &mut self.sources {
            let before = evidence.reading;
            evidence.judge(source.process, horizon, presence);
            if evidence.reading != before {
                changed.push(*source);
            }
        }
        changed
    }
}

impl Evidence {
    /// Looks at a span that lies apart from the last one: spans of one burst all say the same.
    fn observe(&mut self, process: ProcessId, span: &SpanFacts<'_>, presence: &dyn Presence) {
        let every = match self.reading {
            Reading::Shown => READ_AGAIN_NS,
            Reading::Open | Reading::Contradicted => READ_EVERY_NS,
        };
        if span.start.abs_diff(self.last) < every {
            return;
        }
        let own = Instants::own(span, span.grain_ns);
        self.tried = (self.tried + 1) % OFFSETS.len();
        let earlier = own.earlier(OFFSETS[self.tried]);
        let mut windows = vec![own.start(), own.end()];
        windows.extend(earlier.iter().flat_map(|at| [at.start(), at.end()]));
        let Some(on) = anyone(presence, process, &windows) else {
            return;
        };
        self.last = span.start;
        self.spans += 1;
        note(&mut self.starts, on[0]);
        note(&mut self.ends, on[1]);
        for on in &on[2..] {
            note(&mut self.chance, *on);
        }
        self.keep(span, &own);
    }

    /// Keeps a span for the look at all lags.
    fn keep(&mut self, span: &SpanFacts<'_>, own: &Instants) {
        let wide = |at: Window| {
            let from = at.0.saturating_sub(SAMPLE_SLACK_NS);
            (from, at.1.saturating_add(SAMPLE_SLACK_NS))
        };
        self.sample.push_back(Ends {
            start: wide(own.start()),
            end: wide(own.end()),
        });
        let oldest = span.end.saturating_sub(SAMPLE_SPREAD_NS_MAX);
        while self.sample.len() > SAMPLE_MAX
            || self.sample.front().is_some_and(|kept| kept.end.1 < oldest)
        {
            self.sample.pop_front();
        }
    }

    fn judge(&mut self, process: ProcessId, horizon: Ns, presence: &dyn Presence) {
        if let Some((_, sample)) = self.asked.take_if(|(due, _)| *due <= horizon) {
            self.look_at_lags(process, &sample, presence);
        }
        if self.is_shown() {
            self.reading = Reading::Shown;
            self.asked = None;
            if self.spans >= READ_SPANS_MIN {
                self.start_anew();
            }
        } else if self.spans >= READ_SPANS_MIN && self.asked.is_none() {
            if self.share() < READ_SHARE_MIN && self.sample.len() >= SAMPLE_MIN {
                let sample: Vec<Ends> = self.sample.iter().copied().collect();
                let last = sample.iter().map(|kept| kept.end.1).max().unwrap_or(0);
                self.asked = Some((last.saturating_add(LAG_NS_MAX), sample));
            }
            self.start_anew();
        }
    }

    /// The share of starts, or of ends where that is smaller, with a thread on a CPU.
    fn share(&self) -> f64 {
        self.starts.value().min(self.ends.value())
    }

    /// Nearly every instant has a thread on a CPU, and chance would not do that: the odds are at
    /// least [`READ_SHOWN_ODDS`] for the starts alone and for the ends alone.
    fn is_shown(&self) -> bool {
        let chance = self.chance.most();
        let shown = |share: &Share| {
            let misses = share.of - share.hits;
            let by_hits = share.hits as f64 * (READ_SHARE_MIN / chance).ln();
            let by_misses = misses as f64 * ((1.0 - READ_SHARE_MIN) / (1.0 - chance)).ln();
            by_hits + by_misses >= READ_SHOWN_ODDS.ln()
        };
        self.spans >= READ_SHOWN_MIN
            && chance < READ_SHARE_MIN
            && shown(&self.starts)
            && shown(&self.ends)
    }

    fn look_at_lags(&mut self, process: ProcessId, sample: &[Ends], presence: &dyn Presence) {
        let Some(peak) = peak(presence, process, sample) else {
            return;
        };
        if peak.mean > READ_CHANCE_MAX {
            return;
        }
        if peak.certain >= READ_SHARE_MIN {
            self.reading = Reading::Shown;
        } else if peak.possible < READ_PEAK_MIN {
            self.reading = Reading::Contradicted;
        }
    }

    /// Forgets the counts, so that a source that changes is noticed.
    fn start_anew(&mut self) {
        self.spans = 0;
        self.starts = Share::default();
        self.ends = Share::default();
        self.chance = Share::default();
    }
}

fn note(share: &mut Share, on: bool) {
    share.of += 1;
    share.hits += u64::from(on);
}

/// Whether some thread of the process was on a CPU in each of these windows. Only threads of which
/// that is certain in all of them count, so that what is compared with chance is like it. `None`:
/// there is no such thread, or others may have lived then.
fn anyone(presence: &dyn Presence, process: ProcessId, windows: &[Window]) -> Option<Vec<bool>> {
    let mut threads = HashSet::new();
    for &(from, to) in windows {
        let complete = presence.threads(process, from, to, &mut |facts| {
            threads.insert(facts.thread);
        });
        if !complete {
            return None;
        }
    }
    let mut any = None;
    for thread in threads {
        let on = windows
            .iter()
            .map(|&(from, to)| presence.on_cpu(thread, from, to));
        let on: Vec<OnCpu> = on.collect();
        if on.contains(&OnCpu::Maybe) {
            continue;
        }
        let sum = any.get_or_insert_with(|| vec![false; windows.len()]);
        for (sum, on) in sum.iter_mut().zip(on) {
            *sum |= on == OnCpu::Yes;
        }
    }
    any
}
