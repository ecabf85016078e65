// SPDX-License-Identifier: Apache-2.0
//! The clock history on made-up samples, and once on the real clocks (which no test may set).

use super::Change;
use super::ChangeAt;
use super::Clock;
use super::ClockError;
use super::ClockHistory;
use super::ERAS_MAX;
use super::Sample;
use super::monotonic_ns;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

const SECOND: u64 = 1_000_000_000;
const OFFSET: i64 = 1_800_000_000_000_000_000;

/// A sample at so many seconds, with this much more than [`OFFSET`].
fn sample(seconds: u64, more_ns: i64, half_width_ns: u64) -> Sample {
    Sample {
        monotonic_ns: seconds * SECOND,
        offset_ns: OFFSET + more_ns,
        half_width_ns,
        suspended_ns: 0,
    }
}

fn history(samples: &[Sample]) -> ClockHistory {
    let mut history = ClockHistory::new();
    for sample in samples {
        history.push(sample);
    }
    history
}

/// The Unix time of so many seconds on the monotonic clock, under [`OFFSET`] and this much more.
fn unix(seconds: u64, more_ns: i64) -> u64 {
    (seconds * SECOND)
        .checked_add_signed(OFFSET + more_ns)
        .unwrap()
}

#[test]
fn an_empty_history_knows_no_instant() {
    let history = ClockHistory::new();
    assert_eq!(
        history.to_monotonic(unix(5, 0)),
        Err(ClockError::BeforeHistory)
    );
    assert_eq!(history.to_unix(7), 7);
}

#[test]
fn readings_of_one_era_narrow_the_error() {
    let mut history = history(&[sample(1, 40, 100)]);
    assert_eq!(history.error_ns(), 101, "the reading, and one for rounding");
    // True offset in [-60, 140] and [-90, 0]: so in [-60, 0] (each one wider for rounding).
    assert_eq!(history.push(&sample(2, -45, 45)), None);
    assert_eq!(history.error_ns(), 31);
    let instant = history.to_monotonic(unix(2, -30) - SECOND / 2).unwrap();
    assert_eq!(instant.ns, 3 * SECOND / 2);
    assert_eq!(instant.error_ns, 31);
}

#[test]
fn only_sampled_time_is_converted() {
    let history = history(&[sample(10, 0, 50), sample(20, 0, 50)]);
    assert_eq!(history.to_monotonic(unix(10, 0)).unwrap().ns, 10 * SECOND);
    assert_eq!(history.to_monotonic(unix(20, 0)).unwrap().ns, 20 * SECOND);
    assert_eq!(
        history.to_monotonic(unix(9, 0)),
        Err(ClockError::BeforeHistory)
    );
    assert_eq!(history.to_monotonic(unix(21, 0)), Err(ClockError::InFuture));
    assert_eq!(history.to_monotonic(0), Err(ClockError::BeforeHistory));
    assert_eq!(history.to_monotonic(u64::MAX), Err(ClockError::InFuture));
}

#[test]
fn a_step_forwards_leaves_times_that_never_were() {
    let step = 100 * SECOND as i64;
    let mut history = history(&[sample(10, 0, 50), sample(20, 0, 50)]);
    let change = history.push(&sample(21, step, 50)).unwrap();
    assert_eq!(
        (change.after_ns, change.before_ns),
        (20 * SECOND, 21 * SECOND)
    );
    assert_eq!(change.change, Change::Step { ns: step });
    history.push(&sample(30, step, 50));
    assert_eq!(history.to_monotonic(unix(15, 0)).unwrap().ns, 15 * SECOND);
    assert_eq!(
        history.to_monotonic(unix(25, step)).unwrap().ns,
        25 * SECOND
    );
    assert_eq!(history.to_monotonic(unix(60, 0)), Err(ClockError::AtStep));
    assert!(history.straddles_step(15 * SECOND, 25 * SECOND));
    assert!(!history.straddles_step(10 * SECOND, 19 * SECOND));
    assert!(!history.straddles_step(22 * SECOND, 30 * SECOND));
}

#[test]
fn a_step_backwards_makes_times_that_were_twice() {
    let step = -5 * SECOND as i64;
    let history = history(&[
        sample(10, 0, 50),
        sample(20, 0, 50),
        sample(21, step, 50),
        sample(30, step, 50),
    ]);
    // 17 to 20 s under the first offset are 22 to 25 s under the second.
    assert_eq!(history.to_monotonic(unix(18, 0)), Err(ClockError::AtStep));
    assert_eq!(history.to_monotonic(unix(12, 0)).unwrap().ns, 12 * SECOND);
    assert_eq!(
        history.to_monotonic(unix(29, step)).unwrap().ns,
        29 * SECOND
    );
}

