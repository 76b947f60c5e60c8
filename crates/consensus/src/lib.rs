//! Raft groups over the node's one store: the metadata group, and a group per topic.
//!
//! This crate turns "an entry" into "an entry that a majority has on disk". It knows which groups exist (the metadata group says so),
//! starts and stops them, elects, and hands applied entries in order to whoever leads. It knows nothing of consumers.
//!
//! A lone node is a cluster of one: the same code, with one voter and no links.

mod channels;
mod elections;
mod error;
mod formation;
mod group;
mod hand_over;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod locations;
mod metadata;
mod node;
mod peers;
mod raft;
mod reports;
mod status;

pub use channels::ChannelNames;
pub use error::{ConsensusError, Refusal};
pub use formation::{Founded, FoundingWitness, find_cluster};
pub use group::{BoxFuture, TopicEvent, TopicGroup, TopicHost, TopicLog};
pub use locations::LeaderLocation;
pub use metadata::{MetadataState, NodeDescription, OfflineMetadata, TopicRecord};
pub use node::{Cluster, ClusterNode, ClusterPeers, ConsensusOptions, NodeIdentity};
pub use status::{ClusterStatus, GroupStatus, Liveness, NodeStatus, ReplicaProgress, ReplicaStatus};
