//! One HTTP request at a time, without a client library: what is asked here fits into a few lines.

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status, for example 200.
    pub status: u16,
    /// The body as text.
    pub text: String,
}

/// GET `path` (with its query) from `host:port`.
///
/// # Errors
/// If there is no connection, or the answer is not HTTP.
pub async fn get(address: &str, path: &str) -> Result<HttpAnswer> {
    request(address, "GET", path, b"").await
}

/// POST `body` to `path` (with its query) at `host:port`.
///
/// # Errors
/// If there is no connection, or the answer is not HTTP.
pub async fn post(address: &str, path: &str, body: &[u8]) -> Result<HttpAnswer> {
    request(address, "POST", path, body).await
}

async fn request(address: &str, method: &str, path: &str, body: &[u8]) -> Result<HttpAnswer> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("no connection to {address}"))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, text) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("not HTTP: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(HttpAnswer {
        status: status.with_context(|| format!("not HTTP: {head:?}"))?,
        text: text.to_owned(),
    })
}
