//! A delivery, the token that names it, and what can become of it.

use bytes::Bytes;
use nsquorum_topic::{Attempts, ChannelIncarnation, LogTime, Seq, Term};

/// Names one delivery of one message for ever (design-log 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryToken {
    /// The life of the channel.
    pub channel: ChannelIncarnation,
    /// The message.
    pub seq: Seq,
    /// Deliveries of it so far, this one included.
    pub attempts: Attempts,
    /// The leader that delivered it.
    pub term: Term,
    /// Counts that leader's deliveries.
    pub delivery: u64,
}

/// A message on its way to a consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Names this delivery.
    pub token: DeliveryToken,
    /// When the message was published.
    pub published_at: LogTime,
    /// The body.
    pub body: Bytes,
    /// CRC32C of the body, made where it entered the cluster; to be checked before it leaves.
    pub crc32c: u32,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// FIN.
    Finished,
    /// REQ with a delay in milliseconds (0: at once, at the tail).
    Requeued {
        /// Milliseconds until it may be delivered again.
        delay_ms: u32,
    },
    /// The consumer took too long.
    TimedOut,
    /// The consumer was lost and the message's time is over.
    Disconnected,
    /// Never written to a socket: costs no attempt and keeps its place.
    Returned,
}

/// A decision about one delivery, on its way to the topic leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseEvent {
    /// Which delivery.
    pub token: DeliveryToken,
    /// What became of it.
    pub outcome: LeaseOutcome,
}
