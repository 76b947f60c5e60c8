//! The metadata state as a replicated machine.

use std::sync::Arc;

use bytes::Bytes;
use nsquorum_storage::{Entry, EntryKind};
use nsquorum_topic::LogIndex;
use tokio::sync::watch;

use super::command::MetadataBatch;
use super::state::MetadataState;
use crate::raft::{Impossible, Machine, decode_membership};

/// Applies metadata entries and shows each new state to whoever watches.
pub(crate) struct MetadataMachine {
    state: MetadataState,
    published: watch::Sender<Arc<MetadataState>>,
    /// Moved after the state is shown, so that whoever waits for an entry sees its effect.
    applied: watch::Sender<LogIndex>,
}

impl MetadataMachine {
    pub(crate) fn new(published: watch::Sender<Arc<MetadataState>>, applied: watch::Sender<LogIndex>) -> Self {
        Self {
            state: MetadataState::default(),
            published,
            applied,
        }
    }

    fn publish(&self) {
        self.published.send_replace(Arc::new(self.state.clone()));
    }
}

impl Machine for MetadataMachine {
    fn apply(&mut self, entry: &Entry) -> Result<(), Impossible> {
        self.fold(entry)?;
        self.applied.send_replace(entry.header().index);
        Ok(())
    }

    fn encode(&self) -> Bytes {
        self.state.encode().into()
    }

    fn restore(&mut self, state: &[u8], at: Option<LogIndex>) -> Result<(), Impossible> {
        self.state = MetadataState::decode(state).map_err(Impossible)?;
        self.publish();
        self.applied.send_replace(at.unwrap_or_default());
        Ok(())
    }

    /// The state holds everything: any checkpoint makes the log before it superfluous.
    fn needed_from(&self) -> LogIndex {
        LogIndex::new(u64::MAX)
    }
}

impl MetadataMachine {
    fn fold(&mut self, entry: &Entry) -> Result<(), Impossible> {
        match entry.header().kind {
            // LeaderStart is the barrier of topic groups; here the blank entry of the new term is enough.
            EntryKind::Blank => return Ok(()),
            EntryKind::Membership => {
                let membership = decode_membership(&entry.payload()).map_err(|error| Impossible(error.to_string()))?;
                self.state.set_members(membership.voter_ids().collect());
                self.publish();
                return Ok(());
            }
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
}
