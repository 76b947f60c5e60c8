//! The receivers of this node, one per service.

use std::sync::{Arc, OnceLock};

use metrics::counter;
use nsquorum_topic::NodeId;

use crate::{Evidence, Lane, LinkEpoch, PeerIdentity, Received, Receiver, Service};

/// One place per service; fixed when the links start.
#[derive(Default)]
pub(crate) struct Receivers {
    node: OnceLock<Arc<dyn Receiver>>,
    raft: OnceLock<Arc<dyn Receiver>>,
    broker: OnceLock<Arc<dyn Receiver>>,
    formation: OnceLock<Arc<dyn Receiver>>,
}

impl Receivers {
    fn place(&self, service: Service) -> &OnceLock<Arc<dyn Receiver>> {
        match service {
            Service::Node => &self.node,
            Service::Raft => &self.raft,
            Service::Broker => &self.broker,
            Service::Formation => &self.formation,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<dyn Receiver>> {
        Service::ALL.into_iter().filter_map(|service| self.place(service).get())
    }

    pub(crate) fn register(&self, service: Service, receiver: Arc<dyn Receiver>) {
        assert!(
            self.place(service).set(receiver).is_ok(),
            "{service:?} has a receiver already"
        );
    }

    pub(crate) fn up(&self, peer: PeerIdentity, epoch: LinkEpoch) {
        self.all().for_each(|receiver| receiver.up(peer, epoch));
    }

    pub(crate) fn frame(&self, from: PeerIdentity, epoch: LinkEpoch, lane: Lane, frame: Received) {
        match self.place(lane.service).get() {
            Some(receiver) => receiver.frame(from, epoch, lane, frame),
            None => counter!("nsquorum_link_unclaimed_frames_total").increment(1),
        }
    }

    pub(crate) fn down(&self, node: NodeId, epoch: LinkEpoch, evidence: Evidence) {
        self.all().for_each(|receiver| receiver.down(node, epoch, evidence));
    }
}
