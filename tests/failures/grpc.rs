// SPDX-License-Identifier: Apache-2.0
//! A gRPC client that sends any bytes as the message of an export call.

use axum::body::Bytes;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http2;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tonic::Code;
use tonic::Status;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A connection to an OTLP/gRPC receiver of this host.
pub(crate) struct Grpc {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

/// One message of a call, as it is framed.
pub(crate) fn framed(compressed: bool, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a message");
    [&[u8::from(compressed)], &length.to_be_bytes()[..], message].concat()
}

impl Grpc {
    pub(crate) fn open(port: u16) -> Grpc {
        let runtime = Runtime::new().expect("a runtime can be made");
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await;
            let stream = TokioIo::new(stream.expect("the agent listens"));
            let handshake = http2::handshake(TokioExecutor::new(), stream).await;
            let (sender, connection) = handshake.expect("the agent speaks HTTP/2");
            tokio::spawn(connection);
            sender
        });
        Grpc { runtime, sender }
    }

    /// Sends that as the body of an export call; how the call ended.
    pub(crate) fn export(&mut self, body: Vec<u8>) -> Status {
        let (status, grpc) = self.send("application/grpc", body);
        assert_eq!(status, 200, "{grpc:?}");
        grpc.expect("a call ends with its status")
    }

    /// The same under any content type: the status of HTTP, and that of the call if there is one.
    pub(crate) fn send(&mut self, content_type: &str, body: Vec<u8>) -> (u16, Option<Status>) {
        let request = Request::post(format!("http://localhost{EXPORT}"))
            .header("content-type", content_type)
            .header("grpc-encoding", "gzip")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        let Grpc { runtime, sender } = self;
        runtime.block_on(async {
            let response = sender.send_request(request).await.expect("an answer");
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("the whole answer");
            let trailers = body.trailers().and_then(Status::from_header_map);
            let status = Status::from_header_map(&head.headers).or(trailers);
            (head.status.as_u16(), status)
        })
    }

    /// Sends a good message, which must be taken.
    pub(crate) fn take(&mut self, message: &[u8]) {
        let status = self.export(framed(false, message));
        assert_eq!(status.code(), Code::Ok, "{status:?}");
    }
}
