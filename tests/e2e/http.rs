// SPDX-License-Identifier: Apache-2.0
//! The smallest HTTP client that the tests need: one request, one answer, over TCP or a Unix socket.
//!
//! It speaks HTTP/1.0, so the answer is neither chunked nor kept open and ends where the connection
//! does. It is no part of the product.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// No answer of a test takes longer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// A TCP port on this host.
    Local(u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Sends `METHOD PATH` with a body of JSON, or none; the status and the body of the answer.
pub(crate) fn request(
    to: &Address,
    method: &str,
    path: &str,
    json: &str,
) -> std::io::Result<(u16, String)> {
    match to {
        Address::Local(port) => {
            let stream = TcpStream::connect(("127.0.0.1", *port))?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            exchange(stream, method, path, json)
        }
        Address::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            exchange(stream, method, path, json)
        }
    }
}

fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    json: &str,
) -> std::io::Result<(u16, String)> {
    let length = json.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(json.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.unwrap_or(0), body.to_owned()))
}
