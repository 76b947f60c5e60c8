//! A lookup service over real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use nsquorum_environment::Environment;
use nsquorum_http::StopSource;
use nsquorum_lookup::{Lifetimes, LookupService, LookupSettings};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// For hanging, not for slowness.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    tcp: SocketAddr,
    http: SocketAddr,
    stop: StopSource,
    task: JoinHandle<()>,
}

fn start() -> Running {
    let any = "127.0.0.1:0".parse().unwrap();
    let settings = LookupSettings {
        tcp_address: any,
        http_address: any,
        broadcast_address: "lookup.example".into(),
        hostname: "lookup1".into(),
        version: "1.3.0".into(),
        lifetimes: Lifetimes::default(),
    };
    let service = LookupService::bind(settings).unwrap();
    let (stop, stopped) = StopSource::new();
    Running {
        tcp: service.tcp_address(),
        http: service.http_address(),
        stop,
        task: tokio::spawn(service.run(Environment::system(), stopped)),
    }
}

/// An nsqd, as nsqlookupd sees it.
struct Producer(TcpStream);

impl Producer {
    async fn connect(at: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(at).await.unwrap();
        socket.write_all(b"  V1").await.unwrap();
        Self(socket)
    }

    async fn identified(at: SocketAddr, host: &str) -> Self {
        let mut producer = Self::connect(at).await;
        let body = format!(r#"{{"broadcast_address":"{host}","tcp_port":4150,"http_port":4151,"version":"1.3.0"}}"#);
        let mut bytes = b"IDENTIFY\n".to_vec();
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body.as_bytes());
        let answer = producer.ask(&bytes).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["broadcast_address"], "lookup.example");
        producer
    }

    async fn ask(&mut self, bytes: &[u8]) -> String {
        self.0.write_all(bytes).await.unwrap();
        self.answer().await.expect("an answer")
    }

    /// `None` is the end of the connection.
    async fn answer(&mut self) -> Option<String> {
        let read = async {
            let length = self.0.read_u32().await.ok()?;
            let mut answer = vec![0; length as usize];
            self.0.read_exact(&mut answer).await.unwrap();
            Some(String::from_utf8(answer).unwrap())
        };
        tokio::time::timeout(PATIENCE, read).await.expect("in time")
    }
}

async fn get(at: SocketAddr, path: &str) -> Value {
    get_with(at, path, "").await
}

/// With more header lines.
async fn get_with(at: SocketAddr, path: &str, more: &str) -> Value {
    let mut socket = TcpStream::connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn what_registers_is_found_until_its_connection_ends() {
    let running = start();
    let mut producer = Producer::identified(running.tcp, "n1").await;
    assert_eq!(producer.ask(b"REGISTER t c\n").await, "OK");
    let found = get(running.http, "/lookup?topic=t").await;
    assert_eq!(found["channels"], serde_json::json!(["c"]));
    let listed = &found["producers"][0];
    assert_eq!(
        (&listed["broadcast_address"], &listed["tcp_port"]),
        (&"n1".into(), &4150.into())
    );
    assert_eq!(listed["remote_address"], producer.0.local_addr().unwrap().to_string());
    let nodes = get(running.http, "/nodes").await;
    assert_eq!(
        (&nodes["producers"][0]["topics"], &nodes["producers"][0]["tombstones"]),
        (&["t"].as_slice().into(), &[false].as_slice().into())
    );

    drop(producer);
    let gone = async {
        while get(running.http, "/lookup?topic=t").await["producers"] != serde_json::json!([]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("in time");
    assert_eq!(get(running.http, "/topics").await["topics"], serde_json::json!(["t"]));
    running.stop.stop();
    tokio::time::timeout(PATIENCE, running.task)
        .await
        .expect("in time")
        .unwrap();
}

#[tokio::test]
async fn a_refused_producer_hears_why_whatever_it_goes_on_sending() {
    let running = start();
    let mut producer = Producer::identified(running.tcp, "n1").await;
    assert_eq!(producer.ask(b"REGISTER t\n").await, "OK");
    let more = [b"NONSENSE\n".as_slice(), &b"PING\n".repeat(2000)].concat();
    assert_eq!(producer.ask(&more).await, "E_INVALID invalid command NONSENSE");
    assert_eq!(producer.answer().await, None);
    assert_eq!(
        get(running.http, "/nodes").await["producers"],
        serde_json::json!([]),
        "it is gone before its connection ends"
    );

    let mut stranger = Producer(TcpStream::connect(running.tcp).await.unwrap());
    assert_eq!(stranger.ask(b"  V2").await, "E_BAD_PROTOCOL");
    assert_eq!(stranger.answer().await, None);
    let mut half = Producer::connect(running.tcp).await;
    half.0.write_all(b"IDENTIFY\n\0\0").await.unwrap();
    half.0.shutdown().await.unwrap();
    assert_eq!(
        half.answer().await.as_deref(),
        Some("E_BAD_BODY IDENTIFY failed to read body size")
    );
}

#[tokio::test]
async fn a_stop_ends_idle_connections() {
    let running = start();
    let mut producer = Producer::identified(running.tcp, "n1").await;
    running.stop.stop();
    assert_eq!(producer.answer().await, None);
    tokio::time::timeout(PATIENCE, running.task)
        .await
        .expect("in time")
        .unwrap();
}

/// go-nsq sends one if a consumer has a secret.
#[tokio::test]
async fn an_authorization_is_ignored() {
    let running = start();
    let mut producer = Producer::identified(running.tcp, "n1").await;
    assert_eq!(producer.ask(b"REGISTER t c\n").await, "OK");
    let plain = get(running.http, "/lookup?topic=t").await;
    assert_eq!(plain["producers"][0]["broadcast_address"], "n1");
    for value in ["Bearer secret", "Basic c2VjcmV0", "nonsense"] {
        let more = format!("Authorization: {value}\r\n");
        assert_eq!(get_with(running.http, "/lookup?topic=t", &more).await, plain);
    }
}

#[tokio::test]
async fn there_are_no_profiles() {
    let running = start();
    let found = get(running.http, "/debug/pprof/").await;
    assert_eq!(found, serde_json::json!({"message": "NOT_FOUND"}));
}
