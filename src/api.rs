// SPDX-License-Identifier: Apache-2.0
//! Questions and answers: the HTTP API of the agent, and the client that `lacuna explain` asks with.
//!
//! The server finds out who asks and what, and hands the question to whoever implements
//! [`Answers`]; it knows nothing about spans but how they are written. Errors are JSON as well:
//! `{"error":"..."}`, with a status that tells whose fault it was.

mod client;
mod guard;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use client::Agent;
pub(crate) use client::AgentError;
pub(crate) use server::Answers;
pub(crate) use server::SpansQuery;
pub(crate) use server::router;

use std::time::Duration;

use crate::serve::Limits;

/// Connections at once, and so questions, because each is answered before the next is read; and how
/// long one may take to be asked.
pub(crate) const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(30),
};

/// Bytes of the spans that one question may bring.
pub(crate) const QUESTION_BYTES_MAX: usize = 16 << 20;

/// Bytes that all questions may bring together; beyond it 503.
pub(crate) const QUESTIONS_BYTES_MAX: usize = 48 << 20;

/// How long the spans of a question may take to arrive; then 408.
pub(crate) const QUESTION_TIME_MAX: Duration = Duration::from_secs(10);

/// Spans that one question may ask about: each is explained anew; beyond it 413.
pub(crate) const QUESTION_SPANS_MAX: usize = 10_000;

/// How long an answer is waited for where the question does not say: the horizon is a second behind at most.
pub(crate) const WAIT_DEFAULT: Duration = Duration::from_secs(10);

/// How long a question may ask to wait.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// Spans in a list where the question does not say, and at most.
pub(crate) const LIST_DEFAULT: usize = 100;
/// See [`LIST_DEFAULT`].
pub(crate) const LIST_MAX: usize = 10_000;

/// Bytes of an answer that the client reads; a larger one is an error.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 20;
