// SPDX-License-Identifier: Apache-2.0
//! Facts about the kernel that runs: version, BTF, lockdown, accounting, limits.
//!
//! All through files below a [`Root`], so that tests can present kernels that they do not run on.
//! A fact that cannot be read is `None`, never a guess. Here are also the system calls that nobody
//! offers without `unsafe`, each behind a function that is safe.
#![allow(unsafe_code)]

use crate::root::Root;
use rustix::thread::UnshareFlags;
use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

/// A kernel's version; compares by age.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KernelVersion {
    /// 6 of `6.18.44-1-amd64`.
    pub major: u32,
    /// 18.
    pub minor: u32,
    /// 44; 0 if it is not told.
    pub patch: u32,
    /// All of it.
    pub release: Box<str>,
}

impl KernelVersion {
    /// From `/proc/sys/kernel/osrelease`.
    pub fn read(root: &Root) -> Option<Self> {
        Self::parse(root.read("/proc/sys/kernel/osrelease").ok()?.trim())
    }

    /// `MAJOR.MINOR[.PATCH][-ANYTHING]`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
        let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let patch = numbers
            .next()
            .and_then(|patch| patch.parse().ok())
            .unwrap_or(0);
        Some(Self {
            major,
            minor,
            patch,
            release: release.into(),
        })
    }

    /// Whether it is that version or a later one.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.release)
    }
}

/// How far the kernel is locked down against its own root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// The running kernel may not be changed.
    Integrity,
    /// Nor may its memory be read: BPF programs may not read kernel memory.
    Confidentiality,
}

impl Lockdown {
    /// From `/sys/kernel/security/lockdown`; `None` where that is not mounted or not built in.
    pub fn read(root: &Root) -> Option<Self> {
        Self::parse(&root.read("/sys/kernel/security/lockdown").ok()?)
    }

    /// `none [integrity] confidentiality`: the one in brackets holds.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once('[')?;
        match rest.split_once(']')?.0 {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }

    /// The kernel's own word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

/// Whether the kernel describes its own types, which the probes need to find their fields.
pub fn has_btf(root: &Root) -> bool {
    root.exists("/sys/kernel/btf/vmlinux")
}

/// Whether this machine is emulated in software (QEMU without hardware's help): its clocks are right,
/// and its CPUs are slow and stop now and then.
pub fn is_emulated(root: &Root) -> bool {
    root.read("/proc/cpuinfo")
        .is_ok_and(|text| text.contains("QEMU TCG CPU"))
}

/// The id of this boot; recordings of two boots never mix.
pub fn boot_id(root: &Root) -> Option<Box<str>> {
    Some(
        root.read("/proc/sys/kernel/random/boot_id")
            .ok()?
            .trim()
            .into(),
    )
}

/// `kernel.task_delayacct`: whether per-thread delays are counted; `None` where not built in.
pub fn delay_accounting(root: &Root) -> Option<bool> {
    Some(root.read("/proc/sys/kernel/task_delayacct").ok()?.trim() != "0")
}

/// Whether pressure stall information can be read (it may be built in and off).
pub fn has_psi(root: &Root) -> bool {
    root.read("/proc/pressure/cpu").is_ok()
}

/// What the kernel's clocks are computed from: `tsc`, `kvm-clock`, `hpet`, ...
pub fn clock_source(root: &Root) -> Option<Box<str>> {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    Some(root.read(path).ok()?.trim().into())
}

/// How much memory this process may lock, bytes; BPF memory counts to it before 5.11.
pub fn memlock_bytes_max(root: &Root) -> Option<Memlock> {
    Memlock::parse(&root.read("/proc/self/limits").ok()?)
}

/// A limit on locked memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memlock {
    /// None.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
}

impl Memlock {
    /// The soft limit in the text of `/proc/PID/limits`.
    pub fn parse(limits: &str) -> Option<Self> {
        let values = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max locked memory"))?;
        match values.split_ascii_whitespace().next()? {
            "unlimited" => Some(Self::Unlimited),
            bytes => bytes.parse().ok().map(Self::Bytes),
        }
    }
}

