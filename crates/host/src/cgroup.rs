// SPDX-License-Identifier: Apache-2.0
//! Control groups, both versions: where a process is, what a group is called, and its CPU limit.
//!
//! The kernel side names a group by its kernfs id, which on 64-bit kernels is the inode number of
//! its directory; it is unique within one hierarchy only, so a [`GroupNames`] belongs to one. Paths
//! are those of the hierarchy (`/kubepods/...`), not of the file system. Nothing is ever written.

use crate::root::Root;
use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

/// Length of the container ids of Docker, containerd, CRI-O and Podman.
const CONTAINER_ID_DIGITS: usize = 64;

/// Length of a pod's UID.
const POD_UID_LETTERS: usize = 36;

/// The most groups of one hierarchy that [`GroupNames`] remembers (about 150 bytes each).
pub const GROUPS_MAX: usize = 16_384;

/// A directory walk is not repeated within this, however many ids are unknown.
const WALK_INTERVAL: Duration = Duration::from_secs(1);

/// Where a process is in each hierarchy: `/proc/PID/cgroup`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CgroupPaths {
    unified: Option<Box<str>>,
    /// Comma-separated controllers (or `name=...`) and path.
    legacy: Vec<(Box<str>, Box<str>)>,
}

impl CgroupPaths {
    /// From the text of `/proc/PID/cgroup`; lines in an unknown form are skipped.
    pub fn parse(text: &str) -> Self {
        let mut paths = Self::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if controllers.is_empty() {
                paths.unified = Some(path.into());
            } else {
                paths.legacy.push((controllers.into(), path.into()));
            }
        }
        paths
    }

    /// The path in the unified (v2) hierarchy.
    pub fn unified(&self) -> Option<&str> {
        self.unified.as_deref()
    }

    /// The path in the hierarchy that holds a controller: v1 where it is mounted there, else v2.
    pub fn of(&self, controller: &str) -> Option<&str> {
        let legacy = self
            .legacy
            .iter()
            .find(|(names, _)| names.split(',').any(|n| n == controller));
        legacy.map(|(_, path)| &**path).or(self.unified())
    }

    /// The id of the innermost container that any of the paths names.
    pub fn container(&self) -> Option<&str> {
        self.all()
            .find_map(|path| path.rsplit('/').find_map(container_in))
    }

    /// The innermost systemd unit that any of the paths names.
    pub fn unit(&self) -> Option<&str> {
        let is_unit = |name: &&str| name.ends_with(".service") || name.ends_with(".scope");
        self.all().find_map(|path| path.rsplit('/').find(is_unit))
    }

    /// The UID of the Kubernetes pod that any of the paths names, with hyphens.
    pub fn pod(&self) -> Option<String> {
        self.all()
            .find_map(|path| path.rsplit('/').find_map(pod_in))
    }

    /// Its path in each hierarchy, the unified one first.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.unified()
            .into_iter()
            .chain(self.legacy.iter().map(|(_, path)| &**path))
    }
}

/// The container id in one component of a path: bare, or as in `docker-ID.scope`.
fn container_in(component: &str) -> Option<&str> {
    // Podman's monitor process lives beside the container, in a scope named after it.
    if component.starts_with("libpod-conmon-") || component.starts_with("crio-conmon-") {
        return None;
    }
    let bare = component.strip_suffix(".scope").unwrap_or(component);
    let id = bare.rsplit_once('-').map_or(bare, |(_, id)| id);
    let is_id = id.len() == CONTAINER_ID_DIGITS
        && id
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then_some(id)
}

/// The pod UID in `podUID` or `kubepods-burstable-podUID.slice` (there with underscores).
fn pod_in(component: &str) -> Option<String> {
    let bare = component.strip_suffix(".slice").unwrap_or(component);
    let at = bare.rfind("pod")?;
    let uid = bare.get(at + "pod".len()..)?.replace('_', "-");
    let is_uid = uid.len() == POD_UID_LETTERS
        && uid
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    is_uid.then_some(uid)
}

/// Which interface a hierarchy has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// One hierarchy for a set of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hierarchy {
    /// Which interface its files have.
    pub version: Version,
    /// Its controllers (v2: those that its root offers).
    pub controllers: Vec<Box<str>>,
    /// Where it is mounted.
    mount: PathBuf,
    /// The path of the group that is mounted there; `/` outside of containers.
    mounted_group: String,
}

