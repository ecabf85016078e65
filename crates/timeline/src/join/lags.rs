// SPDX-License-Identifier: Apache-2.0
//! Whether there is any lag of a clock at which a process was on a CPU whenever the clock was read.
//!
//! Whoever reads a clock is on a CPU. So for the process that took a set of timestamps there is one
//! lag (0 where its clock is right) at which some thread of it was on a CPU at every one of them;
//! for another process there is none, unless it is on a CPU most of the time. Nothing is learned
//! here and no thread is named: presence and instants in, a [`Peak`] out.

use super::candidates::Window;
use super::limits::LAG_BIN_NS;
use super::limits::LAG_NS_MAX;
use super::limits::STRETCHES_MAX;
use super::presence::OnCpu;
use super::presence::Presence;
use crate::event::Ns;
use crate::event::ProcessId;
use crate::event::ThreadId;

/// The instants of one span, each widened by its error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    /// When it started.
    pub(super) start: Window,
    /// When it ended.
    pub(super) end: Window,
}

/// How well lags explain the instants: the share of starts, or of ends where that is smaller, at
/// which some thread was on a CPU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Peak {
    /// At the best lag, by what is certain.
    pub(super) certain: f64,
    /// At the best lag, with whatever may have been.
    pub(super) possible: f64,
    /// Over all lags, the same: what chance does.
    pub(super) mean: f64,
}

/// Bins from the earliest to the latest lag.
const BINS: usize = (2 * LAG_NS_MAX / LAG_BIN_NS) as usize;

/// Looks at every lag from -[`LAG_NS_MAX`] to [`LAG_NS_MAX`]. `None` where not all threads of the
/// process are known for all of that time, or there is too much to look through.
pub(super) fn peak(presence: &dyn Presence, process: ProcessId, spans: &[Ends]) -> Option<Peak> {
    let first = spans.iter().map(|span| span.start.0).min()?;
    let last = spans.iter().map(|span| span.end.1).max()?;
    let from = first.checked_sub(LAG_NS_MAX)?;
    let [certain, possible] = stretches(presence, process, from, last.saturating_add(LAG_NS_MAX))?;
    let least = |stretches: &[Window]| -> Vec<f64> {
        let starts = shares(stretches, spans.iter().map(|span| span.start));
        let ends = shares(stretches, spans.iter().map(|span| span.end));
        starts.iter().zip(&ends).map(|(a, b)| a.min(*b)).collect()
    };
    let most = |shares: &[f64]| shares.iter().copied().fold(0.0, f64::max);
    let possible = least(&possible);
    Some(Peak {
        certain: most(&least(&certain)),
        possible: most(&possible),
        mean: possible.iter().sum::<f64>() / BINS as f64,
    })
}

/// When any thread of the process was on a CPU, and when it may have been: in order and apart.
fn stretches(
    presence: &dyn Presence,
    process: ProcessId,
    from: Ns,
    to: Ns,
) -> Option<[Vec<Window>; 2]> {
    let mut threads: Vec<ThreadId> = Vec::new();
    let complete = presence.threads(process, from, to, &mut |facts| threads.push(facts.thread));
    if !complete {
        return None;
    }
    let (mut certain, mut possible): (Vec<Window>, Vec<Window>) = Default::default();
    for thread in threads {
        presence.stretches(thread, from, to, &mut |from, to, on| {
            if possible.len() <= STRETCHES_MAX {
                possible.push((from, to));
                certain.extend((on == OnCpu::Yes).then_some((from, to)));
            }
        });
        if possible.len() > STRETCHES_MAX {
            return None;
        }
    }
    Some([certain, possible].map(apart))
}

/// The same stretches, in order, those that touch as one.
fn apart(mut all: Vec<Window>) -> Vec<Window> {
    all.sort_unstable();
    let mut apart: Vec<Window> = Vec::new();
    for (from, to) in all {
        match apart.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => apart.push((from, to)),
        }
    }
    apart
}

/// For each lag the share of instants that hit a stretch when they are moved by it.
fn shares(stretches: &[Window], instants: impl Iterator<Item = Window>) -> Vec<f64> {
    let mut steps = vec![0_i32; BINS + 1];
    let mut of = 0_u32;
    for (from, to) in instants {
        of += 1;
        let earliest = from.saturating_sub(LAG_NS_MAX);
        let latest = to.saturating_add(LAG_NS_MAX);
        let first = stretches.partition_point(|stretch| stretch.1 < earliest);
        // The first bin that this instant has not counted in yet.
        let mut free = 0;
        let within = stretches[first..].iter();
        for stretch in within.take_while(|stretch| stretch.0 <= latest) {
            // Lags at which the widened instant touches the stretch, counted from the earliest.
            let low = bin(stretch.0.saturating_add(LAG_NS_MAX).saturating_sub(to));
            let high = bin(stretch.1.saturating_add(LAG_NS_MAX).saturating_sub(from));
            let low = low.max(free);
            if low <= high && low < BINS {
                steps[low] += 1;
                steps[(high + 1).min(BINS)] -= 1;
                free = high + 1;
            }
        }
    }
    let mut hits = 0;
    let counted = steps[..BINS].iter().map(|step| {
        hits += step;
        f64::from(hits) / f64::from(of.max(1))
    });
    counted.collect()
}

fn bin(lag: Ns) -> usize {
    usize::try_from(lag / LAG_BIN_NS).unwrap_or(usize::MAX - 1)
}
