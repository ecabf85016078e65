// SPDX-License-Identifier: Apache-2.0
//! Ending as the command ended, so that whoever started `lacuna run -- CMD` sees CMD's own end.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::process::ExitStatus;

use rustix::process::DumpableBehavior;
use rustix::process::set_dumpable_behavior;
use signal_hook::low_level::emulate_default_handler;

use super::EXIT_LACUNA_FAILED;

/// Exit status of a process that a signal ended, as shells say it: this and the signal's number.
const SIGNAL_BASE: i32 = 128;

/// The status as a shell would say it: the exit status, or 128 + the signal.
pub(crate) fn shell_status(status: ExitStatus) -> u8 {
    let status = status
        .code()
        .or_else(|| status.signal().map(|signal| SIGNAL_BASE + signal));
    // A status that is neither cannot be: the process would not have ended.
    status
        .and_then(|status| u8::try_from(status).ok())
        .unwrap_or(EXIT_LACUNA_FAILED)
}

/// How this process must end so that its parent sees `status`. Where a signal ended the command,
/// the same signal ends this process here, without a core dump of its own; call it last.
pub(crate) fn exit_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // Not by RLIMIT_CORE: a core_pattern that pipes to a program does not heed it. Where it
        // fails, a core too many is the whole harm.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        // Returns for the few signals whose default it does not know (SIGIO, real-time ones).
        let _ = emulate_default_handler(signal);
    }
    ExitCode::from(shell_status(status))
}
