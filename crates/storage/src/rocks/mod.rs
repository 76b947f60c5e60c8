//! The store on RocksDB.
//!
//! ```text
//!  GroupLog calls ──(group lock: change memory, send)──▶ inbox ──▶ writer thread ──▶ one batch, one sync ──▶ completions
//!        ▲                                                             │
//!        └──────────── reads: memory first, then the database ◀────────┘
//! ```
//!
//! A call changes the group's state in memory and queues the same change for the disk under one lock; so memory is always ahead of
//! the disk by exactly what is queued, in order. One thread writes. The alternative, every group writing for itself and the
//! database joining their syncs, costs four times the CPU and loses the order of completions between threads.
//!
//! The log needs no cleverness from the database: keys are dense, first and last index are known, reads are bounded on both sides.

mod cache;
mod database;
mod group;
mod handle;
pub(crate) mod layout;
mod reading;
mod store;

mod writer;

pub use handle::RocksLog;
pub(crate) use store::Probe;
pub use store::RocksStore;
