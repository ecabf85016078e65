// SPDX-License-Identifier: Apache-2.0
//! From the clock of spans (`CLOCK_REALTIME`) to the clock of the kernel's events
//! (`CLOCK_MONOTONIC`), with a bound on the error.
//!
//! The kernel computes both from one counter: REALTIME is MONOTONIC plus an offset that changes
//! only when somebody *sets* the clock (`settimeofday`, a leap second, a jump by an NTP daemon) or
//! when the host wakes from suspend. Slewing (`adjtime`, NTP frequency) moves both alike. So the
//! offset is piecewise constant, each reading of it is an interval that contains the true value,
//! and the readings of one era may be intersected: an empty intersection proves a step.
//!
//! [`ClockHistory`] is the pure core, fed with [`Sample`]s; [`Clock`] takes the samples. It does not
//! correct clients whose own clocks are biased; it only says what this host's clocks did.

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::ClockId;
use rustix::time::Itimerspec;
use rustix::time::TimerfdClockId;
use rustix::time::TimerfdFlags;
use rustix::time::TimerfdTimerFlags;
use rustix::time::clock_gettime;
use rustix::time::timerfd_create;
use rustix::time::timerfd_settime;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

/// How many eras (stretches with one offset) are remembered; at the limit the oldest goes, and
/// instants in it are [`ClockError::BeforeHistory`]. A host that sets its clock more often than
/// this within the recorder's reach has no usable timestamps anyway.
pub const ERAS_MAX: usize = 64;

/// How often a sample reads the clocks to keep the narrowest reading (a reading costs about
/// 100 ns; the one that was not interrupted has a half-width of some 20 to 50 ns).
const READS_PER_SAMPLE: usize = 9;

/// Both clocks are rounded down to a nanosecond on their own, so their difference may be off by one.
const ROUNDING_NS: u64 = 1;

/// What the suspended time and the step of the offset may differ by and still be one event: the
/// kernel measures a suspend with the battery-backed clock and injects the same length into both,
/// so this only covers the two reading errors.
const SUSPEND_TOLERANCE_NS: u64 = 1_000_000;

/// One reading of the clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// `CLOCK_MONOTONIC` when it was taken.
    pub monotonic_ns: u64,
    /// REALTIME minus MONOTONIC.
    pub offset_ns: i64,
    /// The true offset is within this of `offset_ns`.
    pub half_width_ns: u64,
    /// BOOTTIME minus MONOTONIC: how long the host was suspended since it started, to within
    /// `half_width_ns`.
    pub suspended_ns: u64,
}

/// An instant on `CLOCK_MONOTONIC`, and how far from the truth it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instant {
    /// Nanoseconds on `CLOCK_MONOTONIC`.
    pub ns: u64,
    /// Half-width of the error.
    pub error_ns: u64,
}

/// Why an instant has no place on the monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockError {
    /// It lies before the first sample, or in an era that is forgotten.
    BeforeHistory,
    /// It lies after the newest sample.
    InFuture,
    /// The clock was set or the host suspended around then: no single instant has that time.
    AtStep,
}

impl fmt::Display for ClockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeHistory => "the instant lies before the first reading of the clocks",
            Self::InFuture => "the instant lies in the future",
            Self::AtStep => "the clock was set or the host was suspended around that instant",
        })
    }
}

impl std::error::Error for ClockError {}

/// What ended an era.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The host was suspended for so long; MONOTONIC stood still, REALTIME went on.
    Suspend {
        /// How long.
        ns: u64,
    },
    /// The clock was set by so much (a suspend at the same time is in it, too).
    Step {
        /// By how much REALTIME jumped.
        ns: i64,
    },
}

/// A change of the offset, somewhere between two samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangeAt {
    /// The last sample before it, `CLOCK_MONOTONIC`.
    pub after_ns: u64,
    /// The first sample after it, `CLOCK_MONOTONIC`.
    pub before_ns: u64,
    /// What it was.
    pub change: Change,
}

/// A stretch of the monotonic clock with one offset.
#[derive(Clone, Copy, Debug)]
struct Era {
    /// First and last sample of it, `CLOCK_MONOTONIC`.
    from_ns: u64,
    until_ns: u64,
    /// The true offset lies in here.
    offset_low_ns: i64,
    offset_high_ns: i64,
    suspended_ns: u64,
    /// What began it; `None` for the first.
    began_by: Option<ChangeAt>,
}

impl Era {
    fn start(sample: &Sample, began_by: Option<ChangeAt>) -> Self {
        let (low, high) = bounds(sample);
        Self {
            from_ns: sample.monotonic_ns,
            until_ns: sample.monotonic_ns,
            offset_low_ns: low,
            offset_high_ns: high,
            suspended_ns: sample.suspended_ns,
            began_by,
        }
    }

    fn offset_ns(&self) -> i64 {
        i64::midpoint(self.offset_low_ns, self.offset_high_ns)
    }

    fn error_ns(&self) -> u64 {
        self.offset_high_ns.abs_diff(self.offset_low_ns).div_ceil(2)
    }

