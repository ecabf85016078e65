// SPDX-License-Identifier: Apache-2.0
//! The routes of the agent's API, over whatever implements [`Answers`].
//!
//! Spans brought with a question are as hostile as those that are exported: they go through the same
//! decoders and checks, and whose they may claim to be is decided by who asks ([`Peer`]).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use super::LIST_DEFAULT;
use super::LIST_MAX;
use super::QUESTION_BYTES_MAX;
use super::QUESTION_SPANS_MAX;
use super::QUESTION_TIME_MAX;
use super::QUESTIONS_BYTES_MAX;
use super::WAIT_DEFAULT;
use super::WAIT_MAX;
use super::guard;
use super::guard::refusal;
use crate::answer::Explanation;
use crate::answer::SpanList;
use crate::cli::Address;
use crate::otlp;
use crate::otlp::Decoded;
use crate::otlp::Refusal;
use crate::otlp::Refused;
use crate::otlp::SpanIn;
use crate::otlp::hex;
use crate::serve::Body;
use crate::serve::BodyError;
use crate::serve::BodyReader;
use crate::serve::Connection;
use crate::serve::Peer;

/// What the agent can be asked.
pub(crate) trait Answers: Send + Sync + 'static {
    /// The spans of a trace that the agent has received, waiting at most `wait` until all are
    /// complete, as far as `peer` may know; nothing where it has received none.
    fn trace(
        &self,
        trace_id: [u8; 16],
        peer: Peer,
        wait: Duration,
    ) -> impl Future<Output = Option<Explanation>> + Send;

    /// Recent spans, biggest gap first.
    fn spans(&self, query: &SpansQuery) -> SpanList;

    /// These spans, which `peer` brought and answers for, waiting at most `wait` until all are complete.
    fn explain(
        &self,
        spans: Vec<SpanIn>,
        peer: Peer,
        wait: Duration,
    ) -> impl Future<Output = Explanation> + Send;

    /// Whether spans are taken and explained by now.
    fn ready(&self) -> bool;

    /// What was done and could not be done so far, by fixed words.
    fn health(&self) -> serde_json::Value;
}

/// Which recent spans are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SpansQuery {
    /// Those of this service; of any where not given.
    pub(crate) service: Option<String>,
    /// Those with a gap of at least this.
    pub(crate) min_gap_ns: u64,
    /// At most so many.
    pub(crate) limit: usize,
}

/// The API; `listening` is the address as the user gave it, because a request may name its host.
pub(crate) fn router<A: Answers>(answers: Arc<A>, listening: &Address) -> Router {
    let bodies = BodyReader::new(QUESTION_BYTES_MAX, QUESTIONS_BYTES_MAX, QUESTION_TIME_MAX);
    let routes = Router::new()
        .route("/api/v1/traces/{trace_id}", get(trace::<A>))
        .route("/api/v1/spans", get(spans::<A>))
        .route("/api/v1/explain", post(explain::<A>))
        .route("/healthz", get(health::<A>))
        .route("/readyz", get(ready::<A>))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has another method",
            )
        })
        .with_state(Api { answers, bodies });
    match listening {
        Address::Unix(_) => routes,
        Address::Tcp { host, .. } => {
            let host: Arc<str> = host.as_str().into();
            routes.layer(middleware::from_fn_with_state(host, guard::check))
        }
    }
}

struct Api<A> {
    answers: Arc<A>,
    bodies: BodyReader,
}

impl<A> Clone for Api<A> {
    fn clone(&self) -> Self {
        Self {
            answers: self.answers.clone(),
            bodies: self.bodies.clone(),
        }
    }
}

