// SPDX-License-Identifier: Apache-2.0
//! The words of a scenario: one event or question a line, `#` begins a comment.
//!
//! ```text
//! thread 1 process=10 ns=1 born=1000 name=main
//! object 7 pipe            stack 5 schedule do_swap_page
//! cycle 1 in=1000 out=2000 sleeping call=futex futex=mutex owner=2 waking=5000 by=2 enq=5100 end=5300
//! net 1 object=7 srtt=300 timeouts=1 phases=1900:unacked+asked@1900,2400:unacked+asked+lost@1900
//! cycle 1 out=6000 sleeping call=recv object=7 net waking=8000 by=softirq enq=8000 end=8000
//! exit 1 at=9000           snapshot 1 at=9000 last_in=5300
//! doubt switch 100..200    confirm 9000
//! account 1 1000..9000     oncpu 1 1500..1501     proved 1
//! ```
//!
//! Left out, `seq` is the next number of the thread and `in` its last `end`; `in=?` was not seen.

use std::collections::HashMap;
use std::ops::Range;

use lacuna_timeline::Event;
use lacuna_timeline::Ns;
use lacuna_timeline::ThreadId;
use lacuna_timeline::event::Asked;
use lacuna_timeline::event::Asleep;
use lacuna_timeline::event::Blame;
use lacuna_timeline::event::Call;
use lacuna_timeline::event::Connection;
use lacuna_timeline::event::Cycle;
use lacuna_timeline::event::Detour;
use lacuna_timeline::event::DetourKind;
use lacuna_timeline::event::DeviceName;
use lacuna_timeline::event::Doubt;
use lacuna_timeline::event::DoubtReason;
use lacuna_timeline::event::DropReason;
use lacuna_timeline::event::Dropped;
use lacuna_timeline::event::Endpoints;
use lacuna_timeline::event::Entry;
use lacuna_timeline::event::Exit;
use lacuna_timeline::event::Faults;
use lacuna_timeline::event::Futex;
use lacuna_timeline::event::FutexKind;
use lacuna_timeline::event::Merged;
use lacuna_timeline::event::Migrated;
use lacuna_timeline::event::Net;
use lacuna_timeline::event::NetState;
use lacuna_timeline::event::ObjectId;
use lacuna_timeline::event::ObjectInfo;
use lacuna_timeline::event::ObjectKind;
use lacuna_timeline::event::Off;
use lacuna_timeline::event::OffState;
use lacuna_timeline::event::Phase;
use lacuna_timeline::event::Polled;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::event::Retransmits;
use lacuna_timeline::event::ShortDetours;
use lacuna_timeline::event::Snapshot;
use lacuna_timeline::event::StackId;
use lacuna_timeline::event::StackInfo;
use lacuna_timeline::event::ThreadInfo;
use lacuna_timeline::event::Throttle;
use lacuna_timeline::event::Wait;
use lacuna_timeline::event::Waker;

/// What a line asks for.
pub(crate) enum Line {
    Nothing,
    Event(Box<Event>),
    Confirm(Ns),
    Account(ThreadId, Vec<Range<Ns>>),
    OnCpu(ThreadId, Ns, Ns),
    Proved(ThreadId),
}

/// What a script has said so far of each thread: last number, last end, detours.
#[derive(Default)]
pub(crate) struct Script {
    threads: HashMap<u64, (u64, Option<Ns>, u64)>,
}

/// The words of a line after the first two.
struct Words<'l>(Vec<&'l str>);

impl<'l> Words<'l> {
    /// The value of `key=value`.
    fn get(&self, key: &str) -> Option<&'l str> {
        let value = |word: &&'l str| word.strip_prefix(key)?.strip_prefix('=');
        self.0.iter().find_map(value)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.get(key).map(number)
    }

    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    /// `key=a:b,c:d` as pairs.
    fn pairs(&self, key: &str) -> Vec<(&'l str, u64)> {
        let list = self.get(key).map(|list| list.split(','));
        let pair = |pair: &'l str| {
            pair.split_once(':')
                .map(|(name, value)| (name, number(value)))
        };
        list.into_iter().flatten().filter_map(pair).collect()
    }
}

fn number(text: &str) -> u64 {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("a number: {text}"))
}

fn range(text: &str) -> Range<Ns> {
    let (from, to) = text
        .split_once("..")
        .unwrap_or_else(|| panic!("a range: {text}"));
    number(from)..number(to)
}

