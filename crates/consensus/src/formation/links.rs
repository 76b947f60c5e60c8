//! Formation over peer links.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nsquorum_environment::Environment;
use nsquorum_links::{Class, Evidence, Frame, Lane, LinkEpoch, Links, PeerIdentity, Received, Receiver, Service};
use nsquorum_storage::new_cluster;
use nsquorum_topic::{GroupId, NodeId};
use tokio::sync::mpsc;

use super::founding::{Founded, Founding, Outcome};
use super::message::Message;

const LANE: Lane = Lane::new(Service::Formation, GroupId::METADATA);
/// How often a node without a cluster says that it is there.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(100);
/// How often it says in its log for whom it waits.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// Messages that wait to be heard; more are dropped, and said again.
const HEARD_MAX: usize = 256;

fn tell(links: &dyn Links, to: NodeId, message: &Message) {
    // A link that is down or full: it is said again.
    _ = links.try_send(
        to,
        LANE,
        Class::Control,
        Frame::from(bytes::Bytes::from(message.encode())),
    );
}

/// Tells nodes that look for their cluster what it is. For the life of a member.
pub struct FoundingWitness {
    links: Arc<dyn Links>,
    founded: Founded,
}

impl FoundingWitness {
    /// Registers itself with links that have not started.
    pub fn register(links: &Arc<dyn Links>, founded: Founded) {
        let witness = Self {
            links: Arc::clone(links),
            founded,
        };
        links.register(Service::Formation, Arc::new(witness));
    }
}

impl Receiver for FoundingWitness {
    fn up(&self, _peer: PeerIdentity, _epoch: LinkEpoch) {}

    fn frame(&self, from: PeerIdentity, _epoch: LinkEpoch, _lane: Lane, frame: Received) {
        if let Some(Message::Here { address }) = Message::decode(&frame) {
            let answer = self.founded.answer(from.node);
            if matches!(answer, Message::Stranger { .. }) {
                tracing::warn!(peer = %from, address, "a node with an empty directory is not a member; replacing a member's disk is not possible yet");
            }
            tell(self.links.as_ref(), from.node, &answer);
        }
    }

    fn down(&self, _node: NodeId, _epoch: LinkEpoch, _evidence: Evidence) {}
}

struct Ear(mpsc::Sender<(PeerIdentity, Message)>);

impl Receiver for Ear {
    fn up(&self, _peer: PeerIdentity, _epoch: LinkEpoch) {}

    fn frame(&self, from: PeerIdentity, _epoch: LinkEpoch, _lane: Lane, frame: Received) {
        if let Some(message) = Message::decode(&frame) {
            // Full: it is said again.
            drop(self.0.try_send((from, message)));
        }
    }

    fn down(&self, _node: NodeId, _epoch: LinkEpoch, _evidence: Evidence) {}
}

/// Waits until this node, which has none, has a cluster. `links` have not started; `start` starts them. The caller writes the result down before
/// anybody may hear of it from this node.
pub async fn find_cluster(
    links: Arc<dyn Links>,
    start: impl FnOnce(),
    address: String,
    seeds: BTreeSet<String>,
    environment: &Environment,
) -> Founded {
    let (sender, mut heard) = mpsc::channel(HEARD_MAX);
    links.register(Service::Formation, Arc::new(Ear(sender)));
    start();
    let mut founding = Founding::new(links.local().node, address, seeds);
    let mut announce = tokio::time::interval(ANNOUNCE_EVERY);
    let mut complain = tokio::time::interval(COMPLAIN_EVERY);
    let mut refused_by = None;
    loop {
        let outcome = tokio::select! {
            _ = announce.tick() => {
                let peers = links.peers().borrow().clone();
                let announcement = founding.announcement();
                peers.keys().for_each(|peer| tell(links.as_ref(), *peer, &announcement));
                founding.found()
            }
            _ = complain.tick() => {
                match &refused_by {
                    Some(cluster) => tracing::error!(cluster, "the seeds belong to a cluster that does not know this node's empty directory; \
                        give it back the directory it had: replacing a member's disk is not possible yet"),
                    None => tracing::info!(missing = ?founding.missing(), "waiting for the other seeds to form a cluster"),
                }
                continue;
            }
            message = heard.recv() => match message {
                Some((from, message)) => founding.hear(from.node, from.cluster.is_none(), message),
                None => unreachable!("the links hold the sender"),
            },
        };
        match outcome {
            Outcome::Nothing => {}
            Outcome::Found(members) => {
                return Founded {
                    cluster: new_cluster(environment.random.as_ref()),
                    members,
                };
            }
            Outcome::Join(founded) => return founded,
            Outcome::Refused(cluster) => refused_by = Some(cluster),
        }
    }
}
