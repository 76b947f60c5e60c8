//! What a node itself says about its cluster: its topics, and the nodes that hold them.

use std::collections::BTreeMap;
use std::time::Duration;

use nsquorum_broker::{AdminAction, AdminError, Broker, NodeId, OtherNode};
use nsquorum_environment::WallTime;
use nsquorum_protocol::{ChannelName, TopicName};

use crate::ProducerDescription;
use crate::registrations::{Moment, Place, RegisteredNode};

/// How long an answer waits for a topic's leader. Some clients give up after two seconds.
const CHANNELS_MAX: Duration = Duration::from_secs(1);

/// The node that answers, as part of its cluster.
#[derive(Clone)]
pub(crate) struct OwnNode {
    broker: Broker,
    producer: ProducerDescription,
}

/// A node of the cluster that answers, this one included.
struct Member {
    node: Option<NodeId>,
    producer: ProducerDescription,
    silent_for: Duration,
}

impl From<OtherNode> for Member {
    fn from(other: OtherNode) -> Self {
        Self {
            node: Some(other.node),
            producer: other.description.into(),
            silent_for: other.silent_for,
        }
    }
}

impl OwnNode {
    pub(crate) fn new(broker: Broker, producer: ProducerDescription) -> Self {
        Self { broker, producer }
    }

    fn here(&self) -> Member {
        Member {
            node: self.broker.node_id(),
            producer: self.producer.clone(),
            silent_for: Duration::ZERO,
        }
    }

    fn members(&self) -> Vec<Member> {
        let others = self.broker.other_nodes().into_iter().map(Member::from);
        std::iter::once(self.here()).chain(others).collect()
    }

    pub(crate) fn topics(&self) -> Vec<TopicName> {
        self.broker.topics()
    }

    pub(crate) fn has_topic(&self, topic: &TopicName) -> bool {
        self.broker.has_topic(topic)
    }

    /// Nothing if the topic's leader cannot be asked for the moment: consumers ask for the nodes, and must not be kept waiting.
    pub(crate) async fn channels(&self, topic: &TopicName) -> Vec<ChannelName> {
        let channels = tokio::time::timeout(CHANNELS_MAX, self.broker.channels(topic)).await;
        channels.ok().flatten().unwrap_or_default()
    }

    /// Where consumers of a topic may connect.
    pub(crate) fn producers(&self, topic: &TopicName) -> Vec<ProducerDescription> {
        if !self.has_topic(topic) {
            return Vec::new();
        }
        let tombstoned = self.broker.tombstoned_nodes(topic);
        // A node that is cut off can deliver nothing, and knows of nobody who can.
        let here = self.broker.is_among_majority().then(|| self.here());
        let others = self.broker.other_replicas(topic).into_iter().map(Member::from);
        let listed = here.into_iter().chain(others);
        listed
            .filter(|member| member.node.is_none_or(|node| !tombstoned.contains_key(&node)))
            .map(|member| member.producer)
            .collect()
    }

    pub(crate) fn nodes(&self) -> Vec<RegisteredNode> {
        let topics: Vec<_> = self
            .topics()
            .into_iter()
            .map(|topic| (self.broker.tombstoned_nodes(&topic), topic))
            .collect();
        let node = |member: Member| RegisteredNode {
            topics: topics
                .iter()
                .map(|(tombstoned, topic)| {
                    let is_tombstoned = member.node.is_some_and(|node| tombstoned.contains_key(&node));
                    (topic.clone(), is_tombstoned)
                })
                .collect(),
            producer: member.producer,
        };
        self.members().into_iter().map(node).collect()
    }

    /// The nodes as if they had registered. Channels are left out: asking every leader for a page that people read is too much.
    pub(crate) fn places(&self, now: Moment) -> BTreeMap<String, Vec<Place>> {
        let members = self.members();
        let places = |topic: Option<&TopicName>| {
            let tombstoned = topic
                .map(|topic| self.broker.tombstoned_nodes(topic))
                .unwrap_or_default();
            let place = |member: &Member| {
                let silent_for = member.silent_for.as_nanos().try_into().unwrap_or(u64::MAX);
                let answered_at = WallTime::from_nanos(now.wall.as_nanos().saturating_sub(silent_for));
                let tombstoned_at = member.node.and_then(|node| tombstoned.get(&node));
                Place::of(&member.producer, answered_at, tombstoned_at.copied())
            };
            members.iter().map(place).collect::<Vec<_>>()
        };
        let clients = std::iter::once(("client::".to_owned(), places(None)));
        let topics = self.topics().into_iter();
        clients
            .chain(topics.map(|topic| (format!("topic:{topic}:"), places(Some(&topic)))))
            .collect()
    }

    pub(crate) async fn create(&self, topic: &TopicName, channel: Option<ChannelName>) -> Result<(), AdminError> {
        self.broker.create_topic(topic).await?;
        match channel {
            Some(channel) => self.broker.administer(topic, AdminAction::CreateChannel(channel)).await,
            None => Ok(()),
        }
    }

    /// Hides the nodes of the cluster that are at `node`, for a while, on all nodes.
    pub(crate) async fn tombstone(&self, topic: &TopicName, node: &[u8], lifetime: Duration) -> Result<(), AdminError> {
        for member in self.members() {
            if let Some(id) = member.node.filter(|_| member.producer.is_at(node)) {
                self.broker.tombstone(topic, id, lifetime).await?;
            }
        }
        Ok(())
    }
}
