//! What the nodes of a cluster say to each other about a topic.
//!
//! A *router* (the part of a node that serves the topic's clients there) and the topic's *leader* talk in an **association**: a term, a
//! number that the leader counts up (`sync`), and two counters of frames in each direction, one per class of the links. The leader opens an
//! association with [`FromLeader::Lead`]; the router begins its answer with a [`Claim`], which says everything that the leader must
//! know of that node. A frame that does not bear the next counter means that one was lost, whatever the reason: whoever notices gives the
//! association up and the leader opens the next one. So nothing is ever repaired in the middle; there is one way to begin, and it
//! is also the way to go on after a lost link, a changed leader, or a restarted node.
//!
//! Encoding (little-endian; pinned by the tests of this module): a header of 28 bytes (`u8 version = 1, u8 kind, u16 0, u64 term, u64 sync,
//! u64 counter`), then what the kind says. Bodies of messages stand together at the end, as they came in, with the CRC32C that they got where
//! they entered the cluster; they are slices of the frame. Parsing never panics and never allocates more than the frame has bytes.

mod association;
mod bundle;
mod from_leader;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod parts;
mod read;
mod to_leader;

#[cfg(test)]
mod tests;

pub(crate) use association::{Association, Place};
pub(crate) use bundle::{Bundles, Parcel, unbundle};
pub(crate) use from_leader::is_from_leader;

use nsquorum_links::Class;
use nsquorum_topic::{ChannelIncarnation, NewMessage, Seq, Term};
use thiserror::Error;

use crate::leases::{Delivery, DeliveryToken, LeaseEvent};
use crate::node::AdminError;
use crate::publish::PublishError;
use crate::stats::TopicStats;
use crate::subscription::{SubscribeError, SubscriptionId, SubscriptionOptions};
use crate::topic_leader::Command;
use nsquorum_protocol::ChannelName;

/// Bytes that this version of the protocol does not explain: from a faulty or newer peer. Sending them again cannot help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum WireError {
    /// The frame ends inside a field, or goes on behind its last one.
    #[error("{0}: length out of bounds")]
    Length(&'static str),
    /// A field has a value that it cannot have.
    #[error("{0}: value not allowed")]
    Value(&'static str),
}

/// Which association, and which frame of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// The leader's term.
    pub(crate) term: Term,
    /// Counts the associations that a leader opens with one node, from 1. 0 in frames outside of any.
    pub(crate) sync: u64,
    /// Counts the frames of one direction and class, from 0.
    pub(crate) counter: u64,
}

/// A frame with its header.
#[derive(Clone, Debug)]
pub(crate) struct Framed<T> {
    pub(crate) header: Header,
    pub(crate) content: T,
}

/// A frame from a router to the leader.
#[derive(Clone, Debug)]
pub(crate) enum ToLeader {
    /// Outside of any association: whoever leads, please open one.
    Ask,
    /// The first frame of an association.
    Claim(Claim),
    /// Messages to store.
    Publish(PublishFrame),
    /// A consumer wants to attach.
    Subscribe(Subscriber),
    /// A consumer's ceiling of messages in flight.
    Ready { subscription: SubscriptionId, count: u32 },
    /// A consumer is gone. What it holds stays with its node until an event says otherwise.
    Unsubscribe { subscription: SubscriptionId },
    /// What became of deliveries; `last` is the number of the last of them.
    Events { last: u64, events: Vec<LeaseEvent> },
    /// Something to be answered by [`FromLeader::Reply`].
    Question(Question),
}

/// A numbered question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) number: u64,
    pub(crate) asked: Asked,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Do this.
    Command(Command),
    /// Name the channels.
    Channels,
    /// Statistics of all channels, or of one.
    Stats(Option<ChannelName>),
    /// Whether anybody holds this message of the subscription's channel.
    IsInFlight { subscription: SubscriptionId, seq: Seq },
}

/// Messages of one publish of a session; the session is that of the node that sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishFrame {
    /// Its number in the session.
    pub(crate) number: u64,
    /// The lowest number that the router still waits for.
    pub(crate) base: u64,
    /// The one channel that they are for; `None` for all.
    pub(crate) only: Option<ChannelName>,
    /// The messages, without origins.
    pub(crate) messages: Vec<NewMessage>,
}

/// A consumer on another node.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    pub(crate) subscription: SubscriptionId,
    pub(crate) channel: ChannelName,
    /// The life of the channel that it is attached to; `None` until it is. A later life of the name is not its channel.
    pub(crate) incarnation: Option<ChannelIncarnation>,
    pub(crate) ready: u32,
    pub(crate) options: SubscriptionOptions,
}

/// All that a leader must know of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim {
    /// Its consumers.
    pub(crate) subscribers: Vec<Subscriber>,
    /// Deliveries that they hold.
    pub(crate) held: Vec<(SubscriptionId, DeliveryToken)>,
    /// Events that no leader has acknowledged, in order. They are about deliveries that are not held any more.
    pub(crate) events: Vec<LeaseEvent>,
    /// The number of the last of them.
    pub(crate) last_event: u64,
}

/// A frame from the leader to a router.
#[derive(Clone, Debug)]
pub(crate) enum FromLeader {
    /// Opens an association.
    Lead,
    /// What became of a publish.
    Answer {
        number: u64,
        result: Result<(), PublishError>,
    },
    /// All events up to this number are in the log.
    EventsStored { last: u64 },
    /// What became of a [`ToLeader::Subscribe`], or of a subscriber in a claim that was not attached.
    Subscribed {
        subscription: SubscriptionId,
        result: Result<ChannelIncarnation, SubscribeError>,
    },
    /// A message for a consumer.
    Deliver {
        subscription: SubscriptionId,
        delivery: Delivery,
    },
    /// The channel was emptied.
    Emptied { subscription: SubscriptionId },
    /// The channel is gone.
    Ended { subscription: SubscriptionId },
    /// The answer to a question.
    Reply { number: u64, reply: Reply },
}

/// Answers, each to its question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Command(Result<(), AdminError>),
    Channels(Vec<ChannelName>),
    Stats(TopicStats),
    IsInFlight(bool),
}

impl ToLeader {
    /// Publishes are bulk. Everything else is small and keeps one order among itself.
    pub(crate) const fn class(&self) -> Class {
        match self {
            Self::Publish(_) => Class::Bulk,
            Self::Ask
            | Self::Claim(_)
            | Self::Subscribe(_)
            | Self::Ready { .. }
            | Self::Unsubscribe { .. }
            | Self::Events { .. }
            | Self::Question(_) => Class::Control,
        }
    }
}

impl FromLeader {
    /// What concerns a subscription keeps the order of its deliveries, which are bulk: an `Emptied` that overtook a delivery, or was overtaken
    /// by one, would leave leader and consumer with different ideas of who holds what.
    pub(crate) const fn class(&self) -> Class {
        match self {
            Self::Subscribed { .. } | Self::Deliver { .. } | Self::Emptied { .. } | Self::Ended { .. } => Class::Bulk,
            Self::Lead | Self::Answer { .. } | Self::EventsStored { .. } | Self::Reply { .. } => Class::Control,
        }
    }
}
