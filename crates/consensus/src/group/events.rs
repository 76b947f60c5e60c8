//! What a topic group tells the layer above, and what it offers to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use nsquorum_protocol::TopicName;
use nsquorum_storage::{Entry, EntryKind, StorageError};
use nsquorum_topic::{Applied, BatchView, GroupId, LogIndex, Term, TopicState};
use tokio::sync::mpsc;

use crate::error::Refusal;

/// What happened in a topic's group, in log order.
#[derive(Debug)]
pub enum TopicEvent {
    /// This node's LeaderStart was applied: it leads, and every earlier entry is in the state.
    LeaderStarted {
        /// The term that it leads in.
        term: Term,
        /// The state at this point; the receiver's own copy, kept up by applying the entries that follow.
        state: Box<TopicState>,
    },
    /// An entry was applied while this node leads.
    Applied {
        /// The whole entry; its bodies are slices of the same memory.
        entry: Entry,
        /// Its batch.
        batch: BatchView,
        /// What apply decided.
        applied: Applied,
    },
    /// This node leads no more: another leader has started, the term is over, or no majority has answered for a lease. Proposals that are
    /// under way may still be appended; nothing is told of them. A term that has ended never begins again.
    Deposed,
    /// This node's proposal was not appended.
    Refused {
        /// The ticket that was given with the proposal.
        ticket: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The group is quarantined on this node: it neither serves nor votes.
    Quarantined,
}

/// Future of a call through an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The log of a topic's group, as its leader uses it.
pub trait TopicLog: Send + Sync {
    /// Proposes a payload (behind room for the entry header) for the given term. The outcome arrives as an event: applied, or refused with
    /// this ticket. Proposals made one after the other are appended in that order.
    fn propose(&self, term: Term, kind: EntryKind, buffer: BytesMut, ticket: u64) -> BoxFuture<'_, ()>;

    /// Whether this node leads in the term at this moment, as far as it can know: a majority has answered within the lease. Cheap; asked
    /// before each burst of deliveries, because a process that was paused finds [`TopicEvent::Deposed`] only after it.
    fn leads(&self, _term: Term) -> bool {
        true
    }

    /// Entries of `from..to` if all that is needed for `bytes_max` bytes is in memory.
    fn read_cached(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Option<Vec<Entry>>;

    /// Entries of `from..to`, at least one if there is one, until `bytes_max`. May touch the disk: never call it on an async worker.
    fn read(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, StorageError>;
}

/// A topic's group on this node.
pub struct TopicGroup {
    /// The topic.
    pub name: TopicName,
    /// Its group.
    pub group: GroupId,
    /// The log.
    pub log: Arc<dyn TopicLog>,
    /// What happens in it.
    pub events: mpsc::UnboundedReceiver<TopicEvent>,
}

/// Whoever serves the topics that this node holds.
pub trait TopicHost: Send + Sync + 'static {
    /// A topic's group runs. Its events have begun to arrive.
    fn topic_started(&self, topic: TopicGroup);

    /// A topic's group cannot be opened on this node: its log or checkpoint is damaged or impossible. The others go on.
    fn topic_failed(&self, name: &TopicName, group: GroupId);

    /// The topic was deleted: its group has stopped.
    fn topic_stopped(&self, name: &TopicName, group: GroupId);
}
