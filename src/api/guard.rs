// SPDX-License-Identifier: Apache-2.0
//! Who may ask over TCP: programs and pages that mean this agent, not pages that a browser was
//! tricked with.
//!
//! A page elsewhere can point a name of its own at this host (DNS rebinding) and so becomes, to the
//! browser, this agent's own origin; but then `Host` has that name. A page that asks across origins
//! says so in `Origin`. So `Host` must be a loopback name or address or the one that we listen at,
//! and `Origin`, where there is one, must be the same. A Unix socket has its mode instead.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::header::HeaderName;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::json;

use crate::serve::Connection;
use crate::serve::Peer;

/// Lets a request pass, or answers 403; the state is the host name that the user gave for listening.
pub(super) async fn check(
    State(listening): State<Arc<str>>,
    request: Request,
    next: Next,
) -> Response {
    match complaint(&listening, &request) {
        None => next.run(request).await,
        Some(complaint) => refusal(StatusCode::FORBIDDEN, complaint),
    }
}

fn complaint(listening: &str, request: &Request) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Some("expected one Host header");
    };
    let Some(host) = host
        .to_str()
        .ok()
        .and_then(|host| host.parse::<Authority>().ok())
    else {
        return Some("the Host header is malformed");
    };
    let absolute = request.uri().authority();
    if ![Some(&host), absolute]
        .into_iter()
        .flatten()
        .all(|name| ours(listening, name, request))
    {
        return Some("the Host header names another host: ask by the address that is listened at");
    }
    let same = |origin: &str| {
        let name = origin.strip_prefix("http://");
        name.is_some_and(|name| name.eq_ignore_ascii_case(host.as_str()))
    };
    let mut origins = request
        .headers()
        .get_all(HeaderName::from_static("origin"))
        .iter();
    let all_same = origins.all(|origin| origin.to_str().is_ok_and(same));
    (!all_same).then_some("questions from pages of another origin are not answered")
}

fn ours(listening: &str, name: &Authority, request: &Request) -> bool {
    let host = name.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || Some(address) == reached(request),
        Err(_) => host.eq_ignore_ascii_case("localhost") || host.eq_ignore_ascii_case(listening),
    }
}

/// The address of ours that the connection was made to.
fn reached(request: &Request) -> Option<IpAddr> {
    match request.extensions().get::<Connection>()?.peer {
        Peer::Tcp { local, .. } => Some(local.ip()),
        Peer::Unix { .. } => None,
    }
}

/// What whoever asks in vain is told: `{"error": why}`.
pub(super) fn refusal(status: StatusCode, why: &str) -> Response {
    let body = json!({"error": why}).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
