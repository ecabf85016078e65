// SPDX-License-Identifier: Apache-2.0
//! Sending spans as any OpenTelemetry program does: OTLP/JSON over HTTP, on one connection.
//!
//! Just enough of HTTP/1.1 for one known server. The connection is kept, because by its owner the
//! agent knows whose the spans are.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde_json::Value;

/// How long the agent may take to take spans.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest reply that is read, bytes: an empty object, or what was wrong.
const REPLY_BYTES_MAX: u64 = 64 * 1024;

/// A connection to an agent.
#[derive(Debug)]
pub(crate) struct Exporter {
    port: u16,
    stream: BufReader<TcpStream>,
}

impl Exporter {
    /// Connects.
    pub(crate) fn connect(port: u16) -> Result<Self> {
        let stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("cannot reach the agent")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            port,
            stream: BufReader::new(stream),
        })
    }

    /// Sends one `ExportTraceServiceRequest`.
    pub(crate) fn export(&mut self, request: &Value) -> Result<()> {
        let body = request.to_string();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        let message = [head.as_bytes(), body.as_bytes()].concat();
        self.stream.get_mut().write_all(&message)?;
        self.take_reply().context("the agent took no spans")
    }

    /// Reads one reply, which must be a 200.
    fn take_reply(&mut self) -> Result<()> {
        let mut reply = (&mut self.stream).take(REPLY_BYTES_MAX);
        let mut status = String::new();
        reply.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            reply.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; usize::min(length, REPLY_BYTES_MAX as usize)];
        reply.read_exact(&mut body)?;
        if status.split(' ').nth(1) != Some("200") {
            bail!("{} {}", status.trim_end(), String::from_utf8_lossy(&body));
        }
        Ok(())
    }
}
