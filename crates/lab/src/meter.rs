// SPDX-License-Identifier: Apache-2.0
//! What a thread reads of itself: clocks, and what the scheduler counted of it. The truth of the lab.
//!
//! Several clocks and files are one reading only if the thread stayed on its CPU while it read them:
//! a switch in between would put a time slice on one side for one of them and on the other side for
//! another. So a reading that a switch tore is taken again, and a span that begins and ends with
//! readings is exactly what they measure.

use anyhow::Result;
use anyhow::bail;
use lacuna_host::Root;
use lacuna_host::thread::SchedStat;
use rustix::thread::gettid;
use rustix::time::ClockId;
use rustix::time::clock_gettime;
use serde::Deserialize;
use serde::Serialize;

/// How often a reading may be torn before that is an error; each takes some ten microseconds.
const ATTEMPTS: u32 = 10_000;

/// What was so at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// `CLOCK_REALTIME`, as a span's own clock.
    pub(crate) unix_ns: u64,
    /// `CLOCK_THREAD_CPUTIME_ID`: how long the thread has been on CPUs. Unlike the first number of
    /// `schedstat` it counts the slice that has just begun.
    pub(crate) on_cpu_ns: u64,
    /// Second number of `schedstat`: how long it has been queued for one.
    pub(crate) queued_ns: u64,
}

/// What lies between two readings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Amounts {
    /// By the clock.
    pub(crate) wall_ns: u64,
    /// On a CPU.
    pub(crate) on_cpu_ns: u64,
    /// Queued for one; a CPU limit's part is in it.
    pub(crate) queued_ns: u64,
}

impl Amounts {
    /// Neither on a CPU nor queued for one.
    pub(crate) fn blocked_ns(&self) -> u64 {
        self.wall_ns.saturating_sub(self.on_cpu_ns + self.queued_ns)
    }
}

impl Reading {
    /// Reads this thread's counters, and `more` at the same instant.
    ///
    /// # Errors
    /// The kernel does not tell, or the thread is switched away each time.
    pub(crate) fn take<T>(more: impl Fn() -> Result<T>) -> Result<(Self, T)> {
        for _ in 0..ATTEMPTS {
            let before = schedstat(std::process::id(), tid())?;
            let unix_ns = ns(ClockId::Realtime);
            let on_cpu_ns = ns(ClockId::ThreadCPUTime);
            let more = more()?;
            let after = schedstat(std::process::id(), tid())?;
            if before.slices == after.slices {
                let reading = Self {
                    unix_ns,
                    on_cpu_ns,
                    queued_ns: after.run_delay_ns,
                };
                return Ok((reading, more));
            }
        }
        bail!("this thread is switched away whenever it reads its counters")
    }

    /// Reads this thread's counters.
    ///
    /// # Errors
    /// As [`Reading::take`].
    pub(crate) fn now() -> Result<Self> {
        Ok(Self::take(|| Ok(()))?.0)
    }

    /// What lies between this reading and a later one of the same thread.
    pub(crate) fn until(&self, later: &Self) -> Amounts {
        Amounts {
            wall_ns: later.unix_ns.saturating_sub(self.unix_ns),
            on_cpu_ns: later.on_cpu_ns.saturating_sub(self.on_cpu_ns),
            queued_ns: later.queued_ns.saturating_sub(self.queued_ns),
        }
    }
}

/// What the scheduler counted of a thread.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn schedstat(tgid: u32, tid: u32) -> Result<SchedStat> {
    let stat = SchedStat::read(&Root::host(), tgid, tid)?;
    if stat.slices == 0 {
        bail!("this kernel has no schedstat");
    }
    Ok(stat)
}

/// The calling thread's id.
pub(crate) fn tid() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

/// Uses a CPU until the calling thread has had that much of it.
pub(crate) fn work(on_cpu_ns: u64) {
    let until = ns(ClockId::ThreadCPUTime) + on_cpu_ns;
    while ns(ClockId::ThreadCPUTime) < until {
        // Long enough that the clock is not what the thread does most.
        for _ in 0..1_000 {
            std::hint::spin_loop();
        }
    }
}

/// `CLOCK_THREAD_CPUTIME_ID`: how long the calling thread has been on CPUs.
pub(crate) fn own_cpu_ns() -> u64 {
    ns(ClockId::ThreadCPUTime)
}

/// `CLOCK_MONOTONIC`: the same in every process of this host.
pub(crate) fn monotonic_ns() -> u64 {
    ns(ClockId::Monotonic)
}

fn ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::Reading;
    use super::work;

    #[test]
    fn the_parts_of_a_thread_are_the_whole() {
        let begin = Reading::now().unwrap();
        work(20_000_000);
        std::thread::sleep(std::time::Duration::from_millis(30));
        let amounts = begin.until(&Reading::now().unwrap());
        assert!(amounts.on_cpu_ns >= 20_000_000, "{amounts:?}");
        assert!(amounts.blocked_ns() >= 29_000_000, "{amounts:?}");
        assert!(
            amounts.on_cpu_ns + amounts.queued_ns <= amounts.wall_ns,
            "{amounts:?}"
        );
    }
}
