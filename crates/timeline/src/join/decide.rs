// SPDX-License-Identifier: Apache-2.0
//! The decision: from a span's candidates and what was learned of its process to a thread, or none.
//!
//! Nothing is learned here, so the same question gives the same answer until more is observed.

use super::candidates::Candidate;
use super::candidates::Found;
use super::claims::Checked;
use super::clock::Clock;
use super::facts::Claim;
use super::facts::How;
use super::facts::Joined;
use super::facts::KindId;
use super::facts::Place;
use super::facts::Why;
use super::kind::Kind;
use super::kind::unseen;
use super::limits::ALONE_MIN;
use super::limits::CLAIMS_MIN;
use super::limits::NO_CANDIDATE_ONE_IN;
use super::limits::SCORE_MIN;
use super::limits::SINGLE_SPANS_MIN;
use super::process::Process;
use super::roots::Outline;
use super::roots::Root;
use crate::event::ThreadId;

/// The answer for a span with these candidates, whose claim is worth `checked`.
/// `always_alone`: its process never had another thread, by records that reach back to its birth.
pub(super) fn decide(
    process: &Process,
    outline: &Outline,
    found: &Found,
    checked: Checked,
    always_alone: bool,
) -> Joined {
    if let Some(joined) = by_claim(process, outline, found, checked) {
        return joined;
    }
    let mut joined = by_presence(process, outline, found, always_alone);
    joined.claim = match checked {
        Checked::Absent | Checked::Several => Claim::Absent,
        Checked::Nobody | Checked::False(_) => Claim::Refused,
        Checked::Fits(..) => Claim::Unproved,
    };
    if let (Checked::Fits(claimed, _), Some(thread)) = (checked, joined.thread)
        && claimed != thread
    {
        return Joined {
            claim: Claim::Unproved,
            ..Joined::refused(Why::Unsure, found.count())
        };
    }
    joined
}

/// A claim is honoured where it fits and claims of that kind have been borne out so far: one that
/// only says where a span started fits by chance, and is found out by its ends.
fn by_claim(
    process: &Process,
    outline: &Outline,
    found: &Found,
    checked: Checked,
) -> Option<Joined> {
    let Checked::Fits(thread, _) = checked else {
        return None;
    };
    let (claims, contradicted) = process.kinds.get(&outline.kind)?.claims();
    if claims < CLAIMS_MIN || contradicted * NO_CANDIDATE_ONE_IN > claims {
        return None;
    }
    let wrong = unseen(claims as f64).max(contradicted as f64 / claims as f64);
    let joined = Joined::found(How::Attribute, thread, 1.0 - wrong, found.count());
    Some(Joined {
        claim: Claim::Honoured,
        ..joined
    })
}

fn by_presence(process: &Process, outline: &Outline, found: &Found, always_alone: bool) -> Joined {
    let refused = |why| Joined::refused(why, found.count());
    if !found.complete {
        return refused(Why::Incomplete);
    }
    if found.seen() == 0 {
        return refused(Why::Unobserved);
    }
    let alone = always_alone || (!process.threaded && process.observed >= SINGLE_SPANS_MIN);
    if alone && found.seen() == 1 {
        return only_thread(process, found);
    }
    let Some(kind) = process.kinds.get(&outline.kind) else {
        return refused(Why::Learning);
    };
    let verdict = kind.verdict();
    match process.clock {
        Clock::Unproved => return refused(Why::Learning),
        Clock::Biased => return refused(Why::Clock),
        Clock::Flat | Clock::Good | Clock::GoodForSome => {}
    }
    if let Some(why) = verdict.refused {
        return refused(why);
    }
    let (best, score) = match best(process, kind, outline, found) {
        Ok(best) => best,
        Err(why) => return refused(why),
    };
    let how = how(process, best);
    if process.clock == Clock::Flat && how != How::SingleThread {
        return refused(Why::Clock);
    }
    Joined::found(
        how,
        best.thread,
        score * (1.0 - verdict.wrong),
        found.count(),
    )
}

