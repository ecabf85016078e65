// SPDX-License-Identifier: Apache-2.0
//! The join's evidence by the peer's port, on hand-made presence: four threads that serve, and a third
//! of the spans with a second candidate among them. Who waited for the connection decides, or must
//! not: a poller, two that woke, a lost record, another connection, a port used again.

use std::num::NonZeroU16;

use lacuna_timeline::ThreadId;
use lacuna_timeline::event::Ns;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::join::Claims;
use lacuna_timeline::join::Heard;
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

const MS: Ns = 1_000_000;
const US: Ns = 1_000;
const PROCESS: ProcessId = ProcessId {
    tgid: 1,
    start_ns: MS,
};
/// Threads 1 to 4 serve; this one may wait for connections.
const POLLER: u64 = 5;
/// Span number `i` begins at `FIRST + i * APART`, and lasts so long.
const FIRST: Ns = 10_000 * MS;
const APART: Ns = 31 * MS;
const LENGTH: Ns = 7 * MS;
/// A thread is on a CPU for so long around an instant that it takes.
const AROUND: Ns = 50 * US;
/// Enough to bear the evidence out.
const MANY: u64 = 6_000;

fn start(i: u64) -> Ns {
    // Not in step with itself, so that chance is small at each trial offset.
    FIRST + i * APART + i * 7_919 % 5_000 * US
}

fn server(i: u64) -> u64 {
    1 + i * 5 % 4
}

/// The second candidate of one span in three.
fn second(i: u64) -> Option<u64> {
    i.is_multiple_of(3).then_some(1 + (i * 5 + 1 + i % 2) % 4)
}

fn port(i: u64) -> u16 {
    40_000 + (i % 50) as u16
}

/// Who waited for the connection of span `i`: when the wait ended, before or after its start.
type Hears = fn(i: u64, thread: u64) -> Option<(i64, bool)>;
/// Who read its request without a wait: when, likewise.
type Takes = fn(i: u64, thread: u64) -> Option<i64>;

struct Pool {
    hears: Hears,
    takes: Takes,
    /// All that was read is known.
    complete: bool,
}

impl Pool {
    fn new(hears: Hears) -> Pool {
        Pool {
            hears,
            takes: |_, _| None,
            complete: true,
        }
    }
}

impl Pool {
    fn near(at: Ns) -> impl Iterator<Item = u64> {
        let i = at.saturating_sub(FIRST) / APART;
        i.saturating_sub(2)..i + 3
    }
}

impl Presence for Pool {
    fn threads(
        &self,
        _: ProcessId,
        from: Ns,
        _: Ns,
        visit: &mut dyn FnMut(&ThreadFacts<'_>),
    ) -> bool {
        for thread in 1..=POLLER {
            visit(&ThreadFacts {
                thread: ThreadId(thread),
                tid: thread as u32,
                ns_tid: thread as u32,
                main: thread == 1,
                fs_base: 0,
                comm: "worker",
                born: MS,
                died: None,
            });
        }
        from > MS
    }

    fn on_cpu(&self, thread: ThreadId, from: Ns, to: Ns) -> OnCpu {
        let mine = |i: &u64| server(*i) == thread.0 || second(*i) == Some(thread.0);
        let touches = |at: Ns| at - AROUND <= to && from <= at + AROUND;
        let on = |i: u64| touches(start(i)) || touches(start(i) + LENGTH);
        match Pool::near(from).filter(mine).any(on) {
            true => OnCpu::Yes,
            false => OnCpu::No,
        }
    }

    fn running(&self, _: ThreadId, from: Ns, to: Ns) -> Running {
        Running {
            on_ns: (to - from) / 100,
            unknown_ns: 0,
        }
    }

    fn stretches(&self, _: ThreadId, _: Ns, _: Ns, _: &mut dyn FnMut(Ns, Ns, OnCpu)) {}

    fn heard(&self, thread: ThreadId, peer_port: u16, from: Ns, to: Ns) -> Heard {
        let mut heard = Heard::No;
        for i in Pool::near(from).chain(Pool::near(to)) {
            let Some((after, proved)) = (self.hears)(i, thread.0) else {
                continue;
            };
            let at = start(i).saturating_add_signed(after);
            if port(i) == peer_port && (from..=to).contains(&at) {
                heard = if proved { Heard::Yes(at) } else { Heard::Maybe };
            }
        }
        heard
    }

    fn takers(
        &self,
        peer_port: u16,
        from: Ns,
        to: Ns,
        visit: &mut dyn FnMut(ThreadId, Ns),
    ) -> bool {
        let mut spans: Vec<u64> = Pool::near(from).chain(Pool::near(to)).collect();
        spans.dedup();
        for i in spans.into_iter().filter(|&i| port(i) == peer_port) {
            for thread in 1..=POLLER {
                let at = (self.takes)(i, thread).map(|after| start(i).saturating_add_signed(after));
                if let Some(at) = at.filter(|at| (from..=to).contains(at)) {
                    visit(ThreadId(thread), at);
                }
            }
        }
        self.complete
    }
}

fn span(i: u64, port: Option<u16>) -> SpanFacts<'static> {
    SpanFacts {
        key: SpanKey { trace: 1, span: i },
        process: PROCESS,
        kind: KindId(1),
        start: start(i),
        end: start(i) + LENGTH,
        error_ns: 0,
        grain_ns: 1,
        place: Place::Root,
        children: &[],
        clock_stepped: false,
        claims: Claims::default(),
        peer_port: port.and_then(NonZeroU16::new),
    }
}

