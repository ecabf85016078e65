// SPDX-License-Identifier: Apache-2.0
//! How many instructions the verifier walks through for each program: what loading costs, and how far
//! a program is from the limit of a million.
//!
//! It is read from the verifier's own statistics, which every kernel since 5.2 gives, so that all
//! kernels are measured in one way. Nothing is attached.

use crate::config::Config;
use crate::config::ProgramSize;
use crate::error::Error;
use crate::load::Opened;
use crate::load::prepare;
use crate::load::refused;
use crate::log;
use libbpf_rs::skel::OpenSkel;

/// `BPF_LOG_STATS` of include/linux/bpf_verifier.h: one line of statistics, no trace.
const LOG_STATISTICS: u32 = 4;

/// Loads each program that this kernel has the hook for and says how much of it was verified.
///
/// # Errors
///
/// Which program, map or right is missing, with the words of the verifier.
pub fn verified_insns() -> Result<Vec<ProgramSize>, Error> {
    log::start_with_statistics();
    let Opened { mut skel, storage } = prepare(&Config::default())?;
    for mut program in skel.open_object_mut().progs_mut() {
        program.set_log_level(LOG_STATISTICS);
    }
    let loaded = skel.load().map_err(refused("loading the BPF programs"))?;
    drop(loaded);
    drop(storage);
    let size = |(name, verified_insns)| ProgramSize {
        name,
        verified_insns,
    };
    Ok(log::statistics().into_iter().map(size).collect())
}
