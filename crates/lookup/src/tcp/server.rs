//! Accepting connections and serving each in a task of its own.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nsquorum_http::{Listener, Socket, StopSignal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::session::{Greeting, Next, Session};
use crate::directory::Directory;

/// Connections served at once; the next ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 8192;
/// Bytes that are taken from a socket at once.
const READ_BYTES: usize = 4096;
/// A peer that does not take its answers for this long is gone.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// How long what a refused peer goes on sending is read and dropped, so that it gets to see why: closing a socket with unread bytes makes the
/// kernel reset it, which may destroy the answer on its way.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// Rest after a failed accept (no file descriptors left): without it the loop would spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Serves nsqlookupd's TCP protocol.
pub struct LookupServer {
    directory: Directory,
    greeting: Arc<Greeting>,
}

impl LookupServer {
    /// A server that registers what comes in `directory`. Producers are told to find HTTP at `broadcast_address`, `http_port`.
    pub fn new(
        directory: Directory,
        (broadcast_address, hostname): (String, String),
        (tcp_port, http_port): (u16, u16),
        version: String,
    ) -> Self {
        let greeting = Greeting {
            broadcast_address,
            hostname,
            http_port,
            tcp_port,
            version,
        };
        Self {
            directory,
            greeting: Arc::new(greeting),
        }
    }

    /// Serves until `stop`, then ends all connections.
    pub async fn serve(self, listener: impl Into<Listener>, mut stop: StopSignal) {
        let listener = listener.into();
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.stopped() => break,
                accepted = async {
                    // The semaphore is never closed.
                    let permit = Arc::clone(&permits).acquire_owned().await;
                    (listener.accept().await, permit)
                } => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                (Ok((socket, address)), permit) => {
                    let connection = self.connection(socket, address);
                    let mut stop = stop.clone();
                    connections.spawn(async move {
                        tokio::select! {
                            () = connection => {}
                            () = stop.stopped() => {}
                        }
                        drop(permit);
                    });
                }
                (Err(error), _) => {
                    tracing::warn!(%error, "cannot accept a producer's connection");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    fn connection(&self, socket: Socket, address: Option<SocketAddr>) -> impl Future<Output = ()> + Send + 'static {
        let (directory, greeting) = (self.directory.clone(), Arc::clone(&self.greeting));
        // Only TCP is listened on here.
        let remote_address = address.map(|address| address.to_string()).unwrap_or_default();
        async move {
            let mut connection = Connection {
                socket,
                session: Some(Session::new(remote_address)),
                directory,
            };
            connection.serve(&greeting).await;
        }
    }
}

/// A connection; what it has registered goes with it, however it ends.
struct Connection {
    socket: Socket,
    session: Option<Session>,
    directory: Directory,
}

impl Connection {
    async fn serve(&mut self, greeting: &Greeting) {
        drop(self.socket.set_nodelay());
        // A peer whose machine has vanished says nothing; without probes it would be registered for ever.
        drop(self.socket.set_keepalive());
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        loop {
            input.reserve(READ_BYTES);
            let is_end = match self.socket.read_buf(&mut input).await {
                Ok(read) => read == 0,
                Err(error) => {
                    tracing::debug!(%error, "a producer's connection broke");
                    return;
                }
            };
            let Some(session) = &mut self.session else { return };
            let next = if is_end {
                session.end_of_input(&mut output);
                Next::End
            } else {
                let now = self.directory.now();
                self.directory.with_registrations(|registrations| {
                    session.step(&mut input, registrations, greeting, now, &mut output)
                })
            };
            let written = tokio::time::timeout(WRITE_MAX, self.socket.write_all_buf(&mut output)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
            if next == Next::End {
                self.close();
                drop(self.socket.shutdown().await);
                if !is_end {
                    drop(tokio::time::timeout(DRAIN_MAX, self.drain()).await);
                }
                return;
            }
        }
    }

    fn close(&mut self) {
        if let Some(session) = self.session.take() {
            self.directory
                .with_registrations(|registrations| session.close(registrations));
        }
    }

    async fn drain(&mut self) {
        let mut dropped = BytesMut::new();
        while self.socket.read_buf(&mut dropped).await.is_ok_and(|read| read > 0) {
            dropped.clear();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}
