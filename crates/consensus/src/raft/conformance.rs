//! openraft's own storage suite, with several groups in one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nsquorum_environment::Environment;
use nsquorum_storage::{Durability, Entry, MemoryStore, NodeStore, RocksStore, StoreOptions};
use nsquorum_topic::{GroupId, LogIndex};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::sync::watch;

use super::checkpoints::CheckpointBudget;
use super::log_store::RaftLog;
use super::machine::{Impossible, Machine};
use super::state_machine::GroupStateMachine;
use super::types::RaftTypes;

/// Counts what it applies.
#[derive(Default)]
struct Counting(u64);

impl Machine for Counting {
    fn apply(&mut self, _entry: &Entry) -> Result<(), Impossible> {
        self.0 += 1;
        Ok(())
    }

    fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    fn restore(&mut self, state: &[u8], _at: Option<LogIndex>) -> Result<(), Impossible> {
        let bytes = state.try_into().map_err(|_| Impossible("not eight bytes".into()))?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }

    fn needed_from(&self) -> LogIndex {
        LogIndex::new(0)
    }
}

/// Each store of the suite is one more group of the same node.
struct OneNode<S> {
    store: S,
    groups: AtomicU64,
}

impl<S: NodeStore> StoreBuilder<RaftTypes, RaftLog<S::Log>, GroupStateMachine<S::Log, Counting>> for OneNode<S> {
    #[allow(clippy::type_complexity, reason = "the suite's own signature")]
    async fn build(
        &self,
    ) -> Result<((), RaftLog<S::Log>, GroupStateMachine<S::Log, Counting>), StorageError<RaftTypes>> {
        let group = GroupId::new(self.groups.fetch_add(1, Ordering::Relaxed));
        let log = self.store.open_group(group).expect("a new group opens");
        let (reclaim, _) = watch::channel(None);
        let machine = GroupStateMachine::open(
            log.clone(),
            Counting::default(),
            &CheckpointBudget::new(1 << 20),
            reclaim,
        )
        .unwrap_or_else(|error| panic!("a new group has no checkpoint: {error}"));
        Ok(((), RaftLog::new(log), machine))
    }
}

fn run_suite<S: NodeStore>(store: S) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let nodes = Arc::new(OneNode {
        store,
        groups: AtomicU64::new(1),
    });
    runtime.block_on(async move {
        let nodes = Arc::into_inner(nodes).expect("only owner");
        Suite::test_all(nodes).await.expect("openraft's storage contract holds");
    });
}

#[test]
fn the_memory_store_keeps_openrafts_storage_contract() {
    run_suite(MemoryStore::new(Durability::Immediate));
}

#[test]
fn the_rocksdb_store_keeps_openrafts_storage_contract() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = StoreOptions::new(directory.path(), Environment::system()).memory_budget(64 << 20);
    let store = RocksStore::open(options).expect("a new directory opens");
    run_suite(store.clone());
    store.close().expect("closes");
}
