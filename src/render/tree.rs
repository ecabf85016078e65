// SPDX-License-Identifier: Apache-2.0
//! The spans of an answer as a forest: children under their parents, whatever the ids claim.
//!
//! A span whose parent is not there is a root. Ids are hostile: a span may be its own parent, parents
//! may form a ring, ids may come twice. Every span appears exactly once all the same, and no walk
//! here recurses, so that depth costs no stack.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::VecDeque;

use crate::answer::SpanAnswer;

/// A span's gap is broken down where it is at least one part in so many of its root's wall time.
const SHOWN_SHARE: u64 = 20;

/// The forest of an answer; nodes have the index of their span.
#[derive(Debug)]
pub(super) struct Forest {
    /// Roots, the tree with the biggest gap first.
    pub(super) roots: Vec<usize>,
    pub(super) nodes: Vec<Node>,
}

/// A span's place in the forest.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// Children, the subtree with the biggest gap first.
    pub(super) children: Vec<usize>,
    /// Spans below it, at any depth.
    pub(super) below: u64,
    /// Itself or something below it is worth breaking down.
    pub(super) shown: bool,
    /// The biggest gap of itself and of everything below it.
    biggest_gap_ns: u64,
}

impl Forest {
    pub(super) fn of(spans: &[SpanAnswer]) -> Forest {
        let claimed = claimed_children(spans);
        let mut forest = Forest {
            roots: Vec::new(),
            nodes: vec![Node::default(); spans.len()],
        };
        let mut placed = vec![false; spans.len()];
        let mut order = Vec::with_capacity(spans.len());
        // First the true roots; then what only rings lead to, the biggest gap of each ring first.
        let mut starts: Vec<usize> = (0..spans.len()).collect();
        starts.sort_by_key(|&at| (claimed.has_parent[at], Reverse(spans[at].head.gap_ns)));
        for start in starts {
            if placed[start] {
                continue;
            }
            forest.roots.push(start);
            forest.grow(start, spans, &claimed, &mut placed, &mut order);
        }
        forest.sum_up(spans, &order);
        forest
    }

    /// Places everything that `start` leads to; `order` has parents before their children.
    fn grow(
        &mut self,
        start: usize,
        spans: &[SpanAnswer],
        claimed: &Claimed,
        placed: &mut [bool],
        order: &mut Vec<(usize, Option<usize>)>,
    ) {
        let root_ns = spans[start].head.wall_ns;
        placed[start] = true;
        let mut waiting = VecDeque::from([(start, None)]);
        while let Some((at, parent)) = waiting.pop_front() {
            order.push((at, parent));
            self.nodes[at].shown = is_worth_showing(&spans[at], root_ns);
            for &child in &claimed.children[at] {
                if !placed[child] {
                    placed[child] = true;
                    self.nodes[at].children.push(child);
                    waiting.push_back((child, Some(at)));
                }
            }
        }
    }

    /// From the leaves up: counts, biggest gaps, and the order that follows from them.
    fn sum_up(&mut self, spans: &[SpanAnswer], order: &[(usize, Option<usize>)]) {
        for &(at, parent) in order.iter().rev() {
            let mut node = std::mem::take(&mut self.nodes[at]);
            node.biggest_gap_ns = node.biggest_gap_ns.max(spans[at].head.gap_ns);
            self.sort(&mut node.children, spans);
            if let Some(parent) = parent {
                let parent = &mut self.nodes[parent];
                parent.below += 1 + node.below;
                parent.shown |= node.shown;
                parent.biggest_gap_ns = parent.biggest_gap_ns.max(node.biggest_gap_ns);
            }
            self.nodes[at] = node;
        }
        let mut roots = std::mem::take(&mut self.roots);
        self.sort(&mut roots, spans);
        self.roots = roots;
    }

    fn sort(&self, siblings: &mut [usize], spans: &[SpanAnswer]) {
        siblings.sort_by_key(|&at| {
            (
                Reverse(self.nodes[at].biggest_gap_ns),
                spans[at].head.start_unix_ns,
            )
        });
    }
}

/// Who says to be whose child.
struct Claimed {
    children: Vec<Vec<usize>>,
    has_parent: Vec<bool>,
}

fn claimed_children(spans: &[SpanAnswer]) -> Claimed {
    let mut by_id: HashMap<(&str, &str), usize> = HashMap::new();
    for (at, span) in spans.iter().enumerate() {
        // Of two spans with one id the first has the children.
        by_id
            .entry((&span.head.trace_id, &span.head.span_id))
            .or_insert(at);
    }
    let mut claimed = Claimed {
        children: vec![Vec::new(); spans.len()],
        has_parent: vec![false; spans.len()],
    };
    for (at, span) in spans.iter().enumerate() {
        let parent = by_id.get(&(
            span.head.trace_id.as_str(),
            span.head.parent_span_id.as_str(),
        ));
        if let Some(&parent) = parent.filter(|&&parent| parent != at) {
            claimed.children[parent].push(at);
            claimed.has_parent[at] = true;
        }
    }
    claimed
}

/// A gap that matters beside its root.
fn is_worth_showing(span: &SpanAnswer, root_ns: u64) -> bool {
    let gap_ns = span.head.gap_ns;
    gap_ns > 0 && gap_ns >= root_ns / SHOWN_SHARE
}
