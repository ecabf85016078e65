// SPDX-License-Identifier: Apache-2.0
//! Hosts that are presented to `doctor`, and what it must say about each; and this one, for real.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use lacuna_host::Root;
use lacuna_probes::HookReport;
use lacuna_probes::KernelFacts;
use lacuna_probes::LimitClock;
use lacuna_timeline::Cause;
use tempfile::TempDir;

use super::Check;
use super::Report;
use super::Status;
use super::Trials;
use super::every_cause;
use super::find_own_connection;
use super::text;
use crate::render::Style;

const BOTH_VERSIONS: &str = "\
26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 25 0:24 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
28 25 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";
const V1_ONLY: &str = "27 25 0:24 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
const V2_ONLY: &str = "26 25 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

/// As in a pipe.
const PLAIN: Style = Style {
    colour: false,
    bars: false,
    verbose: false,
};

/// All capabilities of 6.18.
const ALL: &str = "CapPrm:\t000001ffffffffff\nCapEff:\t000001ffffffffff\n";

/// A host on which everything works, to be spoiled by a test.
struct Host {
    base: TempDir,
    trials: Trials,
}

impl Host {
    fn healthy() -> Self {
        let hook = |hook: &str, program: &str| HookReport {
            hook: hook.to_owned(),
            program: program.to_owned(),
            outcome: Ok(()),
        };
        let host = Self {
            base: tempfile::tempdir().unwrap(),
            trials: Trials {
                hooks: vec![
                    hook("tp_btf/sched_switch", "on_switch"),
                    hook("tp_btf/mm_compaction_begin", "on_compaction"),
                    hook("iter/task", "snapshot"),
                ],
                kernel: Ok(KernelFacts {
                    threads_max: None,
                    switch_says_state: true,
                    limits: LimitClock::Task,
                    wakers: true,
                    typed_loads: true,
                    drop_reasons: true,
                }),
                clock_error_ns: Ok(40),
                connection_owner: Ok(()),
            },
        };
        host.write("proc/sys/kernel/osrelease", "6.18.44-1-amd64\n");
        host.write("sys/kernel/btf/vmlinux", "");
        host.write(
            "sys/kernel/security/lockdown",
            "none [integrity] confidentiality\n",
        );
        host.write("proc/self/status", ALL);
        let locked = "Max locked memory         8388608  8388608  bytes\n";
        host.write("proc/self/limits", locked);
        host.write("proc/self/mountinfo", BOTH_VERSIONS);
        host.write("proc/kallsyms", "ffffffff81001000 T schedule\n");
        host.write("proc/sys/kernel/sched_rt_runtime_us", "950000\n");
        host.write("proc/sys/kernel/task_delayacct", "0\n");
        host.write("proc/pressure/cpu", "some avg10=0.00\n");
        host.write(
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "tsc\n",
        );
        std::fs::create_dir_all(host.path("proc/self/ns")).unwrap();
        symlink("pid:[4026531836]", host.path("proc/self/ns/pid")).unwrap();
        host
    }

    fn path(&self, file: &str) -> PathBuf {
        self.base.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.path(file)).unwrap();
    }

    fn report(&self) -> Report {
        Report::make(&Root::at(self.base.path()), &self.trials)
    }

    /// The one check of that name; all others must be as on a healthy host.
    #[track_caller]
    fn only(&self, name: &str) -> Check {
        let report = self.report();
        for check in &report.checks {
            let healthy = check.status == Status::Ok;
            assert!(healthy || check.name == name, "also not ok: {check:?}");
        }
        find(&report, name)
    }
}

#[track_caller]
fn find(report: &Report, name: &str) -> Check {
    let check = report.checks.iter().find(|check| check.name == name);
    check
        .unwrap_or_else(|| panic!("no check {name:?} in {report:?}"))
        .clone()
}

fn names(causes: impl IntoIterator<Item = Cause>) -> Vec<&'static str> {
    causes.into_iter().map(Cause::name).collect()
}

