// SPDX-License-Identifier: Apache-2.0
//! The decoders against `opentelemetry-proto`: whatever bytes it understands, we understand as the
//! same spans; and no bytes at all do anything worse than being refused.

use std::convert::Infallible;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::ArrayValue;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use prost::Message;

use super::support::Chance;
use super::support::attribute;
use super::support::now_unix_ns;
use crate::otlp::Format;
use crate::otlp::SpanIn;
use crate::otlp::decode;
use crate::otlp::intake::Intake;
use crate::otlp::span::ResourceIn;
use crate::otlp::span::SpanDraft;
use crate::otlp::span::SpanKind;
use crate::otlp::span::Value;
use crate::otlp::span::bounded;

const KEYS: [&str; 12] = [
    "service.name",
    "service.instance.id",
    "process.pid",
    "host.name",
    "container.id",
    "thread.id",
    "thread.native_id",
    "os.thread.id",
    "thread.name",
    "net.peer.port",
    "client.port",
    "other",
];

fn any_request(chance: &mut Chance) -> ExportTraceServiceRequest {
    let resource_spans = (0..chance.below(3)).map(|_| ResourceSpans {
        resource: (!chance.one_in(4)).then(|| Resource {
            attributes: attributes(chance),
            ..Resource::default()
        }),
        scope_spans: (0..chance.below(3))
            .map(|_| ScopeSpans {
                scope: (!chance.one_in(4)).then(|| InstrumentationScope {
                    name: any_text(chance),
                    ..InstrumentationScope::default()
                }),
                spans: (0..chance.below(4)).map(|_| any_span(chance)).collect(),
                schema_url: any_text(chance),
            })
            .collect(),
        schema_url: any_text(chance),
    });
    ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    }
}

fn any_span(chance: &mut Chance) -> Span {
    let start = now_unix_ns() - 1_000_000_000 + chance.below(1_000) as u64;
    let id = |chance: &mut Chance, length| match chance.below(8) {
        0 => vec![0; length],
        1 => chance.bytes(length - 1),
        2 => Vec::new(),
        _ => chance.bytes(length),
    };
    Span {
        trace_id: id(chance, 16),
        span_id: id(chance, 8),
        trace_state: any_text(chance),
        parent_span_id: id(chance, 8),
        flags: chance.number() as u32,
        name: any_text(chance),
        kind: chance.below(8) as i32 - 1,
        start_time_unix_nano: if chance.one_in(9) { 0 } else { start },
        end_time_unix_nano: start + chance.below(1_000) as u64 - 100,
        attributes: attributes(chance),
        events: vec![Event {
            attributes: attributes(chance),
            ..Event::default()
        }],
        status: Some(Status {
            message: any_text(chance),
            code: 2,
        }),
        ..Span::default()
    }
}

fn any_text(chance: &mut Chance) -> String {
    let parts = ["", "a", "é", "\u{10FFFF}", "GET /x", "\\\"\n"];
    (0..chance.below(100))
        .map(|_| chance.pick(&parts))
        .collect()
}

fn attributes(chance: &mut Chance) -> Vec<KeyValue> {
    (0..chance.below(6))
        .map(|_| attribute(chance.pick(&KEYS), any_value(chance)))
        .collect()
}

fn any_value(chance: &mut Chance) -> Option<any_value::Value> {
    match chance.below(8) {
        0 => None,
        1 => Some(any_value::Value::BoolValue(true)),
        2 => Some(any_value::Value::DoubleValue(0.5)),
        3 => Some(any_value::Value::ArrayValue(ArrayValue {
            values: vec![AnyValue::default()],
        })),
        4 => Some(any_value::Value::IntValue(chance.number().cast_signed())),
        5 => Some(any_value::Value::IntValue(chance.below(70_000) as i64)),
        6 => Some(any_value::Value::StringValue(
            chance.below(70_000).to_string(),
        )),
        _ => Some(any_value::Value::StringValue(any_text(chance))),
    }
}

/// What a decoded message means, by the plainest possible way through it.
fn expected(request: &ExportTraceServiceRequest) -> (Vec<SpanIn>, u64) {
    let mut intake = Intake::at(now_unix_ns());
    for part in &request.resource_spans {
        let mut resource = ResourceIn::default();
        for attribute in part
            .resource
            .iter()
            .flat_map(|resource| &resource.attributes)
        {
            resource.set(attribute.key.as_bytes(), &value(attribute));
        }
        let resource = Arc::new(resource);
        for scoped in &part.scope_spans {
            let name = scoped.scope.as_ref().map_or("", |scope| &scope.name);
            let scope: Arc<str> = bounded(name.as_bytes()).into();
            for span in &scoped.spans {
                let Ok(()) =
                    intake.admit(|| Ok::<_, Infallible>(draft(span).finish(&scope, &resource)));
            }
        }
    }
    let (spans, refused) = intake.finish();
    (spans, refused.total())
}

