//! The connection that a peer dialled: two streams become one link, and its receivers hear of it in order.

use std::sync::Arc;

use metrics::{Counter, counter};
use nsquorum_topic::NodeId;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::receivers::Receivers;
use crate::{Class, Evidence, Lane, LinkEpoch, PeerIdentity, Received, Rejection};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts {
    Only(Class),
    Both,
}

struct Connection {
    identity: PeerIdentity,
    epoch: LinkEpoch,
    parts: Parts,
    end: CancellationToken,
}

/// The incoming side of one peer.
pub(super) struct Incoming {
    node: NodeId,
    /// Held while receivers are called: it makes their calls come one at a time and in order although two tasks read.
    connection: Mutex<Option<Connection>>,
    frames: [Counter; 2],
    bytes: [Counter; 2],
}

const fn place(class: Class) -> usize {
    match class {
        Class::Control => 0,
        Class::Bulk => 1,
    }
}

impl Incoming {
    pub(super) fn new(node: NodeId) -> Self {
        let each = |name: &'static str| {
            Class::ALL.map(|class| counter!(name, "peer" => node.to_string(), "class" => class.name()))
        };
        Self {
            node,
            connection: Mutex::new(None),
            frames: each("nsquorum_link_received_frames_total"),
            bytes: each("nsquorum_link_received_bytes_total"),
        }
    }

    /// A stream of this connection passed its handshake. The second one of a connection brings the link up. Returns the token that
    /// ends both streams.
    pub(super) fn enter(
        &self,
        receivers: &Receivers,
        identity: PeerIdentity,
        epoch: LinkEpoch,
        class: Class,
    ) -> Result<CancellationToken, Rejection> {
        let mut connection = self.connection.lock();
        if let Some(present) = connection.as_mut() {
            let order = (present.identity.incarnation, present.epoch).cmp(&(identity.incarnation, epoch));
            match (order, present.parts) {
                (std::cmp::Ordering::Equal, Parts::Only(other)) if other != class => {
                    present.parts = Parts::Both;
                    receivers.up(identity, epoch);
                    return Ok(present.end.clone());
                }
                (std::cmp::Ordering::Equal | std::cmp::Ordering::Greater, _) => return Err(Rejection::Stale),
                (std::cmp::Ordering::Less, _) => self.end(receivers, &mut connection, Evidence::Reset),
            }
        }
        let end = CancellationToken::new();
        *connection = Some(Connection {
            identity,
            epoch,
            parts: Parts::Only(class),
            end: end.clone(),
        });
        Ok(end)
    }

    /// A frame came. Dropped if the connection is not the present one any more.
    pub(super) fn frame(
        &self,
        receivers: &Receivers,
        whole: PeerIdentity,
        epoch: LinkEpoch,
        lane: Lane,
        frame: Received,
    ) {
        let connection = self.connection.lock();
        let present = connection.as_ref().is_some_and(|present| {
            present.parts == Parts::Both && present.epoch == epoch && present.identity.incarnation == whole.incarnation
        });
        if present {
            self.frames[place(frame.class())].increment(1);
            self.bytes[place(frame.class())].increment(frame.len() as u64);
            receivers.frame(whole, epoch, lane, frame);
        }
    }

    /// A stream of this connection ended.
    pub(super) fn leave(&self, receivers: &Receivers, identity: PeerIdentity, epoch: LinkEpoch, evidence: Evidence) {
        let mut connection = self.connection.lock();
        let present = connection
            .as_ref()
            .is_some_and(|present| present.epoch == epoch && present.identity.incarnation == identity.incarnation);
        if present {
            self.end(receivers, &mut connection, evidence);
        }
    }

    fn end(&self, receivers: &Receivers, connection: &mut Option<Connection>, evidence: Evidence) {
        if let Some(ended) = connection.take() {
            ended.end.cancel();
            if ended.parts == Parts::Both {
                receivers.down(self.node, ended.epoch, evidence);
            }
        }
    }
}

/// Leaves when dropped, so that a reader that panics or is cancelled leaves too.
pub(super) struct Presence<'a> {
    pub(super) incoming: Arc<Incoming>,
    pub(super) receivers: &'a Receivers,
    pub(super) identity: PeerIdentity,
    pub(super) epoch: LinkEpoch,
    pub(super) evidence: Evidence,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.incoming
            .leave(self.receivers, self.identity, self.epoch, self.evidence);
    }
}
