// SPDX-License-Identifier: Apache-2.0
//! What was told of connections, until the cycles come that it belongs to.
//!
//! The kernel side writes it just before its cycle, so there are as many here as records of different
//! CPUs can overtake each other. What no cycle asks for is pushed out by the next ones, and counted.

use std::collections::VecDeque;

use super::Recorder;
use crate::event::Cycle;
use crate::event::Net;
use crate::event::PHASES_MAX;
use crate::event::Phase;
use crate::record::Told;
use crate::thread::Filled;

/// How many are kept, where the memory is enough for them.
const NETS_MAX: usize = 256;

/// What the phases of one take.
const PHASES_BYTES: usize = PHASES_MAX * size_of::<Phase>();

/// Those whose cycle has not come.
#[derive(Debug)]
pub(super) struct Nets {
    /// Oldest first.
    waiting: VecDeque<Net>,
    limit: usize,
    dropped: u64,
    refused: u64,
}

impl Nets {
    /// None; they take at most that much memory.
    pub(super) fn new(bytes_max: usize) -> Nets {
        // The list grows by doubling, so half of it may be empty.
        let each = 2 * size_of::<Net>() + PHASES_BYTES;
        Nets {
            waiting: VecDeque::new(),
            limit: (bytes_max / each).clamp(1, NETS_MAX),
            dropped: 0,
            refused: 0,
        }
    }

