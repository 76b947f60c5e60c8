//! A service that panics.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use nsquorum_http::{Reply, Request, Response, Service, StopSource, bind, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct Fragile;

impl Service for Fragile {
    async fn handle(&self, request: &mut Request) -> Response {
        let path = request.uri().path();
        tokio::task::yield_now().await;
        assert_eq!(path, "/good", "not expected");
        Reply::Text("fine".to_owned()).into_response()
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_connection_lives_on() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopped) = StopSource::new();
    tokio::spawn(serve(listener, Arc::new(Fragile), stopped));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        |path: &str, rest: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n{rest}\r\nbody");
    let requests = request("/bad", "") + &request("/good", "Connection: close\r\n");
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    let (bad, good) = answers.split_at(answers.rfind("HTTP/1.1").unwrap());
    assert!(bad.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{bad}");
    assert!(bad.contains("X-Nsq-Content-Type: nsq; version=1.0\r\n"), "{bad}");
    assert!(bad.ends_with("\r\n\r\n{\"message\":\"INTERNAL_ERROR\"}"), "{bad}");
    assert!(
        good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("fine"),
        "{good}"
    );
}
