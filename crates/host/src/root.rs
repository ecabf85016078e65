// SPDX-License-Identifier: Apache-2.0
//! Where the host's `/proc` and `/sys` are, and how much of a file is ever read.
//!
//! Every reader of this crate takes a [`Root`], so that a test can present a host that it does not
//! run on (no BTF, cgroup v1 only, an old kernel), and so that a container may mount the host's
//! trees somewhere else. Nothing is ever written through it.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

/// The largest file that [`Root::read`] returns whole; what lies beyond is cut off. The largest
/// text read through it is `/proc/net/tcp` (150 bytes a connection) and `/proc/self/mountinfo`.
pub const FILE_BYTES_MAX: u64 = 8 << 20;

/// Room for a first read: nearly every file of a process is smaller. Without it each file takes three
/// more system calls, as the reader feels its way.
const FIRST_READ_BYTES: usize = 4_096;

/// The directory that `/proc` and `/sys` are looked for in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    base: PathBuf,
}

impl Default for Root {
    fn default() -> Self {
        Self::host()
    }
}

impl Root {
    /// This host, as this process sees it.
    pub fn host() -> Self {
        Self::at("/")
    }

    /// A directory that stands for `/`: a test's, or where a container has the host mounted.
    pub fn at(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// The real path of an absolute one.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        // `join` with an absolute path would forget the base.
        self.base
            .join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// The text of a file, lossily as UTF-8 (names of threads and files may be any bytes), at most
    /// [`FILE_BYTES_MAX`] of it.
    ///
    /// # Errors
    /// As opening and reading the file gives them.
    pub fn read(&self, absolute: impl AsRef<Path>) -> io::Result<String> {
        let mut bytes = Vec::with_capacity(FIRST_READ_BYTES);
        File::open(self.path(absolute))?
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Whether there is such a file or directory that this process may look at.
    pub fn exists(&self, absolute: impl AsRef<Path>) -> bool {
        self.path(absolute).exists()
    }

    /// The names in a directory that are decimal numbers (processes, threads, descriptors), in
    /// the order that the kernel gives them, at most `max`.
    ///
    /// # Errors
    /// As opening the directory gives them.
    pub fn numbers_in(&self, absolute: impl AsRef<Path>, max: usize) -> io::Result<Vec<u32>> {
        Ok(std::fs::read_dir(self.path(absolute))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .take(max)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Root;

    #[test]
    fn a_base_stands_before_absolute_paths() {
        let root = Root::at("/somewhere");
        assert_eq!(
            root.path("/proc/stat"),
            std::path::Path::new("/somewhere/proc/stat")
        );
        assert_eq!(
            Root::host().path("/proc/stat"),
            std::path::Path::new("/proc/stat")
        );
    }

    #[test]
    fn text_that_is_not_utf8_is_read_lossily() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("comm"), b"a\xffb\n").unwrap();
        let root = Root::at(directory.path());
        assert_eq!(root.read("/comm").unwrap(), "a\u{fffd}b\n");
        assert!(root.read("/nothing").is_err());
        assert!(root.exists("/comm") && !root.exists("/nothing"));
    }

    #[test]
    fn only_numbers_are_listed_and_only_so_many() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["1", "22", "self", "-3", "4294967296"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let root = Root::at(directory.path());
        let mut numbers = root.numbers_in("/", 10).unwrap();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 22]);
        assert_eq!(root.numbers_in("/", 1).unwrap().len(), 1);
    }
}
