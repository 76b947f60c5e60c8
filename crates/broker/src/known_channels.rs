//! Channels that a topic has elsewhere.

use nsquorum_consensus::BoxFuture;
use nsquorum_protocol::{ChannelName, TopicName};

/// Knows by which channels a topic is consumed elsewhere. Asked by the leader of a topic that nobody has used yet: its first messages must not be
/// in the log before these channels are, or they would go to the first consumer's channel alone.
pub trait ChannelSource: Send + Sync {
    /// The channels that are to exist before the topic's first message; none if nothing is known. What goes wrong is logged by the source.
    ///
    /// Nothing is stored for the topic until this resolves, so it must be bounded in time.
    fn channels_of(&self, topic: &TopicName) -> BoxFuture<'static, Vec<ChannelName>>;
}
