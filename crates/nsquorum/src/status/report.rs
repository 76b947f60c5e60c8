//! A node's answer, as far as it is shown. Fields that a later release adds are passed over.

use serde::Deserialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    Degraded,
    Unavailable,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Report {
    pub(super) state: State,
    pub(super) problems: Vec<String>,
    pub(super) replication_factor: usize,
    pub(super) nodes: Vec<Node>,
    pub(super) metadata: Group,
    pub(super) topics: Vec<Topic>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) state: String,
    pub(super) incarnation: Option<u64>,
    pub(super) version: Option<String>,
    pub(super) address: Option<String>,
    pub(super) http_port: Option<u16>,
    pub(super) leads: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Topic {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) group: Group,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Group {
    pub(super) leader: Option<u64>,
    pub(super) replication_factor: usize,
    pub(super) in_sync: usize,
    pub(super) under_replicated: bool,
    pub(super) replicas: Vec<Replica>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Replica {
    pub(super) node: u64,
    pub(super) in_sync: Option<bool>,
    pub(super) lag_entries: Option<u64>,
}
