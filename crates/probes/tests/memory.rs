// SPDX-License-Identifier: Apache-2.0
//! Reclaim for a memory cgroup's limit (rule 8), made by a program that times itself, and held against
//! its own clock, the kernel's stacks and the kernel's counters.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use common::Session;
use common::assert_close;
use common::child::Steps;
use common::kernel;
use common::memory::ColdFile;
use common::memory::MemoryGroup;
use common::now;
use common::until;
use common::worker::hog;
use common::worker::pin_thread;
use lacuna_timeline::Cause;
use lacuna_timeline::Recorder;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Detour;
use lacuna_timeline::event::DetourKind;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Event;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::ThreadId;
use std::path::Path;
use std::time::Duration;

const MIB: usize = 1 << 20;
/// What the group may hold, and a file several times as large.
const LIMIT: usize = 6 * MIB;
const FILE: usize = 32 * MIB;
/// How often a thread is watched anew in the midst of a detour.
const CHANGES: u64 = 8;
const SYS_READ: u32 = 0;
/// Frames that a record's stack can hold; a full one may have lost its outer callers.
const FRAMES_MAX: usize = 16;
/// Every reclaim for a cgroup's limit goes through it.
const RECLAIM: &str = "try_to_free_mem_cgroup_pages";

/// What the program did, by its own account, and what was recorded of it.
struct Worked {
    session: Session,
    thread: ThreadId,
    begun: Ns,
    ended: Ns,
    major_faults: u64,
}

/// Lets the program work in the group, recorded from before its first step.
fn work(group: &MemoryGroup, kind: &str, file: &Path, amount: &str) -> Worked {
    let program = kernel::compile("pages.c");
    let mut session = Session::start();
    let mut child = Steps::start(&program, &[kind, file.to_str().unwrap(), amount]);
    session.probes.watch_process(child.pid()).unwrap();
    let tid = child.numbers::<u32>()[0];
    group.take(child.pid());
    child.step();
    let own = child.numbers::<u64>();
    child.finish();
    session.drain_past(now());
    Worked {
        thread: session.id(tid),
        session,
        begun: own[0],
        ended: own[1],
        major_faults: own[3],
    }
}

/// Lets it work on a file that is much larger than the group's limit.
fn over_the_limit(kind: &str) -> (Worked, MemoryGroup) {
    let file = ColdFile::new(kind, FILE);
    let group = MemoryGroup::new(kind);
    group.limit(LIMIT as u64);
    let worked = work(&group, kind, &file.path, "");
    (worked, group)
}

impl Worked {
    /// Its detours, in the order of their numbers.
    fn detours(&self) -> Vec<Detour> {
        let of = |event: &Event| match event {
            Event::Detour(detour) if detour.thread == self.thread => Some(*detour),
            _ => None,
        };
        let mut detours: Vec<Detour> = self.session.events.iter().filter_map(of).collect();
        detours.sort_by_key(|detour| detour.seq);
        detours
    }

    fn cycles(&self) -> Vec<&Cycle> {
        self.session.cycles(self.thread, 0, Ns::MAX)
    }

    fn frames(&self, cycle: &Cycle) -> Vec<Box<str>> {
        let of = |event: &Event| match event {
            Event::Stack(info) if Some(info.stack) == cycle.stack => Some(info.frames.clone()),
            _ => None,
        };
        self.session.events.iter().find_map(of).unwrap_or_default()
    }

    /// Time in detours too short for a record of their own.
    fn short_ns(&self) -> Ns {
        let cycles = self.cycles();
        cycles
            .iter()
            .map(|cycle| Ns::from(cycle.short.memcg_ns))
            .sum()
    }

    /// Detours are complete, one after the other, within the time that the program says it worked.
    fn assert_in_order(&self, detours: &[Detour]) {
        let mut at = self.begun;
        for (number, detour) in (1..).zip(detours) {
            assert_eq!(detour.seq, number, "none is missing: {detours:?}");
            assert_eq!(detour.kind, DetourKind::MemcgReclaim);
            assert!(
                detour.begin >= at && detour.end > detour.begin,
                "{detour:?}"
            );
            at = detour.end;
        }
        assert!(at <= self.ended, "{at} is after {}", self.ended);
        let last = self.cycles().iter().map(|cycle| cycle.detour_seq).max();
        assert_eq!(last, Some(detours.len() as u64), "what the records count");
    }

