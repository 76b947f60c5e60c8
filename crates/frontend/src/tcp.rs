//! The TCP server: accepts connections and serves each in a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nsquorum_broker::{Broker, ClientDescription};
use nsquorum_http::{Listener, Socket, StopSignal};
use tokio::task::JoinSet;

use crate::config::FrontendConfig;
use crate::connection::{self, ConnectionParts};
use crate::metrics::FrontendMetrics;
use crate::registry::ConnectionRegistry;
use crate::seats::Seats;

/// Rest after a failed accept (no file descriptors left): without it the loop would spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// What a stop allows beyond the publish timeout before connections are cut.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Serves nsqd's TCP protocol.
pub struct TcpServer {
    broker: Broker,
    config: Arc<FrontendConfig>,
    registry: ConnectionRegistry,
    metrics: FrontendMetrics,
    seats: Seats,
    unix_clients: AtomicU64,
}

impl TcpServer {
    /// A server for the topics of `broker`. Its connections appear in `registry`.
    pub fn new(broker: Broker, config: Arc<FrontendConfig>, registry: ConnectionRegistry) -> Self {
        Self {
            broker,
            seats: Seats::new(config.max_channel_consumers),
            config,
            registry,
            metrics: FrontendMetrics::new(),
            unix_clients: AtomicU64::new(1),
        }
    }

    /// Serves until `stop`; then accepts nothing more, lets publishes in progress be answered (up to the publish timeout), and closes.
    pub async fn serve(self, listener: impl Into<Listener>, mut stop: StopSignal) {
        let listener = listener.into();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.stopped() => break,
                accepted = listener.accept() => match accepted {
                    Ok((socket, address)) => drop(connections.spawn(self.connection(socket, address, stop.clone()))),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task failed");
                    }
                }
            }
        }
        drop(listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.config.publish_timeout + STOP_GRACE, ended)
            .await
            .is_err()
        {
            tracing::warn!(
                connections = self.registry.count(),
                "connections are cut: they did not end in time"
            );
        }
    }

    /// `ip:port`, or a name that is as unique.
    fn remote_address(&self, address: Option<SocketAddr>) -> String {
        match address {
            Some(address) => address.to_string(),
            None => format!("unix:{}", self.unix_clients.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn connection(
        &self,
        socket: Socket,
        address: Option<SocketAddr>,
        stop: StopSignal,
    ) -> impl Future<Output = ()> + Send + 'static {
        // As in nsqd, who comes through the file system has no address, which then stands for a name either.
        let remote_ip = address.map(|address| address.ip().to_string()).unwrap_or_default();
        let (broker, config, metrics) = (self.broker.clone(), Arc::clone(&self.config), self.metrics.clone());
        let seats = self.seats.clone();
        let registration = self.registry.register(ClientDescription {
            client_id: remote_ip.clone(),
            hostname: remote_ip.clone(),
            user_agent: String::new(),
            remote_address: self.remote_address(address),
            connected_at: broker.environment().clock.wall(),
            sample_rate: 0,
            topology_zone: String::new(),
            topology_region: String::new(),
        });
        async move {
            metrics.connections_total.increment(1);
            metrics.connections.increment(1);
            if let Err(error) = socket.set_nodelay() {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let record = registration.record();
            let parts = ConnectionParts {
                broker,
                config,
                metrics: metrics.clone(),
                record,
                seats,
                remote_ip,
                stop,
            };
            connection::run(socket, parts).await;
            metrics.connections.decrement(1);
            drop(registration);
        }
    }
}
