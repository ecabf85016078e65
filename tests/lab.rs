// SPDX-License-Identifier: Apache-2.0
//! `lacuna lab` for real: what must run passes, a false truth is found out, and nothing is left behind.
//!
//! Which scenario must run is in `crates/lab/expected.toml`: one that should have run and did not
//! has failed, and so has one that the file does not know.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use serde_json::Value;

/// How long anything here may take, on an emulated machine too.
const PATIENCE: Duration = Duration::from_secs(180);

fn lacuna() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lacuna"))
}

/// The kernels of the matrix.
fn matrix() -> Vec<toml::Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/kernels.toml");
    let text = fs::read_to_string(path).expect("the matrix");
    let list: toml::Table = text.parse().expect("TOML");
    list["kernel"].as_array().expect("a list").clone()
}

/// What `crates/lab/expected.toml` calls this machine: a guest of the matrix by its kernel's series, any
/// other "host".
fn this_kernel() -> String {
    let guest =
        fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.contains("lacuna.guest=1"));
    if !guest {
        return "host".to_owned();
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let is_it =
        |kernel: &toml::Value| release.starts_with(kernel["series"].as_str().expect("text"));
    let kernel = matrix().into_iter().find(is_it);
    let kernel = kernel.unwrap_or_else(|| panic!("the matrix has no {release}"));
    kernel["name"].as_str().expect("a name").to_owned()
}

/// The scenarios that `crates/lab/expected.toml` has, each with whether it must run on a kernel.
fn expected_on(kernel: &str) -> Vec<(String, bool)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/lab/expected.toml");
    let text = fs::read_to_string(path).expect("the file of what must run");
    let file: toml::Table = text.parse().expect("TOML");
    let scenarios = file["scenario"].as_array().expect("a list").iter();
    let names = |list: Option<&toml::Value>, key: Option<&str>| -> Vec<String> {
        let list = list.and_then(toml::Value::as_array).cloned();
        let one = |value: &toml::Value| key.map_or(value.clone(), |key| value[key].clone());
        let all = list.unwrap_or_default().iter().map(one).collect::<Vec<_>>();
        all.iter()
            .map(|one| one.as_str().expect("text").to_owned())
            .collect()
    };
    scenarios
        .map(|one| {
            let on = names(one.get("kernels"), None);
            let except = names(one.get("except"), Some("kernel"));
            let is_on = on.iter().any(|name| name == kernel);
            let is_except = except.iter().any(|name| name == kernel);
            assert!(
                is_on != is_except,
                "{kernel}: either must run or has a reason: {one}"
            );
            (one["name"].as_str().expect("text").to_owned(), is_on)
        })
        .collect()
}

