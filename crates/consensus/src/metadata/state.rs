//! What the metadata group knows.

use std::collections::{BTreeMap, BTreeSet};

use nsquorum_environment::WallTime;
use nsquorum_protocol::TopicName;
use nsquorum_topic::{GroupId, NodeId, Seq};
use serde::{Deserialize, Serialize};

use super::command::MetadataCommand;
use super::nodes::NodeDescription;

/// How many more topics one node may begin to lead than the node that began with the fewest. A few topics stay where they are used, many spread.
const FIRST_LEADS_AHEAD_MAX: usize = 8;

/// A topic that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRecord {
    /// Its Raft group; never used for another topic.
    pub group: GroupId,
    /// The last message number that earlier lives of the name have used.
    pub seq_base: Seq,
    /// The nodes whose logs the group begins with: its first membership, ascending. Later changes are in its own log.
    pub replicas: Vec<NodeId>,
    /// The replica that campaigns first. Only a beginning: leadership moves on without the metadata.
    pub first_leader: NodeId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredTopic {
    group: u64,
    seq_base: u64,
    replicas: Vec<u64>,
    first_leader: u64,
}

/// For how long a replica is hidden, in wall time, ns since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hidden {
    since_ns: u64,
    until_ns: u64,
}

/// The state of the metadata group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataState {
    version: u32,
    /// Voters of the metadata group, as its own log says. New topics get them as replicas.
    members: BTreeSet<u64>,
    /// How clients reach them, once they have said so.
    #[serde(default)]
    nodes: BTreeMap<u64, NodeDescription>,
    next_group: u64,
    topics: BTreeMap<String, StoredTopic>,
    /// Names that were deleted, with the last number used: ids of one name never repeat.
    retired: BTreeMap<String, u64>,
    /// Deleted groups, and the replicas that may still have their data. Only a tombstone deletes data, never absence.
    tombstones: BTreeMap<u64, BTreeSet<u64>>,
    /// Per topic the replicas that discovery does not name for a while.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    hidden: BTreeMap<String, BTreeMap<u64, Hidden>>,
}

impl Default for MetadataState {
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            members: BTreeSet::new(),
            nodes: BTreeMap::new(),
            next_group: GroupId::METADATA.get() + 1,
            topics: BTreeMap::new(),
            retired: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            hidden: BTreeMap::new(),
        }
    }
}

impl MetadataState {
    const VERSION: u32 = 2;

