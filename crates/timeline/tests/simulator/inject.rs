// SPDX-License-Identifier: Apache-2.0
//! Faults, put into what the kernel side sent: merged cycles, lost records, skipped programs,
//! arrival out of order. For each it says which time must become unknown, and which may.

use std::collections::HashMap;
use std::ops::Range;

use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::ThreadId;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Doubt;
use lacuna_timeline::event::DoubtReason;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Merged;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Snapshot;

use crate::parts::Thread;
use crate::rng::Rng;
use crate::truth::Times;

/// Records arrive up to so much later than they were sent where their order is not kept.
pub(crate) const REORDER_NS: Ns = 100_000;

/// Which faults a run has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// One record in so many, at least; 0: none.
    pub(crate) lose_one_in: u64,
    pub(crate) merge: bool,
    pub(crate) skip_wakings: bool,
    pub(crate) skip_switches: bool,
    pub(crate) reorder: bool,
}

/// What arrives, and what may be asked of it.
#[derive(Default)]
pub(crate) struct Arrived {
    pub(crate) events: Vec<Event>,
    /// Unknown, whatever the window.
    pub(crate) must: HashMap<ThreadId, Times>,
    /// Perhaps unknown.
    pub(crate) may: HashMap<ThreadId, Times>,
    /// Waits for a connection of which what was told is lost.
    pub(crate) untold: HashMap<ThreadId, Times>,
    /// Merged: perhaps unknown where a window's edge cuts one.
    pub(crate) merged: HashMap<ThreadId, Vec<Range<Ns>>>,
}

/// A sent event under way.
struct Sent {
    at: Ns,
    event: Event,
    lost: bool,
}

/// Everything that was sent, with the faults in it but for the order of arrival.
struct Faulty {
    /// By thread.
    all: Vec<Sent>,
    doubts: Vec<Doubt>,
    merged: HashMap<ThreadId, Vec<Range<Ns>>>,
}

/// Puts the faults in, and says what must and may be unknown for them.
pub(crate) fn inject(
    rng: &mut Rng,
    sent: &[(Ns, Event)],
    threads: &[Thread],
    faults: Faults,
) -> Arrived {
    let faulty = faulty(rng, sent, threads, faults);
    let mut arrived = Arrived {
        merged: faulty.merged,
        ..Arrived::default()
    };
    let (all, doubts) = (faulty.all, faulty.doubts);
    let end = sent.iter().map(|sent| sent.0).max().unwrap_or_default();
    for thread in threads {
        let own: Vec<&Sent> = all
            .iter()
            .filter(|sent| thread_of(&sent.event) == Some(thread.id))
            .collect();
        let (must, mut may) = unknown(thread, &own, &doubts, end);
        let missing = own
            .iter()
            .any(|sent| sent.lost && matches!(sent.event, Event::Detour(_)));
        if faults.reorder && (missing || !thread.detours.is_empty()) {
            // Out of order, a missing or open detour is not narrowed down as far as it could be.
            may.add_all(&thread.running);
            for range in arrived.merged.get(&thread.id).into_iter().flatten() {
                may.add(range.clone());
            }
        }
        arrived.must.insert(thread.id, must);
        arrived.untold.insert(thread.id, untold(&own));
        arrived.may.insert(thread.id, may);
    }
    let events = in_order(rng, all, faults).into_iter();
    arrived.events = events.map(|(_, event)| event).collect();
    arrived.events.extend(doubts.into_iter().map(Event::Doubt));
    arrived
}

/// Puts the faults in; what arrives, and when.
pub(crate) fn deliver(
    rng: &mut Rng,
    sent: &[(Ns, Event)],
    threads: &[Thread],
    faults: Faults,
) -> Vec<(Ns, Event)> {
    let faulty = faulty(rng, sent, threads, faults);
    let doubts = faulty.doubts.into_iter();
    let doubts: Vec<(Ns, Event)> = doubts
        .map(|doubt| (doubt.to, Event::Doubt(doubt)))
        .collect();
    let mut arrived = in_order(rng, faulty.all, faults);
    arrived.extend(doubts);
    arrived.sort_by_key(|arrived| arrived.0);
    arrived
}

