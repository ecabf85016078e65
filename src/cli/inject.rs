// SPDX-License-Identifier: Apache-2.0
//! Faults that the loader is told to make, so that tests see each of them become `unknown`.
//!
//! For those who work on Lacuna: hidden from the help, never set by default.

use std::num::NonZeroU32;
use std::str::FromStr;

/// Which faults to make; none by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Inject {
    /// Drop every n-th record where it is reserved.
    pub(crate) drop_every: Option<NonZeroU32>,
    /// Drop every thread's last record.
    pub(crate) drop_exit: bool,
    /// Skip every n-th waking, as a program that the kernel did not run would.
    pub(crate) skip_wakings: Option<NonZeroU32>,
}

impl FromStr for Inject {
    type Err = String;

    fn from_str(text: &str) -> Result<Inject, String> {
        let mut inject = Inject::default();
        for fault in text.split(',').filter(|fault| !fault.is_empty()) {
            match fault.split_once('=') {
                None if fault == "drop-exit" => inject.drop_exit = true,
                Some(("drop-every", n)) => inject.drop_every = Some(parse_every(n)?),
                Some(("skip-wakings", n)) => inject.skip_wakings = Some(parse_every(n)?),
                _ => {
                    return Err(format!(
                        "{fault:?} is none of drop-every=N, drop-exit, skip-wakings=N"
                    ));
                }
            }
        }
        Ok(inject)
    }
}

fn parse_every(text: &str) -> Result<NonZeroU32, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number above 0"))
}
