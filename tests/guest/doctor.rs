// SPDX-License-Identifier: Apache-2.0
//! `lacuna doctor` in a guest: what it says is so by other means, and the program does as it says.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::machine::Machine;
use crate::machine::Setting;
use crate::machine::read;
use crate::program::Program;
use crate::program::lacuna;
use crate::report::Report;
use crate::report::ns;
use crate::report::run;

/// How long a sleep of the shell lasts at least.
const SLEEP_NS: u64 = 200_000_000;

/// What it said.
pub(crate) struct Doctor {
    report: Value,
    /// Its exit status.
    pub(crate) code: Option<i32>,
}

impl Doctor {
    /// As this process.
    pub(crate) fn ask() -> Doctor {
        Doctor::ask_by(lacuna())
    }

    /// By a command that ends in the program's name.
    pub(crate) fn ask_by(mut command: Command) -> Doctor {
        command.args(["doctor", "--format", "json"]);
        let (status, said) = Program::start(command).end();
        let report = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        let doctor = Doctor {
            report,
            code: status.code(),
        };
        let expected = i32::from(!doctor.costs().is_empty());
        assert_eq!(doctor.code, Some(expected), "{said}");
        doctor
    }

    /// Every check.
    fn checks(&self) -> &[Value] {
        self.report["checks"].as_array().expect("checks")
    }

    /// The check of that name.
    pub(crate) fn check(&self, name: &str) -> Value {
        let mut named = self.checks().iter().filter(|check| check["name"] == name);
        named.next().unwrap_or_else(|| panic!("no {name}")).clone()
    }

    /// All causes that something is missing for.
    pub(crate) fn costs(&self) -> BTreeSet<&str> {
        let costs = self.checks().iter().flat_map(costs_of);
        costs.collect()
    }

    /// Nothing at all can be told.
    pub(crate) fn costs_everything(&self) -> bool {
        self.costs().contains("cpu")
    }
}

fn costs_of(check: &Value) -> impl Iterator<Item = &str> {
    let costs = check["costs"].as_array().expect("costs").iter();
    costs.map(|cause| cause.as_str().expect("a name"))
}

/// The words of a check.
pub(crate) fn why(check: &Value) -> &str {
    check["why"].as_str().expect("why")
}

/// Every cause that a report shows somewhere.
fn causes(report: &Report) -> BTreeSet<&str> {
    let causes = report.0["total"]["causes"].as_array().expect("causes");
    let names = causes.iter().filter_map(|cause| cause["cause"].as_str());
    names.collect()
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_what_doctor_says_is_so() {
    let _machine = Machine::alone();
    let doctor = Doctor::ask();
    let kernel = read("/proc/sys/kernel/osrelease");
    assert_eq!(doctor.report["kernel"], kernel.trim());
    assert_eq!(doctor.check("type information")["status"], "ok");
    let lockdown = read("/sys/kernel/security/lockdown");
    let (_, lockdown) = lockdown.split_once('[').expect("one of them holds");
    let (lockdown, _) = lockdown.split_once(']').expect("one of them holds");
    let said = doctor.check("lockdown");
    assert!(why(&said).starts_with(lockdown), "{lockdown}: {said:#}");
    assert_eq!(doctor.check("capabilities")["status"], "ok");
    hooks_are_what_the_kernel_has(&doctor);

    // And the program does as it says.
    assert!(!doctor.costs_everything(), "{:#}", doctor.report);
    let ran = run(&[], &["sleep", "0.2"]);
    let causes = causes(&ran.report);
    assert!(causes.is_disjoint(&doctor.costs()), "{:#}", ran.report.0);
    let sleep = ran.report.0["total"]["causes"].as_array().expect("causes");
    let sleep = sleep.iter().find(|cause| cause["cause"] == "wait.sleep");
    let slept = sleep.map_or(0, |cause| ns(&cause["ns"]));
    assert!(slept >= SLEEP_NS, "{:#}", ran.report.0);
}

/// A hook that is said to work is a tracepoint of this kernel, one that is said not to be there is none.
fn hooks_are_what_the_kernel_has(doctor: &Doctor) {
    let events = read("/sys/kernel/tracing/available_events");
    let events: BTreeSet<&str> = events
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .collect();
    let mut tried = 0;
    for check in doctor.checks() {
        let name = check["name"].as_str().expect("a name");
        let Some(hook) = name.strip_prefix("hook tp_btf/") else {
            continue;
        };
        let event = hook.split(' ').next().expect("a tracepoint");
        let is_there = check["status"] == "ok";
        assert_eq!(is_there, events.contains(event), "{check:#}");
        assert!(
            is_there || why(check).contains("no such tracepoint"),
            "{check:#}"
        );
        tried += 1;
    }
    assert!(tried >= 10, "{tried} hooks");
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_hidden_symbols_cost_what_doctor_says() {
    let _machine = Machine::alone();
    let _hidden = Setting::set("/proc/sys/kernel/kptr_restrict", "2");
    let doctor = Doctor::ask();
    let symbols = doctor.check("kernel symbols");
    assert_eq!(symbols["status"], "missing", "{symbols:#}");
    assert!(doctor.costs().contains("mem.fault"), "{symbols:#}");
    assert!(!doctor.costs_everything(), "{symbols:#}");

    // What needs no name of a function is told as ever, and nothing is guessed of the rest.
    let ran = run(&[], &["bash", "-c", "sleep 0.2; sync; echo done"]);
    assert!(ran.status.success(), "{}", ran.said);
    let found = causes(&ran.report);
    assert!(found.is_disjoint(&doctor.costs()), "{:#}", ran.report.0);
    assert!(found.contains("wait.sleep"), "{:#}", ran.report.0);
    assert!(found.contains("wait.child"), "{:#}", ran.report.0);
}
