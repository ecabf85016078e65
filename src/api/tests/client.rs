// SPDX-License-Identifier: Apache-2.0
//! The client, of the agent and of what is none.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::KNOWN_TEXT;
use super::PATIENCE;
use super::Served;
use super::question;
use super::span;
use crate::answer::Explanation;
use crate::api::Agent;
use crate::api::client::AgentError;
use crate::cli::Address;
use crate::serve::Peer;

#[tokio::test]
async fn the_client_asks_over_both() {
    for served in [Served::unix(), Served::tcp()] {
        let agent = served.agent();
        let explanation = agent
            .trace(KNOWN_TEXT, Duration::from_millis(1_500))
            .await
            .unwrap();
        assert_eq!(explanation, Explanation::from(Vec::new()));
        let json = serde_json::to_vec(&question(vec![span(0), span(1)])).unwrap();
        let two_lines = [&json[..], b"\n", &json].concat().to_vec();
        // The second line has the same ids, so its spans are no more to ask about.
        agent.explain(two_lines, Duration::ZERO).await.unwrap();
        let asked = served.stub.explained.lock().unwrap();
        assert_eq!(asked[0].0.len(), 2);
        assert_eq!(
            *served.stub.waits.lock().unwrap(),
            [Duration::from_millis(1_500), Duration::ZERO]
        );
        match asked[0].1 {
            Peer::Unix { pid, uid, gid } => {
                assert_eq!(pid, Some(std::process::id()));
                assert_eq!(uid, rustix::process::geteuid().as_raw());
                assert_eq!(gid, rustix::process::getegid().as_raw());
            }
            Peer::Tcp { local, .. } => assert_eq!(local, served.socket_address()),
        }
    }
}

#[tokio::test]
async fn the_client_says_what_is_wrong() {
    let wait = Duration::ZERO;
    let served = Served::unix();
    let error = served
        .agent()
        .trace("0123456789abcdef0123456789abcdef", wait)
        .await
        .unwrap_err();
    assert!(matches!(error, AgentError::UnknownTrace(_)));
    let words = "no span of trace 0123456789abcdef0123456789abcdef is known here";
    assert_eq!(error.to_string(), words);
    let error = served
        .agent()
        .explain(b"{".to_vec(), wait)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the agent refused (400): not OTLP"),
        "{error}"
    );

    let directory = tempfile::tempdir().unwrap();
    let nobody = Address::Unix(directory.path().join("api.sock"));
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let closed = Address::Tcp {
        host: "127.0.0.1".to_string(),
        port,
    };
    for address in [nobody, closed] {
        let error = Agent::at(address.clone())
            .trace(KNOWN_TEXT, wait)
            .await
            .unwrap_err();
        let words = format!("no agent is listening at {address}: start one with `lacuna agent`");
        assert_eq!(error.to_string(), words);
    }
}

#[tokio::test]
async fn the_client_survives_what_is_no_agent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    for answer in [
        "",
        "HELLO\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno",
    ] {
        let agent = Agent::at(address.clone());
        let ask = tokio::spawn(async move { agent.trace(KNOWN_TEXT, Duration::ZERO).await });
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let error = tokio::time::timeout(PATIENCE, ask)
            .await
            .unwrap()
            .unwrap()
            .unwrap_err();
        assert!(
            matches!(error, AgentError::Broken(..)),
            "{answer:?}: {error}"
        );
    }
}
