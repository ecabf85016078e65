// SPDX-License-Identifier: Apache-2.0
//! A record as the recorder keeps it: what an account needs of an event, and nothing else.
//!
//! Made from events by [`Record::from_cycle`] and its kin, which check that the instants are in
//! order; written to and read from chunks by `codec.rs`. Raw system call arguments are not kept:
//! what they decide is decided here, once.

use crate::cause::Blocked;
use crate::cause::ObjectClass;
use crate::cause::StackClass;
use crate::event::Blame;
use crate::event::Connection;
use crate::event::Cycle;
use crate::event::DetourKind;
use crate::event::Entry;
use crate::event::Exit;
use crate::event::Faults;
use crate::event::FutexKind;
use crate::event::Merged;
use crate::event::Migrated;
use crate::event::Net;
use crate::event::Ns;
use crate::event::OPEN_DETOURS_MAX;
use crate::event::ObjectId;
use crate::event::Off;
use crate::event::OffState;
use crate::event::Polled;
use crate::event::ShortDetours;
use crate::event::Snapshot;
use crate::event::StackId;
use crate::event::ThreadId;
use crate::event::Throttle;
use crate::event::Wait;
use crate::event::Waker;

/// How many culprits of one wait are kept; the kernel side sends no more.
pub(crate) const BLAME_MAX: usize = 4;

/// One record of a thread.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Its number.
    pub(crate) seq: u64,
    /// The number of the latest detour when it was written.
    pub(crate) detour_seq: u64,
    /// When the thread had come on the CPU; `None`: not seen.
    pub(crate) prev_in: Option<Ns>,
    /// When it left the CPU; for merged records and exits the same as `end`.
    pub(crate) out: Ns,
    /// When the record was written: the next switch-in, or the end of the thread.
    pub(crate) end: Ns,
    /// Page faults since the record before.
    pub(crate) faults: Faults,
    /// Short detours since the record before.
    pub(crate) short: ShortDetours,
    /// What kind of record it is.
    pub(crate) body: Body,
}

/// The part of a record that its kind has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    /// Running, then off the CPU.
    Cycle(OffCpu),
    /// Sums over several cycles.
    Sums(Sums),
    /// Running, then nothing more.
    Exit,
}

/// Off the CPU, from `Record::out` to `Record::end`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OffCpu {
    pub(crate) state: OffState,
    pub(crate) wait: Waited,
    pub(crate) detours: Detours,
    /// The latest waking since the switch-in before; not after the end, perhaps before `out`.
    pub(crate) waking: Option<Ns>,
    pub(crate) waker: Waker,
    /// Not before the waking or `out`, not after the end.
    pub(crate) enqueued: Option<Ns>,
    pub(crate) from_idle: bool,
    pub(crate) migrated: Option<Migrated>,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) cpu: u16,
    /// It came back on another CPU than the record before did.
    pub(crate) moved: bool,
    pub(crate) blame: Blamed,
    pub(crate) stack: Option<Stacked>,
    pub(crate) net: Told,
}

/// What was told of the connection that a wait was for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// There was nothing to tell.
    Nothing,
    /// Something was told, and it has not come.
    Missing,
    /// This.
    Seen(Box<Connection>),
}

/// Sums over merged cycles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sums {
    pub(crate) count: u32,
    pub(crate) running_ns: Ns,
    pub(crate) runnable_ns: Ns,
    pub(crate) idle_wake_ns: Ns,
    pub(crate) blocked_ns: Ns,
    pub(crate) state: OffState,
    pub(crate) wait: Waited,
}

/// What a thread waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Waited {
    pub(crate) entry: Entry,
    pub(crate) no_descriptors: bool,
    pub(crate) iowait: bool,
    pub(crate) polled: Polled,
    pub(crate) object: Option<Pointed>,
    pub(crate) futex: Option<Word>,
}

/// What a descriptor pointed at; its class where it was known as the record came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pointed {
    pub(crate) object: ObjectId,
    pub(crate) class: Option<ObjectClass>,
}

/// A futex word, and its owner where it was known as the record came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Word {
    pub(crate) kind: FutexKind,
    pub(crate) owner: Owner,
    pub(crate) address_hash: u64,
}

/// The owner of a futex.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Owner {
    /// None was named, or the one named is the waiter itself.
    None,
    /// Named, and no thread of that id is known.
    Named(u32),
    /// This thread lived then.
    Thread(ThreadId),
}

