//! Nodes that a test starts and kills, and consumers of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nsquorum_broker::{
    AdminAction, AdminError, Broker, BrokerConfig, ChannelStats, ClientDescription, Delivery, LeaseTable, PublishError,
    PublishTicket, Subscription, SubscriptionEvent, SubscriptionOptions, TopicStats,
};
use nsquorum_consensus::{Cluster as _, ClusterNode, ClusterPeers, ConsensusOptions, NodeIdentity};
use nsquorum_environment::Environment;
use nsquorum_links::{Links, MemoryMesh, MeshOptions, PeerIdentity};
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_storage::{Durability, MemoryStore, SpaceState};
use nsquorum_topic::{LogTime, NewMessage, NodeId, NodeIncarnation};
use tokio::runtime::Runtime;

pub(crate) const NODES: [NodeId; 3] = [NodeId::new(1), NodeId::new(2), NodeId::new(3)];
/// A hang is a failure; anything below this is not.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// One life of a node. Its tasks live in a runtime of their own, so a kill leaves nothing behind.
struct Node {
    runtime: Runtime,
    broker: Broker,
    cluster: Arc<ClusterNode>,
}

impl Node {
    fn end(self) {
        let Self { runtime, .. } = self;
        // A runtime may not be dropped within another one.
        std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10)))
            .join()
            .expect("the node is gone");
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        for node in std::mem::take(&mut self.nodes).into_values() {
            node.end();
        }
    }
}

pub(crate) struct TestCluster {
    mesh: MemoryMesh,
    nodes: BTreeMap<NodeId, Node>,
}

impl TestCluster {
    /// Three nodes that have formed a cluster with one topic.
    pub(crate) async fn start() -> Self {
        let mesh = MemoryMesh::new(MeshOptions::default());
        mesh.run(&Environment::system());
        let mut cluster = Self {
            mesh,
            nodes: BTreeMap::new(),
        };
        for node in NODES {
            cluster.boot(node).await;
        }
        let first = &cluster.nodes[&NODES[0]];
        within(async { while first.broker.create_topic(&topic()).await.is_err() {} }).await;
        cluster
    }

