//! Who may do what: nsqd's auth servers.
//!
//! A client sends a secret with AUTH; an HTTP server says what it stands for, and for how long. The answer is kept with the connection and
//! asked for again when it is needed and has expired. The HTTP interface of the node is not covered by it, as in nsqd.

mod exchange;
mod grants;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod query;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::tls::ClientTls;

pub(crate) use grants::Grants;
pub(crate) use query::{Credentials, ask};

/// How an auth server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMethod {
    /// With a query string.
    #[default]
    Get,
    /// With a JSON body: the secret does not appear in the server's log of requests.
    Post,
}

/// The auth servers and how they are asked.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// `host:port`, which means `http://host:port/auth`, or complete URLs. One at random is asked first, the others if it fails. Not empty.
    pub addresses: Vec<String>,
    /// How.
    pub method: AuthMethod,
    /// How long a TCP connection may take to be made.
    pub connect_timeout: Duration,
    /// How long all that follows may take.
    pub request_timeout: Duration,
    /// For servers with https.
    pub tls: ClientTls,
}

/// Why nothing is known of a client. It is told only that.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("{0} is no address of an auth server")]
    Address(String),
    #[error("no answer in time")]
    TimedOut,
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Exchange(#[from] nsquorum_http::ExchangeError),
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the status is {0}")]
    Status(u16),
    #[error("the answer is not what it should be: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the ttl is {0}")]
    TimeToLive(i64),
    #[error("there is no permission {0:?}")]
    UnknownPermission(String),
    #[error("{0}")]
    Pattern(#[from] regex::Error),
}