/// The names of `lacuna lab list`.
fn listed() -> Vec<String> {
    let output = lacuna()
        .args(["lab", "list", "--format", "json"])
        .output()
        .expect("lacuna starts");
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let scenarios = list["scenarios"].as_array().expect("a list").iter();
    scenarios
        .map(|one| one["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn every_scenario_is_expected_on_every_kernel_or_has_a_reason() {
    let matrix = matrix();
    let names = matrix
        .iter()
        .map(|kernel| kernel["name"].as_str().expect("a name"));
    for kernel in names.chain(["host"]) {
        let known: Vec<String> = expected_on(kernel).into_iter().map(|one| one.0).collect();
        assert_eq!(
            known,
            listed(),
            "crates/lab/expected.toml and `lacuna lab list`"
        );
    }
}

#[test]
fn root_lab_answers_are_true() {
    let output = lacuna()
        .args(["lab", "run", "--all", "--format", "json"])
        .stderr(Stdio::inherit())
        .output()
        .expect("lacuna starts");
    let report = String::from_utf8(output.stdout).expect("UTF-8");
    eprintln!("{report}");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["schema"], "lacuna.lab/1");
    let scenarios = report["scenarios"].as_array().expect("a list");
    for (name, must_run) in expected_on(&this_kernel()) {
        let found = scenarios.iter().find(|one| one["name"] == *name);
        let found = found.unwrap_or_else(|| panic!("{name} is not in the report"));
        let status = found["status"].as_str().expect("a status");
        // What is excepted is run all the same, and shown.
        assert!(
            status == "passed" || !must_run,
            "{name}: {status}: {}",
            found["why"]
        );
        let has_rows = !found["rows"].as_array().expect("rows").is_empty();
        assert!(
            has_rows || status != "passed",
            "{name} passed without a row"
        );
    }
    let failed = scenarios.iter().any(|one| one["status"] == "failed");
    assert_eq!(output.status.code(), Some(i32::from(failed)));
}

#[test]
fn root_lab_finds_a_false_truth_out() {
    let output = lacuna()
        .args([
            "lab",
            "run",
            "cpu-contention",
            "--falsify",
            "--format",
            "json",
        ])
        .output()
        .expect("lacuna starts");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let scenario = &report["scenarios"][0];
    assert_eq!(scenario["status"], "failed", "{report}");
    let rows = scenario["rows"].as_array().expect("rows");
    assert!(
        !rows.is_empty() && rows.iter().all(|row| row["right"] == false),
        "{report}"
    );
}

/// A lab in the middle of a scenario.
struct Running(Child);

impl Running {
    /// Starts one with a limited cgroup and waits until its hog is at it.
    fn start() -> Running {
        Running::in_the_middle_of("cpu-throttle", "neighbour")
    }

    /// Starts one and waits until it has a process of that name.
    fn in_the_middle_of(scenario: &str, process: &str) -> Running {
        let child = lacuna()
            .args(["lab", "run", scenario])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lacuna starts");
        let running = Running(child);
        let is_it = |pid: &u32| comm(*pid).as_deref() == Some(process);
        until("it is in the middle", || {
            descendants(running.pid()).iter().any(is_it)
        });
        running
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn directory(&self) -> PathBuf {
        std::env::temp_dir().join(format!("lacuna-lab-{}", self.pid()))
    }

    /// Sends it a signal and waits for its end: its processes before, and by which signal it ended.
    fn end_by(&mut self, signal: Signal) -> (BTreeSet<u32>, Option<i32>) {
        let family = descendants(self.pid());
        assert!(
            family.len() >= 3,
            "an agent, a service and a hog: {family:?}"
        );
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).expect("it is there");
        let status = self.0.wait().expect("it ends");
        (family, status.signal())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its children are tied to it.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn root_lab_leaves_nothing_when_it_is_told_to_end() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut lab = Running::start();
        assert!(lab.directory().exists() && !cgroups_of(lab.pid()).is_empty());
        let (family, by) = lab.end_by(signal);
        assert_eq!(
            by,
            Some(signal.as_raw()),
            "it ends by the signal, as others do"
        );
        assert!(!lab.directory().exists(), "its directory is left");
        let left: Vec<_> = family.iter().filter(|pid| is_alive(**pid)).collect();
        assert!(left.is_empty(), "processes are left: {left:?}");
        let mut said = String::new();
        let mut stderr = lab.0.stderr.take().expect("piped");
        stderr.read_to_string(&mut said).expect("text");
        assert!(
            !said.contains("error") && !said.contains("panicked"),
            "{said}"
        );
        assert_eq!(cgroups_of(lab.pid()), Vec::<PathBuf>::new());
    }
}

#[test]
fn root_lab_takes_its_processes_with_it_when_it_is_killed() {
    let mut lab = Running::start();
    let directory = lab.directory();
    let (family, by) = lab.end_by(Signal::KILL);
    assert_eq!(by, Some(Signal::KILL.as_raw()));
    until("its processes end", || {
        !family.iter().any(|pid| is_alive(*pid))
    });
    // It had no time for these.
    fs::remove_dir_all(directory).expect("its directory");
    for cgroup in cgroups_of(lab.pid()) {
        // Processes leave it a moment after they have ended.
        until("its cgroup is empty", || fs::remove_dir(&cgroup).is_ok());
    }
}

#[test]
fn root_lab_takes_its_networks_with_it() {
    for signal in [Signal::INT, Signal::KILL] {
        let before = (names_in("/run/netns"), names_in("/sys/class/net"));
        let mut lab = Running::in_the_middle_of("nagle", "wire");
        let directory = lab.directory();
        let mut networks: BTreeSet<u64> = descendants(lab.pid())
            .into_iter()
            .filter_map(network)
            .collect();
        let own = network(std::process::id()).expect("this process has one");
        networks.remove(&own);
        assert_eq!(networks.len(), 2, "of the two that talk");
        lab.end_by(signal);
        let is_left = || {
            let all = names_in("/proc").into_iter();
            let all = all.filter_map(|name| name.parse().ok()).filter_map(network);
            all.into_iter().any(|network| networks.contains(&network))
        };
        until("nobody is in them", || !is_left());
        assert_eq!((names_in("/run/netns"), names_in("/sys/class/net")), before);
        // It had time for this, or not.
        let _gone = fs::remove_dir_all(directory);
    }
}

/// The network namespace of a process.
fn network(pid: u32) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino())
}

fn names_in(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// All processes below one.
fn descendants(pid: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut open = vec![pid];
    while let Some(pid) = open.pop() {
        let path = format!("/proc/{pid}/task/{pid}/children");
        // One that ends meanwhile has none.
        let text = fs::read_to_string(path).unwrap_or_default();
        let children: Vec<u32> = text.split(' ').filter_map(|one| one.parse().ok()).collect();
        open.extend(&children);
        found.extend(children);
    }
    found
}

fn comm(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(text.trim_end().to_owned())
}

/// It is there, and no corpse.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        !matches!(state, Some('Z' | 'X'))
    })
}

/// The cgroups that a lab made.
fn cgroups_of(pid: u32) -> Vec<PathBuf> {
    let name = format!("lacuna-lab-{pid}");
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let places = hierarchies.map(|entry| entry.path().join(&name));
    let places = places.chain([Path::new("/sys/fs/cgroup").join(&name)]);
    places.filter(|path| path.exists()).collect()
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
