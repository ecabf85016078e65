// SPDX-License-Identifier: Apache-2.0
//! `lacuna events` held against what the kernel tells the counted programs themselves: getrusage(2),
//! wait4(2) and `/proc/self/io`, read by `worker.py` around work that it knows.
//!
//! No count is compared with an expectation of quiet. A program's own readings lie within what Lacuna
//! counts, or around it: that gives a lower and an upper bound on any machine. Without privilege, but
//! for what is of other users and of the kernel (`root_*`).

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;

use rustix::process::Signal;
use rustix::time::ClockId;
use serde_json::Value;
use tempfile::TempDir;

use crate::now_ns;
use crate::number;
use crate::program::Program;
use crate::program::as_nobody;
use crate::program::lacuna;
use crate::program::through;
use crate::until;

/// What a program has counted of itself.
const OWN: [&str; 8] = [
    "voluntary_switches",
    "involuntary_switches",
    "minor_faults",
    "major_faults",
    "read_syscalls",
    "write_syscalls",
    "bytes_read_from_storage",
    "bytes_written_to_storage",
];

fn worker() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/measurements/worker.py");
    file.to_str().expect("UTF-8").to_owned()
}

/// A directory on a file system with storage behind it, as far as this repository is on one.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// A command that was counted: its end, what it wrote, and the report.
struct Counted {
    status: ExitStatus,
    said: String,
    report: Value,
}

fn counted(words: &[&str]) -> Counted {
    let directory = directory();
    let file = directory.path().join("report.json");
    let output = lacuna()
        .args(["events", "--format", "json", "--output"])
        .arg(&file)
        .arg("--")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("lacuna starts");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let complaints = String::from_utf8_lossy(&output.stderr);
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let report = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no report: {complaints}"));
    Counted {
        status: output.status,
        said,
        report,
    }
}

fn count(report: &Value, counter: &str) -> u64 {
    number(&report["counts"][counter])
}

/// What the program counted between its own two readings is counted, and no more than it had counted in
/// all at the second, with `after` for what it does from then on: says it and ends.
#[track_caller]
fn assert_between(report: &Value, notes: &Value, after: u64) {
    assert_eq!(report["missing"], serde_json::json!({}), "{report:#}");
    for counter in OWN {
        let (first, last) = (
            number(&notes["before"][counter]),
            number(&notes["after"][counter]),
        );
        let counted = count(report, counter);
        let slack = match counter.starts_with("bytes") {
            // Whatever of this program's files its end makes the kernel fetch.
            true => 1 << 20,
            false => after,
        };
        let what = format!("{counter}: {first} to {last}, and {counted} of {report:#}");
        assert!(counted >= last - first, "{what}");
        assert!(counted <= last + slack, "{what}");
    }
}

#[test]
fn a_command_is_counted_as_the_kernel_counts_it() {
    let directory = directory();
    let file = directory.path().join("work");
    let ran = counted(&["python3", &worker(), "once", file.to_str().expect("UTF-8")]);
    assert!(ran.status.success());
    let notes: Value = serde_json::from_str(&ran.said).expect("its counters");
    assert_between(&ran.report, &notes, 60);
    // And by what the program is known to do.
    for (counter, least) in [
        ("read_syscalls", 200),
        ("write_syscalls", 100),
        ("voluntary_switches", 50),
    ] {
        assert!(count(&ran.report, counter) >= least, "{:#}", ran.report);
    }
    assert_eq!(ran.report["schema"], "lacuna.events/1");
    assert!(
        ran.report["counts"]["migrations"].is_u64(),
        "{:#}",
        ran.report
    );
}

#[test]
fn reads_and_writes_are_exact() {
    let read_and_write = |times: u64| {
        let words = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "status=none"];
        let ran = counted(&[&words[..], &[&format!("count={times}")]].concat());
        let counts = ["read_syscalls", "write_syscalls"].map(|counter| count(&ran.report, counter));
        (counts[0], counts[1])
    };
    // What it takes to start the program is the same each time.
    let (few, many) = (read_and_write(10), read_and_write(2_010));
    assert_eq!((many.0 - few.0, many.1 - few.1), (2_000, 2_000));
}

#[test]
fn beside_a_hog_a_command_is_counted_as_the_kernel_counts_it() {
    let ran = counted(&["python3", &worker(), "beside"]);
    let notes: Value = serde_json::from_str(&ran.said).expect("its counters");
    assert_between(&ran.report, &notes, 60);
    assert!(
        count(&ran.report, "involuntary_switches") >= 5,
        "{:#}",
        ran.report
    );
}

