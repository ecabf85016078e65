// SPDX-License-Identifier: Apache-2.0
//! The threads of one process, for a reader that asks a thousand of them twice.
//!
//! `Root::read` walks the path from `/proc` down for each file and asks each for its end. Here the
//! directory of the threads stays open and each file is one read, which is all that these files need:
//! the kernel writes each of them whole, well below [`TEXT_BYTES_MAX`]. An open directory is of that
//! process for good: another one that gets its number is not read by mistake.

use std::io;

use rustix::fd::OwnedFd;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::process::ProcessError;
use crate::process::unclear;
use crate::root::Root;
use crate::thread::SchedStat;
use crate::thread::ThreadStat;
use crate::thread::ThreadStatus;

/// The longest text of one file of a thread; a `status` has some 1,500 bytes, and more with many groups.
const TEXT_BYTES_MAX: usize = 8_192;

/// The open `/proc/PID/task` of one process.
#[derive(Debug)]
pub struct Tasks {
    directory: OwnedFd,
}

impl Tasks {
    /// Of one process.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended.
    pub fn open(root: &Root, tgid: u32) -> Result<Self, ProcessError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(
            root.path(format!("/proc/{tgid}/task")),
            flags,
            Mode::empty(),
        );
        Ok(Self {
            directory: directory.map_err(io::Error::from)?,
        })
    }

    /// What the scheduler counted for one thread.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended.
    pub fn sched(&self, tid: u32) -> Result<SchedStat, ProcessError> {
        self.read(tid, "schedstat", SchedStat::parse)
    }

    /// Its state and its switches.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended.
    pub fn status(&self, tid: u32) -> Result<ThreadStatus, ProcessError> {
        self.read(tid, "status", ThreadStatus::parse)
    }

    /// Its name, state and start.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended.
    pub fn stat(&self, tid: u32) -> Result<ThreadStat, ProcessError> {
        self.read(tid, "stat", ThreadStat::parse)
    }

    fn read<T>(
        &self,
        tid: u32,
        file: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ProcessError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = format!("{tid}/{file}");
        let file = rustix::fs::openat(&self.directory, path, flags, Mode::empty());
        let file = file.map_err(io::Error::from)?;
        let mut text = [0; TEXT_BYTES_MAX];
        let length = rustix::io::read(&file, &mut text).map_err(io::Error::from)?;
        let text = text.get(..length).unwrap_or_default();
        // Names may be any bytes.
        parse(&String::from_utf8_lossy(text)).ok_or_else(unclear)
    }
}

#[cfg(test)]
mod tests {
    use super::Tasks;
    use crate::process::ProcessError;
    use crate::root::Root;
    use std::process::Command;
    use std::process::Stdio;

    #[test]
    fn what_is_read_is_what_the_other_readers_read() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .spawn()
            .expect("cat");
        let (root, pid) = (Root::host(), child.id());
        let tasks = Tasks::open(&root, pid).unwrap();
        let asleep = || tasks.status(pid).is_ok_and(|status| status.state == 'S');
        while !asleep() {
            std::thread::yield_now();
        }
        let switches = crate::counters::Switches::read(&root, pid, pid).unwrap();
        assert_eq!(tasks.status(pid).unwrap().switches, switches);
        let sched = crate::thread::SchedStat::read(&root, pid, pid).unwrap();
        assert_eq!(tasks.sched(pid).unwrap(), sched);
        assert_eq!(&*tasks.stat(pid).unwrap().comm, "cat");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(matches!(tasks.sched(pid), Err(ProcessError::Gone)));
        assert!(matches!(tasks.status(pid), Err(ProcessError::Gone)));
        assert!(matches!(Tasks::open(&root, pid), Err(ProcessError::Gone)));
    }

    #[test]
    fn names_of_any_bytes_and_broken_files_are_answers() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("proc/7/task/8");
        std::fs::create_dir_all(&directory).unwrap();
        let tasks = Tasks::open(&Root::at(base.path()), 7).unwrap();
        assert!(matches!(tasks.sched(8), Err(ProcessError::Gone)));
        std::fs::write(directory.join("schedstat"), "1 2").unwrap();
        assert!(matches!(tasks.sched(8), Err(ProcessError::Unreadable(_))));
        let zeros = "0 ".repeat(18);
        let stat = [b"8 (a\xff) S ".as_slice(), zeros.as_bytes(), b"99 0\n"].concat();
        std::fs::write(directory.join("stat"), stat).unwrap();
        assert_eq!(&*tasks.stat(8).unwrap().comm, "a\u{fffd}");
    }
}
