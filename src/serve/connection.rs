// SPDX-License-Identifier: Apache-2.0
//! Accepting connections and serving a router on each, until the future is dropped.
//!
//! Every request carries its [`Connection`] as an extension: who is at the other end is what the
//! join of a span to its process begins with, and what a question over the API is allowed by.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::server::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::Service;

use super::Bound;
use super::bind::Listener;

/// How long accepting pauses after an error that is ours (no descriptors left): without a pause it would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a peer of an HTTP/2 connection may take to answer a ping before it counts as gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests at once on one HTTP/2 connection; more wait at the client.
const STREAMS_MAX: u32 = 64;

/// Bytes of a request's head, and of the buffer that a connection is read into: with the limit on
/// connections it bounds what they cost before anything is asked. A larger head is answered with 431.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The next connection's number; numbers are never used twice by one process.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// A connection that a request came over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Connection {
    /// Which one of all that this process has accepted; from 1 on.
    pub(crate) number: u64,
    /// Who is at its other end.
    pub(crate) peer: Peer,
}

/// Which request of its connection a request is, from 0; every request carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ordinal(pub(crate) u64);

/// The other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Peer {
    /// TCP; IPv4 addresses mapped into IPv6 are given as IPv4.
    Tcp {
        /// Our end.
        local: SocketAddr,
        /// Their end.
        peer: SocketAddr,
    },
    /// A Unix socket; what the kernel noted when the peer connected (`SO_PEERCRED`).
    Unix {
        /// The peer's process, in our pid namespace; `None` where it is not visible from ours.
        pid: Option<u32>,
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
    },
}

/// The protocol spoken on a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, as gRPC speaks it.
    Http2,
}

/// What connections may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at once on one listener; one more is closed at once, and counted.
    pub(crate) connections: usize,
    /// How long a peer may take for the head of a request, or, in HTTP/1, stay silent between two.
    /// Longer than the minute in which exporters of little usually send, so that they keep their connection.
    pub(crate) head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head: Duration::from_secs(75),
        }
    }
}

/// What became of the connections to one listener.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCounters {
    /// Accepted and served.
    pub(crate) accepted: AtomicU64,
    /// Closed at once, because as many as may be were open.
    pub(crate) refused: AtomicU64,
    /// Could not be accepted: no descriptors or no memory left.
    pub(crate) failed: AtomicU64,
}

/// Serves `router` to all who connect to `bound`; never returns, and ends all connections when dropped.
///
/// # Errors
/// When the socket cannot be handed to the runtime.
pub(crate) async fn serve(
    bound: Bound,
    router: Router,
    protocol: Protocol,
    limits: Limits,
    counters: Arc<ConnectionCounters>,
) -> io::Result<Infallible> {
    let server = Server {
        router,
        protocol,
        limits,
        places: Arc::new(Semaphore::new(limits.connections)),
        counters,
        tasks: JoinSet::new(),
    };
    match bound.listener {
        Listener::Tcp(listener) => {
            server
                .tcp(tokio::net::TcpListener::from_std(listener)?)
                .await
        }
        Listener::Unix(listener, file) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let never = server.unix(listener).await;
            drop(file);
            never
        }
    }
}

struct Server {
    router: Router,
    protocol: Protocol,
    limits: Limits,
    places: Arc<Semaphore>,
    counters: Arc<ConnectionCounters>,
    tasks: JoinSet<()>,
}

impl Server {
    async fn tcp(mut self, listener: tokio::net::TcpListener) -> io::Result<Infallible> {
        loop {
            let accepted = listener.accept().await;
            let Some((stream, peer)) = self.accepted(accepted).await else {
                continue;
            };
            let Ok(local) = stream.local_addr() else {
                continue;
            };
            // Answers are one write each; waiting for more to send only delays them.
            let _ = stream.set_nodelay(true);
            self.start(
                stream,
                Peer::Tcp {
                    local: plain(local),
                    peer: plain(peer),
                },
            );
        }
    }

    async fn unix(mut self, listener: tokio::net::UnixListener) -> io::Result<Infallible> {
        loop {
            let accepted = listener.accept().await;
            let Some((stream, _)) = self.accepted(accepted).await else {
                continue;
            };
            let Ok(credentials) = stream.peer_cred() else {
                continue;
            };
            // The kernel says 0 where the peer's process has no number in our namespace.
            let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok());
            let pid = pid.filter(|&pid| pid != 0);
            self.start(
                stream,
                Peer::Unix {
                    pid,
                    uid: credentials.uid(),
                    gid: credentials.gid(),
                },
            );
        }
    }

    async fn accepted<T>(&mut self, accepted: io::Result<T>) -> Option<T> {
        while self.tasks.try_join_next().is_some() {}
        match accepted {
            Ok(accepted) => Some(accepted),
            Err(error) if theirs(&error) => None,
            Err(_) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }

    fn start<S>(&mut self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let served = Served {
            router: self.router.clone(),
            connection: Connection { number, peer },
            requests: Arc::new(AtomicU64::new(0)),
            head: self.limits.head,
            _place: place,
        };
        match self.protocol {
            Protocol::Http1 => self.tasks.spawn(served.http1(stream)),
            Protocol::Http2 => self.tasks.spawn(served.http2(stream)),
        };
    }
}

/// One connection being served.
struct Served {
    router: Router,
    connection: Connection,
    requests: Arc<AtomicU64>,
    head: Duration,
    _place: OwnedSemaphorePermit,
}

impl Served {
    // How a connection ended concerns its peer alone, and the peer knows: errors are not looked at.

    async fn http1<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // A peer may be gone as soon as it has sent everything; what it sent counts all the same.
        let connection = http1::Builder::new()
            .half_close(true)
            .timer(TokioTimer::new())
            .header_read_timeout(self.head)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(
                TokioIo::new(stream),
                hyper::service::service_fn(self.service()),
            );
        let _ = connection.await;
    }

    async fn http2<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .keep_alive_interval(self.head)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(
                TokioIo::new(stream),
                hyper::service::service_fn(self.service()),
            );
        tokio::pin!(connection);
        tokio::select! {
            _ = &mut connection => return,
            () = tokio::time::sleep(self.head) => {}
        }
        // Pings begin only after the handshake, so whoever never finished one is ended here.
        if self.requests.load(Ordering::Relaxed) > 0 {
            let _ = connection.await;
        }
    }

    fn service(
        &self,
    ) -> impl Fn(Request<Incoming>) -> <Router as Service<Request<Incoming>>>::Future + use<> {
        let router = self.router.clone();
        let connection = self.connection;
        let requests = self.requests.clone();
        move |mut request| {
            let ordinal = Ordinal(requests.fetch_add(1, Ordering::Relaxed));
            request.extensions_mut().insert(connection);
            request.extensions_mut().insert(ordinal);
            // A router is always ready, so it need not be asked.
            router.clone().call(request)
        }
    }
}

/// Whether accepting failed for a reason of that one peer: it was gone before we came to it.
fn theirs(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
