//! AUTH against a real HTTP server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use nsquorum_frontend::tls::{ClientAuth, ClientTls, MinVersion, ServerTls};
use nsquorum_frontend::{AuthMethod, AuthSettings, TcpServer};
use nsquorum_http::{ListenAddress, Listener};
use nsquorum_protocol::{Frame, encode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::http::request;
use crate::node::{Client, Settings, TestNode, ok, publish};
use crate::transports::{self, Certificates, TLS13};

const TOPIC_T: &str = r#"[{"topic":"^t$","channels":[".*"],"permissions":["subscribe","publish"]}]"#;

/// An auth server whose answer can be changed, and the request lines that it has seen.
struct AuthServer {
    address: String,
    answer: Arc<Mutex<(&'static str, String)>>,
    seen: Arc<Mutex<Vec<String>>>,
}

/// Reads one request, remembers its line and answers it.
async fn answer_one(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<String>>,
    status: &str,
    body: &str,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.expect("a request"), 0);
    }
    let request = String::from_utf8(request).expect("text");
    let line = request.lines().next().unwrap_or_default().to_owned();
    seen.lock().expect("no panic").push(line);
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.expect("an open socket");
    stream.flush().await.expect("an open socket");
}

impl AuthServer {
    async fn start() -> Self {
        Self::over(None).await
    }

