// SPDX-License-Identifier: Apache-2.0
//! Why a counter cannot be had, in words that say what would help.

use std::io;

use lacuna_host::Root;
use lacuna_host::process::ProcessError;

/// `/proc/PID/io` could not be read.
pub(super) fn no_io(error: &ProcessError, root: &Root, tgid: u32) -> String {
    match error {
        ProcessError::Unreadable(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            format!(
                "/proc/{tgid}/io may not be read: that is for the user of the process, or takes CAP_SYS_PTRACE"
            )
        }
        ProcessError::Gone if root.exists(format!("/proc/{tgid}/stat")) => {
            "the kernel does not count it (CONFIG_TASK_IO_ACCOUNTING)".to_owned()
        }
        error => error.to_string(),
    }
}

/// There is no `sched` file.
pub(super) fn no_sched() -> String {
    "the kernel has no /proc/PID/sched (CONFIG_SCHED_DEBUG)".to_owned()
}

/// `/proc/PID/net/snmp` could not be read.
pub(super) fn no_tcp(error: &ProcessError, root: &Root, tgid: u32) -> String {
    match error {
        ProcessError::Gone if root.exists(format!("/proc/{tgid}/stat")) => {
            format!("there is no /proc/{tgid}/net/snmp")
        }
        error => error.to_string(),
    }
}

/// A counter went back.
pub(super) const NOT_THE_SAME: &str = "the counter went back, so it is not the same one";

/// It is a thread of the kernel.
pub(super) const KERNEL_CALLS: &str = "a thread of the kernel makes no system calls";
/// It is a thread of the kernel.
pub(super) const KERNEL_FAULTS: &str =
    "a thread of the kernel has no memory of its own to fault on";
