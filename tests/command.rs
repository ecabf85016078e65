// SPDX-License-Identifier: Apache-2.0
//! A command that Lacuna runs sees what it would see under time(1), and whoever runs Lacuna sees
//! the command's own end. Through the real program, without watching: no privilege is needed.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use rustix::process::kill_process_group;

/// Longest time that anything here may take, under emulation too.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whoever runs the tests in the background may have them ignore signals (`nohup` does), which a
/// command inherits; `env` undoes it.
fn bare(command: &[&str]) -> Command {
    let mut lacuna = Command::new("env");
    lacuna
        .arg("--default-signal")
        .arg(env!("CARGO_BIN_EXE_lacuna"))
        .arg("__bare")
        .arg("--")
        .args(command)
        .stdin(Stdio::null());
    lacuna
}

fn shell(script: &str) -> Command {
    bare(&["sh", "-c", script])
}

fn output(command: &mut Command) -> Output {
    command.output().expect("lacuna starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A command under way that has said its first line, with that line; in a process group of its own,
/// which is killed when this is dropped: the command outlives Lacuna if that is killed alone.
struct UnderWay {
    child: Child,
    said: String,
}

impl UnderWay {
    fn start(command: &mut Command) -> UnderWay {
        let mut child = command
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("lacuna starts");
        let mut said = String::new();
        let stdout = child.stdout.as_mut().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut said)
            .expect("a first line");
        UnderWay {
            child,
            said: said.trim_end().to_owned(),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn end(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // Once it has been reaped its number may be somebody else's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[test]
fn exit_status_is_the_commands() {
    for status in [0, 1, 2, 77, 125, 255] {
        let output = output(&mut shell(&format!("exit {status}")));
        assert_eq!(output.status.code(), Some(status));
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn what_cannot_be_executed_is_126_and_what_is_not_there_127() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let output = output(&mut bare(&[path]));
    assert_eq!(output.status.code(), Some(126));
    assert_eq!(
        text(&output.stderr),
        format!("lacuna: {path}: Permission denied (os error 13)\n")
    );
    let output = self::output(&mut bare(&["/nowhere/to/be/found"]));
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(
        text(&output.stderr),
        "lacuna: /nowhere/to/be/found: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_signal_that_ends_the_command_ends_lacuna() {
    for (name, signal) in [
        ("TERM", Signal::TERM),
        ("KILL", Signal::KILL),
        ("SEGV", Signal::SEGV),
        ("PIPE", Signal::PIPE),
        ("INT", Signal::INT),
        ("USR1", Signal::USR1),
    ] {
        let status = output(&mut shell(&format!("kill -{name} $$"))).status;
        assert_eq!(status.signal(), Some(signal.as_raw()), "{name}");
        assert!(!status.core_dumped(), "{name}");
    }
}

#[test]
fn a_real_time_signal_is_told_as_a_shell_would() {
    let status = output(&mut shell("kill -40 $$")).status;
    assert_eq!(status.code(), Some(128 + 40));
}

#[test]
fn streams_are_the_commands_own() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"first\nsecond\n").unwrap();
    // The offset shows that it is this open file, not the same path opened again.
    file.seek(SeekFrom::Start(6)).unwrap();
    let output = shell("cat; echo to-stderr >&2")
        .stdin(file.try_clone().unwrap())
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "second\n");
    assert_eq!(text(&output.stderr), "to-stderr\n");
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "the command has moved the offset that it shares");
}

#[test]
fn no_descriptor_of_lacunas_reaches_the_command() {
    // Of its own, `ls` has the directory that it reads.
    let here = text(&output(Command::new("ls").arg("/proc/self/fd").stdin(Stdio::null())).stdout);
    let there = text(&output(&mut bare(&["ls", "/proc/self/fd"])).stdout);
    assert_eq!(there, here);
}

#[test]
fn arguments_environment_and_directory_pass_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = bare(&[
        "sh",
        "-c",
        "printf '%s|' \"$@\"; env; pwd",
        "-x",
        "--",
        "",
        "a b",
        "-v",
    ]);
    command.current_dir(directory.path()).env("SEEN", "yes");
    let said = text(&output(&mut command).stdout);
    assert!(said.starts_with("--||a b|-v|"), "{said}");
    assert!(
        said.contains("\nSEEN=yes\n") || said.contains("|SEEN=yes\n"),
        "{said}"
    );
    assert!(!said.to_lowercase().contains("lacuna_"), "{said}");
    assert!(
        said.ends_with(&format!("{}\n", directory.path().display())),
        "{said}"
    );
}

#[test]
fn the_command_is_in_lacunas_process_group() {
    let mut command = shell("cut -d' ' -f5 /proc/$$/stat /proc/$PPID/stat");
    let said = text(&output(command.process_group(0)).stdout);
    let groups: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(groups.len(), 2, "{said}");
    assert_eq!(groups[0], groups[1]);
}

#[test]
fn signals_sent_to_lacuna_are_passed_on() {
    for (name, signal) in [
        ("HUP", Signal::HUP),
        ("TERM", Signal::TERM),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("ALRM", Signal::ALARM),
    ] {
        let script = format!("trap 'exit 42' {name}; echo ready; while :; do sleep 0.01; done");
        let under_way = UnderWay::start(&mut shell(&script));
        assert_eq!(under_way.said, "ready");
        kill_process(under_way.pid(), signal).unwrap();
        assert_eq!(under_way.end().code(), Some(42), "{name}");
    }
}

#[test]
fn the_terminals_signals_reach_both_and_lacuna_stays() {
    for (name, signal) in [("INT", Signal::INT), ("QUIT", Signal::QUIT)] {
        let script = format!("trap 'exit 43' {name}; echo ready; while :; do sleep 0.01; done");
        let under_way = UnderWay::start(&mut shell(&script));
        kill_process_group(under_way.pid(), signal).unwrap();
        assert_eq!(under_way.end().code(), Some(43), "{name}");
    }
}

#[test]
fn an_interrupt_for_lacuna_alone_does_not_end_it() {
    let mut under_way =
        UnderWay::start(shell("echo ready; read line; exit 44").stdin(Stdio::piped()));
    kill_process(under_way.pid(), Signal::INT).unwrap();
    let mut stdin = under_way.child.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    assert_eq!(under_way.end().code(), Some(44));
}

#[test]
fn a_held_command_ends_with_lacuna() {
    // What holds it here is this test, and it never opens the gate: the command may not run.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut held = Command::new(env!("CARGO_BIN_EXE_lacuna"))
        .args(["__exec", "--", "echo", "ran"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    (&ours).read_exact(&mut [0]).unwrap();
    assert_eq!(held.try_wait().unwrap(), None, "it waits at the gate");
    drop(ours);
    let output = held.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(text(&output.stdout), "");
}