/// Whether this process is in the initial pid namespace, whose numbers the kernel side uses.
pub fn in_initial_pid_namespace(root: &Root) -> Option<bool> {
    /// `PROC_PID_INIT_INO` of `linux/proc_ns.h`: fixed since 3.8.
    const INITIAL: &str = "pid:[4026531836]";
    let link = std::fs::read_link(root.path("/proc/self/ns/pid")).ok()?;
    Some(link.as_os_str() == INITIAL)
}

/// Whether `/proc` is mounted so that it hides other users' processes (`hidepid`).
pub fn hides_processes(root: &Root) -> bool {
    let mounts = root.read("/proc/self/mountinfo").unwrap_or_default();
    let hides = |option: &str| {
        option
            .strip_prefix("hidepid=")
            .is_some_and(|level| !matches!(level, "0" | "off"))
    };
    mounts.lines().any(|line| {
        let Some((_, kind)) = line.split_once(" - proc ") else {
            return false;
        };
        kind.split([' ', ',']).any(hides) && line.split(' ').nth(4) == Some("/proc")
    })
}

/// Whether a scheduler loaded as BPF (`sched_ext`) runs instead of the kernel's own; `None` where
/// the kernel has no such thing.
pub fn sched_ext_is_on(root: &Root) -> Option<bool> {
    Some(root.read("/sys/kernel/sched_ext/state").ok()?.trim() != "disabled")
}

/// `kernel.sched_rt_runtime_us`: of each second, how many microseconds real-time threads may run;
/// -1: no limit.
pub fn rt_runtime_us(root: &Root) -> Option<i64> {
    root.read("/proc/sys/kernel/sched_rt_runtime_us")
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// `kernel.perf_event_paranoid`: from 2 on (3 in some distributions) only those with CAP_PERFMON may
/// count in the kernel.
pub fn perf_event_paranoid(root: &Root) -> Option<i64> {
    root.read("/proc/sys/kernel/perf_event_paranoid")
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// What the kernel counted for a process that has ended and for all of its descendants that were waited
/// for by their parents: the `rusage` of wait4(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Context switches because a thread waited for something.
    pub voluntary_switches: u64,
    /// Context switches of a thread that could have run on.
    pub involuntary_switches: u64,
    /// Page faults served without waiting for storage.
    pub minor_faults: u64,
    /// Page faults that waited for storage.
    pub major_faults: u64,
}

/// Waits for the end of a child, and says what it used. The child stays to be waited for, so that
/// whoever owns its handle still learns how it ended, and `/proc` still tells of it until then.
///
/// The wait4(2) of C libraries would take the child away; the system call waitid(2) fills in a `rusage`
/// as its fifth argument too (waitid(2), "C library/kernel differences"), also with `WNOWAIT`.
///
/// # Errors
/// `pid` is no child of this process, or was waited for already.
pub fn usage_of_ended(pid: u32) -> io::Result<Usage> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to memory of ours of the type that the call writes to, and nobody
        // else uses it meanwhile.
        let done = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PID,
                pid,
                info.as_mut_ptr(),
                libc::WEXITED | libc::WNOWAIT,
                usage.as_mut_ptr(),
            )
        };
        if done == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: it is plain numbers, was zeroed, and the kernel has filled it in.
    let usage = unsafe { usage.assume_init() };
    let count = |number: libc::c_long| u64::try_from(number).unwrap_or(0);
    Ok(Usage {
        voluntary_switches: count(usage.ru_nvcsw),
        involuntary_switches: count(usage.ru_nivcsw),
        minor_faults: count(usage.ru_minflt),
        major_faults: count(usage.ru_majflt),
    })
}

/// glibc's own mutex, of its plain kind: the lock whose owner is in its memory, where the kernel side
/// reads it. Those of `std` are futexes without an owner.
#[derive(Debug)]
pub struct PthreadMutex(Box<UnsafeCell<libc::pthread_mutex_t>>);

