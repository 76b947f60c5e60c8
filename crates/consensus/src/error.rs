//! What can go wrong, and whether trying again may help.

use nsquorum_storage::StorageError;

/// Why a group or the metadata could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The store failed; the process is about to stop.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A group's log or checkpoint holds what a correct leader cannot have written.
    #[error("group {group} is quarantined: {what}")]
    Quarantined {
        /// The group's number.
        group: u64,
        /// What was found.
        what: String,
    },
    /// The group has stopped, or the node is stopping.
    #[error("the group has stopped")]
    Stopped,
    /// Nobody leads, or no majority answers; a retry may help.
    #[error("no leader with a majority")]
    NoLeader,
}

impl ConsensusError {
    /// Whether the same call may succeed later without an operator.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NoLeader)
    }
}

/// Why a proposal was not appended. Nothing of it is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The leader has not heard from a majority lately; the same term may accept again.
    LeaseExpired,
    /// This node does not lead in that term any more.
    NotLeader,
    /// The group has stopped.
    Stopped,
}
