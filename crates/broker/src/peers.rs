//! The links to the other nodes, as the topics of this node use them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nsquorum_consensus::Cluster;
use nsquorum_environment::Task;
use nsquorum_links::{
    Class, Evidence, Frame, Lane, LinkEpoch, Links, PeerIdentity, PeerState, Received, Receiver, SendError, Service,
};
use nsquorum_topic::{GroupId, NodeId, SessionId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::topic_leader::{PeerLink, TopicInput};

/// How often it is looked whether this node is cut off from leaders. Short against the time that it has to be before anything follows.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is known of a peer's link; a new connection is a new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    link: PeerLink,
    epoch: Option<LinkEpoch>,
}

impl Seen {
    fn of(state: &PeerState) -> Self {
        let link = match state {
            PeerState::Up { identity, .. } => PeerLink::Up(identity.incarnation),
            // Nobody listens where the node did: its process is gone. Anything else may be the network's fault.
            PeerState::Down {
                evidence: Evidence::Refused,
                ..
            } => PeerLink::Gone,
            PeerState::Down { .. } | PeerState::Connecting => PeerLink::Lost,
        };
        Self {
            link,
            epoch: state.epoch(),
        }
    }
}

/// A topic that hears of the other nodes.
#[derive(Debug)]
struct Topic {
    inbox: mpsc::UnboundedSender<TopicInput>,
    /// What it was told last.
    is_cut_off: bool,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<GroupId, Topic>,
    seen: BTreeMap<NodeId, Seen>,
}

/// The other nodes.
pub(crate) struct Peers {
    links: Arc<dyn Links>,
    publish_timeout: Duration,
    /// One lock for both, so that a topic hears of every change after the state that it began with.
    state: Mutex<State>,
}

impl Peers {
    pub(crate) fn new(links: Arc<dyn Links>, publish_timeout: Duration) -> Self {
        Self {
            links,
            publish_timeout,
            state: Mutex::default(),
        }
    }

    /// The publish session of this node's routers.
    pub(crate) fn me(&self) -> SessionId {
        session(&self.links.local())
    }

    pub(crate) const fn publish_timeout(&self) -> Duration {
        self.publish_timeout
    }

    /// A topic begins to hear of the other nodes.
    pub(crate) fn add(&self, group: GroupId, topic: mpsc::UnboundedSender<TopicInput>) {
        let mut state = self.state.lock();
        for (node, seen) in &state.seen {
            // A topic whose task has ended hears nothing any more; so below.
            drop(topic.send(TopicInput::Peer {
                node: *node,
                link: seen.link,
            }));
        }
        let topic = Topic {
            inbox: topic,
            is_cut_off: false,
        };
        state.topics.insert(group, topic);
    }

    pub(crate) fn remove(&self, group: GroupId) {
        self.state.lock().topics.remove(&group);
    }

    /// Tells all topics of every change of the links.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut peers = self.links.peers();
        loop {
            let now = Arc::clone(&peers.borrow_and_update());
            self.follow(&now);
            if peers.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells each topic when somebody may lead it whom this node does not reach, and when no longer. Ends with the cluster.
    pub(crate) async fn watch_leaders(self: Arc<Self>, cluster: Weak<dyn Cluster>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(cluster) = cluster.upgrade() else { return };
            let groups: Vec<GroupId> = self.state.lock().topics.keys().copied().collect();
            for group in groups {
                self.cut_off(group, cluster.is_cut_off(group));
            }
        }
    }

    fn cut_off(&self, group: GroupId, is_cut_off: bool) {
        let mut state = self.state.lock();
        let topic = state.topics.get_mut(&group);
        if let Some(topic) = topic.filter(|topic| topic.is_cut_off != is_cut_off) {
            topic.is_cut_off = is_cut_off;
            drop(topic.inbox.send(TopicInput::CutOff { is_cut_off }));
        }
    }

    fn follow(&self, peers: &nsquorum_links::Peers) {
        let mut state = self.state.lock();
        let State { topics, seen } = &mut *state;
        let mut changes: Vec<(NodeId, PeerLink)> = Vec::new();
        for (node, peer) in peers {
            let now = Seen::of(peer);
            if seen.insert(*node, now) != Some(now) {
                changes.push((*node, now.link));
            }
        }
        for (node, _) in seen.extract_if(.., |node, _| !peers.contains_key(node)) {
            changes.push((node, PeerLink::Gone));
        }
        for (node, link) in changes {
            for topic in topics.values() {
                drop(topic.inbox.send(TopicInput::Peer { node, link }));
            }
        }
    }

    /// Sends a frame about a topic's group. If the lane is full it is sent by the task that is returned, in its place. A frame that cannot be sent
    /// is lost, as one on a broken link is: the next association says everything again.
    pub(crate) fn send(&self, to: NodeId, group: GroupId, class: Class, frame: Frame) -> Option<Task> {
        let lane = Lane::new(Service::Broker, group);
        match self.links.try_send(to, lane, class, frame.clone()) {
            Ok(_) | Err(SendError::Down(_)) => None,
            Err(SendError::Full(_)) => {
                let sending = self.links.send(to, lane, class, frame);
                Some(Box::pin(async move { _ = sending.await }))
            }
            Err(error @ SendError::TooLarge { .. }) => {
                tracing::error!(to = to.get(), group = group.get(), %error, "a frame to another node is too large");
                None
            }
        }
    }
}

impl Receiver for Peers {
    /// The other direction of a link says nothing that counters of frames do not say.
    fn up(&self, _: PeerIdentity, _: LinkEpoch) {}

    fn frame(&self, from: PeerIdentity, _: LinkEpoch, lane: Lane, frame: Received) {
        let state = self.state.lock();
        // A topic that does not run here yet asks for its leader when it does.
        if let Some(topic) = state.topics.get(&lane.group) {
            let from = session(&from);
            drop(topic.inbox.send(TopicInput::Frame { from, frame }));
        }
    }

    fn down(&self, _: NodeId, _: LinkEpoch, _: Evidence) {}
}

fn session(identity: &PeerIdentity) -> SessionId {
    SessionId {
        node: identity.node,
        incarnation: identity.incarnation,
    }
}
