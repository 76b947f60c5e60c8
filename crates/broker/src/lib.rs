//! Topic leaders, dispatch to consumers, leases, and the router in front of them.
//!
//! The deciding parts are synchronous step machines (`step(input, now) -> outputs`): the topic leader (numbers, batches, dispatch)
//! and the lease table (who holds which message until when). Thin async shells feed them and carry out what they decide. So every
//! interleaving that a test can write down can be replayed, and nothing here asks the system for the time.
//!
//! One message's way: [`Broker::publish`] -> the topic leader's inbox -> one batch of everything that waits -> one Raft entry -> apply ->
//! [`PublishTicket`] resolves; dispatch -> [`SubscriptionEvent::Deliver`] -> a frontend's [`LeaseTable`] -> [`LeaseEvent`]s back to the leader
//! -> finished ranges of a later batch.

mod admission;
#[cfg(test)]
mod cluster_tests;
mod deletions;
#[cfg(test)]
mod dice;
mod held;
#[cfg(test)]
mod histories;
mod known_channels;
mod latency;
mod leases;
mod nearness;
mod node;
mod outages;
mod peers;
mod publish;
mod router;
mod stats;
mod subscription;
mod topic_leader;
mod wire;

pub use admission::{Admission, Admitted};
pub use held::HeldTopics;
pub use known_channels::ChannelSource;
pub use latency::{LatencyPercentile, LatencySettings, LatencySummary, Quantile};
pub use leases::{Delivery, DeliveryToken, Emptied, LeaseEvent, LeaseOutcome, LeaseTable, NotHeld, OrphanedLeases};
pub use nsquorum_consensus::{
    ClusterStatus, GroupStatus, LeaderLocation, Liveness, NodeDescription, NodeIdentity, NodeStatus, ReplicaProgress,
    ReplicaStatus,
};

#[cfg(any(test, fuzzing))]
pub use wire::hostile;

pub use nearness::{DeliveriesByNearness, Nearness, Topology};
pub use node::{AdminAction, AdminError, Broker, BrokerConfig, Health, OtherNode};
pub use nsquorum_topic::NodeId;
pub use outages::Outages;
pub use publish::{PublishError, PublishTicket};
pub use stats::{ChannelStats, ClientDescription, SubscriptionStats, TopicStats};
pub use subscription::{
    DeliveryReceiver, SubscribeError, Subscription, SubscriptionEvent, SubscriptionHandle, SubscriptionId,
    SubscriptionOptions,
};
