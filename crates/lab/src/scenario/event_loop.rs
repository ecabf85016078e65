// SPDX-License-Identifier: Apache-2.0
//! A request was slow, though all that it needed was there: its event loop was busy with another.
//!
//! One thread serves all requests, in a loop around `epoll_wait`. `GET /statement` asks a database and
//! waits for its answer; `GET /report` computes. A report comes while a statement waits; the database
//! answers soon, but the loop is at the report. So the statement's span is on a CPU, with another
//! request's work.
//!
//! Truth: the thread's CPU clock over each of both spans, and its run delay; the scenario's own marks
//! of when the report was worked on. The clients and the database are a process of their own.

use std::io::Read;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
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
use crate::service::Service;
use crate::service::SpanId;
use crate::service::WARM_UP;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "event-loop",
    story: "a request whose answer is there waits for an event loop that computes for another",
    play,
    parts: &[("loop", serve), ("clients", clients)],
};

/// What a report computes, quick and for long; milliseconds, a byte on the wire.
const QUICK_REPORT_MS: u8 = 0;
const REPORT_MS: u8 = 150;
/// When the report comes, after the statement; and when the database answers, after the report came.
const REPORT_AFTER: Duration = Duration::from_millis(5);
const DATABASE_AFTER: Duration = Duration::from_millis(10);
/// The kinds of span.
const STATEMENT: &str = "GET /statement";
const REPORT: &str = "GET /report";

/// Who is at the other end of a connection of the loop; also its place there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Statements,
    Reports,
    Database,
}

const PEERS: [Peer; 3] = [Peer::Statements, Peer::Reports, Peer::Database];

/// What the service tells of its last statement, and of the report meanwhile.
#[derive(Serialize, Deserialize)]
struct Told {
    span: SpanId,
    amounts: Amounts,
    report_on_cpu_ns: u64,
}

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let service = stage.start("loop", &[stage.otlp_port().to_string()])?;
    service.hear::<()>()?;
    let clients = stage.start("clients", &[service.pid().to_string()])?;
    clients.hear::<()>()?;
    drop(clients);
    let told: Told = service.hear()?;
    let amounts = told.amounts;
    stage.must_find(&Expectation {
        trace_id: told.span.trace_id,
        span_id: told.span.span_id,
        tid: told.span.tid,
        rows: vec![
            Row::of_gap(&["cpu"], amounts.on_cpu_ns, "the thread's CPU clock").must(Must::Within {
                span: REPORT,
                truth_ns: told.report_on_cpu_ns,
            }),
            Row::of_gap(
                &["wait.pipe", "wait.poll"],
                amounts.blocked_ns(),
                "clock: the rest",
            ),
            Row::of_gap(
                &["runq.wakeup", "runq.preempted", "runq.idle"],
                amounts.queued_ns,
                "schedstat: run delay",
            ),
        ],
    })
}

/// A socket that has no place in the file system, and goes with whoever listens.
fn address(service_pid: u32) -> Result<SocketAddr> {
    let name = format!("lacuna-lab-event-loop-{service_pid}");
    Ok(SocketAddr::from_abstract_name(name)?)
}

/// `loop PORT`: serves until its clients have gone, then tells of the last statement.
fn serve(part: &mut Part) -> Result<()> {
    let mut service = Service::connect("bank", part.argument()?)?;
    let listener = UnixListener::bind_addr(&address(std::process::id())?)?;
    part.say(&())?;
    let mut peers = Vec::new();
    for _ in PEERS {
        peers.push(listener.accept()?.0);
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (place, peer) in peers.iter().enumerate() {
        let data = epoll::EventData::new_u64(place as u64);
        epoll::add(&epoll, peer, data, epoll::EventFlags::IN)?;
    }
    let mut asked = None;
    let mut report_on_cpu_ns = 0;
    let mut last = None;
    while let Some(peer) = next(&epoll)? {
        let mut stream = &peers[peer as usize];
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            break;
        }
        match peer {
            Peer::Statements => {
                asked = Some(Reading::now()?);
                (&peers[Peer::Database as usize]).write_all(&byte)?;
            }
            Peer::Reports => {
                let begin = Reading::now()?;
                work(u64::from(byte[0]) * 1_000_000);
                let end = Reading::now()?;
                service.span(REPORT, &begin, &end);
                report_on_cpu_ns = begin.until(&end).on_cpu_ns;
                stream.write_all(&byte)?;
            }
            Peer::Database => {
                let begin = asked.take().context("nobody asked the database")?;
                let end = Reading::now()?;
                let span = service.span(STATEMENT, &begin, &end);
                last = Some((span, begin.until(&end)));
                (&peers[Peer::Statements as usize]).write_all(&byte)?;
            }
        }
    }
    service.export()?;
    let (span, amounts) = last.context("nobody wanted a statement")?;
    part.say(&Told {
        span,
        amounts,
        report_on_cpu_ns,
    })?;
    // Its process has to be found while its spans are explained.
    part.hear()
}

/// Waits until somebody has something to say.
fn next(epoll: &OwnedFd) -> Result<Option<Peer>> {
    let mut room = [MaybeUninit::uninit()];
    let (events, _) = epoll::wait(epoll, &mut room, None)?;
    let event = events.first();
    Ok(event.and_then(|event| PEERS.get(event.data.u64() as usize).copied()))
}

/// `clients SERVICE_PID`: many quick requests one after the other, then a statement and a report at once.
fn clients(part: &mut Part) -> Result<()> {
    let address = address(part.argument()?)?;
    let connect = || UnixStream::connect_addr(&address);
    let (mut statements, mut reports, mut database) = (connect()?, connect()?, connect()?);
    for _ in 0..WARM_UP {
        statements.write_all(&[0])?;
        hear(&mut database)?;
        database.write_all(&[0])?;
        hear(&mut statements)?;
        reports.write_all(&[QUICK_REPORT_MS])?;
        hear(&mut reports)?;
    }
    statements.write_all(&[0])?;
    hear(&mut database)?;
    sleep(REPORT_AFTER);
    reports.write_all(&[REPORT_MS])?;
    sleep(DATABASE_AFTER);
    database.write_all(&[0])?;
    hear(&mut reports)?;
    hear(&mut statements)?;
    part.say(&())
}

fn hear(stream: &mut UnixStream) -> Result<()> {
    match stream.read(&mut [0])? {
        0 => bail!("the service has gone"),
        _ => Ok(()),
    }
}
