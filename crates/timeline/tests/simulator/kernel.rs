// SPDX-License-Identifier: Apache-2.0
//! What the tracepoint programs would have recorded of the simulated scheduler: per-thread storage,
//! one record at each switch-in, detours and last records, a snapshot at the end.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::ops::Range;

use lacuna_timeline::Cause;
use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::ThreadId;
use lacuna_timeline::event::Asked;
use lacuna_timeline::event::Blame;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Connection;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Detour;
use lacuna_timeline::event::DetourKind;
use lacuna_timeline::event::Endpoints;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Exit;
use lacuna_timeline::event::Faults;
use lacuna_timeline::event::Futex;
use lacuna_timeline::event::FutexKind;
use lacuna_timeline::event::Migrated;
use lacuna_timeline::event::Net;
use lacuna_timeline::event::ObjectId;
use lacuna_timeline::event::ObjectInfo;
use lacuna_timeline::event::ObjectKind;
use lacuna_timeline::event::Off;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Polled;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::event::ShortDetours;
use lacuna_timeline::event::Snapshot;
use lacuna_timeline::event::ThreadInfo;
use lacuna_timeline::event::Throttle;
use lacuna_timeline::event::Took;
use lacuna_timeline::event::Wait;
use lacuna_timeline::event::Waker;

use crate::truth::overlap;
use crate::world::Occupancy;

/// One way to wait, and the cause that it must be given.
pub(crate) struct WaitKind {
    pub(crate) state: OffState,
    pub(crate) wait: Wait,
    pub(crate) cause: Cause,
}

/// The tid of the first thread; the others follow.
pub(crate) const FIRST_TID: u32 = 1_000;
const PIPE: ObjectId = ObjectId(0xa1);
const FILE: ObjectId = ObjectId(0xa2);
pub(crate) const CONNECTION: ObjectId = ObjectId(0xa3);
/// The connections of a program's clients, by their ports.
const PEERS: ObjectId = ObjectId(0x10_0000);

/// The ways to wait.
pub(crate) fn waits() -> [WaitKind; 9] {
    let kind = |state, call, object, cause| WaitKind {
        state,
        wait: Wait {
            entry: Entry::Call(call),
            object,
            iowait: state == OffState::Uninterruptible,
            args: [1, 1, 0, 0],
            futex: None,
            polled: Polled::No,
        },
        cause,
    };
    let mut notify = kind(OffState::Sleeping, Call::FutexWait, None, Cause::WaitNotify);
    notify.wait.futex = Some(Futex {
        kind: FutexKind::Unowned,
        owner_ns_tid: 0,
        address_hash: 77,
    });
    let mut ended = kind(
        OffState::Sleeping,
        Call::EpollWait,
        Some(PIPE),
        Cause::WaitPipe,
    );
    ended.wait.polled = Polled::Ended(Asked::Input);
    [
        ended,
        kind(OffState::Sleeping, Call::Nanosleep, None, Cause::WaitSleep),
        notify,
        kind(OffState::Sleeping, Call::Read, Some(PIPE), Cause::WaitPipe),
        kind(
            OffState::Uninterruptible,
            Call::Read,
            Some(FILE),
            Cause::DiskRead,
        ),
        kind(OffState::Sleeping, Call::EpollWait, None, Cause::WaitPoll),
        // What they are depends on what befalls the connection (`net.rs`).
        kind(
            OffState::Sleeping,
            Call::Recv,
            Some(CONNECTION),
            Cause::WaitOther,
        ),
        kind(
            OffState::Sleeping,
            Call::Send,
            Some(CONNECTION),
            Cause::NetSend,
        ),
        kind(
            OffState::Stopped,
            Call::Read,
            Some(PIPE),
            Cause::WaitStopped,
        ),
    ]
}

/// What the programs keep and send.
#[derive(Default)]
pub(crate) struct Kernel {
    storage: HashMap<ThreadId, Storage>,
    /// Every event with the instant that it was sent at, in that order.
    pub(crate) sent: Vec<(Ns, Event)>,
}

/// One thread's storage.
#[derive(Default)]
struct Storage {
    seq: u64,
    detour_seq: u64,
    last_in: Option<Ns>,
    off: Option<Off>,
    waking: Option<Ns>,
    waker: Waker,
    enqueued: Option<Ns>,
    migrated: Option<Migrated>,
    throttle_from: Ns,
    throttle: Option<Throttle>,
    /// It is known when the limit let go.
    placed: bool,
    cpu: usize,
    born: Ns,
    /// What befalls the connection that it waits for.
    told: Option<Connection>,
    /// Whose thread it is, where the run says so.
    process: Option<ProcessId>,
}

impl Kernel {
    fn send(&mut self, at: Ns, event: Event) {
        self.sent.push((at, event));
    }

