// SPDX-License-Identifier: Apache-2.0
//! `ExportTraceServiceRequest` as OTLP/JSON, into an [`Intake`].
//!
//! OTLP/JSON is protobuf's JSON mapping with lowerCamelCase names, hexadecimal ids and numbers for
//! enumerations; 64-bit numbers are strings, or numbers all the same. Unknown fields are stepped
//! over, and `null` stands for a field's default.
//!
//! Lists are kept as their text and read one element at a time, so that, as with protobuf, a body of
//! many tiny elements costs no more memory than itself, and a part's resource may come after its spans.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Error;
use serde_json::value::RawValue;

use super::hex;
use super::intake::Intake;
use super::span::ResourceIn;
use super::span::SpanDraft;
use super::span::SpanKind;
use super::span::Value;
use super::span::bounded;

/// Reads the spans of a request.
///
/// # Errors
/// When the bytes are no such JSON; what was read before is then to be forgotten.
pub(super) fn request(bytes: &[u8], intake: &mut Intake) -> Result<(), Error> {
    resources(serde_json::from_slice(bytes)?, intake)
}

/// Reads the spans of any number of requests, one after the other: the OTLP file format has one on each line.
///
/// # Errors
/// As [`request`].
pub(super) fn requests(bytes: &[u8], intake: &mut Intake) -> Result<(), Error> {
    for request in serde_json::Deserializer::from_slice(bytes).into_iter() {
        resources(request?, intake)?;
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    resource_spans: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    #[serde(borrow)]
    resource: Option<Resource<'a>>,
    #[serde(borrow)]
    scope_spans: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow)]
    attributes: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ScopeSpans<'a> {
    scope: Option<Scope>,
    #[serde(borrow)]
    spans: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Scope {
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    trace_id: Option<String>,
    span_id: Option<String>,
    parent_span_id: Option<String>,
    name: Option<String>,
    kind: Option<i32>,
    start_time_unix_nano: Option<Number>,
    end_time_unix_nano: Option<Number>,
    #[serde(borrow)]
    attributes: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Attribute {
    key: Option<String>,
    value: Option<AnyValue>,
}

/// Other kinds of value are unknown fields here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyValue {
    string_value: Option<String>,
    int_value: Option<Number>,
}

/// A 64-bit number, as a number or as a string; wide enough for `int64` and `fixed64`.
struct Number(i128);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or one as a string")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Number, E> {
        Ok(Number(number.into()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number(number.into()))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
        match text.parse::<i128>() {
            Ok(number) => Ok(Number(number)),
            Err(_) => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }
}

fn resources(request: Request<'_>, intake: &mut Intake) -> Result<(), Error> {
    each(request.resource_spans, &mut |part| {
        resource_spans(part, intake)
    })
}

fn resource_spans(part: ResourceSpans<'_>, intake: &mut Intake) -> Result<(), Error> {
    let mut resource = ResourceIn::default();
    let list = part.resource.and_then(|resource| resource.attributes);
    attributes(list, &mut |key, value| resource.set(key, value))?;
    let resource = Arc::new(resource);
    each(part.scope_spans, &mut |part| {
        scope_spans(part, &resource, intake)
    })
}

fn scope_spans(
    part: ScopeSpans<'_>,
    resource: &Arc<ResourceIn>,
    intake: &mut Intake,
) -> Result<(), Error> {
    let name = part.scope.and_then(|scope| scope.name).unwrap_or_default();
    let scope: Arc<str> = bounded(name.as_bytes()).into();
    each(part.spans, &mut |text: &RawValue| {
        intake.admit(|| Ok(span(serde_json::from_str(text.get())?)?.finish(&scope, resource)))
    })
}

fn span(part: Span<'_>) -> Result<SpanDraft, Error> {
    let mut draft = SpanDraft {
        trace_id: hexadecimal(part.trace_id).unwrap_or_default(),
        span_id: hexadecimal(part.span_id).unwrap_or_default(),
        parent_span_id: hexadecimal(part.parent_span_id).filter(|id| *id != [0; 8]),
        name: bounded(part.name.unwrap_or_default().as_bytes()).into(),
        kind: SpanKind::from_number(part.kind.unwrap_or_default()),
        start_unix_ns: instant(part.start_time_unix_nano)?,
        end_unix_ns: instant(part.end_time_unix_nano)?,
        ..SpanDraft::default()
    };
    attributes(part.attributes, &mut |key, value| draft.set(key, value))?;
    Ok(draft)
}

fn instant(number: Option<Number>) -> Result<u64, Error> {
    let Some(Number(number)) = number else {
        return Ok(0);
    };
    u64::try_from(number).map_err(|_| Error::custom(format_args!("{number} is no time in ns")))
}

fn attributes(
    list: Option<&RawValue>,
    take: &mut dyn FnMut(&[u8], &Value<'_>),
) -> Result<(), Error> {
    each(list, &mut |attribute: Attribute| {
        let key = attribute.key.unwrap_or_default();
        let value = match attribute.value {
            Some(AnyValue {
                string_value: Some(text),
                ..
            }) => Value::Text(text.into_bytes().into()),
            Some(AnyValue {
                int_value: Some(Number(number)),
                ..
            }) => i64::try_from(number).map_or(Value::Other, Value::Int),
            _ => Value::Other,
        };
        take(key.as_bytes(), &value);
        Ok(())
    })
}

/// An id of `LENGTH` bytes in hexadecimal of either case, else nothing.
fn hexadecimal<const LENGTH: usize>(text: Option<String>) -> Option<[u8; LENGTH]> {
    hex::decode(text?.as_bytes())
}

/// Gives each element of a list to `take`, none of nothing.
fn each<'a, T: Deserialize<'a>>(
    list: Option<&'a RawValue>,
    take: &mut dyn FnMut(T) -> Result<(), Error>,
) -> Result<(), Error> {
    match list {
        None => Ok(()),
        Some(list) => {
            let mut deserializer = serde_json::Deserializer::from_str(list.get());
            deserializer.deserialize_seq(Each {
                take,
                element: PhantomData,
            })
        }
    }
}

struct Each<'t, T> {
    take: &'t mut dyn FnMut(T) -> Result<(), Error>,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            (self.take)(element).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}
