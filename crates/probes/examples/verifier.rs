// SPDX-License-Identifier: Apache-2.0
//! Prints how many instructions of each program the verifier walked through: `NAME COUNT` a line.
//!
//! For the kernel matrix (`vm/`), which keeps them. Ends with an error where a program does not load.

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
