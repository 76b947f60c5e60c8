//! What a stopped stock nsqd left in its data path: its topics and channels (`nsqd.dat`), and the messages in their disk queues.
//!
//! Nothing is written, and everything is checked: a data path in use is refused, and whatever cannot be read, or would not be read by nsqd
//! either, is named as a [`Finding`]. Where nsqd would give messages up (it starts anew without a queue's metadata, and sets a file aside when
//! a record in it is damaged), as much as can be is read all the same: a message too many is better than one too few.
//!
//! The format is go-diskqueue's 1.1.0, as nsqd 1.3.0 uses it:
//! - `<queue>.diskqueue.meta.dat`: the lines `depth`, `file,offset` to read from and `file,offset` to write at. A queue is called `<topic>` or
//!   `<topic>:<channel>`. It is written every two seconds, every 2,500 messages and at the end, so after a crash it is behind.
//! - `<queue>.diskqueue.%06d.dat`: records of a big-endian `i32` length and as many bytes: `i64` time of publishing in ns, `u16` attempts, 16 hex
//!   digits of the id, the body. No checksum.
//! - `….dat.bad`: a file that nsqd has set aside after a read error.

mod data_path;
mod finding;
mod metadata;
mod queue;

pub use data_path::{ChannelEntry, DataPath, DataPathError, QueueName, TopicEntry};
pub use finding::Finding;
pub use queue::{Position, Queue, QueueReader, Record};

/// The bytes of a record before its body.
pub const RECORD_HEADER_BYTES: usize = 26;
