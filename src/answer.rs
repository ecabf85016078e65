// SPDX-License-Identifier: Apache-2.0
//! The answers, as types: `lacuna.run/1`, `lacuna.explanation/1` and `lacuna.spans/1` of the contract here,
//! others in files of theirs.
//!
//! Everything that leaves this program as JSON about a command or a span has one of these types,
//! and text for people is rendered from them alone, so that both always say the same. They are read
//! back too: `lacuna explain` shows what an agent sent.
//!
//! This is no place for decisions: which cause a nanosecond has is settled in `lacuna-timeline`.
//! What is promised here are the identities: [`RunReport::check`] and [`SpanAnswer::check`] say
//! whether the numbers of an answer add up, and the agent asks them of everything that it answers.
//!
//! Durations are nanoseconds as numbers; instants are Unix nanoseconds as decimal strings
//! ([`UnixNs`]). Fields are in the contract's order.

mod blind;
mod check;
mod events;
mod lab;
mod net;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use lacuna_timeline::Cause;
use serde::Deserialize;
use serde::Serialize;

pub(crate) use blind::BlindReport;
pub(crate) use blind::BlindRun;
pub(crate) use blind::BlindSchema;
pub(crate) use blind::BlindTotal;
pub(crate) use blind::Figure;
pub(crate) use blind::RunName;
pub(crate) use blind::Sample;
pub(crate) use blind::SampleCause;
pub(crate) use check::GapSums;
pub(crate) use events::Counter;
pub(crate) use events::Counts;
pub(crate) use events::EventsReport;
pub(crate) use events::EventsSchema;
pub(crate) use events::Scope;
pub(crate) use events::Subject;
pub(crate) use lab::LabReport;
pub(crate) use lab::LabRow;
pub(crate) use lab::LabSchema;
pub(crate) use lab::ScenarioReport;
pub(crate) use lab::ScenarioStatus;
pub(crate) use net::ConnectionEvidence;
pub(crate) use net::Dropped;
pub(crate) use net::Peer;
pub(crate) use net::Retransmits;

/// An instant in Unix nanoseconds; a decimal string in JSON, because it does not fit a JavaScript number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct UnixNs(pub(crate) u64);

impl Serialize for UnixNs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UnixNs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map(UnixNs)
            .map_err(|_| serde::de::Error::custom("an instant must be a decimal string"))
    }
}

/// A cause by its public name. A name that is not in the table is refused, never shown as another.
mod cause_name {
    use lacuna_timeline::Cause;
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serializer;

    pub(super) fn serialize<S: Serializer>(
        cause: &Cause,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(cause.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Cause, D::Error> {
        let name = String::deserialize(deserializer)?;
        Cause::from_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format_args!("unknown cause {name:?}")))
    }
}

/// How much of an account one cause has, and what is known about it: CAUSE of the contract.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct CauseAnswer {
    /// Which cause.
    #[serde(with = "cause_name")]
    pub(crate) cause: Cause,
    /// How long, in total.
    pub(crate) ns: u64,
    /// In how many separate stretches.
    pub(crate) count: u64,
    /// The same time by what the scheduler said; adds up to `ns` except for `unknown`.
    pub(crate) state: StateSums,
    /// The part of `ns` whose amount is an estimate.
    pub(crate) estimated_ns: u64,
    /// Whose fault it was, largest first; `rest` and `uncovered` last.
    pub(crate) culprits: Vec<Culprit>,
    /// What was seen of it.
    pub(crate) evidence: Evidence,
    /// Who ended the wait, and what *they* were doing meanwhile; nearest first.
    pub(crate) chain: Vec<ChainLink>,
    /// Why it is not known; only for `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// The time of a cause by the state that the thread was in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StateSums {
    /// On a CPU.
    pub(crate) running_ns: u64,
    /// Able to run, and not running.
    pub(crate) runnable_ns: u64,
    /// Waiting for something else than a CPU.
    pub(crate) blocked_ns: u64,
}

/// Somebody or something that a cause is blamed on: CULPRIT of the contract.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Culprit {
    /// What it is.
    pub(crate) kind: CulpritKind,
    /// Its name: `comm`, cgroup path, `ADDRESS:PORT`, file name, ...; empty for `rest` and `uncovered`.
    pub(crate) name: String,
    /// Its process, 0 where it has none.
    pub(crate) pid: u32,
    /// Its thread, 0 where it is none.
    pub(crate) tid: u32,
    /// The part of the cause's time that it had, 0 where that is not measured.
    pub(crate) ns: u64,
    /// What else to say of it, in a few words ("cpu.max 2.0"; for `rest` how many: "4").
    pub(crate) detail: String,
    /// What the process `pid` calls itself, where `name` is not that: of a connection, who is at the other end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) process: String,
}

