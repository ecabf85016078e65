// SPDX-License-Identifier: Apache-2.0
//! Whose questions are answered over TCP.

use std::sync::Arc;

use super::Served;
use super::Stub;
use super::says;
use crate::api::LIMITS;
use crate::api::router;
use crate::cli::Address;
use crate::serve;
use crate::serve::ConnectionCounters;
use crate::serve::Protocol;

#[tokio::test]
async fn over_tcp_only_our_own_names_are_answered() {
    let served = Served::tcp();
    let port = served.socket_address().port();
    let asked = async |lines: &str| {
        served
            .raw(&format!("GET /healthz HTTP/1.1{lines}"), b"")
            .await
    };
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.9.9.9:80",
        "[::1]",
        "[::1]:80",
    ] {
        assert_eq!(asked(&format!("\r\nhost: {host}")).await.0, 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "localhost.",
        "192.0.2.1",
        "0.0.0.0",
        "[2001:db8::1]",
    ] {
        says(
            &asked(&format!("\r\nhost: {host}:{port}")).await,
            403,
            "names another host",
        );
    }
    for lines in ["", "\r\nhost: localhost\r\nhost: localhost"] {
        says(&asked(lines).await, 403, "expected one Host header");
    }
    for host in ["local host", "user@localhost:80:80", ""] {
        assert_eq!(asked(&format!("\r\nhost: {host}")).await.0, 403, "{host}");
    }
    let absolute = "GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost";
    says(&served.raw(absolute, b"").await, 403, "names another host");

    let with_origin = |origin: &str| format!("\r\nhost: localhost:{port}\r\norigin: {origin}");
    assert_eq!(
        asked(&with_origin(&format!("http://localhost:{port}")))
            .await
            .0,
        200
    );
    for origin in [
        "http://localhost",
        "http://localhost:3000",
        "https://evil.example",
        "null",
        "",
        &format!("https://localhost:{port}"),
        &format!("http://127.0.0.1:{port}"),
    ] {
        says(&asked(&with_origin(origin)).await, 403, "another origin");
    }
}

#[tokio::test]
async fn the_name_that_is_listened_at_is_ours() {
    let stub = Arc::new(Stub {
        ready: true,
        ..Stub::default()
    });
    // Bound to loopback, but by a name that only this host's resolver knows.
    let named = Address::Tcp {
        host: "agent.internal".to_string(),
        port: 0,
    };
    let bound = serve::bind(&"127.0.0.1:0".parse().unwrap(), "--api").unwrap();
    let address = bound.address().clone();
    let router = router(stub.clone(), &named);
    let counters = Arc::new(ConnectionCounters::default());
    let task = tokio::spawn(async move {
        drop(serve::serve(bound, router, Protocol::Http1, LIMITS, counters).await);
    });
    let served = Served {
        stub,
        address,
        task,
        _directory: tempfile::tempdir().unwrap(),
    };
    let ask = |host: &str| format!("GET /healthz HTTP/1.1\r\nhost: {host}");
    assert_eq!(served.raw(&ask("Agent.Internal:80"), b"").await.0, 200);
    says(
        &served.raw(&ask("agent.internal.example"), b"").await,
        403,
        "names another host",
    );
}
