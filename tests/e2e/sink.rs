// SPDX-License-Identifier: Apache-2.0
//! An OTLP receiver of the test's own, over both transports: it only remembers which spans came.
//!
//! With it the sample programs are proved on their own, without Lacuna and without root: what they
//! send is what their truth says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::codec::CompressionEncoding;

use crate::programs::Endpoint;
use crate::programs::Transport;

/// End time (Unix nanoseconds) of each span that came, by span id in hex.
type Received = Arc<Mutex<BTreeMap<String, u64>>>;

/// A running receiver; it ends when dropped.
pub(crate) struct Sink {
    received: Received,
    grpc_port: u16,
    http_port: u16,
    _runtime: Runtime,
}

impl Sink {
    /// Listens on two free ports.
    pub(crate) fn start() -> Sink {
        let runtime = Runtime::new().expect("a runtime can be made");
        let received = Received::default();
        let (grpc, http) = runtime.block_on(async { (listener().await, listener().await) });
        let (grpc_port, http_port) = (port(&grpc), port(&http));

        let service = TraceServiceServer::new(Grpc(received.clone()))
            .accept_compressed(CompressionEncoding::Gzip);
        let grpc_routes = tonic::service::Routes::new(service).into_axum_router();
        let http_routes = Router::new()
            .route("/v1/traces", post(take_http))
            .with_state(received.clone());
        runtime.spawn(async move { axum::serve(http, http_routes).await });
        runtime.spawn(async move {
            let incoming = tonic::transport::server::TcpIncoming::from(grpc);
            tonic::transport::Server::builder()
                .add_routes(grpc_routes.into())
                .serve_with_incoming(incoming)
                .await
        });
        Sink {
            received,
            grpc_port,
            http_port,
            _runtime: runtime,
        }
    }

    /// Where to send spans over that transport.
    pub(crate) fn endpoint(&self, transport: Transport) -> Endpoint {
        let port = match transport {
            Transport::Grpc => self.grpc_port,
            Transport::Http => self.http_port,
        };
        Endpoint { transport, port }
    }

    /// What came so far, and forgets it.
    pub(crate) fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.received.lock().expect("no reader panicked"))
    }
}

struct Grpc(Received);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        remember(&self.0, request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn take_http(State(received): State<Received>, body: Bytes) {
    remember(
        &received,
        ExportTraceServiceRequest::decode(body).expect("the SDK sends protobuf"),
    );
}

fn remember(received: &Received, request: ExportTraceServiceRequest) {
    let mut received = received.lock().expect("no reader panicked");
    let scopes = request
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans);
    for span in scopes.flat_map(|scope| scope.spans) {
        let id: String = span
            .span_id
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        received.insert(id, span.end_time_unix_nano);
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

fn port(listener: &TcpListener) -> u16 {
    listener
        .local_addr()
        .as_ref()
        .map(SocketAddr::port)
        .expect("it is bound")
}
