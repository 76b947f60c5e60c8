//! What reaches a topic leader.

use std::sync::Arc;

use nsquorum_environment::Monotonic;
use nsquorum_links::Received;
use nsquorum_protocol::ChannelName;
use nsquorum_topic::{ChannelIncarnation, Event, NewMessage, NodeId, Seq, SessionId};
use tokio::sync::{mpsc, oneshot};

use super::nodes::PeerLink;
use crate::admission::Admitted;
use crate::leases::{DeliveryToken, LeaseEvent, OrphanedLeases};
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::stats::TopicStats;
use crate::subscription::{SubscribeError, SubscriptionEvent, SubscriptionId, SubscriptionOptions};

/// A publish that waits for its answer.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) messages: Vec<NewMessage>,
    /// The one channel that they are for: all others are done with them when they are stored. `None` for all.
    pub(crate) only: Option<ChannelName>,
    pub(crate) answer: PublishAnswer,
    /// Its place in this node's session; `None` on a node that is alone, and for publishes of other nodes.
    pub(crate) place: Option<Place>,
    /// Held for as long as the bodies are, also beyond the time that the publisher waits.
    pub(crate) _held: Held,
}

/// A publish of this node's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) number: u64,
    /// Nobody waits any longer.
    pub(crate) deadline: Monotonic,
}

/// Who waits for a publish.
#[derive(Debug)]
pub(crate) enum PublishAnswer {
    /// A client of this node.
    Client(oneshot::Sender<Result<(), PublishError>>),
    /// The router of another node, by the session's number of the publish.
    Node { session: SessionId, number: u64 },
}

impl PublishAnswer {
    /// Whether a client of this node waited and does not any longer. Of other nodes nobody knows.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Client(answer) => answer.is_closed(),
            Self::Node { .. } => false,
        }
    }
}

impl From<oneshot::Sender<Result<(), PublishError>>> for PublishAnswer {
    fn from(answer: oneshot::Sender<Result<(), PublishError>>) -> Self {
        Self::Client(answer)
    }
}

/// What the bodies of a publish take up until they are stored.
#[derive(Debug, Default)]
pub(crate) enum Held {
    #[default]
    Nothing,
    /// The node's room for unanswered publishes.
    Room { _admitted: Admitted },
    /// The credit of the lane that they came over.
    Credit { _frame: Arc<Received> },
}

impl From<Option<Admitted>> for Held {
    fn from(admitted: Option<Admitted>) -> Self {
        admitted.map_or(Self::Nothing, |admitted| Self::Room { _admitted: admitted })
    }
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

impl From<Subscribe> for LocalConsumer {
    fn from(subscribe: Subscribe) -> Self {
        Self {
            id: subscribe.id,
            channel: subscribe.channel,
            incarnation: None,
            ready: 0,
            options: subscribe.options,
            deliveries: subscribe.deliveries,
            answer: Some(subscribe.answer),
        }
    }
}

/// A consumer of this node, while no leader of this node has it.
#[derive(Debug)]
pub(crate) struct LocalConsumer {
    pub(crate) id: SubscriptionId,
    pub(crate) channel: ChannelName,
    /// The life of the channel that it is attached to; `None` until it is.
    pub(crate) incarnation: Option<ChannelIncarnation>,
    pub(crate) ready: u32,
    pub(crate) options: SubscriptionOptions,
    pub(crate) deliveries: mpsc::UnboundedSender<SubscriptionEvent>,
    /// Who waits for it to be attached.
    pub(crate) answer: Option<oneshot::Sender<Result<(), SubscribeError>>>,
}

/// Everything that a node's clients have going on in a topic. It is either with the node's router or with the leader, if that is on
/// the same node; a change of leaders moves it.
#[derive(Debug, Default)]
pub(crate) struct NodeState {
    pub(crate) consumers: Vec<LocalConsumer>,
    /// Deliveries that consumers hold.
    pub(crate) held: Vec<(SubscriptionId, DeliveryToken)>,
    /// What became of deliveries, and is not known to be in the log.
    pub(crate) events: Vec<LeaseEvent>,
    /// Leases of lost consumers.
    pub(crate) orphans: Vec<OrphanedLeases>,
    /// Publishes without an answer, in their order.
    pub(crate) publishes: Vec<Publish>,
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

impl LeaderInput {
    /// Whether nobody waits for what becomes of it.
    pub(crate) fn is_given_up(&self) -> bool {
        match self {
            Self::Publish(publish) => publish.answer.is_given_up(),
            Self::Subscribe(subscribe) => subscribe.answer.is_closed(),
            Self::IsInFlight { answer, .. } => answer.is_closed(),
            Self::Command { answer, .. } => answer.is_closed(),
            Self::Channels { answer } => answer.is_closed(),
            Self::Stats { answer, .. } => answer.is_closed(),
            Self::Ready { .. } | Self::LeaseEvents { .. } | Self::Disconnected { .. } => true,
        }
    }
}

/// What reaches the task of a topic.
#[derive(Debug)]
pub(crate) enum TopicInput {
    /// From a client of this node.
    Client(LeaderInput),
    /// A frame of another node.
    Frame { from: SessionId, frame: Received },
    /// The link to another node has changed.
    Peer { node: NodeId, link: PeerLink },
    /// Somebody may lead the topic, or may no longer, whom this node does not reach.
    CutOff { is_cut_off: bool },
    /// The node is about to stop, and no client will come any more: answered when all that its clients were done with is in the log.
    Flush { flushed: oneshot::Sender<()> },
}
