// SPDX-License-Identifier: Apache-2.0
//! What is learned of one kind of span in one process.
//!
//! Two questions. *Do its spans start and end on one thread?* Spans without any candidate say no;
//! their absence says yes only as far as it could have been seen, so the verdict is a probability
//! of a wrong thread, not a count. *Which threads serve it?* A thread that is often a candidate but
//! never the only one does not. Formulas and what they were tried on: docs/design/0002-join.md.

use super::candidates::Candidate;
use super::candidates::Found;
use super::counts::Halves;
use super::counts::Share;
use super::counts::Trials;
use super::facts::KindId;
use super::facts::Why;
use super::heard::Hearings;
use super::limits::ALONE_MIN;
use super::limits::BRIEF_NS;
use super::limits::HALF_SPANS;
use super::limits::HISTORY_MIN;
use super::limits::KIND_SPANS_MIN;
use super::limits::KIND_WRONG_MAX;
use super::limits::LEARN_ALL;
use super::limits::LEARN_ONE_IN;
use super::limits::MULTIPLEXED_WRONG_MAX;
use super::limits::NO_CANDIDATE_ONE_IN;
use super::limits::OFFSETS_PER_SPAN;
use super::limits::PRIOR;
use super::limits::PROVED_MIN;
use super::limits::RENEW_SPANS;
use super::limits::SEEN_OFTEN;
use super::limits::SERVERS_MAX;
use super::limits::SHARED_MAX;
use crate::event::Ns;
use crate::event::ThreadId;
use std::collections::HashMap;

/// Who may serve a kind: a thread with a history, or the class of those too young to have one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Server {
    /// A thread older than [`BRIEF_NS`].
    Thread(ThreadId),
    /// Any younger thread, and those that found no room.
    Brief,
}

impl Server {
    /// As what a candidate for a span that started at `start` counts.
    pub(super) fn of(candidate: &Candidate, start: Ns) -> Server {
        if start.saturating_sub(candidate.born) < BRIEF_NS {
            Server::Brief
        } else {
            Server::Thread(candidate.thread)
        }
    }
}

/// What is counted of one server.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    /// Times it was a candidate.
    seen: u64,
    /// Times it was the only one.
    sole: u64,
    /// Times it was the only one that is not busy.
    idle_sole: u64,
    /// Times it was one of two.
    pair: u64,
    /// Times it was the only thread on a CPU at the start, and at the end.
    lone: u64,
    /// Times it was a candidate at a trial offset.
    chance: u64,
}

/// One half of the window.
#[derive(Debug, Default)]
struct Counts {
    /// Start of the earliest span.
    from: Option<Ns>,
    /// Spans with complete records.
    spans: u64,
    /// Of those, without a candidate, and with exactly one.
    none: u64,
    sole: u64,
    /// The same, not counting candidates that are busy threads.
    idle_none: u64,
    idle_sole: u64,
    /// Of those, learned from in full.
    learned: u64,
    /// Of the learned, proved to have started and ended on one thread.
    lone: u64,
    trials: Trials,
    servers: HashMap<Server, Served>,
    /// Of the class of brief threads, those that may turn out not to be brief.
    young: HashMap<ThreadId, Served>,
    /// Spans with a sole candidate, and how often another root span, by its kind, was open there.
    certain: u64,
    overlaps: HashMap<KindId, u64>,
    /// Threads that had two spans of this kind open at once; the first [`SHARED_MAX`].
    shared: Vec<ThreadId>,
    /// Claims that could be checked, and of those the contradicted.
    claims: u64,
    false_claims: u64,
}

impl Served {
    /// Counts a span that this was a candidate of.
    fn note(&mut self, found: &Found, candidate: &Candidate, lone: bool) {
        self.seen += 1;
        self.sole += u64::from(found.list.len() == 1);
        self.idle_sole += u64::from(found.idle() == 1 && !candidate.busy);
        self.pair += u64::from(found.list.len() == 2);
        self.lone += u64::from(lone);
    }

    fn add(&mut self, other: &Served) {
        self.seen += other.seen;
        self.sole += other.sole;
        self.idle_sole += other.idle_sole;
        self.pair += other.pair;
        self.lone += other.lone;
        self.chance += other.chance;
    }
}

impl Counts {
    fn server(&mut self, server: Server) -> &mut Served {
        let full = self.servers.len() >= SERVERS_MAX && !self.servers.contains_key(&server);
        self.servers
            .entry(if full { Server::Brief } else { server })
            .or_default()
    }
}

