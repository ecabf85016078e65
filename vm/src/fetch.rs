// SPDX-License-Identifier: Apache-2.0
//! Gets the packages of a kernel: from the cache, else the pinned version from Debian's archive, else
//! the newest of its series, and then says so.
//!
//! A pinned package is what its checksum says, or it is not used. Of a fallback apt has checked the
//! archive's signature. apt gets a state folder of its own: this machine's packages, lists and
//! settings are neither read as the archive's nor changed.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::list::Kernel;
use crate::list::Package;
use crate::tool;

/// Who signs the archives.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The kernels that the list is made of: without drivers for real machines, so they are small.
const FLAVOUR: &str = "-cloud-amd64";

/// Where packages come from.
pub(crate) trait Archive {
    /// Every release of which there is a package with this prefix.
    fn releases(&mut self, prefix: &str) -> Result<Vec<String>>;
    /// Puts a package into a folder, of this version or the newest, and returns its file.
    fn get(&mut self, name: &str, version: Option<&str>, folder: &Path) -> Result<PathBuf>;
}

/// The packages of a kernel, on this machine.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) release: String,
    pub(crate) files: Vec<PathBuf>,
    /// Why this is not the pinned release.
    pub(crate) fallback: Option<String>,
}

/// Finds or gets the packages of a kernel.
pub(crate) fn fetch(kernel: &Kernel, cache: &Path, archive: &mut dyn Archive) -> Result<Fetched> {
    let folder = cache.join("packages");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let pinned: Result<Vec<PathBuf>> = kernel
        .packages
        .iter()
        .map(|package| pinned(kernel, package, &folder, archive))
        .collect();
    let refusal = match pinned {
        Ok(files) => {
            return Ok(Fetched {
                release: kernel.release.clone(),
                files,
                fallback: None,
            });
        }
        Err(error) if error.is::<WrongChecksum>() => return Err(error),
        Err(error) => format!("{error:#}"),
    };
    newest(kernel, &folder, archive, &refusal)
}

/// A pinned package that is not what was pinned: never used, and no reason to look for another.
#[derive(Debug)]
struct WrongChecksum(String);

impl std::fmt::Display for WrongChecksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} does not have the checksum of the list: remove it, or mend the list",
            self.0
        )
    }
}

impl std::error::Error for WrongChecksum {}

fn pinned(
    kernel: &Kernel,
    package: &Package,
    folder: &Path,
    archive: &mut dyn Archive,
) -> Result<PathBuf> {
    let name = format!("{}{}", package.prefix, kernel.release);
    let cached = folder.join(file_name(&name, &package.version));
    let file = match cached.exists() {
        true => cached,
        false => archive.get(&name, Some(&package.version), folder)?,
    };
    if checksum(&file)? != package.sha256 {
        return Err(WrongChecksum(file.display().to_string()).into());
    }
    Ok(file)
}

/// How apt names the file of a package.
fn file_name(name: &str, version: &str) -> String {
    format!("{name}_{}_amd64.deb", version.replace(':', "%3a"))
}

fn checksum(file: &Path) -> Result<String> {
    let line = tool::text(Command::new("sha256sum").arg(file))?;
    let sum = line.split_whitespace().next();
    Ok(sum.unwrap_or_default().to_owned())
}

/// The newest release of the series that the archive really has: its index may name files that are
/// gone.
fn newest(
    kernel: &Kernel,
    folder: &Path,
    archive: &mut dyn Archive,
    refusal: &str,
) -> Result<Fetched> {
    let first = kernel.packages.first().context("no package")?;
    let mut releases = archive
        .releases(&first.prefix)
        .with_context(|| format!("the pinned release cannot be had: {refusal}"))?;
    releases.retain(|name| name.starts_with(&kernel.series) && name.ends_with(FLAVOUR));
    releases.sort_by(|a, b| natural(b, a));
    let mut refusals = vec![format!("{}: {refusal}", kernel.release)];
    for release in releases {
        let files: Result<Vec<PathBuf>> = kernel
            .packages
            .iter()
            .map(|package| archive.get(&format!("{}{release}", package.prefix), None, folder))
            .collect();
        match files {
            Ok(files) => {
                return Ok(Fetched {
                    release,
                    files,
                    fallback: Some(refusal.to_owned()),
                });
            }
            Err(error) => refusals.push(format!("{release}: {error:#}")),
        }
    }
    bail!(
        "no kernel of the series {} can be had:\n  {}",
        kernel.series,
        refusals.join("\n  ")
    )
}

/// Compares names as people read them: digits by their number, everything else by its letters.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (x, rest_a) = token(a);
        let (y, rest_b) = token(b);
        let order = match (x.parse::<u64>(), y.parse::<u64>()) {
            (Ok(x), Ok(y)) => x.cmp(&y),
            _ => x.cmp(y),
        };
        if order != Ordering::Equal || (x.is_empty() && y.is_empty()) {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The first run of digits, or of anything else, and the rest.
fn token(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Debian's archives, through apt.
pub(crate) struct Debian<'a> {
    kernel: &'a Kernel,
    /// apt's state for this kernel's archives.
    state: PathBuf,
    updated: bool,
}

impl<'a> Debian<'a> {
    /// Nothing is asked of the network before something is missing.
    pub(crate) fn new(kernel: &'a Kernel, cache: &Path) -> Debian<'a> {
        Debian {
            kernel,
            state: cache.join("apt").join(&kernel.name),
            updated: false,
        }
    }

    /// One of apt's tools, with the archives of this kernel and a state of its own.
    fn apt(&mut self, tool: &str) -> Result<Command> {
        if !self.updated {
            self.updated = true;
            self.prepare()?;
            let mut update = self.apt("apt-get")?;
            tool::run(update.args(["-qq", "update"]))?;
        }
        let mut command = Command::new(tool);
        let path = |name: &str| self.state.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", path("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", path("lists")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
            "Acquire::Languages=none".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            // An archive out of support is not signed anew, and is wanted all the same.
            "Acquire::Check-Valid-Until=false".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        Ok(command)
    }

    fn prepare(&self) -> Result<()> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = self.state.join(folder);
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let archives = self.kernel.archives.iter();
        let lines: String = archives
            .map(|archive| format!("deb [signed-by={KEYRING}] {archive}\n"))
            .collect();
        fs::write(self.state.join("sources.list"), lines)?;
        fs::write(self.state.join("status"), "")?;
        Ok(())
    }
}

impl Archive for Debian<'_> {
    fn releases(&mut self, prefix: &str) -> Result<Vec<String>> {
        let names = tool::text(self.apt("apt-cache")?.args(["pkgnames", prefix]))?;
        let releases = names.lines().filter_map(|name| name.strip_prefix(prefix));
        Ok(releases.map(str::to_owned).collect())
    }

    fn get(&mut self, name: &str, version: Option<&str>, folder: &Path) -> Result<PathBuf> {
        let wanted = match version {
            Some(version) => format!("{name}={version}"),
            None => name.to_owned(),
        };
        // A folder of its own, so that the one file in it is the one that was asked for, and a
        // download that is cut off is never taken for the package.
        let fresh = tempfile::tempdir_in(folder)?;
        tool::run(
            self.apt("apt-get")?
                .args(["-q", "download", &wanted])
                .current_dir(fresh.path()),
        )?;
        let left = fs::read_dir(fresh.path())?.next();
        let left = left.with_context(|| format!("apt-get download {wanted} left no file"))??;
        let file = folder.join(left.file_name());
        fs::rename(left.path(), &file)?;
        Ok(file)
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