    async fn boot(&mut self, node: NodeId) {
        let identity = NodeIdentity {
            node,
            incarnation: NodeIncarnation::new(1),
        };
        let links = self.mesh.join(PeerIdentity {
            cluster: None,
            node,
            incarnation: identity.incarnation,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let shared = Arc::clone(&links) as Arc<dyn Links>;
        let starting = runtime.spawn(async move {
            let environment = Environment::system();
            let broker = Broker::new(BrokerConfig {
                ephemeral_depth_max: 10_000,
                known_channels: None,
                environment: environment.clone(),
                latency: None,
                publish_bytes_max: 64 << 20,
                tail_bytes_max: 64 << 20,
                space: Arc::new(|| SpaceState::Ok),
            });
            broker.link(Arc::clone(&shared), PATIENCE);
            let options = ConsensusOptions {
                store: MemoryStore::new(Durability::Immediate),
                environment,
                identity,
                checkpoint_bytes: 1 << 20,
            };
            let peers = ClusterPeers {
                links: shared,
                members: NODES.into_iter().collect(),
            };
            let cluster = ClusterNode::join(options, peers, Arc::new(broker.clone()))
                .await
                .expect("a node starts");
            let cluster = Arc::new(cluster);
            broker.connect(Arc::clone(&cluster) as Arc<dyn nsquorum_consensus::Cluster>);
            (broker, cluster)
        });
        let (broker, cluster) = within(starting).await.expect("a node starts");
        links.start();
        let life = Node {
            runtime,
            broker,
            cluster,
        };
        self.nodes.insert(node, life);
    }

    /// The process is gone.
    pub(crate) fn kill(&mut self, node: NodeId) {
        self.mesh.kill(node);
        self.nodes.remove(&node).expect("runs").end();
    }

    /// The node that leads the topic.
    pub(crate) async fn leader(&self) -> NodeId {
        let cluster = &self.nodes[&NODES[0]].cluster;
        let record = cluster.metadata().borrow().topic(&topic()).expect("the topic exists");
        let mut leader = cluster.leader(record.group);
        let location = within(leader.wait_for(Option::is_some))
            .await
            .expect("the group exists");
        location.expect("waited for it").node
    }

    pub(crate) fn start_publish(&self, node: NodeId, bodies: &[&str]) -> PublishTicket {
        let message = |body: &&str| NewMessage::new(Bytes::copy_from_slice(body.as_bytes()), LogTime::new(1));
        let messages = bodies.iter().map(message).collect();
        self.nodes[&node].broker.publish(&topic(), messages, None)
    }

    pub(crate) async fn publish(&self, node: NodeId, bodies: &[&str]) -> Result<(), PublishError> {
        within(self.start_publish(node, bodies)).await
    }

    pub(crate) async fn publish_to(&self, node: NodeId, channel: &str, body: &str) -> Result<(), PublishError> {
        let message = NewMessage::new(Bytes::copy_from_slice(body.as_bytes()), LogTime::new(1));
        let broker = &self.nodes[&node].broker;
        within(broker.publish_to_channel(&topic(), name(channel), vec![message], None)).await
    }

    pub(crate) async fn subscribe(&self, node: NodeId, channel: &str, ready: u32) -> Consumer {
        let client = Arc::new(ClientDescription {
            client_id: "test".into(),
            hostname: "test".into(),
            user_agent: "test".into(),
            remote_address: "127.0.0.1:1".into(),
            ..ClientDescription::default()
        });
        let options = SubscriptionOptions {
            client,
            msg_timeout: PATIENCE,
            nearness: None,
        };
        let broker = &self.nodes[&node].broker;
        let subscription = within(broker.subscribe(&topic(), &name(channel), options))
            .await
            .expect("subscribed");
        subscription.handle.ready(ready);
        Consumer {
            subscription,
            leases: LeaseTable::new(PATIENCE, PATIENCE),
            environment: broker.environment().clone(),
        }
    }

    pub(crate) async fn administer(&self, node: NodeId, action: AdminAction) -> Result<(), AdminError> {
        within(self.nodes[&node].broker.administer(&topic(), action)).await
    }

    pub(crate) async fn channels(&self, node: NodeId) -> Vec<ChannelName> {
        within(self.nodes[&node].broker.channels(&topic()))
            .await
            .expect("the topic exists")
    }

    pub(crate) async fn stats(&self, node: NodeId) -> TopicStats {
        within(self.nodes[&node].broker.stats(Some(&topic()), None))
            .await
            .pop()
            .expect("the topic exists")
    }

    /// Waits until the node that leads shows this, and the others show no counts.
    pub(crate) async fn wait_for_stats(&self, holds: impl Fn(&TopicStats) -> bool) {
        within(async {
            loop {
                let (mut leaders, mut others) = (Vec::new(), Vec::new());
                for node in self.nodes.keys() {
                    let stats = self.stats(*node).await;
                    if stats.is_leader {
                        leaders.push(stats)
                    } else {
                        others.push(stats)
                    }
                }
                for stats in others {
                    let counts =
                        |channel: &ChannelStats| channel.depth + channel.in_flight_count + channel.message_count;
                    assert_eq!(stats.message_count + stats.channels.iter().map(counts).sum::<u64>(), 0);
                }
                if leaders.len() == 1 && holds(&leaders[0]) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    pub(crate) async fn create_topic(&self, node: NodeId) -> Result<(), AdminError> {
        within(self.nodes[&node].broker.create_topic(&topic())).await
    }

    pub(crate) async fn tombstone(&self, through: NodeId, node: NodeId, lifetime: Duration) {
        let broker = &self.nodes[&through].broker;
        within(broker.tombstone(&topic(), node, lifetime))
            .await
            .expect("replicated");
    }

    pub(crate) fn has_topic(&self, node: NodeId) -> bool {
        self.nodes[&node].broker.has_topic(&topic())
    }
}

pub(crate) struct Consumer {
    subscription: Subscription,
    leases: LeaseTable,
    environment: Environment,
}

impl Consumer {
    pub(crate) async fn receive(&mut self) -> Delivery {
        match self.subscription.deliveries.next().await.expect("never disconnected") {
            SubscriptionEvent::Deliver(delivery) => {
                self.leases.delivered(&delivery, self.environment.clock.now());
                delivery
            }
            SubscriptionEvent::Emptied => panic!("emptied"),
        }
    }

    pub(crate) async fn receive_within(&mut self, wait: Duration) -> Option<Delivery> {
        tokio::time::timeout(wait, self.receive()).await.ok()
    }

    pub(crate) fn finish(&mut self, delivery: &Delivery) {
        let event = self.leases.finish(delivery.token.seq).expect("held");
        self.subscription.handle.events(vec![event]);
    }
}

fn topic() -> TopicName {
    TopicName::try_from("invoices").expect("valid")
}

pub(crate) fn name(channel: &str) -> ChannelName {
    ChannelName::try_from(channel).expect("valid")
}
