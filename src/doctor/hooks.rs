// SPDX-License-Identifier: Apache-2.0
//! What each hook is for: which causes go with it where the kernel has it not.
//!
//! The probes try each of their programs for real; this only says what the outcome costs. Where the
//! kernel lacks a tracepoint, the probes do without it and only its causes are lost. Where it has
//! the tracepoint and refuses the program, they do not load at all: they load together or not.

use lacuna_probes::HookReport;
use lacuna_timeline::Cause;

use super::Check;
use super::every_cause;

/// The longest text of a refusal that is passed on, bytes: a verifier's log can be megabytes, and
/// what it says last is the reason.
const REASON_BYTES_MAX: usize = 1_000;

/// What libbpf says of a tracepoint that the kernel's type information does not know.
const ABSENT: &str = "failed to find kernel BTF type ID";

/// What the kernel says where a capability is missing or lockdown forbids it.
const NOT_PERMITTED: &str = "Operation not permitted";

/// Causes that the arriving segments of a connection tell apart.
const NET_BY_SEGMENT: [Cause; 4] = [
    Cause::NetRetransmit,
    Cause::NetNagle,
    Cause::NetAck,
    Cause::NetPeer,
];

/// What a hook is for.
enum Use {
    /// Without it no stretch of time can be told.
    Everything,
    /// These causes come from it.
    Causes(&'static [Cause]),
    /// Only this gets weaker.
    Detail(&'static str),
}

/// By the name of the tracepoint or iterator, which is what comes after the last `/`.
fn used_for(hook: &str) -> Use {
    match hook.rsplit('/').next().unwrap_or(hook) {
        "sched_migrate_task" => Use::Causes(&[Cause::RunqPreempted, Cause::RunqWakeup]),
        "mm_compaction_begin" | "mm_compaction_end" => Use::Causes(&[Cause::MemCompaction]),
        "mm_vmscan_memcg_reclaim_begin" | "mm_vmscan_memcg_reclaim_end" => {
            Use::Causes(&[Cause::MemLimit])
        }
        "mm_vmscan_direct_reclaim_begin" | "mm_vmscan_direct_reclaim_end" => {
            Use::Causes(&[Cause::MemReclaim])
        }
        "mm_vmscan_node_reclaim_begin" | "mm_vmscan_node_reclaim_end" => {
            Use::Detail("reclaim within one memory node shows only where its stack was taken")
        }
        "sched_process_exec" => {
            Use::Detail("a program started by another than its first thread is taken for a new one")
        }
        "task_rename" => Use::Detail("threads keep the name that they had when first seen"),
        "inet_sock_set_state" => Use::Detail(
            "under overload, processes that send spans are not recognised by their connection; a \
             connection is followed only from the first wait on it",
        ),
        "tcp_probe" => Use::Causes(&NET_BY_SEGMENT),
        "tcp_rcv_space_adjust" => Use::Detail(
            "a thread that reads from a connection without waiting for it is not known: a chain may \
             end at its connection",
        ),
        "tcp_retransmit_skb" => Use::Causes(&[Cause::NetRetransmit]),
        "kfree_skb" => Use::Detail(
            "a segment that this host itself drops is noticed late, and where is not known",
        ),
        _ => Use::Everything,
    }
}

/// What became of one hook.
pub(super) fn check(report: &HookReport) -> Check {
    let name = match &*report.program {
        // Nothing could be tried.
        "" => "hooks".to_owned(),
        program => format!("hook {} ({program})", report.hook),
    };
    let error = match &report.outcome {
        Ok(()) => return Check::ok(name, "loaded and attached"),
        Err(error) => error,
    };
    if !error.contains(ABSENT) {
        let fix = match error.starts_with(NOT_PERMITTED) {
            true => "as above: it is for want of a capability, or because of lockdown",
            false => {
                "the other checks say why a kernel refuses programs; if none does, this kernel is \
                 not supported yet, and the text of the refusal belongs into a report"
            }
        };
        let why = format!("refused: {}", shortened(error));
        return Check::missing(name, why, every_cause(), fix);
    }
    let fix = "boot a kernel that has this tracepoint";
    let why = "this kernel has no such tracepoint";
    match used_for(&report.hook) {
        Use::Everything => Check::missing(name, why, every_cause(), fix),
        Use::Causes(causes) => Check::missing(name, why, causes.iter().copied(), fix),
        Use::Detail(what) => Check::degraded(name, format!("{why}: {what}"), fix),
    }
}

/// The first line of a refusal, which says what kind it is, and as much of its end as there is room for.
fn shortened(text: &str) -> String {
    let text = text.trim();
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let end = |text: &str| {
        let mut from = text.len().saturating_sub(REASON_BYTES_MAX);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        text.get(from..).unwrap_or_default().to_owned()
    };
    format!("{}\n{}", end(first), end(rest))
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use lacuna_probes::HookReport;

    use super::check;

    #[test]
    fn who_lacks_a_capability_is_not_told_that_the_kernel_is_not_supported() {
        let mut report = HookReport {
            program: "on_switch".into(),
            hook: "tp_btf/sched_switch".into(),
            outcome: Err("Operation not permitted (os error 1)".into()),
        };
        assert!(check(&report).fix.contains("for want of a capability"));
        report.outcome = Err("Invalid argument".into());
        assert!(check(&report).fix.contains("not supported yet"));
    }
}
