// SPDX-License-Identifier: Apache-2.0
//! A process to look at, its notes, and what the ladder says of it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::thread::CpuSet;
use rustix::thread::sched_setaffinity;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::program::Program;
use crate::program::lacuna;

/// A running worker.
pub(crate) struct Worker {
    program: Program,
    notes: NamedTempFile,
}

impl Worker {
    /// Starts a worker of that kind, by a command that executes what follows it (or none).
    pub(crate) fn start(through: &[&str], kind: &str, rest: &[&str]) -> Worker {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ladder/worker.py");
        let notes = NamedTempFile::new().expect("a file");
        fs::write(notes.path(), [0; 8]).expect("a file");
        let mut words: Vec<&str> = through.to_vec();
        words.push("python3");
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg(file)
            .arg(kind)
            .arg(notes.path());
        command.args(rest).process_group(0);
        let program = Program::start(command);
        program.line("ready");
        Worker { program, notes }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// What it said after that word.
    pub(crate) fn line(&self, start: &str) -> String {
        self.program.line(start)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    /// Only on that CPU from now on.
    pub(crate) fn pin(self, cpu: usize) -> Worker {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        sched_setaffinity(pid, &cpus).expect("it may be pinned");
        self
    }

    /// For how long it was kept waiting so far, nanoseconds, by its own clock.
    pub(crate) fn late_ns(&self) -> u64 {
        let bytes = fs::read(self.notes.path()).expect("its notes");
        u64::from_ne_bytes(bytes.try_into().expect("8 bytes"))
    }
}

/// What the ladder said of one process.
pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) report: Value,
}

impl Answer {
    /// The public name of the concluded cause, or `none`.
    pub(crate) fn cause(&self) -> &str {
        self.report["conclusion"]["cause"]
            .as_str()
            .expect("a cause")
    }

    /// All that was found, a line a step.
    pub(crate) fn brief(&self) -> String {
        let steps = self.report["steps"].as_array().expect("steps");
        let found = steps.iter().filter(|step| !step["cause"].is_null());
        let mut text = format!("{}\n", self.report["conclusion"]);
        found.for_each(|step| text.push_str(&format!("  {step}\n")));
        let threads = &self.step("run-queue")["values"]["worst"];
        text.push_str(&format!("  {threads}\n"));
        text
    }

    pub(crate) fn step(&self, name: &str) -> &Value {
        let steps = self.report["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["name"] == name);
        step.unwrap_or_else(|| panic!("no step {name} in {:#}", self.report))
    }

    pub(crate) fn verdict(&self, name: &str) -> &str {
        self.step(name)["verdict"].as_str().expect("a verdict")
    }
}

/// Looks at a process for so long, in milliseconds.
pub(crate) fn ladder(pid: u32, window_ms: u64) -> Answer {
    ladder_by(lacuna(), pid, window_ms)
}

/// The same by a command that has been prepared.
pub(crate) fn ladder_by(mut command: Command, pid: u32, window_ms: u64) -> Answer {
    let output = command
        .args(["ladder", "--format", "json", "--pid", &pid.to_string()])
        .args(["--window", &format!("{window_ms}ms")])
        .output()
        .expect("lacuna starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let complaints = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no report: {complaints}"));
    assert_eq!(report["schema"], "lacuna.ladder/1");
    Answer {
        status: output.status.code().expect("a status"),
        report: report["processes"][0].clone(),
    }
}
