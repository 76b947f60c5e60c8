//! TLS, Snappy and Deflate over real sockets: the order of frames, bytes that come early, and what is refused.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use nsquorum_frontend::TcpServer;
use nsquorum_frontend::tls::{ClientAuth, MinVersion, ServerTls, TlsSettings};
use nsquorum_http::{ListenAddress, Listener};
use nsquorum_protocol::compression::{Compressor, Decoded, Decompressor};
use nsquorum_protocol::{Compression, Frame, FrameDecoder, ServerFeatures, encode};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::node::{Settings, TestNode, ok, publish, within};

/// A root, the node's certificate and a client's.
pub(crate) struct Certificates {
    directory: tempfile::TempDir,
    root: CertificateDer<'static>,
    pub(crate) client: (CertificateDer<'static>, KeyPair),
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(params, key).expect("signed");
        let signed = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new([name.to_owned(), "127.0.0.1".to_owned()]).expect("names");
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            (params.signed_by(&key, &root).expect("signed"), key)
        };
        let (server, server_key) = signed("node.example");
        let (client, client_key) = signed("client.example");
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).expect("written");
        write("cert.pem", server.pem());
        write("key.pem", server_key.serialize_pem());
        write("root.pem", root.pem());
        Self {
            root: root.der().clone(),
            client: (client.der().clone(), client_key),
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn root_file(&self) -> PathBuf {
        self.path("root.pem")
    }

    pub(crate) fn settings(&self, client_auth: ClientAuth, min_version: MinVersion) -> TlsSettings {
        TlsSettings {
            certificate: self.path("cert.pem"),
            key: self.path("key.pem"),
            root_ca: Some(self.path("root.pem")),
            client_auth,
            min_version,
        }
    }

    pub(crate) fn connector(
        &self,
        with: Option<(CertificateDer<'static>, &KeyPair)>,
        versions: Versions,
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let config = match with {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![certificate], key).expect("a pair")
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

pub(crate) type Versions = &'static [&'static rustls::SupportedProtocolVersion];
const TLS12: Versions = &[&rustls::version::TLS12];
pub(crate) const TLS13: Versions = &[&rustls::version::TLS13];

pub(crate) async fn node(certificates: &Certificates, client_auth: ClientAuth) -> TestNode {
    let settings = certificates.settings(client_auth, MinVersion::Tls12);
    TestNode::with(Settings {
        tls: Some(ServerTls::load(&settings).expect("good files")),
        features: ServerFeatures {
            snappy: true,
            deflate: true,
            ..ServerFeatures::default()
        },
        ..Settings::default()
    })
    .await
}

/// The client's side of a compression.
struct Codec {
    compressor: Compressor,
    decompressor: Decompressor,
    incoming: BytesMut,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A client that puts layers on as it is told.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    codec: Option<Codec>,
    frames: FrameDecoder,
    input: BytesMut,
}

impl Client {
    async fn open(node: &TestNode) -> (TcpStream, BytesMut) {
        let stream = TcpStream::connect(node.tcp).await.expect("the node listens");
        (stream, BytesMut::from(&b"  V2"[..]))
    }

    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            codec: None,
            frames: FrameDecoder::new(8 << 20),
            input: BytesMut::new(),
        }
    }

    fn compress(&mut self, compression: Compression) {
        self.codec = Some(Codec {
            compressor: Compressor::new(compression),
            decompressor: Decompressor::new(compression),
            // The server does not wait for the client: what it sends next may be here already.
            incoming: self.input.split(),
        });
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let mut out = BytesMut::from(bytes);
        if let Some(codec) = &mut self.codec {
            out.clear();
            codec.compressor.compress(bytes, &mut out);
            codec.compressor.flush(&mut out);
        }
        within(self.stream.write_all(&out)).await.expect("the node reads");
        within(self.stream.flush()).await.expect("the node reads");
    }

    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.decode(&mut self.input).expect("well-formed frames") {
                return Some(frame);
            }
            let Some(codec) = &mut self.codec else {
                let count = within(self.stream.read_buf(&mut self.input)).await.expect("not reset");
                if count == 0 {
                    return None;
                }
                continue;
            };
            let mut out = [0; 4096];
            match codec
                .decompressor
                .decompress(&mut codec.incoming, &mut out)
                .expect("intact")
            {
                Decoded::Bytes(count) => self.input.extend_from_slice(&out[..count]),
                Decoded::End => return None,
                Decoded::Missing => {
                    let count = within(self.stream.read_buf(&mut codec.incoming))
                        .await
                        .expect("not reset");
                    if count == 0 {
                        return None;
                    }
                }
            }
        }
    }

    async fn json(&mut self) -> serde_json::Value {
        match self.frame().await {
            Some(Frame::Response(json)) => serde_json::from_slice(&json).expect("JSON"),
            other => panic!("{other:?}"),
        }
    }
}

