// SPDX-License-Identifier: Apache-2.0
//! The guest itself: that this is one, what it has, and what a test changes about it.
//!
//! What is changed is put back at the end of a test, also of one that fails, for the next in the same boot.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// The kernel argument that the matrix gives to its guests and to nobody else.
const ARGUMENT: &str = "lacuna.guest=1";

/// There is one machine, and each test changes it.
static ALONE: Mutex<()> = Mutex::new(());

/// The guest, for one test at a time.
pub(crate) struct Machine {
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// Fails outside a guest, before anything is touched.
    pub(crate) fn alone() -> Machine {
        assert!(
            has_argument(ARGUMENT),
            "this test changes the machine and runs in guests of `make matrix` only ({ARGUMENT} is no \
             argument of this kernel)"
        );
        // A test that failed has put back what it had changed.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Machine { _alone: alone }
    }
}

/// Whether the kernel was booted with that argument.
pub(crate) fn has_argument(argument: &str) -> bool {
    let all = read("/proc/cmdline");
    all.split_whitespace().any(|word| word == argument)
}

/// A file of the kernel's.
#[track_caller]
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let text = fs::read_to_string(path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Which CPUs there are, whether online or not: `0-3` is 4.
pub(crate) fn cpus_present() -> u32 {
    let present = read("/sys/devices/system/cpu/present");
    let last = present.trim().rsplit(['-', ',']).next();
    last.and_then(|cpu| cpu.parse::<u32>().ok()).expect("a CPU") + 1
}

/// A setting of the kernel's that has another value until this is dropped.
pub(crate) struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    /// Sets it.
    #[track_caller]
    pub(crate) fn set(path: impl Into<PathBuf>, value: &str) -> Setting {
        let path = path.into();
        let before = read(&path).trim().to_owned();
        let set = fs::write(&path, value);
        set.unwrap_or_else(|error| panic!("{} = {value}: {error}", path.display()));
        Setting { path, before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            eprintln!("{} = {}: {error}", self.path.display(), self.before);
        }
    }
}

/// A script of bash with these arguments, as `$1` and so on.
pub(crate) fn shell(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).args(arguments);
    command
}

/// What a command prints; it must be there and end well.
#[track_caller]
pub(crate) fn output(mut command: Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A script that stands beside these tests.
pub(crate) fn script(name: &str) -> String {
    format!("{}/tests/guest/{name}", env!("CARGO_MANIFEST_DIR"))
}
