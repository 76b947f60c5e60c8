//! Connecting and IDENTIFY.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

// Every test file uses its own part of it.
#[allow(dead_code)]
mod server;

use std::time::Duration;

use nsquorum_client::{ClientError, Connection, Heartbeat, IdentifyOptions, Outcome};
use server::{SETTINGS, Server};

#[tokio::test]
async fn identify_asks_for_what_the_options_say_and_takes_the_servers_settings() {
    let server = Server::start().await;
    let options = IdentifyOptions {
        client_id: "me".to_owned(),
        heartbeat: Heartbeat::Every(Duration::from_secs(5)),
        msg_timeout: Some(Duration::from_secs(2)),
        ..IdentifyOptions::default()
    };
    let serve = async {
        let mut peer = server.accept().await;
        let body = peer.identify().await;
        peer.response(SETTINGS).await;
        body
    };
    let (connection, body) = tokio::join!(Connection::connect(&server.address, options), serve);
    assert_eq!(body["client_id"], "me");
    assert_eq!(body["heartbeat_interval"], 5000);
    assert_eq!(body["msg_timeout"], 2000);
    assert_eq!(body["feature_negotiation"], true);
    let settings = connection.unwrap().settings().clone();
    assert_eq!((settings.version.as_str(), settings.max_rdy_count), ("1.3.0", 2500));
}

async fn answered_with(frame: &'static [u8]) -> ClientError {
    let server = Server::start().await;
    let serve = async {
        let mut peer = server.accept().await;
        peer.identify().await;
        peer.send(frame).await;
    };
    let (connection, ()) = tokio::join!(Connection::connect(&server.address, IdentifyOptions::default()), serve);
    connection.unwrap_err()
}

#[tokio::test]
async fn a_refused_option_is_the_servers_error() {
    let error = answered_with(b"\0\0\0\x13\0\0\0\x01E_BAD_BODY oops").await;
    assert_eq!(error.to_string(), "E_BAD_BODY oops");
    assert_eq!(error.outcome(), Outcome::Rejected);
}

#[tokio::test]
async fn another_kind_of_server_is_recognised() {
    let error = answered_with(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(matches!(error, ClientError::Handshake(_)), "{error}");
    let error = answered_with(b"\0\0\0\x06\0\0\0\0[]").await;
    assert!(matches!(error, ClientError::Handshake(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_closes_or_says_nothing_is_an_error() {
    assert!(matches!(answered_with(b"").await, ClientError::ClosedByServer));

    let server = Server::start().await;
    let options = IdentifyOptions {
        connect_timeout: Duration::from_millis(20),
        ..IdentifyOptions::default()
    };
    let error = Connection::connect(&server.address, options).await.unwrap_err();
    assert!(matches!(error, ClientError::HandshakeTimeout { .. }), "{error}");
}

#[tokio::test]
async fn an_address_that_nobody_listens_on_is_named() {
    // Bound and not listening: no other test can get the port meanwhile.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let error = Connection::connect(&address, IdentifyOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    assert_eq!(error.outcome(), Outcome::NotDone);
}
