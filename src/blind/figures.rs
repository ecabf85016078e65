// SPDX-License-Identifier: Apache-2.0
//! Bursts in, the figures of a run out. Pure.

use crate::answer::Figure;

/// One burst of work as it was measured, `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Burst {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// By the thread's own CPU clock.
    pub(crate) on_cpu_ns: u64,
}

impl Burst {
    /// From start to end: what a span around it would record.
    pub(crate) fn wall_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// `START END ON-CPU`
    pub(super) fn to_line(self) -> String {
        format!("{} {} {}", self.start_ns, self.end_ns, self.on_cpu_ns)
    }

    /// Back from such a line.
    pub(super) fn from_line(line: &str) -> Option<Burst> {
        let mut numbers = line.split(' ').map(|word| word.parse().ok());
        let burst = Burst {
            start_ns: numbers.next()??,
            end_ns: numbers.next()??,
            on_cpu_ns: numbers.next()??,
        };
        let whole = numbers.next().is_none() && burst.start_ns <= burst.end_ns;
        whole.then_some(burst)
    }
}

/// The wall time of a burst by what became of it. `on_cpu_ns` and `gap_ns` are all of it, and the gap is
/// what the switch records have off the CPU, `unknown_ns` and `cpu_ns`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Parts {
    pub(super) on_cpu_ns: u64,
    pub(super) gap_ns: u64,
    /// How much more the CPU clock said than `on_cpu_ns`.
    pub(super) clock_excess_ns: u64,
    /// The part of the gap that may lie in time of which the records say nothing.
    pub(super) unknown_ns: u64,
    /// The part of the gap in which the thread was on a CPU by the records and not by its clock:
    /// interrupts, the hypervisor, switching itself.
    pub(super) cpu_ns: u64,
}

impl Parts {
    /// Without records: what the CPU clock says.
    pub(super) fn by_clock(burst: &Burst) -> Parts {
        Parts::of(burst, 0, 0)
    }

    /// With records, which have the thread off the CPU for `off_cpu_ns` and say nothing of `unknown_ns`.
    ///
    /// Records and CPU clock are stamped at different points of a switch, so that the clock may say a
    /// little more than the records leave. A thread that is proved to be off the CPU did not run then:
    /// the records win, and by how much is kept.
    pub(super) fn of(burst: &Burst, off_cpu_ns: u64, unknown_ns: u64) -> Parts {
        let wall_ns = burst.wall_ns();
        let by_clock_ns = burst.on_cpu_ns.min(wall_ns);
        let gap_ns = (wall_ns - by_clock_ns).max(off_cpu_ns.min(wall_ns));
        let on_cpu_ns = wall_ns - gap_ns;
        let rest_ns = gap_ns.saturating_sub(off_cpu_ns);
        let unknown_ns = unknown_ns.min(rest_ns);
        Parts {
            on_cpu_ns,
            gap_ns,
            clock_excess_ns: burst.on_cpu_ns.saturating_sub(on_cpu_ns),
            unknown_ns,
            cpu_ns: rest_ns - unknown_ns,
        }
    }
}

/// Median and 99th percentile.
pub(super) fn figure(values: impl Iterator<Item = u64>) -> Figure {
    let mut sorted: Vec<u64> = values.collect();
    sorted.sort_unstable();
    Figure {
        p50: percentile(&sorted, 50),
        p99: percentile(&sorted, 99),
    }
}

/// The median.
pub(super) fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    percentile(values, 50)
}

/// By nearest rank: the smallest value that at least so many percent do not exceed. It is always one that
/// was measured; of fewer than 100 the 99th is the largest. 0 of nothing.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Burst;
    use super::Parts;
    use super::figure;
    use super::median;

    #[test]
    fn percentiles_are_measured_values_by_nearest_rank() {
        for (count, p50, p99) in [
            (1, 1, 1),
            (2, 1, 2),
            (3, 2, 3),
            (50, 25, 50),
            (100, 50, 99),
            (1_000, 500, 990),
        ] {
            let figure = figure((1..=count).rev());
            assert_eq!((figure.p50, figure.p99), (p50, p99), "of {count}");
        }
        let nothing = figure(std::iter::empty());
        assert_eq!((nothing.p50, nothing.p99), (0, 0));
        assert_eq!(median(&mut [9, 1, 5]), 5);
        assert_eq!(figure([u64::MAX, 0].into_iter()).p99, u64::MAX);
    }

    fn parts(on_cpu_ns: u64, off_cpu_ns: u64, unknown_ns: u64) -> [u64; 5] {
        let burst = Burst {
            start_ns: 100,
            end_ns: 250,
            on_cpu_ns,
        };
        let parts = Parts::of(&burst, off_cpu_ns, unknown_ns);
        assert_eq!(parts.on_cpu_ns + parts.gap_ns, burst.wall_ns());
        assert_eq!(
            off_cpu_ns.min(150) + parts.unknown_ns + parts.cpu_ns,
            parts.gap_ns
        );
        assert_eq!(parts.on_cpu_ns + parts.clock_excess_ns, on_cpu_ns);
        [
            parts.on_cpu_ns,
            parts.gap_ns,
            parts.clock_excess_ns,
            parts.unknown_ns,
            parts.cpu_ns,
        ]
    }

    #[test]
    fn the_gap_is_wall_time_that_no_cpu_had() {
        let burst = Burst {
            start_ns: 100,
            end_ns: 250,
            on_cpu_ns: 100,
        };
        let alone = Parts::by_clock(&burst);
        assert_eq!(
            (alone.on_cpu_ns, alone.gap_ns, alone.clock_excess_ns),
            (100, 50, 0)
        );
        // Two clocks may differ by their grain; a gap is never less than nothing.
        assert_eq!(parts(151, 0, 0), [150, 0, 1, 0, 0]);
    }

    #[test]
    fn what_the_records_prove_is_the_gap_and_the_rest_was_on_a_cpu() {
        assert_eq!(parts(100, 50, 0), [100, 50, 0, 0, 0]);
        assert_eq!(parts(100, 47, 0), [100, 50, 0, 0, 3], "interrupts, say");
        assert_eq!(parts(100, 53, 0), [97, 53, 3, 0, 0], "the records win");
        assert_eq!(parts(100, 150, 0), [0, 150, 100, 0, 0]);
    }

    #[test]
    fn of_unknown_time_only_what_the_clock_leaves_is_in_the_gap() {
        assert_eq!(
            parts(100, 20, 80),
            [100, 50, 0, 30, 0],
            "it ran for 50 of these 80"
        );
        assert_eq!(parts(100, 20, 10), [100, 50, 0, 10, 20]);
        assert_eq!(parts(100, 60, 40), [90, 60, 10, 0, 0]);
    }

    #[test]
    fn bursts_survive_their_line_and_nonsense_does_not() {
        let burst = Burst {
            start_ns: 7,
            end_ns: u64::MAX,
            on_cpu_ns: 0,
        };
        assert_eq!(Burst::from_line(&burst.to_line()), Some(burst));
        for line in [
            "", "ready", "1 2", "1 2 3 4", "2 1 0", "1 2 -3", "1  2 3", "1 2 x",
        ] {
            assert_eq!(Burst::from_line(line), None, "{line:?}");
        }
    }
}
