//! The one writer: a thread that turns what all groups submitted into one batch and one sync at a time.
//!
//! While a sync runs the next batch gathers in the inbox, so batches grow with the load and no timer is needed. Completions are
//! called from this thread, in order: handing them to another thread would cost a wake-up per batch and could reorder them.
//!
//! Between groups: those with a vote waiting come first (an election must not wait behind a backlog), with everything of theirs
//! that was submitted before the vote. Then the others in turn, at least one operation and about 256 KiB each, until about 4 MiB:
//! a cycle stays short, and a group that floods the node cannot starve the rest. A checkpoint is written chunk by chunk within
//! these shares; its content is invisible until the slot record, in the last part, refers to it.
//!
//! The first failed write ends it: the fatal hook, then the error to everybody, now and later. No retry: after a failed sync the
//! kernel may drop the dirty pages and let the next sync succeed.

mod batch;
mod engine;
mod queues;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crossbeam_channel::{Receiver, TryRecvError};
use nsquorum_environment::Clock;
use nsquorum_topic::{GroupId, LogIndex};
use parking_lot::Mutex;

use self::batch::{Batch, Engine, Gathering, put_committed};
pub(super) use self::engine::RocksEngine;
use self::queues::Queues;
use super::cache::Ticket;
use super::group::Group;
use super::layout::Slots;
use crate::entry::Entry;
use crate::error::StorageError;
use crate::log::{Checkpoint, Completion, LogId, Vote};
use crate::options::FatalHook;

/// What a job changes on disk.
#[derive(Debug)]
pub(super) enum Change {
    Vote(Vote),
    Append(Ticket, Vec<Entry>),
    /// Remove the entries of this range; it is at the end of the log.
    Truncate(LogIndex, LogIndex),
    /// Move the purge mark and remove the entries of this range, which begins where the last purge ended.
    Purge(LogId, Option<(LogIndex, LogIndex)>),
    /// Write new content, if any, then the slots, and remove what they no longer refer to.
    Slots {
        content: Option<Content>,
        slots: Box<Slots>,
        freed: Vec<(u64, u32)>,
    },
    DeleteGroup,
    Nothing,
    Refused(StorageError),
}

/// A checkpoint on its way to the disk.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) ticket: Ticket,
    pub(super) content: u64,
    pub(super) chunks: u32,
    pub(super) next_chunk: u32,
    pub(super) checkpoint: Arc<Checkpoint>,
}

impl Content {
    /// The bytes of a chunk: the membership first, then the state in pieces.
    fn chunk(&self, chunk: u32) -> Bytes {
        let Some(piece) = chunk.checked_sub(1) else {
            return self.checkpoint.membership.clone();
        };
        let from = piece as usize * super::layout::CHUNK_BYTES;
        let to = (from + super::layout::CHUNK_BYTES).min(self.checkpoint.state.len());
        self.checkpoint.state.slice(from..to)
    }

    /// How many chunks a checkpoint has.
    pub(super) fn chunks_of(checkpoint: &Checkpoint) -> u32 {
        let pieces = checkpoint.state.len().div_ceil(super::layout::CHUNK_BYTES);
        1 + u32::try_from(pieces).expect("the state of a checkpoint is at most 1 GiB")
    }
}

/// An operation waiting for the disk. Its completion is called exactly once, whatever becomes of it.
pub(super) struct Job {
    pub(super) group: Arc<Group>,
    /// The first job of a group since it was opened: write its marker, and remove the contents that a crash left behind.
    pub(super) first: Option<Vec<u64>>,
    pub(super) change: Change,
    pub(super) bytes: u64,
    pub(super) done: Option<Completion>,
}

impl Job {
    fn complete(mut self, result: Result<(), StorageError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(StorageError::Closed));
        }
    }
}

pub(super) enum Message {
    Job(Job),
    /// Complete when everything before it is durable.
    Flush(Flush),
    /// A flush or compaction of the database has failed, with this or a better known error: find out, and fail.
    Failed(StorageError),
    /// Write everything before it and end.
    Stop,
}

/// A flush; as a [`Job`], its completion is called exactly once.
pub(super) struct Flush(pub(super) Option<Completion>);

impl Flush {
    fn complete(mut self, result: Result<(), StorageError>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(StorageError::Closed));
        }
    }
}

