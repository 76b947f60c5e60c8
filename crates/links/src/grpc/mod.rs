//! Links between processes: gRPC over TCP.
//!
//! Each node dials each other node, twice: one connection per class, so that bulk bytes in a socket's buffer never stand before a
//! heartbeat. A connection carries one bidirectional stream: handshake, then frames in chunks one way ([`pipe`]) and credit
//! the other way ([`credits`]). Both connections together are the link; when either ends, both do.
//!
//! - [`dialler`] keeps the link to one address: dials ([`dial`]), lives through the link, tells how it ended, waits, dials again.
//! - [`answer`] is the other end; [`incoming`] joins its two streams and calls the receivers in order.
//! - [`secret`] proves who may link; [`socket`] makes connections that can be ended at once.
//!
//! HTTP/2's flow control is not used: its windows are larger than what credit lets pass at once under normal settings, and the
//! receiver never stops reading. Its pings are not used either: both ends speak regularly anyway, in the stream itself, so that
//! what is watched is what is needed.

mod answer;
mod assembler;
mod core;
mod credits;
mod dial;
mod dialler;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod incoming;
mod keep_alive;
mod links;
mod options;
mod pipe;
mod secret;
mod socket;
mod wire;

use std::time::Duration;

#[cfg(test)]
pub(crate) use assembler::Assembler;
pub use links::GrpcLinks;
pub use options::GrpcOptions;
pub use secret::{ClusterSecret, SecretTooShort};

/// HTTP/2's windows.
const HTTP_WINDOW_BYTES: u32 = 64 << 20;
/// HTTP/2's frames: fewer headers and wake-ups for bulk.
const HTTP_FRAME_BYTES: u32 = 1 << 20;
/// A message holds about 1 MiB of chunks and at most one chunk more.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How long a connection that ended in good order may take to say so.
const GOODBYE: Duration = Duration::from_millis(200);
