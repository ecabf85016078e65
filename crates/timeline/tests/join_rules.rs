// SPDX-License-Identifier: Apache-2.0
//! The join's rules one by one, on hand-made presence: claims that are true, forged or stale, single
//! threads, losses, hostile spans, limits.

use lacuna_timeline::ThreadId;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::Claim;
use lacuna_timeline::join::Claims;
use lacuna_timeline::join::Heard;
use lacuna_timeline::join::How;
use lacuna_timeline::join::Joined;
use lacuna_timeline::join::Joiner;
use lacuna_timeline::join::KindId;
use lacuna_timeline::join::OnCpu;
use lacuna_timeline::join::Place;
use lacuna_timeline::join::Presence;
use lacuna_timeline::join::Running;
use lacuna_timeline::join::SpanFacts;
use lacuna_timeline::join::SpanKey;
use lacuna_timeline::join::ThreadFacts;
use lacuna_timeline::join::Why;
use lacuna_timeline::join::grain_ns;

const MS: Ns = 1_000_000;
const PROCESS: ProcessId = ProcessId {
    tgid: 39,
    start_ns: 10 * MS,
};

/// A thread that is on a CPU for `on` of every `period`, from `phase` on.
#[derive(Clone)]
struct Beat {
    tid: u32,
    comm: &'static str,
    phase: Ns,
    on: Ns,
    period: Ns,
    born: Ns,
    died: Option<Ns>,
    lost: bool,
}

fn beat(tid: u32, phase: Ns, on: Ns, period: Ns) -> Beat {
    let (comm, born, died, lost) = ("worker", PROCESS.start_ns, None, false);
    Beat {
        tid,
        comm,
        phase,
        on,
        period,
        born,
        died,
        lost,
    }
}

/// Threads with a beat.
struct Beats {
    threads: Vec<Beat>,
    complete: bool,
}

fn beats(threads: Vec<Beat>) -> Beats {
    let complete = true;
    Beats { threads, complete }
}

impl Presence for Beats {
    fn threads(
        &self,
        process: ProcessId,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(&ThreadFacts<'_>),
    ) -> bool {
        for beat in &self.threads {
            let lives = beat.born <= to && beat.died.is_none_or(|died| died >= from);
            if process == PROCESS && lives {
                visit(&ThreadFacts {
                    thread: ThreadId(beat.tid.into()),
                    tid: beat.tid,
                    ns_tid: beat.tid - 30,
                    main: beat.tid == PROCESS.tgid,
                    fs_base: 0x7f00_0000_0000 + u64::from(beat.tid) * 0x1000,
                    comm: beat.comm,
                    born: beat.born,
                    died: beat.died,
                });
            }
        }
        self.complete
    }

    fn on_cpu(&self, thread: ThreadId, from: Ns, to: Ns) -> OnCpu {
        let Some(beat) = self.threads.iter().find(|b| u64::from(b.tid) == thread.0) else {
            return OnCpu::No;
        };
        let into = from.saturating_sub(beat.phase) % beat.period;
        let on = into <= beat.on || into.saturating_add(to - from) >= beat.period;
        match (beat.lost, on) {
            (true, _) => OnCpu::Maybe,
            (_, true) => OnCpu::Yes,
            (_, false) => OnCpu::No,
        }
    }

    fn running(&self, thread: ThreadId, from: Ns, to: Ns) -> Running {
        let beat = self.threads.iter().find(|b| u64::from(b.tid) == thread.0);
        let on_ns = beat.map_or(0, |beat| (to - from) / beat.period * beat.on);
        Running {
            on_ns,
            unknown_ns: 0,
        }
    }

    fn stretches(&self, thread: ThreadId, from: Ns, to: Ns, visit: &mut dyn FnMut(Ns, Ns, OnCpu)) {
        let beat = self.threads.iter().find(|b| u64::from(b.tid) == thread.0);
        let Some(beat) = beat else { return };
        let first = from.saturating_sub(beat.phase) / beat.period * beat.period + beat.phase;
        let mut at = first;
        while at <= to && beat.period > 0 {
            if at + beat.on >= from {
                let on = if beat.lost { OnCpu::Maybe } else { OnCpu::Yes };
                visit(at.max(from), (at + beat.on).min(to), on);
            }
            at += beat.period;
        }
    }

    fn heard(&self, _: ThreadId, _: u16, _: Ns, _: Ns) -> Heard {
        Heard::No
    }

    fn takers(&self, _: u16, _: Ns, _: Ns, _: &mut dyn FnMut(ThreadId, Ns)) -> bool {
        true
    }
}

fn span(i: u64, start: Ns, end: Ns) -> SpanFacts<'static> {
    SpanFacts {
        key: SpanKey { trace: 9, span: i },
        process: PROCESS,
        kind: KindId(1),
        start,
        end,
        error_ns: 0,
        grain_ns: 1,
        place: Place::Root,
        children: &[],
        clock_stepped: false,
        claims: Claims::default(),
        peer_port: None,
    }
}

