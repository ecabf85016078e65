// SPDX-License-Identifier: Apache-2.0
//! Totals over threads: the identities of an account hold for a sum of accounts as well.

use lacuna_timeline::Account;
use lacuna_timeline::Cause;
use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::Recorder;
use lacuna_timeline::ThreadId;
use lacuna_timeline::account::CULPRITS_MAX;
use lacuna_timeline::account::Reason;
use lacuna_timeline::account::Who;
use lacuna_timeline::event::Blame;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Faults;
use lacuna_timeline::event::Off;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::ShortDetours;
use lacuna_timeline::event::Wait;
use lacuna_timeline::event::Waker;

/// A thread that ran for 1,000 ns and then queued behind one other, longer the larger its id.
fn preempted(id: u64) -> Event {
    let queued = 1_000 * id;
    Event::Cycle(Cycle {
        thread: ThreadId(id),
        seq: 1,
        prev_in: Some(1_000),
        off: Off {
            at: 2_000,
            state: OffState::Runnable,
            wait: Wait::default(),
            detours: Vec::new(),
        },
        waking: None,
        waker: Waker::Unknown,
        enqueued: Some(2_000),
        from_idle: false,
        migrated: None,
        throttle: None,
        end: 2_000 + queued,
        cpu: 0,
        blame: Blame {
            culprits: vec![(ThreadId(1_000 + id), queued - 10)],
            rest_ns: 4,
            uncovered_ns: 6,
        },
        stack: None,
        net: false,
        faults: Faults { minor: 2, major: 1 },
        short: ShortDetours::default(),
        detour_seq: 0,
    })
}

/// The sum over so many threads.
fn total(threads: u64) -> Account {
    let mut recorder = Recorder::default();
    let mut total = Account::default();
    for id in 1..=threads {
        recorder.push(preempted(id));
        let life: Ns = 2_000 + 1_000 * id;
        let window = 1_000..life;
        let account = recorder.account(ThreadId(id), std::slice::from_ref(&window));
        total.add(&account);
        total.check().expect("the identities hold");
    }
    total
}

#[test]
fn a_sum_keeps_every_nanosecond() {
    let threads = 30;
    let total = total(threads);
    let queued: Ns = (1..=threads).map(|id| 1_000 * id).sum();
    assert_eq!(total.ns(Cause::RunqPreempted), queued);
    assert_eq!(total.ns(Cause::Cpu), 1_000 * threads);
    assert_eq!(total.wall_ns, queued + 1_000 * threads);
    assert_eq!(total.counts.involuntary, threads);
    assert_eq!(total.counts.faults.minor, 2 * threads as u32);
}

#[test]
fn too_many_culprits_become_the_rest_and_none_is_lost() {
    let total = total(30);
    let share = total.share(Cause::RunqPreempted).expect("they queued");
    let named = share
        .culprits
        .iter()
        .filter(|culprit| matches!(culprit.who, Who::Thread(_)));
    assert_eq!(named.count(), CULPRITS_MAX);
    assert_eq!(share.culprits[0].who, Who::Thread(ThreadId(1_030)));
    let uncovered = share
        .culprits
        .iter()
        .find(|culprit| culprit.who == Who::Uncovered);
    assert_eq!(uncovered.map(|culprit| culprit.ns), Some(6 * 30));
}

#[test]
fn time_that_no_record_can_speak_of_is_added_with_its_reason() {
    let mut account = total(2);
    let explained = account.explained_ns();
    account.add_unknown(500, Reason::Suspended);
    account.add_unknown(0, Reason::NoThread);
    account.check().expect("the identities hold");
    assert_eq!(account.explained_ns(), explained);
    assert_eq!(account.ns(Cause::Unknown), 500);
    let share = account.share(Cause::Unknown).expect("it was added");
    assert_eq!(share.reasons, [(Reason::Suspended, 500)]);
    assert_eq!(share.reason(), Some(Reason::Suspended));
}

#[test]
fn a_violated_identity_is_found() {
    let mut account = total(3);
    account.wall_ns += 1;
    assert!(account.check().is_err());
    let mut account = total(3);
    account.shares[0].runnable_ns -= 1;
    assert!(account.check().is_err());
    let mut account = total(3);
    account.shares[0].culprits[0].ns -= 1;
    assert!(account.check().is_err());
    let mut account = Account::unknown(100, Reason::NoThread);
    account.check().expect("the identities hold");
    account.shares[0].reasons.clear();
    assert!(account.check().is_err());
}

#[test]
fn absurd_lengths_do_not_overflow() {
    let mut account = Account::unknown(Ns::MAX, Reason::NoThread);
    account.add(&Account::unknown(Ns::MAX, Reason::NoThread));
    account.add_unknown(Ns::MAX, Reason::Suspended);
    assert_eq!(account.wall_ns, Ns::MAX);
    let recorder = Recorder::default();
    let window = 0..Ns::MAX;
    let account = recorder.account(ThreadId(1), std::slice::from_ref(&window));
    assert_eq!(account.ns(Cause::Unknown), Ns::MAX);
}
