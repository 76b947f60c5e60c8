//! Waiting until all replicas have everything.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nsquorum_node_tests::{get, until};

use crate::cluster::Cluster;
use crate::metrics::metric;

/// No replica takes longer to get what the others have.
const DEADLINE: Duration = Duration::from_secs(60);
/// A replica that lags writes more often than that.
const QUIET: Duration = Duration::from_secs(1);

impl Cluster {
    /// Waits until every node has its links and none has written anything for a second. There must be no load. A replica that was away is then
    /// as far as the others, and a clean stop leaves equal logs; whether they are is for `verify` to say.
    ///
    /// # Errors
    /// If that does not come.
    pub async fn until_quiet(&self) -> Result<()> {
        let (mut before, mut since) = (None, Instant::now());
        let quiet = until("no node writes anything", DEADLINE, async || {
            let now = self.written().await?;
            if now.is_none() || now != before {
                (before, since) = (now, Instant::now());
            }
            Ok(since.elapsed() >= QUIET)
        });
        let quiet = quiet.await;
        quiet.with_context(|| self.logs())
    }

    /// Log entries that each node has written since its start; `None` unless all are linked.
    async fn written(&self) -> Result<Option<Vec<Option<u64>>>> {
        let nodes = self.nodes()?;
        let mut written = Vec::new();
        for node in &nodes {
            let Ok(metrics) = get(&node.http, "/metrics").await else {
                return Ok(None);
            };
            let up = metrics
                .text
                .lines()
                .filter(|line| line.starts_with("nsquorum_link_up{"));
            if up.filter(|line| line.ends_with(" 1")).count() != nodes.len() - 1 {
                return Ok(None);
            }
            written.push(metric(&metrics.text, "nsquorum_storage_written_entries_total"));
        }
        Ok(Some(written))
    }
}
