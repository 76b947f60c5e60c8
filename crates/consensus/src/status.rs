//! The cluster as this node sees it, for people and their tools.
//!
//! Nothing of it is replicated or kept: which nodes answer comes from the links, and where replicas are from the leaders, who are asked and
//! have a second to answer. What nobody told is said to be unknown, never guessed.

use std::collections::BTreeMap;
use std::sync::Arc;

use nsquorum_environment::Clock;
use nsquorum_links::{PeerState, Peers};
use nsquorum_protocol::TopicName;
use nsquorum_topic::{GroupId, LogIndex, NodeId, NodeIncarnation};
use tokio::sync::watch;

use crate::elections::{QuorumClock, is_cut_off};
use crate::locations::LeaderLocation;
use crate::metadata::{MetadataState, NodeDescription};
use crate::node::NodeIdentity;
use crate::peers::Ports;
use crate::reports::{GroupReport, Reporters, led_here};

/// The cluster as one node sees it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The node that says this.
    pub asked: NodeIdentity,
    /// The storage nodes, ascending.
    pub nodes: Vec<NodeStatus>,
    /// The metadata group.
    pub metadata: GroupStatus,
    /// The topics, by name.
    pub topics: Vec<(TopicName, GroupStatus)>,
}

/// A storage node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Whether it answers.
    pub liveness: Liveness,
    /// Its start that was last heard of; `None`: none yet.
    pub incarnation: Option<NodeIncarnation>,
    /// How clients reach it, if it has said so.
    pub description: Option<NodeDescription>,
}

/// Whether a node answers the one that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It is the one that was asked.
    Here,
    /// It answers.
    Up,
    /// There is a connection, but no answer in time: paused, overloaded, or heard in one direction only.
    Silent,
    /// There is no connection, and this is what the last attempt showed.
    Down(String),
    /// It was not reached since the asked node began.
    NotReached,
}

impl Liveness {
    /// Whether the node answers.
    pub const fn is_alive(&self) -> bool {
        matches!(self, Self::Here | Self::Up)
    }
}

/// A Raft group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Who serves as its leader; `None`: nobody that answers.
    pub leader: Option<LeaderLocation>,
    /// The leader's last entry.
    pub last: Option<LogIndex>,
    /// The group's replicas: as many as its replication factor, R.
    pub replicas: Vec<ReplicaStatus>,
}

impl GroupStatus {
    /// Replicas that are in sync.
    pub fn in_sync(&self) -> usize {
        let in_sync = |replica: &&ReplicaStatus| matches!(replica.progress, Some(progress) if progress.in_sync);
        self.replicas.iter().filter(in_sync).count()
    }

    /// Whether it could lose fewer nodes than it should, or nobody knows.
    pub fn is_under_replicated(&self) -> bool {
        self.in_sync() < self.replicas.len()
    }
}

/// A replica of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Where it is.
    pub node: NodeId,
    /// What the group's leader says of it; `None` without a leader.
    pub progress: Option<ReplicaProgress>,
}

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// Entries of the leader that it is not known to have on disk; `None`: the leader has not heard of it in its term.
    pub lag_entries: Option<u64>,
    /// Its node answers the leader, and within the last ten seconds it had everything that the leader had at that moment.
    pub in_sync: bool,
}

/// What a status is made from. A clone makes the same.
#[derive(Clone)]
pub(crate) struct StatusSources {
    pub(crate) identity: NodeIdentity,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metadata: watch::Receiver<Arc<MetadataState>>,
    pub(crate) members: Vec<NodeId>,
    pub(crate) ports: Ports,
    pub(crate) quorum: Arc<QuorumClock>,
    /// `None` in a cluster of one.
    pub(crate) reporters: Option<Reporters>,
}

impl StatusSources {
    /// Whether somebody may lead the group whom this node does not reach. Asks nobody.
    pub(crate) fn is_cut_off(&self, group: GroupId) -> bool {
        let Some(port) = self.ports.get(group) else {
            return false;
        };
        let links = self
            .reporters
            .as_ref()
            .map(|reporters| Arc::clone(&reporters.links.peers().borrow()));
        is_cut_off(&port, &self.quorum, links.as_deref())
    }

    /// Asks around; takes a second at most.
    pub(crate) async fn gather(self) -> ClusterStatus {
        let me = self.identity.node;
        let mut reports = vec![(me, Some(led_here(&self.ports, &self.quorum, self.clock.now())))];
        let mut links = Arc::new(Peers::new());
        if let Some(reporters) = &self.reporters {
            links = Arc::clone(&reporters.links.peers().borrow());
            let live = self.members.iter().copied().filter(|node| self.quorum.is_live(*node));
            reports.extend(reporters.ask(live).await);
        }
        let answered = |node: NodeId| reports.iter().any(|(of, report)| *of == node && report.is_some());
        let state = Arc::clone(&self.metadata.borrow());
        let nodes = self.members.iter().map(|node| {
            let (liveness, incarnation) = match links.get(node) {
                _ if *node == me => (Liveness::Here, Some(self.identity.incarnation)),
                Some(PeerState::Up { identity, .. }) if answered(*node) => (Liveness::Up, Some(identity.incarnation)),
                Some(PeerState::Up { identity, .. }) => (Liveness::Silent, Some(identity.incarnation)),
                Some(PeerState::Down { evidence, last }) => (
                    Liveness::Down(evidence.to_string()),
                    last.map(|identity| identity.incarnation),
                ),
                Some(PeerState::Connecting) | None => (Liveness::NotReached, None),
            };
            NodeStatus {
                node: *node,
                liveness,
                incarnation,
                description: state.node(*node).cloned(),
            }
        });
        let leaders = leaders(&reports);
        ClusterStatus {
            asked: self.identity,
            nodes: nodes.collect(),
            metadata: group_status(GroupId::METADATA, &self.members, &leaders),
            topics: state
                .topics()
                .map(|(name, record)| (name, group_status(record.group, &record.replicas, &leaders)))
                .collect(),
        }
    }
}

