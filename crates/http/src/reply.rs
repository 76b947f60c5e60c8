//! Answers in nsqd's manner.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::{Request, Resolution, Response};

const NSQ_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-nsq-content-type");
const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// A refusal: a status and a code, sent as `{"message":"CODE"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct HttpError {
    /// HTTP status.
    pub status: StatusCode,
    /// nsqd's code, such as `MISSING_ARG_TOPIC`.
    pub code: &'static str,
}

impl HttpError {
    /// 400 with a code.
    pub const fn bad_request(code: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
        }
    }

    /// 404 with a code.
    pub const fn not_found(code: &'static str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code,
        }
    }

    /// 413 with a code.
    pub const fn too_large(code: &'static str) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code,
        }
    }

    /// 500 with a code.
    pub const fn internal(code: &'static str) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code,
        }
    }

    /// 503 with a code: the same request may succeed later.
    pub const fn unavailable(code: &'static str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code,
        }
    }
}

/// What an endpoint answers with.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// 200 without a body.
    Empty,
    /// 200 with text; without a content type if it is empty, as Go does.
    Text(String),
    /// 200 with compact JSON.
    Json(Value),
    /// 200 with bytes that are JSON already: for answers whose key order is fixed.
    RawJson(Vec<u8>),
    /// 403: the same at this port over TLS.
    TlsRequired(u16),
    /// Any status with text and *without* the NSQ header, as /ping and /metrics answer.
    Plain(StatusCode, String),
}

impl Reply {
    /// The complete response.
    pub fn into_response(self) -> Response {
        match self {
            Self::Empty => nsq(response(StatusCode::OK, None, Bytes::new())),
            Self::Text(text) if text.is_empty() => Self::Empty.into_response(),
            Self::Text(text) => nsq(response(StatusCode::OK, Some(TEXT), text.into())),
            Self::Json(value) => nsq(response(StatusCode::OK, Some(JSON), value.to_string().into())),
            Self::RawJson(bytes) => nsq(response(StatusCode::OK, Some(JSON), bytes.into())),
            Self::TlsRequired(port) => {
                let body = format!("{{\"message\": \"TLS_REQUIRED\", \"https_port\": {port}}}");
                nsq(response(StatusCode::FORBIDDEN, Some(JSON), body.into()))
            }
            Self::Plain(status, text) => response(status, (!text.is_empty()).then_some(TEXT), text.into()),
        }
    }
}

impl HttpError {
    /// The complete response.
    pub fn into_response(self) -> Response {
        let body = format!("{{\"message\":\"{}\"}}", self.code);
        nsq(response(self.status, Some(JSON), body.into()))
    }
}

/// What the router itself answers with.
#[derive(Debug)]
pub struct RoutedReply;

impl RoutedReply {
    /// The answer to a request that names no endpoint. `Resolution::Endpoint` is not found either: it is the caller's to answer.
    pub fn of<E>(resolution: Resolution<E>, request: &Request) -> Response {
        match resolution {
            Resolution::Redirect(path) => {
                let location = match request.uri().query() {
                    Some(query) => format!("{path}?{query}"),
                    None => path,
                };
                redirect(request.method(), &location)
            }
            Resolution::Options(allow) => with_allow(response(StatusCode::OK, None, Bytes::new()), &allow),
            Resolution::MethodNotAllowed(allow) => {
                let error = HttpError {
                    status: StatusCode::METHOD_NOT_ALLOWED,
                    code: "METHOD_NOT_ALLOWED",
                };
                with_allow(error.into_response(), &allow)
            }
            Resolution::Malformed => refused_by_go(StatusCode::BAD_REQUEST, "400 Bad Request"),
            Resolution::Endpoint(_) | Resolution::WithParameter(..) | Resolution::NotFound => {
                HttpError::not_found("NOT_FOUND").into_response()
            }
        }
    }
}

/// Go's redirect: with a link for those who read it, and 307 where the method must be kept.
fn redirect(method: &Method, location: &str) -> Response {
    let (status, body) = if method == Method::GET {
        let body = format!("<a href=\"{}\">Moved Permanently</a>.\n\n", escape_html(location));
        (StatusCode::MOVED_PERMANENTLY, Bytes::from(body))
    } else {
        (StatusCode::TEMPORARY_REDIRECT, Bytes::new())
    };
    let mut response = response(status, (!body.is_empty()).then_some(HTML), body);
    // Only bytes that cannot stand in a header make this fail, and they were refused as part of the request line.
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn response(status: StatusCode, content_type: Option<&'static str>, body: Bytes) -> Response {
    let mut response = hyper::Response::new(Full::new(body));
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

/// go-nsq reads a lookup answer without this header as if it had an envelope, and silently finds no producers.
fn nsq(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(NSQ_CONTENT_TYPE, HeaderValue::from_static("nsq; version=1.0"));
    response
}

/// What Go's server says to `OPTIONS *`.
pub(crate) fn options_of_the_server() -> Response {
    response(StatusCode::OK, None, Bytes::new())
}

/// What Go's server says by itself of a request that no handler gets to see. The connection ends with it.
pub(crate) fn refused_by_go(status: StatusCode, text: &'static str) -> Response {
    let mut response = response(status, (!text.is_empty()).then_some(TEXT), text.into());
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn with_allow(mut response: Response, allow: &str) -> Response {
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}
