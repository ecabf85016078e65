// SPDX-License-Identifier: Apache-2.0
//! What each hook is for: which causes go with it if the kernel refuses it.
//!
//! The probes try each of their programs for real; this only says what a refusal costs. A hook that
//! is not in the table is a detail of others: then every cause can still be told.

use lacuna_probes::HookReport;
use lacuna_timeline::Cause;

use super::Check;
use super::every_cause;

/// The longest text of a refusal that is passed on, bytes: a verifier's log can be megabytes, and
/// what it says last is the reason.
const REASON_BYTES_MAX: usize = 1_000;

/// What a hook is for.
enum Use {
    /// Without it there is no record of switches at all.
    Switches,
    /// These causes come from it.
    Causes(&'static [Cause]),
    /// Only this gets weaker.
    Detail(&'static str),
}

/// By the name of the tracepoint or iterator, which is what comes after the last `/`.
fn used_for(hook: &str) -> Use {
    let name = hook.rsplit('/').next().unwrap_or(hook);
    match name {
        "sched_switch" | "sched_waking" | "sched_wakeup_new" => Use::Switches,
        "sched_migrate_task" => Use::Causes(&[Cause::RunqPreempted, Cause::RunqWakeup]),
        "mm_compaction_begin" | "mm_compaction_end" => Use::Causes(&[Cause::MemCompaction]),
        "mm_vmscan_memcg_reclaim_begin" | "mm_vmscan_memcg_reclaim_end" => {
            Use::Causes(&[Cause::MemLimit])
        }
        "mm_vmscan_direct_reclaim_begin"
        | "mm_vmscan_direct_reclaim_end"
        | "mm_vmscan_node_reclaim_begin"
        | "mm_vmscan_node_reclaim_end" => Use::Causes(&[Cause::MemReclaim]),
        "balance_dirty_pages" => Use::Causes(&[Cause::DiskDirty]),
        "task" => Use::Detail(
            "threads that do not switch are not confirmed: their time stays unknown until they do",
        ),
        "sched_process_exec" => {
            Use::Detail("a program started by another than its first thread is taken for a new one")
        }
        "sched_process_fork" | "task_newtask" => {
            Use::Detail("new processes are watched later than from their first instruction")
        }
        "sched_process_exit" | "sched_process_free" => {
            Use::Detail("ended threads are noticed later")
        }
        "task_rename" => Use::Detail("threads keep the name that they had when first seen"),
        _ => Use::Detail("what it adds to the answers is missing"),
    }
}

/// What became of one hook.
pub(super) fn check(report: &HookReport) -> Check {
    let name = format!("hook {} ({})", report.hook, report.program);
    let refusal = match &report.outcome {
        Ok(()) => return Check::ok(name, "loads and attaches"),
        Err(refusal) => last_words(refusal),
    };
    let fix = "the checks above say why a kernel refuses programs; if none of them does, this \
               kernel is not supported yet";
    match used_for(&report.hook) {
        Use::Switches => Check::missing(name, format!("refused: {refusal}"), every_cause(), fix),
        Use::Causes(causes) => Check::missing(
            name,
            format!("refused: {refusal}"),
            causes.iter().copied(),
            fix,
        ),
        Use::Detail(what) => Check::degraded(name, format!("refused: {refusal}; {what}"), fix),
    }
}

/// The end of a text, on one line.
fn last_words(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut from = line.len().saturating_sub(REASON_BYTES_MAX);
    while !line.is_char_boundary(from) {
        from += 1;
    }
    line.get(from..).unwrap_or_default().to_owned()
}
