//! nsqlookupd's HTTP interface.
//!
//! Answers are what the node itself has, if there is one, and after it what has registered. What is created at a node is created in its
//! cluster; without one it is a key, which consumers find although nobody produces. Deleting touches registrations only: tools send the real
//! deletion to the producers.

use std::collections::{BTreeMap, BTreeSet};

use nsquorum_broker::{AdminError, Broker};
use nsquorum_http::{HttpError, Query, Reply, Request, Resolution, Response, RoutedReply, Service, StatusCode};
use nsquorum_protocol::{ChannelName, TopicName};

use crate::answers::{LookupAnswer, NodeAnswer, NodesAnswer};
use crate::own::OwnNode;
use crate::registrations::{Full, Place};
use crate::routes::{Endpoint, ROUTER};
use crate::{Directory, ProducerDescription};

type Answer = Result<Reply, HttpError>;

/// Answers nsqlookupd's HTTP requests.
#[derive(Clone)]
pub struct LookupFrontend {
    directory: Directory,
    /// `None`: a lookup service without a node.
    own: Option<OwnNode>,
    version: String,
}

impl LookupFrontend {
    /// Discovery of the topics of `broker`, at `producer`, which is this node, and at the other nodes that hold them; and of what has
    /// registered in `directory`.
    pub fn of_node(directory: Directory, broker: Broker, producer: ProducerDescription) -> Self {
        Self {
            directory,
            version: producer.version.clone(),
            own: Some(OwnNode::new(broker, producer)),
        }
    }

    /// Discovery of what has registered in `directory`.
    pub fn alone(directory: Directory, version: String) -> Self {
        Self {
            directory,
            own: None,
            version,
        }
    }

    async fn answer(&self, endpoint: Endpoint, request: &Request) -> Answer {
        let arguments = Query::parse(request.uri().query()).map_err(|_| HttpError::bad_request("INVALID_REQUEST"));
        match endpoint {
            Endpoint::Ping => Ok(Reply::Plain(StatusCode::OK, "OK".to_owned())),
            Endpoint::Info => Ok(Reply::Json(serde_json::json!({ "version": self.version }))),
            Endpoint::Debug => self.debug(),
            Endpoint::Lookup => self.lookup(&arguments?).await,
            Endpoint::Topics => Ok(self.topics()),
            Endpoint::Channels => {
                let channels = self.channels(&arguments?).await?;
                Ok(Reply::Json(serde_json::json!({ "channels": channels })))
            }
            Endpoint::Nodes => self.nodes(),
            Endpoint::CreateTopic => self.create(&topic(&arguments?)?, None).await,
            Endpoint::CreateChannel => {
                let arguments = arguments?;
                let topic = topic(&arguments)?;
                self.create(&topic, Some(channel(&arguments)?)).await
            }
            Endpoint::DeleteTopic => self.delete_topic(&arguments?),
            Endpoint::DeleteChannel => self.delete_channel(&arguments?).await,
            Endpoint::TombstoneTopic => self.tombstone(&arguments?).await,
        }
    }

    fn topics(&self) -> Reply {
        let mut topics: BTreeSet<TopicName> = self.own.iter().flat_map(OwnNode::topics).collect();
        self.directory
            .with_registrations(|registrations| topics.extend(registrations.topics().cloned()));
        let topics: Vec<&str> = topics.iter().map(TopicName::as_str).collect();
        Reply::Json(serde_json::json!({ "topics": topics }))
    }

    async fn channels_of(&self, topic: &TopicName) -> Vec<String> {
        let mut channels = BTreeSet::new();
        if let Some(own) = &self.own {
            channels.extend(own.channels(topic).await);
        }
        self.directory
            .with_registrations(|registrations| channels.extend(registrations.channels(topic).cloned()));
        channels.iter().map(ToString::to_string).collect()
    }

    /// What cannot be a topic's name has no channels.
    async fn channels(&self, arguments: &Query) -> Result<Vec<String>, HttpError> {
        match TopicName::try_from(given(arguments, "topic", "MISSING_ARG_TOPIC")?) {
            Ok(topic) => Ok(self.channels_of(&topic).await),
            Err(_) => Ok(Vec::new()),
        }
    }

    async fn lookup(&self, arguments: &Query) -> Answer {
        let name = given(arguments, "topic", "MISSING_ARG_TOPIC")?;
        let unknown = HttpError::not_found("TOPIC_NOT_FOUND");
        let topic = TopicName::try_from(name).map_err(|_| unknown)?;
        let is_registered = self
            .directory
            .with_registrations(|registrations| registrations.has_topic(&topic));
        if !is_registered && !self.own.as_ref().is_some_and(|own| own.has_topic(&topic)) {
            return Err(unknown);
        }
        let channels = self.channels_of(&topic).await;
        let mut producers: Vec<ProducerDescription> = self.own.iter().flat_map(|own| own.producers(&topic)).collect();
        let now = self.directory.now();
        self.directory.with_registrations(|registrations| {
            for producer in registrations.producers(&topic, now) {
                // A node that registers with its own cluster is listed already.
                if !producers.iter().any(|known| known.is_same_place(producer)) {
                    producers.push(producer.clone());
                }
            }
        });
        to_json(&LookupAnswer { channels, producers })
    }

