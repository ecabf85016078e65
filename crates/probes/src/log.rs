// SPDX-License-Identifier: Apache-2.0
//! What libbpf and the verifier say, kept for the error that follows instead of written to stderr.

use libbpf_rs::PrintLevel;
use libbpf_rs::set_print;
use std::sync::Mutex;
use std::sync::PoisonError;

/// How much is kept; the end is what tells.
const KEPT_BYTES_MAX: usize = 256 << 10;
/// How many of the last lines an error shows.
const SHOWN_LINES: usize = 6;

static SAID: Mutex<String> = Mutex::new(String::new());

fn keep(_level: PrintLevel, text: String) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() + text.len() > KEPT_BYTES_MAX {
        said.clear();
    }
    said.push_str(&text);
}

/// Starts anew; to be called before each load.
pub(crate) fn start() {
    SAID.lock().unwrap_or_else(PoisonError::into_inner).clear();
    set_print(Some((PrintLevel::Warn, keep)));
}

/// The last lines that were said, without the verifier's own statistics.
pub(crate) fn tail() -> String {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let told = |line: &&str| !line.trim().is_empty() && !line.starts_with("processed ");
    let lines: Vec<&str> = said.lines().filter(told).collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
