//! Raft groups over the node's one store: the metadata group, and a group per topic.
//!
//! This crate turns "an entry" into "an entry that a majority has on disk". It knows which groups exist (the metadata group says so),
//! starts and stops them, elects, and hands applied entries in order to whoever leads. It knows nothing of consumers.
//!
//! A lone node is a cluster of one: the same code, with one voter.

mod error;
mod group;
mod metadata;
mod node;
mod raft;

pub use error::{ConsensusError, Refusal};
pub use group::{BoxFuture, TopicEvent, TopicGroup, TopicHost, TopicLog};
pub use metadata::{MetadataState, OfflineMetadata, TopicRecord};
pub use node::{Cluster, ClusterOfOne, ConsensusOptions, NodeIdentity};
