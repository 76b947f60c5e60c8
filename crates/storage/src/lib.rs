//! Storage of one node: the entry format, the logs of all groups, and the one writer.
//!
//! Layers, from the bottom:
//! - [`entry`]: a Raft entry as bytes, the same in the database and on the wire.
//! - [`log`]: the contract ([`GroupLog`] of one group, [`NodeStore`] of a node).
//! - [`memory`]: the contract in memory, for tests and simulation.
//! - [`rocks`]: the contract on RocksDB, with the writer.
//! - [`directory`]: whose a data directory is and what lies in it.
//! - [`inspect`]: reading and repairing the directory of a stopped node.
//! - `janitor`: what happens beside the writer: slow deletion, watermarks, the mark of what is synced.

pub mod directory;
pub mod entry;
mod error;
pub mod inspect;
mod janitor;
pub mod log;
pub mod memory;
mod options;
pub mod rocks;

pub use directory::{
    ClusterId, DirectoryLock, Founding, IDENTITY_FILE, Identity, Member, Neighbours, NodeDirectory, new_cluster,
};
pub use entry::{ENTRY_HEADER_BYTES, Entry, EntryError, EntryHeader, EntryKind};
pub use error::{ErrorClass, StorageError};
pub use janitor::SyncedMark;
pub use log::{
    Checkpoint, CheckpointSlot, Completion, EntryRow, GroupLog, LogId, LogState, NodeStore, SpaceState, Vote,
};
pub use memory::{Durability, MemoryLog, MemoryStore};
pub use options::{FatalHook, StoreOptions};
pub use rocks::{RocksLog, RocksStore};