    fn storage(&mut self, id: ThreadId) -> &mut Storage {
        self.storage.entry(id).or_default()
    }

    /// What the two objects are.
    pub(crate) fn facts() -> Vec<Event> {
        [
            fact(PIPE, ObjectKind::Pipe),
            fact(FILE, ObjectKind::File),
            fact(CONNECTION, ObjectKind::Tcp(ends(2))),
        ]
        .map(Event::Object)
        .into()
    }

    pub(crate) fn born(&mut self, id: ThreadId, now: Ns, process: Option<ProcessId>) {
        let storage = self.storage(id);
        storage.born = now;
        storage.process = process;
    }

    /// Named at its first switch-in, and again at each `exec`.
    pub(crate) fn renamed(&mut self, id: ThreadId, now: Ns) {
        let storage = self.storage(id);
        let process = storage.process.unwrap_or(ProcessId {
            tgid: 10 + (id.0 % 3) as u32,
            start_ns: 1,
        });
        let tid = FIRST_TID + id.0 as u32 - 1;
        let info = ThreadInfo {
            thread: id,
            process,
            tid,
            ns_tid: tid,
            ns_tgid: 10,
            comm: format!("t{}-{now}", id.0).into(),
            kernel: false,
            start_ns: storage.born,
            since: now,
            cgroup: 7,
            fs_base: 0,
        };
        self.send(now, Event::Thread(info));
    }

    pub(crate) fn out(&mut self, id: ThreadId, now: Ns, state: OffState, detours: Vec<DetourKind>) {
        let storage = self.storage(id);
        storage.told = None;
        storage.off = Some(Off {
            at: now,
            state,
            wait: Wait::default(),
            detours,
        });
        storage.waking = None;
        storage.waker = Waker::Unknown;
        storage.enqueued = None;
        storage.migrated = None;
        storage.throttle = None;
    }

    pub(crate) fn waits_for(&mut self, id: ThreadId, kind: &WaitKind) {
        if let Some(off) = &mut self.storage(id).off {
            off.wait = kind.wait;
        }
    }

    /// What befalls the connection that it waits for, up to its waking.
    pub(crate) fn told(&mut self, id: ThreadId, told: Connection) {
        self.storage(id).told = Some(told);
    }

    /// A connection whose other end has that port ends a wait.
    pub(crate) fn heard(&mut self, id: ThreadId, now: Ns, port: u16) {
        let object = ObjectId(PEERS.0 + u64::from(port));
        let storage = self.storage(id);
        storage.told = None;
        if let Some(off) = &mut storage.off {
            off.state = OffState::Sleeping;
            off.wait = Wait {
                entry: Entry::Call(Call::EpollWait),
                object: Some(object),
                polled: Polled::Ended(Asked::Input),
                ..Wait::default()
            };
        }
        let kind = ObjectKind::Tcp(ends(port));
        self.send(now, Event::Object(fact(object, kind)));
    }

    /// A thread reads a request of such a connection that it had not waited for.
    pub(crate) fn took(&mut self, id: ThreadId, now: Ns, port: u16) {
        if let Some(peer_port) = NonZeroU16::new(port) {
            let thread = id;
            let at = now;
            self.send(
                now,
                Event::Took(Took {
                    thread,
                    at,
                    peer_port,
                }),
            );
        }
    }

    pub(crate) fn waking(&mut self, id: ThreadId, now: Ns, waker: Waker) {
        let storage = self.storage(id);
        storage.waking = Some(now);
        storage.waker = waker;
    }

    pub(crate) fn enqueued(&mut self, id: ThreadId, now: Ns) {
        self.storage(id).enqueued = Some(now);
    }

    pub(crate) fn migrates(&mut self, id: ThreadId, now: Ns) {
        let storage = self.storage(id);
        let waited_ns = storage.enqueued.map_or(0, |since| now - since);
        storage.migrated = Some(Migrated { waited_ns, at: now });
        storage.enqueued = None;
    }

    pub(crate) fn throttled(&mut self, id: ThreadId, now: Ns) {
        self.storage(id).throttle_from = now;
    }

    /// Where it began with the wait, every other time only the amount is known: put first, it is
    /// still right, unless its CPU is idle in the end.
    pub(crate) fn let_go(&mut self, id: ThreadId, now: Ns) {
        let storage = self.storage(id);
        let from_start = storage.off.as_ref().map(|off| off.at) == Some(storage.throttle_from);
        let placed = !from_start || storage.seq.is_multiple_of(2);
        storage.placed = placed;
        storage.throttle = Some(Throttle {
            ns: now - storage.throttle_from,
            until: Some(now),
            estimated: false,
            cgroup: 7,
        });
    }

