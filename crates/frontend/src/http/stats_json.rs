//! /stats?format=json, in nsqd's order of keys and with its distinction between `null` and `[]`: JavaScript tools may not take null, Go
//! tools may compare.

use nsquorum_broker::{
    ChannelStats, ClientDescription, DeliveriesByNearness, LatencyPercentile, LatencySummary, SubscriptionStats,
    TopicStats,
};
use nsquorum_protocol::{Compression, ConnectionState};
use serde::Serialize;
use serde_json::Number;

use super::Answer;
use super::info::to_json;
use super::memory::Memory;
use super::stats::{Replication, Snapshot};
use crate::registry::ConnectionView;

#[derive(Serialize)]
struct StatsJson<'a> {
    version: &'a str,
    health: &'a str,
    start_time: u64,
    topics: Option<Vec<TopicJson<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    producers: Option<Vec<ClientJson<'a>>>,
}

#[derive(Serialize)]
struct TopicJson<'a> {
    topic_name: &'a str,
    channels: Vec<ChannelJson<'a>>,
    depth: u64,
    backend_depth: u64,
    message_count: u64,
    message_bytes: u64,
    paused: bool,
    e2e_processing_latency: Latency,
    /// Not in nsqd, whose tools pass over it.
    #[serde(flatten)]
    replication: Option<Replication>,
}

#[derive(Serialize)]
struct ChannelJson<'a> {
    channel_name: &'a str,
    depth: u64,
    backend_depth: u64,
    in_flight_count: u64,
    deferred_count: u64,
    message_count: u64,
    #[serde(flatten)]
    deliveries: DeliveriesJson,
    requeue_count: u64,
    timeout_count: u64,
    client_count: usize,
    clients: Option<Vec<ClientJson<'a>>>,
    paused: bool,
    e2e_processing_latency: Latency,
}

/// Fields of releases after 1.3.0, which leave out a 0. With a node that pays no attention to zones all are.
#[derive(Default, Serialize)]
struct DeliveriesJson {
    #[serde(skip_serializing_if = "is_zero")]
    zone_local_msg_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    region_local_msg_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    global_msg_count: u64,
}

impl DeliveriesJson {
    const fn of(deliveries: DeliveriesByNearness) -> Self {
        Self {
            zone_local_msg_count: deliveries.zone,
            region_local_msg_count: deliveries.region,
            global_msg_count: deliveries.global,
        }
    }
}

// What serde calls takes a reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Without percentiles to measure nsqd shows 0 and `null`.
#[derive(Serialize)]
struct Latency {
    count: u64,
    percentiles: Option<Vec<PercentileJson>>,
}

#[derive(Serialize)]
struct PercentileJson {
    quantile: Number,
    /// Nanoseconds.
    value: u64,
}

impl Latency {
    fn of(summary: Option<&LatencySummary>) -> Self {
        let percentiles = summary.map(|summary| summary.percentiles.iter().map(percentile).collect());
        Self {
            count: summary.map_or(0, |summary| summary.count),
            percentiles,
        }
    }
}

fn percentile(percentile: &LatencyPercentile) -> PercentileJson {
    let quantile = percentile.quantile.get();
    PercentileJson {
        // Go writes 1, not 1.0.
        quantile: Number::from_f64(quantile)
            .filter(|_| quantile < 1.0)
            .unwrap_or_else(|| Number::from(1)),
        // Latencies are not negative, and fit by far.
        value: percentile.nanos.round() as u64,
    }
}

#[derive(Serialize)]
struct ClientJson<'a> {
    client_id: &'a str,
    hostname: &'a str,
    version: &'static str,
    remote_address: &'a str,
    state: u8,
    ready_count: u32,
    in_flight_count: u64,
    message_count: u64,
    #[serde(flatten)]
    deliveries: DeliveriesJson,
    finish_count: u64,
    requeue_count: u64,
    connect_ts: u64,
    sample_rate: u8,
    deflate: bool,
    snappy: bool,
    user_agent: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    authed: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    auth_identity: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    auth_identity_url: &'a str,
    topology_zone: &'a str,
    topology_region: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub_counts: Vec<PublishedJson<'a>>,
    tls: bool,
    tls_cipher_suite: &'a str,
    tls_version: &'a str,
    tls_negotiated_protocol: &'static str,
    tls_negotiated_protocol_is_mutual: bool,
}

#[derive(Serialize)]
struct PublishedJson<'a> {
    topic: &'a str,
    count: u64,
}

impl Snapshot {
    pub(super) fn to_json(&self) -> Answer {
        let topics = self.topics.as_ref();
        to_json(&StatsJson {
            version: &self.version,
            health: &self.health,
            start_time: self.started_at.as_secs(),
            topics: topics.map(|topics| topics.iter().map(|topic| self.topic(topic)).collect()),
            memory: self.memory,
            producers: self.producers(),
        })
    }

