// SPDX-License-Identifier: Apache-2.0
//! Counters of threads over a window through `perf_event_open`: what `perf stat -p` shows.
//!
//! Counting begins when they are opened and ends when they are dropped; no sample is taken, no buffer
//! is mapped. Counting in the kernel (a context switch is nowhere else) needs CAP_PERFMON, or
//! `kernel.perf_event_paranoid` of at most 1; counting user mode alone would tell of no switch and of
//! half the faults, so that is not done. Each counter is a descriptor: [`THREADS_MAX`] bounds them.

use perf_event::Builder;
use perf_event::Counter;
use perf_event::events::Event;
use perf_event::events::Hardware;
use perf_event::events::Software;
use std::io;

/// The most threads that are counted at once: six descriptors each, well below the usual limit of
/// 1,024 for a process.
pub const THREADS_MAX: usize = 64;

/// What was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PerfCounts {
    /// Context switches, voluntary or not.
    pub context_switches: u64,
    /// Moves to another CPU.
    pub migrations: u64,
    /// Page faults that needed no reading from storage.
    pub minor_faults: u64,
    /// Those that did.
    pub major_faults: u64,
    /// Cycles of the CPU; `None` where it has no such counter, as in most virtual machines.
    pub cycles: Option<u64>,
    /// Instructions that were finished.
    pub instructions: Option<u64>,
}

/// The counters of one thread.
struct Thread {
    software: [Counter; 4],
    hardware: Option<[Counter; 2]>,
}

/// Counters of several threads.
pub struct PerfCounters {
    threads: Vec<Thread>,
    no_hardware: Option<io::Error>,
}

impl std::fmt::Debug for PerfCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PerfCounters of {} threads", self.threads.len())
    }
}

impl PerfCounters {
    /// Counts these threads from now on, at most [`THREADS_MAX`] of them. One that has ended counts
    /// nothing.
    ///
    /// # Errors
    /// It is not allowed (`kernel.perf_event_paranoid`), or the kernel cannot.
    pub fn open(tids: &[u32]) -> io::Result<Self> {
        let mut threads = Vec::new();
        let mut no_hardware = None;
        for &tid in tids.iter().take(THREADS_MAX) {
            // What the first has not, the others have not either: they are not asked.
            match Thread::open(tid, &mut no_hardware) {
                Ok(thread) => threads.push(thread),
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            threads,
            no_hardware,
        })
    }

    /// How many threads are counted.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Why cycles and instructions are not counted, where they are not.
    pub fn no_hardware(&self) -> Option<&io::Error> {
        self.no_hardware.as_ref()
    }

    /// What was counted since they were opened.
    ///
    /// # Errors
    /// A counter could not be read.
    pub fn read(&mut self) -> io::Result<PerfCounts> {
        let mut sum = PerfCounts::default();
        for thread in &mut self.threads {
            let [switches, migrations, minor, major] = &mut thread.software;
            sum.context_switches += switches.read()?;
            sum.migrations += migrations.read()?;
            sum.minor_faults += minor.read()?;
            sum.major_faults += major.read()?;
            if let Some([cycles, instructions]) = &mut thread.hardware {
                sum.cycles = Some(sum.cycles.unwrap_or(0).wrapping_add(cycles.read()?));
                let so_far = sum.instructions.unwrap_or(0);
                sum.instructions = Some(so_far.wrapping_add(instructions.read()?));
            }
        }
        Ok(sum)
    }
}

impl Thread {
    fn open(tid: u32, no_hardware: &mut Option<io::Error>) -> io::Result<Self> {
        let hardware = || -> io::Result<[Counter; 2]> {
            Ok([
                count(Hardware::CPU_CYCLES, tid)?,
                count(Hardware::INSTRUCTIONS, tid)?,
            ])
        };
        let software = [
            count(Software::CONTEXT_SWITCHES, tid)?,
            count(Software::CPU_MIGRATIONS, tid)?,
            count(Software::PAGE_FAULTS_MIN, tid)?,
            count(Software::PAGE_FAULTS_MAJ, tid)?,
        ];
        let hardware = match no_hardware {
            Some(_) => None,
            None => hardware().map_err(|error| *no_hardware = Some(error)).ok(),
        };
        Ok(Self { software, hardware })
    }
}

/// Counts one event of one thread on whichever CPU, kernel included, from now on.
fn count(event: impl Event, tid: u32) -> io::Result<Counter> {
    let tid = i32::try_from(tid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    Builder::new(event)
        .observe_pid(tid)
        .any_cpu()
        .include_kernel()
        .include_hv()
        .enabled(true)
        .build()
}

#[cfg(test)]
mod tests {
    use super::PerfCounters;
    use crate::counters::Switches;
    use crate::counters::grown;
    use crate::root::Root;

    #[test]
    fn root_switches_are_counted_as_the_kernel_counts_them() {
        let tid = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        let read = || Switches::read(&Root::host(), std::process::id(), tid).unwrap();
        let mut counters = PerfCounters::open(&[tid, u32::MAX >> 1]).unwrap();
        assert_eq!(counters.threads(), 1, "nobody is no thread");
        let cycles = counters.read().unwrap().cycles;
        assert_ne!(
            cycles.is_some(),
            counters.no_hardware().is_some(),
            "counted, or why not"
        );
        let before = read();
        let inner = counters.read().unwrap().context_switches;
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        let counted = counters.read().unwrap().context_switches - inner;
        let after = read();
        let told = grown(before.voluntary, after.voluntary).unwrap()
            + grown(before.involuntary, after.involuntary).unwrap();
        assert!(counted >= 20 && counted <= told, "{counted} of {told}");
    }

    #[test]
    fn faults_are_told_or_it_is_refused() {
        let tid = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        match PerfCounters::open(&[tid]) {
            Ok(mut counters) => {
                let pages = vec![1_u8; 4 << 20];
                assert!(counters.read().unwrap().minor_faults > 0);
                assert_eq!(pages.last(), Some(&1));
            }
            Err(error) => {
                let refused = [Some(libc::EACCES), Some(libc::EPERM)];
                assert!(refused.contains(&error.raw_os_error()), "{error}");
            }
        }
    }
}
