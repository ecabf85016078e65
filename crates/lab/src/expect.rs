// SPDX-License-Identifier: Apache-2.0
//! What must be said of a span: plain data, without a judgement.
//!
//! Causes are given by their public names. The rows of a span together are all that went on in it;
//! whatever an answer says beside them is wrong as far as it is more than a trifle.

use std::ops::RangeInclusive;

/// A span of a scenario, and what is true of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expectation {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The thread that ran it.
    pub tid: u32,
    /// What its time went to; the first is what the scenario is about.
    pub rows: Vec<Row>,
}

/// An amount of time, and who is to blame for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The cause, by its public name; of several the sum.
    pub causes: &'static [&'static str],
    /// Where the answer must say so.
    pub place: Place,
    /// How much, nanoseconds.
    pub truth_ns: u64,
    /// What says so.
    pub truth_from: &'static str,
    /// What else must be said of it.
    pub musts: Vec<Must>,
}

/// A part of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// The gap's causes.
    Gap,
    /// The chain of that cause: the link of this thread.
    Chain {
        /// Whose chain, by its public name.
        of: &'static str,
        /// The thread of the link.
        tid: u32,
        /// `held` or `woke`.
        how: &'static str,
    },
}

/// Something that must be said beside an amount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Must {
    /// Not a nanosecond of it may be said.
    Nothing,
    /// Those with this in their names are blamed.
    Blame {
        /// A part of the culprit's name.
        name: String,
        /// From how much to how much of the time was theirs, nanoseconds: no more may be said, and no
        /// less but for what the answer names nobody for. Where there is no truth of that, they must
        /// have most of the time.
        truth_ns: Option<RangeInclusive<u64>>,
    },
    /// Of this time so much fell within another span of that name, nanoseconds.
    Within {
        /// The other span's name.
        span: &'static str,
        /// How much.
        truth_ns: u64,
    },
    /// The evidence of that name has this in it.
    Evidence {
        /// `object`, `call`, or any other key.
        key: &'static str,
        /// A part of its text.
        text: String,
    },
}

impl Row {
    /// A row of the gap.
    pub fn of_gap(
        causes: &'static [&'static str],
        truth_ns: u64,
        truth_from: &'static str,
    ) -> Self {
        Self {
            causes,
            place: Place::Gap,
            truth_ns,
            truth_from,
            musts: Vec::new(),
        }
    }

    /// The same row, of which something else must be said too.
    #[must_use]
    pub fn must(mut self, must: Must) -> Self {
        self.musts.push(must);
        self
    }
}