    /// Keeps one, and lets the oldest go where there are too many.
    fn keep(&mut self, mut net: Net) {
        if self.waiting.len() >= self.limit {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        net.seen.phases.shrink_to_fit();
        self.waiting.push_back(net);
    }

    /// Takes out what belongs to a cycle; the latest mostly, so the search begins there.
    pub(super) fn take(&mut self, cycle: &Cycle) -> Told {
        let belongs = |net: &Net| (net.thread, net.seq) == (cycle.thread, cycle.seq);
        let place = self.waiting.iter().rposition(belongs);
        let Some(net) = place.and_then(|place| self.waiting.remove(place)) else {
            return Told::Missing;
        };
        let waits_for = cycle.off.wait.object == Some(net.connection);
        if !waits_for || !net.seen.tells_of(cycle.off.at) {
            self.refused += 1;
            return Told::Missing;
        }
        Told::Seen(Box::new(net.seen))
    }

    /// Memory that they take beyond their own struct.
    pub(super) fn heap_bytes(&self) -> usize {
        self.waiting.capacity() * size_of::<Net>() + self.waiting.len() * PHASES_BYTES
    }

    /// How many were pushed out.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many contradicted themselves or their cycle.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }
}

impl Recorder {
    /// Takes in what was told of a connection: its cycle has come, or will.
    pub(super) fn push_net(&mut self, net: Net) {
        if !net.seen.is_ordered() {
            self.nets.refused += 1;
            return;
        }
        let last = self.held(net.thread).and_then(|thread| thread.last);
        let filled = match last {
            Some(last) if net.seq <= last.seq => {
                self.change(net.thread, |thread| thread.fill(&net))
            }
            _ => Filled::NotHeld,
        };
        match filled {
            Filled::With { segments } => self.stats.segments += segments,
            Filled::Refused => self.nets.refused += 1,
            Filled::NotHeld => self.nets.keep(net),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::NETS_MAX;
    use super::Nets;
    use crate::Event;
    use crate::Recorder;
    use crate::ThreadId;
    use crate::event::Blame;
    use crate::event::Connection;
    use crate::event::Cycle;
    use crate::event::Faults;
    use crate::event::Net;
    use crate::event::NetState;
    use crate::event::Ns;
    use crate::event::ObjectId;
    use crate::event::Off;
    use crate::event::OffState;
    use crate::event::Phase;
    use crate::event::ShortDetours;
    use crate::event::Wait;
    use crate::event::Waker;
    use crate::record::Body;
    use crate::record::Told;

    const THREAD: ThreadId = ThreadId(1);
    const CONNECTION: ObjectId = ObjectId(7);

    /// The instant of a cycle's beginning.
    fn begin(seq: u64) -> Ns {
        seq * 1_000_000
    }

    /// A wait for the connection, of which something is told.
    fn cycle(seq: u64) -> Cycle {
        Cycle {
            thread: THREAD,
            seq,
            prev_in: Some(begin(seq)),
            off: Off {
                at: begin(seq) + 1_000,
                state: OffState::Sleeping,
                wait: Wait {
                    object: Some(CONNECTION),
                    ..Wait::default()
                },
                detours: Vec::new(),
            },
            waking: Some(begin(seq) + 900_000),
            waker: Waker::SoftIrq,
            enqueued: None,
            from_idle: false,
            migrated: None,
            throttle: None,
            end: begin(seq + 1),
            cpu: 0,
            blame: Blame::default(),
            stack: None,
            net: true,
            faults: Faults::default(),
            short: ShortDetours::default(),
            detour_seq: 0,
        }
    }

    /// What is told of it, in three phases.
    fn net(seq: u64) -> Net {
        let phase = |after, state| Phase {
            at: begin(seq) + after,
            since: Some(begin(seq)),
            state,
        };
        Net {
            thread: THREAD,
            seq,
            connection: CONNECTION,
            seen: Connection {
                phases: vec![
                    phase(500, NetState::UNACKED),
                    phase(2_000, NetState::UNACKED.with(NetState::LOST)),
                    phase(800_000, NetState::ASKED),
                ],
                ..Connection::default()
            },
        }
    }

    /// What the records of the thread say of their connections, oldest first.
    fn told(recorder: &Recorder) -> Vec<Told> {
        let chunks = recorder.held(THREAD).expect("it is known").chunks.iter();
        chunks
            .flat_map(|chunk| chunk.records().collect::<Vec<_>>())
            .map(|record| match record.body {
                Body::Cycle(off) => off.net,
                Body::Sums(_) | Body::Exit => Told::Nothing,
            })
            .collect()
    }

    fn seen(seq: u64) -> Told {
        Told::Seen(Box::new(net(seq).seen))
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let mut recorder = Recorder::default();
        recorder.push(Event::Net(net(1)));
        recorder.push(Event::Cycle(cycle(1)));
        recorder.push(Event::Cycle(cycle(2)));
        recorder.push(Event::Cycle(cycle(4)));
        assert_eq!(told(&recorder), [seen(1), Told::Missing, Told::Missing]);
        // Of one whose cycle has not come, though a later one has; and of two that have come.
        recorder.push(Event::Net(net(3)));
        recorder.push(Event::Net(net(4)));
        recorder.push(Event::Cycle(cycle(3)));
        recorder.push(Event::Net(net(2)));
        assert_eq!(told(&recorder), [seen(1), seen(2), seen(3), seen(4)]);
        let stats = recorder.stats();
        assert_eq!((stats.segments, stats.malformed), (4 * (1 + 2 + 2), 0));
    }

    #[test]
    fn what_contradicts_itself_or_its_cycle_is_refused_and_counted() {
        type Change = fn(&mut Net);
        let changes: [Change; 7] = [
            |net| net.seen.phases.clear(),
            |net| net.seen.phases.swap(0, 1),
            |net| net.seen.phases[1].since = Some(begin(9)),
            |net| net.seen.phases.extend(vec![net.seen.phases[2]; 6]),
            |net| net.seen.phases[0].at = 0,
            |net| net.connection = ObjectId(8),
            // It begins after the wait, and does not say that older phases were cut off.
            |net| drop(net.seen.phases.drain(..1)),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            for late in [false, true] {
                let mut recorder = Recorder::default();
                let mut wrong = net(1);
                change(&mut wrong);
                let mut events = vec![Event::Net(wrong), Event::Cycle(cycle(1))];
                if late {
                    events.reverse();
                }
                events.into_iter().for_each(|event| recorder.push(event));
                assert_eq!(told(&recorder), [Told::Missing], "{at} {late}");
                assert_eq!(recorder.stats().malformed, 1, "{at} {late}");
            }
        }
    }

    #[test]
    fn twice_is_once() {
        let mut recorder = Recorder::default();
        recorder.push(Event::Net(net(1)));
        recorder.push(Event::Cycle(cycle(1)));
        recorder.push(Event::Net(net(1)));
        assert_eq!(told(&recorder), [seen(1)]);
        assert_eq!(recorder.stats().malformed, 1);
    }

    #[test]
    fn those_that_no_cycle_asks_for_are_pushed_out() {
        let budget_bytes = 16 << 20;
        let mut recorder = Recorder::new(budget_bytes);
        for seq in 1..=1_000 {
            recorder.push(Event::Net(net(seq)));
            assert!(recorder.stats().bytes < budget_bytes / super::super::NETS_SHARE);
        }
        assert_eq!(recorder.stats().facts_dropped, 1_000 - NETS_MAX as u64);
        recorder.push(Event::Cycle(cycle(1)));
        recorder.push(Event::Cycle(cycle(1_000)));
        assert_eq!(told(&recorder), [Told::Missing, seen(1_000)]);
    }

    #[test]
    fn a_small_budget_keeps_few() {
        let mut nets = Nets::new(4_096);
        for seq in 1..=1_000 {
            nets.keep(net(seq));
            assert!(nets.heap_bytes() <= 4_096);
        }
    }

    #[test]
    fn what_is_evicted_takes_its_segments_along() {
        let mut recorder = Recorder::new(64 << 10);
        for seq in 1..=10_000 {
            recorder.push(Event::Cycle(cycle(seq)));
            recorder.push(Event::Net(net(seq)));
        }
        let stats = recorder.stats();
        assert!(stats.evicted > 1_000);
        assert_eq!(stats.segments, 5 * stats.records);
    }
}