    /// The topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = (TopicName, TopicRecord)> + '_ {
        self.topics.iter().map(|(name, stored)| {
            let name = TopicName::try_from(name.as_str()).expect("names are checked before they are stored");
            (name, stored.record())
        })
    }

    /// One topic.
    pub fn topic(&self, name: &TopicName) -> Option<TopicRecord> {
        self.topics.get(name.as_str()).map(StoredTopic::record)
    }

    /// Deleted groups whose data is to be deleted, with the replicas that have not reported it done.
    pub fn tombstones(&self) -> impl Iterator<Item = (GroupId, BTreeSet<NodeId>)> + '_ {
        self.tombstones
            .iter()
            .map(|(group, nodes)| (GroupId::new(*group), nodes.iter().copied().map(NodeId::new).collect()))
    }

    /// The storage nodes, ascending.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().copied().map(NodeId::new)
    }

    /// How clients reach a node, if it has said so.
    pub fn node(&self, node: NodeId) -> Option<&NodeDescription> {
        self.nodes.get(&node.get())
    }

    /// The replicas of a topic that those who look it up at `now` are not sent to, and since when.
    pub fn tombstoned_replicas(
        &self,
        topic: &TopicName,
        now: WallTime,
    ) -> impl Iterator<Item = (NodeId, WallTime)> + '_ {
        let replicas = self.hidden.get(topic.as_str()).into_iter().flatten();
        let hidden = replicas.filter(move |(_, hidden)| now.as_nanos() < hidden.until_ns);
        hidden.map(|(node, hidden)| (NodeId::new(*node), WallTime::from_nanos(hidden.since_ns)))
    }

    /// The metadata group's membership has changed.
    pub(crate) fn set_members(&mut self, members: BTreeSet<u64>) {
        self.members = members;
    }

    /// Folds one command into the state.
    pub(crate) fn apply(&mut self, command: &MetadataCommand) -> Result<(), String> {
        match command {
            MetadataCommand::Barrier => {}
            MetadataCommand::CreateTopic { name, at } => {
                TopicName::try_from(name.as_str()).map_err(|error| format!("topic name {name:?}: {error}"))?;
                if !self.topics.contains_key(name) {
                    let group = self.next_group;
                    let replicas: Vec<u64> = self.members.iter().copied().collect();
                    let first_leader = self.first_leader(*at).ok_or("a topic before the first membership")?;
                    let seq_base = self.retired.get(name).copied().unwrap_or(0);
                    self.next_group = group.checked_add(1).ok_or("no group number is left")?;
                    self.topics.insert(
                        name.clone(),
                        StoredTopic {
                            group,
                            seq_base,
                            replicas,
                            first_leader,
                        },
                    );
                }
            }
            MetadataCommand::DeleteTopic { name, group, last_seq } => {
                if self.topics.get(name).is_some_and(|topic| topic.group == *group)
                    && let Some(topic) = self.topics.remove(name)
                {
                    self.hidden.remove(name);
                    self.retired.insert(name.clone(), *last_seq);
                    self.tombstones.insert(*group, topic.replicas.into_iter().collect());
                }
            }
            MetadataCommand::AnnounceNode { node, description } => {
                self.nodes.insert(*node, description.clone());
            }
            MetadataCommand::TombstoneReplica {
                topic,
                node,
                since_ns,
                until_ns,
            } => {
                // What is over by this command's clock goes, so the map stays as small as what is hidden.
                self.hidden.retain(|_, replicas| {
                    replicas.retain(|_, hidden| *since_ns < hidden.until_ns);
                    !replicas.is_empty()
                });
                if self
                    .topics
                    .get(topic)
                    .is_some_and(|topic| topic.replicas.contains(node))
                {
                    let hidden = Hidden {
                        since_ns: *since_ns,
                        until_ns: *until_ns,
                    };
                    self.hidden.entry(topic.clone()).or_default().insert(*node, hidden);
                }
            }
            MetadataCommand::ForgetGroup { group, node } => {
                if let Some(nodes) = self.tombstones.get_mut(group) {
                    nodes.remove(node);
                    if nodes.is_empty() {
                        self.tombstones.remove(group);
                    }
                }
            }
        }
        Ok(())
    }

    /// The node that asks for the topic: whoever uses it first is connected there, and between a client and its topic's leader every other
    /// node is two hops. Unless that node has begun with far more topics than another: then the one with the fewest.
    fn first_leader(&self, at: Option<u64>) -> Option<u64> {
        let mut led: BTreeMap<u64, usize> = self.members.iter().map(|node| (*node, 0)).collect();
        for topic in self.topics.values() {
            if let Some(count) = led.get_mut(&topic.first_leader) {
                *count += 1;
            }
        }
        let (fewest, idlest) = led.iter().map(|(node, count)| (*count, *node)).min()?;
        at.filter(|node| {
            led.get(node)
                .is_some_and(|count| *count < fewest + FIRST_LEADS_AHEAD_MAX)
        })
        .or(Some(idlest))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data always serializes")
    }

    /// Reads an encoded state (a checkpoint of the metadata group). Offline tools use it to name groups.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let state: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if state.version != Self::VERSION {
            return Err(format!("metadata version {} is not known here", state.version));
        }
        if let Some(name) = state
            .topics
            .keys()
            .find(|name| TopicName::try_from(name.as_str()).is_err())
        {
            return Err(format!("topic name {name:?} is not valid"));
        }
        Ok(state)
    }
}

