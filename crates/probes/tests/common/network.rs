// SPDX-License-Identifier: Apache-2.0
//! Two network namespaces with a cable between them, and somebody who drops chosen segments on it.
//!
//! A namespace lives as long as its descriptor and the threads in it, and takes its devices along, so
//! nothing is left behind, also where a test fails.

#[allow(
    clippy::all,
    clippy::too_many_lines,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/dropper.skel.rs"));
}

use super::exchange::THINKS;
use lacuna_timeline::event::Ns;
use libbpf_rs::TC_EGRESS;
use libbpf_rs::TC_INGRESS;
use libbpf_rs::TcHookBuilder;
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::skel::SkelBuilder;
use rustix::net::AddressFamily;
use rustix::net::SocketType;
use rustix::net::netdevice::name_to_index;
use rustix::net::socket;
use rustix::thread::LinkNameSpaceType;
use rustix::thread::UnshareFlags;
use rustix::thread::move_into_link_name_space;
use skeleton::DropperSkel;
use skeleton::DropperSkelBuilder;
use std::fs;
use std::fs::File;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::process::Command;

pub const LEFT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// What its device is called at both ends.
pub const CABLE: &str = "cable";

/// A network namespace.
pub struct Namespace(File);

impl Namespace {
    /// With nothing but its loopback device.
    pub fn alone() -> Namespace {
        let make = || {
            // SAFETY: a new network namespace changes nothing that other threads rely on.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            Namespace(File::open("/proc/thread-self/ns/net").unwrap())
        };
        let made = std::thread::spawn(make).join().unwrap();
        made.run("ip", &["link", "set", "lo", "up"]);
        made
    }

    /// Moves the calling thread there, for good.
    pub fn enter(&self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Does something in it.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join().unwrap()
        })
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) {
        let run = || Command::new(program).args(arguments).status().unwrap();
        assert!(self.within(run).success(), "{program} {arguments:?}");
    }

    /// Takes the cable away.
    pub fn cut(&self) {
        self.run("ip", &["link", "delete", CABLE]);
    }

    /// One of TCP's counters, from /proc/net/netstat or /proc/net/snmp.
    pub fn counter(&self, name: &str) -> u64 {
        let read = || {
            ["netstat", "snmp"]
                .map(|file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap())
        };
        let texts = self.within(read);
        let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
        lines
            .chunks(2)
            .find_map(|pair| {
                let place = pair[0].split(' ').position(|word| word == name)?;
                pair[1].split(' ').nth(place)?.parse().ok()
            })
            .expect(name)
    }

    /// How many bytes its connections have written that are not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        let read = || fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        let text = self.within(read);
        let queued = text.lines().skip(1).map(|line| {
            let queues = line.split_ascii_whitespace().nth(4).unwrap();
            u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap()
        });
        queued.sum()
    }

    /// The same namespace once more.
    pub fn again(&self) -> Namespace {
        Namespace(self.0.try_clone().unwrap())
    }

    /// The number that the kernel knows it by.
    pub fn inum(&self) -> u32 {
        rustix::fs::fstat(&self.0).unwrap().st_ino as u32
    }
}

/// Two namespaces and the cable.
pub struct Pair {
    pub left: Namespace,
    pub right: Namespace,
}

impl Pair {
    pub fn new() -> Pair {
        // Where it is built in there is nothing to load.
        for module in ["veth", "sch_ingress", "cls_bpf"] {
            let _ = Command::new("modprobe").args(["-q", module]).status();
        }
        let (left, right) = (Namespace::alone(), Namespace::alone());
        // `ip` inherits no descriptor: it gets the path of this process's.
        let descriptor = right.0.as_raw_fd();
        let other = format!("/proc/{}/fd/{descriptor}", std::process::id());
        left.run(
            "ip",
            &[
                "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", &other,
            ],
        );
        for (end, address) in [(&left, LEFT), (&right, RIGHT)] {
            let address = format!("{address}/24");
            end.run("ip", &["address", "add", &address, "dev", CABLE]);
            end.run("ip", &["link", "set", CABLE, "up"]);
        }
        Pair { left, right }
    }
}

