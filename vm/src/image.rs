// SPDX-License-Identifier: Apache-2.0
//! Makes of a kernel's packages what QEMU boots: the uncompressed kernel, its modules, and a small
//! first RAM disk with busybox, the modules on the way to the host's files, and `vm/init`.
//!
//! Everything lies in the cache and is made once. Each piece is made beside its place and then moved
//! there, so that a run that was cut off leaves nothing half done.

use std::fs;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use crate::fetch::Fetched;
use crate::tool;

/// The guest's first program.
const INIT: &str = include_str!("../init");
/// What the first RAM disk must load to reach the host's files.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_console", "virtiofs", "overlay"];

/// The file that names the packages that an unpacked kernel is made of.
const MADE_OF: &str = "packages";

/// A kernel, ready to boot.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) release: String,
    pub(crate) kernel: PathBuf,
    pub(crate) ramdisk: PathBuf,
    /// `/lib/modules/RELEASE` of this kernel, on the host.
    pub(crate) modules: PathBuf,
}

/// Makes what is not there yet.
pub(crate) fn make(fetched: &Fetched, cache: &Path) -> Result<Image> {
    let release = &fetched.release;
    let place = cache.join(release);
    let made_of: String = fetched
        .files
        .iter()
        .map(|file| format!("{}\n", file.display()))
        .collect();
    if fs::read_to_string(place.join(MADE_OF)).unwrap_or_default() != made_of {
        let fresh = tempfile::tempdir_in(cache)?;
        unpack(fetched, fresh.path()).with_context(|| format!("unpacking {release}"))?;
        fs::write(fresh.path().join(MADE_OF), &made_of)?;
        settle(fresh, &place)?;
    }
    let ramdisk = place.join("ramdisk");
    // The text that it was made with lies beside it: another text is another RAM disk.
    let made_with = place.join("ramdisk.init");
    if !ramdisk.exists() || fs::read_to_string(&made_with).unwrap_or_default() != INIT {
        let fresh = tempfile::tempdir_in(cache)?;
        make_ramdisk(&place.join("root"), release, fresh.path())
            .with_context(|| format!("the first RAM disk of {release}"))?;
        fs::rename(fresh.path().join("ramdisk"), &ramdisk)?;
        fs::write(&made_with, INIT)?;
    }
    Ok(Image {
        release: release.clone(),
        kernel: place.join("vmlinux"),
        ramdisk,
        modules: place.join("root/lib/modules").join(release),
    })
}

/// Moves a finished folder to its place, where one that was made of other packages may be.
fn settle(fresh: tempfile::TempDir, place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place).with_context(|| place.display().to_string())?;
    }
    fs::rename(fresh.path(), place).with_context(|| place.display().to_string())
}

fn unpack(fetched: &Fetched, folder: &Path) -> Result<()> {
    let root = folder.join("root");
    for file in &fetched.files {
        tool::run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&root))?;
    }
    // Newer packages have everything below /usr.
    if !root.join("lib").exists() {
        symlink("usr/lib", root.join("lib"))?;
    }
    let release = &fetched.release;
    tool::run(Command::new("depmod").arg("-b").arg(&root).arg(release))?;
    let places = [
        root.join("boot").join(format!("vmlinuz-{release}")),
        root.join("lib/modules").join(release).join("vmlinuz"),
    ];
    let compressed = places.iter().find(|place| place.exists());
    let compressed = compressed.context("the packages hold no vmlinuz")?;
    uncompress(&fs::read(compressed)?, folder)
}

