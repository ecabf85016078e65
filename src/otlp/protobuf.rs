// SPDX-License-Identifier: Apache-2.0
//! `ExportTraceServiceRequest` as protobuf, into an [`Intake`].
//!
//! Field numbers are those of opentelemetry-proto v1 (`collector/trace/v1`, `trace/v1`,
//! `resource/v1`, `common/v1`), which are stable. Fields may come in any order and a message in
//! several parts, as protobuf allows: a part's resource and scope are therefore looked up before its
//! spans are read. What is not asked for is stepped over and not checked.

use std::borrow::Cow;
use std::sync::Arc;

use super::intake::Intake;
use super::span::ResourceIn;
use super::span::SpanDraft;
use super::span::SpanKind;
use super::span::Value;
use super::span::bounded;
use super::wire::Fields;
use super::wire::Malformed;

/// Reads the spans of a request.
///
/// # Errors
/// When the bytes are no such message; what was read before is then to be forgotten.
pub(super) fn request(bytes: &[u8], intake: &mut Intake) -> Result<(), Malformed> {
    for field in Fields::of(bytes) {
        let field = field?;
        if field.number == 1 {
            resource_spans(field.bytes()?, intake)?;
        }
    }
    Ok(())
}

fn resource_spans(bytes: &[u8], intake: &mut Intake) -> Result<(), Malformed> {
    let mut resource = ResourceIn::default();
    for field in Fields::of(bytes) {
        let field = field?;
        if field.number == 1 {
            attributes(field.bytes()?, 1, &mut |key, value| {
                resource.set(key, value)
            })?;
        }
    }
    let resource = Arc::new(resource);
    for field in Fields::of(bytes) {
        let field = field?;
        if field.number == 2 {
            scope_spans(field.bytes()?, &resource, intake)?;
        }
    }
    Ok(())
}

fn scope_spans(
    bytes: &[u8],
    resource: &Arc<ResourceIn>,
    intake: &mut Intake,
) -> Result<(), Malformed> {
    let mut name: &[u8] = &[];
    for field in Fields::of(bytes) {
        let field = field?;
        if field.number == 1 {
            for inner in Fields::of(field.bytes()?) {
                let inner = inner?;
                if inner.number == 1 {
                    name = inner.bytes()?;
                }
            }
        }
    }
    let scope: Arc<str> = bounded(name).into();
    for field in Fields::of(bytes) {
        let field = field?;
        if field.number == 2 {
            let bytes = field.bytes()?;
            intake.admit(|| Ok(span(bytes)?.finish(&scope, resource)))?;
        }
    }
    Ok(())
}

fn span(bytes: &[u8]) -> Result<SpanDraft, Malformed> {
    let mut draft = SpanDraft::default();
    let mut name: &[u8] = &[];
    for field in Fields::of(bytes) {
        let field = field?;
        match field.number {
            1 => draft.trace_id = id(field.bytes()?),
            2 => draft.span_id = id(field.bytes()?),
            4 => draft.parent_span_id = parent(field.bytes()?),
            5 => name = field.bytes()?,
            6 => draft.kind = SpanKind::from_number(field.int32()?),
            7 => draft.start_unix_ns = field.fixed64()?,
            8 => draft.end_unix_ns = field.fixed64()?,
            9 => attribute(field.bytes()?, &mut |key, value| draft.set(key, value))?,
            _ => {}
        }
    }
    draft.name = bounded(name).into();
    Ok(draft)
}

/// An id of the right length, else zero, which no id may be.
fn id<const LENGTH: usize>(bytes: &[u8]) -> [u8; LENGTH] {
    bytes.try_into().unwrap_or([0; LENGTH])
}

/// A root says so with nothing or with zeros; a parent of a wrong length is none that could be found.
fn parent(bytes: &[u8]) -> Option<[u8; 8]> {
    Some(id(bytes)).filter(|id| *id != [0; 8])
}

/// Gives each `KeyValue` of a message's field `number` to `take`.
fn attributes(
    bytes: &[u8],
    number: u32,
    take: &mut dyn FnMut(&[u8], &Value<'_>),
) -> Result<(), Malformed> {
    for field in Fields::of(bytes) {
        let field = field?;
        if field.number == number {
            attribute(field.bytes()?, take)?;
        }
    }
    Ok(())
}

fn attribute(bytes: &[u8], take: &mut dyn FnMut(&[u8], &Value<'_>)) -> Result<(), Malformed> {
    let mut key: &[u8] = &[];
    let mut value = Value::Other;
    for field in Fields::of(bytes) {
        let field = field?;
        match field.number {
            1 => key = field.bytes()?,
            2 => any_value(field.bytes()?, &mut value)?,
            _ => {}
        }
    }
    take(key, &value);
    Ok(())
}

/// `AnyValue` is a choice of eight fields, of which the last one sent holds.
fn any_value<'a>(bytes: &'a [u8], value: &mut Value<'a>) -> Result<(), Malformed> {
    for field in Fields::of(bytes) {
        let field = field?;
        match field.number {
            1 => *value = Value::Text(Cow::Borrowed(field.bytes()?)),
            3 => *value = Value::Int(field.int64()?),
            2 | 4..=8 => *value = Value::Other,
            _ => {}
        }
    }
    Ok(())
}
