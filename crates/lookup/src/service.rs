//! A lookup service without a node: what runs under the name `nsqlookupd`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use nsquorum_environment::Environment;
use nsquorum_http::{ListenAddress, Listener, StopSignal};

use crate::{Directory, Lifetimes, LookupFrontend, LookupServer};

/// What a lookup service is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupSettings {
    /// Where producers register; port 0 lets the system choose.
    pub tcp_address: SocketAddr,
    /// Where HTTP is served; port 0 lets the system choose.
    pub http_address: SocketAddr,
    /// The address at which producers are told to find HTTP.
    pub broadcast_address: String,
    /// The machine's name.
    pub hostname: String,
    /// The version that producers and tools see; three numbers with dots.
    pub version: String,
    /// For how long things count.
    pub lifetimes: Lifetimes,
}

/// A lookup service whose sockets are open. It keeps nothing on a disk; producers register again after a restart.
pub struct LookupService {
    settings: LookupSettings,
    tcp: (Listener, SocketAddr),
    http: (Listener, SocketAddr),
}

/// A socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("listen ({address}) failed - {cause}")]
pub struct CannotListen {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub cause: io::Error,
}

impl LookupService {
    /// Opens the sockets, TCP first. To be called within a tokio runtime.
    ///
    /// # Errors
    /// If one of them cannot be opened.
    pub fn bind(settings: LookupSettings) -> Result<Self, CannotListen> {
        Ok(Self {
            tcp: listen(settings.tcp_address)?,
            http: listen(settings.http_address)?,
            settings,
        })
    }

    /// Where producers register, with the real port.
    pub fn tcp_address(&self) -> SocketAddr {
        self.tcp.1
    }

    /// Where HTTP is served, with the real port.
    pub fn http_address(&self) -> SocketAddr {
        self.http.1
    }

    /// Serves until `stop`.
    pub async fn run(self, environment: Environment, stop: StopSignal) {
        let settings = self.settings;
        let directory = Directory::new(environment, settings.lifetimes);
        let frontend = LookupFrontend::alone(directory.clone(), settings.version.clone());
        let server = LookupServer::new(
            directory,
            (settings.broadcast_address, settings.hostname),
            (self.tcp.1.port(), self.http.1.port()),
            settings.version,
        );
        tokio::join!(
            server.serve(self.tcp.0, stop.clone()),
            nsquorum_http::serve(self.http.0, Arc::new(frontend), stop),
        );
    }
}

fn listen(address: SocketAddr) -> Result<(Listener, SocketAddr), CannotListen> {
    let cannot = |cause| CannotListen { address, cause };
    let listener = Listener::bind(&ListenAddress::Tcp(address)).map_err(cannot)?;
    let real = match listener.address().map_err(cannot)? {
        ListenAddress::Tcp(real) => real,
        ListenAddress::Unix(_) => address,
    };
    Ok((listener, real))
}