#[test]
fn a_healthy_host_costs_nothing() {
    let report = Host::healthy().report();
    assert!(
        report.checks.iter().all(|check| check.status == Status::Ok),
        "{report:?}"
    );
    assert!(
        report
            .checks
            .iter()
            .all(|check| check.fix.is_empty() && !check.why.is_empty())
    );
    assert!(!report.costs_a_cause());
    assert_eq!(report.kernel, "6.18.44-1-amd64");
    assert!(text::render(&report, PLAIN).ends_with("\neverything works on this host\n"));
}

#[test]
fn without_type_information_nothing_can_be_told() {
    let host = Host::healthy();
    host.remove("sys/kernel/btf/vmlinux");
    let check = host.only("type information");
    assert_eq!(check.status, Status::Missing);
    assert_eq!(check.costs, names(every_cause()));
    assert!(!check.costs.contains(&"unknown"));
    assert!(check.fix.contains("CONFIG_DEBUG_INFO_BTF"));
    assert!(host.report().costs_a_cause());
}

#[test]
fn confidentiality_costs_everything_and_integrity_nothing() {
    let host = Host::healthy();
    host.write(
        "sys/kernel/security/lockdown",
        "none integrity [confidentiality]\n",
    );
    let check = host.only("lockdown");
    assert_eq!(
        (check.status, check.costs.len()),
        (Status::Missing, every_cause().count())
    );
    assert!(check.fix.contains("lockdown=integrity"));
    host.write(
        "sys/kernel/security/lockdown",
        "[none] integrity confidentiality\n",
    );
    assert_eq!(host.only("lockdown").status, Status::Ok);
    host.remove("sys/kernel/security/lockdown");
    assert!(
        host.only("lockdown").why.starts_with("not told"),
        "unknown is not called fine"
    );
}

#[test]
fn an_old_kernel_is_told_what_it_lacks() {
    let host = Host::healthy();
    host.write(
        "proc/self/limits",
        "Max locked memory         unlimited  unlimited  bytes\n",
    );
    host.write("proc/sys/kernel/osrelease", "4.19.0-27-amd64\n");
    let check = host.only("kernel version");
    assert_eq!(check.status, Status::Missing);
    assert!(check.why.contains("4.19.0-27-amd64") && check.why.contains("ring buffers"));
    assert_eq!(check.costs, names(every_cause()));
    host.write("proc/sys/kernel/osrelease", "5.8.0-63-generic\n");
    assert_eq!(host.only("kernel version").status, Status::Degraded);
    host.write("proc/sys/kernel/osrelease", "5.10.0-43-amd64\n");
    assert_eq!(host.only("kernel version").status, Status::Ok);
    host.write("proc/sys/kernel/osrelease", "gibberish\n");
    assert_eq!(host.only("kernel version").status, Status::Degraded);
}

#[test]
fn what_an_old_kernel_cannot_measure_is_told() {
    let mut host = Host::healthy();
    let mut with = |change: fn(&mut KernelFacts)| {
        let mut facts = Host::healthy().trials.kernel.unwrap();
        change(&mut facts);
        host.trials.kernel = Ok(facts);
        host.report()
    };
    let few = find(&with(|facts| facts.threads_max = Some(9)), "threads");
    assert!(few.status == Status::Degraded && few.why.contains("at most 9 threads"));
    let estimated = with(|facts| facts.limits = LimitClock::Estimated);
    assert_eq!(find(&estimated, "CPU limits").status, Status::Degraded);
    let queue = with(|facts| facts.limits = LimitClock::Queue);
    assert_eq!(find(&queue, "CPU limits").status, Status::Ok);
    let blind = with(|facts| facts.wakers = false);
    assert_eq!(find(&blind, "wakers").status, Status::Degraded);
    host.trials.kernel = Err("no BTF".to_owned());
    assert!(host.report().checks.iter().all(|it| it.name != "threads"));
}

