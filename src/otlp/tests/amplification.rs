// SPDX-License-Identifier: Apache-2.0
//! Small bytes that would be large structures: what a decoder is made to build must not depend on
//! what a message claims.

use prost::Message;

use super::support::around;
use super::support::request;
use super::support::span;
use crate::otlp::Format;
use crate::otlp::REQUEST_BYTES_MAX;
use crate::otlp::REQUEST_SPANS_MAX;
use crate::otlp::Refusal;
use crate::otlp::decode;

/// A message of some `bytes` with nothing in it but the same element again and again, which the
/// given fields are around, innermost first.
fn filled(bytes: usize, element: &[u8], keys: &[u8]) -> Vec<u8> {
    let inner = element.repeat(bytes / element.len());
    keys.iter().fold(inner, |inner, &key| around(key, &inner))
}

/// The most memory that this process has ever had, bytes.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        * 1_024
}

#[test]
fn millions_of_empty_parts_cost_no_more_memory_than_their_bytes() {
    const BYTES: usize = REQUEST_BYTES_MAX - 100;
    let before = peak_bytes();
    // An empty span is two bytes here, and some 300 in the structures of a library.
    let spans = filled(BYTES, &[0x12, 0], &[0x12, 0x0A]);
    let decoded = decode(Format::Protobuf, &spans).unwrap();
    assert!(decoded.spans.is_empty());
    assert_eq!(
        decoded.refused.of(Refusal::TraceId),
        REQUEST_SPANS_MAX as u64
    );
    assert!(decoded.refused.of(Refusal::TooMany) > 8_000_000);

    let empty = "{},".repeat(1_000_000);
    let spans = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{empty}{{}}]}}]}}]}}"#);
    let decoded = decode(Format::Json, spans.as_bytes()).unwrap();
    assert!(decoded.refused.of(Refusal::TooMany) > 900_000);
    // The other tests of this process have their own memory, so the bound is wide; 2 GB are above it.
    let grown = peak_bytes() - before;
    assert!(grown < 1_000_000_000, "{grown} bytes");

    for (element, keys) in [
        (&[0x0A, 0][..], &[][..]),                           // resources
        (&[0x12, 0], &[0x0A]),                               // scopes
        (&[0x0A, 0], &[0x0A, 0x0A]),                         // attributes of a resource
        (&[0x4A, 0], &[0x12, 0x12, 0x0A]),                   // attributes of a span
        (&[0x5A, 0], &[0x12, 0x12, 0x0A]),                   // events of a span
        (&[0x0A, 0], &[0x2A, 0x12, 0x4A, 0x12, 0x12, 0x0A]), // a list in an attribute
    ] {
        let decoded = decode(Format::Protobuf, &filled(500_000, element, keys)).unwrap();
        assert!(decoded.spans.is_empty());
    }
    let resources = format!(r#"{{"resourceSpans":[{}{{}}]}}"#, "{},".repeat(100_000));
    assert!(
        decode(Format::Json, resources.as_bytes())
            .unwrap()
            .spans
            .is_empty()
    );
}

#[test]
fn depth_is_survived() {
    let deep = "[".repeat(1_000_000);
    assert!(
        decode(
            Format::Json,
            format!("{{\"resourceSpans\":{deep}").as_bytes()
        )
        .is_err()
    );
    assert!(decode(Format::Json, deep.as_bytes()).is_err());
    let closed = format!("{{\"x\":{deep}{}}}", "]".repeat(1_000_000));
    assert!(
        decode(Format::Json, closed.as_bytes())
            .unwrap()
            .spans
            .is_empty()
    );
    // Lists in lists in an attribute of a span.
    let lists = [0x0A, 0x2A].repeat(3_000);
    let keys = [&lists[..], &[0x12, 0x4A, 0x12, 0x12, 0x0A]].concat();
    let mut bytes = request(vec![span(0)]).encode_to_vec();
    bytes.extend(filled(2, &[0x0A, 0], &keys));
    assert_eq!(decode(Format::Protobuf, &bytes).unwrap().spans.len(), 1);
}
