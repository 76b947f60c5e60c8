//! The server under test.

use anyhow::Context as _;
use nsquorum_client::{Connection, Consumer, IdentifyOptions};
use nsquorum_protocol::{ChannelName, TopicName};

use super::usage::Server;

/// Unanswered commands that a connection may have: beyond what any case keeps in flight by intent.
const IN_FLIGHT_MAX: u32 = 65_536;

/// Where to connect, and what to observe meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// `host:port` of the TCP interface.
    pub(super) tcp_address: String,
    pub(super) server: Server,
}

impl Target {
    /// A connection with NSQ's default client settings: what users get.
    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        let options = IdentifyOptions {
            client_id: "nsquorum-bench".to_owned(),
            in_flight_max: IN_FLIGHT_MAX,
            ..IdentifyOptions::default()
        };
        Ok(Connection::connect(&self.tcp_address, options).await?)
    }

    /// A consumer with the highest RDY that the server takes, up to `ready`.
    pub(super) async fn subscribe(&self, topic: &TopicName, ready: u32) -> anyhow::Result<Consumer> {
        let channel: ChannelName = "bench".parse().context("a constant channel name")?;
        Ok(self.connect().await?.subscribe(topic, &channel, ready).await?)
    }
}