#[test]
fn an_old_kernel_counts_locked_memory() {
    let host = Host::healthy();
    host.write("proc/sys/kernel/osrelease", "5.10.0-43-amd64\n");
    host.write(
        "proc/self/status",
        "CapPrm:\t000001fffeffffff\nCapEff:\t000001fffeffffff\n",
    );
    let check = find(&host.report(), "locked memory");
    assert_eq!(check.status, Status::Degraded);
    assert!(check.why.contains("8192 KiB") && check.fix.contains("CAP_SYS_RESOURCE"));
}

#[test]
fn missing_capabilities_are_named() {
    let host = Host::healthy();
    host.write(
        "proc/self/status",
        "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n",
    );
    let report = host.report();
    let check = find(&report, "capabilities");
    assert_eq!(check.status, Status::Missing);
    assert!(
        check.why.starts_with("CAP_BPF and CAP_PERFMON are missing"),
        "{}",
        check.why
    );
    assert_eq!(check.costs, names(every_cause()));
    let facts = find(&report, "capabilities for facts");
    assert_eq!(facts.status, Status::Degraded);
    assert!(facts.why.contains("CAP_SYS_PTRACE") && facts.why.contains("CAP_SYSLOG"));
}

#[test]
fn only_the_capability_that_is_missing_is_named() {
    let host = Host::healthy();
    // CAP_BPF (39), CAP_PERFMON (38), CAP_SYSLOG (34), CAP_SYS_PTRACE (19), CAP_DAC_READ_SEARCH (2).
    host.write(
        "proc/self/status",
        "CapPrm:\tc400080004\nCapEff:\t8400080004\n",
    );
    let check = find(&host.report(), "capabilities");
    assert!(
        check
            .why
            .starts_with("CAP_PERFMON is missing (permitted, but not effective)")
    );
    host.write(
        "proc/self/status",
        "CapPrm:\tc400080004\nCapEff:\tc400080004\n",
    );
    let report = host.report();
    assert_eq!(find(&report, "capabilities").status, Status::Ok);
    let facts = find(&report, "capabilities for facts");
    assert!(facts.why.contains("CAP_SYS_ADMIN") && !facts.why.contains("CAP_SYSLOG"));
}

#[test]
fn before_5_8_only_sys_admin_would_do() {
    let host = Host::healthy();
    host.write("proc/sys/kernel/osrelease", "5.4.0-1-amd64\n");
    host.write(
        "proc/self/status",
        "CapPrm:\tc000000000\nCapEff:\tc000000000\n",
    );
    let check = find(&host.report(), "capabilities");
    assert!(
        check.why.starts_with("CAP_SYS_ADMIN is missing"),
        "{}",
        check.why
    );
}

#[test]
fn control_groups_of_either_version_will_do() {
    let host = Host::healthy();
    host.write("proc/self/mountinfo", V1_ONLY);
    let check = host.only("control groups");
    assert_eq!(
        (check.status, &*check.why),
        (Status::Ok, "v2 not mounted, v1 (cpu+cpuacct)")
    );
    host.write("proc/self/mountinfo", V2_ONLY);
    host.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory\n");
    let check = host.only("control groups");
    assert_eq!(
        (check.status, &*check.why),
        (Status::Ok, "v2 (cpuset, cpu, io, memory)")
    );
    host.write("sys/fs/cgroup/cgroup.controllers", "\n");
    let check = host.only("control groups");
    assert_eq!(check.status, Status::Degraded);
    assert!(
        check
            .why
            .contains("v2 without controllers: no CPU controller")
    );
    host.write("proc/self/mountinfo", "");
    assert!(
        host.only("control groups")
            .why
            .starts_with("none are mounted")
    );
}