/// Where a segment passes: an end of the cable, and which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    LeftOut,
    RightIn,
    RightOut,
    LeftIn,
}

/// What stands at each place of the cable, and notes what comes by.
pub struct Posts([Dropper; 4]);

/// What came by at each place, oldest first.
#[derive(Debug)]
pub struct Trail {
    pub left_out: Vec<Noted>,
    pub right_in: Vec<Noted>,
    pub right_out: Vec<Noted>,
    pub left_in: Vec<Noted>,
}

impl Trail {
    /// How many were dropped.
    pub fn dropped(&self) -> usize {
        let places = [
            &self.left_out,
            &self.right_in,
            &self.right_out,
            &self.left_in,
        ];
        let all = places.into_iter().flatten();
        all.filter(|noted| noted.dropped).count()
    }

    /// By then the server had the question: it had thought about it when its answer left.
    pub fn asked_by(&self) -> Ns {
        let answer = self.right_out.last().unwrap();
        answer.at - THINKS.as_nanos() as u64
    }

    /// Before that it did not write the answer.
    pub fn answered_from(&self) -> Ns {
        self.right_in[0].at + THINKS.as_nanos() as u64
    }
}

impl Posts {
    pub fn new(pair: &Pair) -> Posts {
        Posts([
            Dropper::on_the_way_out(&pair.left),
            Dropper::on_the_way_in(&pair.right),
            Dropper::on_the_way_out(&pair.right),
            Dropper::on_the_way_in(&pair.left),
        ])
    }

    /// Lets the next so many segments with data not pass that place.
    pub fn drop_next(&mut self, place: Place, count: u32) {
        self.0[place as usize].drop_next(count);
    }

    /// All from an instant on.
    pub fn trail(&self, from: Ns) -> Trail {
        let at = |place: Place| {
            let mut noted = self.0[place as usize].noted();
            noted.retain(|noted| noted.at >= from);
            noted
        };
        Trail {
            left_out: at(Place::LeftOut),
            right_in: at(Place::RightIn),
            right_out: at(Place::RightOut),
            left_in: at(Place::LeftIn),
        }
    }
}

/// A segment with data that came by.
#[derive(Clone, Copy, Debug)]
pub struct Noted {
    pub at: Ns,
    pub bytes: u32,
    pub dropped: bool,
}

/// Sits at one end of the cable and drops what it is told to.
pub struct Dropper {
    skeleton: DropperSkel<'static>,
}

impl Dropper {
    /// In front of what arrives at that end.
    pub fn on_the_way_in(end: &Namespace) -> Dropper {
        Dropper::at(end, TC_INGRESS)
    }

    /// Behind what leaves that end.
    pub fn on_the_way_out(end: &Namespace) -> Dropper {
        Dropper::at(end, TC_EGRESS)
    }

    fn at(end: &Namespace, point: libbpf_rs::TcAttachPoint) -> Dropper {
        // It lives as long as the test.
        let place = Box::leak(Box::new(MaybeUninit::uninit()));
        let skeleton = DropperSkelBuilder::default().open(place).unwrap();
        let skeleton = skeleton.load().unwrap();
        let program = skeleton.progs.drop_data.as_fd();
        end.within(|| {
            let any = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
            let index = name_to_index(any, CABLE).unwrap();
            let mut hook = TcHookBuilder::new(program)
                .ifindex(index as i32)
                .replace(true)
                .handle(1)
                .priority(1)
                .hook(point);
            hook.create().unwrap();
            hook.attach().unwrap();
        });
        Dropper { skeleton }
    }

    /// Drops the next so many segments with data.
    pub fn drop_next(&mut self, count: u32) {
        let state = &mut self.skeleton.maps.bss_data.as_mut().unwrap().dropper;
        state.left = count;
        state.count = 0;
    }

    /// What came by since.
    pub fn noted(&self) -> Vec<Noted> {
        let state = &self.skeleton.maps.bss_data.as_ref().unwrap().dropper;
        state.notes[..state.count as usize]
            .iter()
            .map(|noted| Noted {
                at: noted.at,
                bytes: noted.bytes,
                dropped: noted.dropped != 0,
            })
            .collect()
    }
}
