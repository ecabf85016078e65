// SPDX-License-Identifier: Apache-2.0
//! Order acknowledgements were slow, because a backup ran on the same host.
//!
//! A service and two processes named `backup` are bound to one CPU. The service computes and now and
//! then sleeps a little, so that it waits for the CPU after being preempted and after waking.
//!
//! Truth: the run delay that `schedstat` counts of the service's thread, read by itself in its span;
//! its own CPU clock; and how long the two others ran meanwhile. On one CPU all that ran instead of
//! it is theirs, but for kernel threads.

use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::Expectation;
use crate::Must;
use crate::Part;
use crate::Row;
use crate::Scenario;
use crate::Stage;
use crate::Stop;
use crate::meter::Amounts;
use crate::meter::Reading;
use crate::meter::schedstat;
use crate::meter::work;
use crate::part::pin_this_thread;
use crate::service::Service;
use crate::service::SpanId;
use crate::service::WARM_UP;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cpu-contention",
    story: "a backup on the same CPU: the request waits for its turns",
    play,
    parts: &[("orders", serve)],
};

/// Rivals on the service's CPU: few enough for each to be named in each wait.
const BACKUPS: usize = 2;
/// The request that counts: so often it computes, and then sleeps.
const ROUNDS: u32 = 20;
/// Longer than a time slice, so that it is preempted too.
const ROUND_CPU_NS: u64 = 15_000_000;
const ROUND_SLEEP: Duration = Duration::from_micros(200);
/// A quick request.
const QUICK_CPU_NS: u64 = 100_000;

/// What the service tells of its request.
#[derive(Serialize, Deserialize)]
struct Told {
    span: SpanId,
    amounts: Amounts,
    /// How long the rivals ran meanwhile, together.
    rivals_ns: u64,
}

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let cpu = stage.cpu()?;
    let arguments = [stage.otlp_port().to_string(), cpu.to_string()];
    let mut orders = stage.start("orders", &arguments)?;
    orders.hear::<()>()?;
    let backups: Result<Vec<_>, Stop> = (0..BACKUPS).map(|_| stage.hog("backup", cpu, 0)).collect();
    let backups = backups?;
    let rivals: Vec<u32> = backups.iter().map(|backup| backup.pid()).collect();
    orders.say(&rivals)?;
    let told: Told = orders.hear()?;
    let amounts = told.amounts;
    let waited = Row::of_gap(
        &["runq.wakeup", "runq.preempted"],
        amounts.queued_ns,
        "schedstat: run delay",
    );
    stage.must_find(&Expectation {
        trace_id: told.span.trace_id,
        span_id: told.span.span_id,
        tid: told.span.tid,
        rows: vec![
            waited.must(Must::Blame {
                name: "backup".to_owned(),
                // They also ran while the service slept, and that was no wait.
                truth_ns: Some(
                    told.rivals_ns.saturating_sub(amounts.blocked_ns())..=told.rivals_ns,
                ),
            }),
            Row::of_gap(&["cpu"], amounts.on_cpu_ns, "the thread's CPU clock"),
            Row::of_gap(&["wait.sleep"], amounts.blocked_ns(), "clock: the rest"),
        ],
    })
}

/// `orders PORT CPU`: quick requests; then, told who its rivals are, the one that counts.
fn serve(part: &mut Part) -> anyhow::Result<()> {
    let mut service = Service::connect("orders", part.argument()?)?;
    pin_this_thread(part.argument()?)?;
    for _ in 0..WARM_UP {
        let begin = Reading::now()?;
        work(QUICK_CPU_NS);
        service.span("acknowledge", &begin, &Reading::now()?);
        sleep(ROUND_SLEEP);
    }
    service.export()?;
    part.say(&())?;

    let rivals: Vec<u32> = part.hear()?;
    let ran_ns = || -> anyhow::Result<u64> {
        let each = rivals.iter().map(|&pid| schedstat(pid, pid));
        each.map(|stat| Ok(stat?.on_cpu_ns)).sum()
    };
    let (begin, rivals_before_ns) = Reading::take(ran_ns)?;
    for _ in 0..ROUNDS {
        work(ROUND_CPU_NS);
        sleep(ROUND_SLEEP);
    }
    let (end, rivals_after_ns) = Reading::take(ran_ns)?;
    let span = service.span("acknowledge", &begin, &end);
    service.export()?;
    part.say(&Told {
        span,
        amounts: begin.until(&end),
        rivals_ns: rivals_after_ns - rivals_before_ns,
    })?;
    // Its process has to be found while its spans are explained.
    part.hear()
}
