//! The topic state machine: batches of the replicated log in, channel cursors out.
//!
//! Everything here is a pure function of the entries of one topic's Raft group. There is no clock, no randomness and
//! no IO, so every replica that applied the same entries holds the same state, byte for byte ([`TopicState::digest`]),
//! and a random history can be checked against a naive model at full speed.
//!
//! - [`batch`]: the format of a batch entry and of [`LeaderStart`]. The same bytes are the stored value and the wire payload.
//! - [`Cursor`]: the one rule that says whether a batch counts. Apply and every reader of the log use it; a reader that
//!   went by numbers alone would hand out bodies that nobody was ever answered `OK` for.
//! - [`TopicState`]: what the batches add up to: channels with floors and finished sets, requeued and deferred messages,
//!   pause, sparse points into the log.

mod acceptance;
pub mod batch;
mod channel;
mod cluster_id;
mod deferral;
mod digest;
mod format;
mod index_points;
mod numbers;
mod range;
mod seq_set;
mod session;
mod state;

pub use acceptance::{Acceptance, Cursor, VoidReason};
pub use batch::{
    BatchBuilder, BatchHeader, BatchView, Event, LeaderStart, MessageView, NewMessage, Origin, RequeueCause,
};
pub use channel::{Channel, Exception};
pub use cluster_id::ClusterId;
pub use digest::Digest;
pub use format::FormatError;
pub use index_points::{INDEX_POINT_BYTES, IndexPoint};
pub use numbers::{
    Attempts, ChannelIncarnation, FeatureLevel, GroupId, LogIndex, LogTime, NodeId, NodeIncarnation, Seq, Term,
};
pub use range::SeqRange;
pub use session::{SESSION_WINDOW, SESSIONS_MAX, SessionId, SessionVerdict};
pub use state::{Accepted, Applied, Effect, EntryPosition, Impossible, TopicState, Usage};