    /// With TLS, if there is something to shake hands with.
    async fn over(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Self {
            address: listener.local_addr().expect("bound").to_string(),
            answer: Arc::default(),
            seen: Arc::default(),
        };
        let (answer, seen) = (Arc::clone(&server.answer), Arc::clone(&server.seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (status, body) = answer.lock().expect("no panic").clone();
                match &acceptor {
                    None => answer_one(stream, &seen, status, &body).await,
                    Some(acceptor) => {
                        // Who does not believe in the certificate goes.
                        if let Ok(stream) = acceptor.accept(stream).await {
                            answer_one(stream, &seen, status, &body).await;
                        }
                    }
                }
            }
        });
        server
    }

    /// From now on it grants this, for so long.
    fn grant(&self, ttl: u32, authorizations: &str) {
        let answer = format!(r#"{{"ttl":{ttl},"identity":"me","authorizations":{authorizations}}}"#);
        *self.answer.lock().expect("no panic") = ("200 OK", answer);
    }

    /// From now on it refuses, as a server that wants TLS does.
    fn refuse(&self, https_port: &str) {
        let answer = format!(r#"{{"message": "TLS_REQUIRED", "https_port": {https_port}}}"#);
        *self.answer.lock().expect("no panic") = ("403 Forbidden", answer);
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }

    fn settings(&self) -> Option<AuthSettings> {
        Some(AuthSettings {
            addresses: vec![self.address.clone()],
            method: AuthMethod::Get,
            connect_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            tls: ClientTls::load(None, MinVersion::Tls12).expect("no file to miss"),
        })
    }
}

fn auth(secret: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode::auth(&mut bytes, secret);
    bytes
}

fn welcome() -> Option<Frame> {
    let json = br#"{"identity":"me","identity_url":"","permission_count":1}"#;
    Some(Frame::Response(json[..].into()))
}

#[tokio::test]
async fn a_client_may_do_what_the_server_grants_for_as_long_as_it_does() {
    let server = AuthServer::start().await;
    let node = TestNode::with(Settings {
        auth: server.settings(),
        ..Settings::default()
    })
    .await;
    server.grant(1, TOPIC_T);
    let mut client = Client::open(&node).await;
    // Everything at once, as clients do that do not wait.
    let mut bytes = auth(b"one secret");
    bytes.extend_from_slice(&publish(b"x"));
    bytes.extend_from_slice(b"SUB t c\nRDY 1\n");
    client.send(&bytes).await;
    assert_eq!(client.frame().await, welcome());
    assert_eq!((client.frame().await, client.frame().await), (Some(ok()), Some(ok())));
    assert_eq!(client.message().await.2, b"x");
    let query = "common_name=&remote_ip=127.0.0.1&secret=one%20secret&tls=false";
    assert_eq!(server.seen(), [format!("GET /auth?{query} HTTP/1.1")]);
    let stats = transports::stats_of_client(&node).await;
    assert_eq!(
        (&stats["authed"], &stats["auth_identity"]),
        (&true.into(), &"me".into())
    );

    let stats = request(&node, "GET", "/stats?format=json", b"").await.body;
    let (_, client_stats) = stats.split_once(r#""clients":[{"#).expect("a client");
    let (client_stats, _) = client_stats.split_once('}').expect("an end");
    let at = |key: &str| {
        client_stats
            .find(&format!(r#""{key}":"#))
            .unwrap_or_else(|| panic!("{key}: {client_stats}"))
    };
    let order = [
        "client_id",
        "hostname",
        "version",
        "remote_address",
        "state",
        "ready_count",
        "in_flight_count",
        "message_count",
        "finish_count",
        "requeue_count",
        "connect_ts",
        "sample_rate",
        "deflate",
        "snappy",
        "user_agent",
        "authed",
        "auth_identity",
        "pub_counts",
    ];
    assert!(order.map(at).is_sorted(), "{client_stats}");

    // When it has expired it is asked for again, and what is there no longer is refused.
    server.grant(1, "[]");
    let refusal = loop {
        client.publish(b"y").await;
        match client.frame().await {
            Some(Frame::Error(text)) => break text,
            frame => assert_eq!(frame, Some(ok())),
        }
    };
    assert_eq!(&refusal[..], br#"E_UNAUTHORIZED AUTH failed for PUB on "t" """#);
    assert_eq!(client.frame().await, None);
    assert!(server.seen().len() >= 2);
}

#[tokio::test]
async fn the_server_hears_of_tls_and_the_certificate() {
    let (server, certificates) = (AuthServer::start().await, Certificates::new());
    server.grant(60, TOPIC_T);
    let tls = certificates.settings(ClientAuth::Verified, MinVersion::Tls12);
    let node = TestNode::with(Settings {
        auth: server.settings(),
        tls: Some(ServerTls::load(&tls).expect("good files")),
        tls_required: true,
        ..Settings::default()
    })
    .await;
    let (certificate, key) = &certificates.client;
    let connector = certificates.connector(Some((certificate.clone(), key)), TLS13);
    let (answer, stream) = transports::encrypted(&node, &connector, "").await;
    assert_eq!(answer["auth_required"], true);
    let mut client = transports::Client::over(stream.expect("a handshake"));
    assert_eq!(client.frame().await, Some(ok()));
    client.send(&auth(b"s")).await;
    assert_eq!(client.frame().await, welcome());
    client.send(b"PUB u\n\0\0\0\x01x").await;
    let refusal = br#"E_UNAUTHORIZED AUTH failed for PUB on "u" """#;
    assert_eq!(client.frame().await, Some(Frame::Error(refusal[..].into())));
    let query = "common_name=client.example&remote_ip=127.0.0.1&secret=s&tls=true";
    assert_eq!(server.seen(), [format!("GET /auth?{query} HTTP/1.1")]);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_an_auth_that_failed() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = gone.local_addr().expect("bound").to_string();
    drop(gone);
    let settings = AuthServer::start().await.settings();
    let node = TestNode::with(Settings {
        auth: settings.map(|settings| AuthSettings {
            addresses: vec![address],
            ..settings
        }),
        ..Settings::default()
    })
    .await;
    let mut client = Client::open(&node).await;
    client.send(&auth(b"s")).await;
    let refusal = b"E_AUTH_FAILED AUTH failed";
    assert_eq!(client.frame().await, Some(Frame::Error(refusal[..].into())));
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn http_needs_no_permission() {
    let server = AuthServer::start().await;
    let node = TestNode::with(Settings {
        auth: server.settings(),
        ..Settings::default()
    })
    .await;
    for (path, body) in [
        ("/topic/create?topic=t", &b""[..]),
        ("/channel/create?topic=t&channel=c", b""),
        ("/pub?topic=t", b"x"),
        ("/mpub?topic=t", b"x\ny"),
        ("/channel/empty?topic=t&channel=c", b""),
        ("/topic/delete?topic=t", b""),
    ] {
        assert_eq!(request(&node, "POST", path, body).await.status, 200, "{path}");
    }
    assert_eq!(server.seen(), [""; 0]);
}

#[tokio::test]
async fn who_comes_through_the_file_system_has_no_address() {
    let server = AuthServer::start().await;
    server.grant(60, TOPIC_T);
    let node = TestNode::with(Settings {
        auth: server.settings(),
        ..Settings::default()
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tcp.sock");
    let listener = Listener::bind(&ListenAddress::Unix(path.clone())).expect("a free path");
    let tcp = TcpServer::new(node.broker.clone(), Arc::clone(&node.config), node.registry.clone());
    tokio::spawn(tcp.serve(listener, node.stopped.clone()));
    let mut client = transports::Client::over(UnixStream::connect(&path).await.expect("the node listens"));
    client.send(b"  V2").await;
    client.send(&auth(b"s")).await;
    assert_eq!(client.frame().await, welcome());
    let query = "common_name=&remote_ip=&secret=s&tls=false";
    assert_eq!(server.seen(), [format!("GET /auth?{query} HTTP/1.1")]);
}

#[tokio::test]
async fn servers_with_tls_are_asked_over_it_and_believed_if_their_root_is() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let tls = certificates.settings(ClientAuth::NotAsked, MinVersion::Tls12);
    let acceptor = ServerTls::load(&tls).expect("good files").acceptor();
    let (plain, encrypted) = (AuthServer::start().await, AuthServer::over(Some(acceptor)).await);
    encrypted.grant(60, TOPIC_T);
    plain.refuse(encrypted.address.rsplit(':').next().expect("a port"));
    let url = format!("https://{}/auth", encrypted.address);
    let line = "GET /auth?common_name=&remote_ip=127.0.0.1&secret=s&tls=false HTTP/1.1";
    for (address, root, expected) in [
        (&url, &certificates, welcome()),
        (&plain.address, &certificates, welcome()),
        (
            &url,
            &others,
            Some(Frame::Error(b"E_AUTH_FAILED AUTH failed"[..].into())),
        ),
    ] {
        let seen = encrypted.seen().len();
        let settings = AuthSettings {
            addresses: vec![address.clone()],
            tls: ClientTls::load(Some(&root.root_file()), MinVersion::Tls12).expect("a root"),
            ..plain.settings().expect("some")
        };
        let node = TestNode::with(Settings {
            auth: Some(settings),
            ..Settings::default()
        })
        .await;
        let mut client = Client::open(&node).await;
        client.send(&auth(b"s")).await;
        let believed = expected == welcome();
        assert_eq!(client.frame().await, expected, "{address}");
        let asked = encrypted.seen().split_off(seen);
        assert_eq!(asked, vec![line; usize::from(believed)], "{address}");
    }
    assert_eq!(plain.seen(), [line]);
}
