//! The contract of a group's log and of the node's store that holds all of them.
//!
//! Entries are opaque: the database could be replaced by another store (a recycled segment log, say) without any change above.
//! The memory and the RocksDB store pass the same conformance suite (`tests/conformance`).
//!
//! ```text
//!   last_purged          (on disk)             cached              last
//!        |  entry entry entry ... entry | entry entry ... entry entry |
//!        +------------------------------+---- written ---+- waiting --+
//! ```
//!
//! What every implementation guarantees:
//! - **Order.** Within one group vote, append, truncate, purge and checkpoints take effect on disk in the order of the calls, and
//!   their completions are called in that order. Raft implementations move their flush watermark past earlier appends when a vote
//!   is saved: any reordering would acknowledge entries that are not on disk. Between groups there is no order.
//! - **Visibility.** What a call changed is seen by every clone of the log when the call returns, before it is durable.
//! - **Durability.** A completion is called with `Ok` only after a sync that covers its operation and all earlier ones of the group.
//! - **Failure.** After a failed write or sync every waiting and every later completion gets the error, the state in memory changes
//!   no more, and the store's fatal hook has been called once. Nothing is retried.
//! - **No blocking.** Calls that take a [`Completion`] never wait for the disk, with one exception that they document. Callers bound
//!   what they submit; [`NodeStore::pending_bytes`] says how much waits.

pub(crate) mod contract;
mod records;

use nsquorum_topic::{GroupId, LogIndex};

pub use records::{Checkpoint, CheckpointSlot, Completion, EntryRow, LogId, LogState, SpaceState, Vote};

use crate::entry::Entry;
use crate::error::StorageError;

/// Largest state of a checkpoint: 1 GiB. State is bounded far below that (design-log 13); more is a bug of the caller.
pub const CHECKPOINT_STATE_BYTES_MAX: usize = 1 << 30;

/// Largest membership of a checkpoint: 1 MiB, thousands of nodes.
pub const MEMBERSHIP_BYTES_MAX: usize = 1 << 20;

/// The log, vote and checkpoints of one Raft group. A clone refers to the same group. See the module's guarantees.
pub trait GroupLog: Clone + Send + Sync + 'static {
    /// The group.
    fn group(&self) -> GroupId;

    /// Where the log begins and ends.
    fn state(&self) -> LogState;

    /// The vote as last saved; after a restart the durable one.
    fn vote(&self) -> Option<Vote>;

    /// The commit mark as last saved; after a restart a lower bound of it, never beyond the last entry.
    fn committed(&self) -> Option<LogId>;

    /// Saves the vote.
    fn save_vote(&self, vote: Vote, done: Completion);

    /// Notes how far the log is known to be committed. Memory only: the mark rides along with the writer's next batch and never
    /// causes a sync; losing it costs a restart nothing but a later apply.
    fn save_committed(&self, committed: LogId);

    /// Appends entries. An empty list is allowed: its completion comes in its place in the order.
    ///
    /// # Panics
    /// If an entry belongs to another group, does not follow the one before it, or lies at or below `last_purged`: a hole in a log
    /// can only come from a bug, and must not reach the disk. The first entry of an empty log may have any index above `last_purged`.
    fn append(&self, entries: Vec<Entry>, done: Completion);

    /// Removes all entries after `last_kept`; all of them for `None`. Removing nothing is allowed. Purged entries stay purged.
    ///
    /// If `last_kept` is not in memory its row is read from the disk: Raft truncates only after a conflict with another leader.
    fn truncate_after(&self, last_kept: Option<LogIndex>, done: Completion);

    /// Removes all entries up to and including `up_to`, which may lie beyond the last entry (a snapshot was installed). Moving back
    /// is allowed and changes nothing.
    fn purge(&self, up_to: LogId, done: Completion);

    /// The entries of `from..to` that exist, contiguous from the first, at least one if there is one, then as many as fit
    /// `bytes_max`; from memory. `None` if that would need the disk.
    fn read_cached(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Option<Vec<Entry>>;

    /// As [`GroupLog::read_cached`], but from the disk where necessary: call it on a thread that may wait.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] with group and index for an entry that is missing or whose checksum does not match: every entry is
    /// checked on every read.
    fn read(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, StorageError>;

    /// The rows of the entries of `from..to` that exist, all of them. May touch the disk, never a body.
    ///
    /// # Errors
    /// As [`GroupLog::read`].
    fn rows(&self, from: LogIndex, to: LogIndex) -> Result<Vec<EntryRow>, StorageError>;

    /// Stores a checkpoint in the given places at once, atomically, once. What they held before is gone at the same moment.
    ///
    /// # Panics
    /// If `slots` is empty, the state exceeds [`CHECKPOINT_STATE_BYTES_MAX`], or the membership [`MEMBERSHIP_BYTES_MAX`].
    fn put_checkpoint(&self, slots: &[CheckpointSlot], checkpoint: Checkpoint, done: Completion);

    /// Moves a checkpoint, atomically: `from` is empty afterwards. If `from` is empty (or the same as `to`) nothing changes.
    fn move_checkpoint(&self, from: CheckpointSlot, to: CheckpointSlot, done: Completion);

    /// Empties a place.
    fn clear_checkpoint(&self, slot: CheckpointSlot, done: Completion);

    /// The checkpoint in a place. May touch the disk.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if its checksum does not match.
    fn checkpoint(&self, slot: CheckpointSlot) -> Result<Option<Checkpoint>, StorageError>;
}

/// All groups of a node. A clone refers to the same store.
pub trait NodeStore: Clone + Send + Sync + 'static {
    /// The log of one group.
    type Log: GroupLog;

    /// The groups that exist, in order: opened here, or with something stored.
    ///
    /// # Errors
    /// If the store is closed.
    fn groups(&self) -> Result<Vec<GroupId>, StorageError>;

    /// The log of a group; an empty one if there is none. Opening twice gives the same log. May touch the disk.
    ///
    /// # Errors
    /// If the group's stored state cannot be read or is damaged, or the store is closed.
    fn open_group(&self, group: GroupId) -> Result<Self::Log, StorageError>;

    /// Deletes everything of a group. Logs of it that are still around are dead: later calls complete with
    /// [`StorageError::Deleted`]. The number may be opened again (an empty log), though no caller should.
    fn delete_group(&self, group: GroupId, done: Completion);

    /// How much space is left, as of the last look.
    fn space(&self) -> SpaceState;

    /// Bytes submitted and not yet durable. The submitting side pushes back on its own clients by this.
    fn pending_bytes(&self) -> u64;

    /// Completes after everything that was submitted before, of all groups, including commit marks.
    fn flush(&self, done: Completion);

    /// Makes everything submitted durable and closes. Later calls on any clone fail with [`StorageError::Closed`].
    ///
    /// # Errors
    /// If the last writes failed.
    fn close(self) -> Result<(), StorageError>;
}
