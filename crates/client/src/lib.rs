//! A small async NSQ client.
//!
//! It speaks TCP V2 to one node, nsquorum or stock nsqd, and is what the command line, the benchmark and the tests
//! use. What it guarantees:
//!
//! - **Answers find their command.** NSQ answers PUB, MPUB, DPUB, SUB strictly in command order and without naming
//!   them, so the commands that await an answer stand in one FIFO, filled in the same critical section that writes
//!   the command's bytes. An answer that nobody awaits ends the connection instead of being credited to a neighbour.
//! - **Nothing fails silently.** When a connection ends, every command that awaited an answer gets a [`ClientError`]
//!   that says whether the server may have carried it out ([`ClientError::outcome`]).
//! - **Everything is bounded**: commands and bytes in flight, the inbox of a consumer, the size of a frame.
//! - **A slow caller does not lose the connection**: one task per connection reads, writes and answers heartbeats,
//!   whatever the callers do.
//!
//! One task per connection rather than one per direction or per command: callers put bytes into a common buffer and
//! wake the task at most once, the task sends all that gathered with one write. That is what makes 100,000 pipelined
//! publishes a second cheap, and a lone publish costs one wake-up.
//!
//! There is no reconnecting and no discovery here. What to do after a lost connection (retry and risk a duplicate, or
//! report an unknown outcome) is a decision of the caller, and a benchmark or a fault test must see every loss.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use nsquorum_client::{Connection, Event, IdentifyOptions};
//! let topic = "orders".parse()?;
//! let producer = Connection::connect("127.0.0.1:4150", IdentifyOptions::default()).await?.into_producer();
//! producer.publish(&topic, b"one").await?;
//! let mut consumer = Connection::connect("127.0.0.1:4150", IdentifyOptions::default())
//!     .await?
//!     .subscribe(&topic, &"ledger".parse()?, 100)
//!     .await?;
//! if let Some(Event::Message(message)) = consumer.next().await? {
//!     consumer.fin(message.id)?;
//! }
//! consumer.close().await?;
//! # Ok(())
//! # }
//! ```

mod connection;
mod consumer;
mod driver;
mod error;
mod identify;
mod producer;
mod shared;

pub use connection::Connection;
pub use consumer::{Consumer, Event, Message};
pub use error::{ClientError, Outcome, ServerError};
pub use identify::{Heartbeat, IdentifyOptions, ServerSettings};
pub use producer::{Producer, PublishAck};
