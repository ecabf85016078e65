// SPDX-License-Identifier: Apache-2.0
//! Compiles the kernel side with clang and makes its Rust skeleton; everything goes to OUT_DIR.

use libbpf_cargo::SkeletonBuilder;
use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::path::PathBuf;

const DIR: &str = "src/bpf";
const FLOOR: &str = "benches/empty.bpf.c";
const PIECES: &str = "benches/pieces.bpf.c";
const DROPPER: &str = "tests/programs/dropper.bpf.c";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let arch = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "-D__TARGET_ARCH_x86",
        other => {
            return Err(format!("no kernel side for {other} yet; see {DIR}/arch.bpf.h").into());
        }
    };
    let args = ["-I", DIR, arch, "-Wall", "-Wextra", "-Werror"];
    for (source, skeleton) in [
        (&*format!("{DIR}/lacuna.bpf.c"), "lacuna.skel.rs"),
        (FLOOR, "empty.skel.rs"),
        (PIECES, "pieces.skel.rs"),
        (DROPPER, "dropper.skel.rs"),
    ] {
        SkeletonBuilder::new()
            .source(source)
            .clang_args(args.map(OsStr::new))
            .build_and_generate(out.join(skeleton))?;
    }
    println!("cargo:rerun-if-changed={DIR}");
    println!("cargo:rerun-if-changed={FLOOR}");
    println!("cargo:rerun-if-changed={PIECES}");
    println!("cargo:rerun-if-changed={DROPPER}");
    Ok(())
}