    /// Where an instant of REALTIME would lie on MONOTONIC if this era's offset held then.
    fn place_of(&self, unix_ns: u64) -> i128 {
        i128::from(unix_ns) - i128::from(self.offset_ns())
    }
}

fn bounds(sample: &Sample) -> (i64, i64) {
    let half_width = i64::try_from(sample.half_width_ns.saturating_add(ROUNDING_NS));
    let half_width = half_width.unwrap_or(i64::MAX);
    (
        sample.offset_ns.saturating_sub(half_width),
        sample.offset_ns.saturating_add(half_width),
    )
}

/// What the offset was, and when: pure, fed by samples in the order of their instants.
#[derive(Clone, Debug, Default)]
pub struct ClockHistory {
    eras: VecDeque<Era>,
    forgotten: u64,
}

impl ClockHistory {
    /// A history that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a sample in; says so if the offset had changed since the last. A sample that is older
    /// than the last is ignored.
    pub fn push(&mut self, sample: &Sample) -> Option<ChangeAt> {
        let Some(era) = self.eras.back_mut() else {
            self.eras.push_back(Era::start(sample, None));
            return None;
        };
        if sample.monotonic_ns < era.until_ns {
            return None;
        }
        let (low, high) = bounds(sample);
        let (low, high) = (low.max(era.offset_low_ns), high.min(era.offset_high_ns));
        if low <= high {
            era.until_ns = sample.monotonic_ns;
            era.offset_low_ns = low;
            era.offset_high_ns = high;
            return None;
        }
        let change = ChangeAt {
            after_ns: era.until_ns,
            before_ns: sample.monotonic_ns,
            change: what_changed(era, sample),
        };
        if self.eras.len() == ERAS_MAX {
            self.eras.pop_front();
            self.forgotten += 1;
        }
        self.eras.push_back(Era::start(sample, Some(change)));
        Some(change)
    }

    /// Where an instant of the past lies on the monotonic clock, by the offset that held then.
    ///
    /// # Errors
    /// [`ClockError`] says why there is no such place.
    pub fn to_monotonic(&self, unix_ns: u64) -> Result<Instant, ClockError> {
        let (Some(oldest), Some(newest)) = (self.eras.front(), self.eras.back()) else {
            return Err(ClockError::BeforeHistory);
        };
        // Each era claims the instants of REALTIME between its samples, and may have had those up to its
        // neighbours' samples: somewhere there the clock was set. After a step backwards two claim the
        // same instant, after one forwards nobody does; neither can be answered.
        let mut claims = self.eras.iter().enumerate().filter_map(|(at, era)| {
            let ns = era.place_of(unix_ns);
            let slack = i128::from(era.error_ns());
            let between = |from: u64, until: u64| {
                i128::from(from) - slack <= ns && ns <= i128::from(until) + slack
            };
            let before = at.checked_sub(1).and_then(|at| self.eras.get(at));
            let after = self.eras.get(at + 1);
            let possible = between(
                before.map_or(era.from_ns, |era| era.until_ns),
                after.map_or(era.until_ns, |era| era.from_ns),
            );
            let certain = between(era.from_ns, era.until_ns);
            let instant = certain.then_some(Instant {
                ns: u64::try_from(ns).ok()?,
                error_ns: era.error_ns(),
            });
            possible.then_some(instant)
        });
        match (claims.next(), claims.next()) {
            (Some(Some(instant)), None) => Ok(instant),
            (Some(_), _) => Err(ClockError::AtStep),
            _ if newest.place_of(unix_ns) > i128::from(newest.until_ns) => {
                Err(ClockError::InFuture)
            }
            _ if oldest.place_of(unix_ns) < i128::from(oldest.from_ns) => {
                Err(ClockError::BeforeHistory)
            }
            _ => Err(ClockError::AtStep),
        }
    }

    /// The Unix time of a monotonic instant; before the first and after the newest sample by the
    /// nearest offset known, between two eras by the earlier one.
    pub fn to_unix(&self, monotonic_ns: u64) -> u64 {
        let era = self
            .eras
            .iter()
            .rev()
            .find(|era| era.from_ns <= monotonic_ns);
        let offset = era.or(self.eras.front()).map_or(0, Era::offset_ns);
        monotonic_ns.saturating_add_signed(offset)
    }

    /// The changes of the offset that may lie in a stretch of the monotonic clock, in time order.
    pub fn changes(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = ChangeAt> + '_ {
        self.eras
            .iter()
            .filter_map(|era| era.began_by)
            .filter(move |change| change.after_ns <= to_ns && change.before_ns >= from_ns)
    }

    /// Whether the clock was *set* (not merely suspended) in a stretch of the monotonic clock:
    /// spans across it are never joined (rule 14).
    pub fn straddles_step(&self, from_ns: u64, to_ns: u64) -> bool {
        self.changes(from_ns, to_ns)
            .any(|change| matches!(change.change, Change::Step { .. }))
    }

    /// How long the host has been suspended since it started, by the newest sample.
    pub fn suspended_ns(&self) -> u64 {
        self.eras.back().map_or(0, |era| era.suspended_ns)
    }

