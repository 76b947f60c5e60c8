//! One group's data as plain values, and the operations on it.

use std::collections::BTreeMap;

use nsquorum_topic::LogIndex;

use crate::entry::Entry;
use crate::log::{Checkpoint, CheckpointSlot, LogId, LogState, Vote};

/// What changes a group.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Vote(Vote),
    Committed(LogId),
    Append(Vec<Entry>),
    TruncateAfter(Option<LogIndex>),
    Purge(LogId),
    PutCheckpoint(Vec<CheckpointSlot>, Checkpoint),
    MoveCheckpoint(CheckpointSlot, CheckpointSlot),
    ClearCheckpoint(CheckpointSlot),
    Nothing,
}

#[derive(Clone, Debug, Default)]
pub(super) struct GroupData {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) last_purged: Option<LogId>,
    pub(super) entries: BTreeMap<LogIndex, Entry>,
    pub(super) checkpoints: BTreeMap<CheckpointSlot, Checkpoint>,
}

impl GroupData {
    pub(super) fn state(&self) -> LogState {
        let last = self
            .entries
            .values()
            .next_back()
            .map(Entry::log_id)
            .or(self.last_purged);
        LogState {
            last_purged: self.last_purged,
            last,
        }
    }

    pub(super) fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Vote(vote) => self.vote = Some(vote),
            Operation::Committed(committed) => self.committed = Some(committed),
            Operation::Append(entries) => self.entries.extend(entries.into_iter().map(|e| (e.header().index, e))),
            Operation::TruncateAfter(None) => self.entries.clear(),
            Operation::TruncateAfter(Some(last_kept)) => drop(self.entries.split_off(&last_kept.next())),
            Operation::Purge(up_to) => {
                if self.last_purged.is_none_or(|purged| purged.index < up_to.index) {
                    self.last_purged = Some(up_to);
                    self.entries = self.entries.split_off(&up_to.index.next());
                }
            }
            Operation::PutCheckpoint(slots, checkpoint) => {
                self.checkpoints
                    .extend(slots.into_iter().map(|slot| (slot, checkpoint.clone())));
            }
            Operation::MoveCheckpoint(from, to) => {
                if let Some(checkpoint) = self.checkpoints.remove(&from) {
                    self.checkpoints.insert(to, checkpoint);
                }
            }
            Operation::ClearCheckpoint(slot) => drop(self.checkpoints.remove(&slot)),
            Operation::Nothing => {}
        }
    }

    pub(super) fn range(&self, from: LogIndex, to: LogIndex) -> impl Iterator<Item = &Entry> {
        // A range that ends before it begins is empty here and a panic in BTreeMap.
        self.entries.range(from..to.max(from)).map(|(_, entry)| entry)
    }
}