impl Hierarchy {
    /// The directory of a group.
    fn directory(&self, root: &Root, path: &str) -> PathBuf {
        let below = path
            .strip_prefix(self.mounted_group.trim_end_matches('/'))
            .unwrap_or(path);
        root.path(&self.mount).join(below.trim_start_matches('/'))
    }

    /// The CPU limit of a group itself (an ancestor's may be tighter).
    ///
    /// # Errors
    /// The group is gone, or the hierarchy has no CPU controller.
    pub fn cpu_limit(&self, root: &Root, path: &str) -> io::Result<CpuLimit> {
        let directory = self.directory(root, path);
        let limit = match self.version {
            Version::V2 => CpuLimit::parse_v2(&read(&directory, "cpu.max")?),
            Version::V1 => CpuLimit::parse_v1(
                &read(&directory, "cpu.cfs_quota_us")?,
                &read(&directory, "cpu.cfs_period_us")?,
            ),
        };
        limit.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a CPU limit"))
    }

    /// What a group itself may use at most, bytes: the lower of `memory.high` and `memory.max`, or the
    /// one limit of v1. `None`: it is not limited (an ancestor may be).
    ///
    /// # Errors
    /// The group is gone, or the hierarchy has no memory controller.
    pub fn memory_limit(&self, root: &Root, path: &str) -> io::Result<Option<u64>> {
        let files: &[&str] = match self.version {
            Version::V2 => &["memory.high", "memory.max"],
            Version::V1 => &["memory.limit_in_bytes"],
        };
        let directory = self.directory(root, path);
        let limits: io::Result<Vec<Option<u64>>> = files
            .iter()
            .map(|file| Ok(memory_limit_in(&read(&directory, file)?)))
            .collect();
        Ok(limits?.into_iter().flatten().min())
    }

    /// Where one of a group's files is.
    pub fn file(&self, path: &str, name: &str) -> PathBuf {
        self.directory(&Root::host(), path).join(name)
    }

    /// How often a group, not those below it, ran into its memory limits. Before 5.2 version 2 told
    /// it only with those below.
    ///
    /// # Errors
    /// The group is gone, is the root, or the hierarchy has no memory controller.
    pub fn memory_events(&self, root: &Root, path: &str) -> io::Result<MemoryEvents> {
        let directory = self.directory(root, path);
        match self.version {
            Version::V2 => {
                let own = read(&directory, "memory.events.local");
                let text = own.or_else(|_| read(&directory, "memory.events"))?;
                Ok(MemoryEvents::parse_v2(&text))
            }
            Version::V1 => {
                let failcnt = read(&directory, "memory.failcnt")?;
                let oom = read(&directory, "memory.oom_control").unwrap_or_default();
                let events = MemoryEvents::parse_v1(&failcnt, &oom);
                events.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a count"))
            }
        }
    }

    /// The throttling counters of a group.
    ///
    /// # Errors
    /// The group is gone, or the hierarchy has no CPU controller.
    pub fn cpu_stat(&self, root: &Root, path: &str) -> io::Result<CpuStat> {
        Ok(CpuStat::parse(&read(
            &self.directory(root, path),
            "cpu.stat",
        )?))
    }
}

/// A group and all those around it, from itself to the root of the hierarchy: a limit of any of them
/// holds for what is in it.
pub fn with_ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |path| {
        Some(path.rsplit_once('/')?.0)
    })
    .map(|path| if path.is_empty() { "/" } else { path })
}

/// A number of bytes; `max`, and of v1 what no machine has, is no limit.
fn memory_limit_in(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&bytes| bytes < 1 << 62)
}

fn read(directory: &Path, file: &str) -> io::Result<String> {
    std::fs::read_to_string(directory.join(file))
}

