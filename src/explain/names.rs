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

/// Paths and limits of the cgroups that have the CPU controller.
pub(crate) struct CgroupNames {
    root: Root,
    known: Option<(Hierarchy, Mutex<GroupNames>)>,
}

impl CgroupNames {
    /// Finds the hierarchy with the CPU controller; without one, no cgroup has a name.
    pub(crate) fn discover(root: &Root) -> CgroupNames {
        let hierarchy = Cgroups::discover(root)
            .ok()
            .and_then(|cgroups| cgroups.with("cpu").cloned());
        let known = hierarchy.map(|hierarchy| {
            let names = GroupNames::new(root.clone(), hierarchy.clone());
            (hierarchy, Mutex::new(names))
        });
        CgroupNames {
            root: root.clone(),
            known,
        }
    }

    /// The path of a cgroup, and its CPU limit in words ("cpu limit 0.50"); empty where not known.
    fn of(&self, id: u64) -> (String, String) {
        let Some((hierarchy, names)) = &self.known else {
            return (String::new(), String::new());
        };
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let path = names.path(id).unwrap_or_default().to_owned();
        let limit = hierarchy
            .cpu_limit(&self.root, &path)
            .ok()
            .filter(|_| !path.is_empty())
            .and_then(|limit| limit.cpus())
            .map_or(String::new(), |cpus| format!("limit {cpus:.2} CPUs"));
        (path, limit)
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

    /// A culprit by its name.
    pub(crate) fn culprit(&self, who: Who, ns: u64) -> Culprit {
        let unnamed = |kind| culprit(kind, String::new(), ns);
        match who {
            Who::Thread(thread) => self.thread_culprit(thread, ns),
            Who::Object(object) => self.object_culprit(object, ns),
            Who::Cgroup(id) => {
                let (name, detail) = self.cgroups.of(id);
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
        Culprit {
            detail: device(info.dev),
            ..culprit(kind, self.object(object), ns)
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
    use super::device;
    use super::end;
    use std::net::Ipv4Addr;

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
