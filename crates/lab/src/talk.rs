// SPDX-License-Identifier: Apache-2.0
//! Two processes that talk: `payments` asks, and makes a span of each question; `bank` answers.
//!
//! Each is in a network of its own. A question says how long the answer takes; an answer says when the
//! question had come and when the answer left, by the clock of the process that answers. (One kernel:
//! `CLOCK_MONOTONIC` is the same for both.)

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
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
use lacuna_host::sys::enter_new_network;
use lacuna_host::tcp::TcpInfo;
use rustix::event::epoll;
use serde::Deserialize;
use serde::Serialize;

use crate::Must;
use crate::PartBody;
use crate::Row;
use crate::actor::Actor;
use crate::meter::Amounts;
use crate::meter::Reading;
use crate::meter::monotonic_ns;
use crate::meter::own_cpu_ns;
use crate::meter::work;
use crate::net;
use crate::net::ANSWERER;
use crate::net::any_of;
use crate::net::lay_cable;
use crate::net::lay_switched;
use crate::net::tcp_info;
use crate::otlp::Exporter;
use crate::part::Part;
use crate::service::Service;
use crate::service::SpanId;
use crate::service::WARM_UP;
use crate::stage::Stage;
use crate::stage::Stop;
use crate::wire;
use crate::wire::End;
use crate::wire::Segment;

/// The processes of a scenario in which two talk.
pub(crate) const PARTS: &[(&str, PartBody)] = &[
    ("payments", ask),
    ("bank", answer),
    ("wire", wire::lie),
    ("switch", net::stand_between),
];

/// A question and an answer, bytes: one segment each, whatever lies between.
const MESSAGE_BYTES: usize = 1_000;
/// The first part of a question that is written in two.
const HALF_BYTES: usize = 100;

/// How long the last acknowledgements may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What lies between the two.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// A `veth` pair.
    Cable,
    /// Two cables and a switch, whose ports can be disturbed ([`crate::net::disturb`]).
    Switched,
    /// A wire that can lose segments.
    Wire {
        /// How long a segment takes.
        delay_us: u64,
        /// Addresses are translated on the way.
        is_hidden: bool,
    },
}

/// How `payments` waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Waits {
    /// In a read of the connection.
    Read,
    /// In `epoll_wait`.
    Epoll,
}

/// What `payments` is told.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Connect(SocketAddrV4),
    WarmUp,
    Ask(Question),
}

/// A request that `payments` makes a span of.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) waits: Waits,
    /// How often it asks, one after the other.
    pub(crate) times: u32,
    /// Each question is written in two parts.
    pub(crate) in_two: bool,
    /// Both ends look up the smoothed round trip before they write.
    pub(crate) looks: bool,
    /// How long `bank` sleeps over it.
    pub(crate) sleep_ns: u64,
    /// How much of a CPU the answer takes.
    pub(crate) work_ns: u64,
}

impl Question {
    /// One that `bank` sleeps over: for how many milliseconds of these, nobody knows beforehand.
    pub(crate) fn slow(waits: Waits, sleep_ms: RangeInclusive<u64>) -> Self {
        Self {
            waits,
            times: 1,
            in_two: false,
            looks: false,
            sleep_ns: any_of(sleep_ms) * 1_000_000,
            work_ns: 0,
        }
    }
}

/// What `payments` tells of its span.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) span: SpanId,
    pub(crate) amounts: Amounts,
    pub(crate) exchanges: Vec<Exchange>,
}

/// A question and its answer; instants of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Exchange {
    /// Just before the question was written, or its second part.
    pub(crate) asked_ns: u64,
    /// All of it had come: when `bank` had it, less how long it was queued for a CPU until it had.
    pub(crate) heard_ns: u64,
    /// How long `bank` slept over it: neither on a CPU nor queued for one.
    pub(crate) slept_ns: u64,
    /// Just before `bank` wrote the answer.
    pub(crate) answered_ns: u64,
    /// The question was written: `payments` waits from then on.
    pub(crate) wrote_ns: u64,
    /// `payments` had all of the answer, less how long it was on a CPU for it.
    pub(crate) got_ns: u64,
    /// The smoothed round trip as the kernel had it just before the question was written, and just before the
    /// answer was, each at its own end (`TCP_INFO`); 0 where nobody asked for it.
    pub(crate) round_trips_ns: [u64; 2],
}

