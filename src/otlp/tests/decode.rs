// SPDX-License-Identifier: Apache-2.0
//! What a span becomes: every field that is asked for, by hand, from protobuf and from JSON.

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::ArrayValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;

use super::support::around;
use super::support::attribute;
use super::support::good;
use super::support::int;
use super::support::request;
use super::support::span;
use super::support::text;
use crate::otlp::Format;
use crate::otlp::Refusal;
use crate::otlp::SpanIn;
use crate::otlp::SpanKind;
use crate::otlp::TEXT_BYTES_MAX;
use crate::otlp::decode;

/// As an SDK's JSON exporter sends it: 64-bit numbers as strings, ids in hexadecimal.
const JSON_AS_SPECIFIED: &str = r#"{
  "resourceSpans": [{
    "resource": {
      "attributes": [
        {"key": "service.name", "value": {"stringValue": "my.service"}},
        {"key": "process.pid", "value": {"intValue": "4123"}},
        {"key": "telemetry.sdk.language", "value": {"stringValue": "nodejs"}},
        {"key": "process.command_args", "value": {"arrayValue": {"values": [{"stringValue": "x"}]}}}
      ],
      "droppedAttributesCount": 0
    },
    "scopeSpans": [{
      "scope": {"name": "my.library", "version": "1.0.0", "attributes": []},
      "spans": [{
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": "EEE19B7EC3C1B174",
        "parentSpanId": "eee19b7ec3c1b173",
        "name": "I'm a server span",
        "startTimeUnixNano": "1544712660000000000",
        "endTimeUnixNano": "1544712661000000000",
        "kind": 2,
        "attributes": [
          {"key": "my.span.attr", "value": {"stringValue": "some value"}},
          {"key": "thread.id", "value": {"intValue": "17"}},
          {"key": "thread.name", "value": {"stringValue": "http-\u0077orker"}},
          {"key": "net.peer.port", "value": {"intValue": 41234}}
        ],
        "events": [{"timeUnixNano": "1544712660300000000", "name": "e"}],
        "links": [],
        "status": {"code": 1},
        "flags": 257
      }],
      "schemaUrl": "https://example.com"
    }]
  }]
}"#;

fn one(format: Format, bytes: &[u8]) -> SpanIn {
    let decoded = decode(format, bytes).unwrap();
    assert_eq!((decoded.spans.len(), decoded.refused.total()), (1, 0));
    decoded.spans[0].clone()
}

#[test]
fn json_as_the_specification_says() {
    let span = one(Format::Json, JSON_AS_SPECIFIED.as_bytes());
    assert_eq!(
        span.trace_id,
        0x5B8E_FFF7_9803_8103_D269_B633_813F_C60C_u128.to_be_bytes()
    );
    assert_eq!(span.span_id, 0xEEE1_9B7E_C3C1_B174_u64.to_be_bytes());
    assert_eq!(
        span.parent_span_id,
        Some(0xEEE1_9B7E_C3C1_B173_u64.to_be_bytes())
    );
    assert_eq!(&*span.name, "I'm a server span");
    assert_eq!(&*span.scope, "my.library");
    assert_eq!(span.kind, SpanKind::Server);
    assert_eq!(span.start_unix_ns, 1_544_712_660_000_000_000);
    assert_eq!(span.end_unix_ns, 1_544_712_661_000_000_000);
    assert_eq!(span.thread_id, Some(17));
    assert_eq!(span.thread_name.as_deref(), Some("http-worker"));
    assert_eq!(span.peer_port, Some(41_234));
    assert_eq!(span.resource.service_name.as_deref(), Some("my.service"));
    assert_eq!(span.resource.process_pid, Some(4_123));
    assert_eq!(span.resource.sdk_language.as_deref(), Some("nodejs"));
}

