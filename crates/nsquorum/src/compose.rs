//! Putting a node together: store, links, groups, broker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nsquorum_broker::{Broker, BrokerConfig, ChannelSource, LatencySettings, NodeDescription};
use nsquorum_consensus::{ClusterNode, ClusterPeers, ConsensusError, ConsensusOptions, NodeIdentity};
use nsquorum_environment::Environment;
use nsquorum_storage::{Founding, Neighbours, NodeStore as _, RocksStore, StorageError, StoreOptions};

use crate::cli::ServeArgs;
use crate::cluster::{Joining, Peering};
use crate::exit::Exit;
use crate::serve::Stopped;

/// What a node is made from.
pub(crate) struct NodeSettings {
    data_path: PathBuf,
    neighbours: Neighbours,
    memory_budget: u64,
    publish_timeout: Duration,
    refuse_publishes_below: Option<u64>,
    refuse_all_below: Option<u64>,
    latency: Option<LatencySettings>,
    ephemeral_depth_max: u64,
    known_channels: Arc<dyn ChannelSource>,
}

impl NodeSettings {
    /// From the flags. `known_channels` says which channels a topic has elsewhere when it is new.
    pub(crate) fn of(args: &ServeArgs, known_channels: Arc<dyn ChannelSource>) -> Self {
        Self {
            data_path: args.data_path.clone(),
            neighbours: args.neighbours,
            memory_budget: args.memory_budget,
            publish_timeout: args.publish_timeout,
            refuse_publishes_below: args.disk_refuse_publishes_below,
            refuse_all_below: args.disk_refuse_all_below,
            latency: args.metrics.latency(),
            ephemeral_depth_max: args.session.mem_queue_size,
            known_channels,
        }
    }

    /// Half of the memory for storage, a quarter for unanswered publishes, an eighth for what lagging channels read.
    fn store_options(&self, environment: Environment) -> StoreOptions {
        let mut options = StoreOptions::new(&self.data_path, environment).memory_budget(self.memory_budget / 2);
        options.neighbours = self.neighbours;
        if let Some(bytes) = self.refuse_publishes_below {
            options.refuse_publishes_below_bytes = bytes;
        }
        if let Some(bytes) = self.refuse_all_below {
            options.refuse_all_below_bytes = bytes;
        }
        options.on_fatal = Arc::new(|error: &StorageError| {
            tracing::error!(%error, "a write failed: the node stops, because nothing may be acknowledged any more");
            Exit::of_storage(error).now()
        });
        options
    }
}

/// Log that a restart may have to replay, in bytes, at most.
const CHECKPOINT_BYTES_MAX: u64 = 64 << 20;
/// Below this checkpoints would cost more than they save.
const CHECKPOINT_BYTES_MIN: u64 = 1 << 20;

/// A running node.
pub(crate) struct Node {
    broker: Broker,
    cluster: Arc<ClusterNode>,
    peering: Option<Peering>,
    store: RocksStore,
}

impl Node {
    /// Opens the data, finds the cluster and recovers; returns when every request can be answered.
    pub(crate) async fn open(
        settings: NodeSettings,
        joining: Option<Joining>,
        description: NodeDescription,
        environment: Environment,
    ) -> Result<Self, Stopped> {
        let mut options = settings.store_options(environment.clone());
        if let Some(joining) = &joining {
            options.founding = Founding::Together;
            joining.find_cluster(&options).await?;
        }
        let opened = tokio::task::spawn_blocking(move || RocksStore::open(options)).await;
        let store = opened.context("opening the store failed")?.map_err(storage)?;
        let identity = NodeIdentity {
            node: store.identity().node,
            incarnation: store.identity().incarnation,
        };
        let memory = usize::try_from(settings.memory_budget).unwrap_or(usize::MAX);
        let space = store.clone();
        let broker = Broker::new(BrokerConfig {
            environment: environment.clone(),
            publish_bytes_max: memory / 4,
            tail_bytes_max: memory / 8,
            space: Arc::new(move || space.space()),
            latency: settings.latency,
            ephemeral_depth_max: settings.ephemeral_depth_max,
            known_channels: Some(settings.known_channels),
        });
        let consensus = ConsensusOptions {
            store: store.clone(),
            environment,
            identity,
            // The log that is not covered by a checkpoint is what memtables hold on to: it follows the same budget.
            checkpoint_bytes: (settings.memory_budget / 4).clamp(CHECKPOINT_BYTES_MIN, CHECKPOINT_BYTES_MAX),
        };
        let host = Arc::new(broker.clone());
        let (cluster, peering) = match joining {
            None => {
                let cluster = ClusterNode::start(consensus, host).await.map_err(consensus_failed)?;
                (Arc::new(cluster), None)
            }
            Some(joining) => {
                let peering = joining.peering(store.identity())?;
                broker.link(peering.links(), settings.publish_timeout);
                let peers = ClusterPeers {
                    links: peering.links(),
                    members: peering.members(),
                };
                let cluster = ClusterNode::join(consensus, peers, host)
                    .await
                    .map_err(consensus_failed)?;
                (Arc::new(cluster), Some(peering))
            }
        };
        broker.connect(Arc::clone(&cluster) as Arc<dyn nsquorum_consensus::Cluster>);
        if let Some(peering) = &peering {
            peering.start();
            cluster.announce(description).await.map_err(consensus_failed)?;
        }
        Ok(Self {
            broker,
            cluster,
            peering,
            store,
        })
    }

    /// A handle to the broker.
    pub(crate) fn broker(&self) -> Broker {
        self.broker.clone()
    }

    /// Stops the groups and closes the store. What was answered OK is on disk already.
    pub(crate) async fn stop(self) -> Result<(), Stopped> {
        self.broker.flush().await;
        self.cluster.stop().await;
        if let Some(peering) = self.peering {
            peering.stop();
        }
        let store = self.store;
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        closed.context("closing the store failed")?.map_err(storage)
    }
}

pub(crate) fn storage(error: StorageError) -> Stopped {
    Stopped {
        exit: Exit::of_storage(&error),
        cause: error.into(),
    }
}

fn consensus_failed(error: ConsensusError) -> Stopped {
    let exit = match &error {
        ConsensusError::Storage(error) => Exit::of_storage(error),
        ConsensusError::Quarantined { .. } => Exit::ImpossibleData,
        ConsensusError::Stopped | ConsensusError::NoLeader => Exit::Failed,
    };
    Stopped {
        exit,
        cause: error.into(),
    }
}
