// SPDX-License-Identifier: Apache-2.0
//! What the scheduler knows of one thread: its state, its time on a CPU and in a run queue.
//!
//! The counters count from the start of the thread; `counters::grown` compares two readings of them.
//! A thread may run, or end, between any two files.

use crate::counters::Faults;
use crate::counters::Switches;
use crate::process::ProcessError;
use crate::process::StartTime;
use crate::process::around_comm;
use crate::process::unclear;
use crate::root::Root;

/// `PF_KTHREAD` of `include/linux/sched.h`: in field 9 of `/proc/PID/stat`.
const FLAG_KERNEL_THREAD: u64 = 0x0020_0000;

/// The most frames of a kernel stack that are kept; the kernel gives at most as many.
pub const FRAMES_MAX: usize = 64;

/// `/proc/PID/task/TID/schedstat`. A kernel without `CONFIG_SCHED_INFO` has zeros there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SchedStat {
    /// Time on a CPU, nanoseconds. Of a thread that runs now it is as old as the last tick.
    pub on_cpu_ns: u64,
    /// Time runnable and not running, nanoseconds, throttled time included. A wait counts when it
    /// ends: of a thread that waits now, this one is not in it yet.
    pub run_delay_ns: u64,
    /// How often it was given a CPU.
    pub slices: u64,
}

impl SchedStat {
    /// Of one thread.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended.
    pub fn read(root: &Root, tgid: u32, tid: u32) -> Result<Self, ProcessError> {
        let text = root.read(format!("/proc/{tgid}/task/{tid}/schedstat"))?;
        Self::parse(&text).ok_or_else(unclear)
    }

    /// Three numbers on a line.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace();
        let mut next = || numbers.next()?.parse().ok();
        Some(Self {
            on_cpu_ns: next()?,
            run_delay_ns: next()?,
            slices: next()?,
        })
    }
}

/// `/proc/PID/task/TID/stat`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ThreadStat {
    /// Its name, at most 15 bytes (those of kernel threads may be longer).
    pub comm: Box<str>,
    /// The letter of its state: `R` running or runnable, `S` asleep, `D` asleep and not to be
    /// disturbed, `T` stopped, `t` traced, `Z` ended and not yet waited for, `X` ended, `I` idle.
    pub state: char,
    /// With its id, its identity.
    pub start: StartTime,
    /// It is the kernel's own.
    pub is_kernel: bool,
    /// How many threads its process has.
    pub threads: u64,
    /// Its page faults.
    pub faults: Faults,
}

impl ThreadStat {
    /// Of one thread.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] if it ended.
    pub fn read(root: &Root, tgid: u32, tid: u32) -> Result<Self, ProcessError> {
        let text = root.read(format!("/proc/{tgid}/task/{tid}/stat"))?;
        Self::parse(&text).ok_or_else(unclear)
    }

    /// Of the first thread of a process: all of them have ended, and only the parent has not taken it
    /// away yet. A first thread that ends before the others is shown as `Z`, too.
    pub fn is_ended_process(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }

    /// `TID (COMM) STATE ...`: fields 3, 9, 10, 12, 20 and 22.
    pub fn parse(text: &str) -> Option<Self> {
        let (comm, rest) = around_comm(text)?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let flags: u64 = fields.nth(5)?.parse().ok()?;
        let threads = fields.nth(10)?.parse().ok()?;
        Some(Self {
            comm: comm.into(),
            state,
            threads,
            start: StartTime::from_ticks(fields.nth(1)?.parse().ok()?),
            is_kernel: flags & FLAG_KERNEL_THREAD != 0,
            faults: Faults::parse(text)?,
        })
    }
}

/// Of `/proc/PID/task/TID/status`: what of it changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadStatus {
    /// The letter of its state, as in [`ThreadStat::state`].
    pub state: char,
    /// How often it left its CPU.
    pub switches: Switches,
}

impl ThreadStatus {
    /// The lines `State:` and `(non)voluntary_ctxt_switches:`. A name cannot make such a line: the kernel
    /// escapes what would end its own.
    pub fn parse(text: &str) -> Option<Self> {
        let state = text.lines().find_map(|line| line.strip_prefix("State:"))?;
        Some(Self {
            state: state.trim_start().chars().next()?,
            switches: Switches::parse(text)?,
        })
    }
}

/// Where a thread sleeps in the kernel: the functions of its stack, innermost first. Empty where it may
/// not be read (that takes root), or the thread runs.
pub fn kernel_stack(root: &Root, tgid: u32, tid: u32) -> Vec<Box<str>> {
    let text = root.read(format!("/proc/{tgid}/task/{tid}/stack"));
    parse_stack(&text.unwrap_or_default())
}

