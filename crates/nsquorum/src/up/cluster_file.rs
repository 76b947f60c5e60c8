//! `cluster.json`: where the nodes of a cluster are, for scripts and tests.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::plan::{NodePlan, Plan};

/// The file's name in the cluster's directory.
const NAME: &str = "cluster.json";

/// A node as the file of a running cluster names it.
#[derive(Debug, Deserialize)]
pub(crate) struct ListedNode {
    /// `None` while no process runs.
    pub(crate) pid: Option<u32>,
    pub(crate) tcp: String,
    pub(crate) http: String,
}

/// The nodes that the file of a running cluster names.
pub(crate) fn listed_nodes(dir: &Path) -> anyhow::Result<Vec<ListedNode>> {
    #[derive(Deserialize)]
    struct All {
        nodes: Vec<ListedNode>,
    }
    let path = dir.join(NAME);
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let all: All = serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(all.nodes)
}

/// Their HTTP addresses.
pub(crate) fn http_addresses(dir: &Path) -> anyhow::Result<Vec<String>> {
    Ok(listed_nodes(dir)?.into_iter().map(|node| node.http).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Ended,
    Starting(u32),
    Serving(u32),
}

#[derive(Serialize)]
struct Nodes<'a> {
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    id: usize,
    /// `null` while no process runs.
    pid: Option<u32>,
    tcp: &'a str,
    http: &'a str,
    lookup_tcp: &'a str,
    lookup_http: &'a str,
    peer: &'a str,
    data_dir: &'a Path,
    argv: &'a [String],
}

/// The file and what it says.
pub(super) struct ClusterFile<'a> {
    path: PathBuf,
    nodes: Vec<(&'a NodePlan, Process)>,
}

impl<'a> ClusterFile<'a> {
    pub(super) fn new(dir: &Path, plan: &'a Plan) -> Self {
        Self {
            path: dir.join(NAME),
            nodes: plan.nodes.iter().map(|node| (node, Process::Ended)).collect(),
        }
    }

    pub(super) fn started(&mut self, node: usize, pid: u32) {
        self.nodes[node].1 = Process::Starting(pid);
    }

    pub(super) fn serving(&mut self, node: usize) {
        if let Process::Starting(pid) = self.nodes[node].1 {
            self.nodes[node].1 = Process::Serving(pid);
        }
    }

    pub(super) fn ended(&mut self, node: usize) {
        self.nodes[node].1 = Process::Ended;
    }

    pub(super) fn all_serve(&self) -> bool {
        self.nodes
            .iter()
            .all(|(_, process)| matches!(process, Process::Serving(_)))
    }

    /// Writes the file so that a reader never sees half of it.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let nodes = self.nodes.iter().map(|(plan, process)| Node {
            id: plan.number,
            pid: match process {
                Process::Ended => None,
                Process::Starting(pid) | Process::Serving(pid) => Some(*pid),
            },
            tcp: &plan.tcp,
            http: &plan.http,
            lookup_tcp: &plan.lookup_tcp,
            lookup_http: &plan.lookup_http,
            peer: &plan.peer,
            data_dir: &plan.data_dir,
            argv: &plan.argv,
        });
        let text = serde_json::to_vec(&Nodes { nodes: nodes.collect() })?;
        let temporary = self.path.with_extension("json.tmp");
        std::fs::write(&temporary, text)
            .and_then(|()| std::fs::rename(&temporary, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// A file without its cluster would mislead.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}
