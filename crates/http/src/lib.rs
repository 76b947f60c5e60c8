//! nsqd's HTTP conventions, shared by every HTTP port of a node.
//!
//! nsqd and nsqlookupd answer HTTP in one manner, and tools depend on its details: only status 200 counts as success, errors are a
//! code in a JSON object, go-nsq decodes a lookup answer differently when one header is missing, and a path that is nearly right is
//! redirected. This crate knows that manner and no endpoint: a port brings its table of routes ([`Router`]) and a [`Service`].
//!
//! A general web framework would bring its own rules for unknown paths, wrong methods and redirects, which are exactly what has to be
//! nsqd's here; the router is a table with a dozen rows.

mod body;
mod exchange;
mod expectations;
mod gate;
mod query;
mod reply;
mod router;
mod server;
mod socket;
mod stop;
mod tls_required;

pub use body::{BodyError, read_body};
pub use exchange::{Answer, ExchangeError, exchange};
pub use gate::Gate;
pub use query::{InvalidQuery, Query};
pub use reply::{HttpError, Reply, RoutedReply};
pub use router::{Resolution, Router};
pub use server::{Service, serve, serve_tls};
pub use socket::{ListenAddress, Listener, Socket, bind};
pub use stop::{StopSignal, StopSource};
pub use tls_required::TlsRequired;

/// The request as the server hands it over; its body has not been read.
pub type Request = hyper::Request<hyper::body::Incoming>;
/// A complete answer.
pub type Response = hyper::Response<http_body_util::Full<bytes::Bytes>>;
/// Request methods.
pub use hyper::Method;
/// Status codes.
pub use hyper::StatusCode;
