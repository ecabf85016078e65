// SPDX-License-Identifier: Apache-2.0
//! Summing the segments of a walk into shares and episodes.
//!
//! Every segment is given to exactly one cause, merged ones to several that add up to it; so the sum
//! is right by construction, and [`Account::check`] proves it again. What a window cuts is never
//! spread: only what must lie inside it, however it was placed, is claimed there (see [`least`]).

use std::ops::Range;

use super::Account;
use super::Counts;
use super::Culprit;
use super::Reason;
use super::Share;
use super::Who;
use super::episodes::Episodes;
use super::evidence::SeenBy;
use super::sums::Sums;
use super::total::add_u32;
use super::total::finish_culprits;
use crate::cause::Cause;
use crate::cause::detour_cause;
use crate::chain::Ended;
use crate::event::DetourKind;
use crate::event::Ns;
use crate::event::OffState;
use crate::event::Polled;
use crate::event::ShortDetours;
use crate::record;
use crate::record::Body;
use crate::record::OffCpu;
use crate::record::Record;
use crate::segment::BlockedPart;
use crate::segment::Seen;
use crate::segment::Segment;
use crate::segment::Sink;

/// Of an amount inside a stretch, how much must lie in a part of it, wherever it was placed.
pub(crate) fn least(amount_ns: Ns, part_ns: Ns, full_ns: Ns) -> Ns {
    amount_ns
        .saturating_sub(full_ns.saturating_sub(part_ns))
        .min(part_ns)
}

/// Causes that most accounts have at most; room for them is made at once.
const SLOTS_USUAL: usize = 4;

/// Whether a segment was on a CPU, runnable, or blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Runnable,
    Blocked,
}

/// An account under way.
#[derive(Debug)]
pub(crate) struct Tally {
    slots: Vec<Slot>,
    /// By cause, the place of its slot plus one; 0: it has none yet.
    places: [u8; Cause::COUNT],
    episodes: Episodes,
    wall_ns: Ns,
    blur_ns: Ns,
    lost_records: u64,
    counts: Counts,
    segments: u64,
    /// After this many segments no more are wanted; 0: all are.
    segments_max: u64,
}

/// A share under way.
#[derive(Debug)]
struct Slot {
    cause: Cause,
    ns: Ns,
    count: u64,
    running_ns: Ns,
    runnable_ns: Ns,
    blocked_ns: Ns,
    estimated_ns: Ns,
    culprits: Sums<Who>,
    reasons: Sums<Reason>,
    seen: Option<Box<SeenBy>>,
    throttled: u64,
    longest: Option<Ended>,
}

impl Sink for Tally {
    fn segment(&mut self, segment: &Segment<'_>) {
        let ns = segment.range.end - segment.range.start;
        self.wall_ns += ns;
        self.segments += 1;
        match segment.seen {
            Seen::Unknown { reason, .. } => self.unknown(segment, reason),
            Seen::Cpu {
                short,
                before,
                total,
                whole,
            } => self.cpu(segment, short, before..total, whole),
            Seen::Detour { piece } => {
                let cause = detour_cause(piece.kind);
                let culprit = reclaimed_cgroup(piece.kind, piece.detail);
                self.add(cause, State::Running, ns);
                self.culprit(cause, culprit, ns);
                self.episode(segment, cause, culprit);
            }
            Seen::Runnable { cause, off, blamed } => self.runnable(segment, cause, off, blamed),
            Seen::Throttled { off } => self.throttled(segment, off),
            Seen::Blocked(part) => self.blocked(segment, &part),
            Seen::Sums { sums, cause } => self.sums(segment, sums, cause),
        }
    }

    fn record(&mut self, record: &Record) {
        let (voluntary, involuntary, moved) = match &record.body {
            Body::Cycle(_) if record.is_birth() => (0, 0, false),
            Body::Cycle(off) if off.state == OffState::Runnable => (0, 1, off.moved),
            Body::Cycle(off) => (1, 0, off.moved),
            Body::Sums(sums) if sums.state == OffState::Runnable => (0, sums.count.into(), false),
            Body::Sums(sums) => (sums.count.into(), 0, false),
            // So does the kernel count leaving for good.
            Body::Exit => (1, 0, false),
        };
        self.counts.voluntary += voluntary;
        self.counts.involuntary += involuntary;
        self.counts.migrations += u64::from(moved);
        let faults = &mut self.counts.faults;
        faults.minor = add_u32(faults.minor, record.faults.minor);
        faults.major = add_u32(faults.major, record.faults.major);
    }

