// SPDX-License-Identifier: Apache-2.0
//! What both transports do with a request's bytes: decode, check, count, pass on.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use axum::Router;

use super::BODIES_BYTES_MAX;
use super::BODY_TIME_MAX;
use super::FIRST_ANSWER_TIME_MAX;
use super::REQUEST_BYTES_MAX;
use super::counters::OtlpCounters;
use super::counters::Outcome;
use super::counters::Transport;
use super::exporter::Exporter;
use super::grpc;
use super::http;
use super::intake::Intake;
use super::intake::Refused;
use super::json;
use super::protobuf;
use super::queue::Done;
use super::queue::Sink;
use super::span::SpanIn;
use crate::serve::BodyError;
use crate::serve::BodyReader;
use crate::serve::Connection;
use crate::serve::Ordinal;

/// How a request's spans are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// Protobuf.
    Protobuf,
    /// OTLP/JSON, one request.
    Json,
    /// OTLP/JSON, any number of requests one after the other, as files have it.
    JsonLines,
}

impl Format {
    /// By content type, parameters left aside; nothing for another one.
    pub(crate) fn from_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/x-protobuf") {
            Some(Self::Protobuf)
        } else if essence.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }
}

/// The spans of a request that were taken, and how many were not.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// In the order of the request.
    pub(crate) spans: Vec<SpanIn>,
    /// By reason.
    pub(crate) refused: Refused,
}

/// The spans of an `ExportTraceServiceRequest`.
///
/// # Errors
/// What is wrong with the bytes, in words, where they are no such message.
pub(crate) fn decode(format: Format, bytes: &[u8]) -> Result<Decoded, String> {
    let mut intake = Intake::at(now_unix_ns());
    match format {
        Format::Protobuf => protobuf::request(bytes, &mut intake)
            .map_err(|why| format!("not an OTLP trace request in protobuf: {why}"))?,
        Format::Json => json::request(bytes, &mut intake)
            .map_err(|why| format!("not an OTLP trace request in JSON: {why}"))?,
        Format::JsonLines => json::requests(bytes, &mut intake)
            .map_err(|why| format!("not OTLP trace requests in JSON: {why}"))?,
    }
    let (spans, refused) = intake.finish();
    Ok(Decoded { spans, refused })
}

fn now_unix_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A request that was taken, and not yet answered.
#[derive(Debug)]
pub(super) struct Taken {
    refused: Refused,
    done: Option<Done>,
}

/// Why a request was not taken.
#[derive(Debug)]
pub(super) enum Reject {
    /// Its bytes could not be had.
    Body(BodyError),
    /// They are no request.
    Malformed(String),
    /// The queue has no room for its spans.
    QueueFull,
    /// It is not what is served here, in words.
    Unsupported(String),
}

impl Reject {
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Body(BodyError::TooLarge(_)) => Outcome::TooLarge,
            Self::Body(BodyError::Overloaded) | Self::QueueFull => Outcome::Overloaded,
            Self::Body(BodyError::TimedOut(_) | BodyError::Aborted) => Outcome::Unfinished,
            Self::Body(BodyError::NotGzip(_)) | Self::Malformed(_) => Outcome::Malformed,
            Self::Unsupported(_) => Outcome::Unsupported,
        }
    }
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Body(why) => why.fmt(f),
            Self::Malformed(why) | Self::Unsupported(why) => f.write_str(why),
            Self::QueueFull => f.write_str("the span queue is full; try again in a second"),
        }
    }
}

/// Takes export requests and puts their spans into a queue; clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(super) bodies: BodyReader,
    first_answer_time: Duration,
    sink: Sink,
    counters: Arc<OtlpCounters>,
}

impl Receiver {
    /// A receiver with the limits of this module.
    pub(crate) fn new(sink: Sink, counters: Arc<OtlpCounters>) -> Self {
        let bodies = BodyReader::new(REQUEST_BYTES_MAX, BODIES_BYTES_MAX, BODY_TIME_MAX);
        Self {
            bodies,
            first_answer_time: FIRST_ANSWER_TIME_MAX,
            sink,
            counters,
        }
    }

    /// The same with other limits on bodies, and another [`FIRST_ANSWER_TIME_MAX`].
    #[cfg(test)]
    pub(super) fn with(self, bodies: Option<BodyReader>, first_answer_time: Duration) -> Self {
        Self {
            bodies: bodies.unwrap_or(self.bodies),
            first_answer_time,
            ..self
        }
    }

    /// The gRPC service; to be served as HTTP/2.
    pub(crate) fn grpc(&self) -> Router {
        grpc::router(self.clone())
    }

    /// The HTTP service; to be served as HTTP/1.
    pub(crate) fn http(&self) -> Router {
        http::router(self.clone())
    }

    /// Decodes a request and puts its spans into the queue.
    pub(super) fn take(
        &self,
        (connection, exporter): (Connection, Exporter),
        format: Format,
        bytes: &[u8],
    ) -> Result<Taken, Reject> {
        let Decoded { spans, refused } = decode(format, bytes).map_err(Reject::Malformed)?;
        let taken = spans.len();
        self.counters.count_decoded(taken, &refused);
        if taken == 0 {
            return Ok(Taken {
                refused,
                done: None,
            });
        }
        let Ok(done) = self.sink.put(connection, exporter, spans) else {
            self.counters.count_dropped(taken);
            return Err(Reject::QueueFull);
        };
        self.counters.count_accepted(taken);
        Ok(Taken {
            refused,
            done: Some(done),
        })
    }

    /// Counts a request, and waits until it may be answered, which is at once for all but a
    /// connection's first. Counted first: its sender may be gone by then, and this with it.
    pub(super) async fn settle(
        &self,
        transport: Transport,
        ordinal: Ordinal,
        result: Result<Taken, Reject>,
    ) -> Result<Refused, Reject> {
        self.count(transport, result.as_ref().map(|taken| &taken.refused));
        let taken = result?;
        if let (Ordinal(0), Some(done)) = (ordinal, taken.done) {
            // Whether it is done with or the time is over, the answer is the same.
            let _ = tokio::time::timeout(self.first_answer_time, done).await;
        }
        Ok(taken.refused)
    }

    /// Counts what became of a request.
    pub(super) fn count(&self, transport: Transport, result: Result<&Refused, &Reject>) {
        let outcome = match result {
            Ok(refused) if refused.total() == 0 => Outcome::Accepted,
            Ok(_) => Outcome::Partial,
            Err(reject) => reject.outcome(),
        };
        self.counters.count_request(transport, outcome);
    }
}