impl Exchange {
    /// For how long `payments` waited for its question to arrive, for `bank`, and for the answer.
    pub(crate) fn stretches_ns(&self) -> [u64; 3] {
        let heard_ns = self.heard_ns.max(self.wrote_ns);
        let answered_ns = self.answered_ns.max(heard_ns);
        [
            heard_ns - self.wrote_ns,
            answered_ns - heard_ns,
            self.got_ns.saturating_sub(answered_ns),
        ]
    }
}

/// The two, with what lies between them.
#[derive(Debug)]
pub(crate) struct Talk<'a> {
    pub(crate) payments: Actor<'a>,
    pub(crate) bank: Actor<'a>,
    /// The wire or the switch between them.
    between: Option<Actor<'a>>,
    /// Where `payments` finds `bank`.
    pub(crate) address: SocketAddrV4,
}

impl<'a> Talk<'a> {
    /// Starts the two, connected; `payments` has served quick requests.
    ///
    /// # Errors
    /// This host cannot make such a network.
    pub(crate) fn start(stage: &'a Stage<'a>, way: Way) -> Result<Self, Stop> {
        let mut payments = stage.start("payments", &[stage.otlp_port().to_string()])?;
        payments.hear::<()>()?;
        let mut bank = stage.start("bank", &[stage.otlp_port().to_string()])?;
        bank.hear::<()>()?;
        let between = lay(stage, way, &payments, &bank)?;
        for end in [&payments, &bank] {
            end.run_first()?;
        }
        bank.say(&())?;
        let address = SocketAddrV4::new(ANSWERER, bank.hear()?);
        for order in [Order::Connect(address), Order::WarmUp] {
            payments.say(&order)?;
            payments.hear::<()>()?;
        }
        Ok(Self {
            payments,
            bank,
            between,
            address,
        })
    }

    /// Has `payments` ask; [`Talk::told`] is what came of it.
    pub(crate) fn ask(&mut self, question: Question) -> Result<(), Stop> {
        self.payments.say(&Order::Ask(question))
    }

    /// What came of a question.
    pub(crate) fn told(&self) -> Result<Told, Stop> {
        self.payments.hear()
    }

    /// The smoothed round trip of the connection, as the kernel has it now for one of its ends
    /// (`TCP_INFO`).
    pub(crate) fn round_trip_ns(&self, end: End) -> Result<u64, Stop> {
        Ok(u64::from(self.tcp_info(end)?.rtt_us) * 1_000)
    }

