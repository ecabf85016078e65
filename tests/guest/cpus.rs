// SPDX-License-Identifier: Apache-2.0
//! CPUs that are taken away while threads are runnable on them, and come back.

use std::fs;

use crate::agent::Agent;
use crate::counters::Scene;
use crate::exporter::Exporter;
use crate::exporter::STAY;
use crate::machine::Machine;
use crate::machine::Setting;
use crate::machine::cpus_present;
use crate::machine::read;
use crate::machine::script;
use crate::program::Program;
use crate::report;
use crate::report::Report;
use crate::report::ns;
use crate::spans;
use crate::until;

/// The last CPU that a process was on: field 39 of its `stat`, counted behind its name from 3.
fn last_cpu(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(36)?.parse().ok()
}

/// The children of a process's first thread, and theirs.
fn descendants(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    children
        .flat_map(|child| [vec![child], descendants(child)].concat())
        .collect()
}

fn offline(cpu: u32) -> Setting {
    Setting::set(format!("/sys/devices/system/cpu/cpu{cpu}/online"), "0")
}

/// Burners start on all CPUs but the first, which then go away under them.
fn all_but_the_first_go_away() {
    let others: Vec<u32> = (1..cpus_present()).collect();
    let list: Vec<String> = others.iter().map(u32::to_string).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("report.json");
    let workers = script("workers.py");
    let words = ["python3", &workers, "burning", &list.join(",")];
    let mut run = Program::start(report::command(&file, &[], &words));
    run.line("burning");
    let on_others = |pid: &u32| last_cpu(*pid).is_some_and(|cpu| cpu > 0);
    let burners = until("all burn where they were told", || {
        let all = descendants(run.pid());
        let burners: Vec<u32> = all.into_iter().filter(on_others).collect();
        (burners.len() >= 2 * others.len()).then_some(burners)
    });

    let gone: Vec<Setting> = others.iter().map(|&cpu| offline(cpu)).collect();
    assert_eq!(read("/sys/devices/system/cpu/online").trim(), "0");
    until("all go on where they still can", || {
        (!burners.iter().any(on_others)).then_some(())
    });
    drop(gone);
    let present = format!("0-{}", cpus_present() - 1);
    assert_eq!(read("/sys/devices/system/cpu/online").trim(), present);

    let (status, said) = run.end();
    assert!(status.success(), "{said}");
    let scene = Scene::of(Report::read(&file, &said), &said);
    let burned = scene.workers("burner");
    assert_eq!(burned.len(), 2 * others.len());
    for worker in burned {
        assert!(ns(&worker.thread["migrations"]) > 0, "{:#}", worker.thread);
    }
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_a_cpu_goes_away_under_runnable_threads() {
    let _machine = Machine::alone();
    all_but_the_first_go_away();
}

#[test]
#[ignore = "only in a guest"]
fn guest_cpus4_three_of_four_go_away_under_runnable_threads() {
    let _machine = Machine::alone();
    assert_eq!(cpus_present(), 4);
    all_but_the_first_go_away();
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_an_agent_outlives_a_cpu() {
    let _machine = Machine::alone();
    let agent = Agent::start();
    let mut exporter = Exporter::start(agent.http_port, STAY);
    let gone = offline(cpus_present() - 1);
    exporter.export();
    spans::assert_waited_for_a_line(&agent.explained(&exporter.trace));
    spans::is_explained(&agent);
    drop(gone);
    spans::is_explained(&agent);
    agent.assert_well();
}
