// SPDX-License-Identifier: Apache-2.0
//! Names for the ids of an account: threads, objects, cgroups.
//!
//! A name that is not known is said to be unknown, never guessed: a culprit without a name still
//! has its nanoseconds. All text here may be hostile (`comm`, file names); who shows it neutralises it.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::sync::Mutex;
use std::sync::PoisonError;

use lacuna_host::cgroup::Cgroups;
use lacuna_host::cgroup::GroupNames;
use lacuna_host::cgroup::Hierarchy;
use lacuna_host::root::Root;
use lacuna_timeline::Cause;
use lacuna_timeline::Ns;
use lacuna_timeline::account::Who;
use lacuna_timeline::event::Endpoints;
use lacuna_timeline::event::ObjectId;
use lacuna_timeline::event::ObjectKind;
use lacuna_timeline::event::ProcessId;
use lacuna_timeline::event::ThreadId;
use lacuna_timeline::recorder::Recorder;

use crate::answer::Culprit;
use crate::answer::CulpritKind;

/// Paths and limits of cgroups. Their ids are unique within one hierarchy only, so who asks says which
/// controller's group it is.
pub(crate) struct CgroupNames {
    root: Root,
    cpu: Option<Groups>,
    memory: Option<Groups>,
}

/// The groups of the hierarchy that has a controller.
struct Groups {
    hierarchy: Hierarchy,
    names: Mutex<GroupNames>,
}

impl CgroupNames {
    /// Finds the hierarchies with the controllers; where there is none, no cgroup has a name.
    pub(crate) fn discover(root: &Root) -> CgroupNames {
        let cgroups = Cgroups::discover(root).unwrap_or_default();
        let groups = |controller| {
            cgroups.with(controller).map(|hierarchy| Groups {
                hierarchy: hierarchy.clone(),
                names: Mutex::new(GroupNames::new(root.clone(), hierarchy.clone())),
            })
        };
        CgroupNames {
            root: root.clone(),
            cpu: groups("cpu"),
            memory: groups("memory"),
        }
    }

    /// The path of a cgroup that a cause blames, and its limit in words ("limit 0.50 CPUs", "limit
    /// 512 MiB"); empty where not known.
    fn of(&self, cause: Cause, id: u64) -> (String, String) {
        let groups = match cause {
            Cause::MemLimit => &self.memory,
            _ => &self.cpu,
        };
        let Some(Groups { hierarchy, names }) = groups else {
            return (String::new(), String::new());
        };
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let path = names.path(id).unwrap_or_default().to_owned();
        if path.is_empty() {
            return (path, String::new());
        }
        let limit = match cause {
            Cause::MemLimit => {
                let limit = hierarchy.memory_limit(&self.root, &path);
                limit.ok().flatten().map(bytes)
            }
            _ => {
                let limit = hierarchy.cpu_limit(&self.root, &path).ok();
                let cpus = limit.and_then(|limit| limit.cpus());
                cpus.map(|cpus| format!("{cpus:.2} CPUs"))
            }
        };
        let limit = limit.map_or(String::new(), |limit| format!("limit {limit}"));
        (path, limit)
    }
}

/// An amount of memory as people give it: "512 MiB", "1.5 GiB".
fn bytes(amount: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = units.into_iter().find(|(unit, _)| amount >= *unit) else {
        return format!("{amount} bytes");
    };
    let (whole, tenths) = (amount / unit, amount % unit * 10 / unit);
    match tenths {
        0 => format!("{whole} {name}"),
        _ => format!("{whole}.{tenths} {name}"),
    }
}

/// Where names are looked up.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    /// Threads, objects, stacks.
    pub(crate) recorder: &'a Recorder,
    /// Cgroups.
    pub(crate) cgroups: &'a CgroupNames,
}