/// What a culprit is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CulpritKind {
    /// A thread.
    Thread,
    /// A process.
    Process,
    /// A control group.
    Cgroup,
    /// A TCP connection.
    Connection,
    /// Any other socket.
    Socket,
    /// A block device.
    Device,
    /// A file.
    File,
    /// A mounted remote file system.
    Mount,
    /// A lock.
    Lock,
    /// An interrupt or softirq: it names no thread.
    Interrupt,
    /// All the others together.
    Rest,
    /// The part that the bounded records no longer covered.
    Uncovered,
    /// Somebody, and it is not known who.
    Unknown,
}

/// What was seen of a cause. Keys that this version does not know are kept and shown.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// The system call that it waited in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<String>,
    /// What it waited for: file name, both ends of a socket, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// Kernel functions of its longest wait, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stack: Vec<String>,
    /// The TCP connections that it waited for, the largest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) connections: Vec<ConnectionEvidence>,
    /// Other spans that began and ended on the same thread meanwhile, and how much of this time fell
    /// within each; the largest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) spans: Vec<SpanWithin>,
    /// Anything else, by name.
    #[serde(flatten)]
    pub(crate) more: BTreeMap<String, serde_json::Value>,
}

/// One step of a chain: a thread that ended the wait before it, and what kept that thread.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct ChainLink {
    /// The thread.
    pub(crate) tid: u32,
    /// Its process.
    pub(crate) pid: u32,
    /// The kernel's name of it.
    pub(crate) comm: String,
    /// What it had to do with the wait before it.
    pub(crate) how: LinkHow,
    /// What it mostly did in that window.
    #[serde(with = "cause_name")]
    pub(crate) cause: Cause,
    /// For how long within that window.
    pub(crate) ns: u64,
    /// Whose fault *that* was, largest first; left out where nobody is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) culprits: Vec<Culprit>,
    /// The span that the thread was inside, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) span: Option<SpanRef>,
}

/// What the thread of a chain link had to do with the wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LinkHow {
    /// It held the lock: the lock itself said so.
    Held,
    /// It woke the waiter.
    Woke,
}

/// Another span, by its ids.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SpanRef {
    /// 32 hexadecimal digits.
    pub(crate) trace_id: String,
    /// 16 hexadecimal digits.
    pub(crate) span_id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its service.
    pub(crate) service: String,
}

/// Time that fell within another span.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SpanWithin {
    #[serde(flatten)]
    pub(crate) span: SpanRef,
    /// How much.
    pub(crate) ns: u64,
}

/// `lacuna.run/1`: where the time of a command went.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct RunReport {
    pub(crate) schema: RunSchema,
    /// The command and its arguments.
    pub(crate) command: Vec<String>,
    /// As a shell would say it: 128 + the signal where a signal ended it.
    pub(crate) exit_status: u8,
    /// The command's start to its end.
    pub(crate) wall_ns: u64,
    /// Every thread of the command and of what it started, in order of their start.
    pub(crate) threads: Vec<ThreadReport>,
    /// All threads together.
    pub(crate) total: RunTotal,
    /// Kernel records that were lost meanwhile; their time is `unknown`.
    pub(crate) lost_records: u64,
}

/// One thread of a command.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct ThreadReport {
    /// The thread.
    pub(crate) tid: u32,
    /// Its process.
    pub(crate) pid: u32,
    /// The kernel's name of it, the last that it had.
    pub(crate) comm: String,
    /// When it began (for the first: when the command did).
    pub(crate) start_unix_ns: UnixNs,
    /// From then to its end, or to the command's where that came first.
    pub(crate) wall_ns: u64,
    /// Adds up to `wall_ns`.
    pub(crate) causes: Vec<CauseAnswer>,
    /// Context switches.
    pub(crate) switches: Switches,
    /// Page faults.
    pub(crate) faults: FaultCounts,
    /// How often it came back on another CPU than it had left.
    pub(crate) migrations: u64,
}

/// Context switches by why the thread left the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Switches {
    /// It waited for something.
    pub(crate) voluntary: u64,
    /// It was taken off while it could have run on.
    pub(crate) involuntary: u64,
}

/// Page faults by what they cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FaultCounts {
    /// Without I/O.
    pub(crate) minor: u64,
    /// With I/O.
    pub(crate) major: u64,
}

/// The threads of a command together.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct RunTotal {
    /// The sum of the threads' `wall_ns`.
    pub(crate) wall_ns: u64,
    /// Adds up to it.
    pub(crate) causes: Vec<CauseAnswer>,
}

/// `lacuna.explanation/1`: where the gap of each span went.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Explanation {
    pub(crate) schema: ExplanationSchema,
    /// The spans asked about.
    pub(crate) spans: Vec<SpanAnswer>,
}

impl From<Vec<SpanAnswer>> for Explanation {
    fn from(spans: Vec<SpanAnswer>) -> Explanation {
        Explanation {
            schema: ExplanationSchema::default(),
            spans,
        }
    }
}

/// `lacuna.spans/1`: spans without their accounts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct SpanList {
    pub(crate) schema: SpansSchema,
    /// Biggest gap first.
    pub(crate) spans: Vec<ListedSpan>,
}

impl From<Vec<ListedSpan>> for SpanList {
    fn from(spans: Vec<ListedSpan>) -> SpanList {
        SpanList {
            schema: SpansSchema::default(),
            spans,
        }
    }
}

