//! The small values of a group's log.

use bytes::Bytes;
use nsquorum_topic::{LogIndex, NodeId, Term};

use crate::entry::{Entry, EntryKind};
use crate::error::StorageError;

/// Called exactly once: with `Ok` after the sync that made the operation durable, with the error if that can never happen.
///
/// It runs on the writer's thread (of the memory store: on a caller's thread) and so must be short, must not block, and must not
/// panic. It may call any method of the log, even of the same group.
pub type Completion = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// Term and index of an entry. Ordered by term, then index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term of the leader that appended it.
    pub term: Term,
    /// The position in the log.
    pub index: LogIndex,
}

/// Raft's vote: the highest term seen, for whom, and whether that node is known to have won.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The term.
    pub term: Term,
    /// The candidate or leader.
    pub node: NodeId,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// What start-up scans need of an entry: kept apart from the bodies, so that they never read one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// The position in the log.
    pub index: LogIndex,
    /// The term of the leader that appended it.
    pub term: Term,
    /// What the payload means.
    pub kind: EntryKind,
    /// Bytes of header and payload.
    pub encoded_bytes: u32,
}

impl EntryRow {
    /// The row of an entry.
    pub fn of(entry: &Entry) -> Self {
        let header = entry.header();
        Self {
            index: header.index,
            term: header.term,
            kind: header.kind,
            encoded_bytes: u32::try_from(entry.encoded_len())
                .expect("commands are bounded far below 4 GiB where they enter"),
        }
    }

    /// Term and index.
    pub const fn log_id(&self) -> LogId {
        LogId {
            term: self.term,
            index: self.index,
        }
    }
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// Everything up to here is gone.
    pub last_purged: Option<LogId>,
    /// The last entry; if there is none, `last_purged`.
    pub last: Option<LogId>,
}

/// The places for a group's checkpoints (design-log 23).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CheckpointSlot {
    /// The last one taken: where a restart begins.
    Newest = 0,
    /// The one at the purge point: what a Raft snapshot is made of.
    Purge = 1,
    /// The next purge point: stays until every floor has passed it.
    Candidate = 2,
}

impl CheckpointSlot {
    /// All places.
    pub const ALL: [Self; 3] = [Self::Newest, Self::Purge, Self::Candidate];
}

/// A group's applied state at a position of its log. Storage knows only the position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last entry applied.
    pub log_id: Option<LogId>,
    /// The membership in force there; opaque.
    pub membership: Bytes,
    /// The state machine's state; opaque. At most [`crate::log::CHECKPOINT_STATE_BYTES_MAX`].
    pub state: Bytes,
}

/// How much space the file system has left, against the watermarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SpaceState {
    /// Enough.
    Ok = 0,
    /// Below the first watermark: publishes are refused, deliveries go on.
    RefusePublishes = 1,
    /// Below the second: everything that writes is refused.
    RefuseAll = 2,
}
