// SPDX-License-Identifier: Apache-2.0
//! Two readings of a process, and what has grown between them.
//!
//! Everything is read the same way and in the same order at both instants, so that each growth is over
//! the same length. What vanished meanwhile is counted, not guessed; what may not be read is void with
//! its reason. Reads only.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::time::Instant;

use lacuna_host::Root;
use lacuna_host::cgroup::Cgroups;
use lacuna_host::counters::Faults;
use lacuna_host::counters::Io;
use lacuna_host::counters::Tcp as NamespaceTcp;
use lacuna_host::counters::grown;
use lacuna_host::netstat::TcpTrouble;
use lacuna_host::perf::PerfCounters;
use lacuna_host::perf::THREADS_MAX as PERF_THREADS_MAX;
use lacuna_host::process::ProcessError;
use lacuna_host::process::ProcessFacts;
use lacuna_host::process::StartTime;
use lacuna_host::process::threads as thread_ids;
use lacuna_host::sys;
use lacuna_host::tasks::Tasks;
use lacuna_host::taskstats::Delays;
use lacuna_host::taskstats::Taskstats;
use lacuna_host::thread::SchedStat;
use lacuna_host::thread::ThreadStat;
use lacuna_host::thread::ThreadStatus;
use lacuna_host::thread::kernel_stack;
use rustix::io::Errno;

use super::facts::Counters;
use super::facts::DelayGrowth;
use super::facts::Facts;
use super::facts::IoGrowth;
use super::facts::NetNamespace;
use super::facts::Perf;
use super::facts::Seen;
use super::facts::Still;
use super::facts::ThreadGrowth;
use super::facts::Threads;
use super::facts::Void;
use super::groups;
use super::groups::CpuReading;
use super::groups::MemoryReading;
use super::groups::PressureReading;
use super::looks::Looks;
use super::sockets::SocketReading;

/// What is the same for every process.
pub(super) struct Host {
    pub(super) root: Root,
    pub(super) cgroups: Cgroups,
    taskstats: Seen<Taskstats>,
}

impl Host {
    pub(super) fn look(root: Root) -> Self {
        Self {
            // Without a mount table there is no group, which is what an empty list says.
            cgroups: Cgroups::discover(&root).unwrap_or_default(),
            taskstats: open_taskstats(&root),
            root,
        }
    }
}

/// The kernel answers with zeros while it does not count, so that is asked first.
fn open_taskstats(root: &Root) -> Seen<Taskstats> {
    const SWITCH_ON: &str = "sysctl kernel.task_delayacct=1 (Lacuna never writes it) and then a new \
                             start of the process, whose threads the kernel counts from their begin \
                             or never; or boot with delayacct";
    let always = |version: sys::KernelVersion| !version.at_least(5, 14);
    match sys::delay_accounting(root) {
        Some(true) => {}
        // Before 5.14 there was no such sysctl, and the kernel always counted.
        None if sys::KernelVersion::read(root).is_some_and(always) => {}
        Some(false) => return Err(Void::new("kernel.task_delayacct is 0", SWITCH_ON)),
        None => {
            return Err(Void::new(
                "this kernel has no delay accounting",
                "use a kernel with CONFIG_TASK_DELAY_ACCT",
            ));
        }
    }
    Taskstats::open().map_err(|error| taskstats_void(&error))
}

fn taskstats_void(error: &io::Error) -> Void {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Void::new("taskstats needs CAP_NET_ADMIN", "run the ladder as root")
        }
        io::ErrorKind::InvalidData => Void::new(
            "taskstats answers in a form that is not known (version 15 of 6.14 is out of order)",
            "use another kernel",
        ),
        _ => Void::new(
            format!("taskstats does not answer: {error}"),
            "run the ladder in the host's own network namespace",
        ),
    }
}

/// One thread at one instant. Two files, not three: of a thousand threads most do not run in a window, and
/// of those nothing else is wanted.
struct ThreadReading {
    sched: SchedStat,
    status: ThreadStatus,
}

/// The threads at the first instant.
struct ThreadsReading {
    tasks: Tasks,
    /// What began later is another thread, whatever its id.
    at: StartTime,
    threads: HashMap<u32, ThreadReading>,
}

/// A process at the first instant.
pub(super) struct First {
    at: Instant,
    pub(super) process: ProcessFacts,
    threads: Seen<ThreadsReading>,
    limits: Seen<CpuReading>,
    sockets: Seen<SocketReading>,
    namespace: Option<(NamespaceTcp, TcpTrouble)>,
    faults: Seen<Faults>,
    perf: Seen<PerfCounters>,
    pressure: Seen<PressureReading>,
    delays: Seen<Delays>,
    io: Seen<Io>,
    memory: Seen<MemoryReading>,
}

