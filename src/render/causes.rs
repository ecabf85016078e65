// SPDX-License-Identifier: Apache-2.0
//! A list of causes as aligned lines, largest first, each with whose fault it was.
//!
//! Causes that share a phrase (`runq.*`) are one line, unless everything is shown.

use std::cmp::Reverse;

use lacuna_timeline::Cause;

use super::blame;
use super::blame::Owner;
use super::paint::Style;
use super::plain::left;
use super::plain::plain;
use super::plain::right;
use super::plain::width;
use super::quantity::Column;
use super::quantity::count;
use super::quantity::grouped;
use crate::answer::CauseAnswer;
use crate::answer::ConnectionEvidence;
use crate::answer::Dropped;
use crate::answer::Retransmits;

/// One line: causes that are told together.
struct Group<'a> {
    cause: Cause,
    ns: u64,
    parts: Vec<&'a CauseAnswer>,
}

/// The lines of `causes`, each indented by `indent` spaces. Without an `owner`, whose wake-ups they
/// tell of, chains are left out: that of one thread says nothing of others.
pub(super) fn lines(
    causes: &[CauseAnswer],
    owner: Option<Owner<'_>>,
    indent: usize,
    style: Style,
) -> String {
    let groups = grouped_by_phrase(causes, style);
    let column = style.column(groups.iter().map(|group| group.ns).max().unwrap_or(0));
    let whole_ns = groups
        .iter()
        .fold(0_u64, |sum, group| sum.saturating_add(group.ns));
    let amounts = groups
        .iter()
        .map(|group| width(&column.show(group.ns)))
        .max()
        .unwrap_or(0);
    let names = groups
        .iter()
        .map(|group| width(style.cause(group.cause)))
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for group in &groups {
        let amount = right(&column.show(group.ns), amounts);
        let bar = style.bar(group.cause, group.ns, whole_ns);
        let name = style.tinted(group.cause, &left(style.cause(group.cause), names));
        let line = format!(
            "{}{amount}{bar}  {name}  {}",
            " ".repeat(indent),
            group.story(owner, column, style)
        );
        text.push_str(line.trim_end());
        text.push('\n');
        if style.verbose {
            text.push_str(&group.all_evidence(indent + amounts + 2));
        }
    }
    text
}

fn grouped_by_phrase(causes: &[CauseAnswer], style: Style) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for part in causes {
        let same = |group: &&mut Group<'_>| {
            !style.verbose
                && group.cause.phrase() == part.cause.phrase()
                && group.parts.iter().all(|other| other.reason == part.reason)
        };
        match groups.iter_mut().find(same) {
            Some(group) => {
                group.ns = group.ns.saturating_add(part.ns);
                group.parts.push(part);
            }
            None => groups.push(Group {
                cause: part.cause,
                ns: part.ns,
                parts: vec![part],
            }),
        }
    }
    // Of equal ones the order of the answer stays.
    groups.sort_by_key(|group| Reverse(group.ns));
    groups
}

impl Group<'_> {
    /// What stands behind the name of the cause.
    fn story(&self, owner: Option<Owner<'_>>, column: Column, style: Style) -> String {
        let mut pieces = Vec::new();
        let mut chains = self.parts.iter().map(|part| part.chain.as_slice());
        let chain = chains.find(|chain| !chain.is_empty() && owner.is_some());
        let chain = chain.unwrap_or_default();
        let culprits = blame::culprits(&self.parts, chain, column, style);
        match (culprits.is_empty(), self.cause) {
            (true, _) => pieces.extend(self.seen()),
            (false, Cause::Throttle) => {
                let times: u64 = self.parts.iter().map(|part| part.count).sum();
                pieces.push(format!("{culprits}, {}", count(times, "time", "times")));
            }
            (false, _) => pieces.push(culprits),
        }
        if let Some(owner) = owner.filter(|_| !chain.is_empty()) {
            pieces.push(blame::chain(chain, owner, column, style));
        }
        pieces.extend(self.others(column));
        pieces.extend(
            self.parts
                .iter()
                .find_map(|part| part.reason.as_deref())
                .map(reason),
        );
        let estimated_ns = self
            .parts
            .iter()
            .fold(0_u64, |sum, part| sum.saturating_add(part.estimated_ns));
        if estimated_ns > 0 {
            pieces.push(format!("({} of it estimated)", column.show(estimated_ns)));
        }
        pieces.join("  ")
    }

    /// The other span of its thread that most of this time fell within.
    fn others(&self, column: Column) -> Option<String> {
        let all = self.parts.iter().flat_map(|part| &part.evidence.spans);
        let most = all.max_by_key(|within| within.ns)?;
        let name = plain(&most.span.name);
        column
            .resolves(most.ns)
            .then(|| format!("within {name} {}", column.show(most.ns)))
    }

    /// What it waited for, where that has a name; where in the kernel, where the cause says too little.
    fn seen(&self) -> Option<String> {
        let object = self
            .parts
            .iter()
            .find_map(|part| part.evidence.object.as_deref());
        let frame = self
            .parts
            .iter()
            .find_map(|part| part.evidence.stack.first());
        let call = self
            .parts
            .iter()
            .find_map(|part| part.evidence.call.as_ref());
        let place = match self.cause {
            Cause::WaitOther | Cause::WaitPoll => frame.or(call),
            _ => None,
        };
        match (object, place) {
            (Some(object), _) => Some(plain(object)),
            (None, Some(place)) => Some(format!("in {}", plain(place))),
            (None, None) => None,
        }
    }

    /// Everything that was seen, a line each.
    fn all_evidence(&self, indent: usize) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: &str| {
            text.push_str(&format!("{}{what} {value}\n", " ".repeat(indent)));
        };
        for part in &self.parts {
            let state = part.state;
            line("stretches", &grouped(part.count));
            if part.cause != Cause::Unknown {
                let states = [
                    (state.running_ns, "running"),
                    (state.runnable_ns, "runnable"),
                    (state.blocked_ns, "blocked"),
                ];
                let states = states.iter().filter(|(ns, _)| *ns > 0);
                let states = states.map(|(ns, name)| format!("{name} {}", Column::EXACT.show(*ns)));
                line("state", &states.collect::<Vec<_>>().join(", "));
            }
            if let Some(call) = &part.evidence.call {
                line("call", &plain(call));
            }
            if let Some(object) = &part.evidence.object {
                line("object", &plain(object));
            }
            if !part.evidence.stack.is_empty() {
                let frames = part.evidence.stack.iter().map(|frame| plain(frame));
                line("stack", &frames.collect::<Vec<_>>().join(" < "));
            }
            for connection in &part.evidence.connections {
                line("connection", &ends(connection));
                line("seen", &befell(connection));
            }
            for within in &part.evidence.spans {
                let span = &within.span;
                let [name, service] = [&span.name, &span.service].map(|text| plain(text));
                let [trace, id] = [&span.trace_id, &span.span_id].map(|text| plain(text));
                let ns = Column::EXACT.show(within.ns);
                let place = format!("{name} of {service} (span {id} of trace {trace}) {ns}");
                line("within", &place);
            }
            for (key, value) in &part.evidence.more {
                line(&plain(key), &plain(&value.to_string()));
            }
        }
        text
    }
}

