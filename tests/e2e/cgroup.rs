// SPDX-License-Identifier: Apache-2.0
//! A CPU cgroup of the test's own, on whichever cgroup version this host has; removed when dropped.

use std::fs;
use std::iter;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// The period that quotas are given in.
const PERIOD_US: u64 = 100_000;
/// Where systemd and every container runtime mount them.
const ROOT: &str = "/sys/fs/cgroup";
/// How often removal is tried: a killed process leaves its cgroup a moment after it was reaped.
const REMOVE_ATTEMPTS: u32 = 100;

/// A cgroup with a CPU controller, for single threads.
pub(crate) struct Cgroup {
    path: PathBuf,
    /// Version 2 only: holds the process, whose threads may then be told apart below it.
    domain: Option<PathBuf>,
}

impl Cgroup {
    /// Makes it. Needs root.
    pub(crate) fn create(name: &str) -> Cgroup {
        let name = format!("{name}-{}", std::process::id());
        if !Path::new(ROOT).join("cgroup.controllers").exists() {
            let path = Path::new(ROOT).join("cpu").join(name);
            fs::create_dir(&path).expect("a CPU cgroup can be made");
            return Cgroup { path, domain: None };
        }
        let domain = Path::new(ROOT).join(name);
        let path = domain.join("limited");
        fs::create_dir_all(&path).expect("a CPU cgroup can be made");
        fs::write(path.join("cgroup.type"), "threaded").expect("a cgroup can be of threads");
        for above in [Path::new(ROOT), &domain] {
            // Already on where something else uses it.
            let _on = fs::write(above.join("cgroup.subtree_control"), "+cpu");
        }
        Cgroup {
            path,
            domain: Some(domain),
        }
    }

    /// Moves a thread into it; the other threads of the process stay outside.
    pub(crate) fn add(&self, pid: u32, tid: u32) {
        let file = match &self.domain {
            Some(domain) => {
                fs::write(domain.join("cgroup.procs"), pid.to_string())
                    .expect("the process is moved");
                "cgroup.threads"
            }
            None => "tasks",
        };
        fs::write(self.path.join(file), tid.to_string()).expect("the thread is moved");
    }

    /// Limits it to that share of one CPU; `None` lifts the limit.
    pub(crate) fn limit(&self, cpus: Option<f64>) {
        let quota = cpus.map(|cpus| (cpus * PERIOD_US as f64) as u64);
        let (file, value) = match (self.domain.is_some(), quota) {
            (true, Some(quota)) => ("cpu.max", format!("{quota} {PERIOD_US}")),
            (true, None) => ("cpu.max", format!("max {PERIOD_US}")),
            (false, Some(quota)) => ("cpu.cfs_quota_us", quota.to_string()),
            (false, None) => ("cpu.cfs_quota_us", "-1".to_owned()),
        };
        fs::write(self.path.join(file), value).expect("the limit is set");
    }

    /// The kernel's own count of what the limit did.
    pub(crate) fn cpu_stat(&self) -> PathBuf {
        self.path.join("cpu.stat")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in iter::once(&self.path).chain(&self.domain) {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    for _ in 0..REMOVE_ATTEMPTS {
        if fs::remove_dir(path).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    eprintln!("{} could not be removed", path.display());
}