impl StoredTopic {
    fn record(&self) -> TopicRecord {
        TopicRecord {
            group: GroupId::new(self.group),
            seq_base: Seq::new(self.seq_base),
            replicas: self.replicas.iter().copied().map(NodeId::new).collect(),
            first_leader: NodeId::new(self.first_leader),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_three() -> MetadataState {
        let mut state = MetadataState::default();
        state.set_members(BTreeSet::from([1, 2, 3]));
        state
    }

    fn create(state: &mut MetadataState, name: &str) -> TopicRecord {
        create_at(state, name, None)
    }

    fn create_at(state: &mut MetadataState, name: &str, at: Option<u64>) -> TopicRecord {
        let name_of = name.into();
        state
            .apply(&MetadataCommand::CreateTopic { name: name_of, at })
            .expect("valid");
        state
            .topic(&TopicName::try_from(name).expect("valid"))
            .expect("created")
    }

    #[test]
    fn creating_twice_is_creating_once() {
        let mut state = of_three();
        let first = create(&mut state, "orders");
        assert_eq!(create(&mut state, "orders"), first);
        assert_ne!(create(&mut state, "invoices").group, first.group);
    }

    #[test]
    fn a_name_goes_on_counting_after_its_deletion_and_a_group_number_is_never_reused() {
        let mut state = of_three();
        let first = create(&mut state, "orders");
        let delete = MetadataCommand::DeleteTopic {
            name: "orders".into(),
            group: first.group.get(),
            last_seq: 41,
        };
        state.apply(&delete).expect("valid");
        let replicas = first.replicas.iter().copied().collect();
        assert_eq!(state.tombstones().collect::<Vec<_>>(), [(first.group, replicas)]);
        let second = create(&mut state, "orders");
        assert_eq!(second.seq_base, Seq::new(41));
        assert_ne!(second.group, first.group);
        state.apply(&delete).expect("a late delete names the old group");
        assert_eq!(
            state.topic(&TopicName::try_from("orders").expect("valid")),
            Some(second)
        );
        for (node, left) in [(1, 1), (1, 1), (3, 1), (2, 0)] {
            let group = first.group.get();
            state
                .apply(&MetadataCommand::ForgetGroup { group, node })
                .expect("valid");
            assert_eq!(state.tombstones().count(), left, "until every replica has reported");
        }
    }

    #[test]
    fn the_encoding_is_canonical_and_refuses_other_versions() {
        let mut state = of_three();
        create(&mut state, "b");
        create(&mut state, "a");
        let bytes = state.encode();
        assert_eq!(MetadataState::decode(&bytes).as_ref(), Ok(&state));
        let newer = String::from_utf8(bytes)
            .expect("json")
            .replace("\"version\":2", "\"version\":3");
        assert!(MetadataState::decode(newer.as_bytes()).is_err());
    }

    #[test]
    fn a_topic_begins_where_it_is_used_until_that_node_leads_far_more_than_another() {
        let mut state = of_three();
        let mut leaders = BTreeMap::new();
        for number in 0..300 {
            let record = create_at(&mut state, &format!("at-2-{number}"), Some(2));
            if number < FIRST_LEADS_AHEAD_MAX {
                assert_eq!(record.first_leader, NodeId::new(2), "topic {number}");
            }
            *leaders.entry(record.first_leader.get()).or_insert(0) += 1;
        }
        let (most, fewest) = (leaders[&2], leaders[&1].min(leaders[&3]));
        assert!(most <= fewest + FIRST_LEADS_AHEAD_MAX, "{leaders:?}");
        assert_eq!(create_at(&mut state, "at-3", Some(3)).first_leader, NodeId::new(3));
    }

    #[test]
    fn a_topic_that_no_member_asks_for_begins_where_the_fewest_do() {
        let mut state = of_three();
        for (number, at) in [None, Some(9), None, None, Some(9), None].into_iter().enumerate() {
            create_at(&mut state, &format!("topic-{number}"), at);
        }
        for node in 1..=3 {
            let led = state.topics().filter(|(_, topic)| topic.first_leader.get() == node);
            assert_eq!(led.count(), 2, "node {node}");
        }
    }

    #[test]
    fn a_tombstone_is_of_one_replica_and_ends_with_its_time_or_its_topic() {
        let mut state = of_three();
        let group = create(&mut state, "orders").group.get();
        create(&mut state, "bills");
        let topic = TopicName::try_from("orders").expect("valid");
        let at = WallTime::from_nanos;
        let hidden = |state: &MetadataState, now| state.tombstoned_replicas(&topic, at(now)).collect::<Vec<_>>();
        let tombstone = |state: &mut MetadataState, topic: &str, node, since_ns, until_ns| {
            let topic = topic.to_owned();
            let command = MetadataCommand::TombstoneReplica {
                topic,
                node,
                since_ns,
                until_ns,
            };
            state.apply(&command).expect("valid");
        };
        for (topic, node) in [("orders", 2), ("orders", 7), ("unknown", 1)] {
            tombstone(&mut state, topic, node, 10, 20);
        }
        assert_eq!(hidden(&state, 19), [(NodeId::new(2), at(10))]);
        assert_eq!(hidden(&state, 20), []);
        assert_eq!(MetadataState::decode(&state.encode()).as_ref(), Ok(&state));
        tombstone(&mut state, "bills", 1, 20, 30);
        assert_eq!(state.hidden.len(), 1, "what is over is forgotten");
        tombstone(&mut state, "orders", 3, 25, 99);
        let (name, last_seq) = ("orders".to_owned(), 0);
        state
            .apply(&MetadataCommand::DeleteTopic { name, group, last_seq })
            .expect("valid");
        create(&mut state, "orders");
        assert_eq!(hidden(&state, 26), [], "the next topic of the name has none");
    }

    /// Found by fuzzing: the next topic would have got the number of the metadata group.
    #[test]
    fn group_numbers_do_not_begin_again() {
        let mut state = of_three();
        state.next_group = u64::MAX;
        let create = MetadataCommand::CreateTopic {
            name: "orders".into(),
            at: None,
        };
        assert!(state.apply(&create).is_err());
        assert_eq!(state.topics().count(), 0);
    }

    #[test]
    fn a_bad_name_is_impossible() {
        let mut state = MetadataState::default();
        assert!(
            state
                .apply(&MetadataCommand::CreateTopic {
                    name: "no spaces".into(),
                    at: None
                })
                .is_err()
        );
    }
}
