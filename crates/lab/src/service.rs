// SPDX-License-Identifier: Apache-2.0
//! A small traced service: it makes spans and sends them, as a program with an SDK would.
//!
//! Each span says which kernel thread made it (`thread.native_id`, as several SDKs do). The agent
//! believes that only for kinds of span for which it was borne out some twenty times, so a service
//! serves quick requests first, like a real one.

use anyhow::Result;
use rustix::process::getpid;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::meter::Reading;
use crate::meter::tid;
use crate::otlp::Exporter;

/// Quick requests before the one that counts.
pub(crate) const WARM_UP: u32 = 100;

/// A service that sends its spans to an agent.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    exporter: Exporter,
    spans: Vec<Value>,
    made: u64,
}

/// Which span it was, and who ran it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SpanId {
    /// 32 hexadecimal digits.
    pub(crate) trace_id: String,
    /// 16 hexadecimal digits.
    pub(crate) span_id: String,
    /// The kernel's id of the thread.
    pub(crate) tid: u32,
}

impl Service {
    /// Connects to the agent.
    pub(crate) fn connect(name: &'static str, port: u16) -> Result<Self> {
        Ok(Self {
            name,
            exporter: Exporter::connect(port)?,
            spans: Vec::new(),
            made: 0,
        })
    }

    /// A root span of the calling thread, from one of its readings to another; sent by
    /// [`Service::export`].
    pub(crate) fn span(&mut self, kind: &str, begin: &Reading, end: &Reading) -> SpanId {
        self.made += 1;
        let pid = getpid().as_raw_nonzero();
        let span = SpanId {
            // No two of one lab are alike: processes live at once, or begin at another instant.
            trace_id: format!("{pid:08x}{:016x}{:08x}", begin.unix_ns, self.made),
            span_id: format!("{pid:08x}{:08x}", self.made),
            tid: tid(),
        };
        self.spans.push(json!({
            "traceId": span.trace_id,
            "spanId": span.span_id,
            "name": kind,
            "kind": 2,
            "startTimeUnixNano": begin.unix_ns.to_string(),
            "endTimeUnixNano": end.unix_ns.to_string(),
            "attributes": [{"key": "thread.native_id", "value": {"intValue": span.tid.to_string()}}],
        }));
        span
    }

    /// Sends the spans that were made since it last did.
    pub(crate) fn export(&mut self) -> Result<()> {
        let pid = getpid().as_raw_nonzero().to_string();
        let request = json!({"resourceSpans": [{
            "resource": {"attributes": [
                {"key": "service.name", "value": {"stringValue": self.name}},
                {"key": "process.pid", "value": {"intValue": pid}},
            ]},
            "scopeSpans": [{"scope": {"name": "lacuna.lab"}, "spans": self.spans}],
        }]});
        self.spans.clear();
        self.exporter.export(&request)
    }
}
