// SPDX-License-Identifier: Apache-2.0
//! The path of a file that a process has open, for the text of evidence.
//!
//! The kernel side records a descriptor's device and inode when the thread begins to wait; this
//! finds a name for it afterwards, on demand, while the process still has it open. It is a courtesy
//! for readers, never an identity: the file may have been renamed or closed since.

use crate::process::FileId;
use crate::root::Root;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The most descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 4_096;

impl FileId {
    /// From the kernel's own encoding of a device (`major << 20 | minor`), which is not that of
    /// `st_dev`.
    ///
    /// On file systems with a device of their own for each subvolume or layer (btrfs, overlayfs)
    /// the kernel's superblock and `stat` name different devices; such a file is not found.
    pub fn from_kernel(dev: u64, ino: u64) -> Self {
        // Both parts fit: a kernel device has 12 and 20 bits.
        let (major, minor) = ((dev >> 20) as u32, (dev & 0xf_ffff) as u32);
        Self {
            dev: rustix::fs::makedev(major, minor),
            ino,
        }
    }
}

/// What a process calls an open file: the target of its `/proc/PID/fd` link.
pub fn path_of(root: &Root, tgid: u32, file: FileId) -> Option<PathBuf> {
    let directory = format!("/proc/{tgid}/fd");
    root.numbers_in(&directory, DESCRIPTORS_MAX)
        .ok()?
        .into_iter()
        .find_map(|fd| {
            let link = root.path(format!("{directory}/{fd}"));
            let metadata = std::fs::metadata(&link).ok()?;
            let same = (metadata.dev(), metadata.ino()) == (file.dev, file.ino);
            same.then(|| std::fs::read_link(&link).ok())?
        })
}

#[cfg(test)]
mod tests {
    use super::path_of;
    use crate::process::FileId;
    use crate::root::Root;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn an_open_file_is_found_and_a_closed_one_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let (major, minor) = (
            rustix::fs::major(metadata.dev()),
            rustix::fs::minor(metadata.dev()),
        );
        let id = FileId::from_kernel(u64::from(major) << 20 | u64::from(minor), metadata.ino());
        let own = std::process::id();
        let path = path_of(&Root::host(), own, id);
        assert_eq!(path.as_deref(), Some(file.path()));
        drop(file);
        assert_eq!(path_of(&Root::host(), own, id), None);
    }
}