/// What the writer shares with the rest of the store.
pub(super) struct Progress {
    pub(super) pending_bytes: AtomicU64,
    pub(super) cached_bytes: Arc<AtomicU64>,
    /// Groups whose commit mark waits for a batch.
    pub(super) committed: Mutex<Vec<Arc<Group>>>,
    /// Set by the first failed write; never cleared.
    pub(super) failed: Mutex<Option<StorageError>>,
    pub(super) on_fatal: FatalHook,
    /// Writes begun, and the last of them that is known to be synced: see the janitor's mark of what `repair` may not touch.
    pub(super) writes_begun: AtomicU64,
    pub(super) writes_synced: AtomicU64,
}

impl Progress {
    pub(super) fn new(on_fatal: FatalHook) -> Self {
        Self {
            pending_bytes: AtomicU64::new(0),
            cached_bytes: Arc::new(AtomicU64::new(0)),
            committed: Mutex::new(Vec::new()),
            failed: Mutex::new(None),
            on_fatal,
            writes_begun: AtomicU64::new(0),
            writes_synced: AtomicU64::new(0),
        }
    }

    /// Notes a failure that ends the store, and calls the hook if it is the first.
    pub(super) fn fail(&self, error: &StorageError) {
        let first = {
            let mut failed = self.failed.lock();
            let first = failed.is_none();
            failed.get_or_insert_with(|| error.clone());
            first
        };
        if first {
            tracing::error!(%error, "storage failed; nothing is acknowledged any more");
            (self.on_fatal)(error);
        }
    }

    pub(super) fn failure(&self) -> Option<StorageError> {
        self.failed.lock().clone()
    }
}

pub(super) struct Writer<E: Engine> {
    engine: E,
    inbox: Receiver<Message>,
    progress: Arc<Progress>,
    clock: Arc<dyn Clock>,
    queues: Queues,
    /// Flushes, with how many jobs had come before each.
    flushes: Vec<(u64, Flush)>,
    stopping: bool,
    cache_bytes_max: u64,
    /// Groups that have cached entries, the least recently appended first.
    recency: BTreeMap<u64, Arc<Group>>,
    appended: u64,
}

impl<E: Engine> Writer<E> {
    pub(super) fn new(
        engine: E,
        inbox: Receiver<Message>,
        progress: Arc<Progress>,
        clock: Arc<dyn Clock>,
        cache_bytes_max: u64,
    ) -> Self {
        Self {
            engine,
            inbox,
            progress,
            clock,
            queues: Queues::default(),
            flushes: Vec::new(),
            stopping: false,
            cache_bytes_max,
            recency: BTreeMap::new(),
            appended: 0,
        }
    }

    /// Works until told to stop, or until nobody is left to tell it.
    pub(super) fn run(mut self) {
        let _guard = PanicGuard(self.progress.clone());
        loop {
            let idle = self.queues.is_empty() && self.flushes.is_empty();
            if idle && !self.stopping {
                match self.inbox.recv() {
                    Ok(message) => self.accept(message),
                    Err(_) => self.stopping = true,
                }
            }
            self.drain_inbox();
            if self.queues.is_empty() && self.flushes.is_empty() && self.stopping {
                self.finish();
                return;
            }
            self.cycle();
        }
    }

    fn drain_inbox(&mut self) {
        while !self.stopping {
            match self.inbox.try_recv() {
                Ok(message) => self.accept(message),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.stopping = true,
            }
        }
    }

    fn accept(&mut self, message: Message) {
        match message {
            Message::Job(job) => self.queues.push(job),
            Message::Flush(flush) => self.flushes.push((self.queues.pushed(), flush)),
            Message::Failed(error) => self.fail_with_cause(&error),
            Message::Stop => self.stopping = true,
        }
    }

    /// Gathers, writes, completes.
    fn cycle(&mut self) {
        let mut gathering = Gathering::default();
        self.queues.gather(&mut gathering);
        let flushing = self.queues.is_empty() && !self.flushes.is_empty();
        let result = match self.progress.failure() {
            Some(error) => Err(error),
            None => {
                if flushing || !gathering.batch().writes.is_empty() {
                    put_committed(&self.progress, &mut gathering);
                }
                if gathering.batch().writes.is_empty() {
                    Ok(())
                } else {
                    self.write(gathering.batch())
                }
            }
        };
        if let Err(error) = &result {
            self.progress.fail(error);
        }
        self.complete(gathering.finish(), &result);
        self.complete_flushes(&result);
        self.evict();
    }