/// A kernel stack; its class where it was known as the record came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stacked {
    pub(crate) stack: StackId,
    pub(crate) class: Option<StackClass>,
}

/// Open detours without a heap: at most [`OPEN_DETOURS_MAX`], outermost first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Detours {
    len: u8,
    kinds: [Option<DetourKind>; OPEN_DETOURS_MAX],
}

impl Detours {
    /// None is open.
    pub(crate) const NONE: Detours = Detours {
        len: 0,
        kinds: [None; OPEN_DETOURS_MAX],
    };

    /// The outermost of a list; deeper ones are not seen.
    pub(crate) fn new(kinds: &[DetourKind]) -> Detours {
        let mut detours = Detours::NONE;
        for &kind in kinds.iter().take(OPEN_DETOURS_MAX) {
            detours.kinds[usize::from(detours.len)] = Some(kind);
            detours.len += 1;
        }
        detours
    }

    /// Outermost first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = DetourKind> + '_ {
        self.kinds.iter().flatten().copied()
    }

    /// The innermost.
    pub(crate) fn innermost(&self) -> Option<DetourKind> {
        self.kinds[..usize::from(self.len)]
            .last()
            .copied()
            .flatten()
    }

    /// None is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }
}

/// A blame list without a heap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Blamed {
    pub(crate) culprits: [(u64, Ns); BLAME_MAX],
    pub(crate) rest_ns: Ns,
    pub(crate) uncovered_ns: Ns,
}

impl Blamed {
    /// Nobody is blamed.
    pub(crate) const NONE: Blamed = Blamed {
        culprits: [(0, 0); BLAME_MAX],
        rest_ns: 0,
        uncovered_ns: 0,
    };

    /// The kernel side's list; what is beyond [`BLAME_MAX`] goes to the rest.
    pub(crate) fn new(blame: &Blame) -> Blamed {
        let mut blamed = Blamed {
            rest_ns: blame.rest_ns,
            uncovered_ns: blame.uncovered_ns,
            ..Blamed::NONE
        };
        let culprits = blame.culprits.iter().filter(|culprit| culprit.1 > 0);
        for (at, &(thread, ns)) in culprits.enumerate() {
            match blamed.culprits.get_mut(at) {
                Some(slot) => *slot = (thread.0, ns),
                None => blamed.rest_ns = blamed.rest_ns.saturating_add(ns),
            }
        }
        blamed
    }

    /// The stretch that it speaks of.
    pub(crate) fn total_ns(&self) -> Ns {
        let named = self.named().map(|culprit| culprit.1);
        named
            .chain([self.rest_ns, self.uncovered_ns])
            .fold(0, Ns::saturating_add)
    }

    /// Who is named, with their time.
    pub(crate) fn named(&self) -> impl Iterator<Item = (ThreadId, Ns)> + '_ {
        self.culprits
            .iter()
            .filter(|culprit| culprit.1 > 0)
            .map(|&(thread, ns)| (ThreadId(thread), ns))
    }
}

/// Looks up what the recorder knows as a record comes in.
pub(crate) trait Lookup {
    /// What a wait is, with its object's class and its futex's owner at that instant.
    fn waited(&mut self, thread: ThreadId, wait: &Wait, at: Ns) -> Waited;
    /// What a stack proves.
    fn stacked(&mut self, stack: StackId) -> Stacked;
    /// What was told of the connection that a cycle waited for.
    fn told(&mut self, cycle: &Cycle) -> Told;
}

impl Record {
    /// A cycle; `None` where its instants contradict each other.
    pub(crate) fn from_cycle(cycle: &Cycle, lookup: &mut impl Lookup) -> Option<Record> {
        let out = cycle.off.at;
        let ordered = cycle.prev_in.is_none_or(|prev_in| prev_in <= out) && out <= cycle.end;
        if !ordered || cycle.end == 0 {
            return None;
        }
        let waking = cycle.waking.map(|waking| waking.min(cycle.end));
        let queued_from = waking.unwrap_or(out).max(out);
        let off = OffCpu {
            waking,
            waker: cycle.waker,
            enqueued: cycle.enqueued.map(|at| at.max(queued_from).min(cycle.end)),
            from_idle: cycle.from_idle,
            migrated: cycle.migrated,
            throttle: cycle.throttle,
            cpu: cycle.cpu,
            blame: Blamed::new(&cycle.blame),
            stack: cycle.stack.map(|stack| lookup.stacked(stack)),
            net: if cycle.net {
                lookup.told(cycle)
            } else {
                Told::Nothing
            },
            ..OffCpu::left(cycle.thread, &cycle.off, lookup)
        };
        Some(Record {
            seq: cycle.seq,
            detour_seq: cycle.detour_seq,
            prev_in: cycle.prev_in,
            out,
            end: cycle.end,
            faults: cycle.faults,
            short: cycle.short,
            body: Body::Cycle(off),
        })
    }