    fn lost(&mut self, records: u64) {
        self.lost_records += records;
    }

    fn blur(&mut self, ns: Ns) {
        self.blur_ns += ns;
    }

    fn is_full(&self) -> bool {
        self.segments_max != 0 && self.segments >= self.segments_max
    }
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            slots: Vec::with_capacity(SLOTS_USUAL),
            places: [0; Cause::COUNT],
            episodes: Episodes::default(),
            wall_ns: 0,
            blur_ns: 0,
            lost_records: 0,
            counts: Counts::default(),
            segments: 0,
            segments_max: 0,
        }
    }
}

impl Tally {
    /// One that stops after so many segments, and of which only [`Tally::dominant`] is asked: it
    /// keeps neither episodes nor evidence.
    pub(crate) fn brief(segments_max: u64) -> Tally {
        Tally {
            segments_max,
            ..Tally::default()
        }
    }

    fn is_brief(&self) -> bool {
        self.segments_max != 0
    }

    fn slot(&mut self, cause: Cause) -> &mut Slot {
        let place = &mut self.places[cause as usize];
        if *place == 0 {
            self.slots.push(Slot::new(cause));
            *place = self.slots.len() as u8;
        }
        &mut self.slots[usize::from(*place) - 1]
    }

    fn add(&mut self, cause: Cause, state: State, ns: Ns) {
        self.add_many(cause, state, ns, 1);
    }

    fn add_many(&mut self, cause: Cause, state: State, ns: Ns, count: u64) {
        if ns == 0 {
            return;
        }
        let slot = self.slot(cause);
        slot.ns += ns;
        slot.count += count;
        match state {
            State::Running => slot.running_ns += ns,
            State::Runnable => slot.runnable_ns += ns,
            State::Blocked => slot.blocked_ns += ns,
        }
    }

    fn culprit(&mut self, cause: Cause, who: Option<Who>, ns: Ns) {
        if let Some(who) = who.filter(|_| ns > 0) {
            self.slot(cause).culprits.add(who, ns);
        }
    }

    fn episode(&mut self, segment: &Segment<'_>, cause: Cause, culprit: Option<Who>) {
        if !self.is_brief() {
            self.episodes.add(&segment.range, cause, culprit, None);
        }
    }

    fn unknown_episode(&mut self, segment: &Segment<'_>, reason: Reason) {
        if !self.is_brief() {
            let cause = Cause::Unknown;
            self.episodes.add(&segment.range, cause, None, Some(reason));
        }
    }

    fn unknown(&mut self, segment: &Segment<'_>, reason: Reason) {
        let ns = segment.range.end - segment.range.start;
        self.add_unknown(ns, reason);
        self.unknown_episode(segment, reason);
    }

    fn add_unknown(&mut self, ns: Ns, reason: Reason) {
        if ns == 0 {
            return;
        }
        let slot = self.slot(Cause::Unknown);
        slot.ns += ns;
        slot.count += 1;
        slot.reasons.add(reason, ns);
    }

    /// On the CPU: short detours have no position, so a part of a stretch has its even share of them,
    /// as an estimate; the parts of a whole one together have them exactly. `place`: how much of the
    /// stretch lies before, up to how much there is.
    fn cpu(&mut self, segment: &Segment<'_>, short: &ShortDetours, place: Range<Ns>, whole: bool) {
        let ns = segment.range.end - segment.range.start;
        let total = place.end;
        let from = place.start + (segment.range.start - segment.full.start);
        let mut room = total;
        let mut left = ns;
        for (kind, sum) in [
            (DetourKind::Compaction, short.compaction_ns),
            (DetourKind::MemcgReclaim, short.memcg_ns),
            (DetourKind::DirectReclaim, short.reclaim_ns),
        ] {
            let sum = Ns::from(sum).min(room);
            room -= sum;
            if sum == 0 {
                continue;
            }
            let part = (spread(sum, from + ns, total) - spread(sum, from, total)).min(left);
            let cause = detour_cause(kind);
            left -= part;
            self.add(cause, State::Running, part);
            if !whole && part > 0 {
                self.slot(cause).estimated_ns += part;
            }
        }
        self.add(Cause::Cpu, State::Running, left);
        self.episode(segment, Cause::Cpu, None);
    }

