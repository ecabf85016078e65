// SPDX-License-Identifier: Apache-2.0
//! The command line of the runner, as far as it gets without root, network and QEMU: what it cannot
//! do it says, and ends with a failure. Never is less run than was asked for.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::process::Output;

fn lacuna_vm(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lacuna-vm"));
    command.args(arguments).output().unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], reason: &str) {
    let output = lacuna_vm(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} ended well");
    assert!(said.contains(reason), "{arguments:?} says {said}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("test result: ok"));
}

#[test]
fn what_the_list_does_not_have_is_refused_by_name() {
    let built = tempfile::NamedTempFile::new().unwrap();
    let built = ["--built", built.path().to_str().unwrap()];
    refused(&[&["matrix", "2.4"], &built[..]].concat(), "no kernel 2.4");
    refused(
        &[&["matrix", "--stage", "no"], &built[..]].concat(),
        "no stage no",
    );
    refused(
        &[&["matrix", "--boot", "no"], &built[..]].concat(),
        "no boot no",
    );
    refused(&["fetch", "2.4"], "no kernel 2.4");
    refused(&["run", "2.4", "--", "true"], "no kernel 2.4");
}

#[test]
fn without_what_cargo_built_nothing_is_run() {
    refused(
        &["matrix", "newest", "--built", "no/such/file"],
        "no/such/file",
    );
}

#[test]
fn a_command_to_run_must_be_given() {
    refused(&["run", "newest"], "required");
}
