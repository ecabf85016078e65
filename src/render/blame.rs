// SPDX-License-Identifier: Apache-2.0
//! Whose fault it was, in one line: culprits, the chain of wake-ups, and what was seen.

use lacuna_timeline::Cause;

use super::paint::Style;
use super::plain::plain;
use super::quantity::Column;
use super::quantity::count;
use crate::answer::CauseAnswer;
use crate::answer::ChainLink;
use crate::answer::Culprit;
use crate::answer::CulpritKind;
use crate::answer::LinkHow;

/// Culprits shown by name; the others are told together.
const CULPRITS_SHOWN: usize = 3;

/// Whose time this is: a chain names a thread of the same process without its pid, and one of the
/// same name with its tid.
#[derive(Clone, Copy, Debug)]

pub(super) struct Owner<'a> {
    pub(super) pid: u32,
    pub(super) comm: &'a str,
}

/// The culprits of causes that are shown as one, in one line; empty where nobody is named but those
/// whom the chain names anyway.
pub(super) fn culprits(
    parts: &[&CauseAnswer],
    chain: &[ChainLink],
    column: Column,
    style: Style,
) -> String {
    let mut blame = Blame::of(parts, column, style);
    if !style.verbose {
        let in_chain = |tid| tid != 0 && chain.iter().any(|link| link.tid == tid);
        blame
            .named
            .retain(|one| one.kind != CulpritKind::Thread || !in_chain(one.tid));
    }

    if parts.iter().any(|part| is_queueing(part.cause)) {
        return blame.behind(column, style);
    }
    blame.named(column, style)
}

/// Waits for a CPU: there the culprits are those who ran instead.
fn is_queueing(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::RunqPreempted | Cause::RunqWakeup | Cause::RunqIdle
    )
}

/// Culprits sorted for a line.
#[derive(Debug, Default)]
struct Blame {
    /// Largest first; the same one only once.
    named: Vec<Culprit>,
    rest_ns: u64,
    /// How many the rest are; `None` where that is not known.
    rest_count: Option<u64>,
    uncovered_ns: u64,
    /// Time that an idle CPU took to take the thread: nobody ran instead.
    idle_ns: u64,
}

impl Blame {
    fn of(parts: &[&CauseAnswer], column: Column, style: Style) -> Blame {
        let mut blame = Blame {
            rest_count: Some(0),
            ..Blame::default()
        };
        for part in parts {
            for culprit in &part.culprits {
                match (part.cause, culprit.kind) {
                    (Cause::RunqIdle, CulpritKind::Interrupt) => {
                        blame.idle_ns = blame.idle_ns.saturating_add(culprit.ns);
                    }
                    _ => blame.add(culprit, style),
                }
            }
        }
        blame
            .named
            .sort_by(|a, b| b.ns.cmp(&a.ns).then_with(|| a.name.cmp(&b.name)));
        if !style.verbose {
            blame.shorten(column);
        }
        blame
    }

    fn add(&mut self, culprit: &Culprit, style: Style) {
        match culprit.kind {
            CulpritKind::Rest => {
                self.rest_ns = self.rest_ns.saturating_add(culprit.ns);
                let more = culprit.detail.parse::<u64>().ok();
                self.rest_count = self.rest_count.zip(more).map(|(a, b)| a.saturating_add(b));
            }
            CulpritKind::Uncovered => {
                self.uncovered_ns = self.uncovered_ns.saturating_add(culprit.ns);
            }
            _ => match self
                .named
                .iter_mut()
                .find(|named| is_same(named, culprit, style))
            {
                Some(named) => named.ns = named.ns.saturating_add(culprit.ns),
                None => self.named.push(culprit.clone()),
            },
        }
    }

    /// Tells those beyond the first few together with the rest, and those too short for the column.
    fn shorten(&mut self, column: Column) {
        let long = self
            .named
            .iter()
            .filter(|one| one.ns == 0 || column.resolves(one.ns))
            .count();
        // One more name takes no more room than "1 other".
        let few = match self.rest_ns == 0 && self.named.len() <= CULPRITS_SHOWN + 1 {
            true => self.named.len(),
            false => CULPRITS_SHOWN,
        };
        for other in self
            .named
            .drain(few.min(long).max(1).min(self.named.len())..)
        {
            self.rest_ns = self.rest_ns.saturating_add(other.ns);
            self.rest_count = self.rest_count.map(|count| count.saturating_add(1));
        }
    }

