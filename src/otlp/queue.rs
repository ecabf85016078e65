// SPDX-License-Identifier: Apache-2.0
//! The queue between the receivers and whoever explains: bounded in batches and in spans.
//!
//! Putting in never waits. What finds no room is handed back to be counted, and its sender told.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::QUEUE_BATCHES_MAX;
use super::QUEUE_SPANS_MAX;
use super::exporter::Exporter;
use super::span::SpanIn;
use crate::serve::Connection;

/// The spans of one request; never empty. Drop it when it is done with: then its room in the queue is
/// free again, and its sender is answered where that was waiting (see [`FIRST_ANSWER_TIME_MAX`]), so
/// who sent it is to be looked up before.
///
/// [`FIRST_ANSWER_TIME_MAX`]: super::FIRST_ANSWER_TIME_MAX
#[derive(Debug)]
pub(crate) struct Batch {
    /// What it came over.
    pub(crate) connection: Connection,
    /// Which SDK's exporter its sender says it is.
    pub(crate) exporter: Exporter,
    /// The spans that were accepted, in the order of the request.
    pub(crate) spans: Vec<SpanIn>,
    _room: OwnedSemaphorePermit,
    _done: oneshot::Sender<Infallible>,
}

/// Ends, always with an error, when the batch has been dropped.
pub(super) type Done = oneshot::Receiver<Infallible>;

/// Where batches go in; clones share one queue.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    batches: mpsc::Sender<Batch>,
    room: Arc<Semaphore>,
}

/// There is no room for a batch, or nobody left to take it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// A queue of at most [`QUEUE_BATCHES_MAX`] batches with [`QUEUE_SPANS_MAX`] spans in all.
pub(crate) fn queue() -> (Sink, mpsc::Receiver<Batch>) {
    let (batches, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
    (
        Sink {
            batches,
            room: Arc::new(Semaphore::new(QUEUE_SPANS_MAX)),
        },
        receiver,
    )
}

impl Sink {
    pub(super) fn put(
        &self,
        connection: Connection,
        exporter: Exporter,
        spans: Vec<SpanIn>,
    ) -> Result<Done, Full> {
        let length = u32::try_from(spans.len()).map_err(|_| Full)?;
        let room = self
            .room
            .clone()
            .try_acquire_many_owned(length)
            .map_err(|_| Full)?;
        let (sender, done) = oneshot::channel();
        let batch = Batch {
            connection,
            exporter,
            spans,
            _room: room,
            _done: sender,
        };
        self.batches.try_send(batch).map_err(|_| Full)?;
        Ok(done)
    }
}
