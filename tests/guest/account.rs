// SPDX-License-Identifier: Apache-2.0
//! `lacuna run` in a guest: known waits, to the bounds that the workers' own clocks give.

use serde_json::Value;

use crate::counters::Scene;
use crate::counters::near;
use crate::machine::Machine;
use crate::report::ns;

/// A chain or a culprit by that name.
fn names(entries: &Value, comm: &str) -> bool {
    let entries = entries.as_array().into_iter().flatten();
    let mut names = entries.map(|entry| entry["comm"].as_str().or(entry["name"].as_str()));
    names.any(|name| name == Some(comm))
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_sleep_and_pipe_are_exact() {
    let _machine = Machine::alone();
    let scene = Scene::run(&["waits"]);
    let sleeper = scene.worker("sleep");
    let slept = sleeper.cause_ns("wait.sleep");
    // No timer rings early, and it was not away for longer than its own clock says.
    assert!(slept >= sleeper.noted("least_ns"), "{:#}", sleeper.thread);
    assert!(slept <= sleeper.noted("most_ns"), "{:#}", sleeper.thread);

    let reader = scene.worker("pipe");
    let written = scene.notes("written").next().expect("it was written");
    let least = ns(&written["at_ns"]) - reader.noted("began_ns");
    let waited = reader.cause_ns("wait.pipe");
    assert!(waited <= reader.noted("most_ns"), "{:#}", reader.thread);
    assert!(waited > least || near(waited, least), "{:#}", reader.thread);
    let wait = reader.cause("wait.pipe").expect("it is more than nothing");
    assert!(names(&wait["chain"], "python3"), "who wrote: {wait:#}");
}

#[test]
#[ignore = "only in a guest"]
fn guest_any_a_hog_on_the_same_cpu_is_blamed() {
    let _machine = Machine::alone();
    let scene = Scene::run(&["contended"]);
    let victim = scene.worker("contended");
    let preempted = victim.cause_ns("runq.preempted");
    // The two share a CPU fairly, so it waited about as long as it ran; only so much is certain that
    // this is the most of it.
    assert!(
        preempted > victim.noted("queued_ns") / 2,
        "{:#}",
        victim.thread
    );
    let cause = victim.cause("runq.preempted").expect("it was preempted");
    let culprits = cause["culprits"].as_array().expect("culprits");
    let of_hog = culprits.iter().filter(|culprit| culprit["name"] == "hog");
    let of_hog: u64 = of_hog.map(|culprit| ns(&culprit["ns"])).sum();
    assert!(of_hog > preempted / 2, "{cause:#}");
}