impl Script {
    /// Reads a line.
    pub(crate) fn line(&mut self, line: &str) -> Line {
        let text = line.split('#').next().unwrap_or_default();
        let mut words = text.split_whitespace();
        let (Some(verb), Some(first)) = (words.next(), words.next()) else {
            return Line::Nothing;
        };
        let words = Words(words.collect());
        let event = match verb {
            "account" => {
                let windows = words.0.iter().map(|word| range(word)).collect();
                return Line::Account(ThreadId(number(first)), windows);
            }
            "oncpu" => {
                let window = range(words.0[0]);
                return Line::OnCpu(ThreadId(number(first)), window.start, window.end);
            }
            "proved" => return Line::Proved(ThreadId(number(first))),
            "confirm" => return Line::Confirm(number(first)),
            "doubt" => Event::Doubt(doubt(first, &words)),
            "thread" => Event::Thread(thread(number(first), &words)),
            "object" => Event::Object(object(number(first), &words)),
            "stack" => Event::Stack(StackInfo {
                stack: StackId(number(first)),
                frames: words.0.iter().map(|word| Box::from(*word)).collect(),
            }),
            "cycle" => Event::Cycle(self.cycle(number(first), &words)),
            "net" => Event::Net(self.net(number(first), &words)),
            "merged" => Event::Merged(self.merged(number(first), &words)),
            "detour" => Event::Detour(self.detour(number(first), &words)),
            "exit" => Event::Exit(self.exit(number(first), &words)),
            "snapshot" => Event::Snapshot(self.snapshot(number(first), &words)),
            "asleep" => {
                let stretch = range(words.0[0]);
                Event::Asleep(Asleep {
                    thread: ThreadId(number(first)),
                    from: stretch.start,
                    until: stretch.end,
                })
            }
            verb => panic!("no such word: {verb}"),
        };
        Line::Event(Box::new(event))
    }

    /// Number and switch-in of a thread's next record, and its number of detours.
    fn next(&mut self, id: u64, words: &Words<'_>, end: Ns) -> (u64, Option<Ns>, u64) {
        let (last, last_end, detours) = self.threads.entry(id).or_default();
        *last = words.number("seq").unwrap_or(*last + 1);
        let prev_in = match words.get("in") {
            Some("?") => None,
            Some(text) => Some(number(text)),
            None => *last_end,
        };
        *last_end = Some(end);
        *detours = words.number("detours_so_far").unwrap_or(*detours);
        (*last, prev_in, *detours)
    }

    fn cycle(&mut self, id: u64, words: &Words<'_>) -> Cycle {
        let end = words.number("end").expect("end=");
        let (seq, prev_in, detour_seq) = self.next(id, words, end);
        Cycle {
            thread: ThreadId(id),
            seq,
            prev_in,
            off: off(words).expect("out="),
            waking: words.number("waking"),
            waker: waker(words.get("by")),
            enqueued: words.number("enq"),
            from_idle: words.has("from-idle"),
            migrated: words.get("migrated").map(|text| {
                let (waited, at) = text.split_once('@').expect("migrated=waited@at");
                Migrated {
                    waited_ns: number(waited),
                    at: number(at),
                }
            }),
            throttle: words.number("throttle").map(|ns| Throttle {
                ns,
                until: words.number("until"),
                estimated: words.has("estimated"),
                cgroup: words.number("cgroup").unwrap_or(0),
            }),
            end,
            cpu: words.number("cpu").unwrap_or(0) as u16,
            blame: blame(words),
            stack: words.number("stack").map(StackId),
            net: words.has("net"),
            faults: faults(words),
            short: short(words),
            detour_seq,
        }
    }

    /// What is told of a connection, before its cycle unless it says otherwise.
    fn net(&mut self, id: u64, words: &Words<'_>) -> Net {
        let (last, _, _) = *self.threads.entry(id).or_default();
        let count = |key| words.number(key).unwrap_or(0) as u16;
        let dropped = |key| {
            words.number(key).map(|drops| Dropped {
                count: drops as u16,
                reason: DropReason::of(count("reason")),
                ifindex: words.number("ifindex").unwrap_or(0) as u32,
                netns: words.number("netns").unwrap_or(0) as u32,
                device: DeviceName::default(),
            })
        };
        let phases = words.get("phases").map(|list| list.split(','));
        Net {
            thread: ThreadId(id),
            seq: words.number("seq").unwrap_or(last + 1),
            connection: ObjectId(words.number("object").expect("object=")),
            seen: Connection {
                accepted: words.has("accepted"),
                peer_thread: words.number("peer").map(ThreadId),
                reader: words.number("reader").map(ThreadId),
                srtt_ns: words.number("srtt").unwrap_or(0),
                rtt_min_ns: words.number("least").unwrap_or(0),
                rto_ns: words.number("rto").unwrap_or(0),
                retransmits: Retransmits {
                    timeouts: count("timeouts"),
                    probes: count("probes"),
                    fast: count("fast"),
                },
                dropped: dropped("drops"),
                peer_dropped: dropped("peer-drops"),
                cut: words.has("cut"),
                phases: phases.into_iter().flatten().map(phase).collect(),
            },
        }
    }

