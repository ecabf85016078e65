// SPDX-License-Identifier: Apache-2.0
//! From a pid that a process inside a pid namespace talks about to the pid that we know.
//!
//! A span's `process.pid` and glibc's lock owners are numbers of the *process's own* pid namespace.
//! `/proc/PID/status` lists each process's number in every namespace that it is visible in
//! (`NSpid`, the reader's first, its own last). There is no index: a translation reads the status
//! of every process once, so callers ask once per claim and keep the answer with its start time.

use crate::process::Status;
use crate::process::namespace_of;
use crate::process::processes;
use crate::process::threads;
use crate::root::Root;

/// The process that is `ns_pid` to the processes whose pid namespace has the inode
/// `pid_namespace`; `None` if there is none that we may see.
///
/// A process of a nested namespace has a number in `pid_namespace`, too, but is not found by it:
/// such a number is not what that process calls itself.
pub fn process_in_namespace(root: &Root, pid_namespace: u64, ns_pid: u32) -> Option<u32> {
    processes(root).ok()?.into_iter().find(|&tgid| {
        // The number first: it rules nearly all out, and costs one read instead of two.
        own_number(root, &format!("/proc/{tgid}/status")) == Some(ns_pid)
            && namespace_of(root, tgid, "pid") == Some(pid_namespace)
    })
}

/// The thread of process `tgid` that calls itself `ns_tid` (`gettid()` in its own namespace).
pub fn thread_in_namespace(root: &Root, tgid: u32, ns_tid: u32) -> Option<u32> {
    let known_by = |tid: u32| own_number(root, &format!("/proc/{tgid}/task/{tid}/status"));
    // In the usual case nobody is in a namespace, and no directory needs to be listed.
    if known_by(ns_tid) == Some(ns_tid) {
        return Some(ns_tid);
    }
    threads(root, tgid)
        .ok()?
        .into_iter()
        .find(|&tid| known_by(tid) == Some(ns_tid))
}

fn own_number(root: &Root, status: &str) -> Option<u32> {
    Status::parse(&root.read(status).ok()?)?
        .ns_pids
        .last()
        .copied()
}

#[cfg(test)]
mod tests {
    use super::process_in_namespace;
    use super::thread_in_namespace;
    use crate::root::Root;
    use std::path::Path;

    fn status(base: &Path, directory: &str, tgid: u32, ns_pids: &str) {
        let directory = base.join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        let last = ns_pids.split('\t').next().unwrap();
        let text = format!("Tgid:\t{tgid}\nPid:\t{last}\nUid:\t0\t0\t0\t0\nNSpid:\t{ns_pids}\n");
        std::fs::write(directory.join("status"), text).unwrap();
    }

    fn namespace(base: &Path, tgid: u32, inode: u64) {
        let directory = base.join(format!("proc/{tgid}/ns"));
        std::fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink(format!("pid:[{inode}]"), directory.join("pid")).unwrap();
    }

    #[test]
    fn a_number_is_looked_up_in_its_own_namespace_only() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::at(base.path());
        status(base.path(), "proc/7", 7, "7");
        namespace(base.path(), 7, 1);
        status(base.path(), "proc/507", 507, "507\t7");
        namespace(base.path(), 507, 2);
        status(base.path(), "proc/607", 607, "607\t7");
        namespace(base.path(), 607, 3);
        assert_eq!(process_in_namespace(&root, 1, 7), Some(7));
        assert_eq!(process_in_namespace(&root, 2, 7), Some(507));
        assert_eq!(process_in_namespace(&root, 3, 7), Some(607));
        assert_eq!(process_in_namespace(&root, 4, 7), None);
        assert_eq!(
            process_in_namespace(&root, 2, 507),
            None,
            "not its number in there"
        );
    }

    #[test]
    fn a_thread_is_looked_up_within_its_process() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::at(base.path());
        status(base.path(), "proc/507/task/507", 507, "507\t7");
        status(base.path(), "proc/507/task/509", 507, "509\t9");
        assert_eq!(thread_in_namespace(&root, 507, 9), Some(509));
        assert_eq!(thread_in_namespace(&root, 507, 8), None);
        assert_eq!(thread_in_namespace(&root, 508, 9), None);
    }

    #[test]
    fn this_process_is_found_by_its_own_number() {
        let root = Root::host();
        let own = std::process::id();
        let namespace = crate::process::namespace_of(&root, own, "pid").unwrap();
        assert_eq!(process_in_namespace(&root, namespace, own), Some(own));
        assert_eq!(thread_in_namespace(&root, own, own), Some(own));
    }
}
