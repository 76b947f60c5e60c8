//! A store that is obviously right: plain maps, no order, no durability.

use std::collections::BTreeMap;

use nsquorum_storage::{Checkpoint, CheckpointSlot, Entry, EntryRow, LogId, LogState, Vote};

#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) entries: BTreeMap<u64, Entry>,
    pub(crate) checkpoints: BTreeMap<CheckpointSlot, Checkpoint>,
}

impl Group {
    pub(crate) fn state(&self) -> LogState {
        let last = self.entries.values().next_back().map(Entry::log_id).or(self.purged);
        LogState {
            last_purged: self.purged,
            last,
        }
    }

    /// Where the next entry goes.
    pub(crate) fn next_index(&self) -> u64 {
        self.state().last.map_or(0, |last| last.index.get() + 1)
    }

    pub(crate) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.entries.insert(entry.header().index.get(), entry.clone());
        }
    }

    pub(crate) fn truncate_after(&mut self, kept: Option<u64>) {
        self.entries.retain(|index, _| kept.is_some_and(|kept| *index <= kept));
    }

    pub(crate) fn purge(&mut self, up_to: LogId) {
        if self.purged.is_none_or(|purged| purged.index < up_to.index) {
            self.purged = Some(up_to);
            self.entries.retain(|index, _| *index > up_to.index.get());
        }
    }

    pub(crate) fn move_checkpoint(&mut self, from: CheckpointSlot, to: CheckpointSlot) {
        if let Some(checkpoint) = self.checkpoints.remove(&from) {
            self.checkpoints.insert(to, checkpoint);
        }
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.entries.values().cloned().collect()
    }

    pub(crate) fn rows(&self) -> Vec<EntryRow> {
        self.entries.values().map(EntryRow::of).collect()
    }
}
