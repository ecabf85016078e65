// SPDX-License-Identifier: Apache-2.0
//! The command line as people and scripts meet it: the manual of each command, what is said of a
//! mistake, and the exit status. Nothing here needs privilege.
//!
//! Each case is a file in `tests/snapshots/`: the arguments, the exit status, and what was printed.
//! `UPDATE=1` writes the files instead; read the difference before committing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

/// Runs `lacuna` in an empty directory with an empty environment, and compares all that it said.
#[track_caller]
fn says(name: &str, arguments: &[&str]) {
    says_of(name, arguments, &[]);
}

/// The same with files in that directory.
#[track_caller]
fn says_of(name: &str, arguments: &[&str], files: &[(&str, &str)]) {
    let directory = tempfile::tempdir().expect("a directory");
    for (file, text) in files {
        fs::write(directory.path().join(file), text).expect("a file");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_lacuna"))
        .args(arguments)
        .current_dir(directory.path())
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("lacuna starts");
    let mut seen = format!("$ lacuna {}", arguments.join(" "))
        .trim_end()
        .to_owned()
        + "\n";
    for (stream, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        let text = std::str::from_utf8(bytes).expect("UTF-8");
        if text.is_empty() {
            continue;
        }
        seen.push_str(&format!("=== {stream}\n"));
        // Blank lines of the help are indented, which no reader sees and no file of ours may have.
        for line in text.lines() {
            seen.push_str(line.trim_end());
            seen.push('\n');
        }
    }
    let status = output.status.code().expect("an exit status");
    seen.push_str(&format!("=== exit status {status}\n"));
    compare(name, &seen);
}

#[track_caller]
fn compare(name: &str, seen: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, seen).expect("a snapshot");
    }
    let expected = fs::read_to_string(&file).expect("a snapshot; UPDATE=1 makes it");
    assert!(
        seen == expected,
        "{name} is now (UPDATE=1 accepts it):\n{seen}\nand was:\n{expected}"
    );
}

#[test]
fn manuals() {
    says("help", &["--help"]);
    says("help-short", &["-h"]);
    says("help-run", &["run", "--help"]);
    says("help-agent", &["agent", "--help"]);
    says("help-explain", &["explain", "--help"]);
    says("help-blind", &["blind", "--help"]);
    says("help-events", &["events", "--help"]);
    says("help-ladder", &["ladder", "--help"]);
    says("help-doctor", &["doctor", "--help"]);
    says("help-lab", &["lab", "--help"]);
    says("help-lab-run", &["lab", "run", "--help"]);
}

#[test]
fn hidden_tasks_and_switches_stay_hidden() {
    let lab = &["lab", "run", "--help"];
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["run", "-h"],
        &["-h"],
        lab,
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_lacuna"))
            .args(arguments)
            .output();
        let text = String::from_utf8(output.expect("lacuna starts").stdout).expect("UTF-8");
        for hidden in ["__exec", "__bare", "__blind", "__lab", "inject", "falsify"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }
}

#[test]
fn version() {
    let output = Command::new(env!("CARGO_BIN_EXE_lacuna"))
        .arg("--version")
        .output();
    let output = output.expect("lacuna starts");
    assert_eq!(
        output.stdout,
        format!("lacuna {}\n", env!("CARGO_PKG_VERSION")).into_bytes()
    );
    assert!(output.status.success());
}

#[test]
fn mistakes_in_what_is_asked() {
    says("nothing", &[]);
    says("no-such-command", &["explian", "x"]);
    says(
        "no-such-option",
        &["agent", "--upstream", "http://localhost:1"],
    );
    says("explain-nothing", &["explain"]);
    says(
        "explain-both",
        &[
            "explain",
            "0af7651916cd43dd8448eb211c80319c",
            "--spans",
            "x.json",
        ],
    );
    says("explain-short-id", &["explain", "7f3a"]);
    says(
        "explain-bad-url",
        &["explain", "--spans", "x.json", "--agent", "localhost:1"],
    );
    says(
        "explain-bad-wait",
        &["explain", "--spans", "x.json", "--wait", "ages"],
    );
    says("lab-nothing", &["lab", "run"]);
    says(
        "lab-no-such",
        &["lab", "run", "cpu-contention", "cpu-content"],
    );
    says("bad-format", &["doctor", "--format", "yaml"]);
}

