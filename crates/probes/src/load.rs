// SPDX-License-Identifier: Apache-2.0
//! Opens, configures, loads and attaches the programs, and owns them until it is dropped.
//!
//! Everything that is loaded hangs on file descriptors of this process: nothing is pinned, so all of
//! it ends with a drop and with any kind of death.

use crate::arch;
use crate::config::Config;
use crate::config::OTLP_PORTS_MAX;
use crate::config::RING_BYTES_MAX;
use crate::config::RING_BYTES_MIN;
use crate::config::Watch;
use crate::error::Error;
use crate::features::Features;
use crate::features::Symbols;
use crate::log;
use crate::skel::LacunaSkel;
use crate::skel::LacunaSkelBuilder;
use crate::skel::OpenLacunaSkel;
use crate::skel::types::probe_control;
use libbpf_rs::ErrorKind;
use libbpf_rs::Link;
use libbpf_rs::OpenObject;
use libbpf_rs::OpenProgramMut;
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::skel::Skel;
use libbpf_rs::skel::SkelBuilder;
use rustix::time::ClockId;
use rustix::time::clock_getres;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// The reader is woken when a quarter of the ring is filled.
const WATERMARK_PART: u64 = 4;
/// Programs for one shape of a tracepoint that has two.
const SWITCH: &str = "sched_switch";
const SWITCH_STATELESS: &str = "sched_switch_stateless";
/// Programs of the group `net`; what else belongs to it is in programs that are always there, and is
/// left out of them by the verifier.
const NET: [&str; 4] = [
    "tcp_probe",
    "tcp_rcv_space_adjust",
    "tcp_retransmit_skb",
    DROPS,
];
const DROPS: &str = "kfree_skb";

/// The loaded object and its attachments; the order of the fields is the order of dropping.
pub(crate) struct Loaded {
    pub(crate) links: Vec<Link>,
    pub(crate) iterator: Link,
    pub(crate) skel: LacunaSkel<'static>,
    /// What `skel` borrows; never touched otherwise.
    _storage: Storage,
}

/// Memory for the object at an address that does not move.
pub(crate) struct Storage(*mut MaybeUninit<OpenObject>);

// SAFETY: owned memory, reached only through the skeleton, which is Send itself.
unsafe impl Send for Storage {}

impl Storage {
    fn new() -> Storage {
        Storage(Box::into_raw(Box::new(MaybeUninit::uninit())))
    }

