// SPDX-License-Identifier: Apache-2.0
//! From what the kernel side tells of a connection to the answer: one thread for each thing that can
//! befall one. The answer is `render/snapshots/net.json`, whose text the tests of `render` show.
//! `UPDATE=1` writes it; read the difference before committing.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;

use lacuna_host::root::Root;
use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::Recorder;
use lacuna_timeline::ThreadId;
use lacuna_timeline::event::Blame;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Connection;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::DeviceName;
use lacuna_timeline::event::DropReason;
use lacuna_timeline::event::Dropped;
use lacuna_timeline::event::Endpoints;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Faults;
use lacuna_timeline::event::Net;
use lacuna_timeline::event::NetState;
use lacuna_timeline::event::ObjectId;
use lacuna_timeline::event::ObjectInfo;
use lacuna_timeline::event::ObjectKind;
use lacuna_timeline::event::Off;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Phase;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::event::Retransmits;
use lacuna_timeline::event::ShortDetours;
use lacuna_timeline::event::ThreadInfo;
use lacuna_timeline::event::Wait;
use lacuna_timeline::event::Waker;

use crate::answer::FaultCounts;
use crate::answer::RunReport;
use crate::answer::RunSchema;
use crate::answer::RunTotal;
use crate::answer::Switches;
use crate::answer::ThreadReport;
use crate::answer::UnixNs;
use crate::explain::CgroupNames;
use crate::explain::Names;
use crate::explain::causes;

const MS: Ns = 1_000_000;

/// A thread at the other end of some of the connections, of another process.
const REDIS: ThreadId = ThreadId(100);

/// We asked, and that is not acknowledged.
const ASKED: NetState = NetState::ASKED.with(NetState::UNACKED);

/// The same, and not all of it is sent.
const UNSENT: NetState = ASKED.with(NetState::UNSENT);

/// We asked, it is acknowledged, and the other end is here.
const HERE: NetState = NetState::ASKED.with(NetState::HERE);

/// A phase from a millisecond on, of something that began at another one.
fn phase(at: Ns, state: NetState, since: Option<Ns>) -> Phase {
    Phase {
        at: at * MS,
        since: since.map(|at| at * MS),
        state,
    }
}

fn seen(phases: Vec<Phase>) -> Connection {
    Connection {
        srtt_ns: MS * 4 / 10,
        rtt_min_ns: MS * 3 / 10,
        rto_ns: 201 * MS,
        phases,
        ..Connection::default()
    }
}

/// What can be lost, with the call that waits for it.
fn losses() -> [(Call, Connection); 4] {
    let timeouts = Connection {
        retransmits: Retransmits {
            timeouts: 2,
            probes: 1,
            fast: 0,
        },
        ..seen(vec![
            phase(90, ASKED, Some(90)),
            phase(300, ASKED.with(NetState::LOST), Some(90)),
            phase(850, NetState::ASKED, None),
            phase(1_000, NetState::HEARD, None),
        ])
    };
    let drops = Dropped {
        count: 3,
        reason: DropReason::Qdisc,
        ifindex: 3,
        netns: 4_026_532_200,
        device: DeviceName::of(b"eth0"),
    };
    let dropped = Connection {
        dropped: Some(drops),
        ..seen(vec![
            phase(90, UNSENT.with(NetState::DROPPED), Some(90)),
            phase(811, NetState::ASKED, None),
            phase(1_000, NetState::HEARD, None),
        ])
    };
    let dropped_both_ways = Connection {
        dropped: Some(drops),
        peer_dropped: Some(Dropped {
            count: 1,
            reason: DropReason::Netfilter,
            device: DeviceName::of(b"veth1"),
            ..drops
        }),
        ..seen(vec![
            phase(90, UNSENT.with(NetState::DROPPED), Some(90)),
            phase(500, HERE.with(NetState::PEER_DROPPED), Some(500)),
            phase(1_000, HERE.with(NetState::HEARD), None),
        ])
    };
    let lost_in = Connection {
        peer_thread: Some(REDIS),
        ..seen(vec![
            phase(90, HERE, None),
            phase(600, HERE.with(NetState::PEER_LOST), Some(300)),
            phase(1_000, HERE.with(NetState::HEARD), None),
        ])
    };
    [timeouts, dropped, lost_in, dropped_both_ways].map(|seen| (Call::Recv, seen))
}

/// What else can befall a connection, with the call that waits for it.
fn others() -> [(Call, Connection); 8] {
    let peer = Connection {
        peer_thread: Some(REDIS),
        ..seen(vec![
            phase(90, HERE, None),
            phase(1_000, NetState::HEARD, None),
        ])
    };
    let on_the_way = seen(vec![
        phase(90, ASKED, Some(90)),
        phase(400, NetState::ASKED, None),
    ]);
    let windows = Connection {
        peer_thread: Some(REDIS),
        ..seen(vec![
            phase(90, UNSENT.with(NetState::WINDOW), Some(90)),
            phase(700, UNSENT.with(NetState::CWND), Some(90)),
        ])
    };
    let one = |state| seen(vec![phase(90, state, Some(90))]);
    let shared = Connection {
        reader: Some(REDIS),
        ..one(NetState::HEARD)
    };
    let connect = Connection {
        cut: true,
        retransmits: Retransmits {
            timeouts: 1,
            ..Retransmits::default()
        },
        ..seen(vec![phase(1_000, NetState::default(), None)])
    };
    [
        (Call::Recv, peer),
        (Call::Recv, on_the_way),
        (Call::Send, windows),
        (Call::Recv, one(UNSENT.with(NetState::NAGLE))),
        (Call::Recv, one(UNSENT.with(NetState::CORKED))),
        (Call::Connect, connect),
        (Call::Recv, shared),
        (Call::Recv, one(ASKED.with(NetState::UNFOLLOWED))),
    ]
}

