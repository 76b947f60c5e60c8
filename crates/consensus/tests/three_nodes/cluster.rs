//! Nodes that a test starts, kills and cuts off.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use nsquorum_consensus::{
    Cluster as _, ClusterNode, ClusterPeers, ConsensusOptions, LeaderLocation, NodeIdentity, TopicRecord,
};
use nsquorum_environment::Environment;
use nsquorum_links::{MemoryLinks, MemoryMesh, MeshOptions, PeerIdentity};
use nsquorum_protocol::TopicName;
use nsquorum_storage::{GroupLog as _, LogId, NodeStore as _};
use nsquorum_topic::{Event, GroupId, LogIndex, NodeId, NodeIncarnation, Seq};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::disk::{Disk, MemoryDisk};
use crate::writer::{Host, Topic, Write, Written};

/// A hang is a failure; anything below this is not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Waits until a condition holds.
pub(crate) async fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = holds() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found,
        Err(_) => panic!("never: {what}"),
    }
}

pub(crate) fn name(topic: &str) -> TopicName {
    TopicName::try_from(topic).unwrap()
}

/// One life of a node. Its tasks live in a runtime of their own, so a kill leaves nothing behind.
struct Life {
    runtime: Option<Runtime>,
    node: Arc<ClusterNode>,
    host: Host,
    links: Arc<MemoryLinks>,
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Life {
    /// Not until every thread has ended: a blocked one must not write into the next life's store.
    fn end(mut self) {
        let runtime = self.runtime.take().unwrap();
        std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10)))
            .join()
            .unwrap();
    }
}

struct Slot<D: Disk> {
    disk: D,
    incarnation: u64,
    life: Option<Life>,
    store: Option<D::Store>,
}

impl TestCluster<MemoryDisk> {
    /// From now on nothing becomes durable on this node, or everything that waits does.
    pub(crate) fn stall_disk(&self, id: NodeId, stalled: bool) {
        self.nodes[&id].disk.stalled.store(stalled, Ordering::Relaxed);
    }
}

/// A cluster over disks of one kind.
pub(crate) struct TestCluster<D: Disk> {
    pub(crate) mesh: MemoryMesh,
    checkpoint_bytes: u64,
    nodes: BTreeMap<NodeId, Slot<D>>,
}

pub(crate) const fn node(id: u64) -> NodeId {
    NodeId::new(id)
}

impl<D: Disk> TestCluster<D> {
    pub(crate) async fn start(count: u64) -> Self {
        Self::start_with(count, 1 << 20).await
    }

