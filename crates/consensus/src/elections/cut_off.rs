//! Whether somebody may lead a group whom this node does not reach.
//!
//! A node alone cannot tell that it is cut off from the leader from there being none. So it believes the first only if three things hold: it neither
//! leads nor is in contact with a leader; it and the replicas that answer it are a majority, so that there can be a leader at all where they are; and a
//! replica is silent without being known to be gone. That one may lead. If all the others answer or are gone, nobody leads, and an election takes its time.

use nsquorum_links::{Evidence, PeerState, Peers};
use nsquorum_topic::NodeId;

use super::QuorumClock;
use crate::peers::Port;

/// What this node knows of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It answers, or is this node: both directions work, so this node would hear of its leadership.
    Answers,
    /// It does not answer, for whatever reason.
    Silent,
    /// Nobody listens where it did: its process leads nothing.
    Gone,
}

/// Whether this node may be cut off from the leader of a group whose replica it holds.
pub(crate) fn is_cut_off(port: &Port, quorum: &QuorumClock, links: Option<&Peers>) -> bool {
    let standing = |node: &NodeId| match links.and_then(|links| links.get(node)) {
        _ if quorum.is_me(*node) || quorum.is_live(*node) => Standing::Answers,
        Some(PeerState::Down {
            evidence: Evidence::Refused,
            ..
        }) => Standing::Gone,
        _ => Standing::Silent,
    };
    may_be_led_elsewhere(port.replicas.iter().map(standing))
        // Word of a leader is not enough: it may be heard and not hear.
        && !port.pulse.hears().is_some_and(|leader| quorum.is_live(leader))
        && !port.replica.leadership().leading
}

fn may_be_led_elsewhere(replicas: impl Iterator<Item = Standing>) -> bool {
    let (mut all, mut answering, mut silent) = (0, 0, 0);
    for replica in replicas {
        all += 1;
        match replica {
            Standing::Answers => answering += 1,
            Standing::Silent => silent += 1,
            Standing::Gone => {}
        }
    }
    answering * 2 > all && silent > 0
}

#[cfg(test)]
mod tests {
    use super::Standing::{Answers, Gone, Silent};
    use super::*;

    fn may_be(replicas: &[Standing]) -> bool {
        may_be_led_elsewhere(replicas.iter().copied())
    }

    #[test]
    fn only_a_silent_replica_may_lead_and_only_where_there_is_a_majority() {
        assert!(
            may_be(&[Answers, Answers, Silent]),
            "the silent one may be led by, or lead, the other"
        );
        assert!(!may_be(&[Answers, Silent, Silent]), "the quorum may be lost as well");
        assert!(!may_be(&[Answers, Silent, Gone]), "the same");
        assert!(!may_be(&[Answers, Answers, Answers]), "a slow election");
        assert!(!may_be(&[Answers, Answers, Gone]), "the same, after a death");
        assert!(!may_be(&[Answers, Answers, Silent, Silent]), "half is no majority");
        assert!(may_be(&[Answers, Answers, Answers, Silent, Gone]));
    }
}
