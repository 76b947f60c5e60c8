//! One request to an auth server.

use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Uri};
use nsquorum_http::Answer;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{AuthError, AuthSettings};

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
        let answer = if encrypted {
            let name = ServerName::try_from(host.to_owned())
                .map_err(|error| AuthError::Connect(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let stream = settings.tls.connector().connect(name, stream).await;
            nsquorum_http::exchange(stream.map_err(AuthError::Connect)?, request).await
        } else {
            nsquorum_http::exchange(stream, request).await
        };
        Ok(answer?)
    };
    timeout(settings.request_timeout, answering)
        .await
        .map_err(|_| AuthError::TimedOut)?
}
