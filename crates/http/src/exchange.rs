//! The other side: one request over a connection of its own.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// The longest body of an answer that is read, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A complete answer to a request of ours.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body, at most 1 MiB.
    pub body: Bytes,
}

/// Why there is no answer. Asking again may help.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection, or what came over it.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The body is too long, or its end never came.
    #[error("the answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// Sends a request and reads its answer. It takes as long as the other end does: the caller sets a limit.
pub async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchanging = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(ExchangeError::Body)?.to_bytes();
        Ok(Answer { status, body })
    };
    // The connection's future moves the bytes; what goes wrong in it reaches the exchange too.
    let mut exchanging = std::pin::pin!(exchanging);
    tokio::select! {
        answer = exchanging.as_mut() => return answer,
        _ = connection => {}
    }
    exchanging.await
}
