//! Figures pushed to a statsd server, under nsqd's names.
//!
//! In a cluster the figures of a topic come from the node that leads it, so that a sum over all nodes counts everything once. Every node knows
//! all counts all the same: whoever becomes the leader goes on from what the topic had at its own last push, not from the topic's beginning.

mod figures;
mod packets;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nsquorum_broker::Broker;
use nsquorum_http::StopSignal;
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior};

use crate::http::memory::Memory;
use figures::{Collected, Figures};

/// How long the server's name may take to be resolved.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(1);
/// Packets are spread over the interval but for this rest, as in nsqd.
const REST: Duration = Duration::from_secs(1);

/// Where figures are pushed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsdSettings {
    /// `HOST:PORT` of the server; a name is resolved for every push.
    pub address: String,
    /// Time between pushes.
    pub interval: Duration,
    /// What stands before every name; see [`StatsdSettings::prefix_of`].
    pub prefix: String,
    /// Whether memory is pushed, too.
    pub memory: bool,
    /// Longest packet in bytes; a single figure that is longer goes alone.
    pub packet_bytes_max: usize,
    /// Whether topics and channels that end with `#ephemeral` are left out.
    pub exclude_ephemeral: bool,
}

impl StatsdSettings {
    /// The prefix that a pattern means on this node: `%s` is the node's `host:port` with `_` for dots and colons, and unless the pattern is
    /// empty a dot stands at the end.
    pub fn prefix_of(pattern: &str, host: &str, http_port: u16) -> String {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let host = format!("{host}:{http_port}").replace(['.', ':'], "_");
        let prefix = pattern.replace("%s", &host);
        match prefix.chars().last() {
            None | Some('.') => prefix,
            Some(_) => prefix + ".",
        }
    }
}

/// Pushes figures until it is told to stop.
#[derive(Debug)]
pub struct StatsdPusher {
    settings: StatsdSettings,
    figures: Figures,
}

impl StatsdPusher {
    /// A pusher that has pushed nothing. Topics that `broker` has now count from their present counts, later ones from zero.
    pub fn new(broker: &Broker, settings: StatsdSettings) -> Self {
        let figures = Figures::new(broker.topics());
        Self { settings, figures }
    }

    /// Pushes until `stop`. What cannot be sent is lost, as always with statsd; the next push goes on from there.
    pub async fn run(mut self, broker: Broker, mut stop: StopSignal) {
        let interval = self.settings.interval;
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let collected = tokio::select! {
            () = stop.stopped() => return,
            collected = collect(&broker) => collected,
        };
        self.figures.begin(&collected);
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                _ = ticks.tick() => {}
            }
            let collected = tokio::select! {
                () = stop.stopped() => return,
                collected = collect(&broker) => collected,
            };
            let memory = self.settings.memory.then(Memory::of_process);
            let lines = self.figures.lines(&collected, memory, self.settings.exclude_ephemeral);
            let packets = packets::pack(&self.settings.prefix, &lines, self.settings.packet_bytes_max);
            if let Err(error) = self.send(&packets, &mut stop).await {
                let address = &self.settings.address;
                tracing::warn!(address, %error, "cannot push to statsd");
            }
        }
    }

    /// Sends the packets spread over the interval; once the node stops, the rest at once.
    async fn send(&self, packets: &[Vec<u8>], stop: &mut StopSignal) -> io::Result<()> {
        let socket = connect(&self.settings.address).await?;
        let count = u32::try_from(packets.len()).unwrap_or(u32::MAX).max(1);
        let pause = self.settings.interval.saturating_sub(REST) / count;
        let mut is_stopping = false;
        for packet in packets {
            match socket.send(packet).await {
                // Nobody listened there when an earlier packet arrived; that is no reason to withhold this one.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                result => drop(result?),
            }
            if !is_stopping {
                is_stopping = tokio::time::timeout(pause, stop.stopped()).await.is_ok();
            }
        }
        Ok(())
    }
}

async fn collect(broker: &Broker) -> Collected {
    let led: BTreeSet<_> = broker.led_topics().into_iter().collect();
    let names = broker.topics();
    Collected {
        topics: broker.stats(None, None).await,
        names: names.into_iter().collect(),
        led,
    }
}

async fn connect(address: &str) -> io::Result<UdpSocket> {
    let resolved = tokio::time::timeout(RESOLVE_TIME_MAX, tokio::net::lookup_host(address)).await;
    let mut addresses = resolved.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let address = addresses
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))?;
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_names_the_node() {
        let of = |pattern, host| StatsdSettings::prefix_of(pattern, host, 4151);
        assert_eq!(of("nsq.%s", "a.example"), "nsq.a_example_4151.");
        assert_eq!(of("nsq.%s.", "10.0.0.1"), "nsq.10_0_0_1_4151.");
        assert_eq!(of("%s/%s", "::1"), "[__1]_4151/[__1]_4151.");
        assert_eq!(of("plain", "a"), "plain.");
        assert_eq!(of("", "a"), "");
    }
}
