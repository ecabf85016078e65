// SPDX-License-Identifier: Apache-2.0
//! A span as the rest of the agent knows it: plain facts, no OTLP.
//!
//! Everything in it was claimed by whoever sent it. Numbers are in range and texts are bounded;
//! whether a claim is believed is not decided here.

use std::borrow::Cow;
use std::sync::Arc;

use super::TEXT_BYTES_MAX;

/// A finished span.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SpanIn {
    /// Never zero.
    pub(crate) trace_id: [u8; 16],
    /// Never zero.
    pub(crate) span_id: [u8; 8],
    /// `None` for a root.
    pub(crate) parent_span_id: Option<[u8; 8]>,
    /// As the application named it.
    pub(crate) name: Box<str>,
    /// The instrumentation scope's name; empty where it has none.
    pub(crate) scope: Arc<str>,
    /// Its part in a call.
    pub(crate) kind: SpanKind,
    /// When it began, by the application's clock; never 0.
    pub(crate) start_unix_ns: u64,
    /// When it ended; never before its start.
    pub(crate) end_unix_ns: u64,
    /// The kernel's id of its thread (`thread.native_id`, else `os.thread.id`), in the process's own pid namespace.
    pub(crate) os_thread_id: Option<u32>,
    /// The runtime's id of its thread (`thread.id`): anything, by language.
    pub(crate) thread_id: Option<i64>,
    /// The runtime's name of its thread (`thread.name`).
    pub(crate) thread_name: Option<Box<str>>,
    /// The other end's port (`network.peer.port`, else its older names `net.sock.peer.port` and
    /// `net.peer.port`, else `client.port`).
    pub(crate) peer_port: Option<u16>,
    /// Who produced it; shared by the spans of one resource in a request.
    pub(crate) resource: Arc<ResourceIn>,
}

/// A span's part in a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) enum SpanKind {
    /// Not said, or a kind that this version does not know.
    #[default]
    Unspecified,
    /// Work within the process.
    Internal,
    /// Answers a request.
    Server,
    /// Makes a request.
    Client,
    /// Sends a message.
    Producer,
    /// Handles a message.
    Consumer,
}

impl SpanKind {
    /// By OTLP's number.
    pub(super) fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }
}

/// Who produced a span, by its own account.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ResourceIn {
    /// `service.name`.
    pub(crate) service_name: Option<Box<str>>,
    /// `service.instance.id`.
    pub(crate) service_instance_id: Option<Box<str>>,
    /// `process.pid`, in the process's own pid namespace.
    pub(crate) process_pid: Option<u32>,
    /// `process.executable.name`.
    pub(crate) executable_name: Option<Box<str>>,
    /// `process.executable.path`.
    pub(crate) executable_path: Option<Box<str>>,
    /// `host.name`.
    pub(crate) host_name: Option<Box<str>>,
    /// `host.id`.
    pub(crate) host_id: Option<Box<str>>,
    /// `container.id`.
    pub(crate) container_id: Option<Box<str>>,
    /// `telemetry.sdk.language`.
    pub(crate) sdk_language: Option<Box<str>>,
}

/// The value of an attribute, where it is of a kind that is asked for.
#[derive(Clone, Debug, Default)]
pub(super) enum Value<'a> {
    /// Text; UTF-8 is not checked yet.
    Text(Cow<'a, [u8]>),
    /// A whole number.
    Int(i64),
    /// Nothing, or anything else.
    #[default]
    Other,
}

impl Value<'_> {
    fn text(&self) -> Option<Box<str>> {
        match self {
            Self::Text(bytes) => Some(bounded(bytes).into()),
            Self::Int(number) => Some(number.to_string().into()),
            Self::Other => None,
        }
    }

    /// Some SDKs write every attribute as text.
    fn number(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Text(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            Self::Other => None,
        }
    }

    fn number_as<T: TryFrom<i64>>(&self) -> Option<T> {
        T::try_from(self.number()?).ok()
    }

    /// No connection has port 0.
    fn port(&self) -> Option<u16> {
        self.number_as().filter(|&port| port != 0)
    }
}

