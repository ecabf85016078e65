// SPDX-License-Identifier: Apache-2.0
//! What the kernel counts about the programs: what they lost, what was skipped, what they cost.

use crate::config::Counters;
use crate::config::ProgramCost;
use crate::config::RunStats;
use crate::error::Error;
use crate::record::read_cpu;
use crate::skel::LacunaSkel;
use crate::skel::types::cpu_state;
use lacuna_timeline::event::Ns;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::libbpf_sys;
use libbpf_rs::skel::Skel;
use std::io;
use std::mem::size_of;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::Duration;

/// Both shapes of the program on `sched_switch` start like this.
const SWITCH: &str = "sched_switch";

/// What the kernel knows about one loaded program.
struct ProgramInfo {
    name: String,
    runs: u64,
    ns: u64,
    skipped: u64,
}

/// `CLOCK_MONOTONIC`, the clock of every record.
pub(crate) fn now() -> Ns {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    let total = seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0));
    u64::try_from(total.as_nanos()).unwrap_or(Ns::MAX)
}

/// Adds what the kernel side has counted to what the reader has.
pub(crate) fn read(skel: &LacunaSkel<'static>, counters: &mut Counters) -> Result<(), Error> {
    counters.at = now();
    for cpu in read_cpus(skel)? {
        counters.ring_drops += cpu.ring_drops;
        counters.storage_failures += cpu.storage_failures;
        counters.programs_skipped += cpu.wakings_skipped;
        counters.detours_lost += cpu.detours_lost;
        counters.connections_lost += cpu.connections_lost;
    }
    for program in programs(skel)? {
        if program.skipped == 0 {
            continue;
        }
        if program.name.starts_with(SWITCH) {
            counters.switches_skipped += program.skipped;
        } else {
            counters.programs_skipped += program.skipped;
        }
        counters
            .skipped_by_program
            .push((program.name, program.skipped));
    }
    Ok(())
}

fn read_cpus(skel: &LacunaSkel<'static>) -> Result<Vec<cpu_state>, Error> {
    let values = skel
        .maps
        .cpus
        .lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)
        .map_err(|error| Error::Refused {
            what: "reading the counters".to_owned(),
            why: format!("{error:#}"),
        })?;
    let values = values.unwrap_or_default();
    Ok(values.iter().filter_map(|bytes| read_cpu(bytes)).collect())
}

fn programs(skel: &LacunaSkel<'static>) -> Result<Vec<ProgramInfo>, Error> {
    skel.object()
        .progs()
        .filter(|program| program.autoload())
        .map(|program| {
            let name = program.name().to_string_lossy().into_owned();
            info(name, program.as_fd())
        })
        .collect()
}

fn info(name: String, program: BorrowedFd<'_>) -> Result<ProgramInfo, Error> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    let fd = program.as_raw_fd();
    // SAFETY: both pointers are to live values, and the length is that of the first.
    let failed = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(fd, &mut info, &mut length) };
    if failed != 0 {
        return Err(Error::Io {
            what: "reading what a program cost",
            source: io::Error::from_raw_os_error(-failed),
        });
    }
    Ok(ProgramInfo {
        name,
        runs: info.run_cnt,
        ns: info.run_time_ns,
        skipped: info.recursion_misses,
    })
}

/// Measures for `window`. The kernel's statistics are on only while the descriptor is open; it is
/// closed before this returns, also by an error.
pub(crate) fn measure(skel: &LacunaSkel<'static>, window: Duration) -> Result<RunStats, Error> {
    // SAFETY: no pointer is passed; the result is a new descriptor or an error.
    let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    if fd < 0 {
        return Err(Error::Io {
            what: "switching the kernel's BPF statistics on",
            source: io::Error::from_raw_os_error(-fd),
        });
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let statistics = unsafe { OwnedFd::from_raw_fd(fd) };
    let (from, before) = (now(), programs(skel)?);
    sleep(window);
    let (to, after) = (now(), programs(skel)?);
    drop(statistics);
    let programs = before
        .into_iter()
        .zip(after)
        .map(|(before, after)| ProgramCost {
            name: after.name,
            runs: after.runs.saturating_sub(before.runs),
            ns: after.ns.saturating_sub(before.ns),
        });
    Ok(RunStats {
        window_ns: to - from,
        programs: programs.collect(),
    })
}