/// A span by the thread of phase 0 and period 97 ms, number `i`: over one wait of it.
fn beat_span(i: u64) -> SpanFacts<'static> {
    let start = (100 + 97 * i) * MS + MS / 2;
    span(
        i,
        start - start % (97 * MS) + MS / 2,
        start - start % (97 * MS) + 97 * MS + MS / 2,
    )
}

/// Two threads whose beats rarely meet.
fn two() -> Vec<Beat> {
    vec![beat(40, 0, MS, 97 * MS), beat(41, 0, 3 * MS, 61 * MS)]
}

/// Observes so many spans of the first thread, each with these claims, and asks about one more.
fn after(presence: &Beats, count: u64, claims: Claims<'static>) -> Joined {
    let mut joiner = Joiner::default();
    for i in 0..count {
        let claims = Claims::clone(&claims);
        joiner.observe(
            &SpanFacts {
                claims,
                ..beat_span(i)
            },
            presence,
        );
    }
    joiner.join(
        &SpanFacts {
            claims,
            ..beat_span(count)
        },
        presence,
    )
}

fn native(tid: u64) -> Claims<'static> {
    Claims {
        native_tid: Some(tid),
        ..Claims::default()
    }
}

#[test]
fn a_kind_is_joined_by_timestamps_once_it_is_learned() {
    let threads = beats(two());
    assert_eq!(after(&threads, 150, Claims::default()).why, Why::Learning);
    let joined = after(&threads, 400, Claims::default());
    assert_eq!(joined.thread, Some(ThreadId(40)), "{joined:?}");
    assert!(joined.score > 0.999 && joined.score < 1.0);
}

#[test]
fn a_true_thread_id_is_honoured_in_either_namespace_once_it_was_checked() {
    let threads = beats(two());
    for claimed in [40, 10] {
        let early = after(&threads, 5, native(claimed));
        assert_eq!((early.thread, early.claim), (None, Claim::Unproved));
        let joined = after(&threads, 25, native(claimed));
        assert_eq!(joined.thread, Some(ThreadId(40)));
        assert_eq!(
            (joined.how, joined.claim),
            (How::Attribute, Claim::Honoured)
        );
    }
}

#[test]
fn a_managed_id_counts_only_as_an_fs_base() {
    let threads = beats(two());
    let managed = |id| Claims {
        managed_id: Some(id),
        ..Claims::default()
    };
    let joined = after(&threads, 25, managed(0x7f00_0000_0000 + 40 * 0x1000));
    assert_eq!(
        (joined.how, joined.thread),
        (How::Attribute, Some(ThreadId(40)))
    );
    // The number of a thread in its runtime may look like a tid, and must not be taken for one.
    let joined = after(&threads, 25, managed(41));
    assert_eq!((joined.thread, joined.claim), (None, Claim::Absent));
}

#[test]
fn a_name_counts_only_where_it_names_one_thread() {
    let mut named = two();
    named[0].comm = "a-very-long-nam";
    let name = Claims {
        name: Some("a-very-long-name-of-a-thread"),
        ..Claims::default()
    };
    let joined = after(&beats(named.clone()), 25, name);
    assert_eq!(
        (joined.how, joined.thread),
        (How::Attribute, Some(ThreadId(40)))
    );
    named[1].comm = "a-very-long-nam";
    assert_eq!(after(&beats(named), 25, name).claim, Claim::Absent);
}