    fn merged(&mut self, id: u64, words: &Words<'_>) -> Merged {
        let end = words.number("end").expect("end=");
        let (seq, prev_in, detour_seq) = self.next(id, words, end);
        let sum = |key| words.number(key).unwrap_or(0);
        Merged {
            thread: ThreadId(id),
            seq,
            prev_in,
            end,
            count: sum("count") as u32,
            running_ns: sum("running"),
            runnable_ns: sum("queued"),
            idle_wake_ns: sum("idle"),
            blocked_ns: sum("blocked"),
            state: state(words),
            wait: wait(words),
            faults: faults(words),
            short: short(words),
            detour_seq,
        }
    }

    fn detour(&mut self, id: u64, words: &Words<'_>) -> Detour {
        let (_, _, detours) = self.threads.entry(id).or_default();
        *detours = words.number("seq").unwrap_or(*detours + 1);
        let range = range(words.0[1]);
        Detour {
            thread: ThreadId(id),
            seq: *detours,
            kind: detour_kind(words.0[0]),
            begin: range.start,
            end: range.end,
            detail: words.number("detail").unwrap_or(0),
        }
    }

    fn exit(&mut self, id: u64, words: &Words<'_>) -> Exit {
        let at = words.number("at").expect("at=");
        let (seq, prev_in, detour_seq) = self.next(id, words, at);
        Exit {
            thread: ThreadId(id),
            seq,
            prev_in,
            at,
            faults: faults(words),
            short: short(words),
            detour_seq,
        }
    }

    fn snapshot(&mut self, id: u64, words: &Words<'_>) -> Snapshot {
        let (seq, last_in, detours) = *self.threads.entry(id).or_default();
        Snapshot {
            thread: ThreadId(id),
            seq: words.number("seq").unwrap_or(seq),
            at: words.number("at").expect("at="),
            last_in: words.number("last_in").or(last_in),
            off: off(words),
            open: detours_of(words),
            detour_seq: words.number("detours_so_far").unwrap_or(detours),
            waking: words.number("waking"),
        }
    }
}

fn off(words: &Words<'_>) -> Option<Off> {
    Some(Off {
        at: words.number("out")?,
        state: state(words),
        wait: wait(words),
        detours: detours_of(words),
    })
}

/// `at:bit+bit@since`
fn phase(text: &str) -> Phase {
    let (at, rest) = text.split_once(':').expect("at:state");
    let (bits, since) = match rest.split_once('@') {
        Some((bits, since)) => (bits, Some(number(since))),
        None => (rest, None),
    };
    let state = bits.split('+').map(|bit| match bit {
        "none" => NetState::default(),
        "unacked" => NetState::UNACKED,
        "unsent" => NetState::UNSENT,
        "nagle" => NetState::NAGLE,
        "window" => NetState::WINDOW,
        "cwnd" => NetState::CWND,
        "lost" => NetState::LOST,
        "dropped" => NetState::DROPPED,
        "gap" => NetState::GAP,
        "peer-lost" => NetState::PEER_LOST,
        "peer-dropped" => NetState::PEER_DROPPED,
        "arrived" => NetState::ARRIVED,
        "asked" => NetState::ASKED,
        "heard" => NetState::HEARD,
        "here" => NetState::HERE,
        "corked" => NetState::CORKED,
        "unfollowed" => NetState::UNFOLLOWED,
        "late" => NetState::LATE,
        "joined" => NetState::JOINED,
        bit => panic!("no such state: {bit}"),
    });
    Phase {
        at: number(at),
        since,
        state: state.fold(NetState::default(), NetState::with),
    }
}

fn state(words: &Words<'_>) -> OffState {
    let states = [
        ("sleeping", OffState::Sleeping),
        ("uninterruptible", OffState::Uninterruptible),
        ("stopped", OffState::Stopped),
        ("traced", OffState::Traced),
        ("frozen", OffState::Frozen),
    ];
    let named = states.iter().find(|state| words.has(state.0));
    named.map_or(OffState::Runnable, |state| state.1)
}

