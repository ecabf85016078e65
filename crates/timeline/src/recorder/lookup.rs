// SPDX-License-Identifier: Apache-2.0
//! What a record is completed with as it comes in: the class of its object and stack, and the
//! thread that its futex names as the owner. Decided then, it stays true after the facts are gone.

use super::Facts;
use super::Index;
use super::Recorder;
use super::nets::Nets;
use crate::cause::Blocked;
use crate::cause::ObjectClass;
use crate::cause::StackClass;
use crate::cause::polls_nothing;
use crate::event::Cycle;
use crate::event::Ns;
use crate::event::ProcessId;
use crate::event::StackId;
use crate::event::ThreadId;
use crate::event::Wait;
use crate::record::Lookup;
use crate::record::OffCpu;
use crate::record::Owner;
use crate::record::Pointed;
use crate::record::Stacked;
use crate::record::Told;
use crate::record::Waited;
use crate::record::Word;

/// Looks facts up while a record is made.
pub(super) struct Completing<'r> {
    pub(super) facts: &'r mut Facts,
    pub(super) index: &'r Index,
    pub(super) nets: &'r mut Nets,
}

impl Lookup for Completing<'_> {
    fn waited(&mut self, thread: ThreadId, wait: &Wait, at: Ns) -> Waited {
        let facts = &mut *self.facts;
        let index = self.index;
        Waited {
            entry: wait.entry,
            no_descriptors: polls_nothing(wait),
            iowait: wait.iowait,
            polled: wait.polled,
            object: wait.object.map(|object| Pointed {
                object,
                class: facts
                    .objects
                    .touch(object)
                    .map(|info| ObjectClass::from(info.kind)),
            }),
            futex: wait.futex.map(|futex| Word {
                kind: futex.kind,
                owner: index.owner(thread, futex.owner_ns_tid, at),
                address_hash: futex.address_hash,
            }),
        }
    }

    fn stacked(&mut self, stack: StackId) -> Stacked {
        let info = self.facts.stacks.touch(stack);
        let frames = info.map(|info| &info.frames[..]).unwrap_or_default();
        let class = (!frames.is_empty()).then(|| StackClass::of(frames));
        Stacked { stack, class }
    }

    fn told(&mut self, cycle: &Cycle) -> Told {
        self.nets.take(cycle)
    }
}

impl Index {
    /// The owner that a futex names.
    fn owner(&self, waiter: ThreadId, ns_tid: u32, at: Ns) -> Owner {
        if ns_tid == 0 {
            return Owner::None;
        }
        match self.living(waiter, ns_tid, at) {
            Some(thread) => Owner::Thread(thread),
            None => Owner::Named(ns_tid),
        }
    }

    /// Another thread of the same process with that id in its own pid namespace, which lived at
    /// that instant (rule 19).
    pub(super) fn living(&self, waiter: ThreadId, ns_tid: u32, at: Ns) -> Option<ThreadId> {
        let process = self.info(waiter)?.process;
        let named = self.processes.get(&process)?.named(ns_tid);
        let living = named.filter(|&thread| {
            thread != waiter
                && self.info(thread).is_some_and(|info| info.start_ns <= at)
                && self.ended(thread).is_none_or(|ended| ended >= at)
        });
        living.max_by_key(|&thread| self.info(thread).map(|info| info.start_ns))
    }

    /// The threads of a process that did not end before `from`.
    pub(super) fn members(
        &self,
        process: ProcessId,
        from: Ns,
    ) -> impl Iterator<Item = ThreadId> + '_ {
        let members = self.processes.get(&process).into_iter();
        members.flat_map(move |members| members.since(from))
    }
}

impl Recorder {
    /// Fills in what was not known yet as the record came.
    pub(crate) fn classified(
        &self,
        mut blocked: Blocked,
        wait: Waited,
        off: Option<&OffCpu>,
    ) -> Blocked {
        if let (None, Some(pointed)) = (blocked.object, wait.object) {
            blocked.object = self.object_class(pointed.object);
        }
        if let (None, Some(stacked)) = (blocked.stack, off.and_then(|off| off.stack)) {
            blocked.stack = self.stack_class(stacked.stack);
        }
        blocked
    }

    /// The living owner of a lock, at an instant.
    pub(crate) fn lock_owner(&self, waiter: ThreadId, wait: &Waited, at: Ns) -> Option<ThreadId> {
        match wait.futex?.owner {
            Owner::None => None,
            Owner::Thread(thread) => Some(thread),
            Owner::Named(ns_tid) => self.index.living(waiter, ns_tid, at),
        }
    }

    /// The class of a stack that is known.
    fn stack_class(&self, stack: StackId) -> Option<StackClass> {
        self.stack(stack)
            .filter(|info| !info.frames.is_empty())
            .map(|info| StackClass::of(&info.frames))
    }
}
