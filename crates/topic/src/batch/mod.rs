//! The payloads that the topic's log carries: batches and leader starts.
//!
//! All numbers are little-endian and unaligned. The entry header of the storage format stands in front of these bytes
//! and protects them with a CRC; it is not part of what is described here.
//!
//! # Batch (entry kind `TopicBatch`), format version 1
//!
//! ```text
//! header, 56 bytes
//!    0  u16  version = 1
//!    2  u16  feature level the batch was made for
//!    4  u32  flags: bit 0 = the batch closes the topic (its last event is DeleteTopic); other bits 0
//!    8  u64  term the batch was made for
//!   16  u64  first_seq: number of its first message; what next_seq must be for the batch to count
//!   24  u64  time: log clock, nanoseconds since 1970
//!   32  u32  count: messages
//!   36  u32  events
//!   40  u32  bytes of the event section
//!   44  u32  bytes of the extension section
//!   48  u32  bytes of the bodies
//!   52  u32  0
//! event section: the events, one after the other
//! message table: count rows of 28 bytes
//!    0  u32  end of the body, as an offset into the bodies (it begins where the one before ends)
//!    4  u32  CRC32C of the body, made where the body entered the cluster
//!    8  u32  flags = 0
//!   12  u32  deferral in milliseconds, 0 = none
//!   16  i64  time of publication minus the time of the batch, nanoseconds, saturating
//!   24  u32  extension: 0 = none, else 1 + offset of a block in the extension section; messages may share a block
//! extension section: blocks
//!    0  u32  bytes of the fields that follow
//!    4  ...  fields
//! bodies, contiguous
//! ```
//!
//! The sections follow each other without gaps, and the payload ends with the last body.
//!
//! An event:
//!
//! ```text
//!    0  u8   kind
//!    1  u8   0
//!    2  u16  bytes of its extension fields
//!    4  u32  bytes of its content
//!    8  ...  content, then extension fields
//! kind                content
//!   1 CreateChannel   the name
//!   2 DeleteChannel   u64 channel incarnation
//!   3 EmptyChannel    u64 channel incarnation
//!   4 PauseChannel    u64 channel incarnation
//!   5 UnpauseChannel  u64 channel incarnation
//!   6 PauseTopic      -
//!   7 UnpauseTopic    -
//!   8 EmptyTopic      -
//!   9 DeleteTopic     -  (the last event of a batch without messages)
//!  10 Finish          u64 channel incarnation, then ranges of u64 first, u64 last (inclusive), at least one
//!  11 Requeue         u64 channel incarnation, u64 number, u16 attempts made, u8 cause (0 REQ, 1 timeout, 2 disconnect),
//!                     u8 1 if "not before" is set, u64 not before (log clock, 0 if not set)
//!  12 EndSession      u64 node, u64 incarnation: the sessions of this start of the node and of all earlier ones end
//! ```
//!
//! Extension fields (of messages, events and leader starts): `u16 tag, u32 length, value`, one after the other. Unknown
//! tags are skipped, so that a field can be added without a new version; whatever changes the meaning of apply needs a
//! higher feature level instead.
//!
//! ```text
//! tag                 value
//!   1 Origin          (messages) u64 node, u64 incarnation, u64 number, u64 base of the publish session
//! ```
//!
//! # Leader start (entry kind `LeaderStart`), format version 1
//!
//! ```text
//!    0  u16  version = 1
//!    2  u16  0
//!    4  u32  bytes of extension fields
//!    8  u64  node
//!   16  u64  node incarnation
//!   24  u64  term
//!   32  u64  clock: log clock at which the leader starts, nanoseconds since 1970
//!   40  ...  extension fields
//! ```
//!
//! Rows hold the end of a body and not its length, so that message *i* is found without adding up the *i* before it.
//! Bodies stand together at the end, so that a reader of the table touches few pages. Nothing is compressed: bodies are
//! handed to sockets as slices of the stored bytes.

mod builder;
mod event;
mod extension;
mod header;
mod leader_start;
mod view;

pub use builder::{BatchBuilder, NewMessage};
pub(crate) use event::read_name;
pub use event::{Event, RequeueCause};
pub use extension::Origin;
pub use header::BatchHeader;
pub use leader_start::LeaderStart;
pub use view::{BatchView, Events, MessageView, Messages};

/// Bytes of the batch header.
pub const BATCH_HEADER_BYTES: usize = 56;
/// Bytes of a row of the message table.
pub const MESSAGE_ROW_BYTES: usize = 28;
/// Bytes in front of the content of an event.
pub const EVENT_HEADER_BYTES: usize = 8;