/// The schema of a [`RunReport`]; another one is refused when it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) enum RunSchema {
    #[default]
    #[serde(rename = "lacuna.run/1")]
    V1,
}

/// The schema of an [`Explanation`]; another one is refused when it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) enum ExplanationSchema {
    #[default]
    #[serde(rename = "lacuna.explanation/1")]
    V1,
}

/// The schema of a [`SpanList`]; another one is refused when it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) enum SpansSchema {
    #[default]
    #[serde(rename = "lacuna.spans/1")]
    V1,
}

/// A span in a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct ListedSpan {
    #[serde(flatten)]
    pub(crate) head: SpanHead,
    #[serde(flatten)]
    pub(crate) reach: Reach,
}

/// A span and its account.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct SpanAnswer {
    #[serde(flatten)]
    pub(crate) head: SpanHead,
    /// Of the gap; adds up to `gap_ns`. Empty while the span is pending.
    pub(crate) causes: Vec<CauseAnswer>,
    /// Of the whole span; adds up to `wall_ns`. Empty while the span is pending.
    pub(crate) span_causes: Vec<CauseAnswer>,
    /// Only where the join is `process`: what its process did meanwhile. Claims nothing about the span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<ProcessView>,
    /// The longest stretches of the gap, in time order.
    pub(crate) episodes: Vec<Episode>,
    #[serde(flatten)]
    pub(crate) reach: Reach,
}

/// What a span is, and the sums of its account.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct SpanHead {
    /// 32 hexadecimal digits.
    pub(crate) trace_id: String,
    /// 16 hexadecimal digits.
    pub(crate) span_id: String,
    /// The same, or empty for a root.
    pub(crate) parent_span_id: String,
    /// As the application named it: hostile text.
    pub(crate) name: String,
    /// `service.name` of its resource.
    pub(crate) service: String,
    /// Its start, as the application's clock said.
    pub(crate) start_unix_ns: UnixNs,
    /// Its length.
    pub(crate) wall_ns: u64,
    /// How far the answer is one.
    pub(crate) status: Status,
    /// Child spans that had been received when this was answered.
    pub(crate) children_seen: u64,
    /// Wall time less the union of those children.
    pub(crate) gap_ns: u64,
    /// Of the gap: everything but `unknown`, `wait.other` and what is estimated.
    pub(crate) explained_ns: u64,
    /// Of the gap: `wait.other`.
    pub(crate) other_ns: u64,
    /// Of the gap: parts of other causes whose amount is an estimate.
    pub(crate) estimated_ns: u64,
    /// At most so much of the amounts may belong on the other side of an edge of the gap.
    pub(crate) blur_ns: u64,
    /// Half-width of the uncertainty between the span's clock and the kernel's.
    pub(crate) clock_error_ns: u64,
    /// Which thread ran it, and how that is known.
    pub(crate) join: Join,
}

/// How far an answer is one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Everything about the span's time has been seen; parts of it may be `unknown`.
    Complete,
    /// Not yet.
    Pending,
    /// The recorder no longer reaches the span's start.
    Expired,
    /// Nothing of that process was watched.
    Unobserved,
}

/// Which thread ran a span.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Join {
    /// How it was found.
    pub(crate) how: JoinHow,
    /// The probability that it is the right one.
    pub(crate) score: f64,
    /// How many threads it could have been.
    pub(crate) candidates: u32,
    /// Its process, 0 where not even that is known.
    pub(crate) pid: u32,
    /// The thread, 0 where none could be named.
    pub(crate) tid: u32,
    /// The kernel's name of it (of the process where no thread could be named).
    pub(crate) comm: String,
    /// Why no thread, or not even a process, could be named: a fixed word; only where that is so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) why: String,
}

/// How the thread of a span was found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JoinHow {
    /// The span itself names it.
    Attribute,
    /// The thread published which span it was in.
    Context,
    /// By who was on a CPU at the span's instants.
    Timestamps,
    /// The process has but one thread that serves spans.
    SingleThread,
    /// Only the process is known.
    Process,
    /// Not even that.
    None,
}

/// Thread-time of a process beside a span.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessView {
    /// How many threads it had in the span's window.
    pub(crate) threads: u64,
    /// Thread-nanoseconds.
    pub(crate) causes: Vec<CauseAnswer>,
}

/// A maximal stretch of a gap with one cause and one culprit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Episode {
    /// Its start.
    pub(crate) start_unix_ns: UnixNs,
    /// Its length.
    pub(crate) ns: u64,
    /// Its cause.
    #[serde(with = "cause_name")]
    pub(crate) cause: Cause,
    /// Whose fault it was, where one is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) culprit: Option<Culprit>,
    /// Why it is not known; only for `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// What the records behind an answer cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reach {
    /// The recorder holds everything from here on; 0 where it holds nothing.
    pub(crate) recorder_from_unix_ns: UnixNs,
    /// Kernel records that were lost since the agent started.
    pub(crate) lost_records: u64,
}