/// An answer in JSON.
fn ok(answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitParameters {
    wait_ms: Option<u64>,
}

impl WaitParameters {
    fn wait(&self) -> Duration {
        self.wait_ms
            .map_or(WAIT_DEFAULT, Duration::from_millis)
            .min(WAIT_MAX)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpansParameters {
    service: Option<String>,
    min_gap_ms: Option<u64>,
    limit: Option<usize>,
}

type Parsed<T> = Result<Query<T>, QueryRejection>;

fn bad_query(rejection: &QueryRejection) -> Response {
    refusal(StatusCode::BAD_REQUEST, &rejection.body_text())
}

async fn trace<A: Answers>(
    State(api): State<Api<A>>,
    Extension(connection): Extension<Connection>,
    Path(text): Path<String>,
    parameters: Parsed<WaitParameters>,
) -> Response {
    let Some(trace_id) = hex::decode(text.as_bytes()).filter(|id| *id != [0; 16]) else {
        let why = "a trace id has 32 hexadecimal digits, not all of them 0";
        return refusal(StatusCode::BAD_REQUEST, why);
    };
    let wait = match &parameters {
        Ok(parameters) => parameters.wait(),
        Err(rejection) => return bad_query(rejection),
    };
    match api.answers.trace(trace_id, connection.peer, wait).await {
        Some(explanation) => ok(&explanation),
        None => {
            let why = format!("no span of trace {} is known here", hex::encode(&trace_id));
            refusal(StatusCode::NOT_FOUND, &why)
        }
    }
}

async fn spans<A: Answers>(
    State(api): State<Api<A>>,
    parameters: Parsed<SpansParameters>,
) -> Response {
    match parameters {
        Err(rejection) => bad_query(&rejection),
        Ok(Query(SpansParameters {
            service,
            min_gap_ms,
            limit,
        })) => {
            let limit = limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX);
            let min_gap_ns = min_gap_ms.unwrap_or(0).saturating_mul(1_000_000);
            ok(&api.answers.spans(&SpansQuery {
                service,
                min_gap_ns,
                limit,
            }))
        }
    }
}

async fn health<A: Answers>(State(api): State<Api<A>>) -> Response {
    ok(&api.answers.health())
}

async fn ready<A: Answers>(State(api): State<Api<A>>) -> Response {
    if api.answers.ready() {
        ok(&json!({"status": "ready"}))
    } else {
        refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "not all parts of the agent have started yet",
        )
    }
}

/// An explanation, and the spans of the question that could not be asked about.
#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    explanation: Explanation,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    refused_spans: BTreeMap<&'static str, u64>,
}

async fn explain<A: Answers>(
    State(api): State<Api<A>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let parameters = Query::<WaitParameters>::from_request_parts(&mut parts, &()).await;
    let wait = match &parameters {
        Ok(parameters) => parameters.wait(),
        Err(rejection) => return bad_query(rejection),
    };
    let (format, gzip) = match otlp::kind(&parts.headers) {
        Ok((otlp::Format::Json, gzip)) => (otlp::Format::JsonLines, gzip),
        Ok(kind) => kind,
        Err(why) => return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &why),
    };
    let body = match read(&api.bodies, body, gzip).await {
        Ok(body) => body,
        Err(error) => return refusal(status(&error), &error.to_string()),
    };
    let Decoded { spans, refused } = match otlp::decode(format, body.bytes()) {
        Ok(decoded) => decoded,
        Err(why) => return refusal(StatusCode::BAD_REQUEST, &why),
    };
    drop(body);
    if let Some(refusal) = cannot_ask(&spans, &refused) {
        return refusal;
    }
    let explanation = api.answers.explain(spans, connection.peer, wait).await;
    ok(&Explained {
        explanation,
        refused_spans: by_reason(&refused),
    })
}

async fn read(bodies: &BodyReader, body: axum::body::Body, gzip: bool) -> Result<Body, BodyError> {
    let body = bodies.read(body, 0).await?;
    if gzip {
        bodies.gunzip(body.bytes())
    } else {
        Ok(body)
    }
}

fn cannot_ask(spans: &[SpanIn], refused: &Refused) -> Option<Response> {
    if spans.len() > QUESTION_SPANS_MAX {
        let why = format!(
            "{} spans are more than the {QUESTION_SPANS_MAX} allowed",
            spans.len()
        );
        return Some(refusal(StatusCode::PAYLOAD_TOO_LARGE, &why));
    }
    if !spans.is_empty() {
        return None;
    }
    let why = if refused.total() > 0 {
        format!("there is no span to explain: {refused}")
    } else {
        "there is no span to explain".to_string()
    };
    Some(refusal(StatusCode::BAD_REQUEST, &why))
}

fn by_reason(refused: &Refused) -> BTreeMap<&'static str, u64> {
    let counts = Refusal::ALL.map(|reason| (reason.name(), refused.of(reason)));
    counts.into_iter().filter(|&(_, count)| count > 0).collect()
}

fn status(error: &BodyError) -> StatusCode {
    match error {
        BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        BodyError::TimedOut(_) => StatusCode::REQUEST_TIMEOUT,
        BodyError::Aborted | BodyError::NotGzip(_) => StatusCode::BAD_REQUEST,
    }
}
