// SPDX-License-Identifier: Apache-2.0
//! Which threads were on a CPU at all of a span's instants.
//!
//! Here is no learning and no belief, only presence: the same question is asked for the true
//! instants and, to know what chance alone does, for the same instants moved into the past.

use super::facts::ChildFacts;
use super::facts::SpanFacts;
use super::presence::OnCpu;
use super::presence::Presence;
use crate::event::Ns;
use crate::event::ProcessId;
use crate::event::ThreadId;

/// An instant widened by its error: both ends included.
pub(super) type Window = (Ns, Ns);

/// The instants of a span, widened: its own two, then those of its children.
pub(super) struct Instants {
    /// Start and end come first; never fewer than two.
    windows: Vec<Window>,
}

/// A thread that was, or may have been, on a CPU at every instant.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Candidate {
    /// Which.
    pub(super) thread: ThreadId,
    /// It is the thread group leader.
    pub(super) main: bool,
    /// When it was born.
    pub(super) born: Ns,
    /// Proved at every instant, not only possible at some.
    pub(super) sure: bool,
    /// A thread that is on a CPU most of the time; false until somebody says so.
    pub(super) busy: bool,
}

/// What presence alone says.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// The candidates.
    pub(super) list: Vec<Candidate>,
    /// Threads that were alive for the whole span.
    alive: usize,
    /// Threads that were alive for a part of it: they cannot have run it, but may have started or
    /// ended it.
    partly: Vec<ThreadId>,
    /// All threads of that window are known.
    pub(super) complete: bool,
    /// Exactly one thread was, or may have been, on a CPU at the start, and one at the end. Only
    /// looked at by [`find_all`].
    pub(super) lone_ends: bool,
    /// The thread that waited for the connection that the span's request came by, candidate or not.
    /// Only looked for where it can tell something.
    pub(super) hearer: Option<ThreadId>,
}

impl Found {
    /// No candidate is only a maybe, and none can be missing: it may be learned from.
    pub(super) fn clean(&self) -> bool {
        self.complete && self.seen() > 0 && self.list.iter().all(|c| c.sure)
    }

    /// Threads that were alive at any moment of the span.
    pub(super) fn seen(&self) -> usize {
        self.alive + self.partly.len()
    }

    /// How many candidates are not busy.
    pub(super) fn idle(&self) -> usize {
        self.list.iter().filter(|candidate| !candidate.busy).count()
    }

    /// How many candidates.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.list.len()).unwrap_or(u32::MAX)
    }
}

impl Instants {
    /// The span's own two instants, for a clock that ticks every `grain_ns`.
    ///
    /// A coarse clock may truncate (the true instant is up to a tick later) or round (up to half a
    /// tick earlier), so the window covers both.
    pub(super) fn own(span: &SpanFacts<'_>, grain_ns: Ns) -> Instants {
        let wide = |at: Ns| widen(at, span.error_ns, grain_ns);
        Instants {
            windows: vec![wide(span.start), wide(span.end)],
        }
    }

    /// Adds the instants of a child that runs on the same thread.
    pub(super) fn add_child(&mut self, child: &ChildFacts, error_ns: Ns, grain_ns: Ns) {
        self.windows.push(widen(child.start, error_ns, grain_ns));
        self.windows.push(widen(child.end, error_ns, grain_ns));
    }

    /// All of them `offset` earlier; `None` where that is before time began.
    pub(super) fn earlier(&self, offset: Ns) -> Option<Instants> {
        let moved = |w: &Window| Some((w.0.checked_sub(offset)?, w.1.checked_sub(offset)?));
        let windows = self.windows.iter().map(moved).collect::<Option<Vec<_>>>()?;
        Some(Instants { windows })
    }

    /// The start.
    pub(super) fn start(&self) -> Window {
        self.windows[0]
    }

    /// The end.
    pub(super) fn end(&self) -> Window {
        self.windows[1]
    }
}