fn draft(span: &Span) -> SpanDraft {
    let mut draft = SpanDraft {
        trace_id: span.trace_id.clone().try_into().unwrap_or_default(),
        span_id: span.span_id.clone().try_into().unwrap_or_default(),
        parent_span_id: span
            .parent_span_id
            .clone()
            .try_into()
            .ok()
            .filter(|id| *id != [0; 8]),
        name: bounded(span.name.as_bytes()).into(),
        kind: SpanKind::from_number(span.kind),
        start_unix_ns: span.start_time_unix_nano,
        end_unix_ns: span.end_time_unix_nano,
        ..SpanDraft::default()
    };
    for attribute in &span.attributes {
        draft.set(attribute.key.as_bytes(), &value(attribute));
    }
    draft
}

fn value(attribute: &KeyValue) -> Value<'_> {
    match attribute
        .value
        .as_ref()
        .and_then(|value| value.value.as_ref())
    {
        Some(any_value::Value::StringValue(text)) => Value::Text(text.as_bytes().into()),
        Some(any_value::Value::IntValue(number)) => Value::Int(*number),
        _ => Value::Other,
    }
}

fn assert_same(format: Format, bytes: &[u8], request: &ExportTraceServiceRequest, seed: u64) {
    let decoded = decode(format, bytes).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    let (spans, refused) = expected(request);
    assert_eq!(decoded.spans, spans, "seed {seed}");
    assert_eq!(decoded.refused.total(), refused, "seed {seed}");
}

#[test]
fn any_request_is_the_same_in_protobuf_and_json() {
    let mut spans = 0;
    for seed in 0..2_000 {
        let request = any_request(&mut Chance::new(seed));
        assert_same(Format::Protobuf, &request.encode_to_vec(), &request, seed);
        assert_same(
            Format::Json,
            &serde_json::to_vec(&request).unwrap(),
            &request,
            seed,
        );
        spans += expected(&request).0.len();
    }
    assert!(spans > 500, "only {spans} spans were good");
}

/// Changes a few bytes, cuts some out, or puts some in.
fn damaged(chance: &mut Chance, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=chance.below(3) {
        let at = chance.below(bytes.len() + 1);
        match chance.below(5) {
            0 => bytes.truncate(at),
            1 => {
                let length = chance.below(12);
                bytes.splice(at..at, chance.bytes(length));
            }
            2 => {
                let end = (at + chance.below(12)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            _ => {}
        }
    }
    bytes
}

#[test]
fn damaged_protobuf_means_the_same_to_both_or_is_refused() {
    let (mut understood, mut refused) = (0, 0);
    for seed in 0..30_000 {
        let chance = &mut Chance::new(seed);
        let whole = any_request(chance).encode_to_vec();
        let bytes = damaged(chance, whole);
        let Ok(request) = ExportTraceServiceRequest::decode(&bytes[..]) else {
            // It may still be understood: what is stepped over is not checked.
            refused += u32::from(decode(Format::Protobuf, &bytes).is_err());
            continue;
        };
        match decode(Format::Protobuf, &bytes) {
            // The one thing that it reads and we do not: groups.
            Err(why) if why.ends_with("wire type 3") => {}
            _ => assert_same(Format::Protobuf, &bytes, &request, seed),
        }
        understood += 1;
    }
    assert!(
        understood > 1_000 && refused > 1_000,
        "{understood} understood, {refused} refused"
    );
}

#[test]
fn random_bytes_and_damaged_json_are_survived() {
    let mut refused = 0;
    for seed in 0..10_000 {
        let chance = &mut Chance::new(seed);
        let length = chance.below(300);
        let noise = chance.bytes(length);
        refused += u32::from(decode(Format::Protobuf, &noise).is_err());
        let whole = serde_json::to_vec(&any_request(chance)).unwrap();
        let json = damaged(chance, whole);
        refused += u32::from(decode(Format::Json, &json).is_err());
        refused += u32::from(decode(Format::JsonLines, &noise).is_err());
    }
    assert!(refused > 10_000, "only {refused} refused");
}
