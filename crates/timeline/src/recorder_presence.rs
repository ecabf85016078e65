// SPDX-License-Identifier: Apache-2.0
//! The recorder's answers to the join: who was on a CPU, and when.
//!
//! The same walk that accounts are made of, so that the join and the account can never disagree. It
//! says "no" only where records prove it; what is unknown, merged or beyond the records is a maybe.

use crate::account::least;
use crate::event::Ns;
use crate::event::ProcessId;
use crate::event::ThreadId;
use crate::join::OnCpu;
use crate::join::Presence;
use crate::join::Running;
use crate::join::ThreadFacts;
use crate::recorder::Recorder;
use crate::segment::Place;
use crate::segment::Seen;
use crate::segment::Segment;
use crate::segment::Sink;

impl Presence for Recorder {
    fn threads(
        &self,
        process: ProcessId,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(&ThreadFacts<'_>),
    ) -> bool {
        let mut any = false;
        for id in self.threads_since(process, from) {
            any = true;
            let Some(info) = self.thread(id) else {
                continue;
            };
            let died = self.ended(id);
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
        any && self.lists_all_since(from)
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
        // The window is closed: its last instant counts as a nanosecond of its own.
        self.walk(thread, from..to.saturating_add(1), &mut sum);
        sum.0
    }

    fn stretches(&self, thread: ThreadId, from: Ns, to: Ns, visit: &mut dyn FnMut(Ns, Ns, OnCpu)) {
        self.walk(thread, from..to.saturating_add(1), &mut Stretches(visit));
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
            Seen::Runnable { .. } | Seen::Throttled { .. } | Seen::Blocked { .. } => OnCpu::No,
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
            Seen::Runnable { .. } | Seen::Throttled { .. } | Seen::Blocked { .. } => {}
        }
    }
}