#[test]
fn json_with_numbers_as_numbers_and_nulls_and_any_order() {
    let json = r#"{"unknown": {"deep": [[[{"a": null}]]]}, "resourceSpans": [
        {"scopeSpans": [{"spans": [
            {"endTimeUnixNano": 1544712661000000000, "startTimeUnixNano": 1544712660000000000,
             "attributes": null, "kind": null, "parentSpanId": "", "name": null,
             "spanId": "eee19b7ec3c1b174", "traceId": "5b8efff798038103d269b633813fc60c"}],
            "scope": null}],
         "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "late"}},
                                     {"key": "host.id", "value": {}}, {"key": "host.name"}, {}]}},
        {"resource": null, "scopeSpans": null}, {}]}"#;
    let span = one(Format::Json, json.as_bytes());
    assert_eq!(span.parent_span_id, None);
    assert_eq!(span.kind, SpanKind::Unspecified);
    assert_eq!((&*span.name, &*span.scope), ("", ""));
    assert_eq!(span.end_unix_ns - span.start_unix_ns, 1_000_000_000);
    assert_eq!(span.resource.service_name.as_deref(), Some("late"));
    assert_eq!(span.resource.host_id, None);
}

#[test]
fn json_that_is_no_request_is_refused_with_a_reason() {
    for json in [
        "",
        "{",
        "[1",
        "\"text\"",
        "{\"resourceSpans\":3}",
        "{\"resourceSpans\":[3]}",
        "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"startTimeUnixNano\":\"soon\"}]}]}]}",
        "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"startTimeUnixNano\":-1}]}]}]}",
        "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"startTimeUnixNano\":1.5}]}]}]}",
        "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"name\":7}]}]}]}",
        "{}{}",
    ] {
        let error = decode(Format::Json, json.as_bytes()).unwrap_err();
        assert!(
            error.starts_with("not an OTLP trace request in JSON: "),
            "{json}: {error}"
        );
    }
    assert!(decode(Format::Json, b"{\"resourceSpans\":\"\xFF\"}").is_err());
}

#[test]
fn a_file_has_one_request_on_each_line() {
    let line = JSON_AS_SPECIFIED.replace('\n', " ");
    let other = line.replace("EEE19B7EC3C1B174", "0000000000000001");
    let decoded = decode(Format::JsonLines, format!("{line}\n{other}\n").as_bytes()).unwrap();
    assert_eq!(decoded.spans.len(), 2);
    assert!(decode(Format::JsonLines, format!("{line}\n{{").as_bytes()).is_err());
    assert!(decode(Format::JsonLines, b"").unwrap().spans.is_empty());
}

#[test]
fn the_thread_is_taken_from_the_attributes_that_name_it() {
    let mut sent = span(0);
    sent.attributes = vec![
        int("os.thread.id", 11),
        int("thread.native_id", 12),
        text("thread.id", "-5"),
        int("client.port", 1),
        int("net.peer.port", 2),
        text("network.peer.port", "3"),
    ];
    let received = one(
        Format::Protobuf,
        &request(vec![sent.clone()]).encode_to_vec(),
    );
    assert_eq!(received.os_thread_id, Some(12));
    assert_eq!(received.thread_id, Some(-5));
    assert_eq!(received.peer_port, Some(3));

    sent.attributes = vec![int("os.thread.id", 11), int("client.port", 1)];
    let received = one(
        Format::Protobuf,
        &request(vec![sent.clone()]).encode_to_vec(),
    );
    assert_eq!(
        (received.os_thread_id, received.peer_port),
        (Some(11), Some(1))
    );

    // What is out of range or of another type is not there.
    sent.attributes = vec![
        int("thread.native_id", -1),
        int("os.thread.id", 1 << 40),
        int("net.peer.port", 65_536),
        int("client.port", 0),
        attribute("thread.id", Some(Value::BoolValue(true))),
        attribute("thread.name", None),
    ];
    let received = one(Format::Protobuf, &request(vec![sent]).encode_to_vec());
    assert_eq!((received.os_thread_id, received.thread_id), (None, None));
    assert_eq!((received.peer_port, received.thread_name), (None, None));
}

