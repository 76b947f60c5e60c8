//! Who founds, and when: the rules, without network or disk.

use std::collections::{BTreeMap, BTreeSet};

use nsquorum_storage::Member;
use nsquorum_topic::{ClusterId, NodeId};

use super::message::Message;

/// A cluster and its first members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founded {
    /// The cluster.
    pub cluster: ClusterId,
    /// All members, by node.
    pub members: Vec<Member>,
}

impl Founded {
    /// The answer to a node that has no cluster.
    pub(super) fn answer(&self, asking: NodeId) -> Message {
        let cluster = self.cluster.to_string();
        if self.members.iter().any(|member| member.node == asking.get()) {
            Message::Founded {
                cluster,
                members: self.members.clone(),
            }
        } else {
            Message::Stranger { cluster }
        }
    }
}

/// What a node without a cluster has heard so far.
#[derive(Debug)]
pub(super) struct Founding {
    me: NodeId,
    address: String,
    seeds: BTreeSet<String>,
    /// Who is at each seed's address, of those that are empty.
    empty: BTreeMap<String, NodeId>,
}

/// What follows from a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Nothing,
    /// Every seed is here and this node is the first: it founds with these members.
    Found(Vec<Member>),
    /// Somebody has.
    Join(Founded),
    /// There is a cluster already, and this node is not a member.
    Refused(String),
}

impl Founding {
    /// `address` is this node's own and one of the seeds.
    pub(super) fn new(me: NodeId, address: String, seeds: BTreeSet<String>) -> Self {
        assert!(seeds.contains(&address), "a node's own address is one of the seeds");
        let empty = BTreeMap::from([(address.clone(), me)]);
        Self {
            me,
            address,
            seeds,
            empty,
        }
    }

    /// What this node says to all others, again and again.
    pub(super) fn announcement(&self) -> Message {
        Message::Here {
            address: self.address.clone(),
        }
    }

    /// The seeds that have not said that they are empty.
    pub(super) fn missing(&self) -> Vec<&str> {
        self.seeds
            .iter()
            .filter(|seed| !self.empty.contains_key(*seed))
            .map(String::as_str)
            .collect()
    }

    /// A message from a node; `is_empty` iff its handshake named no cluster.
    pub(super) fn hear(&mut self, from: NodeId, is_empty: bool, message: Message) -> Outcome {
        match message {
            Message::Here { address } => {
                if is_empty && self.seeds.contains(&address) && address != self.address {
                    // A node that lost its empty directory comes back as another.
                    self.empty.insert(address, from);
                }
                self.found()
            }
            Message::Founded { cluster, members } => {
                let own = members.iter().find(|member| member.node == self.me.get());
                match ClusterId::parse(&cluster) {
                    Some(cluster) if own.is_some_and(|own| own.address == self.address) => {
                        Outcome::Join(Founded { cluster, members })
                    }
                    _ => Outcome::Nothing,
                }
            }
            Message::Stranger { cluster } => Outcome::Refused(cluster),
        }
    }

    /// The members, if this node has to found.
    pub(super) fn found(&self) -> Outcome {
        if self.seeds.first() != Some(&self.address) || self.empty.len() < self.seeds.len() {
            return Outcome::Nothing;
        }
        let mut members: Vec<Member> = self
            .empty
            .iter()
            .map(|(address, node)| Member {
                node: node.get(),
                address: address.clone(),
            })
            .collect();
        members.sort();
        Outcome::Found(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> (NodeId, String) {
        (NodeId::new(number), format!("10.0.0.{number}:4170"))
    }

    fn founding(number: u64) -> Founding {
        let (me, address) = node(number);
        Founding::new(me, address, (1..=3).map(|number| node(number).1).collect())
    }

    fn here(number: u64) -> Message {
        Message::Here {
            address: node(number).1,
        }
    }

    #[test]
    fn the_first_seed_founds_once_every_seed_is_empty() {
        let mut first = founding(1);
        assert_eq!(first.hear(node(3).0, true, here(3)), Outcome::Nothing);
        assert_eq!(first.missing(), [node(2).1]);
        let Outcome::Found(members) = first.hear(node(2).0, true, here(2)) else {
            panic!("all are here");
        };
        let numbers: Vec<_> = members.iter().map(|member| member.node).collect();
        assert_eq!(numbers, [1, 2, 3]);
    }

    #[test]
    fn nobody_else_founds() {
        let mut second = founding(2);
        assert_eq!(second.hear(node(1).0, true, here(1)), Outcome::Nothing);
        assert_eq!(second.hear(node(3).0, true, here(3)), Outcome::Nothing);
    }

    #[test]
    fn a_seed_with_a_cluster_keeps_lost_disks_from_founding_another() {
        let mut first = founding(1);
        assert_eq!(first.hear(node(3).0, true, here(3)), Outcome::Nothing);
        assert_eq!(first.hear(node(2).0, false, here(2)), Outcome::Nothing);
        let survivor = Founded {
            cluster: ClusterId::new([7; 16]),
            members: [4, 2, 5]
                .map(|number| Member {
                    node: number,
                    address: node(number).1,
                })
                .to_vec(),
        };
        let answer = survivor.answer(node(1).0);
        assert!(matches!(first.hear(node(2).0, false, answer), Outcome::Refused(_)));
    }

    #[test]
    fn members_join_and_only_as_what_they_are() {
        let members: Vec<_> = (1..=3)
            .map(|number| Member {
                node: number,
                address: node(number).1,
            })
            .collect();
        let founded = Founded {
            cluster: ClusterId::new([7; 16]),
            members,
        };
        let answer = founded.answer(node(2).0);
        assert_eq!(Message::decode(&answer.encode()), Some(answer.clone()));
        assert_eq!(
            founding(2).hear(node(1).0, false, answer.clone()),
            Outcome::Join(founded)
        );
        let (me, address) = (NodeId::new(9), node(2).1);
        let mut replaced = Founding::new(me, address, (1..=3).map(|number| node(number).1).collect());
        assert_eq!(replaced.hear(node(1).0, false, answer), Outcome::Nothing);
    }

    #[test]
    fn a_node_that_came_back_empty_counts_as_what_it_is_now() {
        let mut first = founding(1);
        assert_eq!(first.hear(NodeId::new(30), true, here(3)), Outcome::Nothing);
        assert_eq!(first.hear(node(3).0, true, here(3)), Outcome::Nothing);
        let Outcome::Found(members) = first.hear(node(2).0, true, here(2)) else {
            panic!("all are here");
        };
        assert!(members.iter().all(|member| member.node != 30));
    }
}
