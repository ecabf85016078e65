// SPDX-License-Identifier: Apache-2.0
//! The listener's accept queue was full: each `SYN` was dropped, and sent again after a second.
//!
//! `bank` listens with a queue for very few connections and accepts none for a while; `payments` fills the queue and
//! then connects once more.
//!
//! Truth: `payments`'s own clocks around `connect`, and `ListenOverflows` of `bank`'s network: so many
//! `SYN`s were dropped, and each was followed by another.

use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::net::TcpListener;
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use lacuna_host::Root;
use lacuna_host::netstat::TcpTrouble;
use lacuna_host::sys::enter_new_network;
use rustix::net::listen;
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
use crate::meter::work;
use crate::net::ANSWERER;
use crate::net::any_of;
use crate::net::lay_cable;
use crate::service::Service;
use crate::service::SpanId;
use crate::service::WARM_UP;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "syn-drop",
    story: "the peer accepts nothing for a while, and its accept queue is full",
    play,
    parts: &[("payments", connect), ("bank", accept)],
};

/// What `bank` asks for when it listens: one more may wait than that.
const BACKLOG: i32 = 1;
/// How long `bank` goes on to accept nothing. A `SYN` is sent again after a second: then it does.
const PAUSE_MS: RangeInclusive<u64> = 0..=700;
/// How long it may take until a `SYN` has been dropped.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A quick request.
const QUICK_CPU_NS: u64 = 100_000;
const QUICK_SLEEP: Duration = Duration::from_micros(200);

/// What `payments` tells.
#[derive(Serialize, Deserialize)]
struct Told {
    span: SpanId,
    amounts: Amounts,
}

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let mut payments = stage.start("payments", &[stage.otlp_port().to_string()])?;
    payments.hear::<()>()?;
    let mut bank = stage.start("bank", &[])?;
    bank.hear::<()>()?;
    lay_cable(payments.pid(), bank.pid())?;
    bank.say(&())?;
    let address = SocketAddrV4::new(ANSWERER, bank.hear()?);
    payments.say(&address)?;
    payments.hear::<()>()?;
    let before = overflows(bank.pid())?;
    payments.say(&())?;
    await_overflow(stage, bank.pid(), before)?;
    sleep(Duration::from_millis(any_of(PAUSE_MS)));
    bank.say(&())?;
    let told: Told = payments.hear()?;
    let dropped = overflows(bank.pid())? - before;
    let evidence = |text| Must::Evidence {
        key: "connections",
        text,
    };
    let amounts = told.amounts;
    let clocks = "payments's clocks around connect, ListenOverflows";
    let connect = Row::of_gap(&["net.connect"], amounts.blocked_ns(), clocks)
        .must(Must::Blame {
            name: address.to_string(),
            truth_ns: None,
        })
        .must(evidence(format!(
            r#""retransmits":{{"fast":0,"probes":0,"timeouts":{dropped}}}"#
        )));
    let queued = &["runq.wakeup", "runq.preempted"];
    stage.must_find(&Expectation {
        trace_id: told.span.trace_id,
        span_id: told.span.span_id,
        tid: told.span.tid,
        rows: vec![
            connect,
            Row::of_gap(&["cpu"], amounts.on_cpu_ns, "the thread's CPU clock"),
            Row::of_gap(queued, amounts.queued_ns, "schedstat: run delay"),
        ],
    })
}

/// Waits until a connection has found an accept queue full.
fn await_overflow(stage: &Stage<'_>, pid: u32, before: u64) -> Result<(), Stop> {
    let deadline = Instant::now() + PATIENCE;
    while overflows(pid)? == before {
        stage.check()?;
        if Instant::now() > deadline {
            return Err(Stop::Failed(anyhow!("no SYN is dropped")));
        }
        sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Connections that found an accept queue full, in the network of a process.
fn overflows(pid: u32) -> Result<u64, Stop> {
    let trouble =
        TcpTrouble::read(&Root::host(), pid).context("cannot read the counters of TCP")?;
    Ok(trouble
        .listen_overflows
        .context("this kernel does not count overflows")?)
}

/// `payments PORT`: quick requests; fills the queue of whom it is told; then connects once more.
fn connect(part: &mut Part) -> Result<()> {
    let mut service = Service::connect("payments", part.argument()?)?;
    // The connection to the agent stays where it is.
    enter_new_network()?;
    part.say(&())?;
    let address: SocketAddrV4 = part.hear()?;
    for _ in 0..WARM_UP {
        let begin = Reading::now()?;
        work(QUICK_CPU_NS);
        service.span("pay", &begin, &Reading::now()?);
        sleep(QUICK_SLEEP);
    }
    service.export()?;
    let waiting = (0..=BACKLOG).map(|_| TcpStream::connect(address));
    let _waiting = waiting.collect::<std::io::Result<Vec<TcpStream>>>()?;
    part.say(&())?;

    part.hear::<()>()?;
    let begin = Reading::now()?;
    let _connection = TcpStream::connect(address)?;
    let end = Reading::now()?;
    let span = service.span("pay", &begin, &end);
    service.export()?;
    part.say(&Told {
        span,
        amounts: begin.until(&end),
    })?;
    // Its process has to be found while its spans are explained.
    part.hear()
}

/// `bank`: listens, and accepts only once it is told to.
fn accept(part: &mut Part) -> Result<()> {
    enter_new_network()?;
    part.say(&())?;
    part.hear::<()>()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    listen(&listener, BACKLOG)?;
    part.say(&listener.local_addr()?.port())?;
    part.hear::<()>()?;
    let mut accepted = Vec::new();
    loop {
        accepted.push(listener.accept()?);
    }
}
