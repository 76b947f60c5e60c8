//! Disks that lose what was not synced, and real ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nsquorum_environment::Environment;
use nsquorum_storage::{Durability, MemoryStore, NodeStore, RocksStore, StoreOptions};

/// One node's disk, over all lives of the node.
pub(crate) trait Disk: Send + 'static {
    type Store: NodeStore;

    fn new() -> Self;

    /// The store of the next life.
    fn open(&mut self) -> Self::Store;

    /// The process is gone, and the power with it: what was not synced is lost.
    fn cut_power(&mut self);
}

/// A store in memory whose operations become durable one by one, on a thread of its own.
pub(crate) struct MemoryDisk {
    store: MemoryStore,
    /// Nothing becomes durable while this is set.
    pub(crate) stalled: Arc<AtomicBool>,
    spinning: Option<(Arc<AtomicBool>, std::thread::JoinHandle<()>)>,
}

impl MemoryDisk {
    fn stop(&mut self) {
        if let Some((stop, thread)) = self.spinning.take() {
            stop.store(true, Ordering::Relaxed);
            thread.join().unwrap();
        }
    }
}

impl Disk for MemoryDisk {
    type Store = MemoryStore;

    fn new() -> Self {
        Self {
            store: MemoryStore::new(Durability::Stepped),
            stalled: Arc::default(),
            spinning: None,
        }
    }

    fn open(&mut self) -> MemoryStore {
        self.stop();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (store, stop, stalled) = (self.store.clone(), Arc::clone(&stop), Arc::clone(&self.stalled));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if stalled.load(Ordering::Relaxed) || !store.step() {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
            }
        });
        self.spinning = Some((stop, thread));
        self.store.clone()
    }

    fn cut_power(&mut self) {
        self.stop();
        self.store = self.store.crash();
    }
}

impl Drop for MemoryDisk {
    fn drop(&mut self) {
        self.stop();
    }
}

/// RocksDB in a directory. Its power is never cut here: the storage tests do that.
pub(crate) struct RocksDisk {
    directory: tempfile::TempDir,
    store: Option<RocksStore>,
}

impl Disk for RocksDisk {
    type Store = RocksStore;

    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            store: None,
        }
    }

    fn open(&mut self) -> RocksStore {
        self.cut_power();
        let options = StoreOptions::new(self.directory.path(), Environment::system()).memory_budget(64 << 20);
        let store = RocksStore::open(options).unwrap();
        self.store = Some(store.clone());
        store
    }

    fn cut_power(&mut self) {
        if let Some(store) = self.store.take() {
            store.close().unwrap();
        }
    }
}