impl First {
    /// Reads all that grows. What cannot be read is void from here on.
    pub(super) fn take(host: &Host, process: ProcessFacts) -> Self {
        let (root, tgid) = (&host.root, process.tgid);
        let at = Instant::now();
        let threads = read_threads(root, &process);
        let perf = match &threads {
            Ok(reading) => count_busiest(root, &reading.threads),
            Err(void) => Err(void.clone()),
        };
        Self {
            at,
            limits: groups::read_cpu(host, &process),
            sockets: SocketReading::take(root, &process),
            namespace: read_namespace(root, tgid),
            faults: Faults::read(root, tgid).map_err(|error| unreadable(&process, &error)),
            pressure: PressureReading::take(host, &process),
            delays: read_delays(host, tgid),
            io: Io::read(root, tgid).map_err(|error| unreadable(&process, &error)),
            memory: groups::read_memory(host, &process),
            perf,
            threads,
            process,
        }
    }

    /// Looks at those of its threads that switch all the time.
    pub(super) fn look(&self, looks: &mut Looks) {
        let Ok(reading) = &self.threads else {
            return;
        };
        let first = reading.threads.iter();
        let first = first.map(|(tid, thread)| (*tid, thread.sched));
        looks.look(&reading.tasks, first, self.at.elapsed());
    }

    /// Reads again, and says what has grown. `None`: it has ended.
    pub(super) fn grow(self, host: &Host, looks: &Looks) -> Option<Facts> {
        let (root, tgid) = (&host.root, self.process.tgid);
        let window = self.at.elapsed();
        let process = self.process;
        let facts = Facts {
            window_ns: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            threads: self
                .threads
                .and_then(|first| grow_threads(root, &process, first, looks)),
            limits: self
                .limits
                .and_then(|first| groups::grow_cpu(host, &process, first)),
            tcp: self.sockets.and_then(|first| first.grow(root, &process)),
            namespace: self
                .namespace
                .and_then(|first| grow_namespace(root, tgid, first)),
            perf_void: self.perf.as_ref().err().cloned(),
            counters: self.faults.and_then(|first| {
                let now = Faults::read(root, tgid).map_err(|error| unreadable(&process, &error))?;
                Ok(Counters {
                    minor_faults: grown(first.minor, now.minor).unwrap_or(0),
                    major_faults: grown(first.major, now.major).unwrap_or(0),
                    perf: self.perf.ok().and_then(|mut perf| read_perf(&mut perf)),
                })
            }),
            stalls: self.pressure.map(|first| first.grow(root)),
            delays: self
                .delays
                .and_then(|first| grow_delays(first, read_delays(host, tgid)?)),
            io: self.io.and_then(|first| {
                let now = Io::read(root, tgid).map_err(|error| unreadable(&process, &error))?;
                Ok(grow_io(first, now))
            }),
            memory: self
                .memory
                .and_then(|first| groups::grow_memory(host, &process, first)),
        };
        (!has_ended(root, &process)).then_some(facts)
    }
}

/// Whether a process has ended, also where its parent has not taken it away, or its id is another's.
pub(super) fn has_ended(root: &Root, process: &ProcessFacts) -> bool {
    // Of its first thread: what the kernel says of the process takes it a walk over all threads.
    let Ok(stat) = ThreadStat::read(root, process.tgid, process.tgid) else {
        return true;
    };
    stat.start != process.start || stat.is_ended_process()
}

/// Why something of a process could not be read.
pub(super) fn unreadable(process: &ProcessFacts, error: &ProcessError) -> Void {
    match error {
        ProcessError::Gone => Void::new("the process has ended", "take a shorter --window"),
        ProcessError::Unreadable(error) => denied(process, error),
    }
}

/// The same of what the kernel shows to those only who may trace the process.
pub(super) fn denied(process: &ProcessFacts, error: &io::Error) -> Void {
    let own = rustix::process::geteuid().as_raw();
    match error.kind() {
        io::ErrorKind::PermissionDenied if own == 0 || own == process.uids[0] => Void::new(
            "the kernel lets nobody from here look into it (another user namespace, or hardened)",
            "run the ladder from the process's own container, or with CAP_SYS_PTRACE there",
        ),
        io::ErrorKind::PermissionDenied => Void::new(
            format!("it is the process of user {}", process.uids[0]),
            "run the ladder as root, or as that user",
        ),
        io::ErrorKind::NotFound => Void::new(
            "this kernel does not tell",
            "lacuna doctor says what this kernel lacks",
        ),
        _ => Void::new(error.to_string(), "lacuna doctor says what this host lacks"),
    }
}

