//! nsqlookupd's HTTP interface, answered by the node itself.
//!
//! A node knows its topics and channels, so discovery needs no second process: consumers that are pointed at this port find all replicas of
//! a topic as its producers. Nodes that have not answered this one for five seconds are left out until they do. nsqlookupd's registrations have
//! no counterpart: what exists is what the broker has. So "create" really creates, and "delete" removes nothing (tools send the real deletion
//! to the producers).

mod answers;
mod routes;

use std::time::Duration;

use nsquorum_broker::{AdminAction, AdminError, Broker, NodeDescription};
use nsquorum_http::{HttpError, Query, Reply, Request, Resolution, Response, RoutedReply, Service, StatusCode};
use nsquorum_protocol::{ChannelName, TopicName};

use answers::{LookupAnswer, NodeAnswer, NodesAnswer};
use routes::{Endpoint, ROUTER};

/// How long /lookup waits for the topic's leader. Some clients give up after two seconds.
const CHANNELS_MAX: Duration = Duration::from_secs(1);

type Answer = Result<Reply, HttpError>;

/// How others reach this node, as discovery publishes it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ProducerDescription {
    /// `address:port` that nsqlookupd would see as the other end of the node's registration.
    pub remote_address: String,
    /// The machine's name.
    pub hostname: String,
    /// The address that consumers connect to.
    pub broadcast_address: String,
    /// The port for TCP.
    pub tcp_port: u16,
    /// The port for HTTP.
    pub http_port: u16,
    /// The version that clients see; three numbers with dots.
    pub version: String,
    /// The node's zone, or nothing.
    pub topology_zone: String,
    /// The node's region, or nothing.
    pub topology_region: String,
}

impl From<NodeDescription> for ProducerDescription {
    fn from(node: NodeDescription) -> Self {
        Self {
            remote_address: format!("{}:{}", node.broadcast_address, node.tcp_port),
            hostname: node.hostname,
            broadcast_address: node.broadcast_address,
            tcp_port: node.tcp_port,
            http_port: node.http_port,
            version: node.version,
            topology_zone: node.topology_zone,
            topology_region: node.topology_region,
        }
    }
}

/// Answers nsqlookupd's HTTP requests.
#[derive(Clone)]
pub struct LookupFrontend {
    broker: Broker,
    producer: ProducerDescription,
}

impl LookupFrontend {
    /// Discovery of the topics of `broker`, at `producer`, which is this node, and at the other nodes that hold them.
    pub fn new(broker: Broker, producer: ProducerDescription) -> Self {
        Self { broker, producer }
    }

    async fn answer(&self, endpoint: Endpoint, request: &Request) -> Answer {
        let arguments = Query::parse(request.uri().query()).map_err(|_| HttpError::bad_request("INVALID_REQUEST"));
        match endpoint {
            Endpoint::Ping => Ok(Reply::Plain(StatusCode::OK, "OK".to_owned())),
            Endpoint::Info => Ok(Reply::Json(serde_json::json!({ "version": self.producer.version }))),
            Endpoint::Lookup => self.lookup(&arguments?).await,
            Endpoint::Topics => Ok(Reply::Json(serde_json::json!({ "topics": self.topics() }))),
            Endpoint::Channels => self.channels(&arguments?).await,
            Endpoint::Nodes => self.nodes(),
            Endpoint::CreateTopic => self.create_topic(&arguments?).await,
            Endpoint::DeleteTopic => {
                raw(&arguments?, "topic", "MISSING_ARG_TOPIC")?;
                Ok(Reply::Empty)
            }
            Endpoint::TombstoneTopic => {
                let arguments = arguments?;
                raw(&arguments, "topic", "MISSING_ARG_TOPIC")?;
                raw(&arguments, "node", "MISSING_ARG_NODE")?;
                Ok(Reply::Empty)
            }
            Endpoint::CreateChannel => self.create_channel(&arguments?).await,
            Endpoint::DeleteChannel => self.delete_channel(&arguments?).await,
        }
    }

    fn topics(&self) -> Vec<String> {
        self.broker.topics().iter().map(ToString::to_string).collect()
    }

    /// The channels of a topic; `None` if there is no such topic, also because its name cannot exist.
    async fn channels_of(&self, name: &[u8]) -> Option<Vec<String>> {
        let topic = TopicName::try_from(name).ok()?;
        let channels = self.broker.channels(&topic).await?;
        Some(channels.iter().map(ToString::to_string).collect())
    }

