//! The contract.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use nsquorum_topic::{ClusterId, NodeId};
use tokio::sync::watch;

use crate::{Class, Evidence, Frame, Lane, LinkEpoch, PeerAddress, PeerIdentity, Peers, Received, SendError, Service};

/// Waits until the frame is queued. Dropping it before gives the frame up, unless it is queued at that moment.
pub type Sending = BoxFuture<'static, Result<LinkEpoch, SendError>>;

/// This node's links to all its peers.
pub trait Links: Send + Sync + 'static {
    /// Who this node is.
    fn local(&self) -> PeerIdentity;

    /// Registers who receives the frames of a service. Must be called before the links start, at most once per service; frames of
    /// a service without a receiver are dropped and counted.
    ///
    /// # Panics
    /// When the service has a receiver already, or the links have started.
    fn register(&self, service: Service, receiver: Arc<dyn Receiver>);

    /// Queues a frame, or says why not. Never waits. Returns the connection that it is queued for: it is lost iff that connection ends
    /// before it arrives, and [`Links::peers`] shows when that happened.
    ///
    /// # Errors
    /// [`SendError`]: nothing was queued. `Full` also while earlier calls of [`Links::send`] wait for the same lane.
    fn try_send(&self, to: NodeId, lane: Lane, class: Class, frame: Frame) -> Result<LinkEpoch, SendError>;

    /// Queues a frame, waiting for credit and room. The place in the lane is that of this call, not that of the first poll, so calls that
    /// one caller makes one after the other keep their order even if it waits for none of them.
    ///
    /// # Errors
    /// [`SendError::Down`] also when the link goes down while this waits; [`SendError::TooLarge`].
    fn send(&self, to: NodeId, lane: Lane, class: Class, frame: Frame) -> Sending;

    /// The state of every peer whose node is known, and each change. Changes may be skipped over, but never the last; epochs show
    /// whether a link was down in between. Whoever hears [`SendError::Down`] from a send finds the peer down here, or up under another
    /// epoch.
    fn peers(&self) -> watch::Receiver<Arc<Peers>>;

    /// The peers from now on. Those that are gone from the list are left; those that stay keep their links.
    fn set_peers(&self, peers: Vec<PeerAddress>);

    /// This node, which had no cluster, belongs to this one from now on. Every link goes down and is made anew under the
    /// new identity.
    ///
    /// # Panics
    /// When the node belongs to another cluster: callers check that before, and going on would mix two clusters' data.
    fn adopt(&self, cluster: ClusterId);
}

/// Who receives the frames of one service. Calls for one peer come one at a time and in order; calls for different peers may come
/// at once. None may block: they are made by the task that reads the peer's connection. Calling [`Links::try_send`] is fine.
pub trait Receiver: Send + Sync + 'static {
    /// The peer's connection to this node is there; frames of this epoch follow.
    fn up(&self, peer: PeerIdentity, epoch: LinkEpoch);

    /// A frame.
    fn frame(&self, from: PeerIdentity, epoch: LinkEpoch, lane: Lane, frame: Received);

    /// The connection is gone; no frame of this epoch follows. It says nothing about the own direction, see [`Links::peers`].
    fn down(&self, node: NodeId, epoch: LinkEpoch, evidence: Evidence);
}