/// The hierarchies that are mounted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cgroups {
    /// All of them, in the order that they were mounted.
    pub hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    /// Looks for the mounted hierarchies.
    ///
    /// # Errors
    /// The mount table could not be read.
    pub fn discover(root: &Root) -> io::Result<Self> {
        let mut hierarchies = parse_mounts(&root.read("/proc/self/mountinfo")?);
        for hierarchy in &mut hierarchies {
            if hierarchy.version == Version::V2 {
                let offered = root.read(hierarchy.mount.join("cgroup.controllers"));
                let offered = offered.unwrap_or_default();
                hierarchy.controllers = offered.split_ascii_whitespace().map(Into::into).collect();
            }
        }
        Ok(Self { hierarchies })
    }

    /// The unified (v2) hierarchy, with or without controllers.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.version == Version::V2)
    }

    /// The hierarchy that holds a controller (`cpu`, `memory`, `io`, ...).
    pub fn with(&self, controller: &str) -> Option<&Hierarchy> {
        let holds = |h: &&Hierarchy| h.controllers.iter().any(|name| &**name == controller);
        self.hierarchies.iter().find(holds)
    }
}

/// `ID PARENT DEV ROOT MOUNT OPTIONS [FIELDS...] - TYPE SOURCE SUPEROPTIONS`, a mount a line.
/// A hierarchy that is mounted twice is taken once.
fn parse_mounts(text: &str) -> Vec<Hierarchy> {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for line in text.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else {
            continue;
        };
        let mut mount = mount.split(' ').skip(3);
        let (Some(group), Some(mount)) = (mount.next(), mount.next()) else {
            continue;
        };
        let mut kind = kind.split(' ');
        let (version, controllers) = match (kind.next(), kind.next(), kind.next()) {
            (Some("cgroup2"), ..) => (Version::V2, Vec::new()),
            (Some("cgroup"), _, Some(options)) => (Version::V1, v1_controllers(options)),
            _ => continue,
        };
        let known = |h: &Hierarchy| h.version == version && h.controllers == controllers;
        if !hierarchies.iter().any(known) {
            hierarchies.push(Hierarchy {
                version,
                controllers,
                mount: unescape(mount).into(),
                mounted_group: unescape(group),
            });
        }
    }
    hierarchies
}

/// The super options of a v1 mount are its controllers, and a few options that are none.
fn v1_controllers(options: &str) -> Vec<Box<str>> {
    const OPTIONS: [&str; 6] = [
        "rw",
        "ro",
        "xattr",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
    ];
    let is_controller =
        |name: &&str| !OPTIONS.contains(name) && !name.starts_with("release_agent=");
    options
        .split(',')
        .filter(is_controller)
        .map(Into::into)
        .collect()
}

/// Blanks and backslashes in the mount table are written in octal: `\040`.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        let code = escape
            .get(1..4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (letter, length) = code.map_or(('\\', 1), |code| (char::from(code), 4));
        plain.push(letter);
        rest = escape.get(length..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

/// A CPU bandwidth limit: so much CPU time in each period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuLimit {
    /// CPU time a period, microseconds; `None`: no limit.
    pub quota_us: Option<u64>,
    /// Length of the period, microseconds.
    pub period_us: u64,
}

impl CpuLimit {
    /// `cpu.max`: `max 100000` or `200000 100000`.
    pub fn parse_v2(text: &str) -> Option<Self> {
        let (quota, period) = text.trim().split_once(' ')?;
        let quota_us = if quota == "max" {
            None
        } else {
            Some(quota.parse().ok()?)
        };
        Some(Self {
            quota_us,
            period_us: period.parse().ok()?,
        })
    }

    /// `cpu.cfs_quota_us` (-1: no limit) and `cpu.cfs_period_us`.
    pub fn parse_v1(quota: &str, period: &str) -> Option<Self> {
        let quota: i64 = quota.trim().parse().ok()?;
        Some(Self {
            quota_us: u64::try_from(quota).ok(),
            period_us: period.trim().parse().ok()?,
        })
    }

    /// How many CPUs it amounts to; `None`: no limit.
    pub fn cpus(&self) -> Option<f64> {
        // Both are far below 2^53 (a quota is at most some hours), so nothing is rounded.
        Some(self.quota_us? as f64 / self.period_us.max(1) as f64)
    }
}

/// The throttling counters of a group: `cpu.stat` of both versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuStat {
    /// Periods in which the group wanted to run.
    pub periods: u64,
    /// Those in which it was throttled.
    pub throttled_periods: u64,
    /// Sum over its per-CPU queues (not over threads, rule 7), nanoseconds.
    pub throttled_ns: u64,
}

