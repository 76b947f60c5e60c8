//! Which frames share an order, and which ones share a queue.

use nsquorum_topic::GroupId;

/// How urgent a frame is. The classes share no queue, so the first never waits behind the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Votes, heartbeats, acknowledgements, events: small, and late means an election.
    Control,
    /// Entries, publishes, deliveries, snapshots.
    Bulk,
}

impl Class {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Control, Self::Bulk];

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Bulk => "bulk",
        }
    }
}

/// Who receives a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// The node itself: heartbeats, leader locations.
    Node,
    /// Raft groups.
    Raft,
    /// Publishes, subscriptions, deliveries, events, claims.
    Broker,
    /// Finding the cluster: what nodes say to each other before they are one.
    Formation,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Node, Self::Raft, Self::Broker, Self::Formation];
}

/// Frames of one lane and class have one order and one credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Who receives its frames.
    pub service: Service,
    /// The group that they are about; [`GroupId::METADATA`] where no group is meant.
    pub group: GroupId,
}

impl Lane {
    /// The lane of a service for a group.
    pub const fn new(service: Service, group: GroupId) -> Self {
        Self { service, group }
    }

    /// The lane for what concerns nodes, not groups.
    pub const NODE: Self = Self::new(Service::Node, GroupId::METADATA);
}