fn faulty(rng: &mut Rng, sent: &[(Ns, Event)], threads: &[Thread], faults: Faults) -> Faulty {
    let mut by_thread: HashMap<ThreadId, Vec<Sent>> = HashMap::new();
    for (at, event) in sent {
        if let Some(thread) = thread_of(event) {
            by_thread.entry(thread).or_default().push(Sent {
                at: *at,
                event: event.clone(),
                lost: false,
            });
        }
    }
    let mut doubts = Vec::new();
    let mut all: Vec<Sent> = Vec::new();
    let mut merged: HashMap<ThreadId, Vec<Range<Ns>>> = HashMap::new();
    for thread in threads {
        let mut own = by_thread.remove(&thread.id).unwrap_or_default();
        if faults.skip_switches {
            skip_switches(rng, &mut own, &mut doubts);
        }
        if faults.skip_wakings {
            skip_wakings(rng, &mut own, &mut doubts);
        }
        if faults.merge {
            own = merge(rng, own, merged.entry(thread.id).or_default());
        }
        if faults.lose_one_in > 0 {
            lose(rng, &mut own, faults.lose_one_in);
        }
        all.extend(own);
    }
    Faulty {
        all,
        doubts,
        merged,
    }
}

/// What is not lost, in the order of its arrival.
fn in_order(rng: &mut Rng, mut all: Vec<Sent>, faults: Faults) -> Vec<(Ns, Event)> {
    all.retain(|sent| !sent.lost);
    if faults.reorder {
        for sent in &mut all {
            sent.at += rng.below(REORDER_NS);
        }
    }
    all.sort_by_key(|sent| sent.at);
    all.into_iter().map(|sent| (sent.at, sent.event)).collect()
}

fn thread_of(event: &Event) -> Option<ThreadId> {
    match event {
        Event::Thread(info) => Some(info.thread),
        Event::Cycle(cycle) => Some(cycle.thread),
        Event::Net(net) => Some(net.thread),
        Event::Took(took) => Some(took.thread),
        Event::Merged(merged) => Some(merged.thread),
        Event::Detour(detour) => Some(detour.thread),
        Event::Exit(exit) => Some(exit.thread),
        Event::Snapshot(snapshot) => Some(snapshot.thread),
        Event::Asleep(asleep) => Some(asleep.thread),
        Event::Object(_) | Event::Stack(_) | Event::Doubt(_) => None,
    }
}

/// The program on `sched_switch` did not run for a whole stretch off the CPU: no record, no number.
fn skip_switches(rng: &mut Rng, own: &mut Vec<Sent>, doubts: &mut Vec<Doubt>) {
    let cycles: Vec<usize> = cycles_of(own);
    let Some(&[skipped, next]) = cycles
        .windows(2)
        .nth(rng.below(8) as usize)
        .and_then(|pair| pair.first_chunk::<2>())
    else {
        return;
    };
    let (Event::Cycle(gone), Event::Cycle(after)) =
        (own[skipped].event.clone(), &mut own[next].event)
    else {
        return;
    };
    after.prev_in = gone.prev_in;
    let slack = rng.between(1, 30_000);
    doubts.push(Doubt {
        from: gone.off.at.saturating_sub(slack),
        to: gone.end + slack,
        reason: DoubtReason::SwitchSkipped,
    });
    own.remove(skipped);
    own.retain(|sent| !matches!(&sent.event, Event::Net(net) if net.seq == gone.seq));
    renumber(own, gone.seq);
}

fn cycles_of(own: &[Sent]) -> Vec<usize> {
    let is_cycle = |at: &usize| matches!(own[*at].event, Event::Cycle(_));
    (0..own.len()).filter(is_cycle).collect()
}