/// The first [`TEXT_BYTES_MAX`] bytes as text; what is not UTF-8 in it is shown as U+FFFD.
pub(super) fn bounded(bytes: &[u8]) -> Cow<'_, str> {
    let mut length = bytes.len().min(TEXT_BYTES_MAX);
    // Never through the middle of a character; a run of stray continuation bytes is at most 3 in UTF-8.
    if length < bytes.len() {
        let start = (length.saturating_sub(3)..=length)
            .rev()
            .find(|&at| bytes[at] & 0xC0 != 0x80);
        length = start.unwrap_or(length);
    }
    String::from_utf8_lossy(&bytes[..length])
}

impl ResourceIn {
    /// Takes an attribute, where it is one of those asked for.
    pub(super) fn set(&mut self, key: &[u8], value: &Value<'_>) {
        let field = match key {
            b"service.name" => &mut self.service_name,
            b"service.instance.id" => &mut self.service_instance_id,
            b"process.executable.name" => &mut self.executable_name,
            b"process.executable.path" => &mut self.executable_path,
            b"host.name" => &mut self.host_name,
            b"host.id" => &mut self.host_id,
            b"container.id" => &mut self.container_id,
            b"telemetry.sdk.language" => &mut self.sdk_language,
            b"process.pid" => {
                self.process_pid = value.number_as();
                return;
            }
            _ => return,
        };
        *field = value.text();
    }
}

/// A span while its fields are being read, in any order; nothing of it is checked yet.
#[derive(Default, Debug)]
pub(super) struct SpanDraft {
    /// Zero where it is missing or of a wrong length, and likewise below.
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) parent_span_id: Option<[u8; 8]>,
    pub(super) name: Box<str>,
    pub(super) kind: SpanKind,
    pub(super) start_unix_ns: u64,
    pub(super) end_unix_ns: u64,
    pub(super) thread_native_id: Option<u32>,
    pub(super) os_thread_id: Option<u32>,
    pub(super) thread_id: Option<i64>,
    pub(super) thread_name: Option<Box<str>>,
    pub(super) network_peer_port: Option<u16>,
    pub(super) net_sock_peer_port: Option<u16>,
    pub(super) net_peer_port: Option<u16>,
    pub(super) client_port: Option<u16>,
}

impl SpanDraft {
    /// Takes an attribute, where it is one of those asked for.
    pub(super) fn set(&mut self, key: &[u8], value: &Value<'_>) {
        match key {
            b"thread.native_id" => self.thread_native_id = value.number_as(),
            b"os.thread.id" => self.os_thread_id = value.number_as(),
            b"thread.id" => self.thread_id = value.number(),
            b"thread.name" => self.thread_name = value.text(),
            b"network.peer.port" => self.network_peer_port = value.port(),
            b"net.sock.peer.port" => self.net_sock_peer_port = value.port(),
            b"net.peer.port" => self.net_peer_port = value.port(),
            b"client.port" => self.client_port = value.port(),
            _ => {}
        }
    }

    /// The span, of this scope and resource.
    pub(super) fn finish(self, scope: &Arc<str>, resource: &Arc<ResourceIn>) -> SpanIn {
        let port = self
            .network_peer_port
            .or(self.net_sock_peer_port)
            .or(self.net_peer_port)
            .or(self.client_port);
        SpanIn {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            name: self.name,
            scope: scope.clone(),
            kind: self.kind,
            start_unix_ns: self.start_unix_ns,
            end_unix_ns: self.end_unix_ns,
            os_thread_id: self
                .thread_native_id
                .or(self.os_thread_id)
                .filter(|&id| id != 0),
            thread_id: self.thread_id,
            thread_name: self.thread_name,
            peer_port: port,
            resource: resource.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TEXT_BYTES_MAX;
    use super::bounded;

    #[test]
    fn text_is_cut_between_characters() {
        let short = "x".repeat(TEXT_BYTES_MAX);
        assert_eq!(bounded(short.as_bytes()), short);
        let cut = format!("{}é", "x".repeat(TEXT_BYTES_MAX - 1));
        assert_eq!(bounded(cut.as_bytes()), "x".repeat(TEXT_BYTES_MAX - 1));
        let longest = format!("{}\u{10FFFF}", "x".repeat(TEXT_BYTES_MAX - 3));
        assert_eq!(bounded(longest.as_bytes()), "x".repeat(TEXT_BYTES_MAX - 3));
    }

    #[test]
    fn text_that_is_not_utf8_is_shown_and_bounded() {
        assert_eq!(bounded(b"a\xFFb"), "a\u{FFFD}b");
        assert!(bounded(&[0x80; 10_000]).chars().count() <= TEXT_BYTES_MAX);
    }
}
