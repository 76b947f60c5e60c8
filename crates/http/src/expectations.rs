//! What a request must be before any endpoint sees it: Go's server answers the rest by itself.

use hyper::body::Body as _;
use hyper::header::{CONTENT_LENGTH, EXPECT, HOST};
use hyper::{Method, StatusCode, Version};

use crate::reply::{options_of_the_server, refused_by_go};
use crate::{Request, Response};

/// The answer to a request that Go's server would not hand on.
pub(crate) fn answered_by_go(request: &Request) -> Option<Response> {
    let headers = request.headers();
    match headers.get_all(HOST).iter().count() {
        0 if request.version() == Version::HTTP_11 => {
            let text = "400 Bad Request: missing required Host header";
            return Some(refused_by_go(StatusCode::BAD_REQUEST, text));
        }
        0 | 1 => {}
        _ => return Some(refused_by_go(StatusCode::BAD_REQUEST, "400 Bad Request")),
    }
    let is_unknown = headers.contains_key(EXPECT) && !expects_continue(request);
    if is_unknown {
        return Some(refused_by_go(StatusCode::EXPECTATION_FAILED, ""));
    }
    let is_for_all = request.method() == Method::OPTIONS && request.uri().path() == "*";
    is_for_all.then(options_of_the_server)
}

/// Whether the client waits for `100 Continue` before it sends the body.
fn expects_continue(request: &Request) -> bool {
    let expect = request.headers().get(EXPECT);
    expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether the client still waits for `100 Continue`: nothing of the body has been read. Reading now would ask for a body that nobody wants.
pub(crate) fn still_waits(request: &Request) -> bool {
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let left = request.body().size_hint().exact();
    expects_continue(request) && announced.is_some_and(|length| length > 0 && left == Some(length))
}
