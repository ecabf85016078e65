// SPDX-License-Identifier: Apache-2.0
//! What the ladder costs on a process of 1,000 threads. Amounts of CPU time, not of the clock; how soon
//! it says something is measured in docs/overhead.md.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::program::lacuna;
use crate::worker::Worker;

/// The window, seconds: the usual one.
const WINDOW_SECONDS: f64 = 30.0;

#[test]
fn a_process_of_a_thousand_threads_costs_less_than_a_hundredth_of_a_core() {
    let crowd = Worker::start(&[], "crowd", &["1000"]);
    crowd.line("all");
    // The kernel's rusage of that one child: whatever starts Python may have had children of its own.
    let script = "import os, sys\n\
        quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]\n\
        pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)\n\
        _, status, used = os.wait4(pid, 0)\n\
        print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime)";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(lacuna().get_program())
        .args(["ladder", "--pid", &crowd.pid().to_string(), "--window"])
        .arg(format!("{WINDOW_SECONDS}s"))
        .process_group(0)
        .output()
        .expect("Python");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let (status, seconds) = said.trim().split_once(' ').expect("two words");
    let seconds: f64 = seconds.parse().expect("seconds");
    eprintln!("{seconds} s of CPU time in {WINDOW_SECONDS} s, status {status}");
    assert!(["0", "1"].contains(&status), "{said}");
    assert!(seconds < WINDOW_SECONDS / 100.0, "{seconds} s of CPU time");
}