/// After so many spans: what is said of the next one with two candidates, and whose it is.
fn after(count: u64, pool: &Pool) -> (Joined, ThreadId) {
    let mut joiner = Joiner::default();
    for i in 0..count {
        joiner.observe(&span(i, Some(port(i))), pool);
    }
    let asked = count.next_multiple_of(3);
    let joined = joiner.join(&span(asked, Some(port(asked))), pool);
    assert_eq!(joined.candidates, 2, "{joined:?}");
    (joined, ThreadId(server(asked)))
}

fn decides(hears: Hears) {
    decides_in(&Pool::new(hears));
}

fn decides_in(pool: &Pool) {
    let (joined, truth) = after(MANY, pool);
    assert_eq!(joined.thread, Some(truth), "{joined:?}");
    assert!(joined.score >= 0.999_9 && joined.score < 1.0, "{joined:?}");
}

fn leaves_open(hears: Hears) {
    leaves_open_in(&Pool::new(hears));
}

fn leaves_open_in(pool: &Pool) {
    let (joined, _) = after(MANY, pool);
    assert_eq!((joined.thread, joined.why), (None, Why::Ambiguous));
}

const JUST_BEFORE: i64 = -200_000;

/// The thread that serves, just before the span begins.
fn by_server(i: u64, thread: u64) -> Option<(i64, bool)> {
    (thread == server(i)).then_some((JUST_BEFORE, true))
}

#[test]
fn who_waited_for_the_connection_is_named_once_that_was_borne_out() {
    let (joined, _) = after(3_000, &Pool::new(by_server));
    assert_eq!((joined.thread, joined.why), (None, Why::Ambiguous));
    decides(by_server);
}

#[test]
fn it_may_wait_for_the_rest_of_its_request_within_the_span() {
    decides(|i, thread| (thread == server(i)).then_some((3 * MS as i64, true)));
}

#[test]
fn who_waited_last_is_meant_where_the_connection_goes_from_thread_to_thread() {
    decides(|i, thread| {
        let earlier = (thread == POLLER).then_some((-9 * MS as i64, true));
        by_server(i, thread).or(earlier)
    });
}

#[test]
fn nobody_is_named_where_nobody_waited_or_somebody_else_did() {
    leaves_open(|_, _| None);
    // A poller that hands on.
    leaves_open(|_, thread| (thread == POLLER).then_some((JUST_BEFORE, true)));
    // Too early to be of this request.
    leaves_open(|i, thread| (thread == server(i)).then_some((-25 * MS as i64, true)));
    // The second candidate, always.
    leaves_open(|i, thread| (second(i) == Some(thread)).then_some((JUST_BEFORE, true)));
}

