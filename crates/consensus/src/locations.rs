//! Where each group's leader is, as far as this node knows.
//!
//! A location is a hint with an order: it never goes back to a lower term, and it may be out of date at any moment. Whoever follows it finds
//! out at the node that it names. It is learned from the log (`LeaderStart` applies on every replica) and, faster, from the leader itself,
//! which tells all nodes the moment that it serves; so nobody ever has to ask around.

use std::collections::BTreeMap;
use std::sync::Arc;

use nsquorum_topic::{GroupId, NodeId, Term};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Which node leads a group, and since which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderLocation {
    /// The term that it leads in. A higher term outranks a lower one, whoever tells it.
    pub term: Term,
    /// The leader.
    pub node: NodeId,
}

/// The locations of all groups. A clone refers to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaderLocations(Arc<Mutex<BTreeMap<GroupId, watch::Sender<Option<LeaderLocation>>>>>);

impl LeaderLocations {
    /// The location of one group's leader, and its changes.
    pub(crate) fn watch(&self, group: GroupId) -> watch::Receiver<Option<LeaderLocation>> {
        self.0.lock().entry(group).or_default().subscribe()
    }

    /// Somebody leads; ignored if a later term is known already. Says whether it was news.
    pub(crate) fn learn(&self, group: GroupId, location: LeaderLocation) -> bool {
        let mut groups = self.0.lock();
        groups.entry(group).or_default().send_if_modified(|known| {
            let news = known.is_none_or(|known| known.term < location.term);
            if news {
                *known = Some(location);
            }
            news
        })
    }

    /// The group is gone for good; whoever watches it sees the channel end.
    pub(crate) fn forget(&self, group: GroupId) {
        self.0.lock().remove(&group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, node: u64) -> LeaderLocation {
        LeaderLocation {
            term: Term::new(term),
            node: NodeId::new(node),
        }
    }

    #[test]
    fn a_late_word_of_an_earlier_term_changes_nothing() {
        let locations = LeaderLocations::default();
        let group = GroupId::new(1);
        let watch = locations.watch(group);
        assert_eq!(*watch.borrow(), None);
        assert!(locations.learn(group, at(3, 1)));
        assert!(!locations.learn(group, at(2, 2)));
        assert_eq!(*watch.borrow(), Some(at(3, 1)));
        assert!(locations.learn(group, at(4, 2)));
        assert_eq!(*watch.borrow(), Some(at(4, 2)));
    }

    #[test]
    fn a_deleted_group_ends_its_watches() {
        let locations = LeaderLocations::default();
        let mut watch = locations.watch(GroupId::new(1));
        watch.mark_unchanged();
        locations.forget(GroupId::new(1));
        assert!(watch.has_changed().is_err());
    }
}
