//! What /stats says of a channel.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::http;
use crate::node::Node;

#[derive(Deserialize)]
struct Stats {
    topics: Vec<Topic>,
}

#[derive(Deserialize)]
struct Topic {
    topic_name: String,
    channels: Vec<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    channel_name: String,
    depth: i64,
    in_flight_count: i64,
    deferred_count: i64,
}

/// What a channel has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelDepth {
    /// Waiting for a consumer.
    pub waiting: i64,
    /// With a consumer.
    pub in_flight: i64,
    /// Not due yet.
    pub deferred: i64,
}

impl ChannelDepth {
    /// Nothing is left to do.
    #[must_use]
    pub fn is_empty(self) -> bool {
        (self.waiting, self.in_flight, self.deferred) == (0, 0, 0)
    }
}

impl Node {
    /// What this channel has left to do.
    ///
    /// # Errors
    /// If /stats does not answer, or does not know the channel.
    pub async fn depth(&self, topic: &str, channel: &str) -> Result<ChannelDepth> {
        let answer = http::get(self.http(), "/stats?format=json").await?;
        let stats: Stats = serde_json::from_str(&answer.text).with_context(|| format!("/stats says {answer:?}"))?;
        let topic = stats.topics.into_iter().find(|found| found.topic_name == topic);
        let mut channels = topic.context("no such topic in /stats")?.channels.into_iter();
        let found = channels
            .find(|found| found.channel_name == channel)
            .context("no such channel in /stats")?;
        Ok(ChannelDepth {
            waiting: found.depth,
            in_flight: found.in_flight_count,
            deferred: found.deferred_count,
        })
    }
}