/// Whoever heard last is sought near the span first; another one that heard up to 1 ms earlier counts all
/// the same.
#[test]
fn how_long_ago_it_was_makes_no_difference() {
    fn ago<const US: i64>(i: u64, thread: u64) -> Option<(i64, bool)> {
        (thread == server(i)).then_some((-US * 1_000, true))
    }
    fn too<const US: i64>(i: u64, thread: u64) -> Option<(i64, bool)> {
        let too = (thread == POLLER).then_some((-(US + 900) * 1_000, true));
        ago::<US>(i, thread).or(too)
    }
    [
        ago::<100>,
        ago::<900>,
        ago::<1_500>,
        ago::<1_999>,
        ago::<3_000>,
    ]
    .into_iter()
    .for_each(|hears: Hears| decides(hears));
    [
        too::<100>,
        too::<900>,
        too::<1_500>,
        too::<1_999>,
        too::<3_000>,
    ]
    .into_iter()
    .for_each(|hears: Hears| leaves_open(hears));
}

#[test]
fn nobody_is_named_where_two_woke_or_may_have() {
    leaves_open(|i, thread| {
        let too = (thread == POLLER).then_some((JUST_BEFORE - 5_000, true));
        by_server(i, thread).or(too)
    });
    leaves_open(|i, thread| {
        let maybe = (thread == POLLER).then_some((JUST_BEFORE, false));
        by_server(i, thread).or(maybe)
    });
}

/// The thread that serves reads the request just before the span begins.
fn taken_by_server(i: u64, thread: u64) -> Option<i64> {
    (thread == server(i)).then_some(JUST_BEFORE)
}

/// A poller wakes for every request, microseconds before it is read.
fn by_poller(_: u64, thread: u64) -> Option<(i64, bool)> {
    (thread == POLLER).then_some((JUST_BEFORE - 5_000, true))
}

fn taking(hears: Hears, takes: Takes) -> Pool {
    Pool {
        takes,
        ..Pool::new(hears)
    }
}

#[test]
fn who_read_the_request_is_named_whoever_waited_for_it() {
    decides_in(&taking(|_, _| None, taken_by_server));
    decides_in(&taking(by_poller, taken_by_server));
    // Only within the span does it begin to read.
    decides_in(&taking(
        |_, _| None,
        |i, thread| (thread == server(i)).then_some(2 * MS as i64),
    ));
}

#[test]
fn nobody_is_named_where_two_read_or_somebody_waited_later() {
    leaves_open_in(&taking(
        |_, _| None,
        |i, thread| {
            let too = (thread == POLLER).then_some(JUST_BEFORE - 5_000);
            taken_by_server(i, thread).or(too)
        },
    ));
    leaves_open_in(&taking(
        |_, thread| (thread == POLLER).then_some((JUST_BEFORE + 5_000, true)),
        taken_by_server,
    ));
    // What was read may have been forgotten.
    let mut pool = taking(|_, _| None, taken_by_server);
    pool.complete = false;
    leaves_open_in(&pool);
}

#[test]
fn one_contradiction_and_nobody_is_named() {
    leaves_open(|i, thread| match i {
        5_000 => (thread == POLLER).then_some((JUST_BEFORE, true)),
        _ => by_server(i, thread),
    });
}

#[test]
fn a_span_without_a_port_or_with_that_of_another_connection_is_left_open() {
    let pool = Pool::new(by_server);
    let mut joiner = Joiner::default();
    for i in 0..MANY {
        joiner.observe(&span(i, Some(port(i))), &pool);
    }
    for said in [None, Some(0), Some(port(MANY) + 1), Some(80)] {
        let joined = joiner.join(&span(MANY, said), &pool);
        assert_eq!(
            (joined.thread, joined.why),
            (None, Why::Ambiguous),
            "{said:?}"
        );
    }
    let joined = joiner.join(&span(MANY, Some(port(MANY))), &pool);
    assert_eq!(joined.thread, Some(ThreadId(server(MANY))));
}
