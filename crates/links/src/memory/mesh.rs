//! The network as a step machine: who runs, what is cut, what is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use nsquorum_environment::{Random, SeededRandom};
use nsquorum_topic::{ClusterId, NodeId, NodeIncarnation};
use tokio::sync::watch;

use super::MeshOrder;
use crate::outbox::Outbox;
use crate::receivers::Receivers;
use crate::{Class, Evidence, Lane, Limits, LinkEpoch, PeerIdentity, PeerState, Peers, Receiver, Rejection, Service};

/// One process that is or was a node, counted over the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life(u64);

/// One thing for a receiver.
pub(super) enum Delivery {
    Up {
        peer: PeerIdentity,
        epoch: LinkEpoch,
    },
    Frame {
        from: PeerIdentity,
        epoch: LinkEpoch,
        lane: Lane,
        class: Class,
        to: NodeId,
        bytes: Bytes,
    },
    Down {
        node: NodeId,
        epoch: LinkEpoch,
        evidence: Evidence,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Joined,
    Running,
    Dead,
}

pub(super) struct Node {
    life: Life,
    identity: PeerIdentity,
    secret: String,
    stage: Stage,
    receivers: Arc<Receivers>,
    peers: watch::Sender<Arc<Peers>>,
    /// The highest incarnation of each peer that linked to it.
    seen: BTreeMap<NodeId, NodeIncarnation>,
}

struct Link {
    control: Outbox,
    bulk: Outbox,
    /// When a lane was last served, in steps.
    served: BTreeMap<(Class, Lane), u64>,
}

impl Link {
    const fn outbox(&mut self, class: Class) -> &mut Outbox {
        match class {
            Class::Control => &mut self.control,
            Class::Bulk => &mut self.bulk,
        }
    }
}

type Pair = (NodeId, NodeId);

/// The network.
pub(super) struct Mesh {
    limits: Limits,
    shuffle: Option<SeededRandom>,
    nodes: BTreeMap<NodeId, Node>,
    /// Links that are up, by sender and receiver.
    links: BTreeMap<Pair, Link>,
    cuts: BTreeSet<Pair>,
    holds: BTreeSet<(Pair, Option<Lane>)>,
    /// Ups and downs that receivers have not heard of. They go before frames.
    events: VecDeque<(Arc<Receivers>, Delivery)>,
    lives: u64,
    epochs: u64,
    steps: u64,
}

impl Mesh {
    pub(super) fn new(limits: Limits, order: MeshOrder) -> Self {
        Self {
            limits,
            shuffle: match order {
                MeshOrder::InTurn => None,
                MeshOrder::Shuffled { seed } => Some(SeededRandom::new(seed)),
            },
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            holds: BTreeSet::new(),
            events: VecDeque::new(),
            lives: 0,
            epochs: 0,
            steps: 0,
        }
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Also gives the process that was the node before: its receivers may hold frames, whose credit comes back here when they are dropped.
    pub(super) fn join(
        &mut self,
        identity: PeerIdentity,
        secret: &str,
    ) -> (Life, watch::Receiver<Arc<Peers>>, Option<Node>) {
        self.kill(identity.node);
        self.lives += 1;
        let life = Life(self.lives);
        let (peers, watching) = watch::channel(Arc::new(Peers::new()));
        let before = self.nodes.insert(
            identity.node,
            Node {
                life,
                identity,
                secret: secret.to_owned(),
                stage: Stage::Joined,
                receivers: Arc::new(Receivers::default()),
                peers,
                seen: BTreeMap::new(),
            },
        );
        (life, watching, before)
    }

    pub(super) fn lives(&self, node: NodeId, life: Life) -> bool {
        self.nodes
            .get(&node)
            .is_some_and(|found| found.life == life && found.stage != Stage::Dead)
    }

    /// # Panics
    /// When a later process has taken the node's place: a test that goes on using an earlier one is mistaken.
    pub(super) fn identity(&self, node: NodeId, life: Life) -> PeerIdentity {
        let found = self.nodes.get(&node).filter(|found| found.life == life);
        found.expect("a later process is this node").identity
    }

    pub(super) fn register(&mut self, node: NodeId, life: Life, service: Service, receiver: Arc<dyn Receiver>) {
        let found = self.nodes.get(&node).filter(|found| found.life == life);
        let found = found.expect("a later process is this node");
        assert!(found.stage == Stage::Joined, "the links of node {node} have started");
        found.receivers.register(service, receiver);
    }

    pub(super) fn start(&mut self, node: NodeId, life: Life) {
        let found = self.nodes.get_mut(&node).filter(|found| found.life == life);
        let found = found.expect("a later process is this node");
        assert!(found.stage == Stage::Joined, "the links of node {node} have started");
        found.stage = Stage::Running;
        self.connect_all(node);
    }

    pub(super) fn adopt(&mut self, node: NodeId, life: Life, cluster: ClusterId) {
        if !self.lives(node, life) {
            return;
        }
        let Some(found) = self.nodes.get_mut(&node) else { return };
        match found.identity.cluster {
            Some(own) if own == cluster => return,
            Some(own) => panic!("node {node} of cluster {own} was to adopt cluster {cluster}"),
            None => found.identity.cluster = Some(cluster),
        }
        if found.stage == Stage::Running {
            self.disconnect_all(node, Evidence::Closed);
            self.connect_all(node);
        }
    }

    pub(super) fn kill(&mut self, node: NodeId) {
        self.disconnect_all(node, Evidence::Reset);
        if let Some(found) = self.nodes.get_mut(&node) {
            found.stage = Stage::Dead;
            // It does not hear of its own end.
            let receivers = Arc::clone(&found.receivers);
            self.events.retain(|(to, _)| !Arc::ptr_eq(to, &receivers));
            self.connect_all(node);
        }
    }

    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        if from != to && self.cuts.insert((from, to)) {
            self.disconnect((from, to), Evidence::TimedOut);
            self.connect((from, to));
        }
    }