    /// What a snapshot saw, as if it had been written then: running up to the snapshot, or off the
    /// CPU up to it. `None` where its instants contradict each other.
    pub(crate) fn from_snapshot(snapshot: &Snapshot, lookup: &mut impl Lookup) -> Option<Record> {
        let out = snapshot.off.as_ref().map_or(snapshot.at, |off| off.at);
        let ordered = snapshot.last_in.is_none_or(|last_in| last_in <= out);
        if !ordered || out > snapshot.at || snapshot.at == 0 {
            return None;
        }
        let body = snapshot.off.as_ref().map_or(Body::Exit, |off| {
            Body::Cycle(OffCpu {
                waking: snapshot.waking.map(|waking| waking.min(snapshot.at)),
                ..OffCpu::left(snapshot.thread, off, lookup)
            })
        });
        Some(Record {
            seq: snapshot.seq,
            detour_seq: snapshot.detour_seq,
            prev_in: snapshot.last_in,
            out,
            end: snapshot.at,
            faults: Faults::default(),
            short: ShortDetours::default(),
            body,
        })
    }

    /// Merged cycles; `None` where the sums do not add up to a stretch.
    pub(crate) fn from_merged(merged: &Merged, lookup: &mut impl Lookup) -> Option<Record> {
        let sum = merged
            .running_ns
            .checked_add(merged.runnable_ns)?
            .checked_add(merged.idle_wake_ns)?
            .checked_add(merged.blocked_ns)?;
        let start = merged.end.checked_sub(sum)?;
        if merged.prev_in.is_some_and(|prev_in| prev_in != start) || merged.end == 0 {
            return None;
        }
        Some(Record {
            seq: merged.seq,
            detour_seq: merged.detour_seq,
            prev_in: Some(start),
            out: merged.end,
            end: merged.end,
            faults: merged.faults,
            short: merged.short,
            body: Body::Sums(Sums {
                count: merged.count,
                running_ns: merged.running_ns,
                runnable_ns: merged.runnable_ns,
                idle_wake_ns: merged.idle_wake_ns,
                blocked_ns: merged.blocked_ns,
                state: merged.state,
                wait: lookup.waited(merged.thread, &merged.wait, start),
            }),
        })
    }

    /// A last record; `None` where its instants contradict each other.
    pub(crate) fn from_exit(exit: &Exit) -> Option<Record> {
        if exit.prev_in.is_some_and(|prev_in| prev_in > exit.at) || exit.at == 0 {
            return None;
        }
        Some(Record {
            seq: exit.seq,
            detour_seq: exit.detour_seq,
            prev_in: exit.prev_in,
            out: exit.at,
            end: exit.at,
            faults: exit.faults,
            short: exit.short,
            body: Body::Exit,
        })
    }

    /// A record of nothing, to be written over.
    pub(crate) fn blank() -> Record {
        Record {
            seq: 0,
            detour_seq: 0,
            prev_in: None,
            out: 0,
            end: 0,
            faults: Faults::default(),
            short: ShortDetours::default(),
            body: Body::Exit,
        }
    }

    /// Its off-CPU part, to be written over in whole; made where it has none, so there always is one.
    pub(crate) fn cycle_mut(&mut self) -> Option<&mut OffCpu> {
        if !matches!(self.body, Body::Cycle(_)) {
            self.body = Body::Cycle(OffCpu::BLANK);
        }
        match &mut self.body {
            Body::Cycle(off) => Some(off),
            Body::Sums(_) | Body::Exit => None,
        }
    }