fn wait(words: &Words<'_>) -> Wait {
    let call = words.get("call").map(|name| match name {
        "futex" => Call::FutexWait,
        "lock-pi" => Call::FutexLockPi,
        "nanosleep" => Call::Nanosleep,
        "read" => Call::Read,
        "write" => Call::Write,
        "recv" => Call::Recv,
        "send" => Call::Send,
        "connect" => Call::Connect,
        "splice" => Call::Splice,
        "epoll" => Call::EpollWait,
        "poll" => Call::Poll,
        "wait-child" => Call::WaitChild,
        name => panic!("no such call: {name}"),
    });
    let fault = words.has("fault").then_some(Entry::Fault);
    Wait {
        entry: call.map(Entry::Call).or(fault).unwrap_or_default(),
        args: [words.number("descriptors").unwrap_or(1); 4],
        object: words.number("object").map(ObjectId),
        futex: words.get("futex").map(|kind| Futex {
            kind: match kind {
                "mutex" => FutexKind::GlibcMutex,
                "rwlock" => FutexKind::GlibcRwlock,
                "pi" => FutexKind::Pi,
                _ => FutexKind::Unowned,
            },
            owner_ns_tid: words.number("owner").unwrap_or(0) as u32,
            address_hash: words.number("address").unwrap_or(1),
        }),
        iowait: words.has("iowait"),
        polled: match words {
            words if words.has("ended") => Polled::Ended(Asked::Input),
            words if words.has("ended-out") => Polled::Ended(Asked::Output),
            words if words.has("ended-either") => Polled::Ended(Asked::Either),
            words if words.has("sole") => Polled::Sole(Asked::Input),
            _ => Polled::No,
        },
    }
}

fn detour_kind(name: &str) -> DetourKind {
    match name {
        "compaction" => DetourKind::Compaction,
        "memcg" => DetourKind::MemcgReclaim,
        "direct" => DetourKind::DirectReclaim,
        name => panic!("no such detour: {name}"),
    }
}

fn detours_of(words: &Words<'_>) -> Vec<DetourKind> {
    let list = words.get("open").map(|list| list.split(','));
    list.into_iter().flatten().map(detour_kind).collect()
}

fn waker(text: Option<&str>) -> Waker {
    match text {
        None => Waker::Unknown,
        Some("hardirq") => Waker::HardIrq,
        Some("softirq") => Waker::SoftIrq,
        Some("idle") => Waker::Idle,
        Some(thread) => Waker::Thread(ThreadId(number(thread))),
    }
}

fn blame(words: &Words<'_>) -> Blame {
    let culprits = words.pairs("blame").into_iter();
    Blame {
        culprits: culprits
            .map(|(thread, ns)| (ThreadId(number(thread)), ns))
            .collect(),
        rest_ns: words.number("rest").unwrap_or(0),
        uncovered_ns: words.number("uncovered").unwrap_or(0),
    }
}

fn faults(words: &Words<'_>) -> Faults {
    Faults {
        minor: words.number("minor").unwrap_or(0) as u32,
        major: words.number("major").unwrap_or(0) as u32,
    }
}

fn short(words: &Words<'_>) -> ShortDetours {
    let sums = words.pairs("short");
    let sum = |name| {
        sums.iter()
            .find(|sum| sum.0 == name)
            .map_or(0, |sum| sum.1 as u32)
    };
    ShortDetours {
        compaction_ns: sum("compaction"),
        memcg_ns: sum("memcg"),
        reclaim_ns: sum("direct"),
    }
}

fn doubt(kind: &str, words: &Words<'_>) -> Doubt {
    let range = range(words.0[0]);
    Doubt {
        from: range.start,
        to: range.end,
        reason: match kind {
            "ring" => DoubtReason::RingFull,
            "storage" => DoubtReason::StorageFailed,
            "waking" => DoubtReason::ProgramSkipped,
            "switch" => DoubtReason::SwitchSkipped,
            "suspend" => DoubtReason::Suspended,
            kind => panic!("no such doubt: {kind}"),
        },
    }
}

fn thread(id: u64, words: &Words<'_>) -> ThreadInfo {
    let born = words.number("born").unwrap_or(1);
    ThreadInfo {
        thread: ThreadId(id),
        process: ProcessId {
            tgid: words.number("process").unwrap_or(10) as u32,
            start_ns: 1,
        },
        tid: id as u32,
        ns_tid: words.number("ns").unwrap_or(id) as u32,
        ns_tgid: 1,
        comm: words.get("name").unwrap_or("thread").into(),
        kernel: words.has("kernel"),
        start_ns: born,
        since: words.number("since").unwrap_or(born),
        cgroup: 0,
        fs_base: 0,
    }
}

fn object(id: u64, words: &Words<'_>) -> ObjectInfo {
    ObjectInfo {
        object: ObjectId(id),
        kind: match words.0[0] {
            "file" => ObjectKind::File,
            "remote" => ObjectKind::RemoteFile,
            "pipe" => ObjectKind::Pipe,
            "timer" => ObjectKind::Timer,
            "unix" => ObjectKind::UnixSocket,
            "tcp" => ObjectKind::Tcp(Endpoints {
                local: [1; 16],
                local_port: 1,
                remote: [2; 16],
                remote_port: 2,
                netns: 1,
            }),
            "epoll" => ObjectKind::Epoll,
            kind => panic!("no such object: {kind}"),
        },
        name: "name".into(),
        dev: 1,
        ino: id,
    }
}
