// SPDX-License-Identifier: Apache-2.0
//! The smallest HTTP/1.1 client that the tests need: a connection that stays open, so that its owner
//! can be found, and bodies of any size, with a length or in chunks.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;

use crate::PATIENCE;

pub(crate) const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
pub(crate) const GZIP: (&str, &str) = ("content-encoding", "gzip");

/// A connection to an OTLP/HTTP receiver of this host.
pub(crate) struct Connection(BufReader<TcpStream>);

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The body as text, whatever is in it.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Connection {
    pub(crate) fn open(port: u16) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the agent listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit");
        Connection(BufReader::new(stream))
    }

    /// Posts spans.
    pub(crate) fn post(&mut self, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.head(headers, &format!("content-length: {}", body.len()));
        self.0.get_mut().write_all(body).expect("the agent reads");
        self.reply()
    }

    /// Posts the same piece so many times as one body whose length nobody says beforehand.
    pub(crate) fn post_chunked(
        &mut self,
        headers: &[(&str, &str)],
        piece: &[u8],
        times: usize,
    ) -> Reply {
        self.head(headers, "transfer-encoding: chunked");
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        let stream = self.0.get_mut();
        for _ in 0..times {
            stream.write_all(&chunk).expect("the agent reads");
        }
        stream.write_all(b"0\r\n\r\n").expect("the agent reads");
        self.reply()
    }

    fn head(&mut self, headers: &[(&str, &str)], framing: &str) {
        let mut head = format!("POST /v1/traces HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let sent = self.0.get_mut().write_all(head.as_bytes());
        sent.expect("the agent reads");
    }

    fn reply(&mut self) -> Reply {
        let mut line = self.line();
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no HTTP answer: {line:?}"));
        let mut length = 0;
        while !line.is_empty() {
            line = self.line();
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the whole answer");
        Reply { status, body }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer in time");
        line.trim_end().to_owned()
    }
}
