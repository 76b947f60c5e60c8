//! One node's links in a mesh.

use std::sync::{Arc, Weak};

use nsquorum_topic::{ClusterId, NodeId};
use tokio::sync::watch;

use super::Shared;
use super::mesh::Life;
use crate::frame::Returned;
use crate::limits::charge;
use crate::outbox::Refusal;
use crate::{
    Class, Frame, Lane, LinkEpoch, Links, PeerAddress, PeerIdentity, Peers, Receiver, SendError, Sending, Service,
};

/// One node's links in a [`MemoryMesh`](super::MemoryMesh). Every node of the mesh is its peer; [`Links::set_peers`] changes nothing.
pub struct MemoryLinks {
    shared: Arc<Shared>,
    node: NodeId,
    /// Which of the processes that were this node: an earlier one does nothing any more.
    life: Life,
    peers: watch::Receiver<Arc<Peers>>,
}

impl MemoryLinks {
    pub(super) const fn new(shared: Arc<Shared>, node: NodeId, life: Life, peers: watch::Receiver<Arc<Peers>>) -> Self {
        Self {
            shared,
            node,
            life,
            peers,
        }
    }

    /// Makes the links to all nodes that have started.
    pub fn start(&self) {
        self.shared.change(|mesh| mesh.start(self.node, self.life));
    }

    /// Closes all links in good order; the peers see `Closed`, then `Refused`.
    pub fn stop(&self) {
        self.shared.change(|mesh| {
            if mesh.lives(self.node, self.life) {
                mesh.kill(self.node);
            }
        });
    }

    fn too_large(&self, frame: &Frame) -> Result<(), SendError> {
        let limit = self.shared.limits.frame_bytes_max;
        if frame.len() > limit {
            return Err(SendError::TooLarge {
                bytes: frame.len(),
                limit,
            });
        }
        Ok(())
    }
}

const fn refused(to: NodeId, refusal: Refusal) -> SendError {
    match refusal {
        Refusal::Down => SendError::Down(to),
        Refusal::Full => SendError::Full(to),
    }
}

impl Links for MemoryLinks {
    fn local(&self) -> PeerIdentity {
        self.shared.mesh.lock().identity(self.node, self.life)
    }

    fn register(&self, service: Service, receiver: Arc<dyn Receiver>) {
        self.shared
            .mesh
            .lock()
            .register(self.node, self.life, service, receiver);
    }

    fn try_send(&self, to: NodeId, lane: Lane, class: Class, frame: Frame) -> Result<LinkEpoch, SendError> {
        self.too_large(&frame)?;
        self.shared.change(|mesh| {
            mesh.outbox(self.node, self.life, to, class)
                .map_or(Err(Refusal::Down), |outbox| outbox.push(lane, frame))
                .map_err(|refusal| refused(to, refusal))
        })
    }

    fn send(&self, to: NodeId, lane: Lane, class: Class, frame: Frame) -> Sending {
        if let Err(error) = self.too_large(&frame) {
            return Box::pin(async move { Err(error) });
        }
        let pushed = self.shared.change(|mesh| {
            mesh.outbox(self.node, self.life, to, class)
                .map_or(Err(None), |outbox| outbox.push_or_wait(lane, frame))
        });
        Box::pin(async move {
            match pushed {
                Ok(epoch) => Ok(epoch),
                Err(None) => Err(SendError::Down(to)),
                // A dropped answer means that the mesh is gone.
                Err(Some(told)) => match told.await {
                    Ok(told) => told.map_err(|refusal| refused(to, refusal)),
                    Err(_) => Err(SendError::Down(to)),
                },
            }
        })
    }

    fn peers(&self) -> watch::Receiver<Arc<Peers>> {
        self.peers.clone()
    }

    fn set_peers(&self, _peers: Vec<PeerAddress>) {}

    fn adopt(&self, cluster: ClusterId) {
        self.shared.change(|mesh| mesh.adopt(self.node, self.life, cluster));
    }
}

impl std::fmt::Debug for MemoryLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryLinks")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// The credit of one frame that was delivered.
pub(super) struct Credit {
    shared: Weak<Shared>,
    from: NodeId,
    to: NodeId,
    lane: Lane,
    class: Class,
    epoch: LinkEpoch,
    frame_bytes: usize,
}

impl Credit {
    pub(super) const fn new(
        shared: Weak<Shared>,
        from: NodeId,
        to: NodeId,
        lane: Lane,
        class: Class,
        epoch: LinkEpoch,
        frame_bytes: usize,
    ) -> Self {
        Self {
            shared,
            from,
            to,
            lane,
            class,
            epoch,
            frame_bytes,
        }
    }
}

impl Returned for Credit {
    fn give_back(self: Box<Self>) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.change(|mesh| {
            mesh.credit(
                self.from,
                self.to,
                self.class,
                self.epoch,
                self.lane,
                charge(self.frame_bytes),
            )
        });
    }
}
