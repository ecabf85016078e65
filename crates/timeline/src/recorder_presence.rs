// SPDX-License-Identifier: Apache-2.0
//! The recorder's answers to the join: who was on a CPU, and when.
//!
//! The same walk that accounts are made of, so that the join and the account can never disagree. It
//! says "no" only where records prove it; what is unknown, merged or beyond the records is a maybe.

use std::cell::RefCell;

use crate::account::Reason;
use crate::account::least;
use crate::cause::ObjectClass;
use crate::cursor::Cursor;
use crate::event::Ns;
use crate::event::ObjectKind;
use crate::event::OffState;
use crate::event::ProcessId;
use crate::event::ThreadId;
use crate::join::Heard;
use crate::join::OnCpu;
use crate::join::Presence;
use crate::join::Running;
use crate::join::ThreadFacts;
use crate::record::OffCpu;
use crate::record::Waited;
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

    fn heard(&self, thread: ThreadId, peer_port: u16, from: Ns, to: Ns) -> Heard {
        let mut hearing = Hearing {
            recorder: self.recorder,
            peer_port,
            waits: None,
            heard: Heard::No,
            born: None,
        };
        self.walk(thread, from, to, &mut hearing);
        hearing.heard
    }

    fn takers(
        &self,
        peer_port: u16,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(ThreadId, Ns),
    ) -> bool {
        self.recorder.takes().visit(peer_port, from, to, visit)
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

    fn heard(&self, thread: ThreadId, peer_port: u16, from: Ns, to: Ns) -> Heard {
        self.whereabouts().heard(thread, peer_port, from, to)
    }

    fn takers(
        &self,
        peer_port: u16,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(ThreadId, Ns),
    ) -> bool {
        self.takes().visit(peer_port, from, to, visit)
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

/// Looks for a wait for a connection with that peer port, and for its end.
struct Hearing<'r> {
    recorder: &'r Recorder,
    peer_port: u16,
    /// It is off the CPU for such a one now, and whether that is proved.
    waits: Option<bool>,
    heard: Heard,
    /// When it was born, where that was in the window.
    born: Option<Ns>,
}

impl Hearing<'_> {
    /// Whether a wait was for such a connection, and whether that is proved.
    fn is_for(&self, wait: &Waited) -> Option<bool> {
        let pointed = wait.object?;
        match self.recorder.object(pointed.object).map(|info| info.kind) {
            Some(ObjectKind::Tcp(ends)) => (ends.remote_port == self.peer_port).then_some(true),
            Some(_) => None,
            None => {
                let may_be = pointed.class.is_none_or(|class| class == ObjectClass::Tcp);
                may_be.then_some(false)
            }
        }
    }

    fn off_cpu(&mut self, off: &OffCpu) {
        // One that was preempted waits for a CPU and nothing else.
        if off.state != OffState::Runnable {
            self.waits = self.is_for(&off.wait);
        }
    }

    /// A wait is over when its thread is on a CPU again.
    fn on_cpu(&mut self, at: Ns) {
        match self.waits.take() {
            Some(true) if self.heard != Heard::Maybe => self.heard = Heard::Yes(at),
            Some(_) => self.heard = Heard::Maybe,
            None => {}
        }
    }
}

