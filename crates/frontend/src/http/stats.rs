//! GET /stats: gathers what both forms show.

use std::collections::BTreeMap;

use nsquorum_broker::{Health, SubscriptionStats, TopicStats};
use nsquorum_environment::WallTime;
use nsquorum_http::Query;
use nsquorum_protocol::{ChannelName, TopicName};
use serde::Serialize;

use super::memory::Memory;
use super::{Answer, HttpFrontend};
use crate::registry::ConnectionView;

/// How many replicas a topic should have, and how many have everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Replication {
    replication_factor: usize,
    in_sync_replicas: usize,
}

/// One moment of the node.
pub(super) struct Snapshot {
    pub(super) version: String,
    pub(super) health: String,
    pub(super) started_at: WallTime,
    pub(super) now: WallTime,
    /// `None`: the topic that was asked for does not exist. nsqd answers `null` then, and an empty list for a channel that does not.
    pub(super) topics: Option<Vec<TopicStats>>,
    pub(super) memory: Option<Memory>,
    pub(super) include_clients: bool,
    /// The topic that was asked for, if one was: producers are shown with what they have published to it.
    pub(super) only: Option<TopicName>,
    /// Of each topic; only for the JSON form.
    pub(super) replication: BTreeMap<TopicName, Replication>,
    /// Every connection by its remote address: state and publish counts.
    pub(super) connections: BTreeMap<String, ConnectionView>,
}

impl HttpFrontend {
    pub(super) async fn stats(&self, arguments: &Query) -> Answer {
        let include_clients = arguments.boolean("include_clients").unwrap_or(true);
        let include_memory = arguments.boolean("include_mem").unwrap_or(true);
        let health = match self.broker.health() {
            Health::Ok => "OK".to_owned(),
            Health::NotOk(cause) => format!("NOK - {cause}"),
        };
        let is_json = arguments.get("format") == Some(b"json");
        let views = self.registry.views().into_iter();
        let snapshot = Snapshot {
            version: self.config.features.version.clone(),
            health,
            started_at: self.config.started_at,
            now: self.broker.environment().clock.wall(),
            topics: self.topics(arguments).await,
            replication: if is_json {
                self.replication().await
            } else {
                BTreeMap::new()
            },
            memory: include_memory.then(Memory::of_process),
            include_clients,
            only: arguments
                .non_empty("topic")
                .and_then(|name| TopicName::try_from(name).ok()),
            connections: views.map(|view| (view.client.remote_address.clone(), view)).collect(),
        };
        if is_json {
            snapshot.to_json()
        } else {
            Ok(snapshot.to_text())
        }
    }

    async fn replication(&self) -> BTreeMap<TopicName, Replication> {
        let status = self.broker.cluster_status().await;
        let topics = status.into_iter().flat_map(|status| status.topics);
        topics
            .map(|(name, group)| {
                let replication = Replication {
                    replication_factor: group.replicas.len(),
                    in_sync_replicas: group.in_sync(),
                };
                (name, replication)
            })
            .collect()
    }

    async fn topics(&self, arguments: &Query) -> Option<Vec<TopicStats>> {
        let Some(name) = arguments.non_empty("topic") else {
            let channel = match arguments.non_empty("channel") {
                None => None,
                // A name that cannot exist matches nothing.
                Some(name) => match ChannelName::try_from(name) {
                    Ok(channel) => Some(channel),
                    Err(_) => return Some(Vec::new()),
                },
            };
            return Some(with_channel(
                self.broker.stats(None, channel.as_ref()).await,
                channel.as_ref(),
            ));
        };
        let topic = TopicName::try_from(name).ok()?;
        self.broker.channels(&topic).await?;
        let channel = match arguments.non_empty("channel").map(ChannelName::try_from) {
            None => None,
            Some(Ok(channel)) => Some(channel),
            Some(Err(_)) => return Some(Vec::new()),
        };
        Some(with_channel(
            self.broker.stats(Some(&topic), channel.as_ref()).await,
            channel.as_ref(),
        ))
    }
}

impl Snapshot {
    /// Connections that have published to any topic. There are none for a topic that does not exist, or if clients are not asked for.
    pub(super) fn producing(&self) -> impl Iterator<Item = &ConnectionView> {
        let is_shown = self.include_clients && self.topics.is_some();
        let views = self.connections.values();
        views.filter(move |view| is_shown && !view.published.is_empty())
    }

    /// What a connection has published to the topics that are asked for.
    pub(super) fn published<'a>(&'a self, view: &'a ConnectionView) -> impl Iterator<Item = (&'a TopicName, u64)> {
        let counts = view.published.iter().map(|(topic, count)| (topic, *count));
        counts.filter(|(topic, _)| self.only.as_ref().is_none_or(|only| only == *topic))
    }

    /// What a connection consumes, if it does.
    pub(super) fn subscription_of(&self, view: &ConnectionView) -> Option<&SubscriptionStats> {
        let channels = self.topics.iter().flatten().flat_map(|topic| &topic.channels);
        let mut consumers = channels.flat_map(|channel| &channel.clients);
        consumers.find(|stats| stats.client.remote_address == view.client.remote_address)
    }
}

/// With a channel filter nsqd leaves out topics that do not have it.
fn with_channel(mut topics: Vec<TopicStats>, channel: Option<&ChannelName>) -> Vec<TopicStats> {
    if let Some(channel) = channel {
        for topic in &mut topics {
            topic.channels.retain(|of| of.name == *channel);
        }
        topics.retain(|topic| !topic.channels.is_empty());
    }
    topics
}
