//! The metadata machine outside a running node: what `verify` needs to know which topic is which group.

use std::sync::Arc;

use nsquorum_storage::Entry;
use nsquorum_storage::inspect::{MetadataReplay, NamedTopic};
use nsquorum_topic::LogIndex;
use tokio::sync::watch;

use super::machine::MetadataMachine;
use super::state::MetadataState;
use crate::raft::Machine as _;

/// A new metadata machine for [`verify`](nsquorum_storage::inspect::verify): the very code that a running node applies entries with,
/// so the two cannot differ.
pub struct OfflineMetadata {
    machine: MetadataMachine,
    state: watch::Receiver<Arc<MetadataState>>,
}

impl Default for OfflineMetadata {
    fn default() -> Self {
        let (published, state) = watch::channel(Arc::default());
        let (applied, _) = watch::channel(LogIndex::default());
        Self {
            machine: MetadataMachine::new(published, applied),
            state,
        }
    }
}

impl MetadataReplay for OfflineMetadata {
    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        self.machine
            .restore(state, None)
            .map_err(|impossible| impossible.to_string())
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        self.machine.apply(entry).map_err(|impossible| impossible.to_string())
    }

    fn encode(&self) -> Vec<u8> {
        self.machine.encode().into()
    }

    fn topics(&self) -> Vec<NamedTopic> {
        let state = self.state.borrow();
        let named = state.topics().map(|(name, record)| NamedTopic {
            group: record.group,
            name: name.as_str().to_owned(),
            seq_base: record.seq_base,
        });
        named.collect()
    }
}
