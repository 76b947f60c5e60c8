//! One HTTP request over a connection of its own.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{AuthError, AuthSettings};

const BODY_BYTES_MAX: usize = 1 << 20;

/// A complete answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

pub(super) async fn exchange(
    settings: &AuthSettings,
    uri: &Uri,
    request: Request<Full<Bytes>>,
) -> Result<Answer, AuthError> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let encrypted = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let connecting = timeout(settings.connect_timeout, TcpStream::connect((host, port)));
    let stream = connecting
        .await
        .map_err(|_| AuthError::TimedOut)?
        .map_err(AuthError::Connect)?;
    let answering = async {
        if encrypted {
            let name = ServerName::try_from(host.to_owned())
                .map_err(|error| AuthError::Connect(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let stream = settings.tls.connector().connect(name, stream).await;
            answer(stream.map_err(AuthError::Connect)?, request).await
        } else {
            answer(stream, request).await
        }
    };
    timeout(settings.request_timeout, answering)
        .await
        .map_err(|_| AuthError::TimedOut)?
}

async fn answer<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, AuthError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchanging = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(AuthError::Body)?.to_bytes();
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
