// SPDX-License-Identifier: Apache-2.0
//! What a guest that does not go on is doing: has QEMU raise a non-maskable interrupt, which a kernel
//! started with `unknown_nmi_panic` answers by printing each CPU's and each task's stack, even where
//! its CPUs turn in a lock with interrupts off.
//!
//! Best effort: where QEMU itself does not answer, the console says no more than before.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

/// Words of the kernel's command line: print tasks (1) and all CPUs (64) when it panics, and panic at an
/// interrupt that is nobody's (Documentation/admin-guide/kernel-parameters.txt).
pub(crate) const ARGUMENTS: &str = "unknown_nmi_panic=1 panic_print=65";
/// How the socket of QEMU's monitor is called in a run's folder.
pub(crate) const MONITOR: &str = "monitor";
/// How long QEMU may take to answer one command.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long the console may be silent before it is taken to have said all, and how long it may speak.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const SPEECH_MAX: Duration = Duration::from_secs(60);

/// Makes the guest print what it does, and returns once its console says no more.
///
/// # Errors
/// When QEMU's monitor cannot be reached or does not answer.
pub(crate) fn print_stacks(folder: &Path) -> Result<()> {
    let mut monitor = UnixStream::connect(folder.join(MONITOR))?;
    monitor.set_read_timeout(Some(ANSWER_MAX))?;
    let mut answers = BufReader::new(monitor.try_clone()?);
    // The greeting, then the answer to each command; events may come between and are one line each too.
    let mut line = String::new();
    answers.read_line(&mut line)?;
    for command in ["qmp_capabilities", "inject-nmi"] {
        writeln!(monitor, r#"{{"execute":"{command}"}}"#)?;
        line.clear();
        while !line.contains("\"return\"") && !line.contains("\"error\"") {
            line.clear();
            anyhow::ensure!(answers.read_line(&mut line)? > 0, "QEMU closed its monitor");
        }
    }
    until_silent(&folder.join("console"))
}

fn until_silent(console: &Path) -> Result<()> {
    let started = Instant::now();
    let mut said = (fs::metadata(console)?.len(), Instant::now());
    while said.1.elapsed() < SILENCE_MAX && started.elapsed() < SPEECH_MAX {
        sleep(Duration::from_millis(100));
        let bytes = fs::metadata(console)?.len();
        if bytes != said.0 {
            said = (bytes, Instant::now());
        }
    }
    Ok(())
}