impl Names<'_> {
    /// A thread's tid, tgid and `comm`; zeros and nothing where it is not known any more.
    pub(crate) fn thread(&self, thread: ThreadId) -> (u32, u32, String) {
        match self.recorder.thread(thread) {
            Some(info) => (info.tid, info.process.tgid, info.comm.to_string()),
            None => (0, 0, String::new()),
        }
    }

    /// The name of a process that lived at that instant: its main thread's.
    pub(crate) fn leader(&self, process: ProcessId, at: Ns) -> String {
        let threads = self.recorder.threads_since(process, at);
        let mut infos = threads.filter_map(|thread| self.recorder.thread(thread));
        infos
            .find(|info| info.tid == process.tgid)
            .map(|info| info.comm.to_string())
            .unwrap_or_default()
    }

    /// A cause's culprit by its name.
    pub(crate) fn culprit(&self, cause: Cause, who: Who, ns: u64) -> Culprit {
        let unnamed = |kind| culprit(kind, String::new(), ns);
        match who {
            Who::Thread(thread) => self.thread_culprit(thread, ns),
            Who::Object(object) => self.object_culprit(object, ns),
            Who::Cgroup(id) => {
                let (name, detail) = self.cgroups.of(cause, id);
                Culprit {
                    detail,
                    ..culprit(CulpritKind::Cgroup, name, ns)
                }
            }
            Who::Idle => culprit(CulpritKind::Interrupt, "idle CPU".to_owned(), ns),
            Who::Rest => unnamed(CulpritKind::Rest),
            Who::Uncovered => unnamed(CulpritKind::Uncovered),
        }
    }

    fn thread_culprit(&self, thread: ThreadId, ns: u64) -> Culprit {
        let (tid, pid, name) = self.thread(thread);
        if tid == 0 {
            return culprit(CulpritKind::Unknown, String::new(), ns);
        }
        Culprit {
            tid,
            pid,
            ..culprit(CulpritKind::Thread, name, ns)
        }
    }

    fn object_culprit(&self, object: ObjectId, ns: u64) -> Culprit {
        let Some(info) = self.recorder.object(object) else {
            return culprit(CulpritKind::Unknown, String::new(), ns);
        };
        let kind = match info.kind {
            ObjectKind::Tcp(_) => CulpritKind::Connection,
            ObjectKind::TcpListener(_)
            | ObjectKind::Datagram(_)
            | ObjectKind::UnixSocket
            | ObjectKind::OtherSocket => CulpritKind::Socket,
            ObjectKind::RemoteFile => CulpritKind::Mount,
            ObjectKind::BlockDevice | ObjectKind::CharDevice => CulpritKind::Device,
            _ => CulpritKind::File,
        };
        // Of a connection it is the other end that is to blame; both ends are in the evidence.
        let name = match &info.kind {
            ObjectKind::Tcp(ends) if ends.remote_port != 0 => end(&ends.remote, ends.remote_port),
            _ => self.object(object),
        };
        Culprit {
            detail: device(info.dev),
            ..culprit(kind, name, ns)
        }
    }

    /// Both ends of a connection as text, and the network namespace of this end; nothing where it is not
    /// known any more.
    pub(super) fn ends(&self, object: ObjectId) -> (String, String, u32) {
        match self.recorder.object(object).map(|info| info.kind) {
            Some(ObjectKind::Tcp(ends)) => (
                end(&ends.local, ends.local_port),
                end(&ends.remote, ends.remote_port),
                ends.netns,
            ),
            _ => Default::default(),
        }
    }

    /// What a descriptor pointed at, in a few words: a file's name, both ends of a connection, ...
    pub(crate) fn object(&self, object: ObjectId) -> String {
        let Some(info) = self.recorder.object(object) else {
            return String::new();
        };
        match &info.kind {
            ObjectKind::Tcp(ends) => format!("TCP {}", both_ends(ends)),
            ObjectKind::TcpListener(ends) => {
                format!("TCP listener {}", end(&ends.local, ends.local_port))
            }
            ObjectKind::Datagram(ends) => format!("datagram socket {}", both_ends(ends)),
            ObjectKind::UnixSocket => format!("Unix socket {}", info.ino),
            ObjectKind::OtherSocket => format!("socket {}", info.ino),
            ObjectKind::Pipe => format!("pipe {}", info.ino),
            _ => info.name.to_string(),
        }
    }
}

fn culprit(kind: CulpritKind, name: String, ns: u64) -> Culprit {
    Culprit {
        kind,
        name,
        pid: 0,
        tid: 0,
        ns,
        detail: String::new(),
        process: String::new(),
    }
}

/// `major:minor` of a `st_dev` number as the kernel encodes it; empty where there is no device:
/// pipes, sockets and pseudo file systems have major number 0.
fn device(dev: u64) -> String {
    match dev >> 20 {
        0 => String::new(),
        major => format!("device {major}:{}", dev & 0xf_ffff),
    }
}

fn both_ends(ends: &Endpoints) -> String {
    let local = end(&ends.local, ends.local_port);
    match ends.remote_port {
        0 => local,
        port => format!("{local} -> {}", end(&ends.remote, port)),
    }
}

fn end(address: &[u8; 16], port: u16) -> String {
    match Ipv6Addr::from(*address).to_canonical() {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;
    use super::device;
    use super::end;
    use std::net::Ipv4Addr;

    #[test]
    fn amounts_of_memory_have_the_unit_that_they_were_given_in() {
        assert_eq!(bytes(6 << 20), "6 MiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes(0), "0 bytes");
    }

    #[test]
    fn addresses_and_devices_are_shown_as_people_write_them() {
        let mapped = Ipv4Addr::new(10, 0, 4, 17).to_ipv6_mapped().octets();
        assert_eq!(end(&mapped, 443), "10.0.4.17:443");
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert_eq!(end(&loopback, 80), "[::1]:80");
        assert_eq!(device((8 << 20) | 1), "device 8:1");
        assert_eq!(device(0), "");
        assert_eq!(device(15), "", "a pseudo file system is no device");
    }
}
