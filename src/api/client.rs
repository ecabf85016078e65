// SPDX-License-Identifier: Apache-2.0
//! Asking a running agent: one connection for each question, over its Unix socket or TCP.
//!
//! What can go wrong is told apart by what the user can do about it, and each error is a sentence
//! that says so.

use std::fmt;
use std::io;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::Method;
use hyper::Request;
use hyper::StatusCode;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::ANSWER_BYTES_MAX;
use crate::answer::Explanation;
use crate::cli::Address;

/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long after the wait that was asked for the whole answer may take to come.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// A running agent, by its address.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    address: Address,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum AgentError {
    /// Nobody listens at the address.
    NobodyListens(Address),
    /// The address cannot be connected to, for another reason.
    Unreachable(Address, io::Error),
    /// Connecting, or the answer, took longer than this.
    TimedOut(Address, Duration),
    /// The connection broke, or what came is no answer.
    Broken(Address, String),
    /// The agent has received no span of that trace.
    UnknownTrace(String),
    /// The agent says that the question is wrong, or that it cannot answer now.
    Refused(u16, String),
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyListens(address) => {
                write!(
                    f,
                    "no agent is listening at {address}: start one with `lacuna agent`"
                )
            }
            Self::Unreachable(address, error)
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                write!(f, "the agent at {address} may not be asked by this user: ")?;
                write!(f, "its socket is for its owner and group")
            }
            Self::Unreachable(address, error) => {
                write!(f, "cannot connect to the agent at {address}: {error}")
            }
            Self::TimedOut(address, time) => {
                write!(
                    f,
                    "the agent at {address} did not answer within {} s",
                    time.as_secs()
                )
            }
            Self::Broken(address, why) => {
                write!(
                    f,
                    "no understandable answer from the agent at {address}: {why}"
                )
            }
            Self::UnknownTrace(why) => f.write_str(why),
            Self::Refused(status, why) => write!(f, "the agent refused ({status}): {why}"),
        }
    }
}

impl std::error::Error for AgentError {}

impl Agent {
    /// The agent at `address`; nothing is opened yet.
    pub(crate) fn at(address: Address) -> Self {
        Self { address }
    }

    /// Explains a trace, by the 32 digits of its id; the agent waits for completeness at most `wait`.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub(crate) async fn trace(
        &self,
        trace_id: &str,
        wait: Duration,
    ) -> Result<Explanation, AgentError> {
        let path = format!("/api/v1/traces/{trace_id}?wait_ms={}", wait.as_millis());
        self.ask(Method::GET, &path, Bytes::new(), wait).await
    }

    /// Explains spans in OTLP/JSON: one request, or one after the other as files have them.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub(crate) async fn explain(
        &self,
        spans: Vec<u8>,
        wait: Duration,
    ) -> Result<Explanation, AgentError> {
        let path = format!("/api/v1/explain?wait_ms={}", wait.as_millis());
        self.ask(Method::POST, &path, spans.into(), wait).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<Explanation, AgentError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.host())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let time = wait + ANSWER_TIME_MAX;
        let answered = timeout(time, self.exchange(request)).await;
        let (status, answer) =
            answered.map_err(|_| AgentError::TimedOut(self.address.clone(), time))??;
        if status == StatusCode::OK {
            return serde_json::from_slice(&answer).map_err(|error| self.broken(error));
        }
        let why = match serde_json::from_slice::<Complaint>(&answer) {
            Ok(Complaint { error }) => error,
            Err(_) => return Err(self.broken(format!("it is HTTP {status} without a reason"))),
        };
        Err(match status {
            StatusCode::NOT_FOUND => AgentError::UnknownTrace(why),
            _ => AgentError::Refused(status.as_u16(), why),
        })
    }

    fn host(&self) -> String {
        match &self.address {
            Address::Tcp { .. } => self.address.to_string(),
            Address::Unix(_) => "localhost".to_string(),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), AgentError> {
        match &self.address {
            Address::Tcp { host, port } => {
                let connect = TcpStream::connect((host.as_str(), *port));
                let stream = self.connected(connect).await?;
                // A question is short: waiting for more to send with it would only delay it.
                let _ = stream.set_nodelay(true);
                self.exchange_over(stream, request).await
            }
            Address::Unix(path) => {
                let stream = self.connected(UnixStream::connect(path)).await?;
                self.exchange_over(stream, request).await
            }
        }
    }

    async fn connected<S>(
        &self,
        connect: impl Future<Output = io::Result<S>>,
    ) -> Result<S, AgentError> {
        let address = || self.address.clone();
        match timeout(CONNECT_TIME_MAX, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Err(AgentError::NobodyListens(address()))
                }
                _ => Err(AgentError::Unreachable(address(), error)),
            },
            Err(_) => Err(AgentError::TimedOut(address(), CONNECT_TIME_MAX)),
        }
    }

    async fn exchange_over<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), AgentError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(error))?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| self.broken(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            Ok((status, body.map_err(|error| self.broken(error))?.to_bytes()))
        };
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // The connection may end first, with the answer already read from it.
            _ = connection => exchange.await,
        }
    }

    fn broken(&self, why: impl fmt::Display) -> AgentError {
        AgentError::Broken(self.address.clone(), why.to_string())
    }
}

/// What the server says with any status but 200.
#[derive(Deserialize)]
struct Complaint {
    error: String,
}
