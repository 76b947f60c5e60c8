//! A group's log in memory.

use nsquorum_topic::{GroupId, LogIndex};

use super::MemoryLog;
use super::data::{GroupData, Operation};
use crate::entry::Entry;
use crate::error::StorageError;
use crate::log::{Checkpoint, CheckpointSlot, Completion, EntryRow, GroupLog, LogId, LogState, Vote, contract};

impl MemoryLog {
    fn submit(&self, operation: Operation, done: Completion) {
        self.shared.submit(self, |_| operation, Some(done));
    }

    fn with_data<T>(&self, read: impl FnOnce(&GroupData) -> T) -> Option<T> {
        let inner = self.shared.inner.lock();
        inner
            .groups
            .get(&self.group)
            .filter(|group| group.life == self.life)
            .map(|group| read(&group.data))
    }

    fn alive<T>(&self, found: Option<T>) -> Result<T, StorageError> {
        if self.shared.inner.lock().closed {
            return Err(StorageError::Closed);
        }
        found.ok_or(StorageError::Deleted(self.group))
    }
}

impl GroupLog for MemoryLog {
    fn group(&self) -> GroupId {
        self.group
    }

    fn state(&self) -> LogState {
        self.with_data(GroupData::state).unwrap_or_default()
    }

    fn vote(&self) -> Option<Vote> {
        self.with_data(|data| data.vote).flatten()
    }

    fn committed(&self) -> Option<LogId> {
        self.with_data(|data| data.committed).flatten()
    }

    fn save_vote(&self, vote: Vote, done: Completion) {
        self.submit(Operation::Vote(vote), done);
    }

    fn save_committed(&self, committed: LogId) {
        self.shared.submit(self, |_| Operation::Committed(committed), None);
    }

    fn append(&self, entries: Vec<Entry>, done: Completion) {
        self.shared.submit(
            self,
            |state| {
                contract::assert_appendable(self.group, state, &entries);
                Operation::Append(entries)
            },
            Some(done),
        );
    }

    fn truncate_after(&self, last_kept: Option<LogIndex>, done: Completion) {
        self.submit(Operation::TruncateAfter(last_kept), done);
    }

    fn purge(&self, up_to: LogId, done: Completion) {
        self.submit(Operation::Purge(up_to), done);
    }

    fn read_cached(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Option<Vec<Entry>> {
        self.with_data(|data| {
            let (mut entries, mut bytes) = (Vec::new(), 0);
            for entry in data.range(from, to) {
                bytes += entry.encoded_len();
                if bytes > bytes_max && !entries.is_empty() {
                    break;
                }
                entries.push(entry.clone());
            }
            entries
        })
    }

    fn read(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        let found = self.read_cached(from, to, bytes_max);
        self.alive(found)
    }

    fn rows(&self, from: LogIndex, to: LogIndex) -> Result<Vec<EntryRow>, StorageError> {
        let found = self.with_data(|data| data.range(from, to).map(EntryRow::of).collect());
        self.alive(found)
    }

    fn put_checkpoint(&self, slots: &[CheckpointSlot], checkpoint: Checkpoint, done: Completion) {
        contract::assert_checkpoint(self.group, slots, &checkpoint);
        self.submit(Operation::PutCheckpoint(slots.to_vec(), checkpoint), done);
    }

    fn move_checkpoint(&self, from: CheckpointSlot, to: CheckpointSlot, done: Completion) {
        self.submit(Operation::MoveCheckpoint(from, to), done);
    }

    fn clear_checkpoint(&self, slot: CheckpointSlot, done: Completion) {
        self.submit(Operation::ClearCheckpoint(slot), done);
    }

    fn checkpoint(&self, slot: CheckpointSlot) -> Result<Option<Checkpoint>, StorageError> {
        let found = self.with_data(|data| data.checkpoints.get(&slot).cloned());
        self.alive(found)
    }
}
