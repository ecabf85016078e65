// SPDX-License-Identifier: Apache-2.0
//! The quick way from a program to what the join asks: the small scheduler, and its own lists of who
//! ran when as presence, with losses. No record is made and none decoded.

use super::core::Core;
use super::host::BEGIN;
use super::host::MS;
use super::host::Ns;
use super::host::Rng;
use super::host::SECOND;
use super::observe::Feed;
use super::observe::Ran;
use super::observe::Setting;
use super::observe::process_of;
use super::programs::Running as Program;
use lacuna_timeline::ThreadId;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::Heard;
use lacuna_timeline::join::OnCpu;
use lacuna_timeline::join::Presence;
use lacuna_timeline::join::Running;
use lacuna_timeline::join::ThreadFacts;

/// Runs a program on the small scheduler.
pub(crate) fn quick(setting: &Setting, mut program: Program) -> Ran {
    let mut core = Core::new(setting.seed, setting.cpus, setting.gil);
    core.run(&mut program, setting.spans);
    let (spans, end) = (std::mem::take(&mut core.spans), core.now);
    let record = Record::new(core, setting.lost_one_in, setting.seed);
    Ran {
        spans,
        end,
        feed: Box::new(record),
    }
}

/// Presence of a simulated run, with stretches of which nothing is known.
struct Record {
    core: Core,
    /// By birth, with the longest life of those that live at most a second.
    brief: Vec<usize>,
    lasting: Vec<usize>,
    unknown: Vec<Vec<(Ns, Ns)>>,
}

impl Record {
    /// One stretch of about 50 ms in `lost_one_in` of such stretches of each thread is unknown.
    fn new(core: Core, lost_one_in: u64, seed: u64) -> Record {
        let mut rng = Rng(seed);
        let (mut brief, mut lasting) = (Vec::new(), Vec::new());
        let mut unknown = vec![Vec::new(); core.threads.len()];
        for (i, thread) in core.threads.iter().enumerate() {
            let died = thread.died.unwrap_or(core.now);
            let short = died - thread.born < SECOND && thread.died.is_some();
            if short {
                brief.push(i)
            } else {
                lasting.push(i)
            }
            let mut at = thread.born;
            while lost_one_in > 0 && at < died {
                let to = at + rng.around(50 * MS);
                if rng.one_in(lost_one_in) {
                    unknown[i].push((at, to));
                }
                at = to;
            }
        }
        Record {
            core,
            brief,
            lasting,
            unknown,
        }
    }

    fn visit(
        &self,
        process: ProcessId,
        i: usize,
        (from, to): (Ns, Ns),
        visit: &mut dyn FnMut(&ThreadFacts<'_>),
    ) {
        let thread = &self.core.threads[i];
        if process_of(thread.owner) != process
            || thread.born > to
            || thread.died.is_some_and(|died| died < from)
        {
            return;
        }
        visit(&ThreadFacts {
            thread: ThreadId(i as u64 + 1),
            tid: 1_000 + i as u32,
            ns_tid: 1_000 + i as u32,
            main: i == 0,
            fs_base: 0x7f00_0000_0000 + (i as u64) * 0x1000,
            comm: "python3",
            born: thread.born,
            died: thread.died,
        });
    }
}

/// Whether one of the stretches, in order and apart, touches the window.
fn touches(stretches: &[(Ns, Ns)], from: Ns, to: Ns) -> bool {
    let i = stretches.partition_point(|s| s.1 < from);
    stretches.get(i).is_some_and(|s| s.0 <= to)
}

impl Presence for Record {
    fn threads(
        &self,
        process: ProcessId,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(&ThreadFacts<'_>),
    ) -> bool {
        for &i in &self.lasting {
            self.visit(process, i, (from, to), visit);
        }
        let first = from.saturating_sub(SECOND);
        let i = self
            .brief
            .partition_point(|&i| self.core.threads[i].born < first);
        for &i in self.brief[i..]
            .iter()
            .take_while(|&&i| self.core.threads[i].born <= to)
        {
            self.visit(process, i, (from, to), visit);
        }
        from >= BEGIN
    }

    fn on_cpu(&self, thread: ThreadId, from: Ns, to: Ns) -> OnCpu {
        let i = thread.0 as usize - 1;
        if touches(&self.unknown[i], from, to) {
            return OnCpu::Maybe;
        }
        if touches(&self.core.threads[i].ran, from, to) {
            OnCpu::Yes
        } else {
            OnCpu::No
        }
    }

    fn running(&self, thread: ThreadId, from: Ns, to: Ns) -> Running {
        let ran = &self.core.threads[thread.0 as usize - 1].ran;
        let first = ran.partition_point(|s| s.1 < from);
        let inside = ran[first..].iter().take_while(|s| s.0 <= to);
        let on_ns = inside.map(|s| s.1.min(to) - s.0.max(from)).sum();
        Running {
            on_ns,
            unknown_ns: 0,
        }
    }

    fn stretches(&self, thread: ThreadId, from: Ns, to: Ns, visit: &mut dyn FnMut(Ns, Ns, OnCpu)) {
        let i = thread.0 as usize - 1;
        let unknown = &self.unknown[i];
        for (all, maybe) in [(&self.core.threads[i].ran, false), (unknown, true)] {
            let first = all.partition_point(|s| s.1 < from);
            for s in all[first..].iter().take_while(|s| s.0 <= to) {
                let maybe = maybe || touches(unknown, s.0, s.1);
                let on = if maybe { OnCpu::Maybe } else { OnCpu::Yes };
                visit(s.0.max(from), s.1.min(to), on);
            }
        }
    }

    fn heard(&self, thread: ThreadId, peer_port: u16, from: Ns, to: Ns) -> Heard {
        let i = thread.0 as usize - 1;
        let heard = &self.core.threads[i].heard;
        let first = heard.partition_point(|h| h.0 < from);
        let inside = heard[first..].iter().take_while(|h| h.0 <= to);
        let last = inside.filter(|h| h.1 == peer_port).last();
        if touches(&self.unknown[i], from, to) {
            return Heard::Maybe;
        }
        last.map_or(Heard::No, |&(at, _)| Heard::Yes(at))
    }

    fn takers(
        &self,
        peer_port: u16,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(ThreadId, Ns),
    ) -> bool {
        let took = &self.core.took;
        let first = took.partition_point(|t| t.0 < from);
        let inside = took[first..].iter().take_while(|t| t.0 <= to);
        for &(at, thread, _) in inside.filter(|t| t.2 == peer_port) {
            visit(ThreadId(thread as u64 + 1), at);
        }
        true
    }
}

impl Feed for Record {
    fn until(&mut self, _: Ns, ask: &mut dyn FnMut(&dyn Presence)) {
        ask(self);
    }
}