    pub(super) fn heal(&mut self, from: NodeId, to: NodeId) {
        if self.cuts.remove(&(from, to)) {
            self.connect((from, to));
        }
    }

    pub(super) fn heal_all(&mut self) {
        self.holds.clear();
        for pair in std::mem::take(&mut self.cuts) {
            self.connect(pair);
        }
    }

    pub(super) fn break_link(&mut self, from: NodeId, to: NodeId, evidence: Evidence) {
        self.disconnect((from, to), evidence);
        self.connect((from, to));
    }

    pub(super) fn hold(&mut self, from: NodeId, to: NodeId, lane: Option<Lane>) {
        self.holds.insert(((from, to), lane));
    }

    pub(super) fn release(&mut self, from: NodeId, to: NodeId, lane: Option<Lane>) {
        self.holds.remove(&((from, to), lane));
    }

    pub(super) fn outbox(&mut self, from: NodeId, life: Life, to: NodeId, class: Class) -> Option<&mut Outbox> {
        if !self.lives(from, life) {
            return None;
        }
        self.links.get_mut(&(from, to)).map(|link| link.outbox(class))
    }

    pub(super) fn credit(&mut self, from: NodeId, to: NodeId, class: Class, epoch: LinkEpoch, lane: Lane, bytes: u64) {
        if let Some(link) = self.links.get_mut(&(from, to))
            && link.outbox(class).epoch() == Some(epoch)
        {
            let credited = link.outbox(class).credit(lane, bytes);
            assert!(credited.is_ok(), "a frame's credit came back twice");
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.events.is_empty() && self.deliverable().next().is_none()
    }

    /// The next thing to deliver, and to whom.
    pub(super) fn next(&mut self) -> Option<(Arc<Receivers>, Delivery)> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let (pair, class, lane) = match &self.shuffle {
            None => self.deliverable().min_by_key(|(pair, class, lane)| {
                (*class, self.links[pair].served.get(&(*class, *lane)).copied(), *pair)
            })?,
            Some(random) => {
                let choices: Vec<_> = self.deliverable().collect();
                let drawn = random.below(choices.len() as u64);
                *choices.get(usize::try_from(drawn).ok()?)?
            }
        };
        self.steps += 1;
        let link = self.links.get_mut(&pair)?;
        link.served.insert((class, lane), self.steps);
        let outbox = link.outbox(class);
        let epoch = outbox.epoch()?;
        let bytes = outbox.take_frame(lane)?;
        let from = self.nodes.get(&pair.0)?.identity;
        let receivers = Arc::clone(&self.nodes.get(&pair.1)?.receivers);
        let delivery = Delivery::Frame {
            from,
            epoch,
            lane,
            class,
            to: pair.1,
            bytes,
        };
        Some((receivers, delivery))
    }

