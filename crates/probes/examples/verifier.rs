// SPDX-License-Identifier: Apache-2.0
//! Prints how many instructions the verifier looked at for each program: `NAME COUNT verified` a line,
//! for comparing kernels and changes. Nothing is attached.

use std::error::Error;
use std::io::Write;
use std::io::stdout;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = stdout().lock();
    for program in lacuna_probes::verified_insns()? {
        writeln!(out, "{} {} verified", program.name, program.verified_insns)?;
    }
    Ok(())
}
