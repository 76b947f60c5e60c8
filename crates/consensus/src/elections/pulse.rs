//! What this node hears of one group's leader, and what others may hear of this node's leadership.
//!
//! One object per group, written by whoever learns something (frames from peers, proposals, the group's own core) and read by the loop
//! that decides about elections. Every field stands for itself: nothing is inferred from two of them being changed together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nsquorum_environment::{Clock, Monotonic};
use nsquorum_links::PeerIdentity;
use nsquorum_topic::{NodeId, Term};
use parking_lot::Mutex;

use super::LEASE;

/// Word of a leader, from itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) leader: PeerIdentity,
    pub(crate) term: Term,
    pub(crate) at: Monotonic,
}

/// One group's signs of life on this node.
pub(crate) struct Pulse {
    clock: Arc<dyn Clock>,
    heard: Mutex<Option<Heard>>,
    /// The term that this node leads and serves in; 0 for none.
    serves: AtomicU64,
    /// When this node was last seen to be elected: a majority voted for it then.
    elected: AtomicU64,
    /// This node leads, but no majority has answered within the lease.
    silent: AtomicBool,
    core_answered: AtomicU64,
    proposed: AtomicU64,
}

impl Pulse {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            heard: Mutex::new(None),
            serves: AtomicU64::new(0),
            elected: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            core_answered: AtomicU64::new(0),
            proposed: AtomicU64::new(0),
        })
    }

    /// The leader of a term has said that it leads. A late word of an earlier term changes nothing.
    pub(crate) fn hear(&self, leader: PeerIdentity, term: Term) {
        let at = self.clock.now();
        let mut heard = self.heard.lock();
        if heard.is_none_or(|heard| heard.term <= term) {
            *heard = Some(Heard { leader, term, at });
        }
    }

    /// The last word of a leader, however old.
    pub(crate) fn heard(&self) -> Option<Heard> {
        *self.heard.lock()
    }

    /// The leader that was heard is gone, by this node's own evidence.
    pub(crate) fn forget(&self, leader: NodeId) {
        let mut heard = self.heard.lock();
        if heard.is_some_and(|heard| heard.leader.node == leader) {
            *heard = None;
        }
    }

    /// The leader that was heard within the lease.
    pub(crate) fn hears(&self) -> Option<NodeId> {
        let now = self.clock.now();
        let heard = self.heard().filter(|heard| now.since(heard.at) < LEASE)?;
        Some(heard.leader.node)
    }

    /// Whether a leader other than this candidate was heard within the lease.
    pub(crate) fn hears_other_than(&self, candidate: NodeId) -> bool {
        self.hears().is_some_and(|leader| leader != candidate)
    }

    /// This node serves as the leader of a term; `None`: it does not lead, or not yet.
    pub(crate) fn set_serving(&self, term: Option<Term>) {
        self.serves.store(term.map_or(0, Term::get), Ordering::SeqCst);
    }

    /// The term that this node serves in.
    pub(crate) fn serving(&self) -> Option<Term> {
        match self.serves.load(Ordering::SeqCst) {
            0 => None,
            term => Some(Term::new(term)),
        }
    }

    /// A majority has just elected this node.
    pub(crate) fn elected(&self) {
        self.elected.store(self.clock.now().as_nanos(), Ordering::SeqCst);
    }

    pub(crate) fn elected_at(&self) -> Monotonic {
        Monotonic::from_nanos(self.elected.load(Ordering::SeqCst))
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    /// Whether the majority was silent for a lease when last looked.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::SeqCst)
    }

    pub(crate) fn core_answered(&self) {
        self.core_answered.store(self.clock.now().as_nanos(), Ordering::Relaxed);
    }

    /// How long ago the group's core last answered.
    pub(crate) fn core_silent_for(&self, now: Monotonic) -> Duration {
        now.since(Monotonic::from_nanos(self.core_answered.load(Ordering::Relaxed)))
    }

    pub(crate) fn proposed(&self) {
        self.proposed.store(self.clock.now().as_nanos(), Ordering::Relaxed);
    }

    /// How long ago something was last proposed here.
    pub(crate) fn idle_for(&self, now: Monotonic) -> Duration {
        now.since(Monotonic::from_nanos(self.proposed.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use nsquorum_environment::{ManualClock, WallTime};
    use nsquorum_topic::NodeIncarnation;

    use super::*;

    fn peer(node: u64) -> PeerIdentity {
        PeerIdentity {
            cluster: None,
            node: NodeId::new(node),
            incarnation: NodeIncarnation::new(1),
        }
    }

    #[test]
    fn a_leader_is_heard_for_one_lease() {
        let clock = Arc::new(ManualClock::new(WallTime::from_nanos(0)));
        let pulse = Pulse::new(Arc::clone(&clock) as Arc<dyn Clock>);
        assert!(!pulse.hears_other_than(NodeId::new(2)));
        pulse.hear(peer(1), Term::new(4));
        assert!(pulse.hears_other_than(NodeId::new(2)));
        assert!(
            !pulse.hears_other_than(NodeId::new(1)),
            "a leader may be a candidate again"
        );
        clock.advance(LEASE);
        assert!(!pulse.hears_other_than(NodeId::new(2)));
    }

    #[test]
    fn a_late_word_of_an_earlier_term_does_not_renew() {
        let clock = Arc::new(ManualClock::new(WallTime::from_nanos(0)));
        let pulse = Pulse::new(Arc::clone(&clock) as Arc<dyn Clock>);
        pulse.hear(peer(1), Term::new(4));
        clock.advance(LEASE);
        pulse.hear(peer(2), Term::new(3));
        assert!(!pulse.hears_other_than(NodeId::new(3)));
    }

    #[test]
    fn only_the_leader_that_is_gone_is_forgotten() {
        let clock = Arc::new(ManualClock::new(WallTime::from_nanos(0)));
        let pulse = Pulse::new(Arc::clone(&clock) as Arc<dyn Clock>);
        pulse.hear(peer(1), Term::new(4));
        pulse.forget(NodeId::new(2));
        assert!(pulse.heard().is_some());
        pulse.forget(NodeId::new(1));
        assert!(pulse.heard().is_none());
    }
}