/// Takes the kernel proper out of a bzImage: QEMU can start it directly, which saves a second of
/// emulated decompression. The offsets are of the kernel's Documentation/arch/x86/boot.rst.
fn uncompress(image: &[u8], folder: &Path) -> Result<()> {
    let payload = payload(image)?;
    let tool = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x02, 0x21, 0x4c, 0x18, ..] => "lz4",
        [0xfd, b'7', b'z', b'X', ..] => "xz",
        [0x1f, 0x8b, ..] => "gzip",
        _ => bail!("the kernel is compressed in a way that is not known"),
    };
    let packed = folder.join("payload");
    fs::write(&packed, payload)?;
    let vmlinux = folder.join("vmlinux");
    let status = Command::new(tool)
        .arg("-dc")
        .stdin(File::open(&packed)?)
        .stdout(File::create(&vmlinux)?)
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {tool}"))?;
    fs::remove_file(&packed)?;
    ensure!(status.success(), "{tool}: {status}");
    Ok(())
}

/// The compressed kernel within a bzImage.
fn payload(image: &[u8]) -> Result<&[u8]> {
    let word = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("not a bzImage: too short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    ensure!(
        image.get(0x202..0x206) == Some(b"HdrS"),
        "not a bzImage: no header"
    );
    let sectors = image.get(0x1f1).copied().unwrap_or(4);
    let start = (usize::from(sectors) + 1) * 512 + word(0x248)?;
    let length = word(0x24c)?;
    let payload = image.get(start..start.saturating_add(length));
    let payload = payload.context("not a bzImage: its payload is cut off")?;
    // The size of the content follows the content, but for gzip, which ends with it by itself.
    let gzip = payload.starts_with(&[0x1f, 0x8b]);
    let trailer = if gzip { 0 } else { 4 };
    Ok(&payload[..payload.len().saturating_sub(trailer)])
}

fn make_ramdisk(root: &Path, release: &str, folder: &Path) -> Result<()> {
    let tree = folder.join("tree");
    for name in [
        "bin", "dev", "proc", "sys", "modules", "host", "written", "new",
    ] {
        fs::create_dir_all(tree.join(name))?;
    }
    let busybox = tool::text(Command::new("sh").args(["-c", "command -v busybox"]))?;
    fs::copy(busybox.trim(), tree.join("bin/busybox"))?;
    symlink("busybox", tree.join("bin/sh"))?;
    for (number, module) in module_files(root, release)?.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let plain = name.split(".ko").next().unwrap_or(&name);
        let file = tree.join("modules").join(format!("{number:02}-{plain}.ko"));
        fs::write(file, module_content(module)?)?;
    }
    let init = tree.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let pack = "find . | cpio --create --format=newc --quiet >../ramdisk";
    tool::run(Command::new("sh").args(["-c", pack]).current_dir(&tree))?;
    Ok(())
}

/// The files of the modules and of what they need, each after what it needs.
fn module_files(root: &Path, release: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for module in MODULES {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("-d").arg(root).args(["-S", release]);
        let lines = tool::text(modprobe.args(["--show-depends", module]))?;
        // What is built in is said in another word, and needs no file.
        for file in lines
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "))
        {
            let file = PathBuf::from(file.trim());
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

fn module_content(file: &Path) -> Result<Vec<u8>> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => tool::run(Command::new("xz").arg("-dc").arg(file)),
        Some("zst") => tool::run(Command::new("zstd").arg("-qdc").arg(file)),
        Some("gz") => tool::run(Command::new("gzip").arg("-dc").arg(file)),
        _ => fs::read(file).with_context(|| file.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::payload;

    /// A bzImage with two sectors of setup and this payload at byte 16 after them.
    fn bzimage(content: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512 + 16];
        image[0x1f1] = 2;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(content.len() as u32).to_le_bytes());
        image.extend(content);
        image
    }

    #[test]
    fn the_payload_is_where_the_header_says_without_its_size() {
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 1, 2, 9, 9, 9, 9];
        assert_eq!(payload(&bzimage(&zstd)).unwrap(), &zstd[..6]);
        let gzip = [0x1f, 0x8b, 1, 2, 3, 4, 5, 6];
        assert_eq!(payload(&bzimage(&gzip)).unwrap(), gzip);
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let image = bzimage(&[1; 100]);
        for end in [0, 0x1f1, 0x203, 0x24a, image.len() - 1] {
            assert!(payload(&image[..end]).is_err(), "{end}");
        }
    }
}
