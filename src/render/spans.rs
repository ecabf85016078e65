// SPDX-License-Identifier: Apache-2.0
//! The text of `lacuna explain`: each trace as a tree of spans, each span with its gap by cause.

use super::blame::Owner;
use super::causes;
use super::paint::Style;
use super::plain::left;
use super::plain::plain;
use super::plain::plain_up_to;
use super::plain::right;
use super::plain::width;
use super::quantity::Column;
use super::quantity::count;
use super::quantity::grouped;
use super::quantity::instant;
use super::quantity::percent;
use super::tree::Forest;
use crate::answer::Explanation;
use crate::answer::Join;
use crate::answer::JoinHow;
use crate::answer::SpanAnswer;
use crate::answer::Status;

/// What the part of a span that no child covers is called.
const NO_SPAN: &str = "no span";
/// Columns of a level of the tree.
const INDENT: usize = 2;
/// Longest name of a span in a column, characters.
const NAME_CHARS_MAX: usize = 40;
/// Children of a span that have a line of their own though nothing in them is broken down.
const SMALL_CHILDREN_SHOWN: usize = 12;
/// Levels of the tree that are drawn; what is deeper is counted.
const DEPTH_MAX: usize = 32;

/// The whole answer.
pub(crate) fn explanation(answer: &Explanation, style: Style) -> String {
    let spans = &answer.spans;
    if spans.is_empty() {
        return "no spans\n".to_owned();
    }
    let writer = Writer {
        spans,
        forest: Forest::of(spans),
        style,
    };
    let mut text = String::new();
    let several = spans
        .iter()
        .any(|span| span.head.trace_id != spans[0].head.trace_id);
    let mut trace = "";
    for &root in &writer.forest.roots {
        let head = &spans[root].head;
        if (several || style.verbose) && head.trace_id != trace {
            text.push_str(&style.faint(&format!("trace {}", plain(&head.trace_id))));
            text.push('\n');
        }
        trace = &head.trace_id;
        writer.root(root, &mut text);
    }
    let lost = spans
        .iter()
        .map(|span| span.reach.lost_records)
        .max()
        .unwrap_or(0);
    text.push_str(&lost_records(lost));
    text
}

/// What is said wherever records were lost; nothing where none were.
pub(super) fn lost_records(lost: u64) -> String {
    match lost {
        0 => String::new(),
        lost => format!(
            "kernel records lost: {}; whatever they would have proved is shown as unknown\n",
            grouped(lost)
        ),
    }
}

struct Writer<'a> {
    spans: &'a [SpanAnswer],
    forest: Forest,
    style: Style,
}

