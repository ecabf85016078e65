// SPDX-License-Identifier: Apache-2.0
//! The generated skeleton, and the constants of the wire under shorter names.
//!
//! Everything in here comes from `src/bpf`; nothing is typed a second time.

include!(concat!(env!("OUT_DIR"), "/lacuna.skel.rs"));
