//! A consumer's end of a channel: deliveries one way, readiness and lease events the other.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nsquorum_topic::Seq;
use tokio::sync::{mpsc, oneshot};

use crate::leases::{Delivery, LeaseEvent, OrphanedLeases};
use crate::nearness::Nearness;
use crate::stats::ClientDescription;
use crate::topic_leader::{LeaderInput, TopicInput};

/// One subscription on this node; never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub(crate) u64);

/// What a consumer brings along when it subscribes.
#[derive(Clone, Debug)]
pub struct SubscriptionOptions {
    /// Who it is, for /stats.
    pub client: Arc<ClientDescription>,
    /// How long it may hold a message before the message returns (IDENTIFY `msg_timeout`).
    pub msg_timeout: Duration,
    /// How near it is to its node; `None` where no attention is paid to that.
    pub nearness: Option<Nearness>,
}

/// Why a subscription was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The topic or channel is being deleted. NSQ's wording.
    #[error("to deleted topic/channel")]
    Deleted,
    /// The topic could not be created or reached in time; a retry may help.
    #[error("the topic is not available: {0}")]
    Unavailable(String),
}

/// What happens on a subscription.
#[derive(Debug)]
pub enum SubscriptionEvent {
    /// A message for this consumer. It counts as in flight until a [`LeaseEvent`] for its token goes back.
    Deliver(Delivery),
    /// The channel was emptied: forget every lease; the leader already has.
    Emptied,
}

/// The delivering direction. Ends (`None`) when the channel or topic is deleted or the node stops: the connection is then closed
/// without an error frame, as nsqd does.
#[derive(Debug)]
pub struct DeliveryReceiver(pub(crate) mpsc::UnboundedReceiver<SubscriptionEvent>);

impl DeliveryReceiver {
    /// The next event; for use inside a hand-written poll loop. Bounded by the ready count: the leader never sends more deliveries than
    /// the consumer has room for.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<SubscriptionEvent>> {
        self.0.poll_recv(cx)
    }

    /// The next event.
    pub async fn next(&mut self) -> Option<SubscriptionEvent> {
        self.0.recv().await
    }
}

/// The controlling direction; cheap to clone.
#[derive(Clone, Debug)]
pub struct SubscriptionHandle {
    pub(crate) id: SubscriptionId,
    pub(crate) leader: mpsc::UnboundedSender<TopicInput>,
}

impl SubscriptionHandle {
    /// RDY: the ceiling of messages in flight on this subscription from now on.
    pub fn ready(&self, count: u32) {
        self.send(LeaderInput::Ready {
            subscription: self.id,
            count,
        });
    }

    /// What the lease table decided, in order.
    pub fn events(&self, events: Vec<LeaseEvent>) {
        if !events.is_empty() {
            self.send(LeaderInput::LeaseEvents { events });
        }
    }

    /// The consumer is gone. Its leases run on (NSQ keeps messages of a lost connection in flight until their own timeout).
    pub fn disconnect(&self, leases: OrphanedLeases) {
        self.send(LeaderInput::Disconnected {
            subscription: self.id,
            leases,
        });
    }

    /// Whether any consumer of the channel holds this message: decides between nsqd's two texts for a FIN that is refused.
    pub async fn is_in_flight(&self, seq: Seq) -> bool {
        let (answer, receiver) = oneshot::channel();
        self.send(LeaderInput::IsInFlight {
            subscription: self.id,
            seq,
            answer,
        });
        receiver.await.unwrap_or(false)
    }

    fn send(&self, input: LeaderInput) {
        // A leader that is gone has closed the delivering direction too; the connection ends by that.
        drop(self.leader.send(TopicInput::Client(input)));
    }
}

/// Both directions of a subscription.
#[derive(Debug)]
pub struct Subscription {
    /// Messages to deliver.
    pub deliveries: DeliveryReceiver,
    /// RDY and lease events.
    pub handle: SubscriptionHandle,
}