impl Writer<'_> {
    /// "POST /upi/pay   payments-api   4 812 ms   thread 845 http-worker-3 (found by timestamps, 1 candidate)"
    fn root(&self, root: usize, text: &mut String) {
        let head = &self.spans[root].head;
        let wall = self.style.column(head.wall_ns).show(head.wall_ns);
        let mut line = vec![self.style.strong(&named(plain(&head.name)))];

        line.extend(Some(plain(&head.service)).filter(|service| !service.is_empty()));
        line.push(wall);
        line.push(self.style.faint(&joined(&head.join)));
        text.push_str(&line.join("   "));
        text.push('\n');
        self.block(root, 1, text);
    }

    /// The children of a span and its gap, as a table; what is worth it broken down.
    fn block(&self, at: usize, depth: usize, text: &mut String) {
        let span = &self.spans[at];
        if self.style.verbose {
            self.particulars(span, depth, text);
        }
        let children = &self.forest.nodes[at].children;
        let (drawn, left_out) = self.drawn(children, depth);
        let names = drawn.iter().map(|&child| self.name(child));
        let names = names
            .chain([NO_SPAN.to_owned()])
            .map(|name| width(&name))
            .max()
            .unwrap_or(0);
        let times = drawn.iter().map(|&child| self.spans[child].head.wall_ns);
        let times: Vec<u64> = times.chain([span.head.gap_ns]).collect();
        let column = self.style.column(times.iter().copied().max().unwrap_or(0));
        let amounts = times
            .iter()
            .map(|&ns| width(&column.show(ns)))
            .max()
            .unwrap_or(0);
        let table = Table {
            indent: depth * INDENT,
            names,
            amounts,
            column,
        };

        for &child in &drawn {
            let head = &self.spans[child].head;
            text.push_str(&table.row(&self.name(child), head.wall_ns, &self.note(child, at)));
            if self.is_broken_down(child) {
                self.block(child, depth + 1, text);
            }
        }
        text.push_str(&self.left_out(&left_out, &table));
        text.push_str(&table.row(NO_SPAN, span.head.gap_ns, &verdict(span)));
        self.gap(span, depth + 1, text);
    }

    /// The causes of a gap, and beside them what is known of the process where no thread is.
    fn gap(&self, span: &SpanAnswer, depth: usize, text: &mut String) {
        let join = &span.head.join;
        let owner = Owner {
            pid: join.pid,
            comm: &join.comm,
        };
        text.push_str(&causes::lines(
            &span.causes,
            Some(owner),
            depth * INDENT,
            self.style,
        ));
        let Some(process) = &span.process else {
            return;
        };
        let threads = count(process.threads, "thread", "threads");
        text.push_str(&format!(
            "{}beside it, {} had {threads}: their time together, which claims nothing about this span\n",
            " ".repeat(depth * INDENT),
            process_name(join),
        ));

        text.push_str(&causes::lines(
            &process.causes,
            None,
            (depth + 1) * INDENT,
            self.style,
        ));
    }

    /// Which children have a line: what is broken down, and the first few others.
    fn drawn(&self, children: &[usize], depth: usize) -> (Vec<usize>, Vec<usize>) {
        if depth >= DEPTH_MAX {
            return (Vec::new(), children.to_vec());
        }
        let mut small = 0;
        children.iter().partition(|&&child| {
            if self.is_broken_down(child) {
                return true;
            }
            small += 1;
            small <= SMALL_CHILDREN_SHOWN
        })
    }

    fn is_broken_down(&self, at: usize) -> bool {
        self.style.verbose || self.forest.nodes[at].shown
    }

    fn left_out(&self, left_out: &[usize], table: &Table) -> String {
        let longest_ns = left_out
            .iter()
            .map(|&child| self.spans[child].head.wall_ns)
            .max();
        let Some(longest_ns) = longest_ns else {
            return String::new();
        };
        let below: u64 = left_out
            .iter()
            .map(|&child| self.forest.nodes[child].below)
            .sum();
        let number = left_out.len() as u64 + below;
        format!(
            "{}and {}, the longest {}\n",
            " ".repeat(table.indent),
            count(number, "more span", "more spans"),
            table.column.show(longest_ns)
        )
    }

    fn name(&self, at: usize) -> String {
        named(plain_up_to(&self.spans[at].head.name, NAME_CHARS_MAX))
    }

    /// What a child's line says beside its time: as little as tells it from its parent.
    fn note(&self, child: usize, parent: usize) -> String {
        let (head, above) = (&self.spans[child].head, &self.spans[parent].head);
        let mut note = Vec::new();
        if head.service != above.service && !head.service.is_empty() {
            note.push(plain(&head.service));
        }
        if !self.is_broken_down(child) {
            note.extend(status_word(head.status).map(str::to_owned));
            let below = self.forest.nodes[child].below;

            note.extend((below > 0).then(|| format!("({} below)", count(below, "span", "spans"))));
        } else if self.style.verbose || !is_same_thread(&head.join, &above.join) {
            note.push(self.style.faint(&joined(&head.join)));
        }
        note.join("   ")
    }

    /// What only --verbose shows of a span itself.
    fn particulars(&self, span: &SpanAnswer, depth: usize, text: &mut String) {
        let head = &span.head;
        let line = format!(
            "{}span {}, began {}, {} seen, score {:.6}, clock error {}, blur {}",
            " ".repeat(depth * INDENT),
            plain(&head.span_id),
            instant(head.start_unix_ns.0),
            count(head.children_seen, "child", "children"),
            head.join.score,
            Column::EXACT.show(head.clock_error_ns),
            Column::EXACT.show(head.blur_ns),
        );
        text.push_str(&self.style.faint(&line));
        text.push('\n');
    }
}

/// The columns of a span's children and gap.
struct Table {
    indent: usize,
    names: usize,
    amounts: usize,
    column: Column,
}