    /// Waits until all bytes are acknowledged, and no round trip is measured any more.
    pub(crate) fn settle(&self, stage: &Stage<'_>) -> Result<(), Stop> {
        let deadline = Instant::now() + PATIENCE;
        while self.tcp_info(End::Asker)?.unacked + self.tcp_info(End::Answerer)?.unacked > 0 {
            stage.check()?;
            if Instant::now() > deadline {
                return Err(Stop::Failed(anyhow!("a segment is never acknowledged")));
            }
            sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn tcp_info(&self, end: End) -> Result<TcpInfo, Stop> {
        let process = match end {
            End::Asker => &self.payments,
            End::Answerer => &self.bank,
        };
        Ok(tcp_info(process.pid())?)
    }

    /// The connection must be named.
    pub(crate) fn blamed(&self) -> Must {
        Must::Blame {
            name: self.address.to_string(),
            truth_ns: None,
        }
    }

    /// This must be said of the connection.
    pub(crate) fn evidence(&self, text: impl Into<String>) -> Must {
        Must::Evidence {
            key: "connections",
            text: text.into(),
        }
    }

    /// The process whose network the switch is in.
    pub(crate) fn switch(&self) -> Result<u32, Stop> {
        let between = self.between.as_ref();
        Ok(between.context("there is no switch")?.pid())
    }

    /// Gives the wire an order; what it tells.
    pub(crate) fn wire(&mut self, order: &wire::Order) -> Result<Vec<Segment>, Stop> {
        let wire = self.between.as_mut().context("there is no wire")?;
        wire.say(order)?;
        let told: Result<Vec<Segment>, String> = wire.hear()?;
        told.map_err(|why| Stop::Failed(anyhow!("the wire: {why}")))
    }
}

/// The smoothed round trip of the connection in this process's network, if that is asked for.
fn own_round_trip_ns(looks: bool) -> Result<u64> {
    match looks {
        true => Ok(u64::from(tcp_info(std::process::id())?.rtt_us) * 1_000),
        false => Ok(0),
    }
}

/// Lays the way between the two.
fn lay<'a>(
    stage: &'a Stage<'a>,
    way: Way,
    payments: &Actor<'_>,
    bank: &Actor<'_>,
) -> Result<Option<Actor<'a>>, Stop> {
    let (delay_us, is_hidden) = match way {
        Way::Cable => {
            lay_cable(payments.pid(), bank.pid())?;
            return Ok(None);
        }
        Way::Switched => {
            let switch = stage.start("switch", &[])?;
            switch.hear::<()>()?;
            lay_switched(payments.pid(), bank.pid(), switch.pid())?;
            return Ok(Some(switch));
        }
        Way::Wire {
            delay_us,
            is_hidden,
        } => (delay_us, is_hidden),
    };
    let ends = [payments.pid(), bank.pid()].map(|pid| pid.to_string());
    let [near, far] = ends;
    let arguments = [near, far, delay_us.to_string(), is_hidden.to_string()];
    let wire = stage.start("wire", &arguments)?;
    let laid: Result<(), String> = wire.hear()?;
    laid.map_err(Stop::NotHere)?;
    Ok(Some(wire))
}

impl Told {
    /// How long its thread waited for each of some stretches that follow each other, from its asking to
    /// its answer's arrival. Where it was kept from its CPU just after it had asked, it waited for that, and for
    /// less of what lies first.
    pub(crate) fn waited<const N: usize>(&self, mut stretches_ns: [u64; N]) -> [u64; N] {
        let all_ns: u64 = stretches_ns.iter().sum();
        let mut late_ns = all_ns.saturating_sub(self.amounts.blocked_ns());
        for stretch_ns in &mut stretches_ns {
            let missed_ns = late_ns.min(*stretch_ns);
            *stretch_ns -= missed_ns;
            late_ns -= missed_ns;
        }
        stretches_ns
    }

    /// The rows of what is no wait for the network.
    pub(crate) fn own_rows(&self) -> [Row; 2] {
        let queued = &["runq.wakeup", "runq.preempted"];
        [
            Row::of_gap(&["cpu"], self.amounts.on_cpu_ns, "the thread's CPU clock"),
            Row::of_gap(queued, self.amounts.queued_ns, "schedstat: run delay"),
        ]
    }
}

/// `payments PORT`: told where, connects; then quick requests, then those that count.
fn ask(part: &mut Part) -> Result<()> {
    let mut service = Service::connect("payments", part.argument()?)?;
    // The connection to the agent stays where it is.
    enter_new_network()?;
    part.say(&())?;
    let Order::Connect(address) = part.hear()? else {
        return Err(anyhow!("told to talk before it is connected"));
    };
    let mut connection = Connection::to(address)?;
    part.say(&())?;
    loop {
        match part.hear()? {
            Order::Connect(_) => return Err(anyhow!("it is connected")),
            Order::WarmUp => {
                for _ in 0..WARM_UP {
                    connection.span(&mut service, Question::slow(Waits::Read, 0..=0))?;
                }
                service.export()?;
                part.say(&())?;
            }
            Order::Ask(question) => {
                let told = connection.span(&mut service, question)?;
                service.export()?;
                part.say(&told)?;
            }
        }
    }
}

