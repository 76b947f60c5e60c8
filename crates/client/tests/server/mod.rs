//! A scripted server: the test says which bytes must come and which to send. It builds frames by hand, so that a
//! mistake in the encoders that client and server share would show.

use std::time::Duration;

use nsquorum_client::{Connection, IdentifyOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Generous: reached only when a test fails.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const SETTINGS: &[u8] = br#"{"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":60000,"tls_v1":false,"deflate":false,"deflate_level":6,"max_deflate_level":6,"snappy":false,"sample_rate":0,"auth_required":false,"output_buffer_size":16384,"output_buffer_timeout":250}"#;

pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) address: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self { listener, address }
    }

    /// Accepts a connection whose handshake is still to come.
    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        Peer { stream }
    }

    /// A connection of the client with its handshake done, and its other end.
    pub(crate) async fn connect(&self, options: IdentifyOptions) -> (Connection, Peer) {
        let serve = async {
            let mut peer = self.accept().await;
            peer.identify().await;
            peer.response(SETTINGS).await;
            peer
        };
        let (connection, peer) = tokio::join!(Connection::connect(&self.address, options), serve);
        (connection.unwrap(), peer)
    }
}

/// The server's end of one connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
}

impl Peer {
    /// Reads the magic and IDENTIFY, and returns its JSON.
    pub(crate) async fn identify(&mut self) -> serde_json::Value {
        self.expect(b"  V2IDENTIFY\n").await;
        let length = within(self.stream.read_u32()).await.unwrap();
        let mut body = vec![0; length as usize];
        within(self.stream.read_exact(&mut body)).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Exactly these bytes must come next.
    pub(crate) async fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        within(self.stream.read_exact(&mut got)).await.unwrap();
        assert_eq!(got.escape_ascii().to_string(), bytes.escape_ascii().to_string());
    }

    pub(crate) async fn expect_publish(&mut self, topic: &str, body: &str) {
        let mut bytes = format!("PUB {topic}\n").into_bytes();
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body.as_bytes());
        self.expect(&bytes).await;
    }

    /// The client must have nothing more to say and half-close.
    pub(crate) async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        within(self.stream.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest.escape_ascii().to_string(), "");
    }

    pub(crate) async fn response(&mut self, data: &[u8]) {
        self.frame(0, data).await;
    }

    pub(crate) async fn error(&mut self, text: &str) {
        self.frame(1, text.as_bytes()).await;
    }

    async fn frame(&mut self, kind: u32, data: &[u8]) {
        self.send(&frame(kind, data)).await;
    }

    pub(crate) async fn message(&mut self, number: u64, attempts: u16, body: &[u8]) {
        self.send(&message(number, attempts, body)).await;
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
    }
}

fn frame(kind: u32, data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len() + 4).unwrap();
    [&size.to_be_bytes(), &kind.to_be_bytes(), data].concat()
}

/// A message frame with timestamp 1,000 + number.
pub(crate) fn message(number: u64, attempts: u16, body: &[u8]) -> Vec<u8> {
    let id = format!("{number:016x}");
    frame(
        2,
        &[
            &(1_000 + number).to_be_bytes(),
            &attempts.to_be_bytes()[..],
            id.as_bytes(),
            body,
        ]
        .concat(),
    )
}

/// Fails the test instead of hanging it.
pub(crate) async fn within<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("the test hangs")
}
