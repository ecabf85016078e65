// SPDX-License-Identifier: Apache-2.0
//! Whom each way of asking means, on a made-up host: nobody, one, several, too many; and those that
//! cannot be looked at.

use std::path::Path;

use lacuna_host::Root;

use super::PROCESSES_MAX;
use super::Target;
use super::select;

const CONTAINER: &str = "8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f8e3b2a1f";
const KERNEL_THREAD: u32 = 0x0020_0000;

/// A process of the made-up host, of one thread.
fn process(base: &Path, pid: u32, comm: &str, state: char, flags: u32, cgroup: &str) {
    let stat =
        format!("{pid} ({comm}) {state} 1 0 0 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 {pid} 0 0\n");
    let status = format!("Tgid:\t{pid}\nPid:\t{pid}\nUid:\t33\t33\t33\t33\nNSpid:\t{pid}\n");
    let directory = base.join(format!("proc/{pid}"));
    let task = directory.join(format!("task/{pid}"));
    std::fs::create_dir_all(&task).unwrap();
    for (file, text) in [
        (directory.join("stat"), &stat),
        (task.join("stat"), &stat),
        (directory.join("status"), &status),
        (directory.join("cgroup"), &format!("0::{cgroup}\n")),
    ] {
        std::fs::write(file, text).unwrap();
    }
}

/// Two of a name, of a unit and of a container; the kernel's, one that has ended, and one more.
fn host() -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    let scope = format!("/system.slice/docker-{CONTAINER}.scope");
    let unit = "/system.slice/payments.service";
    process(base.path(), 2, "worker", 'S', KERNEL_THREAD, "/");
    process(base.path(), 10, "worker", 'S', 0, unit);
    process(base.path(), 11, "worker", 'R', 0, unit);
    process(base.path(), 12, "worker", 'Z', 0, unit);
    process(base.path(), 20, "nginx", 'S', 0, &scope);
    process(base.path(), 21, "a) S 1 (b", 'S', 0, &scope);
    base
}

fn pids(base: &Path, target: &Target) -> Result<Vec<u32>, String> {
    let found = select(&Root::at(base), target).map_err(|error| error.to_string())?;
    let mut pids: Vec<u32> = found.iter().map(|facts| facts.tgid).collect();
    pids.sort_unstable();
    Ok(pids)
}

#[test]
fn all_that_are_meant_are_found_and_no_others() {
    let host = host();
    let found = |target| pids(host.path(), &target);
    assert_eq!(found(Target::Pid(10)), Ok(vec![10]));
    assert_eq!(found(Target::Comm("worker".to_owned())), Ok(vec![10, 11]));
    assert_eq!(found(Target::Comm("a) S 1 (b".to_owned())), Ok(vec![21]));
    let unit = "payments.service".to_owned();
    assert_eq!(found(Target::Unit(unit)), Ok(vec![10, 11]));
    let short = CONTAINER[..12].to_owned();
    assert_eq!(found(Target::Container(short)), Ok(vec![20, 21]));
}

#[test]
fn nobody_is_said_and_why_where_it_is_known() {
    let host = host();
    let refused = |target| pids(host.path(), &target).expect_err("nobody");
    for (target, why) in [
        (Target::Pid(99), "there is no process 99"),
        (Target::Pid(2), "2 is worker, a thread of the kernel"),
        (Target::Pid(12), "process 12 (worker) has ended"),
        (Target::Comm("wor".to_owned()), "no process is called"),
        (
            Target::Unit("a.service".to_owned()),
            "in the unit a.service",
        ),
        (
            Target::Container("8e3b2a1f8e3c".to_owned()),
            "in a container",
        ),
        (Target::Port(1), "listens on TCP port 1"),
    ] {
        let said = refused(target.clone());
        assert!(said.contains(why), "{target:?}: {said}");
    }
}

#[test]
fn more_than_can_be_looked_at_are_refused_and_none_is_left_out() {
    let base = tempfile::tempdir().unwrap();
    let target = Target::Comm("crowd".to_owned());
    let most = u32::try_from(PROCESSES_MAX).unwrap();
    (1..=most).for_each(|n| process(base.path(), 100 + n, "crowd", 'S', 0, "/"));
    let found = pids(base.path(), &target).expect("as many as are allowed");
    assert_eq!(found.len(), PROCESSES_MAX);
    process(base.path(), 100, "crowd", 'S', 0, "/");
    let said = pids(base.path(), &target).expect_err("one too many");
    assert!(said.contains("33 processes are meant"), "{said}");
    assert!(said.contains("take one of them with --pid"), "{said}");
}
