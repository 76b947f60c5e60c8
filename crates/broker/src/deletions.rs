//! Which topics other nodes have deleted lately.
//!
//! A tool that takes a cluster for so many single nodes posts `/topic/delete` to each of them. The first deletes the topic; the others must
//! not delete what was created anew under the name after the click.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Groups that this node's own clients are deleting.
    own: BTreeSet<GroupId>,
    /// When a topic was seen to go that somebody else had deleted.
    others: BTreeMap<TopicName, Monotonic>,
}

impl Deletions {
    /// A client of this node deletes the topic.
    pub(crate) fn begin(&self, group: GroupId) {
        self.0.lock().own.insert(group);
    }

    /// It was not deleted, as far as this node knows.
    pub(crate) fn failed(&self, group: GroupId) {
        self.0.lock().own.remove(&group);
    }

    /// The topic is gone.
    pub(crate) fn deleted(&self, topic: &TopicName, group: GroupId, now: Monotonic) {
        let mut known = self.0.lock();
        known.others.retain(|_, at| now.since(*at) < REPEATED_WITHIN);
        if !known.own.remove(&group) {
            known.others.insert(topic.clone(), now);
        }
    }

    /// Whether somebody else has deleted the topic a moment ago. `known_as` is the group under which this node still routes the name, and
    /// `group` the one that the metadata has: if they differ, the deletion is too new to have been told of.
    pub(crate) fn is_repeated(
        &self,
        topic: &TopicName,
        known_as: Option<GroupId>,
        group: Option<GroupId>,
        now: Monotonic,
    ) -> bool {
        let known = self.0.lock();
        let is_gone = |group: &GroupId| !known.own.contains(group);
        let was_seen = known
            .others
            .get(topic)
            .is_some_and(|at| now.since(*at) < REPEATED_WITHIN);
        was_seen || (known_as != group && known_as.as_ref().is_some_and(is_gone))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deletion_of_another_node_is_remembered_for_a_while_and_an_own_one_is_not() {
        let (mine, theirs) = (GroupId::new(1), GroupId::new(2));
        let (first, second): (TopicName, TopicName) = ("a".parse().expect("valid"), "b".parse().expect("valid"));
        let now = Monotonic::START + Duration::from_secs(60);
        let deletions = Deletions::default();
        deletions.begin(mine);
        deletions.deleted(&first, mine, now);
        deletions.deleted(&second, theirs, now);
        assert!(!deletions.is_repeated(&first, None, None, now));
        assert!(deletions.is_repeated(&second, None, None, now));
        assert!(!deletions.is_repeated(&second, None, None, now + REPEATED_WITHIN));
    }

    #[test]
    fn a_deletion_that_the_metadata_knows_counts_before_the_group_has_stopped() {
        let topic: TopicName = "a".parse().expect("valid");
        let (old, new) = (Some(GroupId::new(1)), Some(GroupId::new(2)));
        let deletions = Deletions::default();
        let is_repeated = |known_as, group| deletions.is_repeated(&topic, known_as, group, Monotonic::START);
        assert!(is_repeated(old, None));
        assert!(is_repeated(old, new));
        assert!(!is_repeated(old, old));
        assert!(!is_repeated(None, new), "a topic whose group has not started yet");
        deletions.begin(GroupId::new(1));
        assert!(!is_repeated(old, None), "this node's own");
    }
}
