// SPDX-License-Identifier: Apache-2.0
//! What befalls threads of the simulated host from outside: detours of the kernel's, being moved to
//! another CPU while queued, and a CPU limit that strikes.

use lacuna_timeline::Cause;
use lacuna_timeline::cause::detour_cause;
use lacuna_timeline::event::DetourKind;
use lacuna_timeline::event::OffState;

use crate::parts::Place;
use crate::parts::Step;
use crate::world::DETOUR_NS_MIN;
use crate::world::World;

impl World {
    pub(crate) fn enters_detour(&mut self, at: usize) {
        let kinds = [
            DetourKind::Compaction,
            DetourKind::MemcgReclaim,
            DetourKind::DirectReclaim,
        ];
        let kind = kinds[self.rng.below(3) as usize];
        let now = self.now;
        let thread = &mut self.threads[at];
        thread.detours.push((kind, now));
        thread.truth.mark(now, detour_cause(kind));
    }

    pub(crate) fn leaves_detour(&mut self, at: usize) {
        let now = self.now;
        let thread = &mut self.threads[at];
        let long = thread
            .detours
            .last()
            .filter(|open| now - open.1 >= DETOUR_NS_MIN);
        let Some((kind, begin)) = long.copied() else {
            return;
        };
        thread.detours.pop();
        let cause = thread.on_cpu_cause();
        thread.truth.mark(now, cause);
        self.kernel.detour(thread.id, kind, begin, now);
    }

    /// Moves one queued thread to another CPU, once a wait: earlier waits have no position each.
    pub(crate) fn balance(&mut self) {
        let from = self.any_cpu();
        let to = self.any_cpu();
        let busy = self.cpus[from].current.is_some();
        let last = self.cpus[from].queue.back().copied();
        if let Some(at) = last.filter(|&at| busy && from != to && !self.threads[at].migrated) {
            self.cpus[from].queue.pop_back();
            let now = self.now;
            let thread = &mut self.threads[at];
            thread.queued.push((from, thread.since..now));
            thread.migrated = true;
            thread.place = Place::Moving;
            thread.truth.mark(now, Cause::RunqIdle);
            self.kernel.migrates(thread.id, now);
            let delay = self.rng.between(100, 2_000);
            self.later(delay, Step::Enqueue(at, to));
        }
        let delay = self.rng.between(5_000, 60_000) * self.pace;
        self.later(delay, Step::Balance);
    }

    /// A limit strikes one thread, running or queued.
    pub(crate) fn limit(&mut self) {
        let at = self.rng.below(self.threads.len() as u64) as usize;
        let thread = &self.threads[at];
        let (cpu, id, place) = (thread.cpu, thread.id, thread.place);
        let queued = place == Place::Queued && self.cpus[cpu].current.is_some() && !thread.migrated;
        if place == Place::OnCpu {
            self.leaves_cpu(at, OffState::Runnable, Place::Throttled, Cause::Throttle);
            self.kernel.enqueued(id, self.now);
        } else if queued {
            self.cpus[cpu].queue.retain(|&other| other != at);
            let now = self.now;
            let thread = &mut self.threads[at];
            thread.queued.push((cpu, thread.since..now));
            thread.truth.mark(now, Cause::Throttle);
            thread.place = Place::Throttled;
        }
        if self.threads[at].place == Place::Throttled && place != Place::Throttled {
            self.kernel.throttled(id, self.now);
            let length = self.rng.between(1_000, 400_000) * self.pace;
            self.later(length, Step::LetGo(at));
            if place == Place::OnCpu {
                self.pick(cpu, false);
            }
        }
        let delay = self.rng.between(20_000, 200_000) * self.pace;
        self.later(delay, Step::Limit);
    }

    pub(crate) fn let_go(&mut self, at: usize) {
        let cpu = self.threads[at].cpu;
        self.kernel.let_go(self.threads[at].id, self.now);
        // A limit that has struck a queued thread may strike again only in its next wait.
        self.threads[at].migrated = true;
        self.stands(at, cpu);
        self.cpus[cpu].queue.push_back(at);
        self.needs_cpu(cpu);
    }
}