/// A connection by both ends, and whose it is.
fn ends(connection: &ConnectionEvidence) -> String {
    let ends = format!(
        "{} -> {} in network namespace {}",
        plain(&connection.local),
        plain(&connection.remote),
        connection.netns
    );
    match &connection.peer {
        Some(peer) => {
            let (comm, pid, tid) = (plain(&peer.comm), peer.pid, peer.tid);
            format!("{ends}, the other end is {comm} (pid {pid}, thread {tid})")
        }
        None => ends,
    }
}

/// What befell a connection, as it was measured.
fn befell(connection: &ConnectionEvidence) -> String {
    let exact = |(name, ns): (&str, u64)| format!("{} {}", plain(name), Column::EXACT.show(ns));
    let aspects = connection.aspects.iter();
    let aspects = aspects.map(|(name, &ns)| (name.as_str(), ns));
    let measured = [("srtt", connection.srtt_ns), ("rto", connection.rto_ns)];
    let measured = measured.into_iter().filter(|(_, ns)| *ns > 0);
    let times = [("time", connection.ns)].into_iter();
    let mut items: Vec<String> = times.chain(aspects).chain(measured).map(exact).collect();
    let Retransmits {
        timeouts,
        probes,
        fast,
    } = connection.retransmits;
    for (name, many) in [
        ("timeouts", timeouts),
        ("probes", probes),
        ("fast retransmits", fast),
    ] {
        items.extend((many > 0).then(|| format!("{name} {}", grouped(many))));
    }
    items.extend(
        connection
            .shared_connection
            .then(|| "shared by threads".to_owned()),
    );
    items.extend(connection.dropped.iter().map(of_drops));
    items.join(", ")
}

/// What was dropped in one place: "dropped 3 on the way out (qdisc at eth0)".
fn of_drops(dropped: &Dropped) -> String {
    let way = if dropped.incoming { "in" } else { "out" };
    let (many, reason) = (grouped(dropped.count), plain(&dropped.reason));
    match plain(&dropped.device) {
        device if device.is_empty() => format!("dropped {many} on the way {way} ({reason})"),
        device => format!("dropped {many} on the way {way} ({reason} at {device})"),
    }
}

/// Why something is not known, in words. A reason that this version does not know speaks for itself.
fn reason(reason: &str) -> String {
    let words = match reason {
        "lost" => "records were lost",
        "not-observed" => "not observed yet",
        "not-watched" => "not watched then",
        "program-skipped" => "the kernel skipped a probe",
        "not-confirmed" => "not confirmed yet",
        "detour-open" => "a kernel detour was still open",
        "still-queued" => "still waiting for a CPU",
        "expired" => "no longer recorded",
        "host-suspended" => "the host was suspended",
        "no-thread" => "no thread could be named for certain",
        "no-such-thread" => "its thread is not known",
        "merged" => "inside merged records",
        "not-born" => "the thread did not exist yet",
        "ended" => "the thread had ended",
        other => return plain(&other.replace('-', " ")),
    };
    words.to_owned()
}
