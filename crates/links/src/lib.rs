//! Peer links: what nodes of a cluster say to each other, as ordered frames with bounded memory.
//!
//! A frame is opaque bytes in a [`Lane`] (who receives it, and for which group) and a [`Class`]. What is guaranteed:
//!
//! - **Order.** Frames of one lane and class arrive in the order sent, once, or the link goes down. Nothing is promised between
//!   lanes or between classes.
//! - **Epochs.** Each connection to a peer has a higher [`LinkEpoch`]. The receiver hears [`Receiver::up`], the frames of that
//!   epoch, and [`Receiver::down`], in that order; a frame of an earlier epoch never follows. What was queued when a link goes down
//!   is dropped: a link never repeats anything, because only the layers above know what may be repeated.
//! - **Directions are separate.** A sends over the connection that A dialled; what B hears of it (`up`, `down`) is about that
//!   direction. [`Links::peers`] is about the own dialled direction, with the [`Evidence`] of how it ended: a refused redial after a
//!   close is what tells a killed process from a slow one, and only the dialler can see it.
//! - **Credit.** Each lane has a credit in bytes per class. It is used from `send` until the receiver drops its [`Received`], so a
//!   receiver that cannot keep up stops its own lane only, and the transport reads on for all others. Nothing else bounds
//!   what the receiver holds, so a receiver never has to stop reading a socket.
//! - **Control never waits behind bulk**: the classes share no queue, no credit and no flow control.
//!
//! Two implementations pass one suite (`tests/conformance`): [`MemoryMesh`] for tests of the layers above, where a test cuts, holds
//! and reorders, and [`GrpcLinks`] between processes.

mod error;
mod frame;
mod grpc;
mod identity;
mod lane;
mod limits;
mod links;
mod memory;
mod outbox;
mod peers;
mod receivers;

pub use error::{Evidence, Rejection, SendError};
pub use frame::{Frame, Received};
#[cfg(any(test, fuzzing))]
pub use grpc::hostile;
pub use grpc::{ClusterSecret, GrpcLinks, GrpcOptions, SecretTooShort};
pub use identity::{LinkEpoch, PeerIdentity};
pub use lane::{Class, Lane, Service};
pub use limits::{ClassLimits, Limits};
pub use links::{Links, Receiver, Sending};
pub use memory::{MemoryLinks, MemoryMesh, MeshOptions, MeshOrder};
pub use nsquorum_topic::ClusterId;
pub use peers::{PeerAddress, PeerState, Peers};