/// Records after one that was never numbered.
fn renumber(own: &mut [Sent], gone: u64) {
    for sent in own {
        let is_snapshot = matches!(sent.event, Event::Snapshot(_));
        let seq = match &mut sent.event {
            Event::Cycle(cycle) => &mut cycle.seq,
            Event::Net(net) => &mut net.seq,
            Event::Merged(merged) => &mut merged.seq,
            Event::Exit(exit) => &mut exit.seq,
            Event::Snapshot(snapshot) => &mut snapshot.seq,
            _ => continue,
        };
        if *seq > gone || (*seq == gone && is_snapshot) {
            *seq -= 1;
        }
    }
}

/// The program on `sched_waking` did not run: the wait has no waking.
fn skip_wakings(rng: &mut Rng, own: &mut [Sent], doubts: &mut Vec<Doubt>) {
    for sent in own {
        let Event::Cycle(cycle) = &mut sent.event else {
            continue;
        };
        if cycle.off.state != OffState::Runnable && cycle.waking.is_some() && rng.one_in(10) {
            let slack = rng.between(0, 2_000);
            cycle.waking = None;
            doubts.push(Doubt {
                from: cycle.off.at.saturating_sub(slack),
                to: cycle.end + slack,
                reason: DoubtReason::ProgramSkipped,
            });
        }
    }
}

/// A cycle that the kernel side may merge: blocked and woken, nothing special about it.
fn plain(event: &Event) -> Option<&Cycle> {
    let Event::Cycle(cycle) = event else {
        return None;
    };
    let woken = cycle.waking.is_some_and(|waking| waking > cycle.off.at);
    let plain = cycle.off.state == OffState::Sleeping
        && woken
        && cycle.migrated.is_none()
        && cycle.throttle.is_none()
        && !cycle.net
        && cycle.off.detours.is_empty();
    plain.then_some(cycle)
}

/// Merges neighbours that wait for the same, without a detour in either.
fn merge(rng: &mut Rng, own: Vec<Sent>, merged: &mut Vec<Range<Ns>>) -> Vec<Sent> {
    let mut result: Vec<Sent> = Vec::new();
    let mut detours: Vec<u64> = Vec::new();
    for sent in own {
        if let Event::Cycle(cycle) = &sent.event {
            detours.push(cycle.detour_seq);
        }
        let quiet = detours.iter().rev().take(3).min() == detours.iter().rev().take(3).max();
        let last = result.last_mut().filter(|_| quiet && detours.len() > 2);
        let joined = last.and_then(|last| joined(&last.event, &sent.event));
        match (joined, result.last_mut()) {
            (Some(event), Some(last)) if rng.one_in(2) => {
                last.event = Event::Merged(event);
                last.at = sent.at;
            }
            _ => result.push(sent),
        }
    }
    let mut seq = 0;
    for sent in &mut result {
        let number = match &mut sent.event {
            Event::Cycle(cycle) => &mut cycle.seq,
            Event::Merged(event) => {
                merged.push(event.prev_in.unwrap_or_default()..event.end);
                &mut event.seq
            }
            Event::Exit(exit) => &mut exit.seq,
            Event::Snapshot(snapshot) => {
                snapshot.seq = seq;
                continue;
            }
            // It has the number of the cycle that follows.
            Event::Net(net) => {
                net.seq = seq + 1;
                continue;
            }
            _ => continue,
        };
        seq += 1;
        *number = seq;
    }
    result
}

/// The sum of two records, where they may be merged.
fn joined(first: &Event, second: &Event) -> Option<Merged> {
    let next = sums(plain(second)?)?;
    let sum = match first {
        Event::Merged(merged) => merged.clone(),
        first => sums(plain(first)?)?,
    };
    let same =
        sum.wait == next.wait && Some(sum.end) == next.prev_in && sum.detour_seq == next.detour_seq;
    same.then(|| Merged {
        end: next.end,
        count: sum.count + next.count,
        running_ns: sum.running_ns + next.running_ns,
        runnable_ns: sum.runnable_ns + next.runnable_ns,
        idle_wake_ns: sum.idle_wake_ns + next.idle_wake_ns,
        blocked_ns: sum.blocked_ns + next.blocked_ns,
        ..sum
    })
}

