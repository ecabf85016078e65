// SPDX-License-Identifier: Apache-2.0
//! Process ids that mean something else elsewhere (namespaces) or at another time (they are used again).

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::agent::Agent;
use crate::exporter;
use crate::exporter::SCRIPT;
use crate::exporter::STAY;
use crate::exporter::new_trace;
use crate::machine::Machine;
use crate::machine::Setting;
use crate::machine::shell;
use crate::program::Program;
use crate::report::ns;
use crate::spans;
use crate::until;

/// So few numbers that they are used again soon; the kernel keeps the first 300 for those that it
/// boots with.
const PID_MAX: &str = "600";
/// How long a program waits in its span.
const WAIT: Duration = Duration::from_millis(200);

#[test]
#[ignore = "only in a guest"]
fn guest_any_a_program_in_a_pid_namespace_is_found() {
    let _machine = Machine::alone();
    let agent = Agent::start();
    let trace = new_trace();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["bash", "-c", SCRIPT]);
    command.args(exporter::arguments(agent.http_port, &trace, None, STAY));
    let mut program = Program::start(command);
    let inside = program.line("ready ");
    assert_eq!(inside, "1", "its number where it lives, which it sends");
    let unshare = program.pid();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
    let outside: u64 = children.expect("a list").trim().parse().expect("one child");
    // The wait is what its span is about.
    thread::sleep(WAIT);
    program.say("go");
    let answer = agent.explained(&trace);
    assert_eq!(ns(&answer["join"]["pid"]), outside, "{answer:#}");
    spans::assert_waited_for_a_line(&answer);
    agent.assert_well();
}

/// Starts processes that end at once until one has the number `$3`, which becomes the program: `$1 -c $2`
/// with what follows `$3`.
const WITH_NUMBER: &str = r#"
program=$1 script=$2 wanted=$3; shift 3
exec 4<&0
until [ "$last" = "$wanted" ]; do
    [ -z "$last" ] || wait "$last"
    ([ "$BASHPID" = "$wanted" ] && exec "$program" -c "$script" "$@" <&4) & last=$!
done
wait "$last""#;

#[test]
#[ignore = "only in a guest"]
fn guest_any_a_pid_that_is_used_again_is_another_process() {
    let _machine = Machine::alone();
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["first", "second"] {
        fs::copy("/bin/bash", directory.path().join(name)).expect("a copy");
    }
    let path = |name: &str| directory.path().join(name).display().to_string();
    let agent = Agent::start();
    let _few = Setting::set("/proc/sys/kernel/pid_max", PID_MAX);

    let mut answers = Vec::new();
    let mut number = String::new();
    for name in ["first", "second"] {
        let trace = new_trace();
        let arguments = exporter::arguments(agent.http_port, &trace, None, STAY);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let program = path(name);
        let command = if number.is_empty() {
            let mut command = Command::new(&program);
            command.args(["-c", SCRIPT]).args(&arguments);
            command
        } else {
            // A shell's script has its own name where others have `$0`.
            let words = [&[&*program, SCRIPT, &number], &arguments[..]].concat();
            shell(WITH_NUMBER, &words)
        };
        let mut exporter = Program::start(command);
        let ready = until("it has a number", || {
            let said = exporter.said();
            let mut lines = said.lines().filter_map(|line| line.strip_prefix("ready "));
            let of_it = |pid: &&str| number.is_empty() || *pid == number;
            lines.find(of_it).map(str::to_owned)
        });
        number = ready;
        thread::sleep(WAIT);
        exporter.say("go");
        answers.push(agent.explained(&trace));
        exporter.say("end");
        let (status, said) = exporter.end();
        assert!(status.success(), "{said}");
    }
    for (answer, name) in answers.iter().zip(["first", "second"]) {
        assert_eq!(answer["join"]["comm"], name, "{answer:#}");
        assert_eq!(answer["join"]["pid"].to_string(), number, "{answer:#}");
        spans::assert_waited_for_a_line(answer);
    }
    agent.assert_well();
}
