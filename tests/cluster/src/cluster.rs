//! A cluster that `nsquorum up` runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nsquorum_node_tests::{VerifyReport, get, nsquorum_program, until, verify};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::ports::free_base;

/// No start takes this long, whatever the machine is doing.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// No stop does.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// How much of a log is shown, in bytes.
const LOG_SHOWN_BYTES: usize = 4000;

/// A node as `cluster.json` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NodeEntry {
    /// From 1.
    pub id: usize,
    /// `None` while no process runs.
    pub pid: Option<i32>,
    /// `host:port` for NSQ clients.
    pub tcp: String,
    /// `host:port` of nsqd's HTTP interface.
    pub http: String,
    /// `host:port` of nsqlookupd's HTTP interface.
    pub lookup_http: String,
    /// Where its data are.
    pub data_dir: PathBuf,
    /// The command line that starts it.
    pub argv: Vec<String>,
}

#[derive(Deserialize)]
struct ClusterFile {
    nodes: Vec<NodeEntry>,
}

/// A running cluster. Dropping it kills all of it.
#[derive(Debug)]
pub struct Cluster {
    up: Child,
    dir: TempDir,
    nodes: usize,
}

impl Cluster {
    /// Starts so many nodes in a new directory and waits until all serve.
    ///
    /// # Errors
    /// If they do not, with the ends of their logs.
    pub async fn start(nodes: usize) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let base = free_base(u16::try_from(nodes)?)?;
        let flags = ["--nodes", &nodes.to_string(), "--base-port", &base.to_string()].map(str::to_owned);
        let up = spawn(dir.path(), &flags)?;
        let mut cluster = Self { up, dir, nodes };
        cluster.until_served().await?;
        Ok(cluster)
    }

    /// Starts it again in its directory, after [`Cluster::stop`].
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn resume(&mut self) -> Result<()> {
        self.up = spawn(self.dir.path(), &[])?;
        self.until_served().await
    }

    async fn until_served(&mut self) -> Result<()> {
        let path = self.dir.path().join("cluster.json");
        let served = until("cluster.json is there", START_DEADLINE, async || {
            if let Some(status) = self.up.try_wait()? {
                bail!("`nsquorum up` ended with {status}");
            }
            Ok(path.exists())
        });
        let served = served.await;
        served.with_context(|| self.logs())
    }

    /// What cluster.json says now.
    ///
    /// # Errors
    /// If it is not there or not understood.
    pub fn nodes(&self) -> Result<Vec<NodeEntry>> {
        let text = std::fs::read(self.dir.path().join("cluster.json")).context("cluster.json")?;
        Ok(serde_json::from_slice::<ClusterFile>(&text)?.nodes)
    }

    /// SIGKILL for a node's process, which `up` then starts again. `node` counts from 0.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self, node: usize) -> Result<()> {
        let pid = self.nodes()?[node].pid.context("the node does not run")?;
        kill_process(Pid::from_raw(pid).context("an odd pid")?, Signal::KILL)?;
        Ok(())
    }

    /// Stops the supervisor itself: a node that is killed stays dead until [`Cluster::supervise`].
    ///
    /// # Errors
    /// If it has ended.
    pub fn stop_supervising(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.up), Signal::STOP)?)
    }

    /// Lets the supervisor go on; it starts what was killed meanwhile.
    ///
    /// # Errors
    /// If it has ended.
    pub fn supervise(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.up), Signal::CONT)?)
    }

    /// What `nsquorum status` prints, and its exit code.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn status(&self, flags: &[&str]) -> Result<(i32, String)> {
        let output = Command::new(nsquorum_program()?).arg("status").args(flags).output()?;
        let text = [output.stdout, output.stderr].concat();
        let code = output.status.code().context("`nsquorum status` was killed")?;
        Ok((code, String::from_utf8(text)?))
    }

    /// Where cluster.json and the data are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until another process of the node serves than this one.
    ///
    /// # Errors
    /// If it does not.
    pub async fn until_back(&self, node: usize, killed: Option<i32>) -> Result<()> {
        let back = until("the node is back", START_DEADLINE, async || {
            let entry = self.nodes()?.swap_remove(node);
            if entry.pid.is_none() || entry.pid == killed {
                return Ok(false);
            }
            Ok(get(&entry.http, "/ping").await.is_ok_and(|answer| answer.status == 200))
        });
        let back = back.await;
        back.with_context(|| self.logs())
    }

    /// Waits until every channel of the topic has nothing left, in flight included.
    ///
    /// # Errors
    /// If that does not come.
    pub async fn until_drained(&self, topic: &str) -> Result<()> {
        let addresses: Vec<String> = self.nodes()?.into_iter().map(|node| node.http).collect();
        let drained = until("every channel is drained", START_DEADLINE, async || {
            let mut is_led = false;
            for address in &addresses {
                let Ok(stats) = get(address, &format!("/stats?format=json&topic={topic}")).await else {
                    continue;
                };
                let stats: serde_json::Value = serde_json::from_str(&stats.text)?;
                let topic = &stats["topics"][0];
                let channels = topic["channels"].as_array().cloned().unwrap_or_default();
                let is_empty = |channel: &serde_json::Value| channel["depth"] == 0 && channel["in_flight_count"] == 0;
                // The others than the leader have no counts.
                is_led |= topic["message_count"].as_u64() > Some(0);
                if channels.is_empty() || !channels.iter().all(is_empty) {
                    return Ok(false);
                }
            }
            Ok(is_led)
        });
        let drained = drained.await;
        drained.with_context(|| self.logs())
    }

    /// SIGTERM; everything must end cleanly.
    ///
    /// # Errors
    /// If it does not.
    pub async fn stop(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.up), Signal::TERM)?;
        let mut status = None;
        let ended = until("`nsquorum up` ends", STOP_DEADLINE, async || {
            status = self.up.try_wait()?;
            Ok(status.is_some())
        });
        let ended = ended.await;
        ended.with_context(|| self.logs())?;
        match status {
            Some(status) if status.success() => Ok(()),
            other => bail!("`nsquorum up` ended with {other:?}\n{}", self.logs()),
        }
    }

    /// What `verify` says of each node's directory, after [`Cluster::stop`].
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn verify(&self) -> Result<Vec<VerifyReport>> {
        (1..=self.nodes)
            .map(|node| verify(&self.dir.path().join(format!("node-{node}"))))
            .collect()
    }

    /// The ends of all logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let names = std::iter::once("up.log".to_owned()).chain((1..=self.nodes).map(|node| format!("node-{node}.log")));
        names
            .map(|name| {
                let bytes = std::fs::read(self.dir.path().join(&name)).unwrap_or_default();
                let from = bytes.len().saturating_sub(LOG_SHOWN_BYTES);
                format!("== {name}\n{}\n", String::from_utf8_lossy(&bytes[from..]))
            })
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let nodes = self.nodes().unwrap_or_default();
        // First the supervisor, or it would start them again.
        drop(self.up.kill());
        drop(self.up.wait());
        for pid in nodes.iter().filter_map(|node| node.pid).filter_map(Pid::from_raw) {
            _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn spawn(dir: &Path, flags: &[String]) -> Result<Child> {
    let log = File::options().create(true).append(true).open(dir.join("up.log"))?;
    Command::new(nsquorum_program()?)
        .arg("up")
        .arg("--dir")
        .arg(dir)
        .args(flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start `nsquorum up`")
}