fn identify(wishes: &str) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode::identify(
        &mut bytes,
        format!(r#"{{"feature_negotiation":true{wishes}}}"#).as_bytes(),
    );
    bytes
}

/// IDENTIFY, and TLS on a plain connection.
pub(crate) async fn encrypted(
    node: &TestNode,
    connector: &TlsConnector,
    wishes: &str,
) -> (serde_json::Value, io::Result<TlsStream<TcpStream>>) {
    let (stream, mut magic) = Client::open(node).await;
    magic.extend_from_slice(&identify(&format!(r#","tls_v1":true{wishes}"#)));
    let mut plain = PlainClient::new(stream);
    plain.send(&magic).await;
    let answer = plain.json().await;
    let name = ServerName::try_from("node.example").expect("a name");
    (answer, within(connector.connect(name, plain.into_stream())).await)
}

/// Reads exactly a frame, so that nothing of what follows is taken from the stream.
struct PlainClient(TcpStream);

impl PlainClient {
    fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    async fn send(&mut self, bytes: &[u8]) {
        within(self.0.write_all(bytes)).await.expect("the node reads");
    }

    async fn json(&mut self) -> serde_json::Value {
        let size = within(self.0.read_i32()).await.expect("a frame");
        let mut frame = vec![0; usize::try_from(size).expect("positive")];
        within(self.0.read_exact(&mut frame)).await.expect("a frame");
        serde_json::from_slice(&frame[4..]).expect("JSON")
    }

    fn into_stream(self) -> TcpStream {
        self.0
    }
}

/// Publishes and consumes bodies of many sizes, with many under way.
async fn exchange(client: &mut Client) {
    let sizes = [1, 13, 200, 16 * 1024, 65_536, 100_000, 1 << 20];
    let bodies: Vec<Vec<u8>> = sizes
        .iter()
        .map(|size| (0..*size).map(|at| (at * 31 % 251) as u8).collect())
        .collect();
    client.send(b"SUB t c\nRDY 100\n").await;
    assert_eq!(client.frame().await, Some(ok()));
    for body in &bodies {
        client.send(&publish(body)).await;
    }
    let (mut answers, mut arrived) = (0, Vec::new());
    while answers < bodies.len() || arrived.len() < bodies.len() {
        match client.frame().await {
            Some(Frame::Message { body, .. }) => arrived.push(body),
            Some(frame) => {
                assert_eq!(frame, ok());
                answers += 1;
            }
            None => panic!("the connection ended"),
        }
    }
    assert!(
        arrived
            .iter()
            .zip(&bodies)
            .all(|(arrived, sent)| arrived[..] == sent[..])
    );
}

pub(crate) async fn stats_of_client(node: &TestNode) -> serde_json::Value {
    let mut stream = TcpStream::connect(node.http).await.expect("the node listens");
    let request = b"GET /stats?format=json HTTP/1.0\r\n\r\n";
    within(stream.write_all(request)).await.expect("sent");
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.expect("an answer");
    let body = String::from_utf8(answer).expect("text");
    let (_, body) = body.split_once("\r\n\r\n").expect("a body");
    let stats: serde_json::Value = serde_json::from_str(body).expect("JSON");
    stats["topics"][0]["channels"][0]["clients"][0].clone()
}

#[tokio::test]
async fn compressions_work_on_a_plain_connection() {
    let certificates = Certificates::new();
    for (wish, compression) in [
        (r#","snappy":true"#, Compression::Snappy),
        (
            r#","deflate":true,"deflate_level":3"#,
            Compression::Deflate { level: 3 },
        ),
    ] {
        let node = node(&certificates, ClientAuth::NotAsked).await;
        let (stream, mut bytes) = Client::open(&node).await;
        bytes.extend_from_slice(&identify(wish));
        let mut client = Client::over(stream);
        client.send(&bytes).await;
        let answer = client.json().await;
        let snappy = compression == Compression::Snappy;
        assert_eq!((answer["snappy"] == true, answer["deflate"] == true), (snappy, !snappy));
        client.compress(compression);
        assert_eq!(client.frame().await, Some(ok()));
        exchange(&mut client).await;
        let stats = stats_of_client(&node).await;
        assert_eq!((stats["snappy"] == true, stats["deflate"] == true), (snappy, !snappy));
        assert_eq!(stats["tls"], false);
    }
}

#[tokio::test]
async fn bytes_behind_identify_belong_to_the_compression() {
    let certificates = Certificates::new();
    let node = node(&certificates, ClientAuth::NotAsked).await;
    for (wish, compression) in [
        (r#","snappy":true"#, Compression::Snappy),
        (r#","deflate":true"#, Compression::Deflate { level: 6 }),
    ] {
        let (stream, mut bytes) = Client::open(&node).await;
        bytes.extend_from_slice(&identify(wish));
        let mut compressor = Compressor::new(compression);
        let mut early = BytesMut::new();
        compressor.compress(&publish(b"early"), &mut early);
        compressor.flush(&mut early);
        bytes.extend_from_slice(&early);
        let mut client = Client::over(stream);
        client.send(&bytes).await;
        client.json().await;
        client.compress(compression);
        assert_eq!(client.frame().await, Some(ok()), "of the upgrade");
        assert_eq!(client.frame().await, Some(ok()), "of the publish");
    }
}

#[tokio::test]
async fn tls_and_compressions_over_it() {
    let certificates = Certificates::new();
    for versions in [TLS12, TLS13] {
        let connector = certificates.connector(None, versions);
        for (wish, compression) in [
            ("", None),
            (r#","snappy":true"#, Some(Compression::Snappy)),
            (r#","deflate":true"#, Some(Compression::Deflate { level: 6 })),
        ] {
            let node = node(&certificates, ClientAuth::NotAsked).await;
            let (answer, stream) = encrypted(&node, &connector, wish).await;
            assert_eq!(answer["tls_v1"], true);
            let mut client = Client::over(stream.expect("a handshake"));
            assert_eq!(client.frame().await, Some(ok()), "in TLS");
            if let Some(compression) = compression {
                client.compress(compression);
                assert_eq!(client.frame().await, Some(ok()), "compressed");
            }
            exchange(&mut client).await;
            let stats = stats_of_client(&node).await;
            assert_eq!(
                (&stats["tls"], &stats["tls_negotiated_protocol_is_mutual"]),
                (&true.into(), &true.into())
            );
            let (version, suite) = match versions[0].version {
                rustls::ProtocolVersion::TLSv1_3 => ("TLS1.3", "TLS_AES_256_GCM_SHA384"),
                _ => ("TLS1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
            };
            assert_eq!(
                (&stats["tls_version"], &stats["tls_cipher_suite"]),
                (&version.into(), &suite.into())
            );
        }
    }
}

/// Gives what is written first to the one who asks for it, instead of the socket.
struct Recorder {
    first: Option<tokio::sync::oneshot::Sender<Vec<u8>>>,
    stream: tokio::io::DuplexStream,
}

impl AsyncRead for Recorder {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.first.take() {
            Some(first) => {
                drop(first.send(bytes.to_vec()));
                Poll::Ready(Ok(bytes.len()))
            }
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_write(cx, first.map_or(&[], |slice| slice))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_client_hello_behind_identify_belongs_to_the_handshake() {
    let certificates = Certificates::new();
    let node = node(&certificates, ClientAuth::NotAsked).await;
    let connector = certificates.connector(None, TLS13);
    let (near, far) = tokio::io::duplex(1 << 20);
    let (first, hello) = tokio::sync::oneshot::channel();
    let recorder = Recorder {
        first: Some(first),
        stream: near,
    };
    let name = ServerName::try_from("node.example").expect("a name");
    let connecting = tokio::spawn(connector.connect(name, recorder).into_fallible());
    let hello = within(hello).await.expect("a client hello");

    let (mut stream, mut bytes) = Client::open(&node).await;
    bytes.extend_from_slice(&identify(r#","tls_v1":true"#));
    bytes.extend_from_slice(&hello);
    within(stream.write_all(&bytes)).await.expect("the node reads");
    let mut plain = PlainClient::new(stream);
    assert_eq!(plain.json().await["tls_v1"], true);
    let (mut stream, mut far) = (plain.into_stream(), far);
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut far).await });
    let stream = within(connecting).await.expect("no panic");
    let Ok(stream) = stream else {
        panic!("the handshake failed")
    };
    let mut client = Client::over(stream);
    assert_eq!(client.frame().await, Some(ok()));
    exchange(&mut client).await;
}

#[tokio::test]
async fn the_policies_for_clients_certificates() {
    let (ours, foreign) = (Certificates::new(), Certificates::new());
    let (none, good, strange) = (None, Some(&ours.client), Some(&foreign.client));
    for (policy, client, welcome) in [
        (ClientAuth::NotAsked, none, true),
        (ClientAuth::NotAsked, strange, true),
        (ClientAuth::Any, none, false),
        (ClientAuth::Any, strange, true),
        (ClientAuth::Any, good, true),
        (ClientAuth::Verified, none, false),
        (ClientAuth::Verified, strange, false),
        (ClientAuth::Verified, good, true),
    ] {
        let node = node(&ours, policy).await;
        for versions in [TLS12, TLS13] {
            let connector = ours.connector(client.map(|(certificate, key)| (certificate.clone(), key)), versions);
            let (_, stream) = encrypted(&node, &connector, "").await;
            // With TLS 1.3 the client believes in its handshake before the server has judged it.
            let arrived = match stream {
                Ok(stream) => first_byte(stream).await,
                Err(_) => false,
            };
            assert_eq!(arrived, welcome, "{policy:?}, certificate {:?}", client.is_some());
        }
    }
}

async fn first_byte(mut stream: TlsStream<TcpStream>) -> bool {
    matches!(within(stream.read(&mut [0; 1])).await, Ok(1))
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_gets_a_word_in_plain() {
    let certificates = Certificates::new();
    let node = node(&certificates, ClientAuth::NotAsked).await;
    let (stream, mut bytes) = Client::open(&node).await;
    bytes.extend_from_slice(&identify(r#","tls_v1":true"#));
    let mut client = Client::over(stream);
    client.send(&bytes).await;
    client.json().await;
    client.send(b"SUB t c\n").await;
    // An alert comes first: seven bytes that are no frame.
    let mut rest = Vec::new();
    within(client.stream.read_to_end(&mut rest)).await.expect("an end");
    let text = String::from_utf8_lossy(&rest);
    assert!(text.contains("E_IDENTIFY_FAILED IDENTIFY failed "), "{text}");
}

#[tokio::test]
async fn old_versions_are_refused_if_the_node_says_so() {
    let certificates = Certificates::new();
    let settings = certificates.settings(ClientAuth::NotAsked, MinVersion::Tls13);
    let node = TestNode::with(Settings {
        tls: Some(ServerTls::load(&settings).expect("good files")),
        ..Settings::default()
    })
    .await;
    for (versions, welcome) in [(TLS12, false), (TLS13, true)] {
        let (_, stream) = encrypted(&node, &certificates.connector(None, versions), "").await;
        assert_eq!(stream.is_ok(), welcome);
    }
}

#[test]
fn bad_files_are_named() {
    let (ours, other) = (Certificates::new(), Certificates::new());
    let good = || ours.settings(ClientAuth::NotAsked, MinVersion::Tls12);
    let complaint = |settings: TlsSettings| ServerTls::load(&settings).expect_err("bad files").to_string();
    let missing = TlsSettings {
        certificate: ours.path("nowhere.pem"),
        ..good()
    };
    assert!(complaint(missing).contains("nowhere.pem"));
    let swapped = TlsSettings {
        certificate: ours.path("key.pem"),
        ..good()
    };
    assert!(complaint(swapped).contains("no certificate in"));
    let foreign = TlsSettings {
        key: other.path("key.pem"),
        ..good()
    };
    assert!(complaint(foreign).contains("the certificate and the key cannot be used"));
    let no_roots = TlsSettings {
        root_ca: None,
        client_auth: ClientAuth::Verified,
        ..good()
    };
    assert_eq!(
        complaint(no_roots),
        "the policy require-verify needs a file of root certificates"
    );
}

#[tokio::test]
async fn a_fatal_error_arrives_through_every_layer() {
    let certificates = Certificates::new();
    let node = node(&certificates, ClientAuth::NotAsked).await;
    let connector = certificates.connector(None, TLS13);
    let (_, stream) = encrypted(&node, &connector, r#","deflate":true"#).await;
    let mut client = Client::over(stream.expect("a handshake"));
    assert_eq!(client.frame().await, Some(ok()));
    client.compress(Compression::Deflate { level: 6 });
    assert_eq!(client.frame().await, Some(ok()));
    // The client goes on sending what the server will not read.
    client.send(b"PUB t\n\x7f\xff\xff\xff").await;
    client.send(&vec![b'x'; 200_000]).await;
    let expected = b"E_BAD_MESSAGE PUB message too big 2147483647 > 1048576";
    assert_eq!(client.frame().await, Some(Frame::Error(expected[..].into())));
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn a_corrupt_stream_ends_the_connection() {
    let certificates = Certificates::new();
    let node = node(&certificates, ClientAuth::NotAsked).await;
    let (stream, mut bytes) = Client::open(&node).await;
    bytes.extend_from_slice(&identify(r#","snappy":true"#));
    let mut client = Client::over(stream);
    client.send(&bytes).await;
    client.json().await;
    client.send(b"PUB t\n\0\0\0\x01x").await;
    client.compress(Compression::Snappy);
    assert_eq!(client.frame().await, Some(ok()));
    // An end or a reset: the bytes are not read to the end.
    let mut rest = Vec::new();
    drop(within(client.stream.read_to_end(&mut rest)).await);
    assert!(rest.is_empty());
}

/// A socket in the file system holds little, so that the last bytes of a message have to wait above it: at some of the sizes all of the
/// message is in the layer, and none is left in the connection's own output.
#[tokio::test]
async fn what_waits_in_a_layer_leaves_when_the_socket_has_room() {
    let certificates = Certificates::new();
    let node = node(&certificates, ClientAuth::NotAsked).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tcp.sock");
    let listener = Listener::bind(&ListenAddress::Unix(path.clone())).expect("a free path");
    let server = TcpServer::new(node.broker.clone(), Arc::clone(&node.config), node.registry.clone());
    tokio::spawn(server.serve(listener, node.stopped.clone()));
    let mut producer = crate::node::Client::open(&node).await;
    let mut consumer = Client::over(UnixStream::connect(&path).await.expect("the node listens"));
    let mut bytes = BytesMut::from(&b"  V2"[..]);
    bytes.extend_from_slice(&identify(r#","snappy":true"#));
    consumer.send(&bytes).await;
    consumer.json().await;
    consumer.compress(Compression::Snappy);
    assert_eq!(consumer.frame().await, Some(ok()));
    consumer.send(b"SUB t c\nRDY 1\n").await;
    assert_eq!(consumer.frame().await, Some(ok()));
    let mut noise = 1u32;
    let mut next = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    for (at, size) in (1..=40).map(|step| step * 24 * 1024).enumerate() {
        let body: Vec<u8> = (0..size).map(|_| next()).collect();
        producer.publish(&body).await;
        assert_eq!(producer.frame().await, Some(ok()));
        while stats_of_client(&node).await["in_flight_count"] != 1 {}
        match consumer.frame().await {
            Some(Frame::Message { body: arrived, .. }) => assert!(arrived[..] == body[..], "{size} bytes changed"),
            other => panic!("{other:?}"),
        }
        consumer.send(format!("FIN {:016x}\n", at + 1).as_bytes()).await;
        while stats_of_client(&node).await["in_flight_count"] != 0 {}
    }
}

/// The clock runs by itself from the answer on: whatever waits, waits no longer than it has to.
#[tokio::test]
async fn a_handshake_has_five_seconds() {
    let certificates = Certificates::new();
    let node = node(&certificates, ClientAuth::NotAsked).await;
    // One that says nothing, and one that stops in the middle of its greeting.
    for hello in [&b""[..], b"\x16\x03\x01\x02\0\x01"] {
        let (stream, mut bytes) = Client::open(&node).await;
        bytes.extend_from_slice(&identify(r#","tls_v1":true"#));
        bytes.extend_from_slice(hello);
        let mut plain = PlainClient::new(stream);
        plain.send(&bytes).await;
        assert_eq!(plain.json().await["tls_v1"], true);
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        let mut client = Client::over(plain.into_stream());
        let refusal = Frame::Error(b"E_IDENTIFY_FAILED IDENTIFY failed i/o timeout"[..].into());
        assert_eq!(client.frame().await, Some(refusal));
        let took = began.elapsed();
        assert!((4..10).contains(&took.as_secs()), "{took:?}");
        assert_eq!(client.frame().await, None);
        tokio::time::resume();
    }
}
