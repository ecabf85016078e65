// SPDX-License-Identifier: Apache-2.0
//! The inside of a held command: this program, started again, that becomes the command.
//!
//! It does nothing but wait at the gate and `exec`. It has one thread, so that the command's first
//! thread keeps its tid.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::io::stdin;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::process::ExitCode;

use super::EXIT_CANNOT_EXECUTE;
use super::EXIT_LACUNA_FAILED;
use super::EXIT_NOT_FOUND;
use super::gate;

/// Waits at the gate that is this process's standard input, then becomes `command`. Returns only
/// where that failed, with the exit status that env(1) would give.
pub(crate) fn stage(command: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = command.split_first() else {
        return ExitCode::from(EXIT_LACUNA_FAILED);
    };
    let handed = match gate::pass(stdin()) {
        Ok(Some(handed)) => handed,
        // The other side has gone, and has said itself why.
        Ok(None) => return ExitCode::from(EXIT_LACUNA_FAILED),
        Err(error) => return failed(EXIT_LACUNA_FAILED, "the gate of the command", &error),
    };
    if let Err(error) = rustix::stdio::dup2_stdin(handed) {
        return failed(
            EXIT_LACUNA_FAILED,
            "the command's standard input",
            &error.into(),
        );
    }
    let error = Command::new(program).args(arguments).exec();
    let status = match error.kind() {
        ErrorKind::NotFound => EXIT_NOT_FOUND,
        _ => EXIT_CANNOT_EXECUTE,
    };
    failed(status, &format!("{}", program.display()), &error)
}

fn failed(status: u8, what: &str, error: &std::io::Error) -> ExitCode {
    eprintln!("lacuna: {what}: {error}");
    ExitCode::from(status)
}
