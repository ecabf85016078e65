// SPDX-License-Identifier: Apache-2.0
//! Says what became of a boot: a line for each stage, and everything about what failed.

use crate::guest::Outcome;
use crate::image::Image;
use crate::judge::Verdict;
use crate::list::Boot;
use crate::plan::Plan;

/// Shows the verdicts of a boot: one for each stage, then that of the guest itself.
pub(crate) fn boot(
    image: &Image,
    boot: &Boot,
    plan: &Plan<'_>,
    outcome: &Outcome,
    verdicts: &[Verdict],
) {
    // Boots run side by side: nobody else's lines come between.
    let _whole = std::io::stdout().lock();
    let seconds = outcome.took.as_secs();
    println!("\n== {}, boot {}: {seconds} s", image.release, boot.name);
    for (planned, verdict) in plan.stages.iter().zip(verdicts) {
        let name = &planned.stage.name;
        stage(name, verdict);
        if verdict.failed.is_empty() {
            continue;
        }
        if let Some(part) = outcome.out.iter().find(|part| part.name == *name) {
            quote(&format!("output of {name}"), &part.text);
            let errors = outcome.err.get(name).map_or("", |text| text);
            quote(&format!("errors of {name}"), errors);
        }
    }
    // What comes after the stages is about the guest: how it ended, and what its kernel said.
    let guest = &verdicts[plan.stages.len().min(verdicts.len())..];
    for failure in guest.iter().flat_map(|verdict| &verdict.failed) {
        println!("    FAILED {}: {}", failure.what, failure.why);
    }
    if guest.iter().any(|verdict| !verdict.failed.is_empty()) {
        quote(
            &format!("console of {}", image.release),
            &outcome.last_words(),
        );
    }
}

/// Shows a text of the guest's, so that no line of it is taken for one of this program's.
fn quote(what: &str, text: &str) {
    println!("      {what}:");
    for line in text.trim_end().lines() {
        println!("      | {line}");
    }
}

fn stage(name: &str, verdict: &Verdict) {
    let excepted = match verdict.excepted.len() {
        0 => String::new(),
        count => format!(", {count} excepted"),
    };
    println!(
        "    {name:<10} {} passed, {} failed{excepted}",
        verdict.passed.len(),
        verdict.failed.len()
    );
    for failure in &verdict.failed {
        println!("      FAILED {}: {}", failure.what, failure.why);
    }
    for test in &verdict.surprises {
        println!("!!!   {test} passes: its exception can go");
    }
}
