//! A group's log on RocksDB: calls change memory and queue, reads look in memory and then on disk.

use std::sync::Arc;

use nsquorum_topic::{GroupId, LogIndex};

use super::cache::Ticket;
use super::group::{Group, GroupState, Slot};
use super::layout::SlotRecord;
use super::reading::take_until;
use super::store::Handle;
use super::writer::{Change, Content, Job, Message};
use crate::entry::Entry;
use crate::error::StorageError;
use crate::log::{Checkpoint, CheckpointSlot, Completion, EntryRow, GroupLog, LogId, LogState, Vote, contract};

/// A group's log in a [`crate::RocksStore`].
#[derive(Clone)]
pub struct RocksLog {
    pub(super) handle: Arc<Handle>,
    pub(super) group: Arc<Group>,
}

impl std::fmt::Debug for RocksLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksLog")
            .field("group", &self.group.id)
            .finish_non_exhaustive()
    }
}

/// What a call changes, for memory already done, and how many bytes that puts on the way to the disk.
struct Prepared {
    change: Change,
    bytes: u64,
}

impl From<Change> for Prepared {
    fn from(change: Change) -> Self {
        Self { change, bytes: 0 }
    }
}

impl RocksLog {
    /// Changes memory and queues the change, under one lock, so that both see the same order.
    fn submit(&self, done: Completion, prepare: impl FnOnce(&mut GroupState) -> Prepared) {
        let unsent = {
            let mut state = self.group.state.lock();
            let refused = if self.handle.is_closed() {
                Some(StorageError::Closed)
            } else if let Some(failed) = self.handle.progress.failure() {
                Some(failed)
            } else if state.deleted {
                Some(StorageError::Deleted(self.group.id))
            } else {
                None
            };
            let (prepared, first) = match refused {
                Some(error) => (Change::Refused(error).into(), None),
                None => {
                    let prepared = prepare(&mut state);
                    let idle = matches!(prepared.change, Change::Refused(_) | Change::Nothing);
                    let first = if idle { None } else { state.first.take() };
                    (prepared, first)
                }
            };
            let Prepared { change, bytes } = prepared;
            self.handle.send(
                Message::Job(Job {
                    group: self.group.clone(),
                    first,
                    change,
                    bytes,
                    done: Some(done),
                }),
                bytes,
            )
        };
        // A job that could not be sent calls its completion when it is dropped: not under the lock.
        drop(unsent);
    }
}

impl GroupLog for RocksLog {
    fn group(&self) -> GroupId {
        self.group.id
    }

    fn state(&self) -> LogState {
        self.group.state.lock().log_state()
    }

    fn vote(&self) -> Option<Vote> {
        self.group.state.lock().vote
    }

    fn committed(&self) -> Option<LogId> {
        self.group.state.lock().committed
    }

    fn save_vote(&self, vote: Vote, done: Completion) {
        self.submit(done, |state| {
            state.vote = Some(vote);
            Change::Vote(vote).into()
        });
    }

    fn save_committed(&self, committed: LogId) {
        let mut state = self.group.state.lock();
        if state.deleted || self.handle.progress.failure().is_some() {
            return;
        }
        state.committed = Some(committed);
        if !state.committed_waits {
            state.committed_waits = true;
            self.handle.progress.committed.lock().push(self.group.clone());
        }
    }