    /// # Safety
    ///
    /// What comes of it must be dropped before this value is, and it may be called once only.
    unsafe fn borrow(&mut self) -> &'static mut MaybeUninit<OpenObject> {
        // SAFETY: the pointer comes from a box and is freed in drop alone.
        unsafe { &mut *self.0 }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw`, and the borrower is gone.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// The object, opened and not yet loaded.
pub(crate) struct Opened {
    pub(crate) skel: OpenLacunaSkel<'static>,
    pub(crate) storage: Storage,
}

impl Opened {
    pub(crate) fn new() -> Result<Opened, Error> {
        let mut storage = Storage::new();
        // SAFETY: called once for this storage; here and wherever this value is taken apart, the
        // storage is dropped after the skeleton.
        let place = unsafe { storage.borrow() };
        let skel = LacunaSkelBuilder::default()
            .open(place)
            .map_err(refused("opening the BPF object"))?;
        Ok(Opened { skel, storage })
    }

    /// Only one of the two maps for what is kept of a thread is made; code for the other is never
    /// verified, because it lies behind the same feature.
    pub(crate) fn select_maps(&mut self, features: &Features) -> Result<(), Error> {
        let stored = features.has_task_storage();
        let maps = &mut self.skel.maps;
        maps.threads
            .set_autocreate(stored)
            .and_then(|()| maps.thread_table.set_autocreate(!stored))
            .map_err(refused("choosing where threads are kept"))
    }
}

/// Loads and attaches every program that this kernel has the tracepoint for.
pub(crate) fn load(config: &Config) -> Result<Loaded, Error> {
    let Opened {
        skel: open,
        storage,
    } = prepare(config)?;
    let mut skel = open.load().map_err(refused("loading the BPF programs"))?;
    apply(&mut skel, config.watch, config.merge_short)?;
    set_ports(&mut skel, &config.otlp_ports)?;
    let (links, iterator) = attach(&mut skel)?;
    Ok(Loaded {
        links,
        iterator,
        skel,
        _storage: storage,
    })
}

/// Opens the object and makes it right for this kernel, down to the last step before loading.
pub(crate) fn prepare(config: &Config) -> Result<Opened, Error> {
    let features = Features::read()?;
    let mut opened = Opened::new()?;
    configure(&mut opened.skel, config, &features)?;
    opened.select_maps(&features)?;
    select(&mut opened.skel, &features, config.net);
    Ok(opened)
}

/// Sets what is fixed from now on.
fn configure(
    open: &mut OpenLacunaSkel<'_>,
    config: &Config,
    features: &Features,
) -> Result<(), Error> {
    let bytes = ring_bytes(config.ring_bytes);
    open.maps
        .ring
        .set_max_entries(bytes)
        .map_err(refused("sizing the ring"))?;
    if config.faults.threads_max > 0 {
        open.maps
            .thread_table
            .set_max_entries(config.faults.threads_max)
            .map_err(refused("sizing the table of threads"))?;
    }
    if !config.net {
        open.maps
            .connections
            .set_max_entries(1)
            .map_err(refused("sizing the table of connections"))?;
    }
    let rodata = open
        .maps
        .rodata_data
        .as_mut()
        .ok_or_else(|| Error::Config("the BPF object has no read-only data".to_owned()))?;
    rodata.drop_class = features.drop_classes();
    rodata.config.net = config.net.into();
    for (number, slot) in (0..).zip(rodata.call_class.iter_mut()) {
        *slot = arch::class(number).0 as u8;
    }
    let symbols = Symbols::read();
    let offsets = features.per_cpu_offsets(&symbols);
    let fixed = &mut rodata.config;
    fixed.key = random_key()?;
    // The resolution of the coarse clocks is the length of a tick (`KTIME_LOW_RES`).
    let tick = clock_getres(ClockId::MonotonicCoarse);
    fixed.tick_ns = tick.tv_sec as u64 * 1_000_000_000 + tick.tv_nsec as u64;
    fixed.watermark_bytes = u64::from(bytes) / WATERMARK_PART;
    fixed.runqueues_offset = offsets.runqueues;
    fixed.preempt_offset = offsets.preempt_count;
    fixed.current_offset = offsets.current_task;
    fixed.restart_poll = symbols.poll;
    fixed.restart_futex = symbols.futex;
    fixed.restart_sleep = symbols.sleep;
    fixed.ignore_tgid = config.ignore_tgid.unwrap_or(0);
    fixed.drop_every = config.faults.drop_every;
    fixed.skip_wakings_every = config.faults.skip_wakings_every;
    fixed.untraced_every = config.faults.untraced_switches_every;
    fixed.untraced_resent = config.faults.untraced_resent.into();
    fixed.untraced_acks = config.faults.untraced_acks.into();
    fixed.untraced_drops = config.faults.untraced_drops.into();
    let told = features.says_drop_reason() && !config.faults.untraced_drops;
    fixed.drops_unsaid = (!told).into();
    fixed.drop_exits = config.faults.drop_exits.into();
    fixed.order_is_second = features.order_is_second().into();
    fixed.call_poll = arch::CALL_POLL;
    fixed.call_futex = arch::CALL_FUTEX;
    fixed.call_sleep = arch::CALL_SLEEP;
    Ok(())
}

/// The nearest size that the kernel takes: a power of two, and at least a page.
pub(crate) fn ring_bytes(wanted: u32) -> u32 {
    wanted
        .clamp(RING_BYTES_MIN, RING_BYTES_MAX)
        .next_power_of_two()
}

fn random_key() -> Result<u64, Error> {
    let mut key = [0; 8];
    rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty()).map_err(|errno| {
        Error::Io {
            what: "making a random key",
            source: errno.into(),
        }
    })?;
    Ok(u64::from_ne_bytes(key))
}

/// Leaves out programs whose tracepoint this kernel has not, or has in another shape, and those of a group
/// that is not asked for.
fn select(open: &mut OpenLacunaSkel<'_>, features: &Features, net: bool) {
    let says_state = features.switch_says_state();
    for mut program in open.open_object_mut().progs_mut() {
        let in_group = net || !NET.contains(&&*program.name().to_string_lossy());
        let wanted = in_group && is_wanted(&program, features, says_state);
        program.set_autoload(wanted);
    }
}

fn is_wanted(program: &OpenProgramMut<'_>, features: &Features, says_state: bool) -> bool {
    let section = program.section().to_string_lossy();
    let Some(tracepoint) = section.strip_prefix("tp_btf/") else {
        return true;
    };
    match &*program.name().to_string_lossy() {
        SWITCH => says_state,
        SWITCH_STATELESS => !says_state,
        DROPS => features.says_drop_reason(),
        _ => features.has_tracepoint(tracepoint),
    }
}

/// Attaches everything, the switch last: a thread's records are complete from its first switch on
/// only if the other programs are there by then. The iterator is attached to nothing yet.
fn attach(skel: &mut LacunaSkel<'static>) -> Result<(Vec<Link>, Link), Error> {
    let mut links = Vec::new();
    let mut switch = None;
    let mut iterator = None;
    for program in skel.object_mut().progs_mut() {
        if !program.autoload() {
            continue;
        }
        let name = program.name().to_string_lossy().into_owned();
        if name == SWITCH || name == SWITCH_STATELESS {
            switch = Some(program);
            continue;
        }
        let link = program
            .attach()
            .map_err(refused(format!("attaching {name}")))?;
        match program.section().to_string_lossy().starts_with("iter/") {
            true => iterator = Some(link),
            false => links.push(link),
        }
    }
    let missing = |what: &str| Error::Config(format!("the BPF object has no {what} program"));
    let switch = switch.ok_or_else(|| missing("switch"))?;
    links.push(switch.attach().map_err(refused("attaching sched_switch"))?);
    Ok((links, iterator.ok_or_else(|| missing("iterator"))?))
}

/// Sets whose switches are recorded and whether short ones are merged.
pub(crate) fn apply(
    skel: &mut LacunaSkel<'static>,
    watch: Watch,
    merge_short: bool,
) -> Result<(), Error> {
    let control = control(skel)?;
    control.watch_all = (watch == Watch::All).into();
    control.merge_short = merge_short.into();
    reconsider(skel)
}

/// Makes every thread look anew at its next switch whether it is watched. The programs count this
/// up too, when a process connects to a port of ours.
pub(crate) fn reconsider(skel: &mut LacunaSkel<'static>) -> Result<(), Error> {
    let generation: *mut u32 = &mut control(skel)?.watch_generation;
    // SAFETY: aligned shared memory that lives as long as the skeleton; the kernel side changes it
    // by atomic operations, as is done here.
    let generation = unsafe { AtomicU32::from_ptr(generation) };
    generation.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Sets the ports that make a connecting process watched.
pub(crate) fn set_ports(skel: &mut LacunaSkel<'static>, ports: &[u16]) -> Result<(), Error> {
    if ports.len() > OTLP_PORTS_MAX {
        return Err(Error::Config(format!(
            "{} ports given, at most {OTLP_PORTS_MAX} can be recognised",
            ports.len()
        )));
    }
    let control = control(skel)?;
    control.ports = [0; OTLP_PORTS_MAX];
    for (slot, &port) in control.ports.iter_mut().zip(ports) {
        *slot = port.into();
    }
    Ok(())
}

/// The shared memory that the programs read while they run. Each field is an aligned word that is
/// written whole, which is all that they ask for.
pub(crate) fn control<'skel>(
    skel: &'skel mut LacunaSkel<'static>,
) -> Result<&'skel mut probe_control, Error> {
    skel.maps
        .bss_data
        .as_mut()
        .map(|bss| &mut bss.control)
        .ok_or_else(|| Error::Config("the BPF object has no shared data".to_owned()))
}

/// Says what was being done, and tells a missing right apart from a refusal.
pub(crate) fn refused(what: impl Into<String>) -> impl FnOnce(libbpf_rs::Error) -> Error {
    let what = what.into();
    move |error| match error.kind() {
        ErrorKind::PermissionDenied if !rustix::process::geteuid().is_root() => {
            Error::NotPermitted { what }
        }
        _ => Error::Refused {
            what,
            why: format!("{error:#}\n{}", log::tail()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::RING_BYTES_MAX;
    use super::RING_BYTES_MIN;
    use super::ring_bytes;

    #[test]
    fn the_ring_has_a_size_that_the_kernel_takes() {
        assert_eq!(ring_bytes(0), RING_BYTES_MIN);
        assert_eq!(ring_bytes(1 << 20), 1 << 20);
        assert_eq!(ring_bytes((1 << 20) + 1), 2 << 20);
        assert_eq!(ring_bytes(u32::MAX), RING_BYTES_MAX);
    }
}