#[test]
fn hidden_symbols_cost_what_only_a_stack_proves() {
    let host = Host::healthy();
    host.write(
        "proc/kallsyms",
        "0000000000000000 T schedule\n0000000000000000 t x\t[m]\n",
    );
    let check = host.only("kernel symbols");
    assert_eq!(check.status, Status::Missing);
    assert!(check.costs.contains(&"lock.kernel") && check.costs.contains(&"disk.limit"));
    assert!(!check.costs.contains(&"runq.wakeup") && !check.costs.contains(&"wait.sleep"));
    assert!(check.fix.contains("kptr_restrict"));
    host.remove("proc/kallsyms");
    assert!(host.only("kernel symbols").fix.contains("CONFIG_KALLSYMS"));
}

#[test]
fn a_tracepoint_that_the_kernel_lacks_costs_its_causes() {
    let absent =
        |hook: &str| format!("libbpf: prog 'p': failed to find kernel BTF type ID of '{hook}': -3");
    let mut host = Host::healthy();
    host.trials.hooks[1].outcome = Err(absent("mm_compaction_begin"));
    let check = host.only("hook tp_btf/mm_compaction_begin (on_compaction)");
    assert_eq!(
        (check.status, check.costs),
        (Status::Missing, vec!["mem.compaction"])
    );

    let mut host = Host::healthy();
    host.trials.hooks[0].outcome = Err(absent("sched_switch"));
    let check = host.only("hook tp_btf/sched_switch (on_switch)");
    assert_eq!(check.costs, names(every_cause()));

    let mut host = Host::healthy();
    host.trials.hooks[2].hook = "tp_btf/task_rename".to_owned();
    host.trials.hooks[2].outcome = Err(absent("task_rename"));
    let check = host.only("hook tp_btf/task_rename (snapshot)");
    assert_eq!(check.status, Status::Degraded, "{check:?}");
    assert!(check.costs.is_empty() && !host.report().costs_a_cause());
}

#[test]
fn a_refused_hook_costs_everything_and_says_the_kernels_first_and_last_words() {
    let mut host = Host::healthy();
    let log = format!(
        "Permission denied\n0: R1=ctx() R10=fp0\n{}invalid bpf_context access off=24\n",
        "x\n".repeat(9_999)
    );
    host.trials.hooks[1].outcome = Err(log);
    let check = host.only("hook tp_btf/mm_compaction_begin (on_compaction)");
    assert_eq!(check.status, Status::Missing);
    assert_eq!(
        check.costs,
        names(every_cause()),
        "they load together or not"
    );
    assert!(check.why.starts_with("refused: Permission denied\n"));
    assert!(check.why.ends_with("invalid bpf_context access off=24") && check.why.len() < 1_100);
}

#[test]
fn hooks_that_could_not_be_tried_are_one_row() {
    let mut host = Host::healthy();
    host.trials.hooks = vec![HookReport {
        hook: "BTF".to_owned(),
        program: String::new(),
        outcome: Err("cannot read it".to_owned()),
    }];
    let check = host.only("hooks");
    assert_eq!(check.costs, names(every_cause()));
    assert!(check.why.contains("cannot read it"));
}

#[test]
fn a_foreign_pid_namespace_costs_everything_and_hidepid_joins() {
    let host = Host::healthy();
    host.remove("proc/self/ns/pid");
    symlink("pid:[4026532999]", host.path("proc/self/ns/pid")).unwrap();
    assert_eq!(host.only("processes").status, Status::Missing);

    let host = Host::healthy();
    let hiding = format!("20 1 0:5 / /proc rw - proc proc rw,hidepid=invisible\n{BOTH_VERSIONS}");
    host.write("proc/self/mountinfo", &hiding);
    assert_eq!(host.only("processes").status, Status::Degraded);
}

#[test]
fn slow_clocks_lost_owners_and_other_schedulers_are_weaker_not_missing() {
    let host = Host::healthy();
    host.write(
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "hpet\n",
    );
    assert!(host.only("clocks").why.starts_with("hpet"));

    let mut host = Host::healthy();
    host.trials.clock_error_ns = Ok(5_000_000);
    assert!(host.only("clocks").why.contains("5000000 ns"));
    host.trials.clock_error_ns = Err("no descriptors".to_owned());
    assert!(host.only("clocks").why.contains("no descriptors"));

    let mut host = Host::healthy();
    host.trials.connection_owner = Err("not permitted".to_owned());
    assert!(host.only("connection owners").why.contains("not permitted"));

    let host = Host::healthy();
    host.write("sys/kernel/sched_ext/state", "enabled\n");
    assert!(host.only("scheduler").why.contains("sched_ext"));
}