impl Counts {
    /// A young thread. Most are never seen again, so where there is no room those that were seen
    /// least make it.
    fn young(&mut self, thread: ThreadId) -> &mut Served {
        if self.young.len() >= SERVERS_MAX && !self.young.contains_key(&thread) {
            self.young.retain(|_, served| served.seen >= SEEN_OFTEN);
            if self.young.len() >= SERVERS_MAX {
                self.young.clear();
            }
        }
        self.young.entry(thread).or_default()
    }
}

/// What is believed of a kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    /// Why its spans are not joined; `None`: they may be.
    pub(super) refused: Option<Why>,
    /// Estimated probability that a candidate of such a span is there by chance only, because the
    /// span was not on one thread.
    pub(super) wrong: f64,
}

/// One kind of span.
#[derive(Debug)]
pub(super) struct Kind {
    counts: Halves<Counts>,
    verdict: Verdict,
    /// Spans observed over its whole life, complete or not.
    observed: u64,
    /// Threads that were the sole candidate of some span.
    peers: u64,
    /// The busy threads are shown not to serve: the others suffice.
    without_busy: bool,
    heard: Hearings,
}

impl Default for Kind {
    fn default() -> Self {
        let verdict = Verdict {
            refused: Some(Why::Learning),
            wrong: 1.0,
        };
        Kind {
            counts: Halves::default(),
            verdict,
            observed: 0,
            peers: 0,
            without_busy: false,
            heard: Hearings::default(),
        }
    }
}

impl Kind {
    /// Counts one more observed span; true where it is one to learn from in full.
    pub(super) fn observe(&mut self) -> bool {
        self.observed += 1;
        self.observed <= LEARN_ALL || self.observed.is_multiple_of(LEARN_ONE_IN)
    }

    /// The current verdict.
    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Notes which threads were candidates of a span with complete records.
    pub(super) fn note_span(&mut self, found: &Found, start: Ns, learned: bool) {
        if self.counts.current.spans >= HALF_SPANS {
            self.counts.roll();
        }
        self.heard.note(found);
        let counts = &mut self.counts.current;
        counts.from = Some(counts.from.map_or(start, |from| from.min(start)));
        counts.spans += 1;
        counts.none += u64::from(found.list.is_empty());
        counts.learned += u64::from(learned);
        let sole = found.list.len() == 1;
        counts.sole += u64::from(sole);
        counts.idle_none += u64::from(found.idle() == 0);
        counts.idle_sole += u64::from(found.idle() == 1);
        let lone = learned && sole && found.lone_ends;
        counts.lone += u64::from(lone);
        for candidate in &found.list {
            let server = Server::of(candidate, start);
            counts.server(server).note(found, candidate, lone);
            if server == Server::Brief {
                counts.young(candidate.thread).note(found, candidate, lone);
            }
        }
    }

    /// Notes which threads were candidates at trial offset number `i`, where the span would have
    /// started at `start`.
    pub(super) fn note_trial(&mut self, i: usize, found: &Found, start: Ns) {
        let counts = &mut self.counts.current;
        counts
            .trials
            .note(i, !found.list.is_empty(), found.idle() > 0);
        for candidate in &found.list {
            let server = Server::of(candidate, start);
            counts.server(server).chance += 1;
            if server == Server::Brief {
                counts.young(candidate.thread).chance += 1;
            }
        }
    }

    /// Notes a span with a sole candidate.
    pub(super) fn note_certain(&mut self) {
        self.counts.current.certain += 1;
    }

    /// Notes that a span of this kind and one of `other` were open on one thread.
    pub(super) fn note_overlap(&mut self, other: KindId) {
        *self.counts.current.overlaps.entry(other).or_default() += 1;
    }

    /// Notes that two spans of this kind were open on `thread`.
    pub(super) fn note_shared(&mut self, thread: ThreadId) {
        let shared = &mut self.counts.current.shared;
        if shared.len() < SHARED_MAX && !shared.contains(&thread) {
            shared.push(thread);
        }
    }

    /// Notes a claim that could be checked.
    pub(super) fn note_claim(&mut self, fits: bool) {
        self.counts.current.claims += 1;
        self.counts.current.false_claims += u64::from(!fits);
    }

    /// Claims checked, and contradicted.
    pub(super) fn claims(&self) -> (u64, u64) {
        (
            self.counts.sum(|c| c.claims),
            self.counts.sum(|c| c.false_claims),
        )
    }

    /// By how much less likely a candidate is where another one waited for the connection.
    pub(super) fn beside_hearer(&self) -> f64 {
        self.heard.others()
    }

