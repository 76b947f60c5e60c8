//! The question to the auth servers.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Uri};
use nsquorum_environment::Random;
use nsquorum_http::{Answer, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::Deserialize;
use serde_json::json;

use super::exchange::exchange;
use super::{AuthError, AuthMethod, AuthSettings, Grants};

/// What Go leaves as it is in a query, beside letters and digits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// What is known of a client that says who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Of its certificate; empty without one.
    pub(crate) common_name: String,
    /// Empty for one that came through the file system.
    pub(crate) remote_ip: String,
    pub(crate) secret: Bytes,
    pub(crate) tls: bool,
}

/// Asks one server after the other, beginning anywhere, until one has answered as it should.
pub(crate) async fn ask(
    settings: &AuthSettings,
    credentials: &Credentials,
    random: &dyn Random,
) -> Result<Grants, AuthError> {
    let count = settings.addresses.len();
    let first = random.below(count as u64) as usize;
    let mut last = AuthError::Address(String::new());
    for at in 0..count {
        let address = &settings.addresses[(first + at) % count];
        match ask_one(settings, address, credentials).await {
            Ok(grants) => return Ok(grants),
            Err(error) => {
                tracing::warn!(address, %error, "an auth server did not authorize");
                last = error;
            }
        }
    }
    Err(last)
}

async fn ask_one(settings: &AuthSettings, address: &str, credentials: &Credentials) -> Result<Grants, AuthError> {
    let uri = uri(address)?;
    let mut answer = exchange(settings, &uri, request(settings.method, &uri, credentials)?).await?;
    if answer.status == StatusCode::FORBIDDEN && uri.scheme_str() == Some("http") {
        let uri = over_tls(&uri, &answer)?;
        answer = exchange(settings, &uri, request(settings.method, &uri, credentials)?).await?;
    }
    match answer.status {
        StatusCode::OK => Grants::parse(&answer.body),
        status => Err(AuthError::Status(status.as_u16())),
    }
}

fn uri(address: &str) -> Result<Uri, AuthError> {
    let url = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}/auth"),
    };
    match url.parse::<Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => Ok(uri),
        _ => Err(AuthError::Address(address.to_owned())),
    }
}

/// A server that wants TLS says at which port, as nsqd itself does.
fn over_tls(uri: &Uri, refusal: &Answer) -> Result<Uri, AuthError> {
    #[derive(Deserialize)]
    struct TlsRequired {
        https_port: u16,
    }
    let Ok(TlsRequired { https_port }) = serde_json::from_slice(&refusal.body) else {
        return Err(AuthError::Status(refusal.status.as_u16()));
    };
    let host = uri.host().unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("https://{host}:{https_port}{path}");
    url.parse().map_err(|_| AuthError::Address(url))
}

fn request(method: AuthMethod, uri: &Uri, credentials: &Credentials) -> Result<Request<Full<Bytes>>, AuthError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let builder = Request::builder()
        .header(HOST, host)
        .header(ACCEPT, HeaderValue::from_static("application/vnd.nsq; version=1.0"));
    let Credentials {
        common_name,
        remote_ip,
        secret,
        tls,
    } = credentials;
    let tls = if *tls { "true" } else { "false" };
    Ok(match method {
        AuthMethod::Get => {
            let separator = if uri.query().is_some() { '&' } else { '?' };
            let escape = |bytes: &[u8]| percent_encode(bytes, ESCAPED).to_string();
            let (common_name, remote_ip) = (escape(common_name.as_bytes()), escape(remote_ip.as_bytes()));
            let secret = escape(secret);
            let query = format!("common_name={common_name}&remote_ip={remote_ip}&secret={secret}&tls={tls}");
            builder
                .method(Method::GET)
                .uri(format!("{path}{separator}{query}"))
                .body(Full::default())?
        }
        AuthMethod::Post => {
            let secret = String::from_utf8_lossy(secret);
            let body =
                json!({"common_name": [common_name], "remote_ip": [remote_ip], "secret": [secret], "tls": [tls]});
            builder
                .method(Method::POST)
                .uri(path)
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(Full::from(body.to_string()))?
        }
    })
}
