// SPDX-License-Identifier: Apache-2.0
//! Spans to send: made by hand, so that each of them can be wrong in its own way.

use std::io::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// Ids are numbers, so no two spans of this process have the same.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Now, as a span's clock says it.
pub(crate) fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_nanos()).expect("before 2554")
}

/// An attribute with a number.
pub(crate) fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

/// An attribute with a text.
pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// A root span with a trace of its own.
pub(crate) fn span(name: &str, start_unix_ns: u64, end_unix_ns: u64) -> Span {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let trace = u128::from(std::process::id()) << 64 | u128::from(number);
    Span {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: number.to_be_bytes().to_vec(),
        name: name.to_owned(),
        start_time_unix_nano: start_unix_ns,
        end_time_unix_nano: end_unix_ns,
        ..Span::default()
    }
}

/// A span that was over a second ago.
pub(crate) fn past_span(name: &str) -> Span {
    let end = now_unix_ns() - 1_000_000_000;
    span(name, end - 5_000_000, end)
}

/// The trace id as users write it.
pub(crate) fn trace_id(span: &Span) -> String {
    span.trace_id.iter().map(|b| format!("{b:02x}")).collect()
}

/// A request with spans of one service, in protobuf.
pub(crate) fn request(service: &str, process_pid: Option<u32>, spans: Vec<Span>) -> Vec<u8> {
    let mut attributes = vec![text("service.name", service)];
    attributes.extend(process_pid.map(|pid| number("process.pid", pid.into())));
    let resource = Resource {
        attributes,
        ..Resource::default()
    };
    let scope = ScopeSpans {
        spans,
        ..ScopeSpans::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope],
        ..ResourceSpans::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![resource_spans],
    };
    request.encode_to_vec()
}

/// The same bytes, gzipped.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}
