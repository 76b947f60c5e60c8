//! /stats for people: nsqd's text layout, to the blank.

use std::fmt::{self, Write as _};
use std::time::Duration;

use nsquorum_broker::{ClientDescription, LatencySummary, SubscriptionStats, TopicStats};
use nsquorum_http::Reply;
use nsquorum_protocol::ConnectionState;

use super::go_format::{duration, latency, rfc3339};
use super::memory::Memory;
use super::stats::Snapshot;
use crate::registry::ConnectionView;

impl Snapshot {
    pub(super) fn to_text(&self) -> Reply {
        let mut text = String::new();
        self.write_text(&mut text).expect("writing to a string cannot fail");
        Reply::Text(text)
    }

    fn write_text(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "nsqd v{} (nsquorum)", self.version)?;
        writeln!(out, "start_time {}", rfc3339(self.started_at.as_secs()))?;
        let uptime = self.now.as_nanos().saturating_sub(self.started_at.as_nanos());
        writeln!(out, "uptime {}", duration(Duration::from_nanos(uptime)))?;
        writeln!(out, "\nHealth: {}", self.health)?;
        if let Some(memory) = &self.memory {
            write_memory(out, memory)?;
        }
        let topics = self.topics.as_deref().unwrap_or_default();
        match topics {
            [] => writeln!(out, "\nTopics: None")?,
            _ => write!(out, "\nTopics:")?,
        }
        for topic in topics {
            self.write_topic(out, topic)?;
        }
        let mut producers = self.producing().peekable();
        match producers.peek() {
            None => writeln!(out, "\nProducers: None"),
            Some(_) => {
                writeln!(out, "\nProducers:")?;
                producers.try_for_each(|view| {
                    let line = self.client(&view.client, self.subscription_of(view), Some(view));
                    writeln!(out, "   {line}")
                })
            }
        }
    }

    fn write_topic(&self, out: &mut String, topic: &TopicStats) -> fmt::Result {
        let mark = if topic.paused { "*P " } else { "   " };
        let (depth, count, name) = (topic.depth, topic.message_count, topic.name.as_str());
        let e2e = latencies(topic.latency.as_ref());
        writeln!(
            out,
            "\n{mark}[{name:<15}] depth: {depth:<5} be-depth: {depth:<5} msgs: {count:<8} e2e%: {e2e}"
        )?;
        for channel in &topic.channels {
            let mark = if channel.paused { "   *P " } else { "      " };
            writeln!(
                out,
                "{mark}[{:<25}] depth: {:<5} be-depth: {:<5} inflt: {:<4} def: {:<4} re-q: {:<5} timeout: {:<5} msgs: {:<8} e2e%: {}",
                channel.name.as_str(),
                channel.depth,
                channel.depth,
                channel.in_flight_count,
                channel.deferred_count,
                channel.requeue_count,
                channel.timeout_count,
                channel.message_count,
                latencies(channel.latency.as_ref()),
            )?;
            for stats in channel.clients.iter().filter(|_| self.include_clients) {
                let view = self.connections.get(&stats.client.remote_address);
                writeln!(out, "        {}", self.client(&stats.client, Some(stats), view))?;
            }
        }
        Ok(())
    }

    /// One client: by what it has published if it has, else by what it consumes.
    fn client(
        &self,
        client: &ClientDescription,
        stats: Option<&SubscriptionStats>,
        view: Option<&ConnectionView>,
    ) -> String {
        let port = client.remote_address.rsplit_once(':').map_or("", |(_, port)| port);
        let id = format!("{}:{port} {}", client.hostname, client.user_agent);
        let age = self.now.as_secs().saturating_sub(client.connected_at.as_secs());
        let connected = duration(Duration::from_secs(age));
        let published: Vec<_> = view.into_iter().flat_map(|view| self.published(view)).collect();
        if !published.is_empty() {
            let total: u64 = published.iter().map(|(_, count)| *count).sum();
            let topics: Vec<String> = published
                .iter()
                .map(|(topic, count)| format!("{topic}={count}"))
                .collect();
            let topics = topics.join(",");
            return format!("[V2 {id:<21}] msgs: {total:<8} topics: {topics} connected: {connected}");
        }
        let default = match stats {
            Some(_) => ConnectionState::Subscribed,
            None => ConnectionState::Init,
        };
        let state = view.map_or(default, |view| view.state).number();
        let count = |of: fn(&SubscriptionStats) -> u64| stats.map_or(0, of);
        format!(
            "[V2 {id:<21}] state: {state} inflt: {:<4} rdy: {:<4} fin: {:<8} re-q: {:<8} msgs: {:<8} connected: {connected}",
            count(|stats| stats.in_flight_count),
            count(|stats| stats.ready_count.into()),
            count(|stats| stats.finish_count),
            count(|stats| stats.requeue_count),
            count(|stats| stats.message_count),
        )
    }
}

fn write_memory(out: &mut String, memory: &Memory) -> fmt::Result {
    writeln!(out, "\nMemory:")?;
    memory
        .figures()
        .into_iter()
        .try_for_each(|(name, figure)| writeln!(out, "   {name:<25}\t{figure}"))
}

fn latencies(summary: Option<&LatencySummary>) -> String {
    let percentiles = summary.iter().flat_map(|summary| &summary.percentiles);
    let texts: Vec<String> = percentiles.map(|percentile| latency(percentile.nanos)).collect();
    texts.join(", ")
}