/// The asking end of a connection. It does without `TCP_NODELAY`, which makes no difference where a
/// question is written at once.
struct Connection {
    stream: TcpStream,
    epoll: rustix::fd::OwnedFd,
}

impl Connection {
    fn to(address: SocketAddrV4) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
        Ok(Self { stream, epoll })
    }

    /// A span of the questions.
    fn span(&mut self, service: &mut Service, question: Question) -> Result<Told> {
        let begin = Reading::now()?;
        let exchanges = (0..question.times).map(|_| self.exchange(question));
        let exchanges = exchanges.collect::<Result<Vec<Exchange>>>()?;
        let end = Reading::now()?;
        Ok(Told {
            span: service.span("pay", &begin, &end),
            amounts: begin.until(&end),
            exchanges,
        })
    }

    fn exchange(&mut self, question: Question) -> Result<Exchange> {
        let mut message = [0; MESSAGE_BYTES];
        put(&mut message, 0, question.sleep_ns);
        put(&mut message, 1, question.work_ns);
        put(&mut message, 2, question.looks.into());
        let round_trip_ns = own_round_trip_ns(question.looks)?;
        let (first, second) = message.split_at(match question.in_two {
            true => HALF_BYTES,
            false => 0,
        });
        self.stream.write_all(first)?;
        let asked_ns = monotonic_ns();
        self.stream.write_all(second)?;
        let (wrote_ns, on_cpu_ns) = (monotonic_ns(), own_cpu_ns());
        if question.waits == Waits::Epoll {
            let mut ready = Vec::with_capacity(1);
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut ready),
                None,
            )?;
        }
        self.stream.read_exact(&mut message)?;
        Ok(Exchange {
            asked_ns,
            heard_ns: get(&message, 0),
            slept_ns: get(&message, 1),
            answered_ns: get(&message, 2),
            wrote_ns,
            got_ns: monotonic_ns().saturating_sub(own_cpu_ns() - on_cpu_ns),
            round_trips_ns: [round_trip_ns, get(&message, 3)],
        })
    }
}

/// `bank PORT`: told that its network is there, takes one connection and answers until it closes. It makes
/// no spans, but is connected as a service that does: an agent that cannot watch everything watches those.
fn answer(part: &mut Part) -> Result<()> {
    let _exporter = Exporter::connect(part.argument()?)?;
    enter_new_network()?;
    part.say(&())?;
    part.hear::<()>()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    part.say(&listener.local_addr()?.port())?;
    let (mut stream, _) = listener.accept()?;
    let mut message = [0; MESSAGE_BYTES];
    loop {
        let before = Reading::now()?;
        match stream.read_exact(&mut message) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let had_ns = monotonic_ns();
        let took = Reading::now()?;
        let heard_ns = had_ns - before.until(&took).queued_ns;
        let [sleep_ns, work_ns, looks] = [0, 1, 2].map(|place| get(&message, place));
        if sleep_ns > 0 {
            sleep(Duration::from_nanos(sleep_ns));
        }
        let slept_ns = took.until(&Reading::now()?).blocked_ns();
        if work_ns > 0 {
            work(work_ns);
        }
        let round_trip_ns = own_round_trip_ns(looks > 0)?;
        let told = [heard_ns, slept_ns, monotonic_ns(), round_trip_ns];
        for (place, ns) in told.into_iter().enumerate() {
            put(&mut message, place, ns);
        }
        stream.write_all(&message)?;
    }
}

/// Writes a number at a place of a message.
fn put(message: &mut [u8; MESSAGE_BYTES], place: usize, number: u64) {
    message[place * 8..][..8].copy_from_slice(&number.to_le_bytes());
}

/// The number at a place of a message.
fn get(message: &[u8; MESSAGE_BYTES], place: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&message[place * 8..][..8]);
    u64::from_le_bytes(bytes)
}