    /// Queued: who ran instead, as far as it can be placed; the rest is said to be uncovered.
    fn runnable(&mut self, segment: &Segment<'_>, cause: Cause, off: &OffCpu, blamed: bool) {
        let ns = segment.range.end - segment.range.start;
        self.add(cause, State::Runnable, ns);
        let mut largest: Option<Culprit> = None;
        let mut uncovered = ns;
        if cause == Cause::RunqIdle {
            self.culprit(cause, Some(Who::Idle), ns);
            uncovered = 0;
        } else if blamed {
            let full = off
                .blame
                .total_ns()
                .max(segment.full.end - segment.full.start);
            let named = off
                .blame
                .named()
                .map(|(thread, ns)| (Who::Thread(thread), ns));
            for (who, amount) in named.chain([(Who::Rest, off.blame.rest_ns)]) {
                let placed = least(amount, ns, full).min(uncovered);
                uncovered -= placed;
                self.culprit(cause, Some(who), placed);
                if who.is_named() && placed > largest.map_or(0, |culprit| culprit.ns) {
                    largest = Some(Culprit { who, ns: placed });
                }
            }
        }
        self.culprit(cause, Some(Who::Uncovered), uncovered);
        self.episode(segment, cause, largest.map(|culprit| culprit.who));
    }

    fn throttled(&mut self, segment: &Segment<'_>, off: &OffCpu) {
        let ns = segment.range.end - segment.range.start;
        let estimated = off.throttle.is_some_and(|throttle| throttle.estimated);
        let cgroup = off.throttle.map_or(0, |throttle| throttle.cgroup);
        let culprit = (cgroup != 0).then_some(Who::Cgroup(cgroup));
        self.add(Cause::Throttle, State::Runnable, ns);
        self.culprit(Cause::Throttle, culprit, ns);
        let slot = self.slot(Cause::Throttle);
        slot.throttled += 1;
        slot.estimated_ns += if estimated { ns } else { 0 };
        self.episode(segment, Cause::Throttle, culprit);
    }

    fn blocked(&mut self, segment: &Segment<'_>, part: &BlockedPart<'_>) {
        let ns = segment.range.end - segment.range.start;
        let BlockedPart { cause, off, .. } = *part;
        self.add(cause, State::Blocked, ns);
        let object = off.wait.object.map(|pointed| Who::Object(pointed.object));
        let culprit = match cause {
            Cause::LockFutex => part.owner.map(Who::Thread),
            Cause::MemLimit => reclaimed_cgroup(DetourKind::MemcgReclaim, part.detail),
            // What a wait was for is evidence; only what ended it is to blame.
            Cause::WaitPoll if !matches!(off.wait.polled, Polled::Ended(_)) => None,
            _ => object,
        };
        self.culprit(cause, culprit, ns);
        let brief = self.is_brief();
        let slot = self.slot(cause);
        slot.estimated_ns += if part.estimated { ns } else { 0 };
        if !brief {
            let seen = slot.seen.get_or_insert_default();
            seen.wait(&off.wait, ns);
            seen.off_cpu(off, ns);
            seen.connection(part, ns);
        }
        let longest = slot.longest.as_ref().map_or(0, Ended::ns);
        if ns > longest {
            slot.longest = Some(Ended {
                window: segment.range.clone(),
                waker: off.waker,
                owner: part.owner,
                address_hash: off.wait.futex.map(|word| word.address_hash),
                peer: part.peer(),
            });
        }
        self.episode(segment, cause, culprit);
    }