/// The process has one thread: there is nobody else. Only its clock could make the window wrong,
/// so the thread must have been on a CPU at the instants, now and nearly always.
fn only_thread(process: &Process, found: &Found) -> Joined {
    let refused = |why| Joined::refused(why, found.count());
    match (found.list.first(), process.clock) {
        (_, Clock::Biased | Clock::GoodForSome) => refused(Why::Clock),
        (None, _) => refused(Why::NoCandidate),
        (Some(only), _) => Joined::found(How::SingleThread, only.thread, 1.0, 1),
    }
}

/// Every span that had one candidate had the main thread, so the others are not seen to serve.
fn how(process: &Process, best: &Candidate) -> How {
    let main = process.sole.sum(|s| s.main);
    let others = process.sole.sum(|s| s.others);
    if best.main && main >= ALONE_MIN && others == 0 {
        How::SingleThread
    } else {
        How::Timestamps
    }
}

/// The candidate that beats all others, and with which probability.
fn best<'a>(
    process: &Process,
    kind: &Kind,
    outline: &Outline,
    found: &'a Found,
) -> Result<(&'a Candidate, f64), Why> {
    match found.list.as_slice() {
        [] => return Err(Why::NoCandidate),
        // Every other thread is proved to have been off the CPU at some instant, so in a one-thread
        // kind this one is it by elimination, even where its own records are not complete.
        [only] => return Ok((only, 1.0)),
        _ => {}
    }
    let heard = |candidate: &Candidate| beside_hearer(process, kind, outline, found, candidate);
    let odds: Vec<(f64, f64)> = found
        .list
        .iter()
        .map(|candidate| {
            let free = free(process, kind, outline, candidate.thread);
            let heard = heard(candidate);
            let (low, high) = kind.odds(candidate, outline.start);
            (low * free * heard, high * free * heard)
        })
        .collect();
    let sure = found
        .list
        .iter()
        .zip(&odds)
        .enumerate()
        .filter(|(_, (c, _))| c.sure);
    let Some((i, (candidate, (low, _)))) = sure.max_by(|a, b| (a.1.1.0).total_cmp(&b.1.1.0)) else {
        return Err(Why::Maybe);
    };
    let against: f64 = odds
        .iter()
        .enumerate()
        .filter(|o| o.0 != i)
        .map(|o| o.1.1)
        .sum();
    let score = low / (low + against);
    if score >= SCORE_MIN {
        return Ok((candidate, score));
    }
    Err(if found.clean() {
        Why::Ambiguous
    } else {
        Why::Maybe
    })
}

/// Probability factor for a candidate beside the thread that waited for the span's connection: 1 for
/// that one itself, and where there is none that can be believed. A busy thread is believed by
/// nobody: it would be a candidate without serving the span.
fn beside_hearer(
    process: &Process,
    kind: &Kind,
    outline: &Outline,
    found: &Found,
    candidate: &Candidate,
) -> f64 {
    let hearer = found.list.iter().find(|c| Some(c.thread) == found.hearer);
    match hearer {
        Some(hearer) if hearer.thread == candidate.thread => 1.0,
        Some(hearer) if !process.is_busy(hearer, outline.start) => kind.beside_hearer(),
        Some(_) | None => 1.0,
    }
}

/// Probability factor for a thread to be free for this span: 1 where nothing speaks against it,
/// next to 0 where it has another root span open and neither kind is ever seen to share a thread.
pub(super) fn free(process: &Process, kind: &Kind, outline: &Outline, thread: ThreadId) -> f64 {
    if outline.place == Place::Unknown {
        return 1.0;
    }
    let one_thread = |kind: KindId| {
        let refused = process.kinds.get(&kind).map(|kind| kind.verdict().refused);
        !matches!(refused, Some(Some(Why::NotOneThread | Why::BusyThread)))
    };
    let own = kind.overlap_chance(&one_thread);
    if own >= 1.0 {
        return 1.0;
    }
    let chance = |root: Root| {
        let other = process
            .kinds
            .get(&root.kind)
            .filter(|k| k.verdict().refused.is_none());
        other.map_or(1.0, |other| other.overlap_chance(&one_thread).max(own))
    };
    process
        .roots
        .overlapping(outline, thread)
        .map(chance)
        .fold(1.0, f64::min)
}
