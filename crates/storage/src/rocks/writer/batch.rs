//! From jobs to a batch of the database.

use std::sync::Arc;

use bytes::Bytes;
use nsquorum_topic::{GroupId, LogIndex};

use super::super::group::Group;
use super::super::layout::{self, LOG, ROWS, STATE, StateKey};
use super::{Change, Job, Progress};
use crate::error::StorageError;
use crate::log::EntryRow;

/// Fewer entries than this are removed key by key: each range tombstone makes the next read of the memtable rebuild a list.
const RANGE_ENTRIES_MIN: u64 = 64;

/// A key; none is longer than a checkpoint chunk's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Key {
    bytes: [u8; 21],
    len: u8,
}

impl Key {
    fn new(key: &[u8]) -> Self {
        let mut bytes = [0; 21];
        bytes[..key.len()].copy_from_slice(key);
        Self {
            bytes,
            len: u8::try_from(key.len()).expect("it has just been copied into 21 bytes"),
        }
    }

    pub(in super::super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// One change of the database.
pub(in super::super) enum Write {
    Put(&'static str, Key, Bytes),
    Delete(&'static str, Key),
    /// Deletes from the first key to before the second.
    DeleteRange(&'static str, Key, Key),
}

/// Changes that are written together. Kept apart from the database's own batch, which a refused write uses up.
#[derive(Default)]
pub(in super::super) struct Batch {
    pub(in super::super) writes: Vec<Write>,
    pub(in super::super) bytes: u64,
    pub(in super::super) entries: u64,
    pub(in super::super) purged_entries: u64,
}

/// The disk as the writer sees it. A trait so that tests can hold a sync, fail it, and look at what was written.
pub(in super::super) trait Engine: Send + 'static {
    /// Writes the batch, even an empty one; `Ok` means that it and everything before it is on stable storage.
    fn write_synced(&self, batch: &Batch) -> Result<(), StorageError>;
}

/// Whether a job is in the batch as a whole.
pub(super) enum Step {
    More,
    Whole,
}

/// A batch in the making, and the jobs that it completes.
#[derive(Default)]
pub(super) struct Gathering {
    batch: Batch,
    jobs: Vec<Job>,
}

impl Gathering {
    pub(super) fn bytes(&self) -> u64 {
        self.batch.bytes
    }

    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    pub(super) fn take(&mut self, job: Job) {
        self.jobs.push(job);
    }

    pub(super) fn finish(self) -> Vec<Job> {
        self.jobs
    }

    fn put(&mut self, family: &'static str, key: &[u8], value: Bytes) {
        self.batch.bytes += (key.len() + value.len()) as u64;
        self.batch.writes.push(Write::Put(family, Key::new(key), value));
    }

    fn put_state(&mut self, key: StateKey, value: Vec<u8>) {
        let key = key.encode();
        let value = layout::seal(&key, value);
        self.put(STATE, &key, value.into());
    }

    fn delete(&mut self, family: &'static str, key: &[u8]) {
        self.batch.bytes += key.len() as u64;
        self.batch.writes.push(Write::Delete(family, Key::new(key)));
    }

    fn delete_range(&mut self, family: &'static str, from: &[u8], to: &[u8]) {
        self.batch.bytes += (from.len() + to.len()) as u64;
        self.batch
            .writes
            .push(Write::DeleteRange(family, Key::new(from), Key::new(to)));
    }

    /// Removes entries and rows of `from..to`.
    fn delete_entries(&mut self, group: GroupId, from: LogIndex, to: LogIndex) {
        let count = to.get().saturating_sub(from.get());
        if count < RANGE_ENTRIES_MIN {
            for index in from.get()..to.get() {
                let key = layout::entry_key(group, LogIndex::new(index));
                self.delete(LOG, &key);
                self.delete(ROWS, &key);
            }
        } else {
            let (from, to) = (layout::entry_key(group, from), layout::entry_key(group, to));
            self.delete_range(LOG, &from, &to);
            self.delete_range(ROWS, &from, &to);
        }
    }

    /// Adds the next part of a job.
    pub(super) fn add(&mut self, job: &mut Job) -> Step {
        let group = job.group.clone();
        let id = group.id;
        if let Some(orphans) = job.first.take() {
            self.put_state(StateKey::Marker(id), layout::encode_marker());
            for content in orphans {
                let (from, to) = StateKey::chunks_of_content(id, content);
                self.delete_range(STATE, &from, &to);
            }
        }
        match &mut job.change {
            Change::Vote(vote) => self.put_state(StateKey::Vote(id), layout::encode_vote(*vote)),
            Change::Append(_, entries) => {
                for entry in &*entries {
                    let key = layout::entry_key(id, entry.header().index);
                    self.put(LOG, &key, entry.bytes().clone());
                    let row = layout::seal(&key, layout::encode_row(&EntryRow::of(entry)));
                    self.put(ROWS, &key, row.into());
                }
                self.batch.entries += entries.len() as u64;
                if let Some(last) = entries.last() {
                    group.state.lock().batched_last = Some(last.header().index);
                }
            }
            Change::Truncate(from, to) => {
                self.delete_entries(id, *from, *to);
                let mut state = group.state.lock();
                let before = from.get().checked_sub(1).map(LogIndex::new);
                state.batched_last = state.batched_last.min(before);
            }
            Change::Purge(up_to, range) => {
                self.put_state(StateKey::Purged(id), layout::encode_log_id(*up_to));
                if let Some((from, to)) = *range {
                    self.delete_entries(id, from, to);
                    self.batch.purged_entries += to.get().saturating_sub(from.get());
                }
                let mut state = group.state.lock();
                state.batched_last = state.batched_last.max(Some(up_to.index));
            }
            Change::Slots { content, slots, freed } => {
                if let Some(content) = content
                    && content.next_chunk < content.chunks
                {
                    let chunk = content.next_chunk;
                    let key = StateKey::Chunk {
                        group: id,
                        content: content.content,
                        chunk,
                    }
                    .encode();
                    let value = layout::seal(&key, content.chunk(chunk).to_vec());
                    self.put(STATE, &key, value.into());
                    content.next_chunk += 1;
                    return Step::More;
                }
                self.put_state(StateKey::Slots(id), layout::encode_slots(slots));
                for &(content, chunks) in &*freed {
                    for chunk in 0..chunks {
                        self.delete(
                            STATE,
                            &StateKey::Chunk {
                                group: id,
                                content,
                                chunk,
                            }
                            .encode(),
                        );
                    }
                }
            }
            Change::DeleteGroup => self.delete_group(id),
            Change::Nothing | Change::Refused(_) => {}
        }
        Step::Whole
    }

    fn delete_group(&mut self, id: GroupId) {
        let from = layout::entry_key(id, LogIndex::new(0));
        let to = layout::entry_key(id, LogIndex::new(u64::MAX));
        self.delete_range(LOG, &from, &to);
        self.delete_range(ROWS, &from, &to);
        let (from, to) = StateKey::chunks_of(id);
        self.delete_range(STATE, &from, &to);
        for key in [
            StateKey::Marker(id),
            StateKey::Vote(id),
            StateKey::Committed(id),
            StateKey::Purged(id),
            StateKey::Slots(id),
        ] {
            self.delete(STATE, &key.encode());
        }
    }

    fn put_committed_of(&mut self, group: &Arc<Group>) -> bool {
        let mark = {
            let mut state = group.state.lock();
            if state.deleted {
                return true;
            }
            match state.committed {
                // Entries that are committed elsewhere may still be on their way to this disk; a mark beyond the log's end would
                // make a restart look for entries that it never had.
                Some(mark) if state.batched_last.is_some_and(|last| mark.index <= last) => {
                    state.committed_waits = false;
                    mark
                }
                _ => return false,
            }
        };
        self.put_state(StateKey::Committed(group.id), layout::encode_log_id(mark));
        true
    }
}

/// Lets the commit marks that wait ride along; those ahead of their log wait for a later batch.
pub(super) fn put_committed(progress: &Progress, gathering: &mut Gathering) {
    let waiting = std::mem::take(&mut *progress.committed.lock());
    let ahead: Vec<_> = waiting
        .into_iter()
        .filter(|group| !gathering.put_committed_of(group))
        .collect();
    if !ahead.is_empty() {
        progress.committed.lock().extend(ahead);
    }
}
