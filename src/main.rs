// SPDX-License-Identifier: Apache-2.0
//! Lacuna: where the time of a span went that no child span explains.
//!
//! This binary is glue: `lacuna-probes` brings kernel events, `lacuna-timeline` gives them meaning,
//! `lacuna-host` knows the host. Nothing is decided here but what to ask and how to show it.

mod answer;
mod otlp;
mod serve;

fn main() {}