    /// On a CPU again: the record of the cycle that ends.
    pub(crate) fn comes_in(
        &mut self,
        id: ThreadId,
        now: Ns,
        cpu: usize,
        from_idle: bool,
        occupancy: &Occupancy,
    ) {
        let storage = self.storage(id);
        let first = storage.last_in.is_none();
        let prev_in = storage.last_in.replace(now);
        storage.cpu = cpu;
        if first {
            self.renamed(id, now);
            return;
        }
        let Some(off) = storage.off.take() else {
            return;
        };
        storage.seq += 1;
        if let Some(throttle) = storage.throttle.as_mut().filter(|_| !from_idle) {
            throttle.until = throttle.until.filter(|_| storage.placed);
        }
        let told = storage.told.take();
        let net = told.map(|seen| Net {
            thread: id,
            seq: storage.seq,
            connection: CONNECTION,
            seen,
        });
        let cycle = Cycle {
            thread: id,
            seq: storage.seq,
            prev_in,
            off,
            waking: storage.waking,
            waker: storage.waker,
            enqueued: storage.enqueued,
            from_idle,
            migrated: storage.migrated,
            throttle: storage.throttle,
            end: now,
            cpu: cpu as u16,
            blame: blame(occupancy, storage.enqueued.unwrap_or(now)..now),
            stack: None,
            net: net.is_some(),
            faults: Faults::default(),
            short: ShortDetours::default(),
            detour_seq: storage.detour_seq,
        };
        storage.waking = None;
        if let Some(net) = net {
            self.send(now, Event::Net(net));
        }
        self.send(now, Event::Cycle(cycle));
    }

    pub(crate) fn detour(&mut self, id: ThreadId, kind: DetourKind, begin: Ns, end: Ns) {
        let storage = self.storage(id);
        storage.detour_seq += 1;
        let detour = Detour {
            thread: id,
            seq: storage.detour_seq,
            kind,
            begin,
            end,
            detail: 0,
        };
        self.send(end, Event::Detour(detour));
    }

    pub(crate) fn exited(&mut self, id: ThreadId, now: Ns) {
        let storage = self.storage(id);
        storage.seq += 1;
        let exit = Exit {
            thread: id,
            seq: storage.seq,
            prev_in: storage.last_in,
            at: now,
            faults: Faults::default(),
            short: ShortDetours::default(),
            detour_seq: storage.detour_seq,
        };
        self.send(now, Event::Exit(exit));
    }

    /// The iterator looks at a thread; `open`: it is on a CPU with these detours open.
    pub(crate) fn looked_at(
        &mut self,
        id: ThreadId,
        now: Ns,
        queued: bool,
        open: Option<Vec<DetourKind>>,
    ) {
        let storage = self.storage(id);
        let off = storage.off.as_ref().filter(|_| open.is_none());
        let unseen = off.is_some_and(|off| off.state != OffState::Runnable)
            && queued
            && storage.waking.is_none();
        if storage.last_in.is_none() || unseen {
            return;
        }
        let snapshot = Snapshot {
            thread: id,
            seq: storage.seq,
            at: now,
            last_in: storage.last_in,
            off: off.cloned(),
            open: open.unwrap_or_default(),
            detour_seq: storage.detour_seq,
            waking: storage.waking,
        };
        self.send(now, Event::Snapshot(snapshot));
    }
}

fn fact(object: ObjectId, kind: ObjectKind) -> ObjectInfo {
    ObjectInfo {
        object,
        kind,
        name: "name".into(),
        dev: 1,
        ino: object.0,
    }
}

/// A connection whose other end has that port.
fn ends(remote_port: u16) -> Endpoints {
    Endpoints {
        local: [1; 16],
        local_port: 1,
        remote: [2; 16],
        remote_port,
        netns: 1,
    }
}

/// Who ran on a CPU in a stretch: four culprits, the rest, and what nobody is known to have had.
fn blame(occupancy: &Occupancy, range: Range<Ns>) -> Blame {
    let mut sums: Vec<(ThreadId, Ns)> = Vec::new();
    for (thread, ran) in occupancy.iter().rev().take(32) {
        let ns = overlap(ran, &range);
        match sums.iter_mut().find(|sum| sum.0 == *thread) {
            Some(sum) => sum.1 += ns,
            None => sums.push((*thread, ns)),
        }
    }
    sums.retain(|sum| sum.1 > 0);
    sums.sort_by_key(|sum| std::cmp::Reverse(sum.1));
    let covered: Ns = sums.iter().map(|sum| sum.1).sum();
    let rest = sums.split_off(sums.len().min(4));
    Blame {
        rest_ns: rest.iter().map(|sum| sum.1).sum(),
        uncovered_ns: (range.end - range.start) - covered,
        culprits: sums,
    }
}