    #[allow(clippy::cast_precision_loss)]
    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        let begun = self.progress.writes_begun.fetch_add(1, Ordering::SeqCst) + 1;
        let start = self.clock.now();
        self.engine.write_synced(batch)?;
        let took = self.clock.now().since(start);
        self.progress.writes_synced.store(begun, Ordering::SeqCst);
        metrics::counter!("nsquorum_storage_fsyncs_total").increment(1);
        metrics::counter!("nsquorum_storage_written_bytes_total").increment(batch.bytes);
        metrics::counter!("nsquorum_storage_written_entries_total").increment(batch.entries);
        metrics::counter!("nsquorum_storage_purged_entries_total").increment(batch.purged_entries);
        metrics::histogram!("nsquorum_storage_sync_seconds").record(took.as_secs_f64());
        metrics::histogram!("nsquorum_storage_batch_bytes").record(batch.bytes as f64);
        metrics::histogram!("nsquorum_storage_batch_entries").record(batch.entries as f64);
        Ok(())
    }

    /// A failed flush is only counted by the database, but a write after it gets its error, and so its class.
    fn fail_with_cause(&self, otherwise: &StorageError) {
        if self.progress.failure().is_none() {
            let cause = self.write(&Batch::default()).err();
            self.progress.fail(cause.as_ref().unwrap_or(otherwise));
        }
    }

    fn complete(&mut self, jobs: Vec<Job>, result: &Result<(), StorageError>) {
        for job in jobs {
            if result.is_ok() {
                self.note_written(&job);
            }
            let before = self.progress.pending_bytes.fetch_sub(job.bytes, Ordering::SeqCst);
            assert!(before >= job.bytes, "more pending bytes leave than ever came");
            let own = match (&job.change, result) {
                (_, Err(error)) | (Change::Refused(error), Ok(())) => Err(error.clone()),
                (_, Ok(())) => Ok(()),
            };
            job.complete(own);
        }
        #[allow(clippy::cast_precision_loss)]
        metrics::gauge!("nsquorum_storage_pending_bytes")
            .set(self.progress.pending_bytes.load(Ordering::Relaxed) as f64);
    }

    /// What is on disk may leave the memory.
    fn note_written(&mut self, job: &Job) {
        match &job.change {
            Change::Append(ticket, _) => {
                self.appended += 1;
                let mut state = job.group.state.lock();
                state.on_disk = *ticket;
                self.recency.remove(&state.recency);
                state.recency = self.appended;
                self.recency.insert(self.appended, job.group.clone());
            }
            Change::Slots {
                content: Some(content), ..
            } => {
                let mut state = job.group.state.lock();
                for slot in state.slots.iter_mut().flatten() {
                    if slot
                        .unwritten
                        .as_ref()
                        .is_some_and(|(ticket, _)| *ticket <= content.ticket)
                    {
                        slot.unwritten = None;
                    }
                }
            }
            Change::DeleteGroup => {
                let recency = job.group.state.lock().recency;
                self.recency.remove(&recency);
            }
            _ => {}
        }
    }

    fn complete_flushes(&mut self, result: &Result<(), StorageError>) {
        if self.flushes.is_empty() {
            return;
        }
        let waiting = self.queues.oldest();
        for (before, flush) in std::mem::take(&mut self.flushes) {
            if waiting.is_none_or(|oldest| oldest >= before) {
                flush.complete(result.clone());
            } else {
                self.flushes.push((before, flush));
            }
        }
    }

    /// Entries beyond the node's bound leave, the least recently appended groups' first, each group's oldest first.
    fn evict(&mut self) {
        let cached = || self.progress.cached_bytes.load(Ordering::Relaxed);
        while cached() > self.cache_bytes_max {
            let Some((&recency, group)) = self.recency.first_key_value() else {
                return;
            };
            let mut state = group.state.lock();
            let on_disk = state.on_disk;
            while cached() > self.cache_bytes_max && state.cache.evict_one(on_disk).is_some() {}
            let emptied = cached() > self.cache_bytes_max;
            drop(state);
            if emptied {
                // Whatever is left here waits for the disk, and its write puts the group back.
                self.recency.remove(&recency);
            }
        }
    }

    /// The last commit marks, then nothing more: what is still in the inbox came after the end.
    fn finish(&mut self) {
        if self.progress.failure().is_none() {
            let mut gathering = Gathering::default();
            put_committed(&self.progress, &mut gathering);
            if !gathering.batch().writes.is_empty()
                && let Err(error) = self.write(gathering.batch())
            {
                self.progress.fail(&error);
            }
        }
        while let Ok(message) = self.inbox.try_recv() {
            drop(message);
        }
    }
}

/// A writer that panicked can never acknowledge anything: that is as fatal as a failed write.
struct PanicGuard(Arc<Progress>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&StorageError::Io {
                doing: "write".into(),
                reason: "the writer thread panicked".into(),
            });
        }
    }
}

/// What a group's queue is accounted under.
fn group_of(job: &Job) -> GroupId {
    job.group.id
}