/// A cycle as sums.
fn sums(cycle: &Cycle) -> Option<Merged> {
    let waking = cycle.waking?;
    let enqueued = cycle.enqueued?;
    let prev_in = cycle.prev_in?;
    let queued = cycle.end - enqueued;
    let idle = if cycle.from_idle { queued } else { 0 };
    Some(Merged {
        thread: cycle.thread,
        seq: cycle.seq,
        prev_in: Some(prev_in),
        end: cycle.end,
        count: 1,
        running_ns: cycle.off.at - prev_in,
        runnable_ns: queued - idle,
        idle_wake_ns: enqueued - waking + idle,
        blocked_ns: waking - cycle.off.at,
        state: cycle.off.state,
        wait: cycle.off.wait,
        faults: cycle.faults,
        short: cycle.short,
        detour_seq: cycle.detour_seq,
    })
}

/// Drops records, the last one more often than others.
fn lose(rng: &mut Rng, own: &mut [Sent], one_in: u64) {
    let burst = rng.one_in(3);
    let mut dropping = false;
    for sent in own.iter_mut() {
        let counted = matches!(
            sent.event,
            Event::Cycle(_) | Event::Net(_) | Event::Merged(_) | Event::Exit(_) | Event::Detour(_)
        );
        dropping = if dropping && burst {
            !rng.one_in(3)
        } else {
            rng.one_in(one_in)
        };
        sent.lost = counted && dropping;
    }
    let counted = |sent: &&mut Sent| {
        let event = &sent.event;
        !matches!(
            event,
            Event::Snapshot(_) | Event::Thread(_) | Event::Took(_)
        )
    };
    if rng.one_in(one_in / 5)
        && let Some(last) = own.iter_mut().rev().find(counted)
    {
        last.lost = true;
    }
}