impl Table {
    fn row(&self, name: &str, ns: u64, note: &str) -> String {
        let indent = " ".repeat(self.indent);
        let name = left(name, self.names);
        let amount = right(&self.column.show(ns), self.amounts);
        format!(
            "{}\n",
            format!("{indent}{name}  {amount}   {note}").trim_end()
        )
    }
}

fn named(name: String) -> String {
    if name.is_empty() {
        "(without a name)".to_owned()
    } else {
        name
    }
}

/// How far a gap is explained, or why it is not.
fn verdict(span: &SpanAnswer) -> String {
    let head = &span.head;
    match head.status {
        Status::Complete if head.gap_ns == 0 => String::new(),
        Status::Complete => {
            let share = percent(head.explained_ns, head.gap_ns);
            match head.blur_ns {
                0 => format!("explained {share}"),
                blur_ns => {
                    let blur = Column::fitting(blur_ns).show(blur_ns);
                    format!("explained {share}, amounts give or take {blur}")
                }
            }
        }

        Status::Pending => {
            "pending: not everything up to its end has been read yet; ask again".to_owned()
        }
        Status::Expired => match span.reach.recorder_from_unix_ns.0 {
            0 => "expired: the recorder no longer reaches back to its start".to_owned(),
            from => format!(
                "expired: the recorder reaches back to {} only",
                instant(from)
            ),
        },
        Status::Unobserved => "unobserved: nothing of its process was watched then".to_owned(),
    }
}

/// What is said of a span that is not broken down, where its answer is none yet or any more.
fn status_word(status: Status) -> Option<&'static str> {
    match status {
        Status::Complete => None,
        Status::Pending => Some("pending"),
        Status::Expired => Some("expired"),
        Status::Unobserved => Some("unobserved"),
    }
}

/// "thread 845 http-worker-3 (found by timestamps, 1 candidate)"
fn joined(join: &Join) -> String {
    let how = match join.how {
        JoinHow::Attribute => "named by the span".to_owned(),
        JoinHow::Context => "told by the thread itself".to_owned(),
        JoinHow::Timestamps => {
            let candidates = count(join.candidates.into(), "candidate", "candidates");
            format!("found by timestamps, {candidates}")
        }
        JoinHow::SingleThread => "the only thread that serves spans".to_owned(),
        JoinHow::Process => {
            let candidates = match join.candidates {
                0 => String::new(),
                some => format!(", {}", count(some.into(), "candidate", "candidates")),
            };
            return format!(
                "{} (no thread could be named{}{candidates})",
                process_name(join),
                because(&join.why)
            );
        }
        JoinHow::None => return format!("its process is not known{}", because(&join.why)),
    };
    format!("thread {} {} ({how})", join.tid, plain(&join.comm))
}

/// Why no thread or no process could be named. A word that this version does not know speaks for itself.
fn because(why: &str) -> String {
    let words = match why {
        "" => return String::new(),
        "learning" => "too few spans of this kind were seen yet",
        "not-one-thread" => "spans of this kind do not stay on one thread",
        "busy-thread" => "a thread that is nearly always running could be it each time",
        "clock" => "its clock is not this host's",
        "no-candidate" => "no thread was on a CPU at its start and its end",
        "ambiguous" => "several threads could be it",
        "maybe" => "the records of another thread are not complete there",
        "unsure" => "one thread could be it, but not surely enough",
        "incomplete" => "not all of its threads are known",
        "too-many" => "more kinds of spans than are learned",
        "unusable" => "the clock was set, or the host suspended, within it",
        "before-start" => "it began before the agent did",
        "unobserved" | "not-observed" => "nothing of that process was observed then",
        "no-owner" => "the other end of its connection is no process here",
        "several-owners" => "several processes share its connection",
        "collector" => "several services share its connection",
        "other-program" => "what sent it is another program",
        "claim-refused" => "its process id is not the sender's to claim",
        other => return format!(": {}", plain(&other.replace('-', " "))),
    };
    format!(": {words}")
}

fn is_same_thread(a: &Join, b: &Join) -> bool {
    (a.pid, a.tid) == (b.pid, b.tid) && a.how == b.how
}

fn process_name(join: &Join) -> String {
    format!("process {} {}", join.pid, plain(&join.comm))
        .trim_end()
        .to_owned()
}