    fn deliverable(&self) -> impl Iterator<Item = (Pair, Class, Lane)> + '_ {
        self.links
            .iter()
            .filter(|(pair, _)| !self.holds.contains(&(**pair, None)))
            .flat_map(|(pair, link)| {
                let control = link.control.ready().map(|lane| (*pair, Class::Control, lane));
                control.chain(link.bulk.ready().map(|lane| (*pair, Class::Bulk, lane)))
            })
            .filter(|(pair, _, lane)| !self.holds.contains(&(*pair, Some(*lane))))
    }

    fn connect_all(&mut self, node: NodeId) {
        for other in self.nodes() {
            if other != node {
                self.connect((node, other));
                self.connect((other, node));
            }
        }
    }

    fn disconnect_all(&mut self, node: NodeId, evidence: Evidence) {
        for other in self.nodes() {
            self.disconnect((node, other), evidence);
            self.disconnect((other, node), evidence);
        }
    }

    /// Tries to make a link, as its sender would.
    fn connect(&mut self, pair: Pair) {
        if self.links.contains_key(&pair) {
            return;
        }
        let (Some(from), Some(to)) = (self.nodes.get(&pair.0), self.nodes.get(&pair.1)) else {
            return;
        };
        if from.stage != Stage::Running {
            return;
        }
        let outcome = if self.cuts.contains(&pair) {
            Err(Evidence::TimedOut)
        } else if to.stage != Stage::Running {
            Err(Evidence::Refused)
        } else {
            admit(from, to).map_err(Evidence::Rejected)
        };
        let (peer, dialler) = (to.identity, from.identity);
        match outcome {
            Err(evidence) => self.show(pair, |last| PeerState::Down { evidence, last }),
            Ok(()) => {
                self.epochs += 1;
                let epoch = LinkEpoch::new(self.epochs);
                let mut link = Link {
                    control: Outbox::new(self.limits.control),
                    bulk: Outbox::new(self.limits.bulk),
                    served: BTreeMap::new(),
                };
                link.control.open(epoch);
                link.bulk.open(epoch);
                self.links.insert(pair, link);
                if let Some(to) = self.nodes.get_mut(&pair.1) {
                    to.seen.insert(pair.0, dialler.incarnation);
                    let receivers = Arc::clone(&to.receivers);
                    self.events
                        .push_back((receivers, Delivery::Up { peer: dialler, epoch }));
                }
                if let Some(from) = self.nodes.get_mut(&pair.0) {
                    from.seen.insert(pair.1, peer.incarnation);
                }
                self.show(pair, |_| PeerState::Up { identity: peer, epoch });
            }
        }
    }

    fn disconnect(&mut self, pair: Pair, evidence: Evidence) {
        let Some(mut link) = self.links.remove(&pair) else {
            return;
        };
        let epoch = link.control.epoch();
        // Shown before senders hear of it: who hears `Down` and then waits for the peer to be up must not find the old link.
        self.show(pair, |last| PeerState::Down { evidence, last });
        link.control.close();
        link.bulk.close();
        if let (Some(epoch), Some(to)) = (epoch, self.nodes.get(&pair.1)) {
            let node = pair.0;
            let down = Delivery::Down { node, epoch, evidence };
            self.events.push_back((Arc::clone(&to.receivers), down));
        }
    }

    /// Tells the sender of a pair how its link is; the closure gets who was there last.
    fn show(&mut self, (from, to): Pair, state: impl FnOnce(Option<PeerIdentity>) -> PeerState) {
        let Some(node) = self.nodes.get(&from) else { return };
        node.peers.send_if_modified(|peers| {
            let before = peers.get(&to).copied();
            let last = match before {
                Some(PeerState::Up { identity, .. }) => Some(identity),
                Some(PeerState::Down { last, .. }) => last,
                Some(PeerState::Connecting) | None => None,
            };
            let after = state(last);
            if before == Some(after) {
                return false;
            }
            Arc::make_mut(peers).insert(to, after);
            true
        });
    }
}

/// Whether two nodes that run link.
fn admit(from: &Node, to: &Node) -> Result<(), Rejection> {
    if from.secret != to.secret {
        return Err(Rejection::WrongSecret);
    }
    if let (Some(a), Some(b)) = (from.identity.cluster, to.identity.cluster)
        && a != b
    {
        return Err(Rejection::OtherCluster);
    }
    let old = |seen_by: &Node, peer: &Node| {
        seen_by
            .seen
            .get(&peer.identity.node)
            .is_some_and(|highest| *highest > peer.identity.incarnation)
    };
    if old(to, from) || old(from, to) {
        return Err(Rejection::OldIncarnation);
    }
    Ok(())
}
