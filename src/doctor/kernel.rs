// SPDX-License-Identifier: Apache-2.0
//! What older kernels cannot do, as the probes themselves find it: by what is there, never by version.
//!
//! None of it costs a cause. What becomes weaker is said in the words of an answer.

use lacuna_probes::KernelFacts;
use lacuna_probes::LimitClock;

use super::Check;

/// Every check of this kind; none where the kernel could not be asked, which another check says.
pub(super) fn checks(facts: &Result<KernelFacts, String>) -> Vec<Check> {
    let Ok(facts) = facts else {
        return Vec::new();
    };
    vec![threads(facts), limits(facts), wakers(facts), drops(facts)]
}

/// Where what is known of a thread is kept.
fn threads(facts: &KernelFacts) -> Check {
    const NAME: &str = "threads";
    match facts.threads_max {
        None => Check::ok(NAME, "each keeps its own state, however many there are"),
        Some(max) => Check::degraded(
            NAME,
            format!(
                "this kernel keeps nothing with a thread for tracing programs: at most {max} \
                 threads at once can be known, and the time of any beyond that is unknown"
            ),
            "boot a kernel of 5.12 or later, if this host has that many threads",
        ),
    }
}

/// How a CPU limit is measured.
fn limits(facts: &KernelFacts) -> Check {
    const NAME: &str = "CPU limits";
    match facts.limits {
        LimitClock::Task => Check::ok(
            NAME,
            "the kernel marks each thread that one takes off a CPU",
        ),
        LimitClock::Queue => Check::ok(
            NAME,
            "how long one denied the CPU is exact; where within a wait is not, if it struck after \
             the wait began (before 6.18)",
        ),
        LimitClock::Estimated => Check::degraded(
            NAME,
            "how long one denied the CPU is estimated from the queue's load clock, and where within \
             a wait is not known; such parts are marked",
            "boot a kernel of 6.6 or later",
        ),
        LimitClock::NoLimits => Check::ok(NAME, "this kernel has none"),
    }
}

/// Whether what this host drops is known where it happens.
fn drops(facts: &KernelFacts) -> Check {
    const NAME: &str = "dropped packets";
    if facts.drop_reasons {
        return Check::ok(NAME, "this kernel says why it drops one");
    }
    Check::degraded(
        NAME,
        "this kernel does not say why it drops one: that this host itself dropped what a connection \
         sends is known from what the connection tried, where a thread polls to a tick, and not by whom",
        "boot a kernel of 5.17 or later",
    )
}

/// Whether a wake-up can be put down to a thread.
fn wakers(facts: &KernelFacts) -> Check {
    const NAME: &str = "wakers";
    if facts.wakers {
        return Check::ok(
            NAME,
            "a thread that wakes another is told from an interrupt",
        );
    }
    Check::degraded(
        NAME,
        "where this kernel counts interrupts is not known, so no thread is named as a waker: waits \
         for another thread have no culprit",
        "use a kernel whose BTF has per-CPU variables, or let /proc/kallsyms be read (CAP_SYSLOG, \
         kernel.kptr_restrict at 0 or 1)",
    )
}
