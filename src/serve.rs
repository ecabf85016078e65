// SPDX-License-Identifier: Apache-2.0
//! Listening: addresses, sockets, connections and request bodies, the same for every server of the
//! agent.
//!
//! What is served is an axum router; what is added here is what a router cannot do: a bound on the
//! number of connections, on how long a peer may take to say what it wants, and on the memory that
//! all request bodies together may hold. Each request carries the [`Connection`] it came over, and its [`Ordinal`] there.
//!
//! Nothing here knows OTLP or the API. A peer can cost no more than these limits: at each of them
//! somebody is refused and counted, and nobody waits for ever.

mod bind;
mod body;
mod connection;
#[cfg(test)]
mod tests;

pub(crate) use bind::Bound;
pub(crate) use bind::bind;
pub(crate) use body::Body;
pub(crate) use body::BodyError;
pub(crate) use body::BodyReader;
pub(crate) use connection::Connection;
pub(crate) use connection::ConnectionCounters;
pub(crate) use connection::Limits;
pub(crate) use connection::Ordinal;
pub(crate) use connection::Peer;
pub(crate) use connection::Protocol;
pub(crate) use connection::serve;

/// A runtime for servers: `threads` workers, on each of which `on_thread_start` runs before anything else.
///
/// Request bytes are hostile, so they are decoded on these threads and no other; the hook is where
/// they give up what privilege the agent has.
///
/// # Errors
/// When the threads or the event queue cannot be made.
pub(crate) fn runtime(
    threads: usize,
    on_thread_start: fn(),
) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(1)
        .thread_name("lacuna-serve")
        .on_thread_start(on_thread_start)
        .enable_all()
        .build()
}
