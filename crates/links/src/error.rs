//! What may go wrong, and what that says about the peer.

use nsquorum_topic::NodeId;
use thiserror::Error;

/// Nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// No link to this peer. Worth a try once [`Links::peers`](crate::Links::peers) says it is up.
    #[error("no link to node {0}")]
    Down(NodeId),
    /// The lane's credit, or the room for this peer, is used up. Worth a try later; only
    /// [`Links::try_send`](crate::Links::try_send) says so.
    #[error("the lane to node {0} is full")]
    Full(NodeId),
    /// The frame is longer than any frame may be. Never worth a try.
    #[error("a frame of {bytes} bytes is longer than the limit of {limit}")]
    TooLarge {
        /// The frame.
        bytes: usize,
        /// The longest allowed.
        limit: usize,
    },
}

impl SendError {
    /// Whether the same frame may be taken at another time.
    pub const fn may_retry(&self) -> bool {
        match self {
            Self::Down(_) | Self::Full(_) => true,
            Self::TooLarge { .. } => false,
        }
    }
}

/// How a link ended, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// Nobody listens at the peer's address: together with a link that was up before, the process is gone.
    Refused,
    /// The connection broke, or a new one broke before the peer said who it is. A dying process looks like this for a moment.
    Reset,
    /// The peer, or this node, closed the connection in good order.
    Closed,
    /// Nothing was heard for the time that a live peer never lets pass: paused, overloaded, or cut off.
    TimedOut,
    /// The address could not be resolved or reached at all.
    Unreachable,
    /// The peer's bytes made no sense; a mistake in one of the two programs.
    Garbled,
    /// The peer does not want this link, or this node does not want the peer.
    Rejected(Rejection),
}

impl Evidence {
    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Garbled => "garbled",
            Self::Rejected(_) => "rejected",
        }
    }
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Reset => f.write_str("connection broken"),
            Self::Closed => f.write_str("closed"),
            Self::TimedOut => f.write_str("nothing heard in time"),
            Self::Unreachable => f.write_str("address not reachable"),
            Self::Garbled => f.write_str("unreadable bytes"),
            Self::Rejected(rejection) => rejection.fmt(f),
        }
    }
}

/// Why two nodes do not link. All but [`Rejection::Stale`] need a person, or a new incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Rejection {
    /// They do not speak the same version of this protocol.
    #[error("the peer speaks another version of the peer protocol")]
    Version,
    /// Their cluster secrets differ, or only one has one.
    #[error("the cluster secrets differ")]
    WrongSecret,
    /// There is no cluster secret, and the connection leaves this machine.
    #[error("without a cluster secret only nodes on this machine are linked: set a cluster secret on every node")]
    SecretRequired,
    /// They belong to different clusters.
    #[error("the peer belongs to another cluster")]
    OtherCluster,
    /// A later incarnation of the node was seen: its directory went back in time, or two processes have copies of it.
    #[error("a later start of the node was seen before: its directory is an old copy")]
    OldIncarnation,
    /// The address leads to this node itself.
    #[error("the address is this node's own")]
    Myself,
    /// The address leads to another node than the one that is expected there.
    #[error("another node answers at the address")]
    OtherNode,
    /// The node that answers is linked through another address already.
    #[error("the node is linked through another address already")]
    SecondAddress,
    /// The connection was overtaken by a newer one of the same node.
    #[error("overtaken by a newer connection")]
    Stale,
}
