// SPDX-License-Identifier: Apache-2.0
//! A directory whose files reach a device when they are flushed.
//!
//! In a virtual machine whose files live in memory a flush waits for nothing; there it is a file system
//! of its own, in a file behind a loop device, unmounted when dropped.

use rustix::fs::statfs;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// include/uapi/linux/magic.h: tmpfs and overlayfs, the two that a guest's files are on.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x794c_7630];
const IMAGE_BYTES: u64 = 64 << 20;

pub struct Disk {
    pub path: PathBuf,
    mounted: bool,
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let done = Command::new(program).args(arguments).status();
    done.is_ok_and(|status| status.success())
}

impl Disk {
    pub fn new() -> Disk {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = target.join(format!("disk-{}-{}", std::process::id(), super::now()));
        fs::create_dir(&path).unwrap();
        let kind = statfs(&path).unwrap().f_type as u64;
        let mounted = IN_MEMORY.contains(&kind);
        if mounted {
            mount(&path);
        }
        Disk { path, mounted }
    }
}

fn mount(path: &Path) {
    let image = path.with_extension("image");
    let file = fs::File::create(&image).unwrap();
    file.set_len(IMAGE_BYTES).unwrap();
    // Where it is built in there is nothing to load.
    run("modprobe", &["-q", "loop"]);
    let (image, path) = (image.to_str().unwrap(), path.to_str().unwrap());
    assert!(run("mkfs.ext4", &["-q", "-F", image]), "mkfs.ext4 {image}");
    assert!(run("mount", &["-o", "loop", image, path]), "mount {path}");
    // The loop device holds it open.
    fs::remove_file(image).unwrap();
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            run("umount", &[self.path.to_str().unwrap()]);
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}
