//! Which node leads, as it can be told from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use nsquorum_node_tests::{get, until};

use crate::cluster::Cluster;
use crate::metrics::metric;

/// Under load somebody leads long before.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks: longer than a leader under load goes without a batch.
const LOOK: Duration = Duration::from_millis(30);

impl Cluster {
    /// The node, from 0, that leads the cluster's only topic. There must be load: a leader is known by the batches that it proposes, and
    /// nobody else proposes any.
    ///
    /// # Errors
    /// If nobody seems to lead for a long time.
    pub async fn leader(&self) -> Result<usize> {
        let mut leader = None;
        let mut before = self.batches().await?;
        let found = until("one node proposes batches", DEADLINE, async || {
            tokio::time::sleep(LOOK).await;
            let now = self.batches().await?;
            let rose: Vec<usize> = now
                .iter()
                .filter(|(node, count)| before.get(node).is_some_and(|before| before < count))
                .map(|(node, _)| *node)
                .collect();
            before = now;
            // Two have led one after the other.
            if let [node] = rose[..] {
                leader = Some(node);
            }
            Ok(leader.is_some())
        });
        let found = found.await;
        found.with_context(|| self.logs())?;
        leader.context("found above")
    }

    /// Batches proposed by each node that answers, since its start.
    async fn batches(&self) -> Result<BTreeMap<usize, u64>> {
        let mut counts = BTreeMap::new();
        for (place, node) in self.nodes()?.into_iter().enumerate() {
            if node.pid.is_some()
                && let Ok(metrics) = get(&node.http, "/metrics").await
            {
                counts.insert(
                    place,
                    metric(&metrics.text, "nsquorum_batch_messages_count").unwrap_or(0),
                );
            }
        }
        Ok(counts)
    }
}