#[test]
fn threads_and_children_of_a_command_count() {
    let ran = counted(&["python3", &worker(), "family"]);
    let notes: Value = serde_json::from_str(&ran.said).expect("its counters");
    assert_between(&ran.report, &notes, 60);
    assert!(
        count(&ran.report, "voluntary_switches") >= 4 * 50,
        "{:#}",
        ran.report
    );
    assert!(
        count(&ran.report, "read_syscalls") >= 3_000,
        "{:#}",
        ran.report
    );
    assert_eq!(ran.report["scopes"]["read_syscalls"], "tree");
    assert_eq!(ran.report["scopes"]["migrations"], "first-thread");
}

#[test]
fn tcp_is_the_network_namespaces_and_named_so() {
    let tcp = || {
        let text = std::fs::read_to_string("/proc/self/net/snmp").expect("TCP is counted");
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("Tcp: "))
            .collect();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (names, values) = (words(lines[0]), words(lines[1]));
        let at = names
            .iter()
            .position(|name| name == "OutSegs")
            .expect("a name");
        values[at].parse::<u64>().expect("a number")
    };
    let before = tcp();
    let ran = counted(&["python3", &worker(), "segments"]);
    let whole = tcp() - before;
    let segments = count(&ran.report, "netns_tcp_segments_out");
    assert!((200..=whole).contains(&segments), "{segments} of {whole}");
    assert_eq!(
        ran.report["scopes"]["netns_tcp_segments_out"],
        "network-namespace"
    );
    let link = std::fs::read_link("/proc/self/ns/net").expect("a link");
    let inode = number(&ran.report["net_namespace"]);
    assert_eq!(link, PathBuf::from(format!("net:[{inode}]")));
}

#[test]
fn the_commands_streams_and_end_are_its_own() {
    let mut echo = lacuna()
        .args(["events", "--", "sh", "-c", "cat; echo err >&2; exit 7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lacuna starts");
    let mut stdin = echo.stdin.take().expect("piped");
    stdin.write_all(b"through").expect("it reads");
    drop(stdin);
    let output = echo.wait_with_output().expect("it ends");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert_eq!(output.stdout, b"through");
    assert!(
        said.starts_with("err\n") && said.contains("exit status 7"),
        "{said}"
    );
    assert!(said.contains("voluntary context switches"), "{said}");

    let killed = counted(&["sh", "-c", "kill -KILL $$"]);
    assert_eq!(killed.status.signal(), Some(Signal::KILL.as_raw()));
    assert_eq!(killed.report["exit_status"], 128 + Signal::KILL.as_raw());
    assert_eq!(counted(&["/nowhere/at/all"]).status.code(), Some(127));
    assert_eq!(counted(&["/etc"]).status.code(), Some(126));
}

#[test]
fn a_signal_is_passed_on_and_the_report_still_comes() {
    // Whoever runs the tests in the background may have them ignore signals, which a command inherits.
    let mut command = through(&["env", "--default-signal"]);
    let script = "trap 'exit 42' TERM; echo ready; while :; do read -r -t 0.01; done";
    command.args(["events", "--", "bash", "-c", script]);
    let mut running = Program::start(command);
    running.line("ready");
    running.signal(Signal::TERM);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(42), "{said}");
    assert!(said.contains("exit status 42"), "{said}");
}

/// A program under way that notes its counters again and again.
struct Working {
    program: Program,
    notes: PathBuf,
    _directory: TempDir,
}

impl Working {
    fn start() -> Working {
        let directory = directory();
        let notes = directory.path().join("notes");
        let mut command = Command::new("python3");
        command.args([&worker(), "on"]).arg(&notes);
        let program = Program::start(command);
        program.line("\"ready\"");
        Working {
            program,
            notes,
            _directory: directory,
        }
    }

    fn notes(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.notes).unwrap_or_default();
        // The last line may be under way.
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }
}

#[test]
fn a_process_is_counted_as_it_counts_itself() {
    let working = Working::start();
    until("a first note", || working.notes().first().cloned());
    let from_ns = now_ns(ClockId::Monotonic);
    let output = lacuna()
        .args(["events", "--format", "json", "--for", "2s", "--pid"])
        .arg(working.program.pid().to_string())
        .output()
        .expect("lacuna starts");
    let to_ns = now_ns(ClockId::Monotonic);
    let later = |notes: &Vec<Value>| notes.iter().any(|note| number(&note["at_ns"]) > to_ns);
    let notes = until("a later note", || Some(working.notes()).filter(later));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["missing"], serde_json::json!({}));
    assert_eq!(report["ended"], false);
    let wall_ns = number(&report["wall_ns"]);
    assert!(wall_ns >= 2_000_000_000, "{wall_ns}");

    // Wherever the window was between the two instants, it had all of this, and none but that.
    let at = |note: &&Value| number(&note["at_ns"]);
    let mut inside = notes
        .iter()
        .filter(|note| (to_ns - wall_ns..from_ns + wall_ns).contains(&at(note)));
    let (first, last) = (inside.next(), inside.next_back());
    let before = notes
        .iter()
        .rfind(|note| at(note) < from_ns)
        .expect("a note before");
    let after = notes
        .iter()
        .find(|note| at(note) > to_ns)
        .expect("a note after");
    for counter in OWN {
        let grew = |from: &Value, to: &Value| number(&to[counter]) - number(&from[counter]);
        let counted = count(&report, counter);
        let most = grew(before, after);
        assert!(
            counted <= most,
            "{counter}: {counted}, and {most} around it"
        );
        if let (Some(first), Some(last)) = (first, last) {
            let least = grew(first, last);
            assert!(
                counted >= least,
                "{counter}: {counted}, and {least} within it"
            );
        }
    }
}

