//! GET /cluster/status: the cluster as this node sees it, and what is wrong with it.
//!
//! The shape is documented in docs/operating.md. Scripts read it: fields may be added, never renamed.

use std::collections::BTreeMap;

use nsquorum_broker::{ClusterStatus, GroupStatus, Health, Liveness, NodeStatus};
use nsquorum_topic::NodeId;
use serde::Serialize;

use super::info::to_json;
use super::{Answer, HttpFrontend};
use nsquorum_http::HttpError;

/// Topics that a problem names; the rest is counted.
const NAMED_MAX: usize = 5;

/// Whether publishes and deliveries work, and what the next failure would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Everything is there.
    Ok,
    /// Everything works, but something is missing.
    Degraded,
    /// Some topic, or the creation of topics, does not work.
    Unavailable,
}

#[derive(Debug, Serialize)]
struct StatusJson<'a> {
    state: State,
    problems: Vec<String>,
    asked: AskedJson<'a>,
    replication_factor: usize,
    nodes: Vec<NodeJson<'a>>,
    metadata: GroupJson,
    topics: Vec<TopicJson<'a>>,
}

#[derive(Debug, Serialize)]
struct AskedJson<'a> {
    node: u64,
    health: &'a str,
}

#[derive(Debug, Serialize)]
struct NodeJson<'a> {
    id: u64,
    alive: bool,
    state: &'static str,
    cause: Option<&'a str>,
    incarnation: Option<u64>,
    version: Option<&'a str>,
    hostname: Option<&'a str>,
    address: Option<&'a str>,
    tcp_port: Option<u16>,
    http_port: Option<u16>,
    leads: usize,
}

#[derive(Debug, Serialize)]
struct TopicJson<'a> {
    name: &'a str,
    #[serde(flatten)]
    group: GroupJson,
}

#[derive(Debug, Serialize)]
struct GroupJson {
    group: u64,
    leader: Option<u64>,
    term: Option<u64>,
    last_index: Option<u64>,
    replication_factor: usize,
    in_sync: usize,
    under_replicated: bool,
    replicas: Vec<ReplicaJson>,
}

#[derive(Debug, Serialize)]
struct ReplicaJson {
    node: u64,
    in_sync: Option<bool>,
    lag_entries: Option<u64>,
}

impl HttpFrontend {
    pub(super) async fn cluster_status(&self) -> Answer {
        let status = self.broker.cluster_status().await;
        let mut status = status.ok_or(HttpError::unavailable("RECOVERING"))?;
        self.describe_this_node(&mut status);
        let health = match self.broker.health() {
            Health::Ok => "OK".to_owned(),
            Health::NotOk(cause) => cause,
        };
        to_json(&status_json(&status, &health))
    }

    /// A node that is alone has nobody to tell how it is reached. Through the file system alone no other machine reaches it.
    fn describe_this_node(&self, status: &mut ClusterStatus) {
        let (Some(tcp_port), Some(http_port)) = (self.tcp_port, self.http_port) else {
            return;
        };
        let mut nodes = status.nodes.iter_mut();
        if let Some(here) = nodes.find(|node| node.liveness == Liveness::Here && node.description.is_none()) {
            here.description = Some(nsquorum_broker::NodeDescription {
                hostname: self.config.hostname.clone(),
                broadcast_address: self.config.broadcast_address.clone(),
                tcp_port,
                http_port,
                version: self.config.features.version.clone(),
                topology_zone: self.config.features.topology_zone.clone(),
                topology_region: self.config.features.topology_region.clone(),
                release: self.config.release.clone(),
            });
        }
    }
}

fn status_json<'a>(status: &'a ClusterStatus, health: &'a str) -> StatusJson<'a> {
    let (state, problems) = assess(status, health);
    let groups = || std::iter::once(&status.metadata).chain(status.topics.iter().map(|(_, group)| group));
    let leads = |node: NodeId| {
        let led = groups().filter(|group| group.leader.is_some_and(|leader| leader.node == node));
        led.count()
    };
    StatusJson {
        state,
        problems,
        asked: AskedJson {
            node: status.asked.node.get(),
            health,
        },
        replication_factor: status.metadata.replicas.len(),
        nodes: status
            .nodes
            .iter()
            .map(|node| node_json(node, leads(node.node)))
            .collect(),
        metadata: group_json(&status.metadata),
        topics: status
            .topics
            .iter()
            .map(|(name, group)| TopicJson {
                name: name.as_str(),
                group: group_json(group),
            })
            .collect(),
    }
}