fn read_threads(root: &Root, process: &ProcessFacts) -> Seen<ThreadsReading> {
    let tgid = process.tgid;
    let gone = |error: ProcessError| unreadable(process, &error);
    let tasks = Tasks::open(root, tgid).map_err(gone)?;
    let at = StartTime::now();
    let read = |tid: u32| -> Result<ThreadReading, ProcessError> {
        Ok(ThreadReading {
            sched: tasks.sched(tid)?,
            status: tasks.status(tid)?,
        })
    };
    // A thread that ended meanwhile was not there at the first instant.
    let threads: HashMap<u32, ThreadReading> = thread_ids(root, tgid)
        .map_err(gone)?
        .into_iter()
        .filter_map(|tid| Some((tid, read(tid).ok()?)))
        .collect();
    // Every thread of a running process has been on a CPU.
    if threads.values().all(|thread| thread.sched.slices == 0) {
        return Err(Void::new(
            "the kernel does not count run-queue delay",
            "use a kernel with CONFIG_SCHED_INFO (CONFIG_SCHEDSTATS or CONFIG_TASK_DELAY_ACCT)",
        ));
    }
    Ok(ThreadsReading { tasks, at, threads })
}

fn grow_threads(
    root: &Root,
    process: &ProcessFacts,
    mut first: ThreadsReading,
    looks: &Looks,
) -> Seen<Threads> {
    let tids = thread_ids(root, process.tgid).map_err(|error| unreadable(process, &error))?;
    let mut threads = Threads::default();
    for tid in tids {
        match first.threads.remove(&tid) {
            None => threads.started += 1,
            Some(before) => match grow_thread(&first.tasks, tid, first.at, before) {
                Ok(Some(mut thread)) => {
                    thread.switch_cost_ns = looks.switch_cost_ns(tid);
                    if let Some(still) = &mut thread.still {
                        still.stack = kernel_stack(root, process.tgid, tid);
                    }
                    threads.both.push(thread);
                }
                // The id is another thread's by now.
                Ok(None) => {
                    threads.ended += 1;
                    threads.started += 1;
                }
                Err(_) => threads.ended += 1,
            },
        }
    }
    threads.ended += first.threads.len() as u64;
    Ok(threads)
}

/// `None`: it is another thread.
fn grow_thread(
    tasks: &Tasks,
    tid: u32,
    began: StartTime,
    before: ThreadReading,
) -> Result<Option<ThreadGrowth>, ProcessError> {
    let sched = tasks.sched(tid)?;
    let slices = grown(before.sched.slices, sched.slices);
    let on_cpu_ns = grown(before.sched.on_cpu_ns, sched.on_cpu_ns);
    let run_delay_ns = grown(before.sched.run_delay_ns, sched.run_delay_ns);
    let (Some(slices), Some(on_cpu_ns), Some(run_delay_ns)) = (slices, on_cpu_ns, run_delay_ns)
    else {
        return Ok(None);
    };
    let mut thread = ThreadGrowth {
        tid,
        on_cpu_ns,
        run_delay_ns,
        slices,
        ..ThreadGrowth::default()
    };
    let state = before.status.state;
    if sched == before.sched && !"RDTt".contains(state) {
        // It slept all the time: there is nothing else to tell of it.
        return Ok(Some(thread));
    }
    let stat = tasks.stat(tid)?;
    if stat.start > began {
        return Ok(None);
    }
    thread.comm = stat.comm.into_string();
    if slices == 0 {
        // It was not switched in, so its switches are as they were.
        let still = on_cpu_ns == 0 && "RDTt".contains(state) && stat.state == state;
        thread.still = still.then(|| Still {
            state,
            stack: Vec::new(),
        });
        return Ok(Some(thread));
    }
    let (then, now) = (before.status.switches, tasks.status(tid)?.switches);
    let voluntary = grown(then.voluntary, now.voluntary);
    let involuntary = grown(then.involuntary, now.involuntary);
    Ok(voluntary.zip(involuntary).map(|(voluntary, involuntary)| {
        (thread.voluntary, thread.involuntary) = (voluntary, involuntary);
        thread
    }))
}