    /// "behind backup (pid 4123) 181 ms, kworker/3:1 9 ms, 4 others 8 ms"
    fn behind(&self, column: Column, style: Style) -> String {
        let mut items: Vec<String> = self
            .named
            .iter()
            .map(|one| format!("{} {}", name(one, style), column.show(one.ns)))
            .collect();
        items.extend(self.others(column));
        let mut line = match items.is_empty() {
            true => Vec::new(),
            false => vec![format!("behind {}", items.join(", "))],
        };
        for (what, ns) in [
            ("idle CPU", self.idle_ns),
            ("not recorded who", self.uncovered_ns),
        ] {
            // What rounds to nothing is left to --verbose, unless there is nothing else to say.
            if ns > 0 && (column.resolves(ns) || line.is_empty()) {
                line.push(format!("{what} {}", column.show(ns)));
            }
        }
        line.join(", ")
    }

    /// "/kubepods/payments: cpu.max 2.0", with durations only where there are several.
    fn named(&self, column: Column, style: Style) -> String {
        let several = self.named.len() > 1 || self.rest_ns > 0;
        let mut items: Vec<String> = Vec::new();
        for one in &self.named {
            let mut item = with_detail(one, style);
            if several && one.ns > 0 {
                item = format!("{item} {}", column.show(one.ns));
            }
            items.push(item);
        }
        items.extend(self.others(column));
        items.join(", ")
    }

    fn others(&self, column: Column) -> Option<String> {
        if self.rest_ns == 0 {
            return None;
        }
        let others = match self.rest_count {
            Some(number) if number > 0 => count(number, "other", "others"),
            _ => "others".to_owned(),
        };
        Some(format!("{others} {}", column.show(self.rest_ns)))
    }
}

/// Threads of one process count as one, unless everything is shown.
fn is_same(a: &Culprit, b: &Culprit, style: Style) -> bool {
    a.kind == b.kind
        && a.name == b.name
        && a.pid == b.pid
        && (a.tid == b.tid || !style.verbose)
        && (a.detail == b.detail || a.kind == CulpritKind::Thread)
}

fn name(culprit: &Culprit, style: Style) -> String {
    let mut name = match (culprit.kind, culprit.name.as_str()) {
        (CulpritKind::Unknown, "") => "somebody".to_owned(),
        (_, name) => plain(name),
    };
    // Who is at the other end of a connection.
    if !culprit.process.is_empty() {
        return format!("{name} ({}, pid {})", plain(&culprit.process), culprit.pid);
    }
    let is_first_thread = [0, culprit.pid].contains(&culprit.tid) || culprit.pid == 0;
    if style.verbose && !is_first_thread {
        name = format!("{name} (pid {}, thread {})", culprit.pid, culprit.tid);
    } else if culprit.pid != 0 {
        name = format!("{name} (pid {})", culprit.pid);
    }
    name
}

fn with_detail(culprit: &Culprit, style: Style) -> String {
    let name = name(culprit, style);
    match (culprit.detail.as_str(), name.is_empty()) {
        ("", _) => name,
        (detail, true) => plain(detail),
        (detail, false) if culprit.kind == CulpritKind::Cgroup => {
            format!("{name}: {}", plain(detail))
        }
        (detail, false) => format!("{name}, {}", plain(detail)),
    }
}

/// "<- http-worker-7 held it, waiting for a CPU 281 ms <- backup (pid 4123)"
pub(super) fn chain(links: &[ChainLink], owner: Owner<'_>, column: Column, style: Style) -> String {
    let mut line = Vec::new();
    let mut before = owner;

    for link in links {
        let who = thread(link, before);
        let who = match link.how {
            LinkHow::Held => format!("{who} held it"),
            LinkHow::Woke => format!("woken by {who}"),
        };
        let mut step = format!(
            "<- {who}, {} {}",
            style.cause(link.cause),
            column.show(link.ns)
        );
        if let Some(span) = &link.span {
            step = format!("{step}, in span {}", plain(&span.name));
        }
        line.push(step);
        before = Owner {
            pid: link.pid,
            comm: &link.comm,
        };
    }
    // Whoever is to blame for the last link is the chain's end.
    let last = links.last().and_then(|link| link.culprits.first());
    line.extend(
        last.filter(|last| !last.name.is_empty())
            .map(|last| format!("<- {}", name(last, style))),
    );
    line.join(" ")
}

/// The thread of a link, as far as it must be told from the one before it.
fn thread(link: &ChainLink, before: Owner<'_>) -> String {
    let comm = plain(&link.comm);
    if link.pid != before.pid && link.pid != 0 {
        return format!("{comm} (pid {})", link.pid);
    }
    if link.comm == before.comm {
        return format!("{comm} (thread {})", link.tid);
    }
    comm
}
