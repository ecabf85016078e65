// SPDX-License-Identifier: Apache-2.0
//! The source's own `veth` dropped the request: of the two TCP stacks of a pod, the near one.
//!
//! For a while the queue of `payments`'s device holds less than a question, so that the kernel drops
//! each attempt on the way out. What was never sent is not sent again: no retransmission is counted.
//!
//! Truth: `payments`'s own clock before it wrote to `bank`'s own clock when it had the question, and
//! how many packets the queue dropped (`tc -s qdisc`). Where the kernel says why a packet is dropped, so must
//! the answer.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use serde_json::Value;

use crate::Expectation;
use crate::Row;
use crate::Scenario;
use crate::Stage;
use crate::Stop;
use crate::net::DEVICE;
use crate::net::any_of;
use crate::net::command;
use crate::net::drops_of;
use crate::net::within;
use crate::talk::PARTS;
use crate::talk::Question;
use crate::talk::Talk;
use crate::talk::Waits;
use crate::talk::Way;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "veth-drop",
    story: "the queue of the service's own network device drops the request",
    play,
    parts: PARTS,
};

/// Less than a question, and more than a segment without bytes or an address request.
const QUEUE_BYTES: u32 = 300;
/// More than the two have to say.
const WIDE_BYTES: u32 = 1_000_000;
/// The first attempt and the probe after some 200 milliseconds.
const DROPS: u64 = 2;
/// How long those may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The kernel's types, and the name that it has for what the queue does.
const TYPES: &str = "/sys/kernel/btf/vmlinux";
const REASON: &[u8] = b"\0SKB_DROP_REASON_QDISC_DROP\0";
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(5);

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let mut talk = Talk::start(stage, Way::Cable)?;
    for waits in [Waits::Read, Waits::Epoll] {
        let service = talk.payments.pid();
        let narrow = format!("tc qdisc add dev {DEVICE} root bfifo limit {QUEUE_BYTES}");
        let wide = format!("tc qdisc change dev {DEVICE} root bfifo limit {WIDE_BYTES}");
        within(service, || command(&narrow))
            .map_err(|why| Stop::NotHere(format!("the queue cannot be made short: {why:#}")))?;
        talk.ask(Question::slow(waits, 0..=60))?;
        await_drops(stage, service)?;
        sleep(Duration::from_millis(any_of(0..=50)));
        within(service, || command(&wide))?;
        let told = talk.told()?;
        // It stays until the question is through: while it is taken away, what is sent is dropped uncounted.
        let drops = drops_of(service, DEVICE)?;
        let place = within(service, || {
            command(&format!("tc qdisc del dev {DEVICE} root"))?;
            place()
        })?;
        let exchange = told.exchanges.first().context("nothing was asked")?;
        let dropped_ns = exchange.heard_ns.saturating_sub(exchange.asked_ns);
        let bank_ns = exchange.answered_ns.saturating_sub(exchange.heard_ns);
        let [dropped_ns, bank_ns] = told.waited([dropped_ns, bank_ns]);
        let clocks = "payments's and bank's clocks, tc -s qdisc";
        let mut retransmit = Row::of_gap(&["net.retransmit"], dropped_ns, clocks)
            .must(talk.blamed())
            .must(talk.evidence("dropped-here-out"));
        if says_why()? {
            let why = format!(r#"{{"count":{drops},{place},"reason":"qdisc"}}"#);
            retransmit = retransmit.must(talk.evidence(why));
        }
        let [cpu, queued] = told.own_rows();
        stage.must_find(&Expectation {
            rows: vec![
                retransmit,
                Row::of_gap(&["net.peer"], bank_ns, "bank's clock"),
                cpu,
                queued,
            ],
            trace_id: told.span.trace_id,
            span_id: told.span.span_id,
            tid: told.span.tid,
        })?;
    }
    Ok(())
}

/// Waits until the queue has dropped a question often enough.
fn await_drops(stage: &Stage<'_>, service: u32) -> Result<(), Stop> {
    let deadline = Instant::now() + PATIENCE;
    while drops_of(service, DEVICE)? < DROPS {
        stage.check()?;
        if Instant::now() > deadline {
            return Err(Stop::Failed(anyhow!("the queue drops nothing")));
        }
        sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Whether this kernel says that it was a queue that dropped something (5.18 on): by the names of its types.
fn says_why() -> Result<bool> {
    let types = fs::read(TYPES).with_context(|| format!("cannot read {TYPES}"))?;
    Ok(types.windows(REASON.len()).any(|name| name == REASON))
}

/// Where it drops: the device's name and number in this thread's namespace, and that namespace's.
fn place() -> Result<String> {
    let text = command(&format!("ip -j link show dev {DEVICE}"))?;
    let links: Value = serde_json::from_str(&text)?;
    let index = links[0]["ifindex"].as_u64();
    let index = index.with_context(|| format!("ip says {text}"))?;
    let netns = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(format!(
        r#""device":"{DEVICE}","ifindex":{index},"netns":{netns}"#
    ))
}
