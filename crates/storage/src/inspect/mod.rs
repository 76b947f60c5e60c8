//! Reading a stopped node's directory without starting the node: [`verify`] and [`repair`].
//!
//! A check in two layers, from bytes to messages.
//!
//! *Files.* Every file of the database is read by own code: write-ahead logs and the manifest record by record, tables block by block,
//! blob files record by record, each with its checksums. RocksDB reads what it needs, stops at the first damage, and takes
//! some damage for the end of a log; a check must visit everything, name file and offset, and tell a torn tail (what a crash
//! leaves, never acknowledged) from damage (what was acknowledged).
//!
//! *Groups.* Then the database is opened read-only and every log is walked: rows and entries, checksums of entries and of message
//! bodies, the acceptance rule from a checkpoint to the end, index points, checkpoints against the replayed state. What the
//! state comes to (digest, floors, finished sets) is part of the report, so that two directories, or one before and after an
//! accident, can be compared.
//!
//! Checking inside the running node instead would be simpler and would find less: it would see the memory's truth, not the disk's.

mod blob;
mod checksum;
mod coding;
mod database;
mod directory;
mod files;
mod fragments;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod json;
mod log_records;
mod manifest;
mod metadata;
mod recovery;
mod repair;
mod replay;
mod report;
mod report_json;
mod table;
mod topic;
mod verify;

#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod replay_tests;

pub use metadata::{MetadataReplay, NamedTopic};
pub use recovery::check_before_recovery;
pub use repair::{Repair, RepairError, repair};
pub use report::{
    ChannelReport, FileCounts, Finding, GroupReport, MessageLine, NodeReport, Outcome, Place, Report, TopicReport,
};
pub use verify::{VerifyOptions, verify};