#[test]
fn a_time_between_the_samples_around_a_step_is_of_neither() {
    let half = SECOND as i64 / 2;
    for step in [-2 * SECOND as i64, 2 * SECOND as i64] {
        let history = history(&[
            sample(10, 0, 50),
            sample(20, 0, 50),
            sample(21, step, 50),
            sample(30, step, 50),
        ]);
        // 20.5 s under the first offset, should the clock have been set after that; after a step back
        // this is also 22.5 s under the second.
        let before = unix(20, half);
        assert_eq!(history.to_monotonic(before), Err(ClockError::AtStep));
        let after = unix(20, half + step);
        assert_eq!(history.to_monotonic(after), Err(ClockError::AtStep));
    }
}

#[test]
fn a_suspend_is_no_step() {
    let asleep = 3_600 * SECOND;
    let mut after = sample(21, asleep as i64, 50);
    after.suspended_ns = asleep;
    let mut history = history(&[sample(10, 0, 50), sample(20, 0, 50)]);
    let change = history.push(&after).unwrap();
    assert_eq!(change.change, Change::Suspend { ns: asleep });
    assert!(!history.straddles_step(0, 100 * SECOND));
    assert_eq!(history.suspended_ns(), asleep);
    let changes: Vec<ChangeAt> = history.changes(15 * SECOND, 25 * SECOND).collect();
    assert_eq!(changes, [change]);
    assert_eq!(history.changes(22 * SECOND, 25 * SECOND).count(), 0);
}

#[test]
fn a_suspend_in_which_the_clock_was_also_set_is_a_step() {
    let asleep = 3_600 * SECOND;
    let mut after = sample(21, asleep as i64 + SECOND as i64, 50);
    after.suspended_ns = asleep;
    let history = history(&[sample(20, 0, 50), after]);
    assert!(history.straddles_step(20 * SECOND, 21 * SECOND));
}

#[test]
fn what_was_known_before_a_step_is_kept_and_bounded() {
    let mut history = ClockHistory::new();
    for at in 0..=ERAS_MAX as u64 {
        history.push(&sample(10 * at + 1, 1_000_000 * at as i64, 50));
        history.push(&sample(10 * at + 6, 1_000_000 * at as i64, 50));
    }
    assert_eq!(history.forgotten(), 1);
    assert_eq!(
        history.to_monotonic(unix(3, 0)),
        Err(ClockError::BeforeHistory)
    );
    assert_eq!(
        history.to_monotonic(unix(13, 1_000_000)).unwrap().ns,
        13 * SECOND
    );
}

#[test]
fn a_sample_from_the_past_changes_nothing() {
    let mut history = history(&[sample(20, 0, 50)]);
    assert_eq!(history.push(&sample(19, 500_000, 50)), None);
    assert_eq!(history.to_monotonic(unix(20, 0)).unwrap().ns, 20 * SECOND);
}

#[test]
fn times_are_converted_back_by_the_offset_of_their_era() {
    let step = 7 * SECOND as i64;
    let history = history(&[sample(10, 0, 50), sample(20, 0, 50), sample(21, step, 50)]);
    assert_eq!(history.to_unix(15 * SECOND), unix(15, 0));
    assert_eq!(history.to_unix(25 * SECOND), unix(25, step));
    assert_eq!(history.to_unix(SECOND), unix(1, 0));
}

#[test]
fn extreme_samples_do_not_overflow() {
    let extreme = |offset_ns, half_width_ns| Sample {
        monotonic_ns: u64::MAX,
        offset_ns,
        half_width_ns,
        suspended_ns: u64::MAX,
    };
    let unsure = history(&[extreme(0, u64::MAX)]);
    assert!(
        unsure.error_ns() >= i64::MAX as u64,
        "nothing is known of the offset"
    );
    assert_eq!(unsure.to_unix(u64::MAX), u64::MAX);
    let history = history(&[extreme(i64::MIN, 0), extreme(i64::MAX, 0)]);
    assert_eq!(history.to_unix(0), 0);
    assert_eq!(history.to_monotonic(0), Err(ClockError::BeforeHistory));
}

#[test]
fn real_instants_are_found_within_their_error() {
    let clock = Clock::new().unwrap();
    for _ in 0..100 {
        let before = monotonic_ns();
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64;
        let after = monotonic_ns();
        let instant = clock.to_monotonic(unix).unwrap();
        assert!(
            instant.ns + instant.error_ns >= before,
            "{instant:?} not before {before}"
        );
        assert!(
            instant.ns <= after + instant.error_ns,
            "{instant:?} not after {after}"
        );
        assert!(
            instant.error_ns < 100_000,
            "half-width {} ns",
            instant.error_ns
        );
        assert!(clock.to_unix(instant.ns).abs_diff(unix) <= 2 * instant.error_ns);
    }
    let change = clock.wait(Duration::from_millis(1)).unwrap();
    assert_eq!(change, None, "the clock was set while this test ran");
}