/// For each group the one that serves it in the highest term.
fn leaders(reports: &[(NodeId, Option<Vec<GroupReport>>)]) -> BTreeMap<GroupId, (NodeId, &GroupReport)> {
    let mut leaders: BTreeMap<GroupId, (NodeId, &GroupReport)> = BTreeMap::new();
    for (node, report) in reports
        .iter()
        .filter_map(|(node, report)| Some((*node, report.as_ref()?)))
    {
        for group in report.iter().filter(|group| group.led.serves) {
            let known = leaders.entry(group.led.group).or_insert((node, group));
            if known.1.led.term < group.led.term {
                *known = (node, group);
            }
        }
    }
    leaders
}

fn group_status(
    group: GroupId,
    replicas: &[NodeId],
    leaders: &BTreeMap<GroupId, (NodeId, &GroupReport)>,
) -> GroupStatus {
    let leader = leaders.get(&group);
    let last = leader.and_then(|(_, report)| report.last);
    let progress = |node: &NodeId| {
        let (_, report) = leader?;
        let replica = report.replicas.iter().find(|replica| replica.node == *node)?;
        let behind = |matched: LogIndex| last.map_or(0, LogIndex::get).saturating_sub(matched.get());
        Some(ReplicaProgress {
            lag_entries: replica.matched.map(behind),
            in_sync: replica.in_sync,
        })
    };
    GroupStatus {
        group,
        leader: leader.map(|(node, report)| LeaderLocation {
            term: report.led.term,
            node: *node,
        }),
        last,
        replicas: replicas
            .iter()
            .map(|node| ReplicaStatus {
                node: *node,
                progress: progress(node),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use nsquorum_topic::Term;

    use super::*;
    use crate::peers::Led;
    use crate::reports::ReplicaReport;

    const NODES: [NodeId; 3] = [NodeId::new(1), NodeId::new(2), NodeId::new(3)];
    const GROUP: GroupId = GroupId::new(5);

    fn report(term: u64, serves: bool, matched: [Option<u64>; 3]) -> GroupReport {
        let replica = |(node, matched): (NodeId, Option<u64>)| ReplicaReport {
            node,
            matched: matched.map(LogIndex::new),
            in_sync: matched == Some(20),
        };
        GroupReport {
            led: Led {
                group: GROUP,
                term: Term::new(term),
                serves,
            },
            last: Some(LogIndex::new(20)),
            replicas: NODES.into_iter().zip(matched).map(replica).collect(),
        }
    }

    fn status_of(reports: &[(NodeId, Option<Vec<GroupReport>>)]) -> GroupStatus {
        group_status(GROUP, &NODES, &leaders(reports))
    }

    #[test]
    fn an_old_leader_that_does_not_know_of_its_end_is_outranked() {
        let reports = [
            (NODES[2], Some(vec![report(7, true, [Some(20), Some(20), Some(20)])])),
            (NODES[0], Some(vec![report(6, true, [Some(20), Some(20), Some(20)])])),
            (NODES[1], None),
        ];
        let status = status_of(&reports);
        let leader = status.leader.expect("somebody leads");
        assert_eq!((leader.node, leader.term), (NODES[2], Term::new(7)));
        assert!(!status.is_under_replicated());
    }

    #[test]
    fn without_a_leader_that_serves_nothing_is_known() {
        let reports = [(NODES[0], Some(vec![report(6, false, [Some(20), Some(20), Some(20)])]))];
        let status = status_of(&reports);
        assert_eq!((status.leader, status.last, status.in_sync()), (None, None, 0));
        assert!(status.replicas.iter().all(|replica| replica.progress.is_none()));
        assert!(status.is_under_replicated());
    }

    #[test]
    fn lag_is_counted_from_the_leaders_last_entry() {
        let status = status_of(&[(NODES[1], Some(vec![report(6, true, [Some(12), Some(20), None])]))]);
        let lags: Vec<_> = status
            .replicas
            .iter()
            .map(|replica| replica.progress.expect("there is a leader").lag_entries)
            .collect();
        assert_eq!(lags, [Some(8), Some(0), None]);
        assert_eq!((status.in_sync(), status.is_under_replicated()), (1, true));
    }
}