    fn append(&self, entries: Vec<Entry>, done: Completion) {
        let id = self.group.id;
        self.submit(done, |state| {
            contract::assert_appendable(id, &state.log_state(), &entries);
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
                return Change::Nothing.into();
            };
            let from = state.ends.map_or(first.header().index, |(from, _)| from);
            state.ends = Some((from, last.log_id()));
            let ticket = state.issue();
            for entry in &entries {
                state.cache.push(ticket, entry.clone());
            }
            let bytes = entries.iter().map(|entry| entry.encoded_len() as u64).sum();
            Prepared {
                change: Change::Append(ticket, entries),
                bytes,
            }
        });
    }

    fn truncate_after(&self, last_kept: Option<LogIndex>, done: Completion) {
        let id = self.group.id;
        self.submit(done, |state| {
            let Some((first, last)) = state.ends else {
                return Change::Nothing.into();
            };
            let kept = match last_kept {
                Some(kept) if kept >= last.index => return Change::Nothing.into(),
                Some(kept) if kept >= first => match state.cache.get(kept).map(Entry::log_id) {
                    Some(found) => Some(found),
                    None => match self.handle.database.reader().and_then(|reader| reader.row(id, kept)) {
                        Ok(row) => Some(row.log_id()),
                        Err(error) => return Change::Refused(error).into(),
                    },
                },
                _ => None,
            };
            state.ends = kept.map(|kept| (first, kept));
            state.cuts += 1;
            state.cache.truncate_after(kept.map(|kept| kept.index));
            let from = kept.map_or(first, |kept| kept.index.next());
            Change::Truncate(from, last.index.next()).into()
        });
    }

    fn purge(&self, up_to: LogId, done: Completion) {
        self.submit(done, |state| {
            if state.last_purged.is_some_and(|purged| purged.index >= up_to.index) {
                return Change::Nothing.into();
            }
            state.last_purged = Some(up_to);
            state.cuts += 1;
            state.cache.purge(up_to.index);
            let Some((first, last)) = state.ends else {
                return Change::Purge(up_to, None).into();
            };
            if up_to.index < first {
                return Change::Purge(up_to, None).into();
            }
            let next = up_to.index.next();
            state.ends = (up_to.index < last.index).then_some((next, last));
            Change::Purge(up_to, Some((first, next.min(last.index.next())))).into()
        });
    }

    fn read_cached(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Option<Vec<Entry>> {
        let state = self.group.state.lock();
        if state.deleted {
            return None;
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        if let Some((start, end)) = state.clip(from, to) {
            let cached = state.cache.from(start)?.take_while(|entry| entry.header().index < end);
            take_until(&mut entries, &mut bytes, bytes_max, cached);
        }
        Some(entries)
    }

    fn read(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        if !self.handle.is_closed()
            && let Some(entries) = self.read_cached(from, to, bytes_max)
        {
            return Ok(entries);
        }
        self.consistently(|reader| self.read_once(reader, from, to, bytes_max))
    }

    fn rows(&self, from: LogIndex, to: LogIndex) -> Result<Vec<EntryRow>, StorageError> {
        self.consistently(|reader| self.rows_once(reader, from, to))
    }

    fn put_checkpoint(&self, slots: &[CheckpointSlot], checkpoint: Checkpoint, done: Completion) {
        contract::assert_checkpoint(self.group.id, slots, &checkpoint);
        self.submit(done, |state| {
            let ticket = state.issue();
            let bytes = (checkpoint.state.len() + checkpoint.membership.len()) as u64;
            let chunks = Content::chunks_of(&checkpoint);
            let record = SlotRecord {
                content: state.next_content,
                chunks,
                log_id: checkpoint.log_id,
            };
            state.next_content += 1;
            let checkpoint = Arc::new(checkpoint);
            let mut after = state.slots.clone();
            for slot in slots {
                after[*slot as usize] = Some(Slot {
                    record,
                    unwritten: Some((ticket, checkpoint.clone())),
                });
            }
            let freed = state.replace_slots(after);
            let content = Content {
                ticket,
                content: record.content,
                chunks,
                next_chunk: 0,
                checkpoint,
            };
            let change = Change::Slots {
                content: Some(content),
                slots: Box::new(state.records()),
                freed,
            };
            Prepared { change, bytes }
        });
    }

    fn move_checkpoint(&self, from: CheckpointSlot, to: CheckpointSlot, done: Completion) {
        self.submit(done, |state| {
            if from == to || state.slots[from as usize].is_none() {
                return Change::Nothing.into();
            }
            let mut after = state.slots.clone();
            after[to as usize] = after[from as usize].take();
            let freed = state.replace_slots(after);
            Change::Slots {
                content: None,
                slots: Box::new(state.records()),
                freed,
            }
            .into()
        });
    }

    fn clear_checkpoint(&self, slot: CheckpointSlot, done: Completion) {
        self.submit(done, |state| {
            if state.slots[slot as usize].is_none() {
                return Change::Nothing.into();
            }
            let mut after = state.slots.clone();
            after[slot as usize] = None;
            let freed = state.replace_slots(after);
            Change::Slots {
                content: None,
                slots: Box::new(state.records()),
                freed,
            }
            .into()
        });
    }

    fn checkpoint(&self, slot: CheckpointSlot) -> Result<Option<Checkpoint>, StorageError> {
        let reader = self.handle.database.reader()?;
        let current = || {
            let state = self.group.state.lock();
            if state.deleted {
                Err(StorageError::Deleted(self.group.id))
            } else {
                Ok(state.slots[slot as usize].clone())
            }
        };
        loop {
            let Some(Slot { record, unwritten }) = current()? else {
                return Ok(None);
            };
            if let Some((_, checkpoint)) = unwritten {
                return Ok(Some(Checkpoint::clone(&checkpoint)));
            }
            let found = self.checkpoint_content(&reader, &record);
            // The content may have been replaced while it was read: then its parts may be gone, and that is no damage.
            if current()?.is_some_and(|slot| slot.record == record) {
                return found.map(Some);
            }
        }
    }
}

/// Takes a group out of memory; the job deletes it on disk.
pub(super) fn forget(state: &mut GroupState) {
    let nothing: [Option<Slot>; 3] = [None, None, None];
    state.deleted = true;
    state.vote = None;
    state.committed = None;
    state.last_purged = None;
    state.ends = None;
    state.cuts += 1;
    state.slots = nothing;
    state.on_disk = Ticket(state.issued.0);
    state.cache.truncate_after(None);
}