// SAFETY: a mutex is there to be used by several threads at once, and the only use of the cell here is to
// hand its address to glibc; it does not move, being boxed.
unsafe impl Sync for PthreadMutex {}
// SAFETY: which thread drops it does not matter: nobody can hold it then, for that borrows it.
unsafe impl Send for PthreadMutex {}

impl Default for PthreadMutex {
    fn default() -> Self {
        Self(Box::new(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER)))
    }
}

impl PthreadMutex {
    /// Waits for the lock, does `body` with it, and gives it back, also where `body` panics. A thread
    /// that wants it within `body` waits for ever.
    pub fn hold<T>(&self, body: impl FnOnce() -> T) -> T {
        struct Held<'a>(&'a PthreadMutex);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                // SAFETY: it was initialised, and this thread holds it: `Held` is made only below.
                unsafe { libc::pthread_mutex_unlock(self.0.0.get()) };
            }
        }
        // SAFETY: it was initialised statically and is at this address for as long as it lives. Locking
        // a plain mutex cannot fail.
        unsafe { libc::pthread_mutex_lock(self.0.get()) };
        let _held = Held(self);
        body()
    }
}

/// Gives the calling thread a network namespace of its own, with nothing in it; what it has open stays
/// as it is. The namespace goes with the last that is in it, or has something of it open.
///
/// # Errors
/// It may not, or the kernel has none.
pub fn enter_new_network() -> io::Result<()> {
    // SAFETY: the one flag that is unsafe to give is `FILES`, and it is not given.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Makes a `tun` device of that name in the calling thread's network namespace: a packet that is routed to
/// it is read here, without any header before it, and one that is written here comes in there. It
/// does not block, and goes when it is closed.
///
/// # Errors
/// It may not, the name is too long or taken, or the kernel has no such devices.
pub fn open_tun(name: &str) -> io::Result<OwnedFd> {
    /// `struct ifreq` of `linux/if.h`, of which `TUNSETIFF` reads a name and flags.
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        flags: libc::c_short,
        unused: [u8; 22],
    }
    /// `_IOW('T', 202, int)` of `linux/if_tun.h`.
    const TUNSETIFF: u64 = 0x4004_54ca;
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
        unused: [0; 22],
    };
    // The last byte stays zero: that ends the name.
    let place = request.name[..libc::IFNAMSIZ - 1].get_mut(..name.len());
    place
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(name.as_bytes());
    let tun = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: the descriptor is open, and the request is memory of ours, as large as the kernel reads
    // and writes for this command.
    let done = unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF as _, &raw mut request) };
    match done {
        0 => Ok(tun.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The processor's time stamp counter: ticks of a clock of its own, whose rate nobody tells (Intel SDM
/// volume 3, "Time-Stamp Counter").
#[cfg(target_arch = "x86_64")]
pub fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and it only reads a counter; a process that may
    // not read it (prctl PR_SET_TSC) gets a signal and no wrong value.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::KernelVersion;
    use super::Lockdown;
    use super::Memlock;
    use super::PthreadMutex;
    use super::hides_processes;
    use super::in_initial_pid_namespace;
    use super::usage_of_ended;
    use crate::mutate::mutations;
    use crate::root::Root;

    #[test]
    fn versions_compare_by_number_and_keep_their_release() {
        let old = KernelVersion::parse("4.19.0-27-amd64").unwrap();
        let new = KernelVersion::parse("6.18.44-fc-v657").unwrap();
        assert!(old < new && new.at_least(6, 18) && !new.at_least(6, 19) && !old.at_least(5, 10));
        assert_eq!((new.major, new.minor, new.patch), (6, 18, 44));
        assert_eq!(new.to_string(), "6.18.44-fc-v657");
        assert_eq!(
            KernelVersion::parse("7.2-rc1").unwrap().patch,
            0,
            "rc is no patch level"
        );
    }

    #[test]
    fn what_is_no_version_is_none() {
        for text in ["", "6", "six.one", "6.", ".1", "99999999999.1"] {
            assert_eq!(KernelVersion::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_lockdown_in_brackets_holds() {
        assert_eq!(
            Lockdown::parse("[none] integrity confidentiality\n"),
            Some(Lockdown::None)
        );
        assert_eq!(
            Lockdown::parse("none [integrity] confidentiality"),
            Some(Lockdown::Integrity)
        );
        let strictest = Lockdown::parse("none integrity [confidentiality]").unwrap();
        assert!(strictest > Lockdown::Integrity);
        for text in ["", "none", "[", "[none", "[unheard-of]"] {
            assert_eq!(Lockdown::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_soft_limit_of_locked_memory_is_read() {
        let header = "Limit                     Soft Limit           Hard Limit           Units\n";
        let bytes =
            format!("{header}Max locked memory         8388608              unlimited bytes\n");
        assert_eq!(Memlock::parse(&bytes), Some(Memlock::Bytes(8_388_608)));
        let unlimited = bytes.replace("8388608", "unlimited");
        assert_eq!(Memlock::parse(&unlimited), Some(Memlock::Unlimited));
        for text in ["", header, "Max locked memory", "Max locked memory  many"] {
            assert_eq!(Memlock::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_proc_that_hides_processes_is_noticed() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::at(base.path());
        std::fs::create_dir_all(base.path().join("proc/self")).unwrap();
        let hides = |options: &str| {
            let mounts = format!("20 1 0:5 / /proc rw - proc proc {options}\n");
            std::fs::write(base.path().join("proc/self/mountinfo"), mounts).unwrap();
            hides_processes(&root)
        };
        assert!(hides("rw,hidepid=2") && hides("rw,hidepid=invisible"));
        assert!(!hides("rw") && !hides("rw,hidepid=0") && !hides("rw,hidepid=off"));
    }

    #[test]
    fn a_nested_pid_namespace_is_noticed() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::at(base.path());
        assert_eq!(in_initial_pid_namespace(&root), None);
        let directory = base.path().join("proc/self/ns");
        std::fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink("pid:[4026532000]", directory.join("pid")).unwrap();
        assert_eq!(in_initial_pid_namespace(&root), Some(false));
    }

    #[test]
    fn no_text_makes_the_parsers_fail() {
        for text in mutations("6.18.44-1-amd64") {
            let version = KernelVersion::parse(&text);
            assert!(version.is_none_or(|version| *version.release == *text));
        }
        let limits = "Max locked memory         8388608              unlimited bytes\n";
        let known = mutations(limits).filter_map(|text| Memlock::parse(&text));
        assert!(known.count() > 100, "some are still good");
        let lockdown = mutations("none [integrity] confidentiality");
        assert!(lockdown.filter_map(|text| Lockdown::parse(&text)).count() > 100);
    }

    #[test]
    fn a_child_is_counted_and_can_still_be_waited_for() {
        // What it waits for makes it switch, and its own child is counted with it.
        let script = "for i in 1 2 3; do /bin/sleep 0.01; done; exit 7";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .spawn()
            .unwrap();
        let usage = usage_of_ended(child.id()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
        assert!(usage.voluntary_switches >= 6, "{usage:?}");
        assert!(usage.minor_faults > 100, "{usage:?}");
        assert!(usage_of_ended(child.id()).is_err(), "nobody is left");
    }

    #[test]
    fn a_mutex_lets_one_in_at_a_time_and_survives_a_panic() {
        let mutex = PthreadMutex::default();
        let count = std::sync::atomic::AtomicU32::new(0);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        // Not one step, so that it is lost where two are at it at once.
                        mutex.hold(|| count.store(count.load(relaxed) + 1, relaxed));
                    }
                });
            }
            scope.spawn(|| {
                let panics = || mutex.hold(|| panic!("on purpose"));
                assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
            });
        });
        assert_eq!(count.into_inner(), 40_000);
    }
}