    /// Probability that a thread with another root span open runs a span of this kind all the same.
    /// Overlaps with kinds that are not `one_thread` tell nothing: their threads are not known.
    pub(super) fn overlap_chance(&self, one_thread: &dyn Fn(KindId) -> bool) -> f64 {
        let certain = self.counts.sum(|c| c.certain);
        let shared = |c: &Counts| c.overlaps.keys().any(|&other| one_thread(other));
        if certain < ALONE_MIN || self.counts.each().into_iter().any(shared) {
            return 1.0;
        }
        unseen(certain as f64)
    }

    /// Judges anew where enough has changed. `busy` are the threads to leave out as a test.
    pub(super) fn renew(&mut self, lacks_candidate: bool, busy: &dyn Fn(ThreadId) -> bool) {
        if lacks_candidate || self.observed.is_multiple_of(RENEW_SPANS) {
            self.verdict = self.judge(busy);
            let peers = self
                .servers()
                .values()
                .filter(|served| served.sole > 0)
                .count();
            self.peers = peers as u64;
        }
    }

    fn judge(&mut self, busy: &dyn Fn(ThreadId) -> bool) -> Verdict {
        let spans = self.counts.sum(|c| c.spans);
        let none = self.counts.sum(|c| c.none);
        let without_busy = self.wrong_without_busy(spans);
        self.without_busy = without_busy <= KIND_WRONG_MAX && self.counts.sum(|c| c.idle_none) == 0;
        let wrong = self.wrong(spans, none).min(without_busy);
        let refused = if spans < KIND_SPANS_MIN {
            Some(Why::Learning)
        } else if none * NO_CANDIDATE_ONE_IN > spans {
            Some(Why::NotOneThread)
        } else if self.unproved_busy(spans, busy) {
            Some(Why::BusyThread)
        } else if wrong > self.wrong_max() {
            Some(if none > 0 {
                Why::NotOneThread
            } else {
                Why::Learning
            })
        } else {
            None
        };
        Verdict { refused, wrong }
    }

    /// Which chance of a wrong thread is borne. Where several threads each have several root spans
    /// open at once, a runtime multiplexes tasks, and most that do also move them: then more must
    /// be shown.
    fn wrong_max(&self) -> f64 {
        let [older, newer] = self.counts.each();
        let mut threads = older.shared.iter().chain(&newer.shared);
        let first = threads.next();
        let multiplexed = threads.any(|thread| Some(thread) != first);
        if multiplexed {
            MULTIPLEXED_WRONG_MAX
        } else {
            KIND_WRONG_MAX
        }
    }

    /// Probability of a wrong thread: share of spans that moved, by the share without a candidate
    /// and by how likely a moved one would have had none. How likely that is, is the share of
    /// trials without one, but no more than the share of spans without any chance candidate beside
    /// the true one (trials may fall into quieter times); or the share where each end had only one
    /// thread on a CPU, which decides without chance.
    fn wrong(&self, spans: u64, none: u64) -> f64 {
        let [older, newer] = self.counts.each();
        let chance = older.trials.plus(&newer.trials).overall();
        let lone = share(self.counts.sum(|c| c.lone), self.counts.sum(|c| c.learned));
        let clear = share(self.counts.sum(|c| c.idle_sole.min(c.sole)), spans);
        wrong(
            spans,
            none,
            chance.value(),
            lone.max(clear.min(1.0 - chance.value())),
        )
    }

    /// The same without the threads that are busy: where the others suffice, the busy ones do not
    /// serve, and what they hide need not be reckoned with.
    fn wrong_without_busy(&self, spans: u64) -> f64 {
        let [older, newer] = self.counts.each();
        let chance = older.trials.plus(&newer.trials).overall_idle();
        let clear = share(self.counts.sum(|c| c.idle_sole), spans);
        let none = self.counts.sum(|c| c.idle_none);
        wrong(spans, none, chance.value(), clear.min(1.0 - chance.value()))
    }

    /// Share of trials with a candidate: what chance does.
    fn chance(&self) -> Share {
        let [older, newer] = self.counts.each();
        older.trials.plus(&newer.trials).overall()
    }

    /// Whether the kind hangs on a thread that is nearly always on a CPU and not shown to serve it.
    /// Either that thread runs such spans or the kind is not one-thread, and which of the two
    /// cannot be told: then nothing is joined.
    fn unproved_busy(&self, spans: u64, busy: &dyn Fn(ThreadId) -> bool) -> bool {
        let trials = self.chance().of / OFFSETS_PER_SPAN as u64;
        self.servers().into_iter().any(|(server, served)| {
            let Server::Thread(thread) = server else {
                return false;
            };
            let needed = served.sole * NO_CANDIDATE_ONE_IN > spans;
            if !needed || served.lone >= PROVED_MIN || !busy(thread) {
                return false;
            }
            let chance = Share {
                hits: served.chance / OFFSETS_PER_SPAN as u64,
                of: trials,
            };
            !Share {
                hits: served.seen,
                of: spans,
            }
            .clearly_above(chance)
        })
    }

