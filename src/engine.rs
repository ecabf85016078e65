// SPDX-License-Identifier: Apache-2.0
//! The running whole: kernel records in, spans in, answers out.
//!
//! ```text
//!   Feed (one thread) --records--> Recorder <--accounts-- Explainer (one thread) --> Spans --> API
//!                                                             ^ spans from OTLP, questions
//! ```
//!
//! [`Feed`] owns the probes and is the only writer of the recorder; it moves the horizon. The
//! explainer takes spans, waits for the horizon to pass them, joins and accounts them. The API only
//! reads what was answered. Nothing here decides a cause or a thread: that is `lacuna-timeline`.

mod budget;
mod explainer;
mod feed;
mod health;
mod origin;
mod place;
mod question;
mod second_look;
mod served;
mod shared;
mod spans;
mod subject;
mod watch;

pub(crate) use explainer::Explainer;
pub(crate) use feed::Feed;
pub(crate) use question::Door;
pub(crate) use shared::Shared;
pub(crate) use spans::Spans;
pub(crate) use watch::Watcher;
