//! What a group's state machine must offer to be replicated and checkpointed.

use bytes::Bytes;
use nsquorum_storage::Entry;

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

    /// Replaces the state.
    fn restore(&mut self, state: &[u8]) -> Result<(), Impossible>;

    /// How far the present state reaches, in the machine's own numbers. A checkpoint remembers it.
    fn mark(&self) -> u64;

    /// The mark of an encoded state.
    fn mark_of(state: &[u8]) -> Result<u64, Impossible>;

    /// The lowest mark whose log is still needed: a checkpoint with a mark at or below it makes the log before it superfluous.
    fn needed_from(&self) -> u64;
}