#[test]
fn a_process_that_ends_is_counted_to_its_end_and_that_is_said() {
    let mut working = Working::start();
    let mut command = lacuna();
    command.args(["events", "--format", "json", "--for", "1h", "--pid"]);
    command.arg(working.program.pid().to_string());
    let mut events = Program::start(command);
    // Once it waits with a descriptor of the process, its first look is over or under way.
    let directory = format!("/proc/{}/fd", events.pid());
    until("lacuna watches the process", || {
        let links = std::fs::read_dir(&directory).ok()?;
        let mut targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        targets.find(|target| target.to_string_lossy().contains("pidfd"))
    });
    let looked = now_ns(ClockId::Monotonic);
    until("work after that", || {
        working
            .notes()
            .iter()
            .find(|note| number(&note["at_ns"]) > looked)
            .cloned()
    });
    working.program.say("enough");
    let (status, said) = events.end();
    assert_eq!(status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(report["ended"], true);
    assert!(number(&report["wall_ns"]) < 3_600_000_000_000);
    let (status, said) = working.program.end();
    assert!(status.success(), "{said}");
}

#[test]
fn a_process_that_is_not_there_is_said() {
    let mut ended = Command::new("true").spawn().expect("true");
    let pid = ended.id().to_string();
    ended.wait().expect("it ends");
    let mut command = lacuna();
    command.args(["events", "--for", "1s", "--pid", &pid]);
    let (status, said) = Program::start(command).end();
    assert_eq!(status.code(), Some(2), "{said}");
    assert_eq!(said, format!("lacuna: there is no process {pid}"));
}

#[test]
fn root_another_users_process_is_counted_as_far_as_it_may_be() {
    let mut command = lacuna();
    command.args(["events", "--format", "json", "--for", "100ms", "--pid"]);
    command.arg(std::process::id().to_string());
    let (status, said) = Program::start(as_nobody(command)).end();
    assert_eq!(status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_str(&said).expect("JSON");
    for counter in [
        "voluntary_switches",
        "minor_faults",
        "netns_tcp_segments_in",
    ] {
        assert!(report["counts"][counter].is_u64(), "{report:#}");
    }
    for counter in &OWN[4..] {
        assert!(report["counts"].get(counter).is_none(), "{report:#}");
        let why = report["missing"][counter].as_str().expect("a reason");
        assert!(why.contains("CAP_SYS_PTRACE"), "{why}");
    }
}

#[test]
fn root_a_command_of_a_user_without_privilege_is_counted_whole() {
    let mut command = lacuna();
    command.args(["events", "--format", "json", "--", "true"]);
    let (status, said) = Program::start(as_nobody(command)).end();
    assert!(status.success(), "{said}");
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(report["missing"], serde_json::json!({}));
    assert!(count(&report, "read_syscalls") > 0 && count(&report, "minor_faults") > 0);
}

#[test]
fn root_a_thread_of_the_kernel_has_neither_calls_nor_faults() {
    let is_kernels = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let flags = status
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split(' ').nth(7)?.parse().ok());
        flags.is_some_and(|flags: u64| flags & 0x0020_0000 != 0)
    };
    let kernels = (1..100).find(is_kernels).expect("a thread of the kernel");
    let mut command = lacuna();
    command.args(["events", "--format", "json", "--for", "100ms", "--pid"]);
    command.arg(kernels.to_string());
    let (status, said) = Program::start(command).end();
    assert_eq!(status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert!(
        report["counts"]["voluntary_switches"].is_u64(),
        "{report:#}"
    );
    for counter in &OWN[2..6] {
        assert!(report["counts"].get(counter).is_none(), "{report:#}");
        let why = report["missing"][counter].as_str().expect("a reason");
        assert!(why.contains("a thread of the kernel"), "{why}");
    }
}
