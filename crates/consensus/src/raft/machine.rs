//! What a group's state machine must offer to be replicated and checkpointed.

use bytes::Bytes;
use nsquorum_storage::Entry;
use nsquorum_topic::LogIndex;

/// An entry that a correct leader cannot have written, or state that cannot be read: the group is quarantined on this node.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Impossible(pub(crate) String);

/// A deterministic state machine over the entries of one group. Applying writes nothing; checkpoints are taken from outside.
pub(crate) trait Machine: Send + Sync + 'static {
    /// Folds an entry into the state. Called for every entry in order, blank and membership entries included.
    fn apply(&mut self, entry: &Entry) -> Result<(), Impossible>;

    /// The whole state; bounded by the limits that leaders enforce.
    fn encode(&self) -> Bytes;

    /// Replaces the state by that of the given position; `None`: of an empty log.
    fn restore(&mut self, state: &[u8], at: Option<LogIndex>) -> Result<(), Impossible>;

    /// The lowest position of the log that is still needed: to deliver from, or to walk to what is delivered. A checkpoint below it
    /// makes the log before it superfluous.
    fn needed_from(&self) -> LogIndex;
}