    /// Takes in what was told of the connection that it waited for; false: that is not missing, or it
    /// speaks of another wait.
    pub(crate) fn fill(&mut self, net: &Net) -> bool {
        let out = self.out;
        let Body::Cycle(off) = &mut self.body else {
            return false;
        };
        let waits_for = off.wait.object.map(|pointed| pointed.object) == Some(net.connection);
        let fits = off.net == Told::Missing && waits_for && net.seen.tells_of(out);
        if fits {
            off.net = Told::Seen(Box::new(net.seen.clone()));
        }
        fits
    }

    /// From here on the record speaks.
    pub(crate) fn start(&self) -> Ns {
        self.prev_in.unwrap_or(self.out)
    }

    /// How many detours were open as the thread left the CPU.
    pub(crate) fn open_detours(&self) -> usize {
        match &self.body {
            Body::Cycle(off) => off.detours.len(),
            Body::Sums(_) | Body::Exit => 0,
        }
    }

    /// It is the thread's last.
    pub(crate) fn is_exit(&self) -> bool {
        matches!(self.body, Body::Exit)
    }

    /// It speaks of a thread that was made runnable and had never been on a CPU: it was woken, and did
    /// not leave one.
    pub(crate) fn is_birth(&self) -> bool {
        let Body::Cycle(off) = &self.body else {
            return false;
        };
        self.prev_in.is_none() && off.state == OffState::Runnable && off.waking.is_some()
    }

    /// How many segments (running, blocked, runnable) are stored in it.
    pub(crate) fn segments(&self) -> u64 {
        match &self.body {
            Body::Cycle(off) => 1 + off.segments(self.out),
            // Merged cycles are stored once, whatever they stand for.
            Body::Sums(_) | Body::Exit => 1,
        }
    }
}

impl OffCpu {
    /// Nothing is known of it.
    const BLANK: OffCpu = OffCpu {
        state: OffState::Runnable,
        wait: Waited::NOTHING,
        detours: Detours::NONE,
        waking: None,
        waker: Waker::Unknown,
        enqueued: None,
        from_idle: false,
        migrated: None,
        throttle: None,
        cpu: 0,
        moved: false,
        blame: Blamed::NONE,
        stack: None,
        net: Told::Nothing,
    };

    /// What is known as a thread leaves the CPU; nothing yet of its return.
    fn left(thread: ThreadId, off: &Off, lookup: &mut impl Lookup) -> OffCpu {
        OffCpu {
            state: off.state,
            wait: lookup.waited(thread, &off.wait, off.at),
            detours: Detours::new(&off.detours),
            ..OffCpu::BLANK
        }
    }

    /// Blocked and then runnable, or only runnable; and what a connection cuts the blocked part into.
    fn segments(&self, out: Ns) -> u64 {
        let blocked =
            self.state != OffState::Runnable && self.waking.is_some_and(|waking| waking > out);
        let cuts = match &self.net {
            Told::Seen(seen) => seen.phases.len() as u64 - 1,
            Told::Nothing | Told::Missing => 0,
        };
        1 + u64::from(blocked) + cuts
    }

    /// What is known of its blocked part, for [`crate::cause::blocked_cause`].
    pub(crate) fn blocked(&self) -> Blocked {
        Blocked {
            detour: self.detours.innermost(),
            stack: self.stack.and_then(|stack| stack.class),
            may_have_timed_out: !matches!(self.waker, Waker::Thread(_) | Waker::SoftIrq),
            ..self.wait.blocked(self.state)
        }
    }
}

impl Waited {
    /// A wait of which nothing was recorded.
    pub(crate) const NOTHING: Waited = Waited {
        entry: Entry::NotRecorded,
        no_descriptors: false,
        iowait: false,
        polled: Polled::No,
        object: None,
        futex: None,
    };

    /// What is known of a wait without position.
    pub(crate) fn blocked(&self, state: OffState) -> Blocked {
        Blocked {
            state,
            entry: self.entry,
            no_descriptors: self.no_descriptors,
            object: self.object.and_then(|object| object.class),
            futex: self.futex.map(|word| word.kind),
            owner_lives: self
                .futex
                .is_some_and(|word| matches!(word.owner, Owner::Thread(_))),
            iowait: self.iowait,
            polled: self.polled,
            // The kernel side merges no poll that its timeout may have ended.
            may_have_timed_out: false,
            detour: None,
            stack: None,
        }
    }
}