    /// Half-width of the error of the newest offset.
    pub fn error_ns(&self) -> u64 {
        self.eras.back().map_or(0, Era::error_ns)
    }

    /// Eras that were dropped at [`ERAS_MAX`].
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// A step of the offset that BOOTTIME took part in is a suspend, any other a setting of the clock.
fn what_changed(era: &Era, sample: &Sample) -> Change {
    let step = sample.offset_ns.saturating_sub(era.offset_ns());
    let suspended = sample.suspended_ns.saturating_sub(era.suspended_ns);
    if step > 0 && suspended.abs_diff(step.unsigned_abs()) <= SUSPEND_TOLERANCE_NS {
        return Change::Suspend { ns: suspended };
    }
    Change::Step { ns: step }
}

/// The history of this host's clocks, kept up to date by [`Clock::wait`] on a thread of its own.
#[derive(Debug)]
pub struct Clock {
    history: Mutex<ClockHistory>,
    /// A timer that never expires; it becomes readable with `ECANCELED` when the clock is set.
    canceled_on_set: OwnedFd,
}

impl Clock {
    /// Takes the first sample.
    ///
    /// # Errors
    /// The timer could not be made (descriptors used up).
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let clock = Self {
            history: Mutex::new(ClockHistory::new()),
            canceled_on_set: timerfd_create(TimerfdClockId::Realtime, flags)?,
        };
        clock.arm()?;
        clock.sample();
        Ok(clock)
    }

    /// Sleeps for `timeout`, or until somebody sets the clock, and takes a sample. Once a second is
    /// enough: a step wakes this at once.
    ///
    /// # Errors
    /// The timer could not be waited for; the sample is taken all the same.
    pub fn wait(&self, timeout: Duration) -> io::Result<Option<ChangeAt>> {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.canceled_on_set, PollFlags::IN)];
        let polled = match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => self.rearm_if_canceled(),
            Err(error) => Err(error.into()),
        };
        let change = self.sample();
        polled.map(|()| change)
    }

    /// Takes a sample now.
    pub fn sample(&self) -> Option<ChangeAt> {
        self.locked().push(&read_clocks())
    }

    /// [`ClockHistory::to_monotonic`]; an instant after the newest sample makes it take another.
    ///
    /// # Errors
    /// [`ClockError`] says why there is no such place.
    pub fn to_monotonic(&self, unix_ns: u64) -> Result<Instant, ClockError> {
        let mut history = self.locked();
        match history.to_monotonic(unix_ns) {
            Err(ClockError::InFuture) => {
                history.push(&read_clocks());
                history.to_monotonic(unix_ns)
            }
            known => known,
        }
    }

    /// [`ClockHistory::to_unix`].
    pub fn to_unix(&self, monotonic_ns: u64) -> u64 {
        self.locked().to_unix(monotonic_ns)
    }

    /// A copy of the history as it is now. Not a guard: two of those in one statement would wait for
    /// each other for ever.
    pub fn history(&self) -> ClockHistory {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, ClockHistory> {
        // A history is consistent between any two statements, so a panic elsewhere spoils nothing.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arm(&self) -> io::Result<()> {
        let never = Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        };
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        let timer = Itimerspec {
            it_interval: zero,
            it_value: never,
        };
        timerfd_settime(&self.canceled_on_set, flags, &timer)?;
        Ok(())
    }

    fn rearm_if_canceled(&self) -> io::Result<()> {
        let mut expirations = [0; 8];
        match rustix::io::read(&self.canceled_on_set, &mut expirations) {
            Err(Errno::AGAIN) => Ok(()),
            Err(Errno::CANCELED) => self.arm(),
            Err(error) => Err(error.into()),
            Ok(_) => self.arm(),
        }
    }
}

/// `CLOCK_MONOTONIC`, now.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

pub(crate) fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// Reads REALTIME and BOOTTIME between two readings of MONOTONIC, and keeps the narrowest such
/// sandwich: the true offset cannot lie outside it.
fn read_clocks() -> Sample {
    let readings = (0..READS_PER_SAMPLE).map(|_| {
        let before = monotonic_ns();
        let realtime = nanoseconds(ClockId::Realtime);
        let boottime = nanoseconds(ClockId::Boottime);
        let after = monotonic_ns();
        let half_width_ns = (after.saturating_sub(before)).div_ceil(2);
        let monotonic_ns = before + half_width_ns;
        Sample {
            monotonic_ns,
            offset_ns: i64::try_from(i128::from(realtime) - i128::from(monotonic_ns)).unwrap_or(0),
            half_width_ns,
            suspended_ns: boottime.saturating_sub(monotonic_ns),
        }
    });
    let narrowest = readings.min_by_key(|sample| sample.half_width_ns);
    // The range above is never empty; one reading is as good an answer as any.
    narrowest.unwrap_or(Sample {
        monotonic_ns: 0,
        offset_ns: 0,
        half_width_ns: u64::MAX,
        suspended_ns: 0,
    })
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
