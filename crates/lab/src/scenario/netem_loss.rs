// SPDX-License-Identifier: Apache-2.0
//! A bad line: a few in a hundred packets are lost, and the rest take now longer, now shorter.
//!
//! A request asks `bank` twenty times, while `netem` loses what it likes: at a switch between the two, in both
//! directions, and then in the queue of `payments`'s own device, which tells TCP that all was sent well.
//!
//! Truth: for each question and each answer the clock of who wrote it and of who had it. The way takes a few
//! milliseconds; what took longer than any way and less than any timer was lost, and sent again. How
//! many the queues dropped, `tc -s qdisc` says. A loss that this host sees happen begins at once, where its
//! kernel says why it drops a packet (5.17); else one smoothed round trip later, which each end looks up before
//! it writes (`TCP_INFO`).

use anyhow::anyhow;
use lacuna_host::Root;
use lacuna_host::sys::KernelVersion;

use crate::Expectation;
use crate::Row;
use crate::Scenario;
use crate::Stage;
use crate::Stop;
use crate::net::ATTEMPTS;
use crate::net::DEVICE;
use crate::net::LATE_PARTS;
use crate::net::PORTS;
use crate::net::STANDS_STILL;
use crate::net::disturb;
use crate::net::drops_of;
use crate::talk::PARTS;
use crate::talk::Question;
use crate::talk::Talk;
use crate::talk::Told;
use crate::talk::Waits;
use crate::talk::Way;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "netem-loss",
    story: "a bad line loses what it likes, delays the rest, and the peer is not to blame",
    play,
    parts: PARTS,
};

/// Enough that some packets are lost; where it loses none of those that count, it is asked again.
const LINE: &str = "delay 2ms 1ms loss 15%";
/// The longest that it takes.
const DELAY_NS: u64 = 3_000_000;
/// Questions in a request: enough that some are lost. On an emulated machine each one's clock is read half a
/// millisecond after it came.
const TIMES: u32 = 20;
/// A way takes longer only where it was lost: no timer runs out earlier (`TCP_RTO_MIN`, 200 ms, less a tick of
/// the kernel's clock), and of one segment no other one tells that it is missing.
const WAY_NS_MAX: u64 = 195_000_000;

fn play(stage: &Stage<'_>) -> Result<(), Stop> {
    let mut talk = Talk::start(stage, Way::Switched)?;
    let switch = talk.switch()?;
    let on_the_way = PORTS.map(|port| (switch, port));
    let own = [(talk.payments.pid(), DEVICE)];
    ask_over(stage, &mut talk, Waits::Read, &on_the_way)?;
    ask_over(stage, &mut talk, Waits::Epoll, &on_the_way)?;
    ask_over(stage, &mut talk, Waits::Read, &own)
}

/// Asks while these devices of these processes' networks lose packets.
fn ask_over(
    stage: &Stage<'_>,
    talk: &mut Talk<'_>,
    waits: Waits,
    lossy: &[(u32, &str)],
) -> Result<(), Stop> {
    for _ in 0..ATTEMPTS {
        for (pid, device) in lossy {
            disturb(*pid, device, LINE)?;
        }
        talk.ask(Question {
            times: TIMES,
            // It takes a while.
            looks: !says_of_drops(),
            ..Question::slow(waits, 2..=6)
        })?;
        let told = talk.told()?;
        let mut drops = 0;
        for (pid, device) in lossy {
            drops += drops_of(*pid, device)?;
            disturb(*pid, device, "")?;
        }
        let ways = Ways::of(&told, says_of_drops());
        if ways.late_ns <= ways.lost_ns / LATE_PARTS && ways.lost <= drops {
            return find(stage, talk, told, &ways);
        }
    }
    Err(Stop::Failed(anyhow!(STANDS_STILL)))
}

fn find(stage: &Stage<'_>, talk: &Talk<'_>, told: Told, ways: &Ways) -> Result<(), Stop> {
    let [ack_ns, lost_ns, peer_ns] = told.waited([ways.out_ns, ways.lost_ns, ways.peer_ns]);
    let clocks = "payments's and bank's clocks, tc -s qdisc";
    let retransmit = Row::of_gap(&["net.retransmit"], lost_ns, clocks).must(talk.blamed());
    let retransmit = match says_of_drops() {
        true => retransmit.must(talk.evidence(r#""reason":"qdisc""#)),
        false => retransmit,
    };
    let [cpu, queued] = told.own_rows();
    stage.must_find(&Expectation {
        rows: vec![
            retransmit,
            Row::of_gap(&["net.ack"], ack_ns, clocks),
            Row::of_gap(&["net.peer"], peer_ns, clocks),
            cpu,
            queued,
        ],
        trace_id: told.span.trace_id,
        span_id: told.span.span_id,
        tid: told.span.tid,
    })
}

/// Whether this kernel says of a packet that it drops it, and why (`c504e5c2f964`).
fn says_of_drops() -> bool {
    KernelVersion::read(&Root::host()).is_some_and(|kernel| kernel.at_least(5, 17))
}

/// Where the questions and answers of a request spent their time.
#[derive(Default)]
struct Ways {
    /// How many were lost.
    lost: u64,
    /// Of those.
    lost_ns: u64,
    /// Questions that were not lost.
    out_ns: u64,
    /// `bank`, and answers that were not lost.
    peer_ns: u64,
    /// How much longer than `netem` has them take all that were not lost took together.
    late_ns: u64,
}

impl Ways {
    /// `is_told`: this kernel says of a packet that it drops it.
    fn of(told: &Told, is_told: bool) -> Self {
        let mut ways = Self::default();
        for one in &told.exchanges {
            let [out_ns, bank_ns, back_ns] = one.stretches_ns();
            let [out_trip_ns, back_trip_ns] = one.round_trips_ns;
            ways.out_ns += ways.without_loss(out_ns, out_trip_ns, is_told);
            ways.peer_ns += bank_ns + ways.without_loss(back_ns, back_trip_ns, is_told);
        }
        ways
    }

    /// How much of a way was before its loss, of one that was not lost all; the rest is counted as lost.
    fn without_loss(&mut self, way_ns: u64, round_trip_ns: u64, is_told: bool) -> u64 {
        if way_ns <= WAY_NS_MAX {
            self.late_ns += way_ns.saturating_sub(DELAY_NS);
            return way_ns;
        }
        let unknown_ns = match is_told {
            true => 0,
            false => round_trip_ns.min(way_ns),
        };
        self.lost += 1;
        self.lost_ns += way_ns - unknown_ns;
        unknown_ns
    }
}