/// `[<0>] FUNCTION+0x1b1/0x2c0 [MODULE]`, a frame a line.
fn parse_stack(text: &str) -> Vec<Box<str>> {
    let function = |line: &str| -> Option<Box<str>> {
        let (_, frame) = line.split_once("] ")?;
        let (name, _) = frame.split_once('+')?;
        Some(name.into())
    };
    text.lines().filter_map(function).take(FRAMES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::SchedStat;
    use super::ThreadStat;
    use super::ThreadStatus;
    use super::kernel_stack;
    use super::parse_stack;
    use crate::mutate::mutations;
    use crate::process::ProcessError;
    use crate::process::StartTime;
    use crate::root::Root;

    /// Of 5.10; the name is `a) R 1 (b`, a newline and `c`.
    const STAT: &str = "4711 (a) R 1 (b\nc) D 1 4711 4711 0 -1 4194560 1290 0 17 0 7 3 0 0 20 0 \
         9 0 2443418 16961536 3342 18446744073709551615 1 1 0 0 0 0 0 16781312 2 1 0 0 17 0 0 0\n";

    #[test]
    fn a_name_of_brackets_blanks_and_newlines_shifts_nothing() {
        let stat = ThreadStat::parse(STAT).unwrap();
        assert_eq!(&*stat.comm, "a) R 1 (b\nc");
        assert_eq!((stat.state, stat.is_kernel, stat.threads), ('D', false, 9));
        assert_eq!((stat.faults.minor, stat.faults.major), (1290, 17));
        assert_eq!(stat.start, StartTime::from_ticks(2_443_418));
    }

    #[test]
    fn an_ended_process_is_told_from_one_whose_first_thread_ended() {
        let of = |state: &str, threads: &str| {
            let text = STAT.replace(") D 1", &format!(") {state} 1"));
            let text = text.replace(" 20 0 9 0 ", &format!(" 20 0 {threads} 0 "));
            ThreadStat::parse(&text).unwrap().is_ended_process()
        };
        assert!(of("Z", "1") && of("X", "0"));
        assert!(!of("Z", "2") && !of("S", "1"));
    }

    #[test]
    fn a_kernel_thread_is_told_by_its_flag() {
        let text = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 56 0 0 20 0 1 0 1 0 0 0\n";
        let stat = ThreadStat::parse(text).unwrap();
        assert!(stat.is_kernel && &*stat.comm == "kthreadd");
    }

    #[test]
    fn a_broken_schedstat_is_none() {
        let stat = SchedStat::parse("38559469 3208825 60\n").unwrap();
        let fields = (stat.on_cpu_ns, stat.run_delay_ns, stat.slices);
        assert_eq!(fields, (38_559_469, 3_208_825, 60));
        for text in ["", "1 2", "1 2 x", "-1 2 3"] {
            assert_eq!(SchedStat::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_missing_or_has_ended_is_an_answer() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::at(base.path());
        let gone = SchedStat::read(&root, 7, 8);
        assert!(matches!(gone, Err(ProcessError::Gone)));
        let directory = base.path().join("proc/7/task/8");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("schedstat"), "1 2 3").unwrap();
        std::fs::write(directory.join("stat"), "nonsense").unwrap();
        assert_eq!(SchedStat::read(&root, 7, 8).unwrap().slices, 3);
        let unclear = ThreadStat::read(&root, 7, 8);
        assert!(matches!(unclear, Err(ProcessError::Unreadable(_))));
    }

    /// Of 5.10, shortened.
    const STATUS: &str = "Name:\tState:\\tR\nUmask:\t0022\nState:\tD (disk sleep)\nTgid:\t7\n\
        voluntary_ctxt_switches:\t41\nnonvoluntary_ctxt_switches:\t5\n";

    #[test]
    fn a_status_tells_the_state_and_the_switches() {
        let status = ThreadStatus::parse(STATUS).unwrap();
        assert_eq!(status.state, 'D');
        assert_eq!(
            (status.switches.voluntary, status.switches.involuntary),
            (41, 5)
        );
        let broken = ["", "State:\n", "State:\tS (sleeping)\n"];
        assert!(
            broken
                .iter()
                .all(|text| ThreadStatus::parse(text).is_none())
        );
    }

    #[test]
    fn the_functions_of_a_stack_are_read_without_their_places() {
        let text = "[<0>] __x64_sys_poll+0xb1/0x150\n[<0>] nfs_wait+0x1/0x2 [nfs]\n\
            [<0>] 0xffffffff\nnonsense\n[<ffffffff810>] do_syscall_64+0x71/0x280\n";
        let functions = parse_stack(text);
        let functions: Vec<&str> = functions.iter().map(|name| &**name).collect();
        assert_eq!(functions, ["__x64_sys_poll", "nfs_wait", "do_syscall_64"]);
        assert!(kernel_stack(&Root::at("/nowhere"), 1, 1).is_empty());
    }

    #[test]
    fn this_very_thread_runs() {
        let tid = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        let (root, tgid) = (Root::host(), std::process::id());
        let before = SchedStat::read(&root, tgid, tid).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(SchedStat::read(&root, tgid, tid).unwrap().slices > before.slices);
        assert_eq!(ThreadStat::read(&root, tgid, tid).unwrap().state, 'R');
    }

    #[test]
    fn no_text_makes_the_parsers_fail() {
        let known = mutations(STAT).filter_map(|text| ThreadStat::parse(&text));
        assert!(known.count() > 100, "some are still good");
        let known = mutations("38559469 3208825 60\n").filter_map(|text| SchedStat::parse(&text));
        assert!(known.count() > 100);
        let known = mutations(STATUS).filter_map(|text| ThreadStatus::parse(&text));
        assert!(known.count() > 100);
        for text in mutations("[<0>] proc_pid_stack+0xb1/0x150\n[<0>] a+0x1/0x2 [b]\n") {
            let functions = parse_stack(&text);
            assert!(functions.iter().all(|name| text.contains(&**name)));
        }
    }
}