    /// Off the CPU, three tell whether it was in reclaim: the record that was written at the end of
    /// the wait, the record of the detour, and the kernel's stack.
    fn assert_waits_agree(&self, detours: &[Detour]) {
        for cycle in self.cycles() {
            let within = |detour: &&Detour| detour.begin < cycle.off.at && cycle.end < detour.end;
            let open: &[DetourKind] = match detours.iter().find(within) {
                Some(_) => &[DetourKind::MemcgReclaim],
                None => &[],
            };
            assert_eq!(cycle.off.detours, open, "{cycle:?}");
            let frames = self.frames(cycle);
            let reclaims = frames.iter().any(|name| **name == *RECLAIM);
            let is_whole = !frames.is_empty() && frames.len() < FRAMES_MAX;
            assert!(!reclaims || !open.is_empty(), "{cycle:?} {frames:?}");
            assert!(
                open.is_empty() || reclaims || !is_whole,
                "{cycle:?} {frames:?}"
            );
        }
    }

    /// The account of its work gives the detours their cause, less what it was runnable in them.
    fn assert_accounted(&self, detours: &[Detour]) {
        let mut recorder = Recorder::new(64 << 20);
        for event in &self.session.events {
            recorder.push(event.clone());
        }
        recorder.confirm(self.session.horizon);
        let account =
            recorder.account(self.thread, std::slice::from_ref(&(self.begun..self.ended)));
        assert_eq!(account.check(), Ok(()));
        assert_eq!(account.wall_ns, self.ended - self.begun);
        assert_eq!(account.ns(Cause::Unknown), 0, "{account:?}");
        let cycles = self.cycles();
        let inside = cycles.iter().filter(|cycle| !cycle.off.detours.is_empty());
        let runnable: Ns = inside.map(|cycle| cycle.end - runnable_from(cycle)).sum();
        let truth = length(detours) - runnable + self.short_ns();
        // Short ones have no place: of a run that began before the work they may fall outside of it.
        let slack = 100_000 + self.short_ns();
        assert_close("mem.limit", account.ns(Cause::MemLimit), truth, slack);
    }
}

/// From when on a thread off the CPU was to run.
fn runnable_from(cycle: &Cycle) -> Ns {
    match cycle.off.state {
        OffState::Runnable => cycle.off.at,
        _ => cycle
            .waking
            .unwrap_or(cycle.end)
            .clamp(cycle.off.at, cycle.end),
    }
}

fn length(detours: &[Detour]) -> Ns {
    detours.iter().map(|detour| detour.end - detour.begin).sum()
}

/// What holds whatever it did over the limit.
fn assert_limited(worked: &Worked, group: &MemoryGroup) {
    let detours = worked.detours();
    worked.assert_in_order(&detours);
    worked.assert_waits_agree(&detours);
    worked.assert_accounted(&detours);
    let named = detours.iter().all(|detour| detour.detail == group.id());
    assert!(named, "the cgroup is named: {} {detours:?}", group.id());
    let hits = group.hits();
    assert!(
        !detours.is_empty() && detours.len() as u64 <= hits,
        "{hits} hits: {detours:?}"
    );
    let cycles = worked.cycles();
    let major: u64 = cycles
        .iter()
        .map(|cycle| u64::from(cycle.faults.major))
        .sum();
    assert_eq!(major, worked.major_faults);
}

