//! Sockets in the file system, HTTP over TLS, and a port that refuses everything without TLS.

use std::path::Path;
use std::sync::Arc;

use nsquorum_frontend::tls::ClientAuth;
use nsquorum_frontend::{HttpFrontend, TcpServer};
use nsquorum_http::{ListenAddress, Listener, TlsRequired};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::node::{TestNode, effective, publish, within};
use crate::transports::{Certificates, TLS13, node};

fn unix(path: &Path) -> Listener {
    Listener::bind(&ListenAddress::Unix(path.to_owned())).expect("a free path")
}

fn web(node: &TestNode) -> Arc<HttpFrontend> {
    let (config, registry) = (Arc::clone(&node.config), node.registry.clone());
    Arc::new(HttpFrontend::new(
        node.broker.clone(),
        config,
        effective(),
        registry,
        None,
        (None, None),
    ))
}

/// The status line and the body.
async fn get(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    within(stream.write_all(request.as_bytes())).await.expect("sent");
    let mut answer = Vec::new();
    // A server may end TLS without saying so; the answer has a length.
    drop(within(stream.read_to_end(&mut answer)).await);
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[tokio::test]
async fn both_protocols_work_through_the_file_system() {
    let node = TestNode::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let (tcp_path, http_path) = (directory.path().join("tcp.sock"), directory.path().join("http.sock"));
    let server = TcpServer::new(node.broker.clone(), Arc::clone(&node.config), node.registry.clone());
    tokio::spawn(server.serve(unix(&tcp_path), node.stopped.clone()));
    tokio::spawn(nsquorum_http::serve(unix(&http_path), web(&node), node.stopped.clone()));

    let mut publishers = Vec::new();
    for _ in 0..2 {
        let mut client = UnixStream::connect(&tcp_path).await.expect("the node listens");
        within(client.write_all(b"  V2")).await.expect("sent");
        within(client.write_all(&publish(b"x"))).await.expect("sent");
        let mut answer = [0; 10];
        within(client.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer, b"\0\0\0\x06\0\0\0\0OK");
        publishers.push(client);
    }

    let mut stream = UnixStream::connect(&http_path).await.expect("the node listens");
    let good = || ("HTTP/1.1 200 OK".to_owned(), "OK".to_owned());
    assert_eq!(get(&mut stream, "/ping").await, good());
    let mut stream = UnixStream::connect(&http_path).await.expect("the node listens");
    let (_, info) = get(&mut stream, "/info").await;
    assert!(info.contains(r#""http_port":-1,"tcp_port":-1,"#), "{info}");
    let mut stream = UnixStream::connect(&http_path).await.expect("the node listens");
    let (_, stats) = get(&mut stream, "/stats?format=json").await;
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    let producers = stats["producers"].as_array().expect("two");
    assert_eq!(producers.len(), 2, "each has an address of its own");
    assert_eq!(producers[0]["client_id"], "");
}

#[tokio::test]
async fn http_is_served_over_tls_and_refused_without() {
    let certificates = Certificates::new();
    let node = node(&certificates, ClientAuth::NotAsked).await;
    let any = "127.0.0.1:0".parse().expect("an address");
    let https = nsquorum_http::bind(any).expect("a port");
    let http = nsquorum_http::bind(any).expect("a port");
    let https_address = https.local_addr().expect("bound");
    let http_address = http.local_addr().expect("bound");
    let acceptor = node.config.tls.as_ref().expect("TLS").acceptor();
    tokio::spawn(nsquorum_http::serve_tls(
        https,
        acceptor,
        web(&node),
        node.stopped.clone(),
    ));
    let https_port = https_address.port();
    let refusal = Arc::new(TlsRequired { https_port });
    tokio::spawn(nsquorum_http::serve(http, refusal, node.stopped.clone()));

    let stream = TcpStream::connect(https_address).await.expect("the node listens");
    let name = ServerName::try_from("node.example").expect("a name");
    let connecting = certificates.connector(None, TLS13).connect(name, stream);
    let mut stream = within(connecting).await.expect("a handshake");
    let answer = get(&mut stream, "/ping").await;
    assert_eq!(answer, ("HTTP/1.1 200 OK".to_owned(), "OK".to_owned()));

    for path in ["/ping", "/nowhere"] {
        let mut stream = TcpStream::connect(http_address).await.expect("the node listens");
        let body = format!(r#"{{"message": "TLS_REQUIRED", "https_port": {https_port}}}"#);
        let answer = get(&mut stream, path).await;
        assert_eq!(answer, ("HTTP/1.1 403 Forbidden".to_owned(), body));
    }
}
