// SPDX-License-Identifier: Apache-2.0
//! The kernel's own counters and names, and cgroups with a CPU limit.

use super::until;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Names for addresses, from kallsyms: nothing but what the tests need.
pub fn symbols(frames: &[u64]) -> Vec<Box<str>> {
    static TABLE: OnceLock<Vec<(u64, Box<str>)>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let text = fs::read_to_string("/proc/kallsyms").unwrap();
        let mut table: Vec<(u64, Box<str>)> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok()?;
                Some((address, words.nth(1)?.into()))
            })
            .collect();
        table.sort();
        table
    });
    let name = |&frame: &u64| {
        let after = table.partition_point(|(address, _)| *address <= frame);
        table[after.saturating_sub(1)].1.clone()
    };
    frames.iter().map(name).collect()
}

/// Whether this machine is emulated in software: its clocks are right, and its CPUs are slow and stop now
/// and then.
pub fn emulated() -> bool {
    static EMULATED: OnceLock<bool> = OnceLock::new();
    *EMULATED.get_or_init(|| {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap();
        text.contains("QEMU TCG CPU")
    })
}

/// `/proc/thread-self/schedstat`: on-CPU nanoseconds, run-queue delay nanoseconds.
pub fn schedstat() -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let mut words = text
        .split_ascii_whitespace()
        .map(|word| word.parse().unwrap());
    (words.next().unwrap(), words.next().unwrap())
}

/// How often a thread of this process has come on a CPU.
pub fn runs_of(tid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).unwrap();
    text.split_ascii_whitespace()
        .nth(2)
        .unwrap()
        .parse()
        .unwrap()
}

/// Voluntary and involuntary switches, as the thread itself reads them.
pub fn switches() -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    };
    (field("voluntary_ctxt"), field("nonvoluntary_ctxt"))
}

/// The state letter of a thread.
pub fn state(pid: u32, tid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// Number of the system call that a thread is blocked in.
pub fn blocked_in(pid: u32, tid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Compiles a C program of tests/programs and returns where it is.
pub fn compile(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/programs")
        .join(name);
    let unique = format!("{name}-{}-{}", std::process::id(), super::now());
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
    let done = Command::new("cc")
        .args(["-O1", "-Wall", "-Werror", "-pthread", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(done.success(), "cc {}", source.display());
    program
}

/// A CPU cgroup of our own, version 1 or 2.
pub struct CpuGroup {
    folder: Folder,
    v2: bool,
}

const V1: &str = "/sys/fs/cgroup/cpu";
const V2: &str = "/sys/fs/cgroup";

/// The version 2 cgroup of this process: a threaded group below it may take single threads.
fn own_v2() -> PathBuf {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Path::new(V2).join(line.expect("cgroup version 2 is mounted"))
}

impl CpuGroup {
    pub fn new(name: &str) -> CpuGroup {
        let v2 = !Path::new(V1).exists();
        let root = if v2 { own_v2() } else { V1.into() };
        CpuGroup::within(&root, &format!("lacuna-{name}-{}", std::process::id()), v2)
    }

    pub fn nested(&self, name: &str) -> CpuGroup {
        CpuGroup::within(&self.folder.path, name, self.v2)
    }

    fn within(parent: &Path, name: &str, v2: bool) -> CpuGroup {
        if v2 {
            fs::write(parent.join("cgroup.subtree_control"), "+cpu").unwrap();
        }
        let folder = Folder::make(parent.join(name));
        if v2 {
            fs::write(folder.path.join("cgroup.type"), "threaded").unwrap();
        }
        CpuGroup { folder, v2 }
    }

    /// Microseconds of CPU in each period.
    pub fn limit(&self, quota_us: u64, period_us: u64) {
        let write =
            |file: &str, text: String| fs::write(self.folder.path.join(file), text).unwrap();
        if self.v2 {
            write("cpu.max", format!("{quota_us} {period_us}"));
        } else {
            write("cpu.cfs_period_us", period_us.to_string());
            write("cpu.cfs_quota_us", quota_us.to_string());
        }
    }

    /// Moves a thread here.
    pub fn take(&self, tid: u32) {
        let file = if self.v2 { "cgroup.threads" } else { "tasks" };
        fs::write(self.folder.path.join(file), tid.to_string()).unwrap();
    }

    /// `cpu.stat`: throttled nanoseconds of all its queues.
    pub fn throttled_ns(&self) -> u64 {
        let text = fs::read_to_string(self.folder.path.join("cpu.stat")).unwrap();
        let field = |name: &str, scale: u64| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            let number: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
            Some(number * scale)
        };
        field("throttled_time", 1)
            .or_else(|| field("throttled_usec", 1000))
            .unwrap()
    }

    /// The id that the kernel knows it by.
    pub fn id(&self) -> u64 {
        self.folder.id()
    }
}

/// The directory of a cgroup of our own; removed when dropped, once the cgroup is empty.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    pub fn make(path: PathBuf) -> Folder {
        fs::create_dir(&path).unwrap();
        Folder { path }
    }

    /// The id that the kernel knows the cgroup by: the inode number of its directory.
    pub fn id(&self) -> u64 {
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(&self.path).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = fs::remove_dir(&self.path);
            return;
        }
        until("the cgroup to be empty", || {
            fs::remove_dir(&self.path).is_ok()
        });
    }
}

/// A version 2 cgroup of our own that can be frozen; thawed, emptied and removed when dropped.
pub struct Freezer {
    root: PathBuf,
    path: PathBuf,
}

impl Freezer {
    pub fn new() -> Freezer {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let fields = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        let mut mounts = mounts.lines().map(fields);
        let mount = mounts.find(|fields| fields[2] == "cgroup2");
        let root = PathBuf::from(&mount.expect("cgroup version 2 is mounted")[1]);
        let path = root.join(format!("lacuna-frozen-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Freezer { root, path }
    }

    pub fn take(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// Freezes or thaws, and waits until it is so.
    pub fn freeze(&self, frozen: bool) {
        let wanted = format!("frozen {}", u8::from(frozen));
        let write = fs::write(self.path.join("cgroup.freeze"), &wanted[7..]);
        write.unwrap();
        until(&wanted, || {
            let events = fs::read_to_string(self.path.join("cgroup.events")).unwrap();
            events.lines().any(|line| line == wanted)
        });
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.freeze"), "0");
        let procs = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            let _ = fs::write(self.root.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.path);
    }
}
