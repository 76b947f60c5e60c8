//! The topics whose replicas this node holds, with their channels, for whoever announces them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nsquorum_consensus::{ChannelNames, Cluster, MetadataState};
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_topic::NodeId;
use tokio::sync::watch;

/// Follows what this node holds.
pub struct HeldTopics {
    me: NodeId,
    metadata: watch::Receiver<Arc<MetadataState>>,
    names: ChannelNames,
    changes: watch::Receiver<u64>,
}

impl HeldTopics {
    pub(crate) fn new(cluster: &dyn Cluster) -> Self {
        let names = cluster.channel_names();
        Self {
            me: cluster.identity().node,
            metadata: cluster.metadata(),
            changes: names.changes(),
            names,
        }
    }

    /// What it holds now.
    pub fn now(&mut self) -> BTreeMap<TopicName, BTreeSet<ChannelName>> {
        self.changes.borrow_and_update();
        let state = Arc::clone(&self.metadata.borrow_and_update());
        let mine = state.topics().filter(|(_, record)| record.replicas.contains(&self.me));
        mine.map(|(name, record)| (name, self.names.of(record.group).iter().cloned().collect()))
            .collect()
    }

    /// Resolves when that may have changed since [`HeldTopics::now`]; never, once the node has stopped.
    pub async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.metadata.changed() => changed,
            changed = self.changes.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