#[test]
fn a_forged_or_stale_thread_id_is_refused() {
    let mut threads = two();
    threads.push(Beat {
        died: Some(60 * MS),
        ..beat(42, 0, MS, 97 * MS)
    });
    let threads = beats(threads);
    // No such thread; one that is dead; one that was off the CPU.
    for forged in [7_777, 42, 41] {
        let joined = after(&threads, 25, native(forged));
        assert_eq!(
            (joined.thread, joined.claim),
            (None, Claim::Refused),
            "{forged}"
        );
        // It does not stand in the way of what the instants say.
        let joined = after(&threads, 400, native(forged));
        assert_eq!(
            (joined.how, joined.thread),
            (How::Timestamps, Some(ThreadId(40)))
        );
        assert_eq!(joined.claim, Claim::Refused);
    }
}

#[test]
fn claims_that_only_say_where_a_span_started_are_not_believed() {
    let threads = beats(two());
    let mut joiner = Joiner::default();
    for i in 0..100 {
        let whole = beat_span(i);
        // One in ten ends when its thread is off the CPU.
        let end = if i % 10 == 5 {
            whole.end + 20 * MS
        } else {
            whole.end
        };
        let claims = native(40);
        joiner.observe(
            &SpanFacts {
                end,
                claims,
                ..whole
            },
            &threads,
        );
    }
    let claims = native(40);
    let joined = joiner.join(
        &SpanFacts {
            claims,
            ..beat_span(100)
        },
        &threads,
    );
    assert_eq!((joined.thread, joined.claim), (None, Claim::Unproved));
}

#[test]
fn claims_of_a_thread_whose_records_are_lost_are_not_borne_out() {
    let mut threads = two();
    threads[0].lost = true;
    let joined = after(&beats(threads), 400, native(40));
    assert_eq!((joined.thread, joined.claim), (None, Claim::Unproved));
    // Where they were borne out before, a lost record does not contradict one.
    let known = beats(two());
    let mut joiner = Joiner::default();
    for i in 0..25 {
        let claims = native(40);
        joiner.observe(
            &SpanFacts {
                claims,
                ..beat_span(i)
            },
            &known,
        );
    }
    let mut threads = two();
    threads[0].lost = true;
    let asked = SpanFacts {
        claims: native(40),
        ..beat_span(26)
    };
    let joined = joiner.join(&asked, &beats(threads));
    assert_eq!(
        (joined.thread, joined.claim),
        (Some(ThreadId(40)), Claim::Honoured)
    );
}

#[test]
fn the_only_thread_since_birth_is_joined_at_once() {
    let alone = beats(vec![beat(40, 0, MS, 97 * MS)]);
    let joined = Joiner::default().observe(&beat_span(1), &alone);
    assert_eq!(
        (joined.how, joined.thread),
        (How::SingleThread, Some(ThreadId(40)))
    );
    let off_cpu = span(2, 300 * MS, 310 * MS);
    assert_eq!(
        Joiner::default().join(&off_cpu, &alone).why,
        Why::NoCandidate
    );
}

#[test]
fn the_only_thread_is_refused_where_its_clock_is_biased() {
    let alone = beats(vec![beat(40, 0, MS, 97 * MS)]);
    let mut joiner = Joiner::default();
    for i in 0..200 {
        let true_span = beat_span(i);
        let (start, end) = (true_span.start + 7 * MS, true_span.end + 7 * MS);
        joiner.observe(
            &SpanFacts {
                start,
                end,
                ..true_span
            },
            &alone,
        );
    }
    assert_eq!(joiner.join(&beat_span(201), &alone).why, Why::Clock);
}

