// SPDX-License-Identifier: Apache-2.0
//! Request bodies into memory, under limits: bytes of one, bytes of all together, and time.
//!
//! A body's length is never believed and never asked for: many clients send none. Bytes count as
//! they arrive, and once more as they come out of gzip, so that no small body can become a large one
//! uncounted.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio::time::timeout_at;

/// Bytes read and thrown away of a body that is too large, so that its sender, who looks for an
/// answer only when it has sent everything, gets one; beyond it the connection is just closed.
const DISCARD_BYTES_MAX: usize = 256 << 20;

/// Bytes that come out of gzip at a time.
const GUNZIP_STEP_BYTES: usize = 64 << 10;

/// Why there is no body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BodyError {
    /// It is, or gunzips to, more than this many bytes.
    TooLarge(usize),
    /// All bodies together hold as much memory as they may.
    Overloaded,
    /// It did not arrive in this time.
    TimedOut(Duration),
    /// Its sender went away in the middle.
    Aborted,
    /// It is not gzip, though its sender says so.
    NotGzip(String),
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge(limit) => {
                write!(
                    f,
                    "the request is larger than {limit} bytes; send smaller batches"
                )
            }
            Self::Overloaded => {
                write!(
                    f,
                    "too many requests are being read at once; try again in a second"
                )
            }
            Self::TimedOut(time) => {
                write!(
                    f,
                    "the request did not arrive within {} ms",
                    time.as_millis()
                )
            }
            Self::Aborted => write!(f, "the request ended before its body did"),
            Self::NotGzip(why) => write!(f, "the body is not valid gzip: {why}"),
        }
    }
}

impl std::error::Error for BodyError {}

/// A body in memory, and its share of the memory that all of them may hold.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    held: OwnedSemaphorePermit,
}

impl Body {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads bodies under one budget; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct BodyReader {
    budget: Arc<Semaphore>,
    bytes_max: usize,
    time: Duration,
}

impl BodyReader {
    /// A reader of bodies of at most `bytes_max` each and `budget_bytes` together, each of which must arrive within `time`.
    pub(crate) fn new(bytes_max: usize, budget_bytes: usize, time: Duration) -> Self {
        Self {
            budget: Arc::new(Semaphore::new(budget_bytes)),
            bytes_max,
            time,
        }
    }

    /// Reads all of `body`, gunzipped where `gzip`, at most `framing_bytes` over the limit before that.
    ///
    /// # Errors
    /// See [`BodyError`]; what was read by then is freed.
    pub(crate) async fn read(
        &self,
        body: axum::body::Body,
        framing_bytes: usize,
    ) -> Result<Body, BodyError> {
        let deadline = Instant::now() + self.time;
        let mut stream = body;
        let mut read = self.empty()?;
        let limit = self.bytes_max + framing_bytes;
        while let Some(data) = self.next(&mut stream, deadline).await? {
            if read.bytes.len() + data.len() > limit {
                let over = read.bytes.len() + data.len();
                drop(read);
                self.discard(stream, over, deadline).await?;
                return Err(BodyError::TooLarge(self.bytes_max));
            }
            self.append(&mut read, &data)?;
        }
        Ok(read)
    }

    /// What `compressed` gunzips to.
    ///
    /// # Errors
    /// When it is no gzip, or is more than one body, or all of them, may be.
    pub(crate) fn gunzip(&self, compressed: &[u8]) -> Result<Body, BodyError> {
        let mut plain = self.empty()?;
        let mut decoder = MultiGzDecoder::new(compressed);
        let mut step = vec![0; GUNZIP_STEP_BYTES];
        loop {
            let length = match decoder.read(&mut step) {
                Ok(0) => return Ok(plain),
                Ok(length) => length,
                Err(error) => return Err(BodyError::NotGzip(error.to_string())),
            };
            if plain.bytes.len() + length > self.bytes_max {
                return Err(BodyError::TooLarge(self.bytes_max));
            }
            self.append(&mut plain, &step[..length])?;
        }
    }

    fn empty(&self) -> Result<Body, BodyError> {
        let held = self.budget.clone().try_acquire_many_owned(0);
        Ok(Body {
            bytes: Vec::new(),
            held: held.map_err(|_| BodyError::Overloaded)?,
        })
    }

    fn append(&self, body: &mut Body, data: &[u8]) -> Result<(), BodyError> {
        let length = u32::try_from(data.len()).map_err(|_| BodyError::TooLarge(self.bytes_max))?;
        let more = self.budget.clone().try_acquire_many_owned(length);
        body.held.merge(more.map_err(|_| BodyError::Overloaded)?);
        body.bytes.extend_from_slice(data);
        Ok(())
    }

    async fn next(
        &self,
        stream: &mut axum::body::Body,
        deadline: Instant,
    ) -> Result<Option<axum::body::Bytes>, BodyError> {
        loop {
            let frame = timeout_at(deadline, stream.frame()).await;
            match frame.map_err(|_| BodyError::TimedOut(self.time))? {
                None => return Ok(None),
                Some(Err(_)) => return Err(BodyError::Aborted),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    async fn discard(
        &self,
        mut stream: axum::body::Body,
        already: usize,
        deadline: Instant,
    ) -> Result<(), BodyError> {
        let mut discarded = already;
        while discarded < DISCARD_BYTES_MAX {
            match self.next(&mut stream, deadline).await {
                Ok(Some(data)) => discarded += data.len(),
                // It is too large whatever else is wrong with it.
                Ok(None) | Err(_) => break,
            }
        }
        Ok(())
    }
}
