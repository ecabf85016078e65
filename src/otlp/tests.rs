// SPDX-License-Identifier: Apache-2.0
//! Tests of OTLP in: what is understood, what is refused, and that nothing a peer does costs more
//! than a limit says.
//!
//! Requests are written by `opentelemetry-proto`, which shares no code with the decoders here.

mod amplification;
mod decode;
mod differential;
mod hostile;
mod limits;
mod support;
mod transport;
