// SPDX-License-Identifier: Apache-2.0
//! The recorder's answers to the join: who was on a CPU, and when.
//!
//! The same walk that accounts are made of, so that the join and the account can never disagree. It
//! says "no" only where records prove it; what is unknown, merged or beyond the records is a maybe.

use std::cell::RefCell;

use crate::account::least;
use crate::cursor::Cursor;
use crate::event::Ns;
use crate::event::ProcessId;
use crate::event::ThreadId;
use crate::join::OnCpu;
use crate::join::Presence;
use crate::join::Running;
use crate::join::ThreadFacts;
use crate::recorder::IdMap;
use crate::recorder::Recorder;
use crate::segment::Place;
use crate::segment::Seen;
use crate::segment::Segment;
use crate::segment::Sink;
use crate::walk::unknown_thread;

/// In how many threads' records a place is remembered; at the limit all are forgotten.
const CURSORS_MAX: usize = 1_024;

/// Answers the join as long as no event comes in.
///
/// Spans are asked about one after the other, each at a few instants, and those lie near each
/// other: so it remembers where it was in each thread's records and reads on from there, instead of
/// reading a chunk from its start for each instant.
#[derive(Debug)]
pub struct Whereabouts<'r> {
    recorder: &'r Recorder,
    cursors: RefCell<IdMap<ThreadId, Box<Cursor<'r>>>>,
}

impl Recorder {
    /// To ask who was on a CPU, and when.
    pub fn whereabouts(&self) -> Whereabouts<'_> {
        Whereabouts {
            recorder: self,
            cursors: RefCell::default(),
        }
    }
}

impl Presence for Whereabouts<'_> {
    fn threads(
        &self,
        process: ProcessId,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(&ThreadFacts<'_>),
    ) -> bool {
        let recorder = self.recorder;
        let mut any = false;
        for id in recorder.threads_since(process, from) {
            any = true;
            let Some(info) = recorder.thread(id) else {
                continue;
            };
            let died = recorder.ended(id);
            if info.kernel || info.start_ns > to {
                continue;
            }
            visit(&ThreadFacts {
                thread: id,
                tid: info.tid,
                ns_tid: info.ns_tid,
                main: info.tid == process.tgid,
                fs_base: info.fs_base,
                comm: &info.comm,
                born: info.start_ns,
                died,
            });
        }
        // Threads that ended before the reach are forgotten, and where there were too many at once
        // others may be as well, until all that they did lies before the window.
        any && recorder.lists_all_since(from)
    }

    fn on_cpu(&self, thread: ThreadId, from: Ns, to: Ns) -> OnCpu {
        let running = self.running(thread, from, to);
        if running.on_ns > 0 {
            OnCpu::Yes
        } else if running.unknown_ns > 0 {
            OnCpu::Maybe
        } else {
            OnCpu::No
        }
    }

    fn running(&self, thread: ThreadId, from: Ns, to: Ns) -> Running {
        let mut sum = Sum(Running::default());
        self.walk(thread, from, to, &mut sum);
        sum.0
    }

    fn stretches(&self, thread: ThreadId, from: Ns, to: Ns, visit: &mut dyn FnMut(Ns, Ns, OnCpu)) {
        self.walk(thread, from, to, &mut Stretches(visit));
    }
}

impl Whereabouts<'_> {
    /// Walks a closed window: its last instant counts as a nanosecond of its own.
    fn walk(&self, id: ThreadId, from: Ns, to: Ns, sink: &mut impl Sink) {
        let window = from..to.saturating_add(1);
        if window.is_empty() {
            return;
        }
        let Some(thread) = self.recorder.held(id) else {
            unknown_thread(&window, sink);
            return;
        };
        // Taken out meanwhile: the sink may belong to somebody who asks more.
        let known = self.cursors.borrow_mut().remove(&id);
        let mut cursor = known.unwrap_or_else(|| Box::new(Cursor::new(&thread.chunks)));
        let windows = std::iter::once(&window);
        self.recorder
            .walk_at(id, thread, windows, &mut cursor, sink);
        let mut cursors = self.cursors.borrow_mut();
        if cursors.len() >= CURSORS_MAX {
            cursors.clear();
        }
        cursors.insert(id, cursor);
    }
}

/// For single questions; who has many asks [`Recorder::whereabouts`].
impl Presence for Recorder {
    fn threads(
        &self,
        process: ProcessId,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(&ThreadFacts<'_>),
    ) -> bool {
        self.whereabouts().threads(process, from, to, visit)
    }

    fn on_cpu(&self, thread: ThreadId, from: Ns, to: Ns) -> OnCpu {
        self.whereabouts().on_cpu(thread, from, to)
    }

    fn running(&self, thread: ThreadId, from: Ns, to: Ns) -> Running {
        self.whereabouts().running(thread, from, to)
    }

    fn stretches(&self, thread: ThreadId, from: Ns, to: Ns, visit: &mut dyn FnMut(Ns, Ns, OnCpu)) {
        self.whereabouts().stretches(thread, from, to, visit);
    }
}

/// Hands on where a thread was, or may have been, on a CPU.
struct Stretches<'v>(&'v mut dyn FnMut(Ns, Ns, OnCpu));

impl Sink for Stretches<'_> {
    fn segment(&mut self, segment: &Segment<'_>) {
        let on = match segment.seen {
            Seen::Cpu { .. } | Seen::Detour { .. } => OnCpu::Yes,
            Seen::Sums { .. } => OnCpu::Maybe,
            Seen::Unknown { place, .. } => match place {
                Place::OnCpu => OnCpu::Yes,
                Place::OffCpu => OnCpu::No,
                Place::Unclear => OnCpu::Maybe,
            },
            Seen::Runnable { .. } | Seen::Throttled { .. } | Seen::Blocked(_) => OnCpu::No,
        };
        if on != OnCpu::No {
            (self.0)(segment.range.start, segment.range.end - 1, on);
        }
    }
}

/// Sums up where a thread was.
struct Sum(Running);

impl Sink for Sum {
    fn segment(&mut self, segment: &Segment<'_>) {
        let ns = segment.range.end - segment.range.start;
        match segment.seen {
            Seen::Cpu { .. } | Seen::Detour { .. } => self.0.on_ns += ns,
            Seen::Unknown { place, .. } => match place {
                Place::OnCpu => self.0.on_ns += ns,
                Place::OffCpu => {}
                Place::Unclear => self.0.unknown_ns += ns,
            },
            Seen::Sums { sums, .. } => {
                let full = segment.full.end - segment.full.start;
                let on = least(sums.running_ns, ns, full);
                let off = least(full - sums.running_ns, ns, full);
                self.0.on_ns += on;
                self.0.unknown_ns += ns - on - off;
            }
            Seen::Runnable { .. } | Seen::Throttled { .. } | Seen::Blocked(_) => {}
        }
    }
}
