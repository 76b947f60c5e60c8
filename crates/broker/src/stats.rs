//! What /stats shows, taken by the topic leader between two steps.

use nsquorum_environment::WallTime;
use nsquorum_protocol::{ChannelName, TopicName};

use crate::latency::LatencySummary;
use crate::nearness::{DeliveriesByNearness, Nearness};
use crate::subscription::SubscriptionId;

/// Who a consumer says it is, and what it negotiated. Shown as nsqd shows it.
#[derive(Clone, Debug, Default)]
pub struct ClientDescription {
    /// IDENTIFY `client_id`; the remote IP address until then.
    pub client_id: String,
    /// IDENTIFY `hostname`; the remote IP address until then.
    pub hostname: String,
    /// IDENTIFY `user_agent`.
    pub user_agent: String,
    /// `ip:port` of the other end.
    pub remote_address: String,
    /// When it connected.
    pub connected_at: WallTime,
    /// IDENTIFY `sample_rate`, 0 to 99 percent; 0 is off.
    pub sample_rate: u8,
    /// IDENTIFY `topology_zone`.
    pub topology_zone: String,
    /// IDENTIFY `topology_region`.
    pub topology_region: String,
}

/// One consumer of a channel.
#[derive(Clone, Debug)]
pub struct SubscriptionStats {
    /// Which subscription.
    pub id: SubscriptionId,
    /// Who.
    pub client: std::sync::Arc<ClientDescription>,
    /// The last RDY.
    pub ready_count: u32,
    /// Messages it holds.
    pub in_flight_count: u64,
    /// Deliveries to it.
    pub message_count: u64,
    /// FINs from it.
    pub finish_count: u64,
    /// REQs from it.
    pub requeue_count: u64,
    /// How near it is to its node; `None` where no attention is paid to that.
    pub nearness: Option<Nearness>,
}

/// One channel.
#[derive(Clone, Debug)]
pub struct ChannelStats {
    /// Its name.
    pub name: ChannelName,
    /// Messages that wait (neither in flight nor deferred).
    pub depth: u64,
    /// Messages held by consumers.
    pub in_flight_count: u64,
    /// Messages that wait for their time.
    pub deferred_count: u64,
    /// Messages that have reached the channel.
    pub message_count: u64,
    /// REQs.
    pub requeue_count: u64,
    /// Timeouts.
    pub timeout_count: u64,
    /// Deliveries since its leader leads, of those whose nearness is looked at.
    pub deliveries: DeliveriesByNearness,
    /// Whether it is paused.
    pub paused: bool,
    /// Its consumers, on all nodes.
    pub consumer_count: u64,
    /// Those that are connected to this node.
    pub clients: Vec<SubscriptionStats>,
    /// From publish to FIN; `None` if it is not measured.
    pub latency: Option<LatencySummary>,
}

/// One topic.
#[derive(Clone, Debug)]
pub struct TopicStats {
    /// Its name.
    pub name: TopicName,
    /// Whether this node leads the topic. On the others every count but those of clients is 0.
    pub is_leader: bool,
    /// Messages that have not reached any channel (no channel yet, or topic paused).
    pub depth: u64,
    /// Messages ever published.
    pub message_count: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Whether it is paused.
    pub paused: bool,
    /// Channels by name.
    pub channels: Vec<ChannelStats>,
    /// From publish to FIN, over all channels; `None` if it is not measured.
    pub latency: Option<LatencySummary>,
}

impl TopicStats {
    /// As another node than the leader's shows it: what is counted is counted there. Whether something is paused is no count.
    pub(crate) fn elsewhere(self) -> Self {
        let channel = |channel: ChannelStats| ChannelStats {
            name: channel.name,
            depth: 0,
            in_flight_count: 0,
            deferred_count: 0,
            message_count: 0,
            requeue_count: 0,
            timeout_count: 0,
            deliveries: DeliveriesByNearness::default(),
            paused: channel.paused,
            consumer_count: 0,
            clients: channel.clients,
            latency: None,
        };
        Self {
            name: self.name,
            is_leader: false,
            depth: 0,
            message_count: 0,
            message_bytes: 0,
            paused: self.paused,
            channels: self.channels.into_iter().map(channel).collect(),
            latency: None,
        }
    }
}