/// Counts the threads that have run most so far: there is a limit to how many can be counted.
fn count_busiest(root: &Root, threads: &HashMap<u32, ThreadReading>) -> Seen<PerfCounters> {
    let mut tids: Vec<(u64, u32)> = threads
        .iter()
        .map(|(tid, thread)| (thread.sched.on_cpu_ns, *tid))
        .collect();
    tids.sort_unstable_by(|a, b| b.cmp(a));
    tids.truncate(PERF_THREADS_MAX);
    let tids: Vec<u32> = tids.into_iter().map(|(_, tid)| tid).collect();
    PerfCounters::open(&tids).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Void::new(
            format!(
                "kernel.perf_event_paranoid is {}: counting is not allowed",
                sys::perf_event_paranoid(root).map_or("not known".to_owned(), |n| n.to_string())
            ),
            "run the ladder as root, or with CAP_PERFMON",
        ),
        _ => Void::new(
            format!("perf_event_open fails: {error}"),
            "see ulimit -n, and whether the kernel has CONFIG_PERF_EVENTS",
        ),
    })
}

fn read_perf(perf: &mut PerfCounters) -> Option<Perf> {
    let counts = perf.read().ok()?;
    Some(Perf {
        threads: perf.threads() as u64,
        context_switches: counts.context_switches,
        migrations: counts.migrations,
        minor_faults: counts.minor_faults,
        major_faults: counts.major_faults,
        cycles: counts.cycles,
        instructions: counts.instructions,
        no_hardware: perf.no_hardware().map(why_no_hardware),
    })
}

/// What the kernel says of a counter that the CPU, or the hypervisor in front of it, does not have.
fn why_no_hardware(error: &io::Error) -> String {
    let without = [Errno::NOENT, Errno::OPNOTSUPP, Errno::NODEV];
    match without
        .map(|errno| Some(errno.raw_os_error()))
        .contains(&error.raw_os_error())
    {
        true => "this machine shows none, as most virtual machines".to_owned(),
        false => format!("perf_event_open fails: {error}"),
    }
}

fn read_namespace(root: &Root, tgid: u32) -> Option<(NamespaceTcp, TcpTrouble)> {
    let counters = NamespaceTcp::read(root, tgid).ok()?;
    Some((counters, TcpTrouble::read(root, tgid).ok()?))
}

fn grow_namespace(
    root: &Root,
    tgid: u32,
    (tcp, trouble): (NamespaceTcp, TcpTrouble),
) -> Option<NetNamespace> {
    let (tcp_now, trouble_now) = read_namespace(root, tgid)?;
    let both = |before: Option<u64>, now: Option<u64>| grown(before?, now?);
    Some(NetNamespace {
        segments_out: grown(tcp.segments_out, tcp_now.segments_out)?,
        retransmits: grown(tcp.retransmits, tcp_now.retransmits)?,
        timeouts: both(trouble.timeouts, trouble_now.timeouts),
        listen_overflows: both(trouble.listen_overflows, trouble_now.listen_overflows),
    })
}

fn read_delays(host: &Host, tgid: u32) -> Seen<Delays> {
    let taskstats = host.taskstats.as_ref().map_err(Void::clone)?;
    taskstats
        .of_process(tgid)
        .map_err(|error| taskstats_void(&error))
}

fn grow_delays(before: Delays, now: Delays) -> Seen<DelayGrowth> {
    if now.events == 0 {
        return Err(Void::new(
            "no delay of it was ever counted: most likely it is older than the switch \
             (kernel.task_delayacct), and the kernel counts threads from their begin or never",
            "start the process anew",
        ));
    }
    let grown = |before, now| grown(before, now).unwrap_or(0);
    let both = |before: Option<u64>, now: Option<u64>| Some(grown(before?, now?));
    Ok(DelayGrowth {
        block_io_ns: grown(before.block_io_ns, now.block_io_ns),
        swap_in_ns: grown(before.swap_in_ns, now.swap_in_ns),
        reclaim_ns: grown(before.reclaim_ns, now.reclaim_ns),
        thrashing_ns: both(before.thrashing_ns, now.thrashing_ns),
        compaction_ns: both(before.compaction_ns, now.compaction_ns),
    })
}

fn grow_io(before: Io, now: Io) -> IoGrowth {
    let grown = |before, now| grown(before, now).unwrap_or(0);
    IoGrowth {
        read_calls: grown(before.read_calls, now.read_calls),
        write_calls: grown(before.write_calls, now.write_calls),
        storage_read_bytes: grown(before.read_bytes, now.read_bytes),
        storage_written_bytes: grown(before.written_bytes, now.written_bytes),
    }
}

/// The inodes of the sockets of a process, or why they may not be known.
pub(super) fn inodes(root: &Root, process: &ProcessFacts) -> Seen<HashSet<u64>> {
    lacuna_host::socket::inodes_of(root, process.tgid).map_err(|error| denied(process, &error))
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