fn node_json(node: &NodeStatus, leads: usize) -> NodeJson<'_> {
    let description = node.description.as_ref();
    let (state, cause) = match &node.liveness {
        Liveness::Here => ("here", None),
        Liveness::Up => ("up", None),
        Liveness::Silent => ("silent", None),
        Liveness::Down(cause) => ("down", Some(cause.as_str())),
        Liveness::NotReached => ("not_reached", None),
    };
    NodeJson {
        id: node.node.get(),
        alive: node.liveness.is_alive(),
        state,
        cause,
        incarnation: node.incarnation.map(nsquorum_topic::NodeIncarnation::get),
        version: description.map(|node| node.release.as_str()),
        hostname: description.map(|node| node.hostname.as_str()),
        address: description.map(|node| node.broadcast_address.as_str()),
        tcp_port: description.map(|node| node.tcp_port),
        http_port: description.map(|node| node.http_port),
        leads,
    }
}

fn group_json(group: &GroupStatus) -> GroupJson {
    let replicas = group.replicas.iter().map(|replica| ReplicaJson {
        node: replica.node.get(),
        in_sync: replica.progress.map(|progress| progress.in_sync),
        lag_entries: replica.progress.and_then(|progress| progress.lag_entries),
    });
    GroupJson {
        group: group.group.get(),
        leader: group.leader.map(|leader| leader.node.get()),
        term: group.leader.map(|leader| leader.term.get()),
        last_index: group.last.map(nsquorum_topic::LogIndex::get),
        replication_factor: group.replicas.len(),
        in_sync: group.in_sync(),
        under_replicated: group.is_under_replicated(),
        replicas: replicas.collect(),
    }
}

/// What a person has to know, the worst first.
fn assess(status: &ClusterStatus, health: &str) -> (State, Vec<String>) {
    let mut state = State::Ok;
    let mut problems = Vec::new();
    let mut problem = |how_bad: State, what: String| {
        state = state.max(how_bad);
        problems.push(what);
    };
    if status.metadata.leader.is_none() {
        problem(
            State::Unavailable,
            "no node leads the metadata: topics cannot be created or deleted".to_owned(),
        );
    }
    let leaderless = status.topics.iter().filter(|(_, group)| group.leader.is_none());
    let leaderless: Vec<&str> = leaderless.map(|(name, _)| name.as_str()).collect();
    if !leaderless.is_empty() {
        let (count, names) = counted(&leaderless);
        problem(
            State::Unavailable,
            format!("{count} without a leader, publishes fail: {names}"),
        );
    }
    if health != "OK" {
        problem(
            State::Degraded,
            format!("the node that was asked refuses publishes: {health}"),
        );
    }
    for node in status.nodes.iter().filter(|node| !node.liveness.is_alive()) {
        let address = node.description.as_ref().map_or_else(String::new, |node| {
            format!(" ({}:{})", node.broadcast_address, node.http_port)
        });
        let what = match &node.liveness {
            Liveness::Down(cause) => format!("is down: {cause}"),
            Liveness::Silent => "does not answer, though it is connected".to_owned(),
            Liveness::NotReached | Liveness::Here | Liveness::Up => "was not reached yet".to_owned(),
        };
        problem(State::Degraded, format!("node {}{address} {what}", node.node));
    }
    // By how much is left, the least first.
    let mut short: BTreeMap<(usize, usize), Vec<&str>> = BTreeMap::new();
    let metadata = std::iter::once(("(metadata)", &status.metadata));
    let topics = status.topics.iter().map(|(name, group)| (name.as_str(), group));
    for (name, group) in metadata.chain(topics) {
        if group.leader.is_some() && group.is_under_replicated() {
            let of = (group.in_sync(), group.replicas.len());
            short.entry(of).or_default().push(name);
        }
    }
    for ((in_sync, replicas), names) in short {
        let (count, names) = counted(&names);
        let spare = in_sync.saturating_sub(replicas / 2 + 1);
        let risk = match spare {
            0 => "none of which may be lost".to_owned(),
            spare => format!("{spare} of which may be lost"),
        };
        problem(
            State::Degraded,
            format!("{count} with {in_sync} of {replicas} replicas in sync, {risk}: {names}"),
        );
    }
    (state, problems)
}

/// How many, and the first names.
fn counted(names: &[&str]) -> (String, String) {
    let count = match names.len() {
        1 => "1 topic".to_owned(),
        many => format!("{many} topics"),
    };
    let mut named = names[..names.len().min(NAMED_MAX)].join(", ");
    if names.len() > NAMED_MAX {
        named.push_str(", …");
    }
    (count, named)
}

