//! The metadata state as a replicated machine.

use std::sync::Arc;

use bytes::Bytes;
use nsquorum_storage::{Entry, EntryKind};
use nsquorum_topic::LogIndex;
use tokio::sync::watch;

use super::command::MetadataBatch;
use super::state::MetadataState;
use crate::raft::{Impossible, Machine};

/// Applies metadata entries and shows each new state to whoever watches.
pub(crate) struct MetadataMachine {
    state: MetadataState,
    published: watch::Sender<Arc<MetadataState>>,
}

impl MetadataMachine {
    pub(crate) fn new(published: watch::Sender<Arc<MetadataState>>) -> Self {
        Self {
            state: MetadataState::default(),
            published,
        }
    }

    fn publish(&self) {
        self.published.send_replace(Arc::new(self.state.clone()));
    }
}

impl Machine for MetadataMachine {
    fn apply(&mut self, entry: &Entry) -> Result<(), Impossible> {
        match entry.header().kind {
            // LeaderStart is the barrier of topic groups; here the blank entry of the new term is enough.
            EntryKind::Blank | EntryKind::Membership => return Ok(()),
            EntryKind::Metadata => {}
            other => return Err(Impossible(format!("an entry of kind {other:?} in the metadata group"))),
        }
        let batch: MetadataBatch = serde_json::from_slice(&entry.payload())
            .map_err(|error| Impossible(format!("a metadata entry that cannot be read: {error}")))?;
        if batch.version != MetadataBatch::VERSION {
            return Err(Impossible(format!("a metadata entry of version {}", batch.version)));
        }
        for command in &batch.commands {
            self.state.apply(command).map_err(Impossible)?;
        }
        self.publish();
        Ok(())
    }

    fn encode(&self) -> Bytes {
        self.state.encode().into()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Impossible> {
        self.state = MetadataState::decode(state).map_err(Impossible)?;
        self.publish();
        Ok(())
    }

    /// The state holds everything: any checkpoint makes the log before it superfluous.
    fn needed_from(&self) -> LogIndex {
        LogIndex::new(u64::MAX)
    }
}