    fn nodes(&self) -> Answer {
        let mut nodes = self.own.as_ref().map(OwnNode::nodes).unwrap_or_default();
        let now = self.directory.now();
        for node in self
            .directory
            .with_registrations(|registrations| registrations.nodes(now))
        {
            if !nodes.iter().any(|known| known.producer.is_same_place(&node.producer)) {
                nodes.push(node);
            }
        }
        to_json(&NodesAnswer {
            producers: nodes.into_iter().map(NodeAnswer::from).collect(),
        })
    }

    fn debug(&self) -> Answer {
        let now = self.directory.now();
        let mut places: BTreeMap<String, Vec<Place>> = self.own.as_ref().map(|own| own.places(now)).unwrap_or_default();
        for (key, more) in self
            .directory
            .with_registrations(|registrations| registrations.places())
        {
            places.entry(key).or_default().extend(more);
        }
        to_json(&places)
    }

    async fn create(&self, topic: &TopicName, channel: Option<ChannelName>) -> Answer {
        match &self.own {
            Some(own) => own.create(topic, channel).await.map_err(unavailable)?,
            None => self
                .directory
                .with_registrations(|registrations| registrations.create(topic, channel.as_ref()))
                .map_err(|Full| HttpError::unavailable("TOO_MANY_REGISTRATIONS"))?,
        }
        Ok(Reply::Empty)
    }

    fn delete_topic(&self, arguments: &Query) -> Answer {
        if let Ok(topic) = TopicName::try_from(given(arguments, "topic", "MISSING_ARG_TOPIC")?) {
            self.directory
                .with_registrations(|registrations| registrations.delete_topic(&topic));
        }
        Ok(Reply::Empty)
    }

    async fn delete_channel(&self, arguments: &Query) -> Answer {
        let topic = topic(arguments)?;
        let channel = channel(arguments)?;
        let mut was_there = self
            .directory
            .with_registrations(|registrations| registrations.delete_channel(&topic, &channel));
        if let Some(own) = &self.own {
            was_there |= own.channels(&topic).await.contains(&channel);
        }
        if was_there {
            Ok(Reply::Empty)
        } else {
            Err(HttpError::not_found("CHANNEL_NOT_FOUND"))
        }
    }

    async fn tombstone(&self, arguments: &Query) -> Answer {
        let topic = given(arguments, "topic", "MISSING_ARG_TOPIC")?;
        let node = given(arguments, "node", "MISSING_ARG_NODE")?;
        let Ok(topic) = TopicName::try_from(topic) else {
            return Ok(Reply::Empty);
        };
        let now = self.directory.now();
        self.directory
            .with_registrations(|registrations| registrations.tombstone(&topic, node, now));
        if let Some(own) = &self.own {
            let lifetime = self.directory.lifetimes().tombstone_lifetime;
            own.tombstone(&topic, node, lifetime).await.map_err(unavailable)?;
        }
        Ok(Reply::Empty)
    }
}

impl Service for LookupFrontend {
    async fn handle(&self, request: &mut Request) -> Response {
        match ROUTER.resolve(request.method(), request.uri().path()) {
            Resolution::Endpoint(endpoint) => match self.answer(endpoint, request).await {
                Ok(reply) => reply.into_response(),
                Err(error) => error.into_response(),
            },
            routed => RoutedReply::of(routed, request),
        }
    }
}

/// A parameter that may be empty, but must be there.
fn given<'a>(arguments: &'a Query, name: &str, missing: &'static str) -> Result<&'a [u8], HttpError> {
    arguments.get(name).ok_or(HttpError::bad_request(missing))
}

fn topic(arguments: &Query) -> Result<TopicName, HttpError> {
    let name = given(arguments, "topic", "MISSING_ARG_TOPIC")?;
    TopicName::try_from(name).map_err(|_| HttpError::bad_request("INVALID_ARG_TOPIC"))
}

fn channel(arguments: &Query) -> Result<ChannelName, HttpError> {
    let name = given(arguments, "channel", "MISSING_ARG_CHANNEL")?;
    ChannelName::try_from(name).map_err(|_| HttpError::bad_request("INVALID_ARG_CHANNEL"))
}

fn unavailable(error: AdminError) -> HttpError {
    tracing::warn!(%error, "an administrative request to the lookup service failed");
    HttpError::unavailable("UNAVAILABLE")
}

fn to_json(value: &impl serde::Serialize) -> Answer {
    serde_json::to_vec(value)
        .map(Reply::RawJson)
        .map_err(|_| HttpError::internal("INTERNAL_ERROR"))
}
