//! What all tasks of a node's links share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use metrics::{counter, gauge};
use nsquorum_environment::Environment;
use nsquorum_topic::{ClusterId, NodeId, NodeIncarnation};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::incoming::Incoming;
use super::keep_alive::KeepAlive;
use super::options::GrpcOptions;
use super::pipe::Pipe;
use crate::receivers::Receivers;
use crate::{Class, Evidence, LinkEpoch, PeerIdentity, PeerState, Peers, Rejection};

/// Both classes of the link to a peer.
pub(super) struct Pipes {
    control: Arc<Pipe>,
    bulk: Arc<Pipe>,
    /// Whether a connection uses them.
    taken: AtomicBool,
}

impl Pipes {
    pub(super) const fn class(&self, class: Class) -> &Arc<Pipe> {
        match class {
            Class::Control => &self.control,
            Class::Bulk => &self.bulk,
        }
    }

    /// One connection at a time: two addresses may lead to the same node.
    fn open(&self, epoch: LinkEpoch) -> Result<(), Rejection> {
        if self.taken.swap(true, Ordering::SeqCst) {
            return Err(Rejection::SecondAddress);
        }
        Class::ALL.into_iter().for_each(|class| self.class(class).open(epoch));
        Ok(())
    }

    pub(super) fn close(&self) {
        Class::ALL.into_iter().for_each(|class| self.class(class).close());
        self.taken.store(false, Ordering::SeqCst);
    }
}

/// Who this node is, and the token that ends whatever was begun under that name.
#[derive(Clone)]
pub(super) struct Name {
    pub(super) identity: PeerIdentity,
    pub(super) valid: CancellationToken,
}

/// Shared by the handle, the diallers and the answering side.
pub(super) struct Core {
    pub(super) options: GrpcOptions,
    pub(super) environment: Environment,
    pub(super) receivers: Receivers,
    pub(super) stop: CancellationToken,
    name: Mutex<Name>,
    peers: watch::Sender<Arc<Peers>>,
    pipes: RwLock<BTreeMap<NodeId, Arc<Pipes>>>,
    incoming: Mutex<BTreeMap<NodeId, Arc<Incoming>>>,
    /// The highest incarnation of each node that was ever linked, either way.
    seen: Mutex<BTreeMap<NodeId, NodeIncarnation>>,
    epochs: AtomicU64,
    /// Nodes that are linked, or being linked, from here.
    claimed: Mutex<BTreeSet<NodeId>>,
}

/// The right to link with a node, from the moment its name is known until the link has ended. Two addresses that lead to one node would
/// otherwise shake hands at the same time, and the peer would take each for the better one in turn.
pub(super) struct Claim {
    core: Arc<Core>,
    node: NodeId,
}

impl Claim {
    /// [`Rejection::SecondAddress`] if the node is linked or being linked.
    pub(super) fn new(core: &Arc<Core>, node: NodeId) -> Result<Self, Rejection> {
        if !core.claimed.lock().insert(node) {
            return Err(Rejection::SecondAddress);
        }
        let core = Arc::clone(core);
        Ok(Self { core, node })
    }

    pub(super) const fn node(&self) -> NodeId {
        self.node
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.core.claimed.lock().remove(&self.node);
    }
}

