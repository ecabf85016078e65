// SPDX-License-Identifier: Apache-2.0
//! Prints how many instructions the verifier walks through for each program: lines of `name insns`,
//! for comparing kernels and changes.

use std::error::Error;
use std::io::Write;
use std::io::stdout;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = stdout().lock();
    for program in lacuna_probes::verified_insns()? {
        writeln!(out, "{} {}", program.name, program.verified_insns)?;
    }
    Ok(())
}
