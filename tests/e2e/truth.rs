// SPDX-License-Identifier: Apache-2.0
//! What the sample programs wrote down about themselves: the test's truth.
//!
//! The agent never sees it. Lines are documented in `programs/python/with_truth.py` and
//! `programs/python/waits.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Where and when a span really ran.
#[derive(Debug, Clone)]
pub(crate) struct TrueSpan {
    /// Hex.
    pub(crate) trace_id: String,
    /// No parent in the same process.
    pub(crate) root: bool,
    /// Unix nanoseconds, as the program took it.
    pub(crate) end_unix_ns: u64,
    /// Every thread that the span touched; one, unless it moved.
    pub(crate) tids: Vec<u32>,
    /// The name that the SDK sent.
    pub(crate) name: String,
}

/// How a span spent its time by the program's clock and the kernel's counters.
#[derive(Debug, Clone)]
pub(crate) struct TrueWait {
    /// Hex.
    pub(crate) trace_id: String,
    /// Hex.
    pub(crate) span_id: String,
    /// What was done: `sleep`, `lock`, ...
    pub(crate) kind: String,
    /// By the program's clock.
    pub(crate) wall_ns: u64,
    /// By schedstat.
    pub(crate) on_cpu_ns: u64,
    /// By schedstat: queued for a CPU, throttled time included.
    pub(crate) queued_ns: u64,
    /// By the `cpu.stat` of the thread's cgroup.
    pub(crate) throttled_ns: u64,
    /// By schedstat: how long the hogs were on CPUs, together.
    pub(crate) rivals_ns: u64,
}

/// A truth file, read.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// By span id.
    pub(crate) spans: BTreeMap<String, TrueSpan>,
    /// In the order in which they ended.
    pub(crate) waits: Vec<TrueWait>,
}

impl Truth {
    /// Reads what a program has written so far; a line that is not of a known form fails the test.
    pub(crate) fn read(path: &Path) -> Truth {
        let text = fs::read_to_string(path).expect("the program wrote its truth");
        let mut truth = Truth::default();
        for line in text.lines() {
            truth
                .take(line)
                .unwrap_or_else(|| panic!("not a line of truth: {line}"));
        }
        truth
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let (what, rest) = line.split_once(' ')?;
        match what {
            "span" => {
                // A name may have spaces in it.
                let mut words = rest.splitn(7, ' ');
                let trace_id = words.next()?.to_owned();
                let span_id = words.next()?.to_owned();
                let root = words.next()? == "1";
                let _start_unix_ns: u64 = words.next()?.parse().ok()?;
                let end_unix_ns = words.next()?.parse().ok()?;
                let tids = words
                    .next()?
                    .split(',')
                    .map(str::parse)
                    .collect::<Result<_, _>>()
                    .ok()?;
                let name = words.next()?.to_owned();
                self.spans.insert(
                    span_id,
                    TrueSpan {
                        trace_id,
                        root,
                        end_unix_ns,
                        tids,
                        name,
                    },
                );
            }
            "wait" => {
                let mut words = rest.split(' ');
                self.waits.push(TrueWait {
                    trace_id: words.next()?.to_owned(),
                    span_id: words.next()?.to_owned(),
                    kind: words.next()?.to_owned(),
                    wall_ns: words.next()?.parse().ok()?,
                    on_cpu_ns: words.next()?.parse().ok()?,
                    queued_ns: words.next()?.parse().ok()?,
                    throttled_ns: words.next()?.parse().ok()?,
                    rivals_ns: words.next()?.parse().ok()?,
                });
            }
            _ => return None,
        }
        Some(())
    }
}
