//! Three nodes that a test handles one by one.

use anyhow::{Context, Result, bail};
use nsquorum_node_tests::{Disk, VerifyReport, post};
use tempfile::TempDir;

use crate::ports::free_base;
use crate::replica::{Place, Replica};

/// Ports of one node, from its first on.
const PORTS_PER_NODE: u16 = 10;
/// How often a quiet cluster is looked at until all logs end at the same entry.
const LOOKS_MAX: usize = 20;

/// Three nodes that are one cluster.
#[derive(Debug)]
pub struct Trio {
    /// The nodes; any two of them are a majority.
    pub nodes: Vec<Replica>,
    _secret: TempDir,
}

impl Trio {
    /// Places on this machine's own loopback device.
    ///
    /// # Errors
    /// If there are no free ports.
    pub fn local_places() -> Result<Vec<Place>> {
        let base = free_base(3)?;
        let place = |node: u16| Place {
            enter: Vec::new(),
            host: "127.0.0.1".to_owned(),
            first_port: base + node * PORTS_PER_NODE,
        };
        Ok((0..3).map(place).collect())
    }

    /// Founds a cluster of three nodes in these places, on disks that `disk` makes, with these flags of `serve`. All of them serve when this returns.
    ///
    /// # Errors
    /// If they do not.
    pub async fn found(places: Vec<Place>, disk: impl Fn() -> Result<Disk>, flags: &[&str]) -> Result<Self> {
        let secrets = tempfile::tempdir()?;
        let secret = secrets.path().join("secret");
        std::fs::write(&secret, b"a secret of sixteen bytes or more")?;
        let secret = secret.to_str().context("a temporary directory is UTF-8")?;
        let peers: Vec<String> = places.iter().map(Place::peer).collect();
        let nodes = places
            .into_iter()
            .map(|place| Replica::new(place, disk()?, &peers, secret, flags))
            .collect::<Result<Vec<_>>>()?;
        let mut trio = Self {
            nodes,
            _secret: secrets,
        };
        trio.start_all()?;
        trio.until_serving().await?;
        Ok(trio)
    }

    /// Starts all that do not run.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start_all(&mut self) -> Result<()> {
        self.nodes
            .iter_mut()
            .filter(|node| node.process().is_none())
            .try_for_each(Replica::start)
    }

    /// Waits until all serve.
    ///
    /// # Errors
    /// If one does not.
    pub async fn until_serving(&mut self) -> Result<()> {
        for place in 0..self.nodes.len() {
            let serves = self.nodes[place].until_serving().await;
            serves.with_context(|| self.logs())?;
        }
        Ok(())
    }

    /// Makes a topic with these channels, durably.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub async fn create(&self, topic: &str, channels: &[&str]) -> Result<()> {
        let topics = std::iter::once(format!("/topic/create?topic={topic}"));
        let channels = channels.iter();
        let channels = channels.map(|channel| format!("/channel/create?topic={topic}&channel={channel}"));
        for path in topics.chain(channels) {
            let answer = post(&self.nodes[0].place().http(), &path, b"").await?;
            if answer.status != 200 {
                bail!("{path} was answered with {answer:?}");
            }
        }
        Ok(())
    }

    /// SIGKILL for all of them at the same moment.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill_all(&mut self) -> Result<()> {
        self.nodes.iter().try_for_each(Replica::strike)?;
        self.nodes.iter_mut().try_for_each(Replica::kill)
    }

    /// SIGTERM for all of them; each must end cleanly.
    ///
    /// # Errors
    /// If one does not.
    pub async fn stop_all(&mut self) -> Result<()> {
        self.nodes.iter().try_for_each(Replica::terminate)?;
        for node in &mut self.nodes {
            node.until_stopped().await?;
        }
        Ok(())
    }

    /// The node that was elected last for a group: its leader, unless one is being elected at this moment.
    #[must_use]
    pub fn leader(&self, group: u64) -> usize {
        let term = |node: &usize| self.nodes[*node].elected(group);
        (0..self.nodes.len()).max_by_key(term).unwrap_or(0)
    }

    /// What `verify` says of each directory while nothing runs. Nothing may be damaged.
    ///
    /// # Errors
    /// If something is.
    pub fn verify(&self) -> Result<Vec<VerifyReport>> {
        let report = |node: &Replica| {
            let report = node.verify()?;
            if !report.is_clean() {
                bail!("verify finds {:?}\n{}", report.findings, node.log());
            }
            Ok(report)
        };
        self.nodes.iter().map(report).collect()
    }

    /// Ends a cluster that is quiet, by SIGKILL, when all logs end at the same entry, and returns what `verify` says. The states of the topic must be
    /// equal to the bit then. While a follower lacks something the cluster goes on for a moment.
    ///
    /// # Errors
    /// If the logs never end equal, if equal logs have different states, or if anything is damaged.
    pub async fn end_equal(&mut self, topic: &str) -> Result<Vec<VerifyReport>> {
        let mut ends = Vec::new();
        for _ in 0..LOOKS_MAX {
            self.kill_all()?;
            let reports = self.verify()?;
            let mut states = Vec::new();
            ends.clear();
            for report in &reports {
                states.push(report.topic(topic)?.context("the topic is there")?);
                let group = report.groups.iter().find(|group| group["name"] == topic);
                ends.push(group.context("the topic's group is there")?["last"].to_string());
            }
            if ends.iter().all(|end| *end == ends[0]) {
                if states.iter().any(|state| *state != states[0]) {
                    bail!("all logs end at {}, and the states differ: {states:#?}", ends[0]);
                }
                return Ok(reports);
            }
            self.start_all()?;
            self.until_serving().await?;
            // What is missing comes with the next entry at the latest.
            post(&self.nodes[0].place().http(), "/pub?topic=quiet", b"x").await?;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        bail!(
            "the logs of a quiet cluster end at different entries: {ends:?}\n{}",
            self.logs()
        )
    }

    /// The ends of all logs.
    #[must_use]
    pub fn logs(&self) -> String {
        self.nodes.iter().map(Replica::log).collect()
    }
}

/// A test that fails shows what the nodes said.
impl Drop for Trio {
    #[allow(clippy::print_stderr, reason = "a test that fails says what it saw")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}
