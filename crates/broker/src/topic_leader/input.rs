//! What reaches a topic leader.

use nsquorum_protocol::ChannelName;
use nsquorum_topic::{Event, NewMessage, Seq};
use tokio::sync::{mpsc, oneshot};

use crate::admission::Admitted;
use crate::leases::{LeaseEvent, OrphanedLeases};
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::stats::TopicStats;
use crate::subscription::{SubscribeError, SubscriptionEvent, SubscriptionId, SubscriptionOptions};

/// A publish that waits for its answer.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) messages: Vec<NewMessage>,
    pub(crate) answer: oneshot::Sender<Result<(), PublishError>>,
    /// Held for as long as the bodies are, also beyond the time that the publisher waits.
    pub(crate) _admitted: Option<Admitted>,
}

/// A consumer that wants to attach to a channel.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) id: SubscriptionId,
    pub(crate) channel: ChannelName,
    pub(crate) options: SubscriptionOptions,
    pub(crate) deliveries: mpsc::UnboundedSender<SubscriptionEvent>,
    pub(crate) answer: oneshot::Sender<Result<(), SubscribeError>>,
}

/// A change of the topic or of a channel, named as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// A change of the topic itself.
    Topic(Event),
    /// Creates the channel unless it exists.
    CreateChannel(ChannelName),
    /// A change of an existing channel. The name is looked up when the command arrives: it means the channel that exists then.
    Channel(ChannelName, ChannelChange),
}

/// What can be done to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelChange {
    Delete,
    Empty,
    Pause,
    Unpause,
}

/// What reaches a topic leader, from frontends and from the node.
#[derive(Debug)]
pub(crate) enum LeaderInput {
    Publish(Publish),
    Subscribe(Subscribe),
    Ready {
        subscription: SubscriptionId,
        count: u32,
    },
    LeaseEvents {
        events: Vec<LeaseEvent>,
    },
    Disconnected {
        subscription: SubscriptionId,
        leases: OrphanedLeases,
    },
    IsInFlight {
        subscription: SubscriptionId,
        seq: Seq,
        answer: oneshot::Sender<bool>,
    },
    Command {
        command: Command,
        answer: oneshot::Sender<Result<(), AdminError>>,
    },
    Channels {
        answer: oneshot::Sender<Vec<ChannelName>>,
    },
    Stats {
        channel: Option<ChannelName>,
        answer: oneshot::Sender<TopicStats>,
    },
}
