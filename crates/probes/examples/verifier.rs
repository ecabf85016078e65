// SPDX-License-Identifier: Apache-2.0
//! Loads the programs and prints how long the verifier looked at each: `NAME COUNT UNIT` a line.
//!
//! The kernel tells this from 5.16 on (`verified`). On an older one it is the size of the program
//! after its translation (`translated`), which grows with it but counts each path only once. Prints
//! every BPF program of the machine that was loaded meanwhile: meant for a guest, which has no others.

use lacuna_probes::Config;
use lacuna_probes::Probes;
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::query::ProgInfoQueryOptions;
use std::error::Error;
use std::io::Write;
use std::io::stdout;

/// Size of an instruction.
const INSN_BYTES: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let before: Vec<u32> = ProgInfoIter::default().map(|program| program.id).collect();
    let symbolize = Box::new(|frames: &[u64]| vec!["?".into(); frames.len()]);
    let _probes = Probes::load(&Config::default(), symbolize)?;
    let options = ProgInfoQueryOptions::default().include_xlated_prog_insns(true);
    let mut out = stdout().lock();
    for program in ProgInfoIter::with_query_opts(options) {
        if before.contains(&program.id) {
            continue;
        }
        let name = program.name.to_string_lossy();
        match program.verified_insns {
            0 => {
                let count = program.xlated_prog_insns.len() / INSN_BYTES;
                writeln!(out, "{name} {count} translated")?;
            }
            count => writeln!(out, "{name} {count} verified")?,
        }
    }
    Ok(())
}