#[test]
fn a_thread_with_lost_records_stands_in_the_way_unless_it_is_shown_not_to_serve() {
    let known = beats(two());
    let mut joiner = Joiner::default();
    for i in 0..400 {
        joiner.observe(&beat_span(i), &known);
    }
    let asked = beat_span(401);
    let with_lost = |thread: Beat| {
        let mut threads = two();
        threads.retain(|beat| beat.tid != thread.tid);
        threads.push(Beat {
            lost: true,
            ..thread
        });
        joiner.join(&asked, &beats(threads))
    };
    let fresh = Beat {
        born: asked.start - MS,
        ..beat(42, 0, MS, 61 * MS)
    };
    let joined = with_lost(fresh);
    assert_eq!((joined.thread, joined.why), (None, Why::Maybe));
    assert_eq!(with_lost(two()[1].clone()).thread, Some(ThreadId(40)));
    // With all others off the CPU it can be nobody else, though its own records are not complete.
    let joined = with_lost(two()[0].clone());
    assert_eq!((joined.thread, joined.candidates), (Some(ThreadId(40)), 1));
    // With another one there, it is not named.
    let mut threads = two();
    threads[0].lost = true;
    threads.push(Beat {
        born: asked.start - MS,
        ..beat(42, 0, MS, 97 * MS)
    });
    assert_eq!(joiner.join(&asked, &beats(threads)).why, Why::Maybe);
}

#[test]
fn unknown_threads_and_unusable_spans_are_refused() {
    let mut threads = beats(two());
    let mut joiner = Joiner::default();
    for i in 0..400 {
        joiner.observe(&beat_span(i), &threads);
    }
    let good = beat_span(401);
    let backwards = SpanFacts {
        end: good.start - 1,
        ..good
    };
    assert_eq!(joiner.observe(&backwards, &threads).why, Why::Unusable);
    let stepped = SpanFacts {
        clock_stepped: true,
        ..good
    };
    assert_eq!(joiner.join(&stepped, &threads).why, Why::Unusable);
    let nobody = ProcessId {
        tgid: 9,
        start_ns: 1,
    };
    let joined = joiner.join(
        &SpanFacts {
            process: nobody,
            ..good
        },
        &threads,
    );
    assert_eq!((joined.how, joined.why), (How::None, Why::Unobserved));
    threads.complete = false;
    assert_eq!(joiner.join(&good, &threads).why, Why::Incomplete);
}

#[test]
fn hostile_instants_neither_panic_nor_join() {
    let threads = beats(two());
    let mut joiner = Joiner::default();
    let instants = [0, 1, Ns::MAX - 1, Ns::MAX];
    for (i, start) in instants.into_iter().enumerate() {
        for end in instants {
            for error_ns in [0, Ns::MAX] {
                let hostile = SpanFacts {
                    error_ns,
                    grain_ns: 0,
                    ..span(i as u64, start, end)
                };
                assert_eq!(joiner.observe(&hostile, &threads).thread, None);
                assert_eq!(joiner.join(&hostile, &threads).thread, None);
            }
        }
    }
}

#[test]
fn more_kinds_than_are_learned_are_refused_and_the_others_stay() {
    let threads = beats(two());
    let mut joiner = Joiner::default();
    for i in 0..400 {
        joiner.observe(&beat_span(i), &threads);
    }
    for i in 0..3_000 {
        let other = SpanFacts {
            kind: KindId(10 + i),
            ..beat_span(u64::from(i) % 400)
        };
        let why = joiner.observe(&other, &threads).why;
        let expected = if i < 1_023 {
            Why::Learning
        } else {
            Why::TooMany
        };
        assert_eq!(why, expected, "kind {i}");
    }
    assert_eq!(
        joiner.join(&beat_span(401), &threads).thread,
        Some(ThreadId(40))
    );
}

#[test]
fn a_forgotten_process_is_learned_anew() {
    let threads = beats(two());
    let mut joiner = Joiner::default();
    for i in 0..400 {
        joiner.observe(&beat_span(i), &threads);
    }
    joiner.forget(PROCESS);
    assert_eq!(joiner.join(&beat_span(401), &threads).why, Why::Learning);
}

#[test]
fn the_tick_of_a_clock_is_read_off_its_timestamps() {
    assert_eq!(grain_ns(1_234_567_891, 1_234_567_893), 1);
    assert_eq!(grain_ns(1_234_567_000, 1_234_568_000), 1_000);
    assert_eq!(grain_ns(1_234_000_000, 1_235_000_000), MS);
    assert_eq!(grain_ns(0, 0), 10 * MS);
}
