// SPDX-License-Identifier: Apache-2.0
//! The two messages that senders are answered with, in protobuf and in OTLP/JSON.
//!
//! `ExportTraceServiceResponse` says what was refused of a request that was taken;
//! `google.rpc.Status` says why one was not.

use prost::Message;
use serde_json::json;

use super::intake::Refused;

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// `ExportTraceServiceResponse` in protobuf: empty where nothing was refused.
pub(super) fn taken_protobuf(refused: &Refused) -> Vec<u8> {
    let partial_success = (refused.total() > 0).then(|| PartialSuccess {
        rejected_spans: refused.total().cast_signed(),
        error_message: refused.to_string(),
    });
    ExportTraceServiceResponse { partial_success }.encode_to_vec()
}

/// The same in OTLP/JSON, where 64-bit numbers are strings.
pub(super) fn taken_json(refused: &Refused) -> Vec<u8> {
    let response = if refused.total() > 0 {
        json!({"partialSuccess": {
            "rejectedSpans": refused.total().to_string(),
            "errorMessage": refused.to_string(),
        }})
    } else {
        json!({})
    };
    response.to_string().into_bytes()
}

/// `google.rpc.Status` in protobuf.
pub(super) fn status_protobuf(code: i32, message: String) -> Vec<u8> {
    Status { code, message }.encode_to_vec()
}

/// The same in JSON.
pub(super) fn status_json(code: i32, message: &str) -> Vec<u8> {
    json!({"code": code, "message": message})
        .to_string()
        .into_bytes()
}
