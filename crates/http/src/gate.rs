//! A service that does not exist yet.

use std::sync::OnceLock;

use crate::{HttpError, Reply, Request, Response, Service, StatusCode};

/// Stands in for a service while the node recovers: the port is open at once, /ping says that the node is not ready, and everything else is
/// refused with 503, which tells tools to come back.
#[derive(Debug)]
pub struct Gate<S>(OnceLock<S>);

impl<S> Gate<S> {
    /// A closed gate.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// From now on `service` answers. A gate opens once; later calls change nothing.
    pub fn open(&self, service: S) {
        drop(self.0.set(service));
    }
}

impl<S> Default for Gate<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Service> Service for Gate<S> {
    async fn handle(&self, request: &mut Request) -> Response {
        match self.0.get() {
            Some(service) => service.handle(request).await,
            None if request.uri().path() == "/ping" => Reply::Plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "NOK - the node is recovering".to_owned(),
            )
            .into_response(),
            None => HttpError::unavailable("RECOVERING").into_response(),
        }
    }
}