impl Core {
    pub(super) fn new(identity: PeerIdentity, options: GrpcOptions, environment: Environment) -> Self {
        let stop = CancellationToken::new();
        Self {
            options,
            environment,
            receivers: Receivers::default(),
            name: Mutex::new(Name {
                identity,
                valid: stop.child_token(),
            }),
            stop,
            peers: watch::channel(Arc::new(Peers::new())).0,
            pipes: RwLock::default(),
            incoming: Mutex::default(),
            seen: Mutex::default(),
            epochs: AtomicU64::new(0),
            claimed: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> Name {
        self.name.lock().clone()
    }

    pub(super) fn adopt(&self, cluster: ClusterId) {
        let mut name = self.name.lock();
        match name.identity.cluster {
            Some(own) if own == cluster => return,
            Some(own) => panic!("a node of cluster {own} was to adopt cluster {cluster}"),
            None => name.identity.cluster = Some(cluster),
        }
        std::mem::replace(&mut name.valid, self.stop.child_token()).cancel();
    }

    /// What tells an end of a new stream when it has been silent too long.
    pub(super) fn keep_alive(&self) -> KeepAlive {
        KeepAlive::new(Arc::clone(&self.environment.clock), self.options.keep_alive())
    }

    pub(super) fn next_epoch(&self) -> LinkEpoch {
        LinkEpoch::new(self.epochs.fetch_add(1, Ordering::SeqCst) + 1)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Peers>> {
        self.peers.subscribe()
    }

    /// Whether a peer may be linked with as far as names go; remembers its incarnation if so.
    pub(super) fn admit(&self, own: PeerIdentity, peer: PeerIdentity) -> Result<(), Rejection> {
        if peer.node == own.node {
            // The same incarnation is this very process; another one is a second process with a copy of the directory.
            return Err(if peer.incarnation == own.incarnation {
                Rejection::Myself
            } else {
                Rejection::OldIncarnation
            });
        }
        if let (Some(a), Some(b)) = (own.cluster, peer.cluster)
            && a != b
        {
            return Err(Rejection::OtherCluster);
        }
        let mut seen = self.seen.lock();
        let highest = seen.entry(peer.node).or_insert(peer.incarnation);
        if *highest > peer.incarnation {
            return Err(Rejection::OldIncarnation);
        }
        *highest = peer.incarnation;
        Ok(())
    }

    pub(super) fn pipes(&self, node: NodeId) -> Option<Arc<Pipes>> {
        self.pipes.read().get(&node).cloned()
    }

    /// A node that is known from now on: callers that send to it find its pipes.
    fn know<'a>(&self, all: &'a mut BTreeMap<NodeId, Arc<Pipes>>, node: NodeId) -> &'a Arc<Pipes> {
        all.entry(node).or_insert_with(|| {
            let pipe = |class| Arc::new(Pipe::new(node, class, &self.options.limits));
            Arc::new(Pipes {
                control: pipe(Class::Control),
                bulk: pipe(Class::Bulk),
                taken: AtomicBool::new(false),
            })
        })
    }

    /// Opens the pipes of a node for a connection. Under the lock that [`Core::forget`] takes: it must not forget them in between.
    pub(super) fn open(&self, node: NodeId, epoch: LinkEpoch) -> Result<Arc<Pipes>, Rejection> {
        let mut all = self.pipes.write();
        let pipes = self.know(&mut all, node);
        pipes.open(epoch)?;
        Ok(Arc::clone(pipes))
    }

    pub(super) fn incoming(&self, node: NodeId) -> Arc<Incoming> {
        let mut incoming = self.incoming.lock();
        let entry = incoming.entry(node).or_insert_with(|| Arc::new(Incoming::new(node)));
        Arc::clone(entry)
    }

    pub(super) fn show_connecting(&self, node: NodeId) {
        self.know(&mut self.pipes.write(), node);
        self.peers.send_if_modified(|peers| {
            if peers.contains_key(&node) {
                return false;
            }
            Arc::make_mut(peers).insert(node, PeerState::Connecting);
            true
        });
    }

    pub(super) fn show_up(&self, identity: PeerIdentity, epoch: LinkEpoch) {
        gauge!("nsquorum_link_up", "peer" => identity.node.to_string()).set(1.0);
        counter!("nsquorum_link_connections_total", "peer" => identity.node.to_string()).increment(1);
        self.peers.send_modify(|peers| {
            Arc::make_mut(peers).insert(identity.node, PeerState::Up { identity, epoch });
        });
    }

    /// Tells what became of a link, or of an attempt at one; `ended` names the link. A link that another address made stands.
    pub(super) fn show_down(&self, node: NodeId, ended: Option<LinkEpoch>, evidence: Evidence) {
        if ended.is_some() {
            let labels = [("peer", node.to_string()), ("evidence", evidence.name().to_owned())];
            counter!("nsquorum_link_ended_total", &labels).increment(1);
        }
        let modified = self.peers.send_if_modified(|peers| {
            let before = peers.get(&node).copied();
            let last = match before {
                Some(PeerState::Up { epoch, .. }) if Some(epoch) != ended => return false,
                Some(PeerState::Up { identity, .. }) => Some(identity),
                Some(PeerState::Down { last, .. }) => last,
                Some(PeerState::Connecting) | None => None,
            };
            let after = PeerState::Down { evidence, last };
            if before == Some(after) {
                return false;
            }
            Arc::make_mut(peers).insert(node, after);
            true
        });
        if modified {
            gauge!("nsquorum_link_up", "peer" => node.to_string()).set(0.0);
        }
    }

    /// An address does not lead to this node any more. It stays known while another one does.
    pub(super) fn forget(&self, node: NodeId) {
        let mut all = self.pipes.write();
        if all.get(&node).is_some_and(|pipes| !pipes.taken.load(Ordering::SeqCst)) {
            all.remove(&node);
            self.peers
                .send_if_modified(|peers| Arc::make_mut(peers).remove(&node).is_some());
        }
    }
}