#[cfg(test)]
mod tests {
    use nsquorum_broker::{LeaderLocation, NodeIdentity, ReplicaProgress, ReplicaStatus};
    use nsquorum_topic::{GroupId, LogIndex, NodeIncarnation, Term};

    use super::*;

    fn group(number: u64, leader: Option<u64>, in_sync: [bool; 3]) -> GroupStatus {
        let replica = |(node, in_sync): (u64, bool)| ReplicaStatus {
            node: NodeId::new(node),
            progress: leader.map(|_| ReplicaProgress {
                lag_entries: Some(if in_sync { 0 } else { 7 }),
                in_sync,
            }),
        };
        GroupStatus {
            group: GroupId::new(number),
            leader: leader.map(|node| LeaderLocation {
                term: Term::new(4),
                node: NodeId::new(node),
            }),
            last: leader.map(|_| LogIndex::new(20)),
            replicas: (1..=3).zip(in_sync).map(replica).collect(),
        }
    }

    fn status(liveness: [Liveness; 3], metadata: GroupStatus, topics: Vec<(&str, GroupStatus)>) -> ClusterStatus {
        let node = |(node, liveness): (u64, Liveness)| NodeStatus {
            node: NodeId::new(node),
            liveness,
            incarnation: Some(NodeIncarnation::new(3)),
            description: None,
        };
        ClusterStatus {
            asked: NodeIdentity {
                node: NodeId::new(1),
                incarnation: NodeIncarnation::new(3),
            },
            nodes: (1..=3).zip(liveness).map(node).collect(),
            metadata,
            topics: topics
                .into_iter()
                .map(|(name, group)| (name.parse().expect("a name"), group))
                .collect(),
        }
    }

    const ALL: [Liveness; 3] = [Liveness::Here, Liveness::Up, Liveness::Up];

    #[test]
    fn a_cluster_with_everything_has_no_problems() {
        let topics = vec![("orders", group(1, Some(2), [true; 3]))];
        let status = status(ALL, group(0, Some(1), [true; 3]), topics);
        assert_eq!(assess(&status, "OK"), (State::Ok, Vec::new()));
        assert_eq!(assess(&status, "disk full").0, State::Degraded);
    }

    #[test]
    fn a_dead_node_and_what_it_costs_are_named() {
        let topics = vec![
            ("orders", group(1, Some(2), [true, true, false])),
            ("bills", group(2, Some(1), [true, true, false])),
        ];
        let liveness = [
            Liveness::Here,
            Liveness::Up,
            Liveness::Down("connection refused".into()),
        ];
        let status = status(liveness, group(0, Some(1), [true; 3]), topics);
        let (state, problems) = assess(&status, "OK");
        assert_eq!(state, State::Degraded);
        assert_eq!(
            problems,
            [
                "node 3 is down: connection refused",
                "2 topics with 2 of 3 replicas in sync, none of which may be lost: orders, bills",
            ]
        );
    }

    #[test]
    fn a_topic_without_a_leader_is_worse_than_a_dead_node() {
        let topics = vec![("orders", group(1, None, [false; 3]))];
        let liveness = [Liveness::Here, Liveness::Silent, Liveness::NotReached];
        let status = status(liveness, group(0, None, [false; 3]), topics);
        let (state, problems) = assess(&status, "OK");
        assert_eq!(state, State::Unavailable);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn the_documented_shape() {
        let topics = vec![("orders", group(1, Some(2), [true, true, false]))];
        let liveness = [
            Liveness::Here,
            Liveness::Up,
            Liveness::Down("connection refused".into()),
        ];
        let status = status(liveness, group(0, Some(1), [true; 3]), topics);
        let json = serde_json::to_value(status_json(&status, "OK")).expect("plain data");
        assert_eq!(json["state"], "degraded");
        assert_eq!(json["asked"], serde_json::json!({"node": 1, "health": "OK"}));
        assert_eq!(json["replication_factor"], 3);
        assert_eq!(
            json["nodes"][2],
            serde_json::json!({
                "id": 3, "alive": false, "state": "down", "cause": "connection refused", "incarnation": 3, "version": null,
                "hostname": null, "address": null, "tcp_port": null, "http_port": null, "leads": 0,
            })
        );
        assert_eq!(
            json["topics"][0],
            serde_json::json!({
                "name": "orders", "group": 1, "leader": 2, "term": 4, "last_index": 20, "replication_factor": 3, "in_sync": 2,
                "under_replicated": true,
                "replicas": [
                    {"node": 1, "in_sync": true, "lag_entries": 0},
                    {"node": 2, "in_sync": true, "lag_entries": 0},
                    {"node": 3, "in_sync": false, "lag_entries": 7},
                ],
            })
        );
    }
}