fn widen(at: Ns, error_ns: Ns, grain_ns: Ns) -> Window {
    let before = error_ns.saturating_add(if grain_ns > 1 { grain_ns / 2 } else { 0 });
    let after = error_ns.saturating_add(grain_ns.saturating_sub(1));
    (at.saturating_sub(before), at.saturating_add(after))
}

/// Whether `thread` was on a CPU at every window.
pub(super) fn at_all(presence: &dyn Presence, thread: ThreadId, windows: &[Window]) -> OnCpu {
    let mut all = OnCpu::Yes;
    for &(from, to) in windows {
        match presence.on_cpu(thread, from, to) {
            OnCpu::No => return OnCpu::No,
            OnCpu::Maybe => all = OnCpu::Maybe,
            OnCpu::Yes => {}
        }
    }
    all
}

/// The windows of a child.
pub(super) fn child_windows(child: &ChildFacts, error_ns: Ns, grain_ns: Ns) -> [Window; 2] {
    [
        widen(child.start, error_ns, grain_ns),
        widen(child.end, error_ns, grain_ns),
    ]
}

/// The candidates. Asks as little as possible.
pub(super) fn find(presence: &dyn Presence, process: ProcessId, instants: &Instants) -> Found {
    let mut found = alive(presence, process, instants);
    keep_on_cpu(presence, &mut found, &instants.windows);
    found
}

/// Keeps the candidates that were, or may have been, on a CPU at these windows too.
pub(super) fn keep_on_cpu(presence: &dyn Presence, found: &mut Found, windows: &[Window]) {
    found.list.retain_mut(|candidate| {
        let on = at_all(presence, candidate.thread, windows);
        candidate.sure &= on == OnCpu::Yes;
        on != OnCpu::No
    });
}

/// The same, and whether the start and the end each had only one thread on a CPU. The thread that
/// read the clock was on a CPU, so a lone one is proved to have read it, without any learning.
pub(super) fn find_all(presence: &dyn Presence, process: ProcessId, instants: &Instants) -> Found {
    let mut found = alive(presence, process, instants);
    let ends = |thread| {
        let start = at_all(presence, thread, &instants.windows[..1]);
        (start, at_all(presence, thread, &instants.windows[1..2]))
    };
    let (mut at_start, mut at_end) = (0_u32, 0_u32);
    for &thread in &found.partly {
        let (start, end) = ends(thread);
        at_start += u32::from(start != OnCpu::No);
        at_end += u32::from(end != OnCpu::No);
    }
    found.list.retain_mut(|candidate| {
        let (start, end) = ends(candidate.thread);
        at_start += u32::from(start != OnCpu::No);
        at_end += u32::from(end != OnCpu::No);
        if start == OnCpu::No || end == OnCpu::No {
            return false;
        }
        candidate.sure = start == OnCpu::Yes && end == OnCpu::Yes;
        true
    });
    keep_on_cpu(presence, &mut found, &instants.windows[2..]);
    found.lone_ends = at_start == 1 && at_end == 1 && found.complete;
    found
}

/// Every thread that was alive from the start to the end; none is judged yet.
fn alive(presence: &dyn Presence, process: ProcessId, instants: &Instants) -> Found {
    let (start, end) = (instants.start(), instants.end());
    let mut found = Found::default();
    let (list, partly) = (&mut found.list, &mut found.partly);
    found.complete = presence.threads(process, start.0, end.1.max(start.0), &mut |facts| {
        let lives = facts.born <= start.1 && facts.died.is_none_or(|died| died >= end.0);
        if lives {
            let (thread, main, born) = (facts.thread, facts.main, facts.born);
            let (sure, busy) = (true, false);
            list.push(Candidate {
                thread,
                main,
                born,
                sure,
                busy,
            });
        } else {
            partly.push(facts.thread);
        }
    });
    found.alive = found.list.len();
    found
}
