//! How a node's store is opened.

use std::path::PathBuf;
use std::sync::Arc;

use nsquorum_environment::Environment;

use crate::directory::{Founding, Neighbours};
use crate::error::StorageError;

const MIB: u64 = 1 << 20;

/// Called once when a write or a sync has failed: the process is expected to exit with the code of the error's class. It runs on
/// the writer's (or the janitor's) thread, before the waiting completions get the error.
pub type FatalHook = Arc<dyn Fn(&StorageError) + Send + Sync>;

/// What [`crate::RocksStore::open`] needs to know. Start from [`StoreOptions::new`].
#[derive(Clone)]
pub struct StoreOptions {
    /// The data directory. Missing or empty: it is made. Otherwise it must be one of nsquorum's and not in use.
    pub directory: PathBuf,
    /// What else may be in a new directory. Default nothing.
    pub neighbours: Neighbours,
    /// How a new directory gets its cluster; an existing one keeps its own. Default alone.
    pub founding: Founding,
    /// Size of one memtable for entries, in bytes; two exist at a time. Large ones save writes: what is consumed and purged while
    /// it is still in the memtable is written once, to the log. Default 64 MiB.
    pub memtable_bytes: u64,
    /// Bytes of already written entries of all groups that stay in memory, the least recently appended groups giving way first.
    /// Default 32 MiB.
    pub cache_bytes: u64,
    /// Bytes of the database's cache of blocks (keys and references; bodies are not in it). Default 16 MiB.
    pub block_cache_bytes: u64,
    /// Publishes are refused while less is free, in bytes. Default max(1 GiB, twice the memtables).
    pub refuse_publishes_below_bytes: u64,
    /// Everything that writes is refused while less is free, in bytes. Default 256 MiB.
    pub refuse_all_below_bytes: u64,
    /// Size of the file that is given up at a start without space, in bytes; 0 for none. Default 16 MiB.
    pub ballast_bytes: u64,
    /// What happens on a failed write.
    pub on_fatal: FatalHook,
    /// Clock and randomness.
    pub environment: Environment,
}

impl StoreOptions {
    /// The defaults for a directory. A failed write is only logged and returned; the binary sets its own hook.
    pub fn new(directory: impl Into<PathBuf>, environment: Environment) -> Self {
        Self {
            directory: directory.into(),
            neighbours: Neighbours::Refused,
            founding: Founding::Alone,
            memtable_bytes: 64 * MIB,
            cache_bytes: 32 * MIB,
            block_cache_bytes: 16 * MIB,
            refuse_publishes_below_bytes: 1024 * MIB,
            refuse_all_below_bytes: 256 * MIB,
            ballast_bytes: 16 * MIB,
            on_fatal: Arc::new(|_| {}),
            environment,
        }
    }

    /// Scales memtables, caches and watermarks to the memory that storage may use, in bytes: half for the two memtables (between
    /// 4 MiB and 256 MiB each), an eighth each for written entries and blocks.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.memtable_bytes = (bytes / 4).clamp(4 * MIB, 256 * MIB);
        self.cache_bytes = (bytes / 8).clamp(MIB, 256 * MIB);
        self.block_cache_bytes = (bytes / 8).clamp(MIB, 64 * MIB);
        self.refuse_publishes_below_bytes = (1024 * MIB).max(4 * self.memtable_bytes);
        self
    }
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("directory", &self.directory)
            .field("founding", &self.founding)
            .field("memtable_bytes", &self.memtable_bytes)
            .field("cache_bytes", &self.cache_bytes)
            .field("block_cache_bytes", &self.block_cache_bytes)
            .field("refuse_publishes_below_bytes", &self.refuse_publishes_below_bytes)
            .field("refuse_all_below_bytes", &self.refuse_all_below_bytes)
            .field("ballast_bytes", &self.ballast_bytes)
            .finish_non_exhaustive()
    }
}
