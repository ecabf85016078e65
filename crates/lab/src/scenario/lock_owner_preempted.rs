// SPDX-License-Identifier: Apache-2.0
//! Requests waited for a lock that nobody held for long, but its owner had no CPU.
//!
//! A thread named `ledger` holds a glibc mutex while it computes, on a CPU that a process of higher
//! priority named `backup` uses. The request needs the mutex.
//!
//! Truth: the request's own clock around the lock, less what it was on a CPU or queued for one; and
//! what `schedstat` counts of the owner's run delay, which the owner reads all along, so that it is
//! known how much of it lies after the request came.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::sync_channel;
use std::thread::Builder;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use lacuna_host::sys::PthreadMutex;
use serde::Deserialize;
use serde::Serialize;

use crate::Expectation;
use crate::Must;
use crate::Part;
use crate::Place;
use crate::Row;
use crate::Scenario;
use crate::Stage;
use crate::Stop;
use crate::meter::Amounts;
use crate::meter::Reading;
use crate::meter::tid;
use crate::meter::work;
use crate::part::call_this_thread;
use crate::part::pin_this_thread;
use crate::service::Service;
use crate::service::SpanId;
use crate::service::WARM_UP;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "lock-owner-preempted",
    story: "a lock is held for 40 ms of work, and its owner has no CPU to do it on",
    play,
    parts: &[("checkout", serve)],
};

/// Some ten times the owner's part of the CPU, so that most of any wait for it is backup's doing.
const BACKUP_NICE: i32 = -10;
/// What the owner computes with the lock.
const HELD_CPU_NS: u64 = 40_000_000;
/// How often it reads its counters meanwhile.
const STEP_CPU_NS: u64 = 100_000;
/// Between quick requests.
const PAUSE: Duration = Duration::from_millis(1);

/// What the service tells of its request.
#[derive(Serialize, Deserialize)]
struct Told {
    span: SpanId,
    amounts: Amounts,
    owner_tid: u32,
    /// The owner's run delay while the request waited.
    owner_queued_ns: u64,
}

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let cpu = stage.cpu()?;
    let arguments = [stage.otlp_port().to_string(), cpu.to_string()];
    let mut checkout = stage.start("checkout", &arguments)?;
    checkout.hear::<()>()?;
    let _backup = stage.hog("backup", cpu, BACKUP_NICE)?;
    checkout.say(&())?;
    let told: Told = checkout.hear()?;
    let amounts = told.amounts;
    let owner = Row {
        causes: &["runq.preempted"],
        place: Place::Chain {
            of: "lock.futex",
            tid: told.owner_tid,
            how: "held",
        },
        truth_ns: told.owner_queued_ns,
        truth_from: "schedstat: the owner's run delay",
        musts: Vec::new(),
    };
    stage.must_find(&Expectation {
        trace_id: told.span.trace_id,
        span_id: told.span.span_id,
        tid: told.span.tid,
        rows: vec![
            Row::of_gap(
                &["lock.futex"],
                amounts.blocked_ns(),
                "clock around the lock",
            ),
            owner.must(Must::Blame {
                name: "backup".to_owned(),
                truth_ns: None,
            }),
            Row::of_gap(
                &["runq.wakeup", "runq.preempted", "runq.idle"],
                amounts.queued_ns,
                "schedstat: run delay",
            ),
        ],
    })
}

/// `checkout PORT CPU`: quick requests; then, told that there is a backup, the one that counts.
fn serve(part: &mut Part) -> Result<()> {
    let mut service = Service::connect("checkout", part.argument()?)?;
    let owner_cpu = part.argument()?;
    let mutex = Arc::new(PthreadMutex::default());
    for _ in 0..WARM_UP {
        request(&mut service, &mutex)?;
        sleep(PAUSE);
    }
    service.export()?;
    part.say(&())?;
    part.hear::<()>()?;

    let (holds, held) = sync_channel(1);
    let its_mutex = mutex.clone();
    let owner = Builder::new()
        .name("ledger".to_owned())
        .spawn(move || own(&its_mutex, owner_cpu, &holds))?;
    let owner_tid = held.recv().context("nobody holds the lock")?;
    let (span, begin, end) = request(&mut service, &mutex)?;
    let readings = owner.join().map_err(|_| anyhow!("the owner panicked"))??;
    service.export()?;
    part.say(&Told {
        span,
        amounts: begin.until(&end),
        owner_tid,
        owner_queued_ns: queued_since(&readings, begin.unix_ns),
    })?;
    // Its process has to be found while its spans are explained.
    part.hear()
}

/// A request that needs the lock for nothing long, from before it asks for it until it has it.
fn request(service: &mut Service, mutex: &PthreadMutex) -> Result<(SpanId, Reading, Reading)> {
    let begin = Reading::now()?;
    let end = mutex.hold(Reading::now)?;
    Ok((service.span("pay", &begin, &end), begin, end))
}

/// Holds the lock for some work, and says so once it has it; what it read of itself meanwhile.
fn own(mutex: &PthreadMutex, cpu: usize, holds: &SyncSender<u32>) -> Result<Vec<Reading>> {
    call_this_thread("ledger")?;
    pin_this_thread(cpu)?;
    mutex.hold(|| {
        holds.send(tid())?;
        let steps = HELD_CPU_NS / STEP_CPU_NS;
        let mut readings = Vec::new();
        for _ in 0..steps {
            work(STEP_CPU_NS);
            readings.push(Reading::now()?);
        }
        Ok(readings)
    })
}

/// The run delay from an instant on, of a thread that read it all along. Between two readings it may
/// have waited once, before or after the instant: then it waited at the end, as it had to run to read.
fn queued_since(readings: &[Reading], unix_ns: u64) -> u64 {
    let pairs = readings.iter().zip(readings.iter().skip(1));
    let waits = pairs.map(|(before, after)| {
        let waited_ns = after.queued_ns - before.queued_ns;
        waited_ns.min(after.unix_ns.saturating_sub(unix_ns))
    });
    waits.sum()
}

#[cfg(test)]
mod tests {
    use super::queued_since;
    use crate::meter::Reading;

    #[test]
    fn only_what_was_waited_after_the_instant_counts() {
        let reading = |unix_ns, queued_ns| Reading {
            unix_ns,
            on_cpu_ns: 0,
            queued_ns,
        };
        let readings = [
            reading(100, 7),
            reading(110, 7),
            reading(200, 87),
            reading(300, 97),
        ];
        assert_eq!(queued_since(&readings, 0), 90);
        assert_eq!(queued_since(&readings, 150), 60);
        assert_eq!(queued_since(&readings, 199), 11);
        assert_eq!(queued_since(&readings, 300), 0);
    }
}
