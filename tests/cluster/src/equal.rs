//! Whether all replicas say the same.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nsquorum_node_tests::VerifyReport;

/// In what the replicas of a topic differ, or are damaged; empty if all is well. All must have every message, and where two logs end at the same
/// entry their states must be equal to the bit. (A node that stops a moment before the others lacks their last entries.)
///
/// # Errors
/// If a report is not understood, or has no such topic.
pub fn differences(reports: &[VerifyReport], topic: &str, next_seq: u64) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut digests: BTreeMap<String, String> = BTreeMap::new();
    for (place, report) in reports.iter().enumerate() {
        found.extend(
            report
                .findings
                .iter()
                .map(|finding| format!("node {}: {finding}", place + 1)),
        );
        let state = report.topic(topic)?.context("a replica without the topic")?;
        let group = report.groups.iter().find(|group| group["name"] == topic);
        let end = group.context("found above")?["last"].to_string();
        let digest = digests.entry(end.clone()).or_insert_with(|| state.digest.clone());
        if *digest != state.digest {
            found.push(format!("states at entry {end} differ"));
        }
        if state.next_seq != next_seq {
            found.push(format!(
                "node {} would go on at {}, not {next_seq}",
                place + 1,
                state.next_seq
            ));
        }
    }
    Ok(found)
}