#[test]
fn the_peers_port_is_taken_from_whichever_attribute_has_one() {
    let port = |attributes: Vec<_>| {
        let mut sent = span(0);
        sent.attributes = attributes;
        let bytes = request(vec![sent]).encode_to_vec();
        one(Format::Protobuf, &bytes).peer_port
    };
    let keys = [
        "client.port",
        "net.peer.port",
        "net.sock.peer.port",
        "network.peer.port",
    ];
    // Later ones go before earlier ones, in whatever order they come.
    for last in 0..keys.len() {
        let mut all: Vec<_> = (1..)
            .zip(keys)
            .take(last + 1)
            .map(|(n, key)| int(key, n))
            .collect();
        assert_eq!(port(all.clone()), Some(last as u16 + 1));
        all.reverse();
        assert_eq!(port(all), Some(last as u16 + 1));
    }
    // One that is no port leaves it to the others.
    for wrong in [
        int("network.peer.port", 0),
        int("network.peer.port", -443),
        int("network.peer.port", 65_536),
        int("network.peer.port", i64::MAX),
        text("network.peer.port", ""),
        text("network.peer.port", "https"),
        text("network.peer.port", "[2001:db8::1]:443"),
        text("network.peer.port", "99999999999999999999"),
        attribute("network.peer.port", Some(Value::DoubleValue(443.0))),
        attribute("network.peer.port", None),
    ] {
        assert_eq!(port(vec![wrong.clone()]), None, "{wrong:?}");
        let other = text("client.port", "65535");
        assert_eq!(port(vec![wrong.clone(), other]), Some(65_535), "{wrong:?}");
    }
    // A peer's name and its address are no ports.
    let name = [
        text("client.address", "1"),
        text("network.peer.address", "::1"),
    ];
    assert_eq!(port(name.into()), None);
}

/// An attribute whose value is sent in several parts.
fn in_parts(key: &str, parts: &[Value]) -> Vec<u8> {
    let key = around(0x0A, key.as_bytes());
    let value = |part: &Value| {
        AnyValue {
            value: Some(part.clone()),
        }
        .encode_to_vec()
    };
    let values = parts.iter().map(|part| around(0x12, &value(part)));
    [key].into_iter().chain(values).flatten().collect()
}

#[test]
fn of_a_message_in_several_parts_the_last_choice_holds() {
    let text = Value::StringValue("text".to_string());
    let list = Value::ArrayValue(ArrayValue::default());
    let cases = [
        (vec![text.clone(), Value::IntValue(5)], Some("5")),
        (vec![Value::IntValue(5), text.clone()], Some("text")),
        (vec![text.clone(), Value::BoolValue(true)], None),
        (
            vec![Value::IntValue(5), list, Value::DoubleValue(0.5)],
            None,
        ),
        (vec![Value::BytesValue(Vec::new()), text], Some("text")),
    ];
    for (parts, expected) in cases {
        // The resource comes in two parts, one of them after its spans.
        let whole = request(vec![span(0)]).resource_spans[0].encode_to_vec();
        let late = around(0x0A, &around(0x0A, &in_parts("host.name", &parts)));
        let received = one(Format::Protobuf, &around(0x0A, &[whole, late].concat()));
        assert_eq!(
            received.resource.host_name.as_deref(),
            expected,
            "{parts:?}"
        );
        assert_eq!(
            received.resource.service_name.as_deref(),
            Some("payments-api")
        );
    }
}

#[test]
fn the_resource_is_read_whole_and_shared() {
    let mut sent = good(3);
    let resource = sent.resource_spans[0].resource.as_mut().unwrap();
    resource.attributes = [
        "service.name",
        "service.instance.id",
        "process.executable.name",
        "process.executable.path",
        "host.name",
        "host.id",
        "container.id",
        "telemetry.sdk.language",
    ]
    .map(|key| text(key, &format!("the {key}")))
    .to_vec();
    resource.attributes.push(text("process.pid", "77"));
    let spans = decode(Format::Protobuf, &sent.encode_to_vec())
        .unwrap()
        .spans;
    assert!(std::sync::Arc::ptr_eq(
        &spans[0].resource,
        &spans[2].resource
    ));
    let resource = &spans[0].resource;
    assert_eq!(resource.service_name.as_deref(), Some("the service.name"));
    assert_eq!(
        resource.service_instance_id.as_deref(),
        Some("the service.instance.id")
    );
    assert_eq!(
        resource.executable_name.as_deref(),
        Some("the process.executable.name")
    );
    assert_eq!(
        resource.executable_path.as_deref(),
        Some("the process.executable.path")
    );
    assert_eq!(resource.host_name.as_deref(), Some("the host.name"));
    assert_eq!(resource.host_id.as_deref(), Some("the host.id"));
    assert_eq!(resource.container_id.as_deref(), Some("the container.id"));
    assert_eq!(
        resource.sdk_language.as_deref(),
        Some("the telemetry.sdk.language")
    );
    assert_eq!(resource.process_pid, Some(77));
}

