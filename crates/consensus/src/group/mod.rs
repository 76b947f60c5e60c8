//! Topic groups: the seam between replication and the topic leader above it.
//!
//! One channel carries everything that a topic leader has to hear, in the order of the log: [`TopicEvent`]. A second channel beside it
//! would have no order with the first, and "became leader" or "was refused" only mean something at a place in the log.

mod events;
mod leading;
mod running;
mod topic_machine;

pub use events::{BoxFuture, TopicEvent, TopicGroup, TopicHost, TopicLog};
pub(crate) use running::{GroupContext, PeerContext, RunningGroup, open_metadata, open_topic};
pub(crate) use topic_machine::TopicMachine;