#[test]
fn root_who_reclaims_for_a_cgroup_is_in_a_detour_as_long_as_it_says() {
    let file = ColdFile::new("given-back", FILE);
    let group = MemoryGroup::new("given-back");
    let filled = work(&group, "read", &file.path, "");
    assert_eq!(filled.detours(), [], "there is no limit yet");
    let (control, amount) = group.reclaim_control();
    let worked = work(&group, "empty", &control, amount);
    let detours = worked.detours();
    assert!(detours.iter().all(|detour| detour.detail == 0), "no limit");
    worked.assert_in_order(&detours);
    worked.assert_waits_agree(&detours);
    worked.assert_accounted(&detours);
    // Before it reclaims it waits for each CPU to hand over the pages that it has at hand.
    let cycles = worked.cycles();
    let outside = cycles.iter().filter(|cycle| {
        cycle.off.detours.is_empty() && cycle.off.at > worked.begun && cycle.end < worked.ended
    });
    let waited: Ns = outside.map(|cycle| cycle.end - cycle.off.at).sum();
    let took = worked.ended - worked.begun - waited;
    let told = length(&detours) + worked.short_ns();
    assert!(
        told <= took && told > took / 2,
        "it reclaimed for {told} of {took}"
    );
}

#[test]
fn root_reading_over_a_limit_reclaims() {
    let (worked, group) = over_the_limit("read");
    assert_limited(&worked, &group);
}

#[test]
fn root_the_limit_that_was_met_is_named_and_not_a_wider_one() {
    let file = ColdFile::new("nested", FILE);
    let outer = MemoryGroup::new("outer");
    let inner = outer.nested("inner");
    for (inner_limit, outer_limit, met) in
        [(LIMIT, LIMIT + MIB, &inner), (LIMIT + MIB, LIMIT, &outer)]
    {
        outer.limit(outer_limit as u64);
        inner.limit(inner_limit as u64);
        let detours = work(&inner, "read", &file.path, "").detours();
        let named = |detour: &Detour| detour.detail == met.id();
        assert!(
            !detours.is_empty() && detours.iter().all(named),
            "{detours:?}"
        );
        file.cool();
    }
    drop(inner);
}

#[test]
fn root_page_faults_over_a_limit_reclaim() {
    let (worked, group) = over_the_limit("touch");
    assert_limited(&worked, &group);
    assert!(worked.major_faults as usize > (FILE - LIMIT) / 4096 / 2);
}

#[test]
fn root_writing_over_a_limit_waits_in_reclaim() {
    let (worked, group) = over_the_limit("write");
    assert_limited(&worked, &group);
}

#[test]
fn root_a_detour_that_ended_unwatched_is_not_open_for_ever() {
    let file = ColdFile::new("unwatched", FILE);
    let group = MemoryGroup::new("unwatched");
    group.limit(LIMIT as u64);
    let program = kernel::compile("pages.c");
    let mut session = Session::start();
    let mut child = Steps::start(&program, &["churn", file.path.to_str().unwrap()]);
    let pid = child.pid();
    group.take(pid);
    child.numbers::<u32>();
    child.step();
    // It reclaims most of the time, so many of these changes come in the midst of that. A thread learns
    // of them when it is switched; not every kernel sleeps in reclaim, so another takes it off the CPU.
    pin_thread(pid, 0);
    let other = hog("other", 0);
    until("changes within detours", || {
        session.probes.watch_process(pid).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        session.probes.unwatch_process(pid).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        session.drain();
        session.probes.counters().unwrap().detours_lost >= CHANGES
    });
    drop(other);
    session.probes.watch_process(pid).unwrap();
    let from = now();
    session.until("a cycle that is watched to its end", |session| {
        let id = session.id(pid);
        !session.cycles(id, from, Ns::MAX).is_empty()
    });
    child.step();
    child.numbers::<u64>();
    until("it to wait for the last step", || {
        kernel::blocked_in(pid, pid) == Some(SYS_READ)
    });
    child.finish();
    session.drain_past(now());
    let cycles = session.cycles(session.id(pid), from, Ns::MAX);
    let of_read = |cycle: &&&Cycle| cycle.off.wait.entry == Entry::Call(Call::Read);
    let last = cycles.iter().rfind(of_read).expect("it waited for that");
    assert_eq!(last.off.detours, [], "{last:?}");
}