#[test]
fn texts_are_bounded() {
    let long = "n".repeat(1_000_000);
    let mut sent = request(vec![span(0)]);
    let part = &mut sent.resource_spans[0];
    part.resource.as_mut().unwrap().attributes = vec![text("service.name", &long)];
    part.scope_spans[0]
        .scope
        .as_mut()
        .unwrap()
        .name
        .clone_from(&long);
    part.scope_spans[0].spans[0].name.clone_from(&long);
    part.scope_spans[0].spans[0].attributes = vec![text("thread.name", &long)];
    for (format, bytes) in [
        (Format::Protobuf, sent.encode_to_vec()),
        (Format::Json, serde_json::to_vec(&sent).unwrap()),
    ] {
        let received = one(format, &bytes);
        let expected = &long[..TEXT_BYTES_MAX];
        assert_eq!((&*received.name, &*received.scope), (expected, expected));
        assert_eq!(received.thread_name.as_deref(), Some(expected));
        assert_eq!(received.resource.service_name.as_deref(), Some(expected));
    }
}

#[test]
fn each_impossible_span_is_refused_for_its_reason_and_no_other_is() {
    let good = span(0);
    let edit = |index: u64, edit: fn(&mut opentelemetry_proto::tonic::trace::v1::Span)| {
        let mut bad = span(index);
        edit(&mut bad);
        bad
    };
    let day_ns = 24 * 3_600 * 1_000_000_000;
    let mut future = edit(9, |_| {});
    future.end_time_unix_nano += day_ns + 60_000_000_000;
    let mut soon = edit(10, |_| {});
    soon.end_time_unix_nano += day_ns - 60_000_000_000;
    let sent = request(vec![
        good.clone(),
        edit(1, |span| span.trace_id = vec![0; 16]),
        edit(2, |span| span.trace_id.truncate(15)),
        edit(3, |span| span.trace_id.clear()),
        edit(4, |span| span.span_id = vec![0; 8]),
        edit(5, |span| span.span_id.push(1)),
        edit(6, |span| span.start_time_unix_nano = 0),
        edit(7, |span| span.end_time_unix_nano = 0),
        edit(8, |span| {
            span.end_time_unix_nano = span.start_time_unix_nano - 1
        }),
        future,
        soon,
        edit(11, |span| span.end_time_unix_nano = u64::MAX),
        edit(12, |span| {
            span.end_time_unix_nano = span.start_time_unix_nano
        }),
        good,
    ]);
    for (format, bytes) in [
        (Format::Protobuf, sent.encode_to_vec()),
        (Format::Json, serde_json::to_vec(&sent).unwrap()),
    ] {
        let decoded = decode(format, &bytes).unwrap();
        let ids: Vec<_> = decoded
            .spans
            .iter()
            .map(|span| u64::from_be_bytes(span.span_id))
            .collect();
        assert_eq!(ids, [1, 11, 13], "{format:?}");
        let counts = Refusal::ALL.map(|reason| decoded.refused.of(reason));
        assert_eq!(counts, [3, 2, 2, 1, 2, 1, 0], "{format:?}");
        assert_eq!(
            decoded.refused.to_string(),
            "11 spans refused: 3 without a valid trace id, 2 without a valid span id, \
             2 without a start or end time, 1 ending before they start, \
             2 ending more than a day from now, 1 with the ids of another span of this request"
        );
    }
}
