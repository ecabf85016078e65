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
    start_at(PrintLevel::Warn);
}

/// The same, keeping also what the verifier says of programs that it lets through.
pub(crate) fn start_with_statistics() {
    start_at(PrintLevel::Debug);
}

fn start_at(level: PrintLevel) {
    SAID.lock().unwrap_or_else(PoisonError::into_inner).clear();
    set_print(Some((level, keep)));
}

/// What the verifier walked through: program names and instructions, in the order of loading.
pub(crate) fn statistics() -> Vec<(String, u64)> {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    parse_statistics(&said)
}

fn parse_statistics(said: &str) -> Vec<(String, u64)> {
    let mut program = "";
    let mut found = Vec::new();
    for line in said.lines() {
        if line.ends_with("-- BEGIN PROG LOAD LOG --") {
            program = line.split('\'').nth(1).unwrap_or_default();
        }
        let number = line
            .strip_prefix("processed ")
            .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
        if let Some(insns) = number {
            found.push((program.to_owned(), insns));
        }
    }
    found
}

/// The last lines that were said, without the verifier's own statistics.
pub(crate) fn tail() -> String {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let told = |line: &&str| !line.trim().is_empty() && !line.starts_with("processed ");
    let lines: Vec<&str> = said.lines().filter(told).collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::parse_statistics;

    #[test]
    fn statistics_belong_to_the_program_that_was_named_before() {
        let said = "libbpf: prog 'a': -- BEGIN PROG LOAD LOG --\n\
                    processed 12 insns (limit 1000000) max_states_per_insn 0 total_states 1\n\
                    -- END PROG LOAD LOG --\n\
                    libbpf: prog 'b': -- BEGIN PROG LOAD LOG --\n\
                    verification time 5 usec\nprocessed 4711 insns (limit 1000000)\n\
                    -- END PROG LOAD LOG --\n";
        let found = [("a".to_owned(), 12), ("b".to_owned(), 4711)];
        assert_eq!(parse_statistics(said), found);
    }
}
