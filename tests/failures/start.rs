// SPDX-License-Identifier: Apache-2.0
//! What is said where Lacuna cannot start: what is missing or in the way, and what to do about it.
//!
//! Mistakes on the command line and in the text of a configuration are in `tests/cli.rs`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::Program;
use crate::program::as_nobody;
use crate::program::lacuna;

const GRPC: [&str; 2] = ["--otlp-grpc", "127.0.0.1:0"];
const HTTP: [&str; 2] = ["--otlp-http", "127.0.0.1:0"];

/// An agent that cannot start says all of `words` in one line, and ends with 2.
#[track_caller]
fn cannot_start(mut command: Command, options: &[&str], words: &[&str]) {
    command.arg("agent").args(options);
    let (status, said) = Program::start(command).end();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(
        said.starts_with("lacuna: ") && said.lines().count() == 1,
        "{said}"
    );
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// A directory that everybody may enter, with the program where everybody may start it.
fn public() -> (TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), open).expect("it is ours");
    let program = directory.path().join("lacuna");
    fs::copy(env!("CARGO_BIN_EXE_lacuna"), &program).expect("a copy");
    let program = program.to_str().expect("UTF-8").to_owned();
    (directory, program)
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it is bound");
    let (at, port) = (
        address.to_string(),
        format!("port {} is in use", address.port()),
    );
    let directory = tempfile::tempdir().expect("a directory");
    let api = format!("unix:{}", directory.path().join("api.sock").display());
    let cases: [(&str, Vec<&str>); 3] = [
        ("--otlp-grpc", vec!["--otlp-grpc", &at]),
        ("--otlp-http", [&GRPC[..], &["--otlp-http", &at]].concat()),
        ("--api", [&GRPC[..], &HTTP, &["--api", &at]].concat()),
    ];
    for (flag, mut options) in cases {
        if flag != "--api" {
            options.extend(["--api", &api]);
        }
        cannot_start(lacuna(), &options, &[&port, flag, "choose another"]);
    }
}

#[test]
fn an_address_of_another_host_is_said_to_be_so() {
    let options = ["--otlp-grpc", "192.0.2.1:4317"];
    cannot_start(lacuna(), &options, &["192.0.2.1:4317", "--otlp-grpc"]);
}

#[test]
fn a_socket_that_cannot_be_made_is_named_with_its_flag() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let api = |path: std::path::PathBuf| format!("unix:{}", path.display());
    let _taken = UnixListener::bind(path("taken.sock")).expect("a socket");
    fs::write(path("file"), "mine").expect("a file");
    let cases = [
        (api(path("taken.sock")), "another process listens there"),
        (api(path("file")), "is no socket; it was left alone"),
        (api(path("file/api.sock")), "not a directory"),
        (
            api("/proc/nowhere/api.sock".into()),
            "No such file or directory",
        ),
    ];
    for (at, why) in cases {
        let options = [&GRPC[..], &HTTP, &["--api", &at]].concat();
        cannot_start(lacuna(), &options, &[&at, "--api", why]);
    }
    assert_eq!(
        fs::read_to_string(path("file")).expect("left alone"),
        "mine"
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("UTF-8");
    cannot_start(lacuna(), &["--config", path], &[path, "Is a directory"]);
    let noise = directory.path().join("noise.toml");
    fs::write(&noise, [0xFF, 0xFE, 0x00]).expect("a file");
    let noise = noise.to_str().expect("UTF-8");
    cannot_start(lacuna(), &["--config", noise], &[noise, "UTF-8"]);
    let endless = ["--config", "/dev/zero"];
    cannot_start(
        lacuna(),
        &endless,
        &["/dev/zero", "larger than 1048576 bytes"],
    );
}

#[test]
fn root_without_privilege_it_says_which_is_missing() {
    let (directory, program) = public();
    let nobody = || as_nobody(Command::new(&program));
    let missing = ["CAP_BPF", "CAP_PERFMON", "run as root"];

    let mut run = nobody();
    run.args(["run", "--", "echo", "it ran"]);
    let (status, said) = Program::start(run).end();
    assert_eq!(status.code(), Some(125), "{said}");
    assert!(missing.iter().all(|word| said.contains(word)), "{said}");
    assert!(!said.contains("it ran"), "not watched, so not run: {said}");

    let place = directory.path().join("place");
    fs::create_dir(&place).expect("a directory");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let api = format!("unix:{}", place.join("api.sock").display());
    let options = [&GRPC[..], &HTTP, &["--api", &api]].concat();
    cannot_start(nobody(), &options, &missing);
    assert!(
        !place.join("api.sock").exists(),
        "it takes its socket along"
    );

    let mut doctor = nobody();
    doctor.args(["doctor", "--format", "json"]);
    let (status, said) = Program::start(doctor).end();
    assert_eq!(status.code(), Some(1), "{said}");
    let answer: Value = serde_json::from_str(&said).expect("JSON and nothing else");
    let checks = answer["checks"].as_array().expect("checks");
    let capabilities = checks.iter().find(|check| check["name"] == "capabilities");
    let capabilities = capabilities.expect("a check of capabilities");
    assert_eq!(capabilities["status"], "missing");
    let why = capabilities["why"].as_str().expect("why");
    assert!(
        why.contains("CAP_BPF") && why.contains("CAP_PERFMON"),
        "{why}"
    );
    assert!(
        capabilities["fix"]
            .as_str()
            .is_some_and(|fix| fix.contains("setcap"))
    );
}

#[test]
fn root_what_a_user_may_not_open_is_named() {
    let (directory, program) = public();
    let nobody = || as_nobody(Command::new(&program));
    let secret = directory.path().join("secret.toml");
    fs::write(&secret, "").expect("a file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let secret = secret.to_str().expect("UTF-8");
    cannot_start(
        nobody(),
        &["--config", secret],
        &[secret, "Permission denied"],
    );

    // The directory is root's: a socket can neither be made in it nor in one below it.
    for name in ["api.sock", "below/api.sock"] {
        let api = format!("unix:{}", directory.path().join(name).display());
        let options = [&GRPC[..], &HTTP, &["--api", &api]].concat();
        cannot_start(
            nobody(),
            &options,
            &[&api, "--api", "may not make a file there"],
        );
    }
}
