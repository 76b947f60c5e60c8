//! Which topics other nodes have deleted lately.
//!
//! A tool that takes a cluster for so many single nodes posts `/topic/delete` to each of them. The first deletes the topic; the others must
//! not delete what was created anew under the name after the click.
//!
//! Every deletion that a node sees excuses it from *one* that it is asked for, within a while. So a second click takes effect at whichever node it
//! reaches first: tools ask the nodes in another order each time, and maybe not all of them. A node that hangs and is asked twice, late, has
//! by then seen two deletions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nsquorum_environment::Monotonic;
use nsquorum_protocol::TopicName;
use nsquorum_topic::GroupId;
use parking_lot::Mutex;

use crate::topic_leader::REPEATED_WITHIN;

/// Shared by all who delete at this node.
#[derive(Debug, Default)]
pub(crate) struct Deletions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Groups that this node's own clients have asked to delete and that still run here.
    asked: BTreeSet<GroupId>,
    /// When a topic was seen to go without this node having been asked, oldest first. Each is a change of the metadata, so they are few.
    unasked: BTreeMap<TopicName, VecDeque<Monotonic>>,
}

impl Known {
    fn forget_old(&mut self, now: Monotonic) {
        self.unasked.retain(|_, seen| {
            seen.retain(|at| now.since(*at) < REPEATED_WITHIN);
            !seen.is_empty()
        });
    }
}

impl Deletions {
    /// A client of this node deletes the topic.
    pub(crate) fn begin(&self, group: GroupId) {
        self.0.lock().asked.insert(group);
    }

    /// It was not deleted, as far as this node knows.
    pub(crate) fn failed(&self, group: GroupId) {
        self.0.lock().asked.remove(&group);
    }

    /// The topic is gone.
    pub(crate) fn deleted(&self, topic: &TopicName, group: GroupId, now: Monotonic) {
        let mut known = self.0.lock();
        known.forget_old(now);
        if !known.asked.remove(&group) {
            known.unasked.entry(topic.clone()).or_default().push_back(now);
        }
    }

    /// This node is asked to delete a topic. Whether that is what another node has done a moment ago. `known_as` is the group under which this
    /// node still routes the name, and `group` the one that the metadata has: if they differ, the deletion is too new to have been told of.
    pub(crate) fn take_repeated(
        &self,
        topic: &TopicName,
        known_as: Option<GroupId>,
        group: Option<GroupId>,
        now: Monotonic,
    ) -> bool {
        let mut known = self.0.lock();
        known.forget_old(now);
        if let Some(seen) = known.unasked.get_mut(topic)
            && seen.pop_front().is_some()
        {
            return true;
        }
        match known_as {
            Some(stopping) if known_as != group => known.asked.insert(stopping),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn topic(name: &str) -> TopicName {
        name.parse().expect("valid")
    }

    #[test]
    fn a_deletion_through_another_node_is_remembered_for_a_while_and_an_own_one_is_not() {
        let (mine, theirs) = (GroupId::new(1), GroupId::new(2));
        let (first, second) = (topic("a"), topic("b"));
        let now = Monotonic::START + Duration::from_secs(60);
        let deletions = Deletions::default();
        deletions.begin(mine);
        deletions.deleted(&first, mine, now);
        assert!(!deletions.take_repeated(&first, None, None, now));
        deletions.deleted(&second, theirs, now);
        assert!(!deletions.take_repeated(&second, None, None, now + REPEATED_WITHIN));
    }

    #[test]
    fn each_deletion_that_was_seen_excuses_from_one() {
        let topic = topic("a");
        let (now, new) = (Monotonic::START, Some(GroupId::new(9)));
        let deletions = Deletions::default();
        deletions.deleted(&topic, GroupId::new(1), now);
        assert!(deletions.take_repeated(&topic, new, new, now), "the same click");
        assert!(!deletions.take_repeated(&topic, new, new, now), "the next one");
        deletions.deleted(&topic, GroupId::new(2), now);
        deletions.deleted(&topic, GroupId::new(3), now);
        for _ in 0..2 {
            assert!(
                deletions.take_repeated(&topic, new, new, now),
                "asked late, of both clicks"
            );
        }
        assert!(!deletions.take_repeated(&topic, new, new, now));
    }

    #[test]
    fn a_deletion_that_the_metadata_knows_counts_before_the_group_has_stopped() {
        let (topic, now) = (topic("a"), Monotonic::START);
        let (old, new) = (Some(GroupId::new(1)), Some(GroupId::new(2)));
        for group in [None, new] {
            let deletions = Deletions::default();
            assert!(deletions.take_repeated(&topic, old, group, now));
            assert!(!deletions.take_repeated(&topic, old, group, now), "once");
            deletions.deleted(&topic, GroupId::new(1), now);
            assert!(
                !deletions.take_repeated(&topic, new, new, now),
                "its end is not another one"
            );
        }
        let deletions = Deletions::default();
        assert!(!deletions.take_repeated(&topic, old, old, now));
        assert!(
            !deletions.take_repeated(&topic, None, new, now),
            "a topic whose group has not started yet"
        );
        deletions.begin(GroupId::new(1));
        assert!(!deletions.take_repeated(&topic, old, None, now), "this node's own");
    }
}
