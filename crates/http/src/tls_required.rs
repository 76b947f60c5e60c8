//! The answer of a port without TLS on a node that requires it.

use crate::{Reply, Request, Response, Service};

/// Refuses everything and says where TLS is spoken; nsqd's tools follow that.
#[derive(Clone, Copy, Debug)]
pub struct TlsRequired {
    /// Where.
    pub https_port: u16,
}

impl Service for TlsRequired {
    async fn handle(&self, _request: &mut Request) -> Response {
        Reply::TlsRequired(self.https_port).into_response()
    }
}
