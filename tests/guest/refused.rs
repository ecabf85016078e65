// SPDX-License-Identifier: Apache-2.0
//! Where Lacuna cannot work at all: `doctor`, `run` and the agent say the same, in one line and with what
//! to do, and nothing is run unobserved. And the least that it can work with.

use std::process::Command;

use crate::agent::Agent;
use crate::doctor::Doctor;
use crate::doctor::why;
use crate::machine::Machine;
use crate::machine::has_argument;
use crate::machine::shell;
use crate::program::Program;
use crate::program::through;
use crate::spans;

/// The capabilities that the program is given where it is not started by root, as `doctor` names them.
const GRANTED: &str = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search,+syslog";

/// With these capabilities, as `setpriv` says it, and with the locked memory that `doctor` asks for where
/// BPF memory counts to it.
fn with_capabilities(set: &str) -> Vec<String> {
    let memory = ["prlimit", "--memlock=unlimited"];
    let capabilities = ["setpriv", "--inh-caps=-all", "--bounding-set", set];
    let words = memory.iter().chain(&capabilities);
    words.map(|word| (*word).to_owned()).collect()
}

/// `doctor` says that this check costs everything, and all that would observe is refused with `words`.
#[track_caller]
fn refused(command: impl Fn() -> Command, check: &str, words: &[&str]) {
    let doctor = Doctor::ask_by(command());
    let found = doctor.check(check);
    assert_eq!(found["status"], "missing", "{found:#}");
    assert!(doctor.costs_everything(), "{found:#}");
    assert!(!found["fix"].as_str().expect("a fix").is_empty());
    assert!(
        words.iter().all(|word| why(&found).contains(word)),
        "{found:#}"
    );

    let mut run = command();
    run.args(["run", "--", "echo", "it ran"]);
    let mut agent = command();
    agent.args(["agent", "--otlp-grpc", "127.0.0.1:0"]);
    agent.args(["--otlp-http", "127.0.0.1:0"]);
    agent.args(["--api", "unix:/run/lacuna-refused.sock"]);
    for (command, code) in [(run, 125), (agent, 2)] {
        let (status, said) = Program::start(command).end();
        assert_eq!(status.code(), Some(code), "{said}");
        assert!(
            !said.contains("it ran") && !said.contains("panicked"),
            "{said}"
        );
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(
            words.iter().all(|word| said.contains(word)),
            "{words:?}: {said}"
        );
        eprintln!("{said}");
    }
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_without_type_information_it_says_so() {
    let _machine = Machine::alone();
    let script = r#"mount -t tmpfs none /sys/kernel/btf && exec "$@""#;
    let command = || through(&["unshare", "--mount", "bash", "-c", script, "bash"]);
    refused(command, "type information", &["/sys/kernel/btf/vmlinux"]);
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_in_a_pid_namespace_it_says_so() {
    let _machine = Machine::alone();
    let command = || through(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    refused(command, "processes", &["not the initial pid namespace"]);
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_without_a_capability_it_names_it() {
    let _machine = Machine::alone();
    for (set, missing) in [
        ("-sys_admin,-bpf", "CAP_BPF is missing"),
        ("-sys_admin,-perfmon", "CAP_PERFMON is missing"),
        ("-all", "CAP_BPF and CAP_PERFMON are missing"),
    ] {
        let words = with_capabilities(set);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refused(|| through(&words), "capabilities", &[missing]);
    }
}

#[test]
#[ignore = "only in a guest"]
fn guest_lockdown_confidentiality_is_named() {
    let _machine = Machine::alone();
    assert!(has_argument("lockdown=confidentiality"));
    refused(|| through(&[]), "lockdown", &["confidentiality"]);
}

/// It works with these capabilities, or `doctor` has said that it does not.
fn works_with(set: &str) {
    let words = with_capabilities(set);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let doctor = Doctor::ask_by(through(&words));
    assert_eq!(doctor.check("capabilities")["status"], "ok");
    assert!(!doctor.costs_everything(), "{set}");
    let mut run = through(&words);
    run.args(["run", "--", "sleep", "0.1"]);
    let (status, said) = Program::start(run).end();
    assert!(
        status.success() && said.contains("asked to sleep"),
        "{said}"
    );
    let agent = Agent::start_through(&words);
    spans::is_explained(&agent);
    agent.assert_well();
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_the_right_to_administer_stands_for_those_to_observe() {
    let _machine = Machine::alone();
    works_with("-bpf,-perfmon");
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_the_capabilities_that_doctor_names_are_enough() {
    let _machine = Machine::alone();
    works_with(GRANTED);
}

/// `setpriv` must be one that knows these capabilities, or the tests above would prove nothing.
#[test]
#[ignore = "only in a guest"]
fn guest_any_capabilities_can_be_taken_away() {
    let _machine = Machine::alone();
    let words = with_capabilities("-bpf,-perfmon");
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .args(["grep", "CapEff", "/proc/self/status"]);
    let mut whole = shell("grep CapEff /proc/self/status", &[]);
    let whole = whole.output().expect("grep").stdout;
    let left = command.output().expect("setpriv").stdout;
    let bits = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        let word = text.split_whitespace().nth(1).map(str::to_owned);
        u64::from_str_radix(&word.expect("CapEff"), 16).expect("hex")
    };
    // CAP_PERFMON is 38, CAP_BPF is 39.
    assert_eq!(bits(&whole) & !bits(&left), 3 << 38);
}
