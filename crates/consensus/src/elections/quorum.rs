//! Which peers have answered this node lately.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nsquorum_environment::{Clock, Monotonic};
use nsquorum_topic::NodeId;

use super::LEASE;

/// For each peer, when the last heartbeat that it answered was *sent*: whatever happened at the peer happened after that, so this node's
/// lease ends before any peer's patience does.
pub(crate) struct QuorumClock {
    clock: Arc<dyn Clock>,
    me: NodeId,
    answered: BTreeMap<NodeId, AtomicU64>,
    began: Monotonic,
}

impl QuorumClock {
    pub(crate) fn new(clock: Arc<dyn Clock>, me: NodeId, members: impl Iterator<Item = NodeId>) -> Arc<Self> {
        let answered = members.filter(|node| *node != me).map(|node| (node, AtomicU64::new(0)));
        Arc::new(Self {
            began: clock.now(),
            clock,
            me,
            answered: answered.collect(),
        })
    }

    /// The peer has answered the heartbeat that was sent then.
    pub(crate) fn answered(&self, peer: NodeId, sent: Monotonic) {
        // A time that has not come yet is not one of this process's: believing it would make a lease that never ends.
        if let Some(answered) = self.answered.get(&peer)
            && sent <= self.clock.now()
        {
            answered.fetch_max(sent.as_nanos(), Ordering::SeqCst);
        }
    }

    /// Whether the peer has answered within the lease.
    pub(crate) fn is_live(&self, peer: NodeId) -> bool {
        let now = self.clock.now();
        self.answered.get(&peer).is_some_and(|answered| {
            let sent = answered.load(Ordering::SeqCst);
            sent > 0 && now.since(Monotonic::from_nanos(sent)) < LEASE
        })
    }

    /// Whether this is the node itself.
    pub(crate) fn is_me(&self, node: NodeId) -> bool {
        node == self.me
    }

    /// How long the peer has answered nothing; since this node began, if it never did. Nothing for this node itself.
    pub(crate) fn silent_for(&self, node: NodeId) -> Duration {
        let Some(answered) = self.answered.get(&node) else {
            return if node == self.me { Duration::ZERO } else { Duration::MAX };
        };
        let sent = Monotonic::from_nanos(answered.load(Ordering::SeqCst));
        self.clock.now().since(sent.max(self.began))
    }

    /// Whether a majority of these replicas stands behind a leader here that was elected at `elected`: its voters have
    /// answered then, and heartbeats since.
    pub(crate) fn holds(&self, replicas: &[NodeId], elected: Monotonic) -> bool {
        let now = self.clock.now();
        if replicas == [self.me] || now.since(elected) < LEASE {
            return true;
        }
        let behind = replicas
            .iter()
            .filter(|node| **node == self.me || self.is_live(**node))
            .count();
        behind * 2 > replicas.len()
    }
}

#[cfg(test)]
mod tests {
    use nsquorum_environment::{ManualClock, WallTime};

    use super::*;

    const REPLICAS: [NodeId; 3] = [NodeId::new(1), NodeId::new(2), NodeId::new(3)];

    #[test]
    fn a_leader_holds_for_a_lease_after_its_election_and_after_each_answer() {
        let clock = Arc::new(ManualClock::new(WallTime::from_nanos(0)));
        clock.advance(LEASE * 10);
        let quorum = QuorumClock::new(Arc::clone(&clock) as Arc<dyn Clock>, REPLICAS[0], REPLICAS.into_iter());
        let elected = clock.now();
        assert!(quorum.holds(&REPLICAS, elected));
        clock.advance(LEASE);
        assert!(!quorum.holds(&REPLICAS, elected));
        let sent = clock.now();
        clock.advance(LEASE / 2);
        quorum.answered(REPLICAS[2], sent);
        assert!(quorum.holds(&REPLICAS, elected));
        clock.advance(LEASE / 2);
        assert!(!quorum.holds(&REPLICAS, elected), "the lease counts from the sending");
        assert!(quorum.holds(&REPLICAS[..1], elected), "a lone voter needs nobody");
    }

    #[test]
    fn silence_counts_from_the_last_answered_heartbeat_or_from_the_beginning() {
        let clock = Arc::new(ManualClock::new(WallTime::from_nanos(0)));
        clock.advance(LEASE);
        let quorum = QuorumClock::new(Arc::clone(&clock) as Arc<dyn Clock>, REPLICAS[0], REPLICAS.into_iter());
        clock.advance(LEASE);
        assert_eq!(quorum.silent_for(REPLICAS[0]), Duration::ZERO, "this node");
        assert_eq!(quorum.silent_for(REPLICAS[1]), LEASE);
        assert_eq!(
            quorum.silent_for(NodeId::new(9)),
            Duration::MAX,
            "nobody of this cluster"
        );
        let sent = clock.now();
        clock.advance(LEASE * 3);
        quorum.answered(REPLICAS[1], sent);
        assert_eq!(quorum.silent_for(REPLICAS[1]), LEASE * 3);
        assert_eq!(quorum.silent_for(REPLICAS[2]), LEASE * 4);
    }

    #[test]
    fn an_answer_from_the_future_counts_for_nothing() {
        let clock = Arc::new(ManualClock::new(WallTime::from_nanos(0)));
        let quorum = QuorumClock::new(Arc::clone(&clock) as Arc<dyn Clock>, REPLICAS[0], REPLICAS.into_iter());
        quorum.answered(REPLICAS[1], Monotonic::from_nanos(u64::MAX));
        assert!(!quorum.is_live(REPLICAS[1]));
    }
}