#[test]
fn the_json_is_the_contract() {
    let host = Host::healthy();
    host.remove("sys/kernel/btf/vmlinux");
    let json = serde_json::to_value(host.report()).unwrap();
    assert_eq!(json["schema"], "lacuna.doctor/1");
    assert_eq!(json["kernel"], "6.18.44-1-amd64");
    let checks = json["checks"].as_array().unwrap();
    let check = checks
        .iter()
        .find(|check| check["name"] == "type information")
        .unwrap();
    assert_eq!(check["status"], "missing");
    assert_eq!(
        check["costs"].as_array().unwrap().len(),
        every_cause().count()
    );
    let mut fields: Vec<&String> = check.as_object().unwrap().keys().collect();
    fields.sort_unstable();
    assert_eq!(fields, ["costs", "fix", "name", "status", "why"]);
}

#[test]
fn a_host_without_any_files_is_described_all_the_same() {
    let base = tempfile::tempdir().unwrap();
    let report = Report::make(&Root::at(base.path()), &Host::healthy().trials);
    assert_eq!(report.kernel, "");
    assert!(text::render(&report, PLAIN).starts_with("kernel unknown\n"));
}

#[test]
fn text_is_aligned_plain_in_a_pipe_and_coloured_on_a_terminal() {
    let mut host = Host::healthy();
    for hook in &mut host.trials.hooks {
        hook.outcome = Err(format!("Operation not permitted\n{}", hook.program));
    }
    host.remove("sys/kernel/btf/vmlinux");
    let report = host.report();
    let plain = text::render(&report, PLAIN);
    assert!(!plain.contains('\x1b'));
    assert!(
        plain.lines().all(|line| line.chars().count() <= 100),
        "{plain}"
    );
    assert!(
        plain.contains("  ok       kernel version             6.18.44-1-amd64: 5.10 or later\n"),
        "{plain}"
    );
    assert!(plain.contains("3 hooks") && plain.contains("costs: every cause\n"));
    let coloured = text::render(
        &report,
        Style {
            colour: true,
            ..PLAIN
        },
    );
    assert!(coloured.contains("\x1b[31mmissing  \x1b[0m"));
    let stripped = ["31", "32", "33", "0"].iter().fold(coloured, |text, code| {
        text.replace(&format!("\x1b[{code}m"), "")
    });
    assert_eq!(stripped, plain, "colours change nothing else");
}

#[test]
fn hooks_of_which_the_same_is_said_share_a_row() {
    let report = Host::healthy().report();
    let plain = text::render(&report, PLAIN);
    assert!(
        plain.contains("3 hooks") && !plain.contains("tp_btf"),
        "{plain}"
    );
    let mut host = Host::healthy();
    host.trials.hooks[2].outcome = Err("gone".to_owned());
    let plain = text::render(&host.report(), PLAIN);
    assert!(
        plain.contains("2 hooks") && plain.contains("hook iter/task (snapshot)"),
        "{plain}"
    );
}

#[test]
fn the_owner_of_an_own_connection_is_found_on_this_host() {
    assert_eq!(find_own_connection(&Root::host()), Ok(()));
}

#[test]
fn root_this_host_is_tried_for_real() {
    let root = Root::host();
    let trials = Trials::make(&root);
    assert!(trials.hooks.len() > 10, "{:?}", trials.hooks);
    let report = Report::make(&root, &trials);
    let missing: Vec<&Check> = report
        .checks
        .iter()
        .filter(|check| check.status == Status::Missing)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(!report.costs_a_cause());
}
