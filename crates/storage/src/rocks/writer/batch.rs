//! From jobs to a batch of the database.

use std::sync::Arc;

use nsquorum_topic::{GroupId, LogIndex};
use rocksdb::WriteBatch;

use super::super::database::Database;
use super::super::group::Group;
use super::super::layout::{self, LOG, ROWS, STATE, StateKey};
use super::{Change, Job, Progress};
use crate::error::StorageError;
use crate::log::EntryRow;

/// Fewer entries than this are removed key by key: each range tombstone makes the next read of the memtable rebuild a list.
const RANGE_ENTRIES_MIN: u64 = 64;

/// The disk as the writer sees it. A trait so that tests can hold a sync, fail it, and look at what was written.
pub(in super::super) trait Engine: Send + 'static {
    /// Changes that are written together.
    type Batch;

    fn batch(&self) -> Self::Batch;
    fn put(&self, batch: &mut Self::Batch, family: &'static str, key: &[u8], value: &[u8]);
    fn delete(&self, batch: &mut Self::Batch, family: &'static str, key: &[u8]);
    /// Deletes `from..to`.
    fn delete_range(&self, batch: &mut Self::Batch, family: &'static str, from: &[u8], to: &[u8]);
    /// Writes the batch; `Ok` means that it is on stable storage.
    fn write_synced(&self, batch: Self::Batch) -> Result<(), StorageError>;
}

/// The database as the writer's disk.
pub(in super::super) struct RocksEngine(pub(in super::super) Arc<Database>);

impl RocksEngine {
    fn with_family(&self, family: &'static str, change: impl FnOnce(&rocksdb::ColumnFamily)) {
        let reader = self
            .0
            .reader()
            .expect("the database is closed after the writer has ended");
        change(match family {
            LOG => reader.log(),
            ROWS => reader.rows_family(),
            _ => reader.state(),
        });
    }
}

impl Engine for RocksEngine {
    type Batch = WriteBatch;

    fn batch(&self) -> WriteBatch {
        WriteBatch::default()
    }

    fn put(&self, batch: &mut WriteBatch, family: &'static str, key: &[u8], value: &[u8]) {
        self.with_family(family, |family| batch.put_cf(family, key, value));
    }

    fn delete(&self, batch: &mut WriteBatch, family: &'static str, key: &[u8]) {
        self.with_family(family, |family| batch.delete_cf(family, key));
    }

    fn delete_range(&self, batch: &mut WriteBatch, family: &'static str, from: &[u8], to: &[u8]) {
        self.with_family(family, |family| batch.delete_range_cf(family, from, to));
    }

    fn write_synced(&self, batch: WriteBatch) -> Result<(), StorageError> {
        self.0.reader()?.write_synced(batch)
    }
}

/// Whether a job is in the batch as a whole.
pub(super) enum Step {
    More,
    Whole,
}

/// A batch in the making, and the jobs that it completes.
pub(super) struct Gathering<'a, E: Engine> {
    engine: &'a E,
    batch: Option<E::Batch>,
    jobs: Vec<Job>,
    bytes: u64,
    entries: u64,
}

impl<'a, E: Engine> Gathering<'a, E> {
    pub(super) fn new(engine: &'a E) -> Self {
        Self {
            engine,
            batch: None,
            jobs: Vec::new(),
            bytes: 0,
            entries: 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn has_writes(&self) -> bool {
        self.batch.is_some()
    }

    pub(super) fn take(&mut self, job: Job) {
        self.jobs.push(job);
    }

    pub(super) fn take_batch(&mut self) -> Option<(E::Batch, u64, u64)> {
        self.batch.take().map(|batch| (batch, self.bytes, self.entries))
    }

    pub(super) fn finish(self) -> Vec<Job> {
        self.jobs
    }

    fn put(&mut self, family: &'static str, key: &[u8], value: &[u8]) {
        self.bytes += (key.len() + value.len()) as u64;
        self.engine.put(
            self.batch.get_or_insert_with(|| self.engine.batch()),
            family,
            key,
            value,
        );
    }

    fn put_state(&mut self, key: StateKey, value: Vec<u8>) {
        let key = key.encode();
        let value = layout::seal(&key, value);
        self.put(STATE, &key, &value);
    }

    fn delete(&mut self, family: &'static str, key: &[u8]) {
        self.bytes += key.len() as u64;
        self.engine
            .delete(self.batch.get_or_insert_with(|| self.engine.batch()), family, key);
    }

    fn delete_range(&mut self, family: &'static str, from: &[u8], to: &[u8]) {
        self.bytes += (from.len() + to.len()) as u64;
        self.engine
            .delete_range(self.batch.get_or_insert_with(|| self.engine.batch()), family, from, to);
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
                    self.put(LOG, &key, entry.bytes());
                    let row = layout::seal(&key, layout::encode_row(&EntryRow::of(entry)));
                    self.put(ROWS, &key, &row);
                }
                self.entries += entries.len() as u64;
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
                    self.put(STATE, &key, &value);
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
pub(super) fn put_committed<E: Engine>(progress: &Progress, gathering: &mut Gathering<'_, E>) {
    let waiting = std::mem::take(&mut *progress.committed.lock());
    let ahead: Vec<_> = waiting
        .into_iter()
        .filter(|group| !gathering.put_committed_of(group))
        .collect();
    if !ahead.is_empty() {
        progress.committed.lock().extend(ahead);
    }
}
