//! What `nsquorum verify` says of the directory of a stopped node.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::programs::nsquorum_program;

/// The report, as far as tests look at it.
#[derive(Clone, Debug, Deserialize)]
pub struct VerifyReport {
    /// `clean` or `damaged`.
    pub outcome: String,
    /// Damage, each as an object with `what`, and `file` and `offset` where that is the place.
    pub findings: Vec<serde_json::Value>,
    /// What is no damage.
    pub notes: Vec<serde_json::Value>,
    /// Every group as it was printed: two equal lists are the same content.
    pub groups: Vec<serde_json::Value>,
}

/// A topic at the end of its log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TopicState {
    /// The number that the next message gets.
    pub next_seq: u64,
    /// Digest of the state.
    pub digest: String,
    /// Batches that were void, ever.
    pub void_batches: u64,
    /// The channels.
    pub channels: Vec<ChannelState>,
}

/// A channel's cursor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ChannelState {
    /// Its name.
    pub name: String,
    /// Everything below is finished.
    pub floor: u64,
    /// What is finished above, as first and last numbers.
    pub finished: Vec<(u64, u64)>,
}

impl ChannelState {
    /// Whether the message with this number is finished.
    #[must_use]
    pub fn is_finished(&self, number: u64) -> bool {
        number < self.floor
            || self
                .finished
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&number))
    }
}

impl VerifyReport {
    /// Nothing is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.outcome == "clean"
    }

    /// The topic of this name; `None` if the directory has none.
    ///
    /// # Errors
    /// If the report of the topic is not understood.
    pub fn topic(&self, name: &str) -> Result<Option<TopicState>> {
        let Some(group) = self.groups.iter().find(|group| group["name"] == name) else {
            return Ok(None);
        };
        if group["topic"].is_null() {
            return Ok(None);
        }
        Ok(Some(
            serde_json::from_value(group["topic"].clone()).context("verify's report of a topic")?,
        ))
    }
}

/// Runs `nsquorum verify --json`.
///
/// # Errors
/// If it says nothing that can be understood, or its exit code contradicts its report.
pub fn verify(data: &Path) -> Result<VerifyReport> {
    let output = Command::new(nsquorum_program()?)
        .arg("verify")
        .arg("--json")
        .arg(data)
        .output()?;
    let words = || {
        format!(
            "verify ended with {:?}: {}",
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).trim_end()
        )
    };
    let report: VerifyReport = serde_json::from_slice(&output.stdout).with_context(words)?;
    let expected = if report.is_clean() { 0 } else { 72 };
    if output.status.code() != Some(expected) || report.is_clean() != report.findings.is_empty() {
        bail!(
            "{}, and says {} with {} findings",
            words(),
            report.outcome,
            report.findings.len()
        );
    }
    Ok(report)
}
