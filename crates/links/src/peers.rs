//! Where peers are, and how they are.

use std::collections::BTreeMap;

use nsquorum_topic::NodeId;

use crate::{Evidence, LinkEpoch, PeerIdentity};

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// `host:port` of its peer listener. The own address may be among a node's peers: it is recognised and left alone.
    pub address: String,
    /// The node that must answer there. `None`: whoever does is the peer (seeds, before metadata is known).
    pub node: Option<NodeId>,
}

impl PeerAddress {
    /// An address at which any node may answer.
    pub fn seed(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            node: None,
        }
    }

    /// The address of a known node.
    pub fn of(node: NodeId, address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            node: Some(node),
        }
    }
}

/// The own direction of a link: whether frames can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Configured, not reached yet.
    Connecting,
    /// Frames can be sent.
    Up {
        /// Who answered. A higher incarnation than before: the process that was there is gone.
        identity: PeerIdentity,
        /// This connection. Whatever was sent under an earlier epoch and is not known to have arrived is lost.
        epoch: LinkEpoch,
    },
    /// The link ended, or could not be made. It is being tried again, unless the evidence needs a person.
    Down {
        /// What the last attempt showed. After a link was up it goes from how the connection ended to what redialling shows,
        /// so `Refused` here means: it was up or might have been, and now nobody listens.
        evidence: Evidence,
        /// Who was there last.
        last: Option<PeerIdentity>,
    },
}

impl PeerState {
    /// The connection, if frames can be sent.
    pub const fn epoch(&self) -> Option<LinkEpoch> {
        match self {
            Self::Up { epoch, .. } => Some(*epoch),
            Self::Connecting | Self::Down { .. } => None,
        }
    }
}

/// Every peer whose node id is known. An address at which nobody answered yet is not here: nothing can be sent to it.
pub type Peers = BTreeMap<NodeId, PeerState>;
