// SPDX-License-Identifier: Apache-2.0
//! A control group of a scenario's own, on whichever version this host has; removed when dropped.
//!
//! Version 2 offers a controller to groups only where the group above says so. Where nobody has said
//! it yet it is said here, and taken back.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use lacuna_host::Root;
use lacuna_host::cgroup::Cgroups;
use lacuna_host::cgroup::Hierarchy;
use lacuna_host::cgroup::Version;

use crate::stage::Stop;

/// The file in which a group of version 2 says what it offers to those below.
const OFFERS: &str = "cgroup.subtree_control";
/// How often removal is tried: a killed process leaves its group a moment after it was waited for.
const REMOVALS: u32 = 200;
const REMOVE_EVERY: Duration = Duration::from_millis(10);

/// A group with one controller.
#[derive(Debug)]
pub(crate) struct Cgroup {
    hierarchy: Hierarchy,
    /// From the root of the mount.
    path: String,
    /// What was said to the group above, to be taken back.
    offered: Option<&'static str>,
}

impl Cgroup {
    /// Makes it, with this controller.
    ///
    /// # Errors
    /// [`Stop::NotHere`] where this host has no such thing.
    pub(crate) fn create(controller: &'static str) -> Result<Self, Stop> {
        let not_here = |what: String| move |error| Stop::NotHere(format!("{what}: {error}"));
        let cgroups = Cgroups::discover(&Root::host()).map_err(not_here("no cgroups".into()))?;
        let Some(hierarchy) = cgroups.with(controller).cloned() else {
            let why = format!("no cgroup hierarchy here has the {controller} controller");
            return Err(Stop::NotHere(why));
        };
        let path = format!("/lacuna-lab-{}", std::process::id());
        let made = fs::create_dir(hierarchy.file(&path, ""));
        made.map_err(not_here("cannot make a cgroup".into()))?;
        let mut group = Self {
            hierarchy,
            path,
            offered: None,
        };
        if group.hierarchy.version == Version::V2 {
            let what = format!("cannot use the {controller} controller");
            group.want(controller).map_err(not_here(what))?;
        }
        Ok(group)
    }

    /// Has the group above offer a controller.
    fn want(&mut self, controller: &'static str) -> io::Result<()> {
        let offers = self.hierarchy.file("/", OFFERS);
        let offered = fs::read_to_string(&offers)?;
        if offered
            .split_ascii_whitespace()
            .any(|one| one == controller)
        {
            return Ok(());
        }
        fs::write(offers, format!("+{controller}"))?;
        self.offered = Some(controller);
        Ok(())
    }

    /// What it is called; its path ends so wherever the hierarchy is mounted.
    pub(crate) fn name(&self) -> &str {
        &self.path
    }

    /// One of its files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.hierarchy.file(&self.path, name)
    }

    /// Moves a process into it.
    pub(crate) fn add(&self, pid: u32) -> Result<(), Stop> {
        Ok(fs::write(self.file("cgroup.procs"), pid.to_string())?)
    }

    /// Limits it to so many microseconds of CPU time in each period of so many.
    ///
    /// # Errors
    /// [`Stop::NotHere`] where the kernel has no such limits.
    pub(crate) fn limit_cpu(&self, quota_us: u64, period_us: u64) -> Result<(), Stop> {
        let (file, value) = match self.hierarchy.version {
            Version::V2 => ("cpu.max", format!("{quota_us} {period_us}")),
            Version::V1 => {
                fs::write(self.file("cpu.cfs_period_us"), period_us.to_string())?;
                ("cpu.cfs_quota_us", quota_us.to_string())
            }
        };
        fs::write(self.file(file), value)
            .map_err(|error| Stop::NotHere(format!("the kernel has no CPU limits: {error}")))
    }

    /// Prefers it to all others, so that who else happens to use the CPU takes no part of it.
    pub(crate) fn prefer(&self) -> Result<(), Stop> {
        // The largest weight of each version (admin-guide/cgroup-v2.rst; MAX_SHARES of the scheduler).
        let (file, value) = match self.hierarchy.version {
            Version::V2 => ("cpu.weight", "10000"),
            Version::V1 => ("cpu.shares", "262144"),
        };
        Ok(fs::write(self.file(file), value)?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let directory = self.file("");
        let mut removed = fs::remove_dir(&directory);
        for _ in 0..REMOVALS {
            if removed.is_ok() {
                break;
            }
            sleep(REMOVE_EVERY);
            removed = fs::remove_dir(&directory);
        }
        if let Err(error) = removed {
            eprintln!("lacuna: cannot remove {}: {error}", directory.display());
        }
        if let Some(controller) = self.offered {
            // It stays offered only where somebody else has come to use it meanwhile.
            let _ = fs::write(self.hierarchy.file("/", OFFERS), format!("-{controller}"));
        }
    }
}