    fn servers(&self) -> HashMap<Server, Served> {
        let [older, newer] = self.counts.each();
        let mut all = older.servers.clone();
        for (server, served) in &newer.servers {
            all.entry(*server).or_default().add(served);
        }
        all
    }

    fn served(&self, server: Server) -> Served {
        let mut sum = Served::default();
        for half in self.counts.each() {
            if let Some(served) = half.servers.get(&server) {
                sum.add(served);
            }
        }
        sum
    }

    /// Odds that a candidate is the thread rather than there by chance, up to a factor common to
    /// all candidates of a span: (share of spans it serves) / (chance of being a candidate
    /// otherwise). A pair: careful from below, for the one to be named; careful from above, for
    /// those it must beat.
    pub(super) fn odds(&self, candidate: &Candidate, start: Ns) -> (f64, f64) {
        let served = self.history(candidate, start);
        let spans = self.counts.sum(|c| c.spans) as f64;
        let trials = self.chance().of as f64;
        let spread = 2.0 * (served.chance as f64 + 1.0).sqrt();
        let chance_most = (served.chance as f64 + spread + 1.0) / (trials + 1.0);
        let chance_least = (served.chance as f64 - spread).max(0.1) / (trials + 1.0);
        let rest = spans - served.sole as f64;
        let alone = self.counts.sum(|c| c.sole) as f64 - served.sole as f64 + served.pair as f64;
        let visible = (alone / rest.max(1.0)).clamp(0.01, 1.0);
        let low = self.shown(&served) as f64 / (spans + 1.0) / chance_most;
        let mut high = if served.sole > 0 {
            ((served.sole + 1) as f64 / (spans + 1.0) / visible).min(1.0) / chance_least
        } else {
            // Each span that it serves makes it the sole candidate where no other thread happens
            // to be one: as often as just one thread is left when this one is not counted.
            let looks = match served.seen {
                _ if candidate.born >= self.from() => 0.0,
                0 => spans,
                _ => spans * visible,
            };
            let peer = 1.0 / (self.peers as f64 + 1.0);
            let like_peers = peer * (-peer * looks).exp() / chance_least;
            let by_rate = unseen(looks) / chance_least;
            by_rate
                .min(unseen(served.seen as f64 * visible))
                .max(like_peers)
        };
        // Being a maybe is no evidence against a thread, as being there by chance is.
        if !candidate.sure {
            high *= chance_least;
        }
        (low, high.max(low))
    }

    /// What a candidate is judged by: its own history where it has one, its youth included; a young
    /// thread that has none yet is one of the class that lives for one span.
    fn history(&self, candidate: &Candidate, start: Ns) -> Served {
        let mut own = self.served(Server::Thread(candidate.thread));
        for half in self.counts.each() {
            if let Some(served) = half.young.get(&candidate.thread) {
                own.add(served);
            }
        }
        match Server::of(candidate, start) {
            Server::Brief if own.seen < HISTORY_MIN => self.served(Server::Brief),
            _ => own,
        }
    }

    /// How many spans a thread is shown to have served.
    fn shown(&self, served: &Served) -> u64 {
        if self.without_busy {
            served.idle_sole.max(served.sole)
        } else {
            served.sole
        }
    }

    /// Start of the earliest span that is counted.
    fn from(&self) -> Ns {
        self.counts
            .each()
            .into_iter()
            .filter_map(|half| half.from)
            .min()
            .unwrap_or(0)
    }
}

fn share(hits: u64, of: u64) -> f64 {
    hits as f64 / of.max(1) as f64
}

/// Probability of a wrong thread where `none` of `spans` had no candidate, a span that moved has a
/// chance candidate with probability `chance`, and is seen to have moved with probability `visible`.
fn wrong(spans: u64, none: u64, chance: f64, visible: f64) -> f64 {
    let looked_at = spans as f64 * visible;
    if none == 0 {
        return unseen(looked_at);
    }
    ((none + 1) as f64 / looked_at.max(1.0)).min(1.0) * chance
}

/// Expected rate of what was never seen in `looks` looks, if it can happen at all with probability
/// [`PRIOR`]: `PRIOR / (1 + looks)` is the chance that it can, `1 / (1 + looks)` its rate then.
pub(super) fn unseen(looks: f64) -> f64 {
    PRIOR / ((1.0 + looks) * (1.0 + looks))
}
