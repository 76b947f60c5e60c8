//! Links between nodes in one process, for tests: a test cuts, heals, holds and kills, and owns the order of delivery.
//!
//! The queues and credits are those of the real links ([`crate::outbox`]); the network between them is one state
//! machine, [`mesh::Mesh`], that delivers one thing per step. Stepped by hand ([`MemoryMesh::step`], [`MemoryMesh::settle`]) a run is
//! repeatable; [`MemoryMesh::run`] steps it from a task for tests that wait. Nothing here takes time: a cut is noticed at once.

mod links;
mod mesh;

use std::sync::{Arc, Weak};

use nsquorum_environment::Environment;
use nsquorum_topic::NodeId;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use links::MemoryLinks;
use mesh::{Delivery, Mesh};

use crate::{Evidence, Lane, Limits, PeerIdentity};

/// In which order a [`MemoryMesh`] delivers what lies in different lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MeshOrder {
    /// Control first, then the lane that waited longest.
    #[default]
    InTurn,
    /// Any lane of any link, drawn from the seed: every order that real links may show. Never within a lane.
    Shuffled {
        /// The run repeats from it.
        seed: u64,
    },
}

/// How a mesh behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct MeshOptions {
    /// Bounds of every link.
    pub limits: Limits,
    /// The order of delivery.
    pub order: MeshOrder,
}

/// A network of nodes in this process. Clones are the same network.
#[derive(Clone)]
pub struct MemoryMesh {
    shared: Arc<Shared>,
}

struct Shared {
    mesh: Mutex<Mesh>,
    /// Held while receivers are called, so that their calls come in order. Never taken while `mesh` is held.
    delivering: Mutex<()>,
    /// Something may be deliverable.
    changed: Notify,
    limits: Limits,
}

impl MemoryMesh {
    /// A network without nodes.
    pub fn new(options: MeshOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                mesh: Mutex::new(Mesh::new(options.limits, options.order)),
                delivering: Mutex::new(()),
                changed: Notify::new(),
                limits: options.limits,
            }),
        }
    }

    /// A node whose links are made when it starts ([`MemoryLinks::start`]). A node of the same id that runs is killed first.
    pub fn join(&self, identity: PeerIdentity) -> Arc<MemoryLinks> {
        self.join_with_secret(identity, "")
    }

    /// The same with a cluster secret; nodes link only if theirs are equal.
    pub fn join_with_secret(&self, identity: PeerIdentity, secret: &str) -> Arc<MemoryLinks> {
        let (life, peers, before) = self.change(|mesh| mesh.join(identity, secret));
        // Not under the mesh's lock, which the credit of a frame that it holds takes.
        drop(before);
        Arc::new(MemoryLinks::new(Arc::clone(&self.shared), identity.node, life, peers))
    }

    /// The node's process is gone: its links are refused, and what it queued or what was under way is lost.
    pub fn kill(&self, node: NodeId) {
        self.change(|mesh| mesh.kill(node));
    }

    /// Nothing passes between the two, either way.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.change(|mesh| {
            mesh.cut(a, b);
            mesh.cut(b, a);
        });
    }

    /// Nothing that `from` sends reaches `to`; the other direction works.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.change(|mesh| mesh.cut(from, to));
    }

    /// No node reaches this one, and the other way round.
    pub fn isolate(&self, node: NodeId) {
        self.change(|mesh| {
            for other in mesh.nodes() {
                mesh.cut(node, other);
                mesh.cut(other, node);
            }
        });
    }

    /// Ends both cuts between the two.
    pub fn heal(&self, a: NodeId, b: NodeId) {
        self.change(|mesh| {
            mesh.heal(a, b);
            mesh.heal(b, a);
        });
    }

    /// Ends all cuts and releases all that is held.
    pub fn heal_all(&self) {
        self.change(Mesh::heal_all);
    }

    /// The connection from `from` to `to` breaks and is made anew: one epoch more, and what was under way is lost.
    pub fn break_link(&self, from: NodeId, to: NodeId) {
        self.change(|mesh| mesh.break_link(from, to, Evidence::Reset));
    }

    /// Frames of this lane stay under way until [`MemoryMesh::release`]; `None` holds all lanes between the two. The link stays up.
    pub fn hold(&self, from: NodeId, to: NodeId, lane: Option<Lane>) {
        self.change(|mesh| mesh.hold(from, to, lane));
    }

    /// Ends a hold.
    pub fn release(&self, from: NodeId, to: NodeId, lane: Option<Lane>) {
        self.change(|mesh| mesh.release(from, to, lane));
    }

    /// Delivers one thing; false if nothing can be delivered. Must not be called by a receiver.
    pub fn step(&self) -> bool {
        self.shared.step()
    }

    /// Delivers until nothing can be delivered, or `limit` things. Returns how many; equal to `limit` means that it may not be over.
    pub fn settle(&self, limit: usize) -> usize {
        (0..limit).take_while(|_| self.step()).count()
    }

    /// Delivers from a task until the mesh and all of its nodes are dropped.
    pub fn run(&self, environment: &Environment) {
        let weak = Arc::downgrade(&self.shared);
        environment.spawn.spawn(Box::pin(deliver(weak)));
    }

    fn change<R>(&self, change: impl FnOnce(&mut Mesh) -> R) -> R {
        self.shared.change(change)
    }
}

async fn deliver(weak: Weak<Shared>) {
    loop {
        let Some(shared) = weak.upgrade() else { return };
        for _ in 0..64 {
            if !shared.step() {
                break;
            }
        }
        if shared.mesh.lock().is_idle() {
            let changed = shared.changed.notified();
            tokio::select! {
                () = changed => {}
                // Looks up from time to time whether anybody else still holds the mesh.
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            }
            drop(shared);
        } else {
            drop(shared);
            tokio::task::yield_now().await;
        }
    }
}

impl Shared {
    fn change<R>(&self, change: impl FnOnce(&mut Mesh) -> R) -> R {
        let result = change(&mut self.mesh.lock());
        self.changed.notify_one();
        result
    }

    fn step(self: &Arc<Self>) -> bool {
        let _turn = self.delivering.lock();
        let Some((receivers, delivery)) = self.mesh.lock().next() else {
            return false;
        };
        match delivery {
            Delivery::Up { peer, epoch } => receivers.up(peer, epoch),
            Delivery::Frame {
                from,
                epoch,
                lane,
                class,
                to,
                bytes,
            } => {
                let credit = links::Credit::new(Arc::downgrade(self), from.node, to, lane, class, epoch, bytes.len());
                let received = crate::Received::new(bytes, class, Box::new(credit));
                receivers.frame(from, epoch, lane, received);
            }
            Delivery::Down { node, epoch, evidence } => receivers.down(node, epoch, evidence),
        }
        true
    }
}

impl std::fmt::Debug for MemoryMesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryMesh").finish_non_exhaustive()
    }
}
