//! Which nodes a cluster of `up` has: the same on every start in a directory.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nsquorum_storage::IDENTITY_FILE;
use serde::{Deserialize, Serialize};

use super::{BASE_PORT, NODES};

/// Ports of a node, from its first on: TCP, HTTP, lookup TCP, lookup HTTP, peers.
const PORTS_PER_NODE: u16 = 10;
/// More would not fit on one machine in any useful way.
const NODES_MAX: usize = 9;
const PLAN_FILE: &str = "up.json";

/// What has to be the same on every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    nodes: usize,
    base_port: u16,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodePlan {
    /// From 1.
    pub(super) number: usize,
    /// `node-1`, …: also its folder's name.
    pub(super) name: String,
    pub(super) tcp: String,
    pub(super) http: String,
    pub(super) lookup_tcp: String,
    pub(super) lookup_http: String,
    pub(super) peer: String,
    pub(super) data_dir: PathBuf,
    pub(super) log: PathBuf,
    /// The whole command line: enough to start the node by hand.
    pub(super) argv: Vec<String>,
}

/// All nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) nodes: Vec<NodePlan>,
}

impl Plan {
    /// What the directory was made for, or, if it is new, what the flags say.
    pub(super) fn load_or_make(
        dir: &Path,
        nodes: Option<usize>,
        base_port: Option<u16>,
        serve_flags: &[String],
    ) -> anyhow::Result<Self> {
        let path = dir.join(PLAN_FILE);
        let kept = match std::fs::read(&path) {
            Ok(text) => {
                let kept: Kept =
                    serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
                if nodes.is_some_and(|nodes| nodes != kept.nodes) {
                    bail!(
                        "{} holds a cluster of {} nodes; leave out --nodes",
                        dir.display(),
                        kept.nodes
                    );
                }
                if base_port.is_some_and(|port| port != kept.base_port) {
                    bail!(
                        "{} was made for --base-port {}; leave it out",
                        dir.display(),
                        kept.base_port
                    );
                }
                kept
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if dir.join(IDENTITY_FILE).exists() {
                    bail!(
                        "{} holds the data of one node: run `nsquorum serve --data-path` on it, or choose another DIR",
                        dir.display()
                    );
                }
                let kept = Kept {
                    nodes: nodes.unwrap_or(NODES),
                    base_port: base_port.unwrap_or(BASE_PORT),
                };
                if !(1..=NODES_MAX).contains(&kept.nodes) {
                    bail!("--nodes must be from 1 to {NODES_MAX}");
                }
                std::fs::write(&path, serde_json::to_vec(&kept)?)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                kept
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let program = std::env::current_exe().context("cannot find this program's file")?;
        let program = program.into_os_string().into_string();
        let program = program.map_err(|name| anyhow::anyhow!("{} is not UTF-8", name.display()))?;
        Self::of(kept, dir, &program, serve_flags)
    }

    fn of(kept: Kept, dir: &Path, program: &str, serve_flags: &[String]) -> anyhow::Result<Self> {
        let last = u32::from(kept.base_port) + u32::from(PORTS_PER_NODE) * u32::try_from(kept.nodes)?;
        if kept.base_port == 0 || last > u32::from(u16::MAX) {
            bail!(
                "--base-port {} leaves no room for the ports of {} nodes",
                kept.base_port,
                kept.nodes
            );
        }
        let first_port =
            |index: usize| kept.base_port + PORTS_PER_NODE * u16::try_from(index).expect("at most NODES_MAX nodes");
        let address = |index: usize, offset: u16| format!("127.0.0.1:{}", first_port(index) + offset);
        let seeds: Vec<String> = (0..kept.nodes).map(|index| address(index, 4)).collect();
        // The nodes share this machine. More threads than cores would hand every message back and forth between them.
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let worker_threads = (cores / kept.nodes).max(1).to_string();
        let node = |index: usize| -> anyhow::Result<NodePlan> {
            let name = format!("node-{}", index + 1);
            let data_dir = dir.join(&name);
            let [tcp, http, lookup_tcp, lookup_http, peer, https] =
                [0, 1, 2, 3, 4, 5].map(|offset| address(index, offset));
            let data = data_dir.to_str().context("the directory's name is not UTF-8")?;
            let mut argv: Vec<String> = [
                program,
                "serve",
                "--data-path",
                data,
                "--tcp-address",
                &tcp,
                "--http-address",
                &http,
                "--https-address",
                &https,
                "--lookup-tcp-address",
                &lookup_tcp,
                "--lookup-http-address",
                &lookup_http,
                "--broadcast-address",
                "127.0.0.1",
                "--worker-threads",
                &worker_threads,
            ]
            .map(str::to_owned)
            .to_vec();
            if kept.nodes > 1 {
                let cluster = [
                    "--peer-address".to_owned(),
                    peer.clone(),
                    "--cluster-seeds".to_owned(),
                    seeds.join(","),
                    "--cluster-expect".to_owned(),
                    kept.nodes.to_string(),
                ];
                argv.extend(cluster);
            }
            argv.extend(serve_flags.iter().cloned());
            Ok(NodePlan {
                number: index + 1,
                log: dir.join(format!("{name}.log")),
                name,
                tcp,
                http,
                lookup_tcp,
                lookup_http,
                peer,
                data_dir,
                argv,
            })
        };
        let nodes = (0..kept.nodes).map(node).collect::<anyhow::Result<_>>()?;
        Ok(Self { nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_nodes_and_ports() {
        let dir = tempfile::tempdir().unwrap();
        let first = Plan::load_or_make(dir.path(), Some(3), Some(5000), &[]).unwrap();
        assert_eq!(Plan::load_or_make(dir.path(), None, None, &[]).unwrap(), first);
        assert!(Plan::load_or_make(dir.path(), Some(1), None, &[]).is_err());
        assert!(Plan::load_or_make(dir.path(), None, Some(5001), &[]).is_err());
        let http: Vec<_> = first.nodes.iter().map(|node| node.http.as_str()).collect();
        assert_eq!(http, ["127.0.0.1:5001", "127.0.0.1:5011", "127.0.0.1:5021"]);
        let seeds = "127.0.0.1:5004,127.0.0.1:5014,127.0.0.1:5024".to_owned();
        assert!(first.nodes.iter().all(|node| node.argv.contains(&seeds)));
    }

    #[test]
    fn a_nodes_own_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(IDENTITY_FILE), b"{}").unwrap();
        assert!(Plan::load_or_make(dir.path(), None, None, &[]).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was written");
    }

    #[test]
    fn impossible_plans_are_refused() {
        for (nodes, port) in [(0, 5000), (10, 5000), (3, 0), (3, 65_530)] {
            let dir = tempfile::tempdir().unwrap();
            assert!(
                Plan::load_or_make(dir.path(), Some(nodes), Some(port), &[]).is_err(),
                "{nodes} {port}"
            );
        }
    }
}
