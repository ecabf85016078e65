// SPDX-License-Identifier: Apache-2.0
//! A command that needs more memory than its cgroup may use: the report names the limit, and adds up.
//! What the numbers themselves are held against is in `crates/probes/tests/memory.rs`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::report::Ran;
use crate::report::ns;
use crate::report::run;
use crate::until;

const MIB: usize = 1 << 20;

/// A memory cgroup, version 1 or 2; removed when dropped.
struct Group {
    path: PathBuf,
    name: String,
}

impl Group {
    fn limited(name: &str, bytes: usize) -> Group {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = match v1.exists() {
            true => (v1, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let name = format!("lacuna-{name}-{}", std::process::id());
        let path = root.join(&name);
        fs::create_dir(&path).expect("a memory cgroup can be made");
        let group = Group { path, name };
        fs::write(group.path.join(limit), bytes.to_string()).expect("the limit is set");
        group
    }

    /// Runs a command in it, and everything from its first instruction on.
    fn run(&self, command: &str) -> Ran {
        let procs = self.path.join("cgroup.procs");
        let script = format!("echo $$ >{} && exec {command}", procs.display());
        let ran = run(&[], &["bash", "-c", &script]);
        assert!(ran.status.success(), "{}", ran.said);
        assert_eq!(ran.report.threads().len(), 1, "{:#}", ran.report.0);
        ran
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        until("an empty cgroup", || fs::remove_dir(&self.path).ok());
    }
}

/// A file of which no page is in memory, on the disk that programs are built on.
fn cold_file(bytes: usize) -> NamedTempFile {
    let mut file = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
    let piece = vec![b'x'; MIB];
    for _ in 0..bytes / MIB {
        file.write_all(&piece).expect("room on the disk");
    }
    file.as_file().sync_all().expect("written back");
    let let_go = rustix::fs::Advice::DontNeed;
    rustix::fs::fadvise(file.as_file(), 0, None, let_go).expect("advice");
    file
}

fn cause<'a>(ran: &'a Ran, name: &str) -> Option<&'a Value> {
    let causes = ran.report.0["total"]["causes"].as_array().expect("causes");
    causes.iter().find(|cause| cause["cause"] == name)
}

#[test]
fn root_a_memory_limit_is_named_with_its_cgroup() {
    let file = cold_file(32 * MIB);
    let command = format!("cat {}", file.path().display());
    let wide = Group::limited("wide", 256 * MIB);
    let ran = wide.run(&format!("{command} >/dev/null"));
    assert!(cause(&ran, "mem.limit").is_none(), "{:#}", ran.report.0);

    let tight = Group::limited("tight", 6 * MIB);
    drop(file);
    let file = cold_file(32 * MIB);
    let ran = tight.run(&format!("cat {} >/dev/null", file.path().display()));
    let limit = cause(&ran, "mem.limit").expect("reclaim");
    assert!(ns(&limit["ns"]) > 0);
    assert_eq!(limit["state"]["runnable_ns"], 0, "{limit:#}");
    assert_eq!(limit["estimated_ns"], 0, "{limit:#}");
    let culprit = &limit["culprits"][0];
    assert_eq!(culprit["kind"], "cgroup", "{limit:#}");
    assert_eq!(culprit["name"], format!("/{}", tight.name), "{limit:#}");
    assert_eq!(culprit["detail"], "limit 6 MiB", "{limit:#}");
    assert!(ns(&culprit["ns"]) <= ns(&limit["ns"]));
}

#[test]
fn root_a_writer_over_its_memory_limit_waits_for_the_limit_and_not_for_the_disk() {
    let file = cold_file(32 * MIB);
    let group = Group::limited("writer", 6 * MIB);
    let path = file.path().display();
    let ran = group.run(&format!(
        "dd if=/dev/zero of={path} bs=64k count=512 conv=notrunc status=none"
    ));
    let limit = cause(&ran, "mem.limit").expect("reclaim");
    let state = &limit["state"];
    assert!(
        ns(&state["blocked_ns"]) > ns(&state["running_ns"]),
        "{limit:#}"
    );
    let stack = limit["evidence"]["stack"].to_string();
    assert!(stack.contains("try_to_free_mem_cgroup_pages"), "{limit:#}");
}
