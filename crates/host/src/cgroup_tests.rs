// SPDX-License-Identifier: Apache-2.0
//! Paths, limits and mounts of hosts with v1, v2 and both, as real ones write them.

use super::CgroupPaths;
use super::Cgroups;
use super::CpuLimit;
use super::CpuStat;
use super::GroupNames;
use super::MemoryEvents;
use super::Version;
use super::container_in;
use super::parse_mounts;
use super::unescape;
use super::with_ancestors;
use crate::mutate::mutations;
use crate::root::Root;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const ID: &str = "8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f";

const BOTH: &str = "\
25 24 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
27 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
28 25 0:25 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
29 25 0:24 / /mnt/again rw,relatime - cgroup cgroup rw,cpu,cpuacct
";

fn host(mounts: &str) -> (tempfile::TempDir, Root) {
    let base = tempfile::tempdir().unwrap();
    write(base.path(), "proc/self/mountinfo", mounts);
    let root = Root::at(base.path());
    (base, root)
}

fn write(base: &Path, file: &str, text: &str) {
    let file = base.join(file);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

#[test]
fn paths_are_found_by_controller() {
    let paths = CgroupPaths::parse("4:memory:/m\n2:cpu,cpuacct:/c:with:colons\n0::/u\nnonsense\n");
    assert_eq!(paths.unified(), Some("/u"));
    assert_eq!(paths.of("memory"), Some("/m"));
    assert_eq!(paths.of("cpuacct"), Some("/c:with:colons"));
    assert_eq!(
        paths.of("io"),
        Some("/u"),
        "not in v1: then it is in the unified one"
    );
    assert_eq!(CgroupPaths::parse("").of("cpu"), None);
}

#[test]
fn containers_are_found_in_the_paths_of_each_runtime() {
    let paths = [
        format!("0::/docker/{ID}"),
        format!("0::/system.slice/docker-{ID}.scope"),
        format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
        format!("0::/kubepods/burstable/pod1/{ID}"),
        format!("0::/machine.slice/libpod-{ID}.scope/container"),
        format!("3:cpu:/docker/{ID}\n0::/"),
        format!("0::/docker/{}/docker/{ID}", ID.replace('8', "9")),
    ];
    for path in paths {
        assert_eq!(CgroupPaths::parse(&path).container(), Some(ID), "{path}");
    }
}

#[test]
fn what_only_looks_like_a_container_is_none() {
    let upper = ID.to_uppercase();
    for name in [
        "",
        "docker",
        &ID[1..],
        &format!("{ID}0"),
        &upper,
        &format!("libpod-conmon-{ID}.scope"),
    ] {
        assert_eq!(container_in(name), None, "{name:?}");
    }
}

#[test]
fn units_and_pods_are_found() {
    let unit = CgroupPaths::parse("0::/user.slice/user@1000.service/app.slice/web.service/sub");
    assert_eq!(unit.unit(), Some("web.service"));
    assert_eq!(CgroupPaths::parse("0::/kubepods").unit(), None);
    let pod = "7f3e1c2d-0000-4000-8000-0123456789ab";
    let plain = CgroupPaths::parse(&format!("0::/kubepods/burstable/pod{pod}/{ID}"));
    assert_eq!(plain.pod().as_deref(), Some(pod));
    let slice = pod.replace('-', "_");
    let systemd = CgroupPaths::parse(&format!("0::/kubepods-burstable-pod{slice}.slice/x.scope"));
    assert_eq!(systemd.pod().as_deref(), Some(pod));
    assert_eq!(CgroupPaths::parse("0::/podman/libpod-1").pod(), None);
}

#[test]
fn a_host_with_both_versions() {
    let (base, root) = host(BOTH);
    write(
        base.path(),
        "sys/fs/cgroup/unified/cgroup.controllers",
        "\n",
    );
    let cgroups = Cgroups::discover(&root).unwrap();
    assert_eq!(
        cgroups.hierarchies.len(),
        3,
        "what is mounted twice counts once"
    );
    let cpu = cgroups.with("cpu").unwrap();
    assert_eq!(
        (cpu.version, cpu),
        (Version::V1, cgroups.with("cpuacct").unwrap())
    );
    assert!(cgroups.unified().unwrap().controllers.is_empty());
    assert!(cgroups.with("memory").is_none() && cgroups.with("rw").is_none());

    let group = "sys/fs/cgroup/cpu,cpuacct/web";
    write(base.path(), &format!("{group}/cpu.cfs_quota_us"), "50000\n");
    write(
        base.path(),
        &format!("{group}/cpu.cfs_period_us"),
        "100000\n",
    );
    write(
        base.path(),
        &format!("{group}/cpu.stat"),
        "nr_periods 9\nnr_throttled 4\nthrottled_time 77\n",
    );
    let limit = cpu.cpu_limit(&root, "/web").unwrap();
    assert_eq!((limit.quota_us, limit.cpus()), (Some(50_000), Some(0.5)));
    let stat = cpu.cpu_stat(&root, "/web").unwrap();
    assert_eq!(
        stat,
        CpuStat {
            periods: 9,
            throttled_periods: 4,
            throttled_ns: 77
        }
    );
    assert!(cpu.cpu_limit(&root, "/gone").is_err());
}

#[test]
fn a_host_with_the_unified_hierarchy_seen_from_a_container() {
    let mounts = "30 24 0:26 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw,nsdelegate\n";
    let (base, root) = host(mounts);
    write(
        base.path(),
        "sys/fs/cgroup/cgroup.controllers",
        "cpuset cpu io memory pids\n",
    );
    write(base.path(), "sys/fs/cgroup/web/cpu.max", "200000 100000\n");
    write(
        base.path(),
        "sys/fs/cgroup/web/cpu.stat",
        "usage_usec 5\nnr_periods 3\nthrottled_usec 12\n",
    );
    let cgroups = Cgroups::discover(&root).unwrap();
    let cpu = cgroups.with("cpu").unwrap();
    assert_eq!(cpu.version, Version::V2);
    assert_eq!(
        cpu.cpu_limit(&root, "/docker/1/web").unwrap().cpus(),
        Some(2.0)
    );
    assert_eq!(
        cpu.cpu_stat(&root, "/docker/1/web").unwrap().throttled_ns,
        12_000
    );
}

#[test]
fn a_host_without_cgroups_and_one_with_nonsense() {
    assert!(
        Cgroups::discover(&host("").1)
            .unwrap()
            .hierarchies
            .is_empty()
    );
    let nonsense = "\n-\n - \n1 2 3 4 5\n1 2 3 4 5 - cgroup\n1 - cgroup2\na b c d e - cgroup x\n";
    assert!(
        Cgroups::discover(&host(nonsense).1)
            .unwrap()
            .hierarchies
            .is_empty()
    );
    let base = tempfile::tempdir().unwrap();
    assert!(Cgroups::discover(&Root::at(base.path())).is_err());
}

#[test]
fn limits_in_their_forms() {
    let unlimited = CpuLimit {
        quota_us: None,
        period_us: 100_000,
    };
    assert_eq!(CpuLimit::parse_v2("max 100000\n"), Some(unlimited));
    assert_eq!(CpuLimit::parse_v1("-1\n", "100000\n"), Some(unlimited));
    assert_eq!(unlimited.cpus(), None);
    for text in ["", "max", "x 100000", "100000 y", "-5 100000"] {
        assert_eq!(CpuLimit::parse_v2(text), None, "{text:?}");
    }
    assert_eq!(CpuLimit::parse_v1("", "1"), None);
    assert_eq!(
        CpuLimit {
            quota_us: Some(5),
            period_us: 0
        }
        .cpus(),
        Some(5.0)
    );
    assert_eq!(
        CpuStat::parse("nr_periods x\nnr_throttled\n\n \n"),
        CpuStat::default()
    );
}

#[test]
fn memory_events_of_both_versions() {
    let v2 = "low 0\nhigh 12\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n";
    let told = MemoryEvents {
        high: 12,
        max: 3,
        oom_kills: 1,
    };
    assert_eq!(MemoryEvents::parse_v2(v2), told);
    assert_eq!(MemoryEvents::parse_v2("high x\n"), MemoryEvents::default());
    let v1 = MemoryEvents::parse_v1("7\n", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
    assert_eq!(
        v1.map(|events| (events.max, events.oom_kills)),
        Some((7, 2))
    );
    assert_eq!(MemoryEvents::parse_v1("", ""), None);

    let (base, root) = host("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    let cgroups = Cgroups::discover(&root).unwrap();
    let unified = cgroups.unified().unwrap();
    assert!(unified.memory_events(&root, "/web").is_err());
    write(base.path(), "sys/fs/cgroup/web/memory.events", "high 9\n");
    assert_eq!(unified.memory_events(&root, "/web").unwrap().high, 9);
    write(base.path(), "sys/fs/cgroup/web/memory.events.local", v2);
    assert_eq!(unified.memory_events(&root, "/web").unwrap(), told);
}

#[test]
fn a_group_is_in_all_those_around_it() {
    let around = |path| with_ancestors(path).collect::<Vec<_>>();
    assert_eq!(
        around("/a/b.slice/c"),
        ["/a/b.slice/c", "/a/b.slice", "/a", "/"]
    );
    assert_eq!(around("/"), ["/"]);
    assert_eq!(around(""), ["/"]);
}

#[test]
fn octal_escapes_of_the_mount_table() {
    assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
    assert_eq!(unescape(r"/a\"), r"/a\");
    assert_eq!(unescape(r"/a\9x9b"), r"/a\9x9b");
    assert_eq!(unescape("/\\04ä"), "/\\04ä");
}

#[test]
fn groups_are_named_by_the_inode_of_their_directory() {
    let (base, root) = host("30 24 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    let inner = base.path().join("sys/fs/cgroup/web.slice/api.service");
    std::fs::create_dir_all(&inner).unwrap();
    let id = |path: &Path| std::fs::metadata(path).unwrap().ino();
    let (top, inner_id) = (id(&base.path().join("sys/fs/cgroup")), id(&inner));
    let cgroups = Cgroups::discover(&root).unwrap();
    let mut names = GroupNames::new(root, cgroups.unified().unwrap().clone());
    assert_eq!(names.path(top), Some("/"));
    assert_eq!(names.path(inner_id), Some("/web.slice/api.service"));
    std::fs::remove_dir(&inner).unwrap();
    assert_eq!(
        names.path(inner_id),
        Some("/web.slice/api.service"),
        "removed, and remembered"
    );
    assert_eq!(names.path(u64::MAX), None);
}

#[test]
fn no_text_makes_the_parsers_fail() {
    let paths = format!("4:memory:/m\n0::/kubepods/podx/docker-{ID}.scope\n");
    for paths in mutations(&paths).map(|text| CgroupPaths::parse(&text)) {
        assert!(paths.container().is_none_or(|id| id.len() == ID.len()));
        assert!(paths.pod().is_none() && paths.unit().is_none_or(|unit| unit.contains('.')));
    }
    for hierarchy in mutations(BOTH).flat_map(|text| parse_mounts(&text)) {
        assert!(hierarchy.version == Version::V1 || hierarchy.controllers.is_empty());
    }
    for text in mutations("200000 100000") {
        let cpus = CpuLimit::parse_v2(&text).and_then(|limit| limit.cpus());
        assert!(cpus.is_none_or(|cpus| cpus >= 0.0), "{text:?}");
        let negative = CpuLimit::parse_v1(&format!("-{text}"), "100000");
        assert!(negative.is_none_or(|limit| limit.quota_us.is_none_or(|quota| quota == 0)));
    }
    for text in mutations("high 12\nmax 3\noom_kill 1\n") {
        let events = MemoryEvents::parse_v2(&text);
        assert_eq!(
            MemoryEvents::parse_v1("4", &text).unwrap().oom_kills,
            events.oom_kills
        );
        assert!(with_ancestors(&text).count() <= text.len() + 1);
    }
    let stat = "nr_periods 9\nnr_throttled 4\nthrottled_usec 77\n";
    let known = mutations(stat).filter(|text| CpuStat::parse(text) != CpuStat::default());
    assert!(known.count() > 100, "some are still good");
}

#[test]
fn the_lower_memory_limit_counts() {
    let (base, root) = host("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    for (high, max, limit) in [
        ("max", "max", None),
        ("4096", "max", Some(4096)),
        ("max", "8192", Some(8192)),
        ("4096", "8192", Some(4096)),
        ("16384", "8192", Some(8192)),
    ] {
        write(base.path(), "sys/fs/cgroup/web/memory.high", high);
        write(base.path(), "sys/fs/cgroup/web/memory.max", max);
        let cgroups = Cgroups::discover(&root).unwrap();
        let told = cgroups.unified().unwrap().memory_limit(&root, "/web");
        assert_eq!(told.unwrap(), limit, "{high} {max}");
    }
    let (base, root) = host("1 0 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    for (text, limit) in [("9223372036854771712\n", None), ("8192\n", Some(8192))] {
        let file = "sys/fs/cgroup/memory/web/memory.limit_in_bytes";
        write(base.path(), file, text);
        let cgroups = Cgroups::discover(&root).unwrap();
        let memory = cgroups.with("memory").unwrap();
        assert_eq!(memory.memory_limit(&root, "/web").unwrap(), limit);
        assert!(memory.memory_limit(&root, "/gone").is_err());
    }
}
