// SPDX-License-Identifier: Apache-2.0
//! OTLP in: spans that applications export, over gRPC and HTTP, as plain facts.
//!
//! This is the only module that knows OTLP's formats. What leaves it is a [`Batch`] of [`SpanIn`],
//! into a bounded queue, with the connection that it came over. Nothing is decided here about what a
//! span means, and no field is kept that nothing asks for.
//!
//! The bytes are hostile. Decoders walk them in place and build nothing but spans, so memory is
//! bounded by the limits below and not by what a message claims; they run on threads without
//! privilege (see [`crate::serve::runtime`]). Each span that arrives is accepted, refused for a
//! reason, or dropped because the queue is full: all are counted, and the sender is told.

mod counters;
mod exporter;
mod grpc;
pub(crate) mod hex;
mod http;
mod intake;
mod json;
mod protobuf;
mod queue;
mod receiver;
mod reply;
mod span;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use counters::OtlpCounters;
pub(crate) use counters::Outcome;
pub(crate) use counters::Transport;
pub(crate) use exporter::Exporter;
pub(crate) use http::kind;
pub(crate) use intake::Refusal;
pub(crate) use intake::Refused;
pub(crate) use queue::Batch;
pub(crate) use queue::Sink;
pub(crate) use queue::queue;
pub(crate) use receiver::Decoded;
pub(crate) use receiver::Format;
pub(crate) use receiver::Receiver;
pub(crate) use receiver::decode;
pub(crate) use span::ResourceIn;
pub(crate) use span::SpanIn;
pub(crate) use span::SpanKind;

/// Bytes of one request, as sent and again as gunzipped. An exporter's default batch of 512 spans is
/// some 300 KiB; a larger request is answered with 413 or `RESOURCE_EXHAUSTED`.
pub(crate) const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Bytes that all requests of one receiver may hold together; beyond it 503 or `UNAVAILABLE`, and the client tries again.
pub(crate) const BODIES_BYTES_MAX: usize = 64 << 20;

/// How long the body of a request may take to arrive; then 408 or `DEADLINE_EXCEEDED`.
pub(crate) const BODY_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// How long the first request of a connection waits for its batch to be done with before it is
/// answered. A program that exports as it ends is gone the moment it has its answer, and with it
/// whatever could say which process it was; one that stays pays this once, on its exporter's thread.
pub(crate) const FIRST_ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_millis(250);

/// Spans of one request that are looked at; the rest are refused as [`Refusal::TooMany`].
pub(crate) const REQUEST_SPANS_MAX: usize = 65_536;

/// Spans that wait in the queue; a batch that finds no room is dropped, counted, and answered with
/// 503 or `UNAVAILABLE`. Some 60 MB; at the budget of 50,000 spans a second, 4 seconds.
pub(crate) const QUEUE_SPANS_MAX: usize = 200_000;

/// Batches that wait in the queue; the same happens beyond it.
pub(crate) const QUEUE_BATCHES_MAX: usize = 4_096;

/// Bytes kept of a span's, scope's or thread's name and of an attribute; the rest is cut off.
pub(crate) const TEXT_BYTES_MAX: usize = 256;

/// How far a span may end after this host's now. A clock that is wrong by less is for the join to
/// judge; one that is wrong by more says nothing at all.
pub(crate) const FUTURE_NS_MAX: u64 = 24 * 3_600 * 1_000_000_000;