/// Which of a thread's time must and may be unknown.
fn unknown(thread: &Thread, own: &[&Sent], doubts: &[Doubt], end: Ns) -> (Times, Times) {
    let life_end = thread.died.unwrap_or(end);
    let mut must = Times::default();
    let mut may = Times::default();
    must.add(thread.born..thread.first_in.unwrap_or(life_end));
    for doubt in doubts {
        if doubt.reason == DoubtReason::SwitchSkipped {
            must.add(doubt.from..doubt.to);
        }
    }
    // Before the first record that arrived nothing is observed.
    let arrived = own.iter().filter(|sent| !sent.lost);
    let speaks_from = arrived.filter_map(|sent| match &sent.event {
        Event::Snapshot(snapshot) => snapshot.last_in,
        event => record_span(event).map(|span| span.start),
    });
    let first_from = speaks_from.min().unwrap_or(life_end);
    must.add(thread.born..first_from);
    // What it did last, no snapshot confirms where it did something unseen.
    if thread.died.is_none()
        && !own
            .iter()
            .any(|sent| matches!(sent.event, Event::Snapshot(_)))
    {
        let ends = own.iter().filter_map(|sent| record_span(&sent.event));
        must.add(ends.map(|span| span.end).max().unwrap_or(life_end)..life_end);
    }
    for sent in own {
        if let Some(span) = record_span(&sent.event).filter(|_| sent.lost) {
            must.add(span);
        }
        match &sent.event {
            Event::Detour(detour) if sent.lost => {
                let seen = lost_detour(own, detour.begin, detour.end, end);
                let mut running = Times::default();
                running.add(seen);
                may.add_all(&running.and(&thread.running));
            }
            Event::Cycle(cycle) if !sent.lost => must.add_all(&doubted(cycle, doubts)),
            Event::Snapshot(snapshot) => {
                if let Some(off) = &snapshot.off {
                    let waking = snapshot.waking.map(|waking| waking.max(off.at));
                    let queued = match off.state {
                        OffState::Runnable => Some(off.at),
                        _ => waking,
                    };
                    must.add(queued.unwrap_or(life_end)..life_end);
                    let unproved = waking.is_none_or(|waking| waking <= off.at) && queued.is_none();
                    if unproved && touched(doubts, off.at..snapshot.at) {
                        must.add(off.at..life_end);
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(open) = thread.detours.first() {
        let seen = lost_detour(own, open.1, end, end);
        let mut running = Times::default();
        running.add(seen);
        may.add_all(&running.and(&thread.running));
    }
    // A last record that is lost takes the proof with it where no snapshot follows.
    if thread.died.is_some() {
        let last = own
            .iter()
            .rev()
            .find(|sent| !sent.lost && record_span(&sent.event).is_some());
        let last = last.and_then(|sent| record_span(&sent.event));
        must.add(last.map_or(thread.born, |span| span.end)..life_end);
    }
    may.add_all(&must);
    (must, may)
}

/// Waits for input on a connection of which nothing arrived. (One for room is known by its call.)
fn untold(own: &[&Sent]) -> Times {
    let arrived = |seq| {
        let is_its = |sent: &&&Sent| matches!(&sent.event, Event::Net(net) if net.seq == seq);
        own.iter().filter(is_its).any(|sent| !sent.lost)
    };
    let mut untold = Times::default();
    for sent in own {
        // Of a wait that is looked at before it comes to its end nothing is told yet.
        let (off, waking, told) = match &sent.event {
            Event::Cycle(cycle) => (&cycle.off, cycle.waking, arrived(cycle.seq)),
            Event::Snapshot(Snapshot {
                off: Some(off),
                waking,
                ..
            }) => (off, *waking, false),
            _ => continue,
        };
        let reads = off.wait.entry == Entry::Call(Call::Recv) && off.detours.is_empty();
        if let Some(waking) = waking.filter(|_| reads && !told) {
            untold.add(off.at..waking);
        }
    }
    untold
}

/// What a record speaks of.
fn record_span(event: &Event) -> Option<Range<Ns>> {
    match event {
        Event::Cycle(cycle) => Some(cycle.prev_in?..cycle.end),
        Event::Merged(merged) => Some(merged.prev_in?..merged.end),
        Event::Exit(exit) => Some(exit.prev_in?..exit.at),
        _ => None,
    }
}

/// A wait without proof of its own that a doubt touches.
fn doubted(cycle: &Cycle, doubts: &[Doubt]) -> Times {
    let mut times = Times::default();
    let off = cycle.off.at..cycle.end;
    let unproved = cycle.waking.is_none_or(|waking| waking <= cycle.off.at);
    if cycle.off.state != OffState::Runnable && unproved && touched(doubts, off.clone()) {
        times.add(off);
    }
    times
}

fn touched(doubts: &[Doubt], range: Range<Ns>) -> bool {
    doubts.iter().any(|doubt| {
        doubt.reason == DoubtReason::ProgramSkipped
            && doubt.from < range.end
            && doubt.to > range.start
    })
}

/// Running time from the last record that ended before a detour began to the first that came after
/// it had ended: in it a lost detour may have been.
fn lost_detour(own: &[&Sent], begin: Ns, end: Ns, last: Ns) -> Range<Ns> {
    let records = || {
        own.iter()
            .filter(|sent| !sent.lost)
            .filter_map(|sent| record_span(&sent.event))
    };
    let from = records()
        .map(|span| span.end)
        .filter(|&at| at <= begin)
        .max();
    let to = records().map(|span| span.end).filter(|&at| at > end).min();
    let mut from = from.unwrap_or_default();
    // Where detours were open as the thread left the CPU, the lost one may be one of those.
    let open = |at: Ns| {
        own.iter().any(|sent| {
            let cycle = match &sent.event {
                Event::Cycle(cycle) if !sent.lost => cycle,
                _ => return false,
            };
            cycle.end == at && !cycle.off.detours.is_empty()
        })
    };
    while open(from) {
        let earlier = records().map(|span| span.end).filter(|&at| at < from);
        from = earlier.max().unwrap_or_default();
    }
    from..to.unwrap_or(last)
}
