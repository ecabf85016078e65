// SPDX-License-Identifier: Apache-2.0
//! Do the numbers of an answer add up? The identities of the contract, each in one place.
//!
//! A [`Violation`] is a bug of this program and never a fact about the observed one: the agent
//! counts them in a metric that must stay 0, and tests fail on the first. Nothing is repaired here.

use std::fmt;

use lacuna_timeline::Cause;

use super::CauseAnswer;
use super::RunReport;
use super::SpanAnswer;
use super::Status;
use super::ThreadReport;

/// Two numbers of an answer that had to be equal and are not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    /// Which identity, of what.
    pub(crate) what: String,
    /// The number that it had to be, nanoseconds.
    pub(crate) whole_ns: u128,
    /// The number that it was, nanoseconds.
    pub(crate) parts_ns: u128,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} ns are {} ns",
            self.what, self.parts_ns, self.whole_ns
        )
    }
}

impl std::error::Error for Violation {}

/// The four parts of a gap, no nanosecond twice: they add up to the sum of the causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct GapSums {
    /// Everything but the following.
    pub(crate) explained_ns: u64,
    /// `unknown`, whatever the reason.
    pub(crate) unknown_ns: u64,
    /// `wait.other`, estimated or not.
    pub(crate) other_ns: u64,
    /// The estimated parts of every other cause.
    pub(crate) estimated_ns: u64,
}

impl GapSums {
    /// Sorts the causes of a gap. An estimated part larger than its cause counts as that cause.
    pub(crate) fn of(causes: &[CauseAnswer]) -> GapSums {
        let mut sums = GapSums::default();
        for cause in causes {
            let estimated_ns = match cause.cause {
                Cause::Unknown | Cause::WaitOther => 0,
                _ => cause.estimated_ns.min(cause.ns),
            };
            let rest = match cause.cause {
                Cause::Unknown => &mut sums.unknown_ns,
                Cause::WaitOther => &mut sums.other_ns,
                _ => &mut sums.explained_ns,
            };
            *rest = rest.saturating_add(cause.ns - estimated_ns);
            sums.estimated_ns = sums.estimated_ns.saturating_add(estimated_ns);
        }
        sums
    }
}

impl RunReport {
    /// Every thread adds up to its wall time, and the threads to the total.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        for thread in &self.threads {
            thread.check()?;
        }
        let threads_ns = self
            .threads
            .iter()
            .map(|thread| u128::from(thread.wall_ns))
            .sum();
        let total_ns = u128::from(self.total.wall_ns);
        equal(total_ns, threads_ns, || {
            "wall time of the threads".to_owned()
        })?;
        causes_add_up(&self.total.causes, self.total.wall_ns, || {
            "total".to_owned()
        })
    }
}

impl ThreadReport {
    /// Its causes add up to its wall time.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        causes_add_up(&self.causes, self.wall_ns, || {
            format!("thread {}", self.tid)
        })
    }
}

impl SpanAnswer {
    /// Causes, gap and the four parts of the gap agree; a pending span has no causes yet.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        let head = &self.head;
        if head.status == Status::Pending {
            let causes_ns = sum(&self.causes) + sum(&self.span_causes);
            return equal(0, causes_ns, || format!("pending span {}", head.span_id));
        }
        causes_add_up(&self.causes, head.gap_ns, || {
            format!("gap of span {}", head.span_id)
        })?;
        causes_add_up(&self.span_causes, head.wall_ns, || {
            format!("span {}", head.span_id)
        })?;
        let sums = GapSums::of(&self.causes);
        for (name, stated_ns, summed_ns) in [
            ("explained_ns", head.explained_ns, sums.explained_ns),
            ("other_ns", head.other_ns, sums.other_ns),
            ("estimated_ns", head.estimated_ns, sums.estimated_ns),
        ] {
            let what = || format!("{name} of span {}", head.span_id);
            equal(stated_ns.into(), summed_ns.into(), what)?;
        }
        Ok(())
    }
}

/// The causes add up to `whole_ns`, and each of them is consistent in itself.
pub(super) fn causes_add_up(
    causes: &[CauseAnswer],
    whole_ns: u64,
    of: impl Fn() -> String,
) -> Result<(), Violation> {
    equal(whole_ns.into(), sum(causes), || {
        format!("causes of {}", of())
    })?;
    for cause in causes {
        cause_is_consistent(cause, &of)?;
    }
    Ok(())
}

/// States add up except for `unknown`; the blame for a wait for a CPU adds up; no estimate is
/// larger than what it is a part of.
fn cause_is_consistent(cause: &CauseAnswer, of: &impl Fn() -> String) -> Result<(), Violation> {
    let name = cause.cause.name();
    let ns = u128::from(cause.ns);
    if cause.cause != Cause::Unknown {
        let state = cause.state;
        let states_ns = [state.running_ns, state.runnable_ns, state.blocked_ns];
        let states_ns = states_ns.into_iter().map(u128::from).sum();
        equal(ns, states_ns, || format!("states of {name} of {}", of()))?;
    }
    if cause.cause.is_runq() {
        let blamed_ns = cause
            .culprits
            .iter()
            .map(|culprit| u128::from(culprit.ns))
            .sum();
        equal(ns, blamed_ns, || format!("culprits of {name} of {}", of()))?;
    }
    let estimated_ns = u128::from(cause.estimated_ns);
    equal(estimated_ns.min(ns), estimated_ns, || {
        format!("estimate in {name} of {}", of())
    })
}

/// Wide, because thread-nanoseconds of a hostile answer may overflow 64 bits.
fn sum(causes: &[CauseAnswer]) -> u128 {
    causes.iter().map(|cause| u128::from(cause.ns)).sum()
}

pub(super) fn equal(
    whole_ns: u128,
    parts_ns: u128,
    what: impl Fn() -> String,
) -> Result<(), Violation> {
    if whole_ns == parts_ns {
        return Ok(());
    }
    Err(Violation {
        what: what(),
        whole_ns,
        parts_ns,
    })
}
