//! Storage of one node: the entry format, the logs of all groups, and the one writer.
//!
//! Layers, from the bottom:
//! - [`entry`]: a Raft entry as bytes, the same in the database and on the wire.
//! - [`log`]: the contract ([`GroupLog`] of one group, [`NodeStore`] of a node).
//! - [`memory`]: the contract in memory, for tests and simulation.

pub mod entry;
mod error;
pub mod log;
pub mod memory;

pub use entry::{ENTRY_HEADER_BYTES, Entry, EntryError, EntryHeader, EntryKind};
pub use error::{ErrorClass, StorageError};
pub use log::{
    Checkpoint, CheckpointSlot, Completion, EntryRow, GroupLog, LogId, LogState, NodeStore, SpaceState, Vote,
};
pub use memory::{Durability, MemoryLog, MemoryStore};
