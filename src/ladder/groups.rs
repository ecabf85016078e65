// SPDX-License-Identifier: Apache-2.0
//! What the control groups of a process counted between two readings: throttling, memory events,
//! pressure. Its own group and every one around it, since a limit holds for all below.

use std::path::PathBuf;

use lacuna_host::Root;
use lacuna_host::cgroup::CpuStat;
use lacuna_host::cgroup::Hierarchy;
use lacuna_host::cgroup::MemoryEvents;
use lacuna_host::cgroup::with_ancestors;
use lacuna_host::counters::grown;
use lacuna_host::pressure::Pressure;
use lacuna_host::process::ProcessFacts;

use super::facts::LimitedGroup;
use super::facts::MemoryGroup;
use super::facts::Seen;
use super::facts::Stall;
use super::facts::Void;
use super::reading::Host;

/// The most groups around one another that are looked at; systems nest some ten.
const DEPTH_MAX: usize = 64;

/// Each group: path, limit in CPUs, counters.
pub(super) type CpuReading = Vec<(String, Option<f64>, CpuStat)>;
/// Each group: path, limit in bytes, events.
pub(super) type MemoryReading = Vec<(String, Option<u64>, MemoryEvents)>;

/// The hierarchy that holds a controller, and where in it the process is.
fn place<'a>(
    host: &'a Host,
    process: &'a ProcessFacts,
    controller: &str,
) -> Seen<(&'a Hierarchy, &'a str)> {
    let hierarchy = host.cgroups.with(controller);
    let path = process.cgroup.of(controller);
    let (Some(hierarchy), Some(path)) = (hierarchy, path) else {
        return Err(Void::new(
            format!("no mounted cgroup hierarchy has the {controller} controller"),
            "mount it, or enable it in cgroup.subtree_control",
        ));
    };
    if !host.root.exists(hierarchy.file(path, "")) {
        return Err(Void::new(
            format!("the cgroup {path} is not visible from here"),
            "run the ladder on the host, outside of cgroup namespaces",
        ));
    }
    Ok((hierarchy, path))
}

/// The CPU counters of the groups of a process.
pub(super) fn read_cpu(host: &Host, process: &ProcessFacts) -> Seen<CpuReading> {
    let (hierarchy, path) = place(host, process, "cpu")?;
    let read = |path: &str| {
        // The root group has no such files, and no limit.
        let stat = hierarchy.cpu_stat(&host.root, path).ok()?;
        let limit = hierarchy.cpu_limit(&host.root, path).ok()?;
        Some((path.to_owned(), limit.cpus(), stat))
    };
    Ok(with_ancestors(path)
        .take(DEPTH_MAX)
        .filter_map(read)
        .collect())
}

/// What their limits have denied since; groups that had a limit at either instant.
pub(super) fn grow_cpu(
    host: &Host,
    process: &ProcessFacts,
    first: CpuReading,
) -> Seen<Vec<LimitedGroup>> {
    let now = read_cpu(host, process)?;
    let grow = |(path, limit, stat): (String, Option<f64>, CpuStat)| {
        let (_, before_limit, before) = first.iter().find(|(before, ..)| *before == path)?;
        Some(LimitedGroup {
            cpus: limit.or(*before_limit)?,
            periods: grown(before.periods, stat.periods)?,
            throttled_periods: grown(before.throttled_periods, stat.throttled_periods)?,
            throttled_ns: grown(before.throttled_ns, stat.throttled_ns)?,
            path,
        })
    };
    Ok(now.into_iter().filter_map(grow).collect())
}

/// The memory events of the groups of a process.
pub(super) fn read_memory(host: &Host, process: &ProcessFacts) -> Seen<MemoryReading> {
    let (hierarchy, path) = place(host, process, "memory")?;
    let read = |path: &str| {
        // The root group has no such files, and no limit.
        let events = hierarchy.memory_events(&host.root, path).ok()?;
        let limit = hierarchy.memory_limit(&host.root, path).ok().flatten();
        Some((path.to_owned(), limit, events))
    };
    Ok(with_ancestors(path)
        .take(DEPTH_MAX)
        .filter_map(read)
        .collect())
}

/// How often they have run into their limits since.
pub(super) fn grow_memory(
    host: &Host,
    process: &ProcessFacts,
    first: MemoryReading,
) -> Seen<Vec<MemoryGroup>> {
    let now = read_memory(host, process)?;
    let grow = |(path, limit_bytes, events): (String, Option<u64>, MemoryEvents)| {
        let (.., before) = first.iter().find(|(before, ..)| *before == path)?;
        Some(MemoryGroup {
            limit_bytes,
            high: grown(before.high, events.high)?,
            max: grown(before.max, events.max)?,
            oom_kills: grown(before.oom_kills, events.oom_kills)?,
            path,
        })
    };
    let limited = |group: &MemoryGroup| group.limit_bytes.is_some() || group.oom_kills > 0;
    Ok(now.into_iter().filter_map(grow).filter(limited).collect())
}

/// The pressure of the host, and of the group of the process where it has one of its own.
pub(super) struct PressureReading(Vec<(&'static str, Option<PathBuf>, Pressure)>);

impl PressureReading {
    pub(super) fn take(host: &Host, process: &ProcessFacts) -> Seen<Self> {
        let mut read = Vec::new();
        let own = process.cgroup.unified().filter(|path| *path != "/");
        for resource in ["cpu", "memory", "io"] {
            let of_host = Pressure::of_host(&host.root, resource);
            read.push((resource, None, of_host.map_err(|error| psi_void(&error))?));
            let file = host
                .cgroups
                .unified()
                .zip(own)
                .map(|(hierarchy, path)| hierarchy.file(path, &format!("{resource}.pressure")));
            if let Some(file) = file
                && let Ok(pressure) = Pressure::read(&host.root, &file)
            {
                read.push((resource, Some(file), pressure));
            }
        }
        Ok(Self(read))
    }

    pub(super) fn grow(self, root: &Root) -> Vec<Stall> {
        let grow = |(resource, file, before): (&'static str, Option<PathBuf>, Pressure)| {
            let now = match &file {
                None => Pressure::of_host(root, resource).ok()?,
                Some(file) => Pressure::read(root, file).ok()?,
            };
            Some(Stall {
                resource,
                own_group: file.is_some(),
                some_ns: grown(before.some_ns, now.some_ns)?,
                full_ns: grown(before.full_ns, now.full_ns)?,
            })
        };
        self.0.into_iter().filter_map(grow).collect()
    }
}

fn psi_void(error: &std::io::Error) -> Void {
    match error.kind() {
        std::io::ErrorKind::NotFound => Void::new(
            "PSI is off, or this kernel has none (CONFIG_PSI, 4.20 and later)",
            "boot with psi=1",
        ),
        _ => Void::new("PSI is off", "boot with psi=1"),
    }
}