    fn topic<'a>(&'a self, topic: &'a TopicStats) -> TopicJson<'a> {
        TopicJson {
            topic_name: topic.name.as_str(),
            channels: topic.channels.iter().map(|channel| self.channel(channel)).collect(),
            depth: topic.depth,
            // Everything is on disk; nsqd's distinction has no counterpart, and its tools show the sum.
            backend_depth: topic.depth,
            message_count: topic.message_count,
            message_bytes: topic.message_bytes,
            paused: topic.paused,
            e2e_processing_latency: Latency::of(topic.latency.as_ref()),
            replication: self.replication.get(&topic.name).copied(),
        }
    }

    fn channel<'a>(&'a self, channel: &'a ChannelStats) -> ChannelJson<'a> {
        let clients = channel.clients.iter().map(|client| self.consumer(client));
        ChannelJson {
            channel_name: channel.name.as_str(),
            depth: channel.depth,
            backend_depth: channel.depth,
            in_flight_count: channel.in_flight_count,
            deferred_count: channel.deferred_count,
            message_count: channel.message_count,
            deliveries: DeliveriesJson::of(channel.deliveries),
            requeue_count: channel.requeue_count,
            timeout_count: channel.timeout_count,
            client_count: channel.clients.len(),
            clients: self.include_clients.then(|| clients.collect()),
            paused: channel.paused,
            e2e_processing_latency: Latency::of(channel.latency.as_ref()),
        }
    }

    fn consumer<'a>(&'a self, stats: &'a SubscriptionStats) -> ClientJson<'a> {
        let view = self.connections.get(&stats.client.remote_address);
        let state = view.map_or(ConnectionState::Subscribed, |view| view.state);
        let client = client(&stats.client, state);
        ClientJson {
            ready_count: stats.ready_count,
            in_flight_count: stats.in_flight_count,
            message_count: stats.message_count,
            deliveries: DeliveriesJson::of(DeliveriesByNearness::all(stats.nearness, stats.message_count)),
            finish_count: stats.finish_count,
            requeue_count: stats.requeue_count,
            ..match view {
                Some(view) => self.connected(client, view),
                None => client,
            }
        }
    }

    /// Connections that have published; `null` if there are none.
    fn producers(&self) -> Option<Vec<ClientJson<'_>>> {
        let producers: Vec<_> = self.producing().map(|view| self.producer(view)).collect();
        (!producers.is_empty()).then_some(producers)
    }

    fn producer<'a>(&'a self, view: &'a ConnectionView) -> ClientJson<'a> {
        match self.subscription_of(view) {
            Some(stats) => self.consumer(stats),
            None => self.connected(client(&view.client, view.state), view),
        }
    }

    /// What only the node knows to which the client is connected.
    fn connected<'a>(&'a self, client: ClientJson<'a>, view: &'a ConnectionView) -> ClientJson<'a> {
        let (tls, identity) = (view.tls.as_deref(), view.identity.as_deref());
        let published = self.published(view);
        ClientJson {
            deflate: matches!(view.compression, Some(Compression::Deflate { .. })),
            snappy: view.compression == Some(Compression::Snappy),
            authed: identity.is_some(),
            auth_identity: identity.map_or("", |identity| &identity.name),
            auth_identity_url: identity.map_or("", |identity| &identity.url),
            pub_counts: published
                .map(|(topic, count)| PublishedJson {
                    topic: topic.as_str(),
                    count,
                })
                .collect(),
            tls: tls.is_some(),
            tls_cipher_suite: tls.map_or("", |tls| &tls.cipher_suite),
            tls_version: tls.map_or("", |tls| &tls.version),
            // Go's word for it, which has been true for every TLS connection for years.
            tls_negotiated_protocol_is_mutual: tls.is_some(),
            ..client
        }
    }
}

fn client(client: &ClientDescription, state: ConnectionState) -> ClientJson<'_> {
    ClientJson {
        client_id: &client.client_id,
        hostname: &client.hostname,
        version: "V2",
        remote_address: &client.remote_address,
        state: state.number(),
        ready_count: 0,
        in_flight_count: 0,
        message_count: 0,
        deliveries: DeliveriesJson::default(),
        finish_count: 0,
        requeue_count: 0,
        connect_ts: client.connected_at.as_secs(),
        sample_rate: client.sample_rate,
        deflate: false,
        snappy: false,
        user_agent: &client.user_agent,
        authed: false,
        auth_identity: "",
        auth_identity_url: "",
        topology_zone: &client.topology_zone,
        topology_region: &client.topology_region,
        pub_counts: Vec::new(),
        tls: false,
        tls_cipher_suite: "",
        tls_version: "",
        tls_negotiated_protocol: "",
        tls_negotiated_protocol_is_mutual: false,
    }
}
