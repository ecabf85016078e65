// SPDX-License-Identifier: Apache-2.0
//! Two encoders were packed into one CPU limit, and both ran past it.
//!
//! A service and a process named `neighbour` are in one control group, on one CPU, with less of it
//! than they want. The service only computes, so it waits for the limit, or for its neighbour.
//!
//! Truth: the throttled time that the group's `cpu.stat` counts. It counts queues and not threads,
//! one a CPU; on one CPU, where the service always wants to run, that is how long it was denied. The
//! run delay of `schedstat` has that in it; the rest of it was spent behind the neighbour.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use lacuna_host::cgroup::CpuStat;
use serde::Deserialize;
use serde::Serialize;

use crate::Expectation;
use crate::Must;
use crate::Part;
use crate::Row;
use crate::Scenario;
use crate::Stage;
use crate::Stop;
use crate::cgroup::Cgroup;
use crate::meter::Amounts;
use crate::meter::Reading;
use crate::meter::schedstat;
use crate::meter::work;
use crate::part::pin_process;
use crate::part::pin_this_thread;
use crate::service::Service;
use crate::service::SpanId;
use crate::service::WARM_UP;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cpu-throttle",
    story: "two encoders in one CPU limit: both are denied the CPU for most of each period",
    play,
    parts: &[("encoder", serve)],
};

/// Of each period both together may run for so long; each would get half of the CPU.
const QUOTA_US: u64 = 40_000;
const PERIOD_US: u64 = 100_000;
/// What the request that counts computes: some eight periods.
const CPU_NS: u64 = 150_000_000;
/// A quick request, and the pause after it.
const QUICK_CPU_NS: u64 = 100_000;
const PAUSE: Duration = Duration::from_millis(1);

/// What the service tells of its request.
#[derive(Serialize, Deserialize)]
struct Told {
    span: SpanId,
    amounts: Amounts,
    throttled_ns: u64,
    /// How long the neighbour ran meanwhile.
    neighbour_ns: u64,
}

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let group = Cgroup::create("cpu")?;
    group.limit_cpu(QUOTA_US, PERIOD_US)?;
    // Else there might be so much to do that nobody gets as far as the limit.
    group.prefer()?;
    let cpu = stage.cpu()?;
    let arguments = [stage.otlp_port().to_string(), cpu.to_string()];
    let mut encoder = stage.start("encoder", &arguments)?;
    encoder.hear::<()>()?;
    let neighbour = stage.hog("neighbour", cpu, 0)?;
    for pid in [neighbour.pid(), encoder.pid()] {
        group.add(pid)?;
        // Where the group has CPUs of its own to give, older kernels forget who had chosen fewer.
        pin_process(pid, cpu)?;
    }
    encoder.say(&(neighbour.pid(), group.file("cpu.stat")))?;
    let told: Told = encoder.hear()?;
    let amounts = told.amounts;
    let throttled = Row::of_gap(&["throttle"], told.throttled_ns, "cpu.stat: throttled");
    let queued = Row::of_gap(
        &["runq.wakeup", "runq.preempted"],
        amounts.queued_ns.saturating_sub(told.throttled_ns),
        "schedstat: run delay, less that",
    );
    stage.must_find(&Expectation {
        trace_id: told.span.trace_id,
        span_id: told.span.span_id,
        tid: told.span.tid,
        rows: vec![
            throttled.must(Must::Blame {
                name: group.name().to_owned(),
                truth_ns: None,
            }),
            queued.must(Must::Blame {
                name: "neighbour".to_owned(),
                truth_ns: Some(told.neighbour_ns..=told.neighbour_ns),
            }),
            Row::of_gap(&["cpu"], amounts.on_cpu_ns, "the thread's CPU clock"),
        ],
    })
}

/// `encoder PORT CPU`: quick requests; then, told its neighbour and its group, the one that counts.
fn serve(part: &mut Part) -> anyhow::Result<()> {
    let mut service = Service::connect("encoder", part.argument()?)?;
    pin_this_thread(part.argument()?)?;
    for _ in 0..WARM_UP {
        let begin = Reading::now()?;
        work(QUICK_CPU_NS);
        service.span("encode", &begin, &Reading::now()?);
        sleep(PAUSE);
    }
    service.export()?;
    part.say(&())?;

    let (neighbour, cpu_stat): (u32, PathBuf) = part.hear()?;
    let counted = || -> anyhow::Result<(u64, u64)> {
        let stat = CpuStat::parse(&std::fs::read_to_string(&cpu_stat)?);
        let ran_ns = schedstat(neighbour, neighbour)?.on_cpu_ns;
        Ok((stat.throttled_ns, ran_ns))
    };
    let (begin, before) = Reading::take(counted)?;
    work(CPU_NS);
    let (end, after) = Reading::take(counted)?;
    let span = service.span("encode", &begin, &end);
    service.export()?;
    part.say(&Told {
        span,
        amounts: begin.until(&end),
        throttled_ns: after.0 - before.0,
        neighbour_ns: after.1 - before.1,
    })?;
    // Its process has to be found while its spans are explained.
    part.hear()
}