#[test]
fn mistakes_before_a_command_are_lacunas_own() {
    says("run-nothing", &["run", "--"]);
    says("run-bad-option", &["run", "--jason", "--", "true"]);
    says(
        "run-bad-inject",
        &["run", "--inject", "drop-everything", "--", "true"],
    );
}

#[test]
fn mistakes_in_what_is_to_be_measured() {
    says("blind-no-bursts", &["blind", "--bursts", "0"]);
    says("blind-many-bursts", &["blind", "--bursts", "1001"]);
    says("blind-no-hogs", &["blind", "--hogs", "0"]);
    says("blind-bad-run", &["blind", "--only", "noisy"]);
    says(
        "blind-bad-picture",
        &["blind", "--svg", "nowhere/blind.svg"],
    );
}

#[test]
fn mistakes_in_what_is_to_be_counted() {
    says("events-nothing", &["events"]);
    says("events-both", &["events", "--pid", "1", "--", "true"]);
    says("events-no-window", &["events", "--pid", "1", "--for", "0s"]);
    says(
        "events-bad-window",
        &["events", "--pid", "1", "--for", "10"],
    );
    says("events-bad-pid", &["events", "--pid", "0"]);
    says("events-bad-option", &["events", "--jason", "--", "true"]);
    says(
        "events-window-of-command",
        &["events", "--for", "1s", "--", "true"],
    );
}

#[test]
fn mistakes_in_what_is_looked_at() {
    says("ladder-nothing", &["ladder"]);
    says("ladder-both", &["ladder", "--pid", "1", "--comm", "init"]);
    says("ladder-pid-0", &["ladder", "--pid", "0"]);
    says("ladder-no-such-pid", &["ladder", "--pid", "4194304"]);
    says("ladder-no-such-comm", &["ladder", "--comm", "no such name"]);
    says(
        "ladder-long-comm",
        &["ladder", "--comm", "sixteen-letters-"],
    );
    says("ladder-bad-container", &["ladder", "--container", "web"]);
    says("ladder-no-such-unit", &["ladder", "--unit", "no-such-unit"]);
    says(
        "ladder-no-window",
        &["ladder", "--pid", "1", "--window", "0s"],
    );
    says(
        "ladder-bad-window",
        &["ladder", "--pid", "1", "--window", "30"],
    );
}

#[test]
fn mistakes_in_addresses_and_selectors() {
    says("agent-no-port", &["agent", "--otlp-grpc", "localhost"]);
    says(
        "agent-bad-port",
        &["agent", "--otlp-http", "localhost:http"],
    );
    says("agent-url", &["agent", "--api", "http://localhost:1"]);
    says("agent-selector-kind", &["agent", "--watch", "user:root"]);
    says("agent-selector-pid", &["agent", "--watch", "pid:self"]);
    says(
        "agent-selector-comm",
        &["agent", "--watch", "comm:a-very-long-thread-name"],
    );
    says("agent-no-budget", &["agent", "--record-budget", "0"]);
}

#[test]
fn mistakes_in_a_configuration() {
    let agent = ["agent", "--config", "lacuna.toml"];
    says("config-missing", &agent);
    let file = |text| [("lacuna.toml", text)];
    says_of(
        "config-unknown-key",
        &agent,
        &file("# mine\nupstream = \"http://localhost:1\"\n"),
    );
    says_of(
        "config-bad-address",
        &agent,
        &file("\notlp_grpc = \"localhost\"\n"),
    );
    says_of(
        "config-bad-selector",
        &agent,
        &file("watch = [\n  \"pid:1\",\n  \"pid:x\",\n]\n"),
    );
    says_of("config-no-toml", &agent, &file("otlp_grpc: localhost:1\n"));
}

#[test]
fn a_question_that_cannot_be_asked() {
    let agent = ["--agent", "unix:api.sock"];
    says(
        "explain-no-agent",
        &[&["explain", "0af7651916cd43dd8448eb211c80319c"], &agent[..]].concat(),
    );
    says(
        "explain-no-file",
        &[&["explain", "--spans", "spans.json"], &agent[..]].concat(),
    );
}