    /// Merged cycles: whole, they are exact; cut, only what must lie inside is claimed, and the
    /// rest is unknown (rule 11).
    fn sums(&mut self, segment: &Segment<'_>, sums: &record::Sums, cause: Cause) {
        let ns = segment.range.end - segment.range.start;
        let full = segment.full.end - segment.full.start;
        let queued = match sums.state {
            OffState::Runnable => Cause::RunqPreempted,
            _ => Cause::RunqWakeup,
        };
        let count = if ns == full { u64::from(sums.count) } else { 1 };
        let mut left = ns;
        let mut largest = (0, Cause::Unknown);
        for (cause, state, amount, who) in [
            (Cause::Cpu, State::Running, sums.running_ns, None),
            (
                queued,
                State::Runnable,
                sums.runnable_ns,
                Some(Who::Uncovered),
            ),
            (
                Cause::RunqIdle,
                State::Runnable,
                sums.idle_wake_ns,
                Some(Who::Idle),
            ),
            (cause, State::Blocked, sums.blocked_ns, None),
        ] {
            let placed = least(amount, ns, full).min(left);
            left -= placed;
            self.add_many(cause, state, placed, count);
            self.culprit(cause, who, placed);
            if state == State::Blocked && placed > 0 {
                let seen = self.slot(cause).seen.get_or_insert_default();
                seen.wait(&sums.wait, placed);
            }
            largest = largest.max((placed, cause));
        }
        self.add_unknown(left, Reason::Merged);
        self.blur_ns += left;
        if left > largest.0 {
            self.unknown_episode(segment, Reason::Merged);
        } else {
            self.episode(segment, largest.1, None);
        }
    }

    /// The longest wait of each cause that another thread may have ended.
    pub(crate) fn longest(&self) -> impl Iterator<Item = (Cause, &Ended)> {
        self.slots
            .iter()
            .filter_map(|slot| Some((slot.cause, slot.longest.as_ref()?)))
    }

    /// The cause that took most, with its longest wait and its largest named culprit.
    pub(crate) fn dominant(&self) -> Option<(Cause, Ns, Option<Ended>, Option<Culprit>)> {
        let slot = self.slots.iter().max_by(|a, b| {
            let order = a.ns.cmp(&b.ns);
            order.then_with(|| b.cause.cmp(&a.cause))
        })?;
        let named = slot.culprits.iter().filter(|item| item.0.is_named());
        let culprit = named
            .max_by_key(|item| item.1)
            .map(|&(who, ns)| Culprit { who, ns });
        Some((slot.cause, slot.ns, slot.longest.clone(), culprit))
    }

    /// The account, without chains.
    pub(crate) fn finish(self) -> Account {
        let (episodes, episodes_total) = self.episodes.finish();
        let mut shares: Vec<Share> = self.slots.into_iter().map(Slot::finish).collect();
        shares.sort_by_key(|share| share.cause);
        Account {
            wall_ns: self.wall_ns,
            shares,
            episodes,
            episodes_total,
            blur_ns: self.blur_ns,
            lost_records: self.lost_records,
            counts: self.counts,
        }
    }
}

/// How much of a sum lies before a position, spread evenly.
fn spread(sum: Ns, position: Ns, total: Ns) -> Ns {
    let share = u128::from(sum) * u128::from(position.min(total)) / u128::from(total.max(1));
    u64::try_from(share).unwrap_or(sum)
}

/// The cgroup that a detour was for; compaction's detail is an order.
fn reclaimed_cgroup(kind: DetourKind, detail: u64) -> Option<Who> {
    (kind == DetourKind::MemcgReclaim && detail != 0).then_some(Who::Cgroup(detail))
}

impl Slot {
    fn new(cause: Cause) -> Slot {
        Slot {
            cause,
            ns: 0,
            count: 0,
            running_ns: 0,
            runnable_ns: 0,
            blocked_ns: 0,
            estimated_ns: 0,
            culprits: Sums::default(),
            reasons: Sums::default(),
            seen: None,
            throttled: 0,
            longest: None,
        }
    }

    fn finish(self) -> Share {
        let culprits = self.culprits.into_list().into_iter();
        let mut culprits: Vec<Culprit> = culprits.map(|(who, ns)| Culprit { who, ns }).collect();
        finish_culprits(&mut culprits);
        Share {
            ns: self.ns,
            count: self.count,
            running_ns: self.running_ns,
            runnable_ns: self.runnable_ns,
            blocked_ns: self.blocked_ns,
            estimated_ns: self.estimated_ns,
            culprits,
            evidence: self
                .seen
                .map(|seen| *seen)
                .unwrap_or_default()
                .finish(self.throttled),
            reasons: self.reasons.into_largest(usize::MAX),
            ..Share::empty(self.cause)
        }
    }
}
