// SPDX-License-Identifier: Apache-2.0
//! OTLP/gRPC: `TraceService/Export`, one message in and one out.
//!
//! A unary call is a small thing on top of HTTP/2: five bytes before each message, and a status in
//! the trailers. It is done here rather than by a generated server, because that one builds the
//! whole decoded message, puts no bound on the memory of all requests together, and cannot hand on
//! the bytes that were sent.

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::post;
use http_body_util::BodyExt;
use http_body_util::Full;
use tonic::Code;
use tonic::Status;

use super::counters::Transport;
use super::exporter::Exporter;
use super::intake::Refused;
use super::receiver::Format;
use super::receiver::Receiver;
use super::receiver::Reject;
use super::receiver::Taken;
use super::reply;
use crate::serve::BodyError;
use crate::serve::Connection;
use crate::serve::Ordinal;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Before each message: a byte that says whether it is compressed, and its length in four.
const PREFIX_BYTES: usize = 5;

pub(super) fn router(receiver: Receiver) -> Router {
    Router::new()
        .route(EXPORT, post(export))
        .fallback(wrong_call)
        .with_state(receiver)
}

async fn wrong_call(State(receiver): State<Receiver>) -> Response {
    let result = Err(Reject::Unsupported(
        "only trace export is served here".to_string(),
    ));
    receiver.count(Transport::Grpc, result.as_ref());
    answer(&result)
}

async fn export(
    State(receiver): State<Receiver>,
    Extension(connection): Extension<Connection>,
    Extension(ordinal): Extension<Ordinal>,
    request: Request,
) -> Response {
    if !is_grpc(request.headers()) {
        let message = "expected content-type application/grpc; OTLP/HTTP is served at another port";
        receiver.count(
            Transport::Grpc,
            Err(&Reject::Unsupported(message.to_string())),
        );
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response();
    }
    let taken = take(&receiver, connection, request).await;
    let result = receiver.settle(Transport::Grpc, ordinal, taken).await;
    answer(&result)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+proto") || rest[0] == b';')
}

async fn take(
    receiver: &Receiver,
    connection: Connection,
    request: Request,
) -> Result<Taken, Reject> {
    let encoding = request.headers().get("grpc-encoding").cloned();
    let sender = (connection, Exporter::of(request.headers()));
    let body = receiver
        .bodies
        .read(request.into_body(), PREFIX_BYTES)
        .await;
    let body = body.map_err(Reject::Body)?;
    let (compressed, message) = unframe(body.bytes())?;
    if !compressed {
        return receiver.take(sender, Format::Protobuf, message);
    }
    if encoding.is_none_or(|encoding| encoding != "gzip") {
        return Err(Reject::Unsupported(
            "expected grpc-encoding gzip or none".to_string(),
        ));
    }
    let plain = receiver.bodies.gunzip(message).map_err(Reject::Body)?;
    drop(body);
    receiver.take(sender, Format::Protobuf, plain.bytes())
}

/// Whether the one message of a call is compressed, and its bytes.
fn unframe(body: &[u8]) -> Result<(bool, &[u8]), Reject> {
    let malformed = |why: &str| Reject::Malformed(format!("not one gRPC message: {why}"));
    let (&[flag, a, b, c, d], message) = body
        .split_first_chunk()
        .ok_or_else(|| malformed("it ends before its prefix does"))?;
    if flag > 1 {
        return Err(malformed("unknown compression flag"));
    }
    if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return Err(malformed("its length is not what its prefix says"));
    }
    Ok((flag == 1, message))
}

fn answer(result: &Result<Refused, Reject>) -> Response {
    let refused = match result {
        Ok(refused) => refused,
        Err(reject) => {
            let mut response = Status::new(code(reject), reject.to_string()).into_http::<Body>();
            let accepted = HeaderValue::from_static("identity,gzip");
            response
                .headers_mut()
                .insert("grpc-accept-encoding", accepted);
            return response;
        }
    };
    let message = reply::taken_protobuf(refused);
    let mut framed = vec![0];
    // A reply is a number and a sentence: it is never near 4 GiB.
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(framed)).with_trailers(async { Some(Ok(trailers)) });
    (
        [(header::CONTENT_TYPE, "application/grpc")],
        Body::new(body),
    )
        .into_response()
}

/// By the OTLP specification a client tries again after `UNAVAILABLE` and `DEADLINE_EXCEEDED`, and
/// gives up after the others used here.
fn code(reject: &Reject) -> Code {
    match reject {
        Reject::Body(BodyError::TooLarge(_)) => Code::ResourceExhausted,
        Reject::Body(BodyError::Overloaded) | Reject::QueueFull => Code::Unavailable,
        Reject::Body(BodyError::TimedOut(_)) => Code::DeadlineExceeded,
        Reject::Body(BodyError::Aborted | BodyError::NotGzip(_)) | Reject::Malformed(_) => {
            Code::InvalidArgument
        }
        Reject::Unsupported(_) => Code::Unimplemented,
    }
}
