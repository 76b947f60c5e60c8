//! One HTTP request at a time, without a client library: what commands ask of a node fits into a few lines.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// One request without a body, and the body of its answer; an error unless that is a success.
pub(crate) async fn request(address: &str, method: &str, path: &str) -> anyhow::Result<String> {
    let Answer { status, body } = send(address, method, path, &[]).await?;
    anyhow::ensure!(
        status == 200,
        "{method} http://{address}{path}: status {status}: {}",
        body.trim()
    );
    Ok(body)
}

/// An answer, whatever it says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// One request and its answer. HTTP/1.0, so that the answer ends with the connection and is not chunked.
pub(crate) async fn send(address: &str, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, exchange)
        .await
        .with_context(|| format!("{address} did not answer {method} {path}"))?
        .with_context(|| format!("{method} http://{address}{path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.context("an HTTP answer without a status")?,
        body: body.to_owned(),
    })
}