    async fn lookup(&self, arguments: &Query) -> Answer {
        let topic = raw(arguments, "topic", "MISSING_ARG_TOPIC")?;
        let name = TopicName::try_from(topic).map_err(|_| HttpError::not_found("TOPIC_NOT_FOUND"))?;
        if !self.broker.has_topic(&name) {
            return Err(HttpError::not_found("TOPIC_NOT_FOUND"));
        }
        // Consumers ask for the nodes; that the channels cannot be had for a while must not keep them waiting.
        let channels = tokio::time::timeout(CHANNELS_MAX, self.channels_of(topic)).await;
        let channels = channels.ok().flatten().unwrap_or_default();
        let others = self.broker.other_replicas(&name);
        let others: Vec<ProducerDescription> = others.into_iter().map(ProducerDescription::from).collect();
        // A node that is cut off can deliver nothing, and knows of nobody who can.
        let here = self.broker.is_among_majority().then_some(&self.producer);
        to_json(&LookupAnswer {
            channels,
            producers: here.into_iter().chain(&others).collect(),
        })
    }

    async fn channels(&self, arguments: &Query) -> Answer {
        let topic = raw(arguments, "topic", "MISSING_ARG_TOPIC")?;
        let channels = self.channels_of(topic).await.unwrap_or_default();
        Ok(Reply::Json(serde_json::json!({ "channels": channels })))
    }

    fn nodes(&self) -> Answer {
        let topics = self.topics();
        // nsqadmin reads the two lists side by side and panics if they differ in length.
        let others = self.broker.other_nodes();
        let others: Vec<ProducerDescription> = others.into_iter().map(ProducerDescription::from).collect();
        let node = |producer| NodeAnswer {
            producer,
            tombstones: vec![false; topics.len()],
            topics: topics.clone(),
        };
        to_json(&NodesAnswer {
            producers: std::iter::once(&self.producer).chain(&others).map(node).collect(),
        })
    }

    async fn create_topic(&self, arguments: &Query) -> Answer {
        let topic = topic(arguments)?;
        self.broker.create_topic(&topic).await.map_err(unavailable)?;
        Ok(Reply::Empty)
    }

    async fn create_channel(&self, arguments: &Query) -> Answer {
        let topic = topic(arguments)?;
        let channel = channel(arguments)?;
        self.broker.create_topic(&topic).await.map_err(unavailable)?;
        let action = AdminAction::CreateChannel(channel);
        self.broker.administer(&topic, action).await.map_err(unavailable)?;
        Ok(Reply::Empty)
    }

    async fn delete_channel(&self, arguments: &Query) -> Answer {
        let topic = topic(arguments)?;
        let channel = channel(arguments)?;
        let channels = self.broker.channels(&topic).await.unwrap_or_default();
        if channels.contains(&channel) {
            Ok(Reply::Empty)
        } else {
            Err(HttpError::not_found("CHANNEL_NOT_FOUND"))
        }
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

fn raw<'a>(arguments: &'a Query, name: &str, missing: &'static str) -> Result<&'a [u8], HttpError> {
    arguments.non_empty(name).ok_or(HttpError::bad_request(missing))
}

fn topic(arguments: &Query) -> Result<TopicName, HttpError> {
    let name = raw(arguments, "topic", "MISSING_ARG_TOPIC")?;
    TopicName::try_from(name).map_err(|_| HttpError::bad_request("INVALID_ARG_TOPIC"))
}

fn channel(arguments: &Query) -> Result<ChannelName, HttpError> {
    let name = raw(arguments, "channel", "MISSING_ARG_CHANNEL")?;
    ChannelName::try_from(name).map_err(|_| HttpError::bad_request("INVALID_ARG_CHANNEL"))
}

fn unavailable(error: AdminError) -> HttpError {
    tracing::warn!(%error, "a topic or channel could not be created");
    HttpError::unavailable("UNAVAILABLE")
}

fn to_json(value: &impl serde::Serialize) -> Answer {
    serde_json::to_vec(value)
        .map(Reply::RawJson)
        .map_err(|_| HttpError::internal("INTERNAL_ERROR"))
}
