// SPDX-License-Identifier: Apache-2.0
//! A memory cgroup with a limit, and files whose pages are charged to whoever reads them first.

use super::kernel::Folder;
use rustix::fs::Advice;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::num::NonZeroU64;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Size of a disk in memory; what is written takes room.
const DISK_BYTES: u64 = 256 << 20;
const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";

/// A memory cgroup of our own, version 1 or 2.
pub struct MemoryGroup {
    folder: Folder,
    v2: bool,
}

impl MemoryGroup {
    pub fn new(name: &str) -> MemoryGroup {
        let v2 = !Path::new(V1).exists();
        let root = if v2 { V2 } else { V1 };
        let path = Path::new(root).join(format!("lacuna-{name}-{}", std::process::id()));
        let folder = Folder::make(path);
        MemoryGroup { folder, v2 }
    }

    pub fn nested(&self, name: &str) -> MemoryGroup {
        if self.v2 {
            fs::write(self.folder.path.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        let folder = Folder::make(self.folder.path.join(name));
        let v2 = self.v2;
        MemoryGroup { folder, v2 }
    }

    /// Bytes that all in it may use together.
    pub fn limit(&self, bytes: u64) {
        let file = if self.v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        fs::write(self.folder.path.join(file), bytes.to_string()).unwrap();
    }

    /// Moves a process here; what it uses already stays where it was charged.
    pub fn take(&self, pid: u32) {
        fs::write(self.folder.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// How often its use has hit the limit: at least once for each time that it was reclaimed for.
    pub fn hits(&self) -> u64 {
        let number = |text: &str| text.trim().parse().unwrap();
        if !self.v2 {
            return number(&fs::read_to_string(self.folder.path.join("memory.failcnt")).unwrap());
        }
        let text = fs::read_to_string(self.folder.path.join("memory.events.local")).unwrap();
        number(
            text.lines()
                .find_map(|line| line.strip_prefix("max "))
                .unwrap(),
        )
    }

    /// Where to write which amount to have the writer itself reclaim all that the group holds.
    pub fn reclaim_control(&self) -> (PathBuf, &'static str) {
        if self.v2 {
            (self.folder.path.join("memory.reclaim"), "1G")
        } else {
            (self.folder.path.join("memory.force_empty"), "0")
        }
    }

    /// The id that the kernel knows it by.
    pub fn id(&self) -> u64 {
        self.folder.id()
    }
}

/// Where files lie on a disk, so that their pages can be let go. A guest of the kernel matrix has
/// none: there it is one in memory, which ends with the guest.
fn folder() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let ours = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let arguments = fs::read_to_string("/proc/cmdline").unwrap();
        if !arguments.contains(" lacuna.dir=") {
            return ours.to_owned();
        }
        let (image, disk) = (ours.join("disk.img"), ours.join("disk"));
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        fs::create_dir(&disk).unwrap();
        run("modprobe", &["loop".as_ref()]);
        run("mkfs.ext4", &["-q".as_ref(), image.as_path()]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &disk]);
        disk
    };
    MADE.get_or_init(make).clone()
}

fn run(program: &str, arguments: &[&Path]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// A file on a disk, of which no page is in memory; removed when dropped.
pub struct ColdFile {
    pub path: PathBuf,
}

impl ColdFile {
    pub fn new(name: &str, bytes: usize) -> ColdFile {
        let unique = format!("{name}-{}", std::process::id());
        let path = folder().join(unique);
        let mut file = File::create(&path).unwrap();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..bytes >> 20 {
            file.write_all(&piece).unwrap();
        }
        let cold = ColdFile { path };
        cold.cool();
        cold
    }

    /// Writes back what is dirty and lets every page go.
    pub fn cool(&self) {
        let file = File::open(&self.path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None::<NonZeroU64>, Advice::DontNeed).unwrap();
    }
}

impl Drop for ColdFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
