// SPDX-License-Identifier: Apache-2.0
//! A CPU limit, by whichever version of control groups this boot has, against the group's own `cpu.stat`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::counters::Scene;
use crate::counters::near;
use crate::doctor::Doctor;
use crate::machine::Machine;
use crate::machine::read;
use crate::report::ns;
use crate::until;

/// The period of a limit.
const PERIOD_US: u64 = 100_000;
/// What of it may be used.
const QUOTA_US: u64 = 25_000;

/// Which version has the CPU controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A group with a CPU limit; removed when dropped.
pub(crate) struct Limited {
    path: PathBuf,
    pub(crate) version: Version,
}

/// Where the CPU controller is: the mount point of its v1 hierarchy, or else of v2.
fn cpu_controller() -> (PathBuf, Version) {
    let mut unified = None;
    for line in read("/proc/mounts").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, at, kind, options, ..] = words.as_slice() else {
            continue;
        };
        if *kind == "cgroup" && options.split(',').any(|option| option == "cpu") {
            return (PathBuf::from(at), Version::V1);
        }
        if *kind == "cgroup2" {
            unified = Some(PathBuf::from(at));
        }
    }
    (unified.expect("a CPU controller"), Version::V2)
}

impl Limited {
    pub(crate) fn create(name: &str) -> Limited {
        let (root, version) = cpu_controller();
        if version == Version::V2 {
            fs::write(root.join("cgroup.subtree_control"), "+cpu").expect("a CPU controller");
        }
        let path = root.join(name);
        fs::create_dir(&path).expect("a control group");
        let limited = Limited { path, version };
        match version {
            Version::V2 => limited.write("cpu.max", &format!("{QUOTA_US} {PERIOD_US}")),
            Version::V1 => {
                limited.write("cpu.cfs_period_us", &PERIOD_US.to_string());
                limited.write("cpu.cfs_quota_us", &QUOTA_US.to_string());
            }
        }
        limited
    }

    pub(crate) fn write(&self, file: &str, value: &str) {
        fs::write(self.path.join(file), value).expect("a limit");
    }

    fn procs(&self) -> String {
        self.path.join("cgroup.procs").display().to_string()
    }

    /// How long its one thread was throttled, by the kernel.
    pub(crate) fn throttled_ns(&self) -> u64 {
        let (key, unit) = match self.version {
            Version::V1 => ("throttled_time ", 1),
            Version::V2 => ("throttled_usec ", 1_000),
        };
        let stat = read(self.path.join("cpu.stat"));
        let value = stat.lines().find_map(|line| line.strip_prefix(key));
        value
            .and_then(|value| value.parse::<u64>().ok())
            .expect(key)
            * unit
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // A dead process leaves its group a moment after it was reaped.
        until("the group is empty", || fs::remove_dir(&self.path).ok());
    }
}

/// One thread over its limit: as long throttled as `cpu.stat` says, and by whose limit.
fn one_thread_over_its_limit(expected: Version) {
    let limited = Limited::create("lacuna-limited");
    assert_eq!(limited.version, expected);
    let scene = Scene::run(&["throttled", &limited.procs()]);
    let throttled_ns = limited.throttled_ns();
    let worker = scene.worker("throttled");
    let cause = worker.cause("throttle");
    let cause = cause.unwrap_or_else(|| panic!("{throttled_ns} ns: {:#}", worker.thread));
    let found = ns(&cause["ns"]);
    // The limit goes on while its thread waits for something else, for a file as it ends: then that is
    // what it waits for, and the queue is counted all the same. And it goes on once its thread is dead,
    // which ends at about the end of its quota: so the least is what the thread read at its end.
    let (noted_ns, blocked_ns) = (worker.noted("throttled_ns"), worker.blocked_ns());
    eprintln!(
        "throttled {found} ns, blocked {blocked_ns} ns; cpu.stat: {noted_ns} ns at its end, \
         {throttled_ns} ns at last"
    );
    assert!(noted_ns > 0, "{:#}", worker.thread);
    let most = found + blocked_ns;
    assert!(most > noted_ns || near(most, noted_ns), "{cause:#}");
    assert!(
        found < throttled_ns || near(found, throttled_ns),
        "{cause:#}"
    );
    assert_eq!(ns(&cause["state"]["runnable_ns"]), found, "{cause:#}");
    let text = cause.to_string();
    assert!(text.contains("/lacuna-limited"), "whose limit: {cause:#}");
}

#[test]
#[ignore = "only in a guest"]
fn guest_v2_a_cpu_limit_is_as_long_as_cpu_stat_says() {
    let _machine = Machine::alone();
    one_thread_over_its_limit(Version::V2);
}

#[test]
#[ignore = "only in a guest"]
fn guest_v1_a_cpu_limit_is_as_long_as_cpu_stat_says() {
    let _machine = Machine::alone();
    one_thread_over_its_limit(Version::V1);
}

#[test]
#[ignore = "only in a guest"]
fn guest_v2_only_v2_is_there_and_doctor_says_so() {
    let _machine = Machine::alone();
    assert!(!has_mount("cgroup") && has_mount("cgroup2"));
    let groups = Doctor::ask().check("control groups");
    assert_eq!(groups["status"], "ok", "{groups:#}");
    let why = groups["why"].as_str().expect("why");
    assert!(why.starts_with("v2 (") && !why.contains("v1"), "{why}");
    let controllers = read(cpu_controller().0.join("cgroup.controllers"));
    for controller in controllers.split_whitespace() {
        assert!(why.contains(controller), "{controller} in {why}");
    }
}

#[test]
#[ignore = "only in a guest"]
fn guest_v1_only_v1_is_there_and_doctor_says_so() {
    let _machine = Machine::alone();
    assert!(has_mount("cgroup") && !has_mount("cgroup2"));
    let groups = Doctor::ask().check("control groups");
    assert_eq!(groups["status"], "ok", "{groups:#}");
    let why = groups["why"].as_str().expect("why");
    assert!(why.starts_with("v2 not mounted, v1 ("), "{why}");
    assert!(why.contains("cpu"), "{why}");
}

fn has_mount(kind: &str) -> bool {
    let mounts = read("/proc/mounts");
    let mut kinds = mounts.lines().filter_map(|line| line.split(' ').nth(2));
    assert!(Path::new("/sys/fs/cgroup").is_dir());
    kinds.any(|one| one == kind)
}
