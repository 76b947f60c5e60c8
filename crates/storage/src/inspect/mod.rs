//! Reading a stopped node's directory without starting the node: `verify` and `repair`.
mod blob;
mod checksum;
mod coding;
mod directory;
mod files;
mod json;
mod log_records;
mod manifest;
mod metadata;
mod repair;
mod replay;
mod report;
mod table;
mod topic;
#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod replay_tests;

pub use metadata::{MetadataReplay, NamedTopic};
pub use repair::{Repair, RepairError, repair};
pub use report::{
    ChannelReport, FileCounts, Finding, GroupReport, MessageLine, NodeReport, Outcome, Place, Report, TopicReport,
};

/// The folder of the database within the data directory.
const DATABASE: &str = "db";