impl CpuStat {
    /// From the text of `cpu.stat`; what is missing is 0.
    pub fn parse(text: &str) -> Self {
        let mut stat = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let Ok(value) = value.trim().parse::<u64>() else {
                continue;
            };
            match key {
                "nr_periods" => stat.periods = value,
                "nr_throttled" => stat.throttled_periods = value,
                "throttled_time" => stat.throttled_ns = value,
                "throttled_usec" => stat.throttled_ns = value.saturating_mul(1_000),
                _ => {}
            }
        }
        stat
    }
}

/// How often a group ran into its memory limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryEvents {
    /// It was above `memory.high`, and its threads had to reclaim; version 2 only.
    pub high: u64,
    /// It was about to be above its limit: `memory.max`, or `memory.failcnt` of version 1.
    pub max: u64,
    /// Processes of it that were killed because nothing could be reclaimed.
    pub oom_kills: u64,
}

impl MemoryEvents {
    /// `memory.events`, or better `memory.events.local`: a number behind each name.
    pub fn parse_v2(text: &str) -> Self {
        Self {
            high: keyed(text, "high"),
            max: keyed(text, "max"),
            oom_kills: keyed(text, "oom_kill"),
        }
    }

    /// `memory.failcnt` and `memory.oom_control` (which counts kills from 4.13 on).
    pub fn parse_v1(failcnt: &str, oom_control: &str) -> Option<Self> {
        Some(Self {
            high: 0,
            max: failcnt.trim().parse().ok()?,
            oom_kills: keyed(oom_control, "oom_kill"),
        })
    }
}

/// The number behind a name, a pair a line; 0 where it is not told.
fn keyed(text: &str, name: &str) -> u64 {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    let value = pairs.find_map(|(key, value)| (key == name).then(|| value.trim().parse().ok()));
    value.flatten().unwrap_or(0)
}

/// The names of the groups of one hierarchy by their kernfs ids.
#[derive(Debug)]
pub struct GroupNames {
    root: Root,
    hierarchy: Hierarchy,
    paths: HashMap<u64, Box<str>>,
    walked: Option<Instant>,
}

impl GroupNames {
    /// Knows nothing yet, and reads nothing yet.
    pub fn new(root: Root, hierarchy: Hierarchy) -> Self {
        Self {
            root,
            hierarchy,
            paths: HashMap::new(),
            walked: None,
        }
    }

    /// The path of a group. An unknown id makes it walk the directories, at most once a second. A
    /// group that was removed keeps its name for as long as there is room: ids are not reused.
    pub fn path(&mut self, id: u64) -> Option<&str> {
        let rested = self
            .walked
            .is_none_or(|walked| walked.elapsed() >= WALK_INTERVAL);
        if !self.paths.contains_key(&id) && rested {
            self.walk();
        }
        self.paths.get(&id).map(|path| &**path)
    }

    fn walk(&mut self) {
        let found = walk(
            &self.root.path(&self.hierarchy.mount),
            &self.hierarchy.mounted_group,
        );
        if self.paths.len() + found.len() > GROUPS_MAX {
            self.paths.clear();
        }
        self.paths.extend(found);
        self.walked = Some(Instant::now());
    }
}

/// All directories below a mount, with their inodes; at most [`GROUPS_MAX`].
fn walk(mount: &Path, mounted_group: &str) -> Vec<(u64, Box<str>)> {
    let Ok(metadata) = std::fs::metadata(mount) else {
        return Vec::new();
    };
    let mut found: Vec<(u64, Box<str>)> = vec![(metadata.ino(), mounted_group.into())];
    let mut next = 0;
    while let Some((_, path)) = found.get(next).cloned() {
        next += 1;
        let group: &str = &path;
        let prefix = group.trim_end_matches('/');
        let below = prefix
            .strip_prefix(mounted_group.trim_end_matches('/'))
            .unwrap_or_default();
        let Ok(entries) = std::fs::read_dir(mount.join(below.trim_start_matches('/'))) else {
            continue;
        };
        for entry in entries.flatten() {
            if found.len() == GROUPS_MAX {
                return found;
            }
            // The inode that `stat` tells: on overlays the directory entry names another.
            let Some(metadata) = entry.metadata().ok().filter(Metadata::is_dir) else {
                continue;
            };
            let name = entry.file_name();
            found.push((
                metadata.ino(),
                format!("{prefix}/{}", name.to_string_lossy()).into(),
            ));
        }
    }
    found
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
