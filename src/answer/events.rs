// SPDX-License-Identifier: Apache-2.0
//! `lacuna.events/1`: what the kernel did inside one span of work, in counts.
//!
//! A counter is in `counts` with its scope in `scopes`, or it is in `missing` with the reason: never in
//! both, and never 0 because it could not be had. [`EventsReport::check`] says so.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// What is counted, in the contract's order. Its public name is the variant's in snake case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Counter {
    VoluntarySwitches,
    InvoluntarySwitches,
    MinorFaults,
    MajorFaults,
    ReadSyscalls,
    WriteSyscalls,
    BytesReadFromStorage,
    BytesWrittenToStorage,
    Migrations,
    NetnsTcpSegmentsIn,
    NetnsTcpSegmentsOut,
    NetnsTcpRetransmits,
}

impl Counter {
    /// Every one of them.
    pub(crate) const ALL: [Counter; 12] = [
        Counter::VoluntarySwitches,
        Counter::InvoluntarySwitches,
        Counter::MinorFaults,
        Counter::MajorFaults,
        Counter::ReadSyscalls,
        Counter::WriteSyscalls,
        Counter::BytesReadFromStorage,
        Counter::BytesWrittenToStorage,
        Counter::Migrations,
        Counter::NetnsTcpSegmentsIn,
        Counter::NetnsTcpSegmentsOut,
        Counter::NetnsTcpRetransmits,
    ];
}

/// Whose events a counter has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scope {
    /// Every thread of the command, and every descendant that its parent has waited for.
    Tree,
    /// The first thread of the command alone.
    FirstThread,
    /// The threads of the process, as often as they were looked at.
    Threads,
    /// Every thread of the process, also those that have ended.
    Process,
    /// The same, and all of every child that the process waited for meanwhile.
    ProcessAndChildren,
    /// Everybody in the network namespace.
    NetworkNamespace,
}

/// The schema of an [`EventsReport`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) enum EventsSchema {
    #[default]
    #[serde(rename = "lacuna.events/1")]
    V1,
}

/// What was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Subject {
    /// A command, from its start to its end.
    Command {
        command: Vec<String>,
        /// As a shell would say it.
        exit_status: u8,
    },
    /// A process, for a while.
    Process {
        pid: u32,
        /// The kernel's name of it.
        comm: String,
        /// How long was asked for.
        asked_ns: u64,
        /// Whether it ended before that.
        ended: bool,
        /// Threads that ended meanwhile: what they did since they were last looked at is in no
        /// counter with the scope `threads`.
        threads_ended: u64,
    },
}

/// What the kernel did inside one span of work.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct EventsReport {
    pub(crate) schema: EventsSchema,
    #[serde(flatten)]
    pub(crate) subject: Subject,
    /// How long it took: what a span around it would record.
    pub(crate) wall_ns: u64,
    pub(crate) counts: BTreeMap<Counter, u64>,
    /// Whose events each of `counts` has.
    pub(crate) scopes: BTreeMap<Counter, Scope>,
    /// What could not be counted, each with the reason.
    pub(crate) missing: BTreeMap<Counter, String>,
    /// The network namespace by its inode, as in `net:[4026531840]`; left out where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) net_namespace: Option<u64>,
}

/// What a window had, counter by counter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) counts: BTreeMap<Counter, u64>,
    pub(crate) scopes: BTreeMap<Counter, Scope>,
    pub(crate) missing: BTreeMap<Counter, String>,
}

impl Counts {
    /// Notes that a counter says nothing here.
    pub(crate) fn miss(&mut self, counter: Counter, why: &str) {
        self.counts.remove(&counter);
        self.scopes.remove(&counter);
        self.missing.insert(counter, why.to_owned());
    }

    /// Notes a counter; `Err` is why it could not be had.
    pub(crate) fn note<E: ToString>(
        &mut self,
        counter: Counter,
        scope: Scope,
        count: Result<u64, E>,
    ) {
        match count {
            Ok(count) => {
                self.counts.insert(counter, count);
                self.scopes.insert(counter, scope);
            }
            Err(why) => {
                self.missing.insert(counter, why.to_string());
            }
        }
    }
}

impl EventsReport {
    /// Every counter is either counted, with its scope, or missing; `Err` names one that is not.
    pub(crate) fn check(&self) -> Result<(), Counter> {
        let wrong = Counter::ALL.into_iter().find(|counter| {
            let counted = self.counts.contains_key(counter);
            counted == self.missing.contains_key(counter)
                || counted != self.scopes.contains_key(counter)
        });
        wrong.map_or(Ok(()), Err)
    }
}
