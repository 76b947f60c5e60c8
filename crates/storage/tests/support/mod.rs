//! What the tests of every implementation share.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod model;

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nsquorum_environment::Environment;
use nsquorum_storage::{
    Completion, Entry, EntryKind, GroupLog, LogId, MemoryLog, MemoryStore, NodeStore, RocksLog, RocksStore,
    StorageError, StoreOptions,
};
use nsquorum_topic::{GroupId, LogIndex, Term};
use tempfile::TempDir;

/// Far longer than anything takes: a test that reaches it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A store that can be closed and opened again with what was durable.
pub(crate) trait Subject {
    type Store: NodeStore<Log = Self::Log>;
    type Log: GroupLog;

    fn new() -> Self;
    fn store(&self) -> &Self::Store;
    /// Closes and opens again.
    fn reopen(&mut self);
}

pub(crate) struct Memory(MemoryStore);

impl Subject for Memory {
    type Store = MemoryStore;
    type Log = MemoryLog;

    fn new() -> Self {
        Self(MemoryStore::default())
    }

    fn store(&self) -> &MemoryStore {
        &self.0
    }

    fn reopen(&mut self) {
        self.0 = self.0.crash();
    }
}

/// With caches so small that most reads go to the disk.
pub(crate) struct Rocks {
    store: Option<RocksStore>,
    pub(crate) directory: TempDir,
}

pub(crate) fn options(directory: &Path) -> StoreOptions {
    StoreOptions {
        memtable_bytes: 1 << 20,
        cache_bytes: 2 << 10,
        refuse_publishes_below_bytes: 0,
        refuse_all_below_bytes: 0,
        ballast_bytes: 0,
        ..StoreOptions::new(directory, Environment::system())
    }
}

impl Subject for Rocks {
    type Store = RocksStore;
    type Log = RocksLog;

    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = RocksStore::open(options(directory.path())).unwrap();
        Self {
            store: Some(store),
            directory,
        }
    }

    fn store(&self) -> &RocksStore {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.store.take().unwrap().close().unwrap();
        self.store = Some(RocksStore::open(options(self.directory.path())).unwrap());
    }
}

/// A completion and what it was called with.
pub(crate) fn completion() -> (Completion, Receiver<Result<(), StorageError>>) {
    let (sender, receiver) = channel();
    (Box::new(move |result| drop(sender.send(result))), receiver)
}

/// Calls, and waits for the completion.
pub(crate) fn wait(call: impl FnOnce(Completion)) -> Result<(), StorageError> {
    let (done, result) = completion();
    call(done);
    result.recv_timeout(DEADLINE).expect("a completion must be called")
}

pub(crate) fn done(call: impl FnOnce(Completion)) {
    wait(call).unwrap();
}

pub(crate) fn ignore() -> Completion {
    Box::new(|_| {})
}

pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId {
        term: Term::new(term),
        index: LogIndex::new(index),
    }
}

pub(crate) fn at(index: u64) -> LogIndex {
    LogIndex::new(index)
}

pub(crate) fn entry(group: u64, term: u64, index: u64, payload: &[u8]) -> Entry {
    Entry::copy_of(
        payload,
        EntryKind::TopicBatch,
        GroupId::new(group),
        Term::new(term),
        LogIndex::new(index),
    )
}

/// Entries of the given indexes, each with its own payload.
pub(crate) fn entries(group: u64, term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    indexes
        .map(|index| entry(group, term, index, format!("{group}/{term}/{index}").as_bytes()))
        .collect()
}

pub(crate) fn open<S: NodeStore>(store: &S, group: u64) -> S::Log {
    store.open_group(GroupId::new(group)).unwrap()
}

/// Everything in the log, as (term, index).
pub(crate) fn ids<L: GroupLog>(log: &L) -> Vec<(u64, u64)> {
    let found = log.read(at(0), at(u64::MAX), usize::MAX).unwrap();
    let rows = log.rows(at(0), at(u64::MAX)).unwrap();
    assert_eq!(
        found
            .iter()
            .map(|entry| (entry.log_id(), entry.encoded_len()))
            .collect::<Vec<_>>(),
        rows.iter()
            .map(|row| (row.log_id(), row.encoded_bytes as usize))
            .collect::<Vec<_>>(),
        "rows and entries differ"
    );
    found
        .iter()
        .map(|entry| (entry.log_id().term.get(), entry.log_id().index.get()))
        .collect()
}