impl Sink for Hearing<'_> {
    fn segment(&mut self, segment: &Segment<'_>) {
        match segment.seen {
            Seen::Blocked(part) => self.off_cpu(part.off),
            Seen::Runnable { off, .. } | Seen::Throttled { off } => self.off_cpu(off),
            Seen::Cpu { .. } | Seen::Detour { .. } => self.on_cpu(segment.range.start),
            Seen::Sums { sums, .. } => {
                if self.is_for(&sums.wait).is_some() {
                    self.heard = Heard::Maybe;
                }
            }
            Seen::Unknown {
                reason: Reason::NotBorn,
                ..
            } => self.born = Some(segment.range.end),
            // On its way to its first CPU.
            Seen::Unknown {
                reason: Reason::NotObserved,
                ..
            } if self.born == Some(segment.range.start) => {}
            Seen::Unknown { place, .. } => match place {
                Place::OnCpu => self.on_cpu(segment.range.start),
                // For what is not known, nor has it ended yet.
                Place::OffCpu => self.waits = self.waits.or(Some(false)),
                Place::Unclear => self.heard = Heard::Maybe,
            },
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

#[cfg(test)]
mod tests {
    use crate::Event;
    use crate::Recorder;
    use crate::ThreadId;
    use crate::event::Asked;
    use crate::event::Blame;
    use crate::event::Call;
    use crate::event::Cycle;
    use crate::event::Endpoints;
    use crate::event::Entry;
    use crate::event::Faults;
    use crate::event::Ns;
    use crate::event::ObjectId;
    use crate::event::ObjectInfo;
    use crate::event::ObjectKind;
    use crate::event::Off;
    use crate::event::OffState;
    use crate::event::Polled;
    use crate::event::ShortDetours;
    use crate::event::Wait;
    use crate::event::Waker;
    use crate::join::Heard;
    use crate::join::Presence;

    const THREAD: ThreadId = ThreadId(1);
    const MS: Ns = 1_000_000;

    /// Each cycle runs for 1 ms, waits for 8 ms, and is queued for 1 ms.
    fn cycle(seq: u64, state: OffState, wait: Wait) -> Event {
        let begin = seq * 10 * MS;
        Event::Cycle(Cycle {
            thread: THREAD,
            seq,
            prev_in: Some(begin),
            off: Off {
                at: begin + MS,
                state,
                wait,
                detours: Vec::new(),
            },
            waking: Some(begin + 9 * MS),
            waker: Waker::SoftIrq,
            enqueued: Some(begin + 9 * MS),
            from_idle: false,
            migrated: None,
            throttle: None,
            end: begin + 10 * MS,
            cpu: 0,
            blame: Blame::default(),
            stack: None,
            net: false,
            faults: Faults::default(),
            short: ShortDetours::default(),
            detour_seq: 0,
        })
    }

    fn wait_for(call: Call, object: u64, polled: Polled) -> Wait {
        Wait {
            entry: Entry::Call(call),
            object: Some(ObjectId(object)),
            polled,
            ..Wait::default()
        }
    }

    /// A connection from a port that is its number.
    fn object(object: u16, listens: bool) -> Event {
        let ends = Endpoints {
            // From the IPv6 loopback address: only the port matters here.
            local: std::net::Ipv6Addr::LOCALHOST.octets(),
            local_port: 40_001,
            remote: std::net::Ipv6Addr::LOCALHOST.octets(),
            remote_port: object,
            netns: 1,
        };
        Event::Object(ObjectInfo {
            object: ObjectId(object.into()),
            kind: match listens {
                true => ObjectKind::TcpListener(ends),
                false => ObjectKind::Tcp(ends),
            },
            name: "TCP".into(),
            dev: 8,
            ino: 1,
        })
    }

    /// A read of connection 1, a poll that connection 2 ended, a wait for the listener 3, a
    /// preemption within a read of connection 4, a read of something unknown, and a sleep.
    fn recorder(lost: Option<u64>) -> Recorder {
        let mut recorder = Recorder::default();
        for (number, listens) in [(1, false), (2, false), (3, true), (4, false)] {
            recorder.push(object(number, listens));
        }
        let sleeping = OffState::Sleeping;
        let ended = Polled::Ended(Asked::Input);
        let cycles = [
            (sleeping, wait_for(Call::Recv, 1, Polled::No)),
            (sleeping, wait_for(Call::EpollWait, 2, ended)),
            (sleeping, wait_for(Call::Accept, 3, Polled::No)),
            (OffState::Runnable, wait_for(Call::Read, 4, Polled::No)),
            (sleeping, wait_for(Call::Read, 99, Polled::No)),
            (sleeping, Wait::default()),
        ];
        for (seq, (state, wait)) in (1..).zip(cycles) {
            if lost != Some(seq) {
                recorder.push(cycle(seq, state, wait));
            }
        }
        recorder
    }

    #[test]
    fn a_wait_for_a_connection_is_heard_of_when_it_ends() {
        let recorder = recorder(None);
        let heard = |port, from: Ns, to: Ns| recorder.heard(THREAD, port, from * MS, to * MS);
        assert_eq!(heard(1, 12, 21), Heard::Yes(20 * MS));
        assert_eq!(heard(2, 12, 31), Heard::Yes(30 * MS));
        // It has not ended yet, or had ended before.
        assert_eq!(heard(1, 12, 19), Heard::No);
        assert_eq!(heard(1, 21, 40), Heard::No);
        // Another connection, or none; this end's own port is no peer's.
        for port in [2, 3, 4, 80, 40_001] {
            assert_eq!(heard(port, 10, 21), Heard::No, "{port}");
        }
        assert_eq!(heard(3, 31, 41), Heard::No);
        // One that was preempted did not wait.
        assert_eq!(heard(4, 41, 51), Heard::No);
    }

    #[test]
    fn what_is_not_known_may_have_been_heard() {
        let heard =
            |recorder: &Recorder, from: Ns, to: Ns| recorder.heard(THREAD, 1, from * MS, to * MS);
        assert_eq!(heard(&recorder(None), 51, 61), Heard::Maybe);
        assert_eq!(heard(&recorder(None), 60, 80), Heard::Maybe);
        assert_eq!(heard(&recorder(Some(2)), 12, 29), Heard::Maybe);
        let nobody = recorder(None).heard(ThreadId(9), 1, 12 * MS, 21 * MS);
        assert_eq!(nobody, Heard::Maybe);
    }
}
