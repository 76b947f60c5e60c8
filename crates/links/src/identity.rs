//! Who speaks, and over which connection.

use std::fmt;

use nsquorum_topic::{ClusterId, NodeId, NodeIncarnation};

/// What a node presents to its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// The cluster that it belongs to; `None` before it has one. Nodes of two different clusters never link; a node without one
    /// links with any, because that is how it finds its cluster.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: NodeIncarnation,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} (start {})", self.node, self.incarnation)
    }
}

/// One connection, in one direction. Rises with every connection that a sender makes, to whichever peer; starts again with the
/// sender's incarnation, so compare epochs of one incarnation only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkEpoch(u64);

impl LinkEpoch {
    /// Wraps a number as an epoch.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LinkEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
