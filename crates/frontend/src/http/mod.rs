//! nsqd's HTTP server.

mod admin;
mod configuration;
mod debugging;
mod go_format;
mod info;
pub(crate) mod memory;
mod publish;
mod routes;
mod stats;
mod stats_json;
mod stats_text;
mod status;
mod topic_metrics;

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use nsquorum_broker::{Broker, Health};
use nsquorum_http::{HttpError, Query, Reply, Request, Resolution, Response, RoutedReply, Service, StatusCode};
use nsquorum_protocol::{ChannelName, TopicName};

use crate::config::FrontendConfig;
use crate::metrics::FrontendMetrics;
use crate::registry::ConnectionRegistry;
use crate::settings::EffectiveSettings;
use routes::{Endpoint, ROUTER, SettingAction};

type Answer = Result<Reply, HttpError>;

/// Answers nsqd's HTTP requests.
pub struct HttpFrontend {
    broker: Broker,
    config: Arc<FrontendConfig>,
    settings: EffectiveSettings,
    registry: ConnectionRegistry,
    prometheus: Option<PrometheusHandle>,
    tcp_port: Option<u16>,
    http_port: Option<u16>,
    metrics: FrontendMetrics,
}

impl HttpFrontend {
    /// A server for the topics of `broker`. The ports are those that the node really listens on, if it does. Without `prometheus` there is no /metrics.
    pub fn new(
        broker: Broker,
        config: Arc<FrontendConfig>,
        settings: EffectiveSettings,
        registry: ConnectionRegistry,
        prometheus: Option<PrometheusHandle>,
        (tcp_port, http_port): (Option<u16>, Option<u16>),
    ) -> Self {
        Self {
            broker,
            config,
            settings,
            registry,
            prometheus,
            tcp_port,
            http_port,
            metrics: FrontendMetrics::new(),
        }
    }

    /// `parameter` is what stands at the end of the path, for endpoints that have one.
    async fn answer(&self, endpoint: Endpoint, parameter: &str, request: &mut Request) -> Answer {
        match endpoint {
            Endpoint::Ping => Ok(self.ping()),
            Endpoint::Info => self.info(),
            Endpoint::Stats => self.stats(&query(request)?).await,
            Endpoint::Metrics => self.metrics_text().await,
            Endpoint::ClusterStatus => self.cluster_status().await,
            Endpoint::Pub => self.publish_one(request).await,
            Endpoint::Mpub => self.publish_many(request).await,
            Endpoint::ChannelMpub => self.publish_to_channel(request).await,
            Endpoint::Topic(action) => self.administer_topic(action, &query(request)?).await,
            Endpoint::Channel(action) => self.administer_channel(action, &query(request)?).await,
            Endpoint::Setting(SettingAction::Show) => self.show_setting(parameter),
            Endpoint::Setting(SettingAction::Change) => self.change_setting(parameter, request).await,
            Endpoint::SetBlockRate => Ok(debugging::set_block_rate(&query(request)?)),
            Endpoint::FreeMemory => Ok(debugging::free_memory()),
        }
    }

    /// 200 only while publishes can succeed; it recovers by itself.
    fn ping(&self) -> Reply {
        match self.broker.health() {
            Health::Ok => Reply::Plain(StatusCode::OK, "OK".to_owned()),
            Health::NotOk(cause) => Reply::Plain(StatusCode::INTERNAL_SERVER_ERROR, format!("NOK - {cause}")),
        }
    }

    async fn metrics_text(&self) -> Answer {
        let prometheus = self.prometheus.as_ref().ok_or(HttpError::not_found("NOT_FOUND"))?;
        let mut text = prometheus.render();
        text.push_str(&topic_metrics::text(&self.broker.led_stats().await));
        Ok(Reply::Plain(StatusCode::OK, text))
    }
}

impl Service for HttpFrontend {
    async fn handle(&self, request: &mut Request) -> Response {
        self.metrics.http_requests.increment(1);
        let (endpoint, parameter) = match ROUTER.resolve(request.method(), request.uri().path()) {
            Resolution::Endpoint(endpoint) => (endpoint, String::new()),
            Resolution::WithParameter(endpoint, parameter) => (endpoint, parameter),
            routed => return RoutedReply::of(routed, request),
        };
        match self.answer(endpoint, &parameter, request).await {
            Ok(reply) => reply.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

fn query(request: &Request) -> Result<Query, HttpError> {
    Query::parse(request.uri().query()).map_err(|_| HttpError::bad_request("INVALID_REQUEST"))
}

/// The topic that a request names, with the code for an invalid name: nsqd has two. A name that is given and empty is invalid.
fn topic_argument(query: &Query, invalid: &'static str) -> Result<TopicName, HttpError> {
    let name = query.get("topic").ok_or(HttpError::bad_request("MISSING_ARG_TOPIC"))?;
    TopicName::try_from(name).map_err(|_| HttpError::bad_request(invalid))
}

fn channel_argument(query: &Query) -> Result<ChannelName, HttpError> {
    let name = query
        .get("channel")
        .ok_or(HttpError::bad_request("MISSING_ARG_CHANNEL"))?;
    ChannelName::try_from(name).map_err(|_| HttpError::bad_request("INVALID_ARG_CHANNEL"))
}
