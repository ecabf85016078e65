// SPDX-License-Identifier: Apache-2.0
//! OTLP/HTTP: `POST /v1/traces` with protobuf or JSON, plain or gzipped, with a length or chunked.
//!
//! Answers are in the request's own format, as the OTLP specification wants; where that is unknown, in JSON.

use axum::Extension;
use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::post;
use tonic::Code;

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

pub(super) fn router(receiver: Receiver) -> Router {
    Router::new()
        .route("/v1/traces", post(export).fallback(wrong_method))
        .fallback(wrong_path)
        .with_state(receiver)
}

async fn wrong_method(State(receiver): State<Receiver>) -> Response {
    let message = "spans are sent with POST".to_string();
    let mut response = unsupported(&receiver, StatusCode::METHOD_NOT_ALLOWED, message);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn wrong_path(State(receiver): State<Receiver>) -> Response {
    let message = "only /v1/traces is served here".to_string();
    unsupported(&receiver, StatusCode::NOT_FOUND, message)
}

async fn export(
    State(receiver): State<Receiver>,
    Extension(connection): Extension<Connection>,
    Extension(ordinal): Extension<Ordinal>,
    request: Request,
) -> Response {
    let (format, gzip) = match kind(request.headers()) {
        Ok(kind) => kind,
        Err(message) => {
            return unsupported(&receiver, StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
        }
    };
    let taken = take(&receiver, connection, format, gzip, request).await;
    let result = receiver.settle(Transport::Http, ordinal, taken).await;
    answer(format, &result)
}

async fn take(
    receiver: &Receiver,
    connection: Connection,
    format: Format,
    gzip: bool,
    request: Request,
) -> Result<Taken, Reject> {
    let sender = (connection, Exporter::of(request.headers()));
    let mut body = receiver
        .bodies
        .read(request.into_body(), 0)
        .await
        .map_err(Reject::Body)?;
    if gzip {
        body = receiver.bodies.gunzip(body.bytes()).map_err(Reject::Body)?;
    }
    receiver.take(sender, format, body.bytes())
}

/// The format of a request's spans and whether they are gzipped.
///
/// # Errors
/// What is wrong with its headers, in words.
pub(crate) fn kind(headers: &HeaderMap) -> Result<(Format, bool), String> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let format = Format::from_content_type(&content_type).ok_or_else(|| {
        format!(
            "expected content-type application/x-protobuf or application/json, not {content_type:?}"
        )
    })?;
    let encoding = text(header::CONTENT_ENCODING).unwrap_or_default();
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok((format, false)),
        "gzip" => Ok((format, true)),
        _ => Err(format!(
            "expected content-encoding gzip or none, not {encoding:?}"
        )),
    }
}

fn unsupported(receiver: &Receiver, status: StatusCode, message: String) -> Response {
    let result = Err(Reject::Unsupported(message));
    receiver.count(Transport::Http, result.as_ref());
    let mut response = answer(Format::Json, &result);
    *response.status_mut() = status;
    response
}

fn answer(format: Format, result: &Result<Refused, Reject>) -> Response {
    let (status, body) = match (format, result) {
        (Format::Protobuf, Ok(refused)) => (StatusCode::OK, reply::taken_protobuf(refused)),
        (_, Ok(refused)) => (StatusCode::OK, reply::taken_json(refused)),
        (Format::Protobuf, Err(reject)) => {
            let (status, code) = status(reject);
            (
                status,
                reply::status_protobuf(code.into(), reject.to_string()),
            )
        }
        (_, Err(reject)) => {
            let (status, code) = status(reject);
            (status, reply::status_json(code.into(), &reject.to_string()))
        }
    };
    let content_type = match format {
        Format::Protobuf => "application/x-protobuf",
        Format::Json | Format::JsonLines => "application/json",
    };
    let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// By the OTLP specification a client tries again after 503 and gives up after any 4xx used here.
fn status(reject: &Reject) -> (StatusCode, Code) {
    match reject {
        Reject::Body(BodyError::TooLarge(_)) => {
            (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted)
        }
        Reject::Body(BodyError::Overloaded) | Reject::QueueFull => {
            (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable)
        }
        Reject::Body(BodyError::TimedOut(_)) => {
            (StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded)
        }
        Reject::Body(BodyError::Aborted | BodyError::NotGzip(_)) | Reject::Malformed(_) => {
            (StatusCode::BAD_REQUEST, Code::InvalidArgument)
        }
        Reject::Unsupported(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unimplemented),
    }
}