    pub(crate) async fn start_with(count: u64, checkpoint_bytes: u64) -> Self {
        // With RUST_LOG set a failure can be followed; several tests at once cannot be told apart.
        drop(
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_test_writer()
                .try_init(),
        );
        let mesh = MemoryMesh::new(MeshOptions::default());
        mesh.run(&Environment::system());
        let slot = || Slot {
            disk: D::new(),
            incarnation: 0,
            life: None,
            store: None,
        };
        let mut cluster = Self {
            mesh,
            checkpoint_bytes,
            nodes: (1..=count).map(|id| (node(id), slot())).collect(),
        };
        for id in cluster.ids() {
            cluster.boot(id).await;
        }
        cluster
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn alive(&self) -> Vec<NodeId> {
        let alive = self.nodes.iter().filter(|(_, slot)| slot.life.is_some());
        alive.map(|(id, _)| *id).collect()
    }

    /// Starts a node that does not run.
    pub(crate) async fn boot(&mut self, id: NodeId) {
        let members: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        let slot = self.nodes.get_mut(&id).unwrap();
        assert!(slot.life.is_none(), "node {id} runs");
        slot.incarnation += 1;
        let identity = NodeIdentity {
            node: id,
            incarnation: NodeIncarnation::new(slot.incarnation),
        };
        let links = self.mesh.join(PeerIdentity {
            cluster: None,
            node: id,
            incarnation: identity.incarnation,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let host = Host::default();
        let store = slot.disk.open();
        slot.store = Some(store.clone());
        let options = ConsensusOptions {
            store,
            environment: Environment::system(),
            identity,
            checkpoint_bytes: self.checkpoint_bytes,
        };
        let peers = ClusterPeers {
            links: Arc::clone(&links) as Arc<dyn nsquorum_links::Links>,
            members,
        };
        let joined = runtime.spawn(ClusterNode::join(options, peers, Arc::new(host.clone())));
        let node = Arc::new(within(joined).await.unwrap().expect("a node starts"));
        links.start();
        slot.life = Some(Life {
            runtime: Some(runtime),
            node,
            host,
            links,
        });
    }

    /// Where a replica's log ends, and how far it is known to be committed.
    pub(crate) fn progress(&self, id: NodeId, group: GroupId) -> (Option<LogIndex>, Option<LogIndex>) {
        let log = self.nodes[&id].store.as_ref().unwrap().open_group(group).unwrap();
        let index = |log_id: LogId| log_id.index;
        (log.state().last.map(index), log.committed().map(index))
    }

    pub(crate) fn purged(&self, id: NodeId, group: GroupId) -> Option<LogIndex> {
        let log = self.nodes[&id].store.as_ref().unwrap().open_group(group).unwrap();
        log.state().last_purged.map(|purged| purged.index)
    }

    /// Ends all nodes where they are, with everything that they wrote on their disks.
    pub(crate) async fn freeze(&mut self, group: GroupId) {
        let ids = self.ids();
        loop {
            let agreed = async {
                while !self.agree(group) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            if tokio::time::timeout(PATIENCE, agreed).await.is_err() {
                let ends: Vec<_> = ids
                    .into_iter()
                    .map(|id| (id, self.progress(id, group), self.location(id, group)))
                    .collect();
                panic!("the replicas never agree: {ends:?}");
            }
            for id in &ids {
                self.mesh.isolate(*id);
            }
            // A leader may have begun a term in between.
            if self.agree(group) {
                break;
            }
            self.mesh.heal_all();
        }
        for id in ids {
            let store = self.nodes[&id].store.clone().unwrap();
            until("the disk is quiet", || (store.pending_bytes() == 0).then_some(())).await;
            drop(store);
            self.kill(id);
        }
    }

    fn agree(&self, group: GroupId) -> bool {
        let ends: BTreeSet<_> = self.ids().into_iter().map(|id| self.progress(id, group)).collect();
        ends.len() == 1 && ends.iter().all(|(last, committed)| last.is_some() && last == committed)
    }

    /// The process is gone, and what was not synced with it.
    pub(crate) fn kill(&mut self, id: NodeId) {
        self.mesh.kill(id);
        let slot = self.nodes.get_mut(&id).unwrap();
        slot.life.take().expect("runs").end();
        slot.store = None;
        slot.disk.cut_power();
    }

    /// The node stops in good order.
    pub(crate) async fn stop(&mut self, id: NodeId) {
        let slot = self.nodes.get_mut(&id).unwrap();
        let life = slot.life.take().expect("runs");
        let node = Arc::clone(&life.node);
        let stopping = life.runtime.as_ref().unwrap().spawn(async move { node.stop().await });
        within(stopping).await.unwrap();
        life.links.stop();
        life.end();
        slot.store = None;
        slot.disk.cut_power();
    }

    fn life(&self, id: NodeId) -> &Life {
        self.nodes[&id].life.as_ref().expect("runs")
    }

    pub(crate) fn cluster(&self, id: NodeId) -> Arc<ClusterNode> {
        Arc::clone(&self.life(id).node)
    }

    pub(crate) fn host(&self, id: NodeId) -> &Host {
        &self.life(id).host
    }

    pub(crate) fn topic(&self, id: NodeId, group: GroupId) -> Option<Topic> {
        self.life(id).host.topic(group)
    }

    /// Opens a store for reading; the node must not run.
    pub(crate) fn store(&mut self, id: NodeId) -> D::Store {
        let slot = self.nodes.get_mut(&id).unwrap();
        assert!(slot.life.is_none(), "node {id} runs");
        slot.disk.open()
    }

    /// Creates a topic through one node, and waits until all nodes that run have its group.
    pub(crate) async fn create(&self, through: NodeId, topic: &str) -> TopicRecord {
        within(async {
            while let Err(error) = self.cluster(through).create_topic(name(topic)).await {
                assert!(error.is_retryable(), "{error}");
            }
        })
        .await;
        let record = self.cluster(through).metadata().borrow().topic(&name(topic));
        let record = record.expect("a topic that was created is known where it was created");
        for id in self.alive() {
            until("the group runs everywhere", || self.topic(id, record.group)).await;
        }
        record
    }

    /// The node that leads as its own task sees it.
    pub(crate) async fn leader(&self, group: GroupId) -> NodeId {
        until("somebody leads", || self.leader_among(group, &self.alive())).await
    }

    pub(crate) fn leader_among(&self, group: GroupId, nodes: &[NodeId]) -> Option<NodeId> {
        let mut leading: Vec<_> = nodes
            .iter()
            .filter_map(|id| Some((self.topic(*id, group)?.seen.lock().leading?, *id)))
            .collect();
        leading.sort_unstable();
        leading.last().map(|(_, id)| *id)
    }

    pub(crate) fn location(&self, id: NodeId, group: GroupId) -> Option<LeaderLocation> {
        *self.cluster(id).leader(group).borrow()
    }

    /// Gives a write to a node.
    pub(crate) fn submit(
        &self,
        id: NodeId,
        group: GroupId,
        body: Option<&str>,
        events: Vec<Event>,
    ) -> oneshot::Receiver<Written> {
        let (written, outcome) = oneshot::channel();
        if let Some(topic) = self.topic(id, group) {
            let body = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
            drop(topic.writes.send(Write { body, events, written }));
        }
        outcome
    }

    /// Writes where the topic is led among these nodes, however often the leader changes. The body must be new each time: an outcome
    /// may be unknown.
    pub(crate) async fn write_among(
        &self,
        nodes: &[NodeId],
        group: GroupId,
        mut body: impl FnMut() -> String,
        ledger: &mut crate::ledger::Ledger,
    ) -> Seq {
        within(async {
            loop {
                let leader = until("somebody leads", || self.leader_among(group, nodes)).await;
                let body = body();
                ledger.sent(&body);
                let outcome = self.submit(leader, group, Some(&body), Vec::new());
                match tokio::time::timeout(Duration::from_secs(2), outcome).await {
                    Ok(Ok(Written::Ok(seq))) => {
                        ledger.acknowledged(seq, &body);
                        return seq;
                    }
                    _ => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        })
        .await
    }

    pub(crate) async fn write(&self, group: GroupId, body: &str, ledger: &mut crate::ledger::Ledger) -> Seq {
        let mut tries = 0;
        let bodies = || {
            tries += 1;
            format!("{body} (try {tries})")
        };
        self.write_among(&self.alive(), group, bodies, ledger).await
    }
}