/// The instants of each wait: from 100 ms to 1,000 ms.
const WINDOW: Range<Ns> = 100 * MS..1_000 * MS;

fn thread(thread: ThreadId, tgid: u32, comm: &str) -> Event {
    Event::Thread(ThreadInfo {
        thread,
        process: ProcessId { tgid, start_ns: 1 },
        tid: tgid + thread.0 as u32,
        ns_tid: 1,
        ns_tgid: 1,
        comm: comm.into(),
        kernel: false,
        start_ns: 1,
        since: 1,
        cgroup: 0,
        fs_base: 0,
    })
}

fn connection(object: ObjectId) -> Event {
    let address = |last| Ipv4Addr::new(10, 0, 4, last).to_ipv6_mapped().octets();
    Event::Object(ObjectInfo {
        object,
        kind: ObjectKind::Tcp(Endpoints {
            local: address(2),
            local_port: 48_100 + object.0 as u16,
            remote: address(17),
            remote_port: 6_379,
            netns: 4_026_531_840,
        }),
        name: "TCP".into(),
        dev: 9,
        ino: object.0,
    })
}

/// A wait from 100 ms to 1,000 ms, after 20 ms on a CPU.
fn cycle(thread: ThreadId, call: Call, object: Option<ObjectId>, net: bool) -> Event {
    Event::Cycle(Cycle {
        thread,
        seq: 1,
        prev_in: Some(80 * MS),
        off: Off {
            at: WINDOW.start,
            state: OffState::Sleeping,
            wait: Wait {
                entry: Entry::Call(call),
                object,
                ..Wait::default()
            },
            detours: Vec::new(),
        },
        waking: Some(WINDOW.end),
        waker: Waker::SoftIrq,
        enqueued: Some(WINDOW.end),
        from_idle: true,
        migrated: None,
        throttle: None,
        end: WINDOW.end,
        cpu: 0,
        blame: Blame::default(),
        stack: None,
        net,
        faults: Faults::default(),
        short: ShortDetours::default(),
        detour_seq: 0,
    })
}

/// The recorder that was told all cases, and the threads that waited.
fn recorded() -> (Recorder, Vec<ThreadId>) {
    let mut recorder = Recorder::default();
    recorder.push(thread(REDIS, 4_000, "redis-server"));
    recorder.push(cycle(REDIS, Call::Nanosleep, None, false));
    let mut threads = Vec::new();
    for (id, (call, seen)) in (1..).zip(losses().into_iter().chain(others())) {
        let (who, object) = (ThreadId(id), ObjectId(id));
        recorder.push(thread(who, 900, &format!("worker-{id}")));
        recorder.push(connection(object));
        recorder.push(Event::Net(Net {
            thread: who,
            seq: 1,
            connection: object,
            seen,
        }));
        recorder.push(cycle(who, call, Some(object), true));
        threads.push(who);
    }
    recorder.confirm(WINDOW.end);
    (recorder, threads)
}

#[test]
fn each_connection_has_its_answer() {
    let (recorder, threads) = recorded();
    let empty = tempfile::tempdir().unwrap();
    let cgroups = CgroupNames::discover(&Root::at(empty.path()));
    let names = Names {
        recorder: &recorder,
        cgroups: &cgroups,
    };
    let report = |thread: &ThreadId| {
        let account = recorder.account(*thread, std::slice::from_ref(&WINDOW));
        let info = recorder.thread(*thread).unwrap();
        ThreadReport {
            tid: info.tid,
            pid: info.process.tgid,
            comm: info.comm.to_string(),
            start_unix_ns: UnixNs(WINDOW.start),
            wall_ns: account.wall_ns,
            causes: causes(&account, &names),
            switches: Switches::default(),
            faults: FaultCounts::default(),
            migrations: 0,
        }
    };
    let mut total = lacuna_timeline::Account::default();
    for thread in &threads {
        total.add(&recorder.account(*thread, std::slice::from_ref(&WINDOW)));
    }
    let report = RunReport {
        schema: RunSchema::default(),
        command: vec!["server".to_owned()],
        exit_status: 0,
        wall_ns: WINDOW.end,
        threads: threads.iter().map(report).collect(),
        total: RunTotal {
            wall_ns: total.wall_ns,
            causes: causes(&total, &names),
        },
        lost_records: 0,
    };
    report.check().unwrap();
    let text = serde_json::to_string_pretty(&report).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/render/snapshots/net.json");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(
        text == expected,
        "net.json is now (UPDATE=1 accepts it):\n{text}"
    );
}
