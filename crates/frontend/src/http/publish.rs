//! POST /pub, /mpub and /channel/mpub.
//!
//! The order of checks is nsqd's: the body before the topic for /pub, only the announced length before the topic for /mpub.

use bytes::Bytes;
use nsquorum_broker::PublishError;
use nsquorum_http::{BodyError, HttpError, Query, Reply, Request, StatusCode, read_body};
use nsquorum_protocol::{ChannelName, MpubBodyError, TopicName, mpub_binary, mpub_text};
use nsquorum_topic::{LogTime, NewMessage};

use super::{Answer, HttpFrontend, channel_argument, query, topic_argument};

/// What a message costs in memory beside its body.
const MESSAGE_OVERHEAD_BYTES: usize = 96;

impl HttpFrontend {
    pub(super) async fn publish_one(&self, request: &mut Request) -> Answer {
        let arguments = query(request);
        let body = match read_body(request.body_mut(), self.config.limits.max_msg_size).await {
            Ok(body) => body,
            Err(BodyError::TooLong) => return Err(HttpError::too_large("MSG_TOO_BIG")),
            Err(BodyError::Broken) => return Err(HttpError::internal("INTERNAL_ERROR")),
        };
        if body.is_empty() {
            return Err(HttpError::bad_request("MSG_EMPTY"));
        }
        let arguments = arguments?;
        let topic = topic_argument(&arguments, "INVALID_TOPIC")?;
        let defer_ms = match self.defer_argument(&arguments) {
            Ok(defer_ms) => defer_ms,
            Err(error) => {
                // nsqd creates the topic before it looks at the delay.
                self.create(&topic).await?;
                return Err(error);
            }
        };
        self.publish(&topic, None, vec![body], defer_ms).await
    }

    pub(super) async fn publish_many(&self, request: &mut Request) -> Answer {
        let limits = &self.config.limits;
        let too_big = HttpError::too_large("BODY_TOO_BIG");
        let announced = size_of(request);
        let arguments = query(request);
        if announced > limits.max_body_size as u64 {
            return Err(too_big);
        }
        let arguments = arguments?;
        let topic = topic_argument(&arguments, "INVALID_TOPIC")?;
        let body = match read_body(request.body_mut(), limits.max_body_size).await {
            Ok(body) => body,
            Err(BodyError::TooLong) => return Err(too_big),
            Err(BodyError::Broken) => return Err(HttpError::internal("INTERNAL_ERROR")),
        };
        let bodies = match arguments.boolean("binary") {
            Some(true) => mpub_binary(&body, limits),
            Some(false) | None => mpub_text(&body, limits),
        };
        let bodies = match bodies {
            Ok(bodies) => bodies,
            Err(error) => {
                self.create(&topic).await?;
                return Err(mpub_error(error));
            }
        };
        if bodies.is_empty() {
            // Nothing but blank lines: nsqd answers OK and stores nothing, but the topic exists from then on.
            self.create(&topic).await?;
            return Ok(Reply::Text("OK".to_owned()));
        }
        self.publish(&topic, None, bodies, 0).await
    }

    /// A binary /mpub that only one channel gets: how a channel's own backlog moves from one cluster to another. Creates nothing.
    pub(super) async fn publish_to_channel(&self, request: &mut Request) -> Answer {
        let limits = &self.config.limits;
        let arguments = query(request)?;
        let topic = topic_argument(&arguments, "INVALID_ARG_TOPIC")?;
        let channel = channel_argument(&arguments)?;
        if !self.broker.has_topic(&topic) {
            return Err(HttpError::not_found("TOPIC_NOT_FOUND"));
        }
        if size_of(request) > limits.max_body_size as u64 {
            return Err(HttpError::too_large("BODY_TOO_BIG"));
        }
        let body = match read_body(request.body_mut(), limits.max_body_size).await {
            Ok(body) => body,
            Err(BodyError::TooLong) => return Err(HttpError::too_large("BODY_TOO_BIG")),
            Err(BodyError::Broken) => return Err(HttpError::internal("INTERNAL_ERROR")),
        };
        let bodies = mpub_binary(&body, limits).map_err(mpub_error)?;
        self.publish(&topic, Some(channel), bodies, 0).await
    }

    async fn create(&self, topic: &TopicName) -> Result<(), HttpError> {
        self.broker.create_topic(topic).await.map_err(super::admin::admin_error)
    }

    fn defer_argument(&self, arguments: &Query) -> Result<u32, HttpError> {
        let Some(text) = arguments.get("defer") else {
            return Ok(0);
        };
        let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
        let in_range = parsed
            .and_then(|ms| u64::try_from(ms).ok())
            .filter(|ms| *ms <= self.config.limits.max_req_timeout_ms);
        in_range
            .and_then(|ms| u32::try_from(ms).ok())
            .ok_or(HttpError::bad_request("INVALID_DEFER"))
    }

    async fn publish(&self, topic: &TopicName, only: Option<ChannelName>, bodies: Vec<Bytes>, defer_ms: u32) -> Answer {
        let clock = &self.broker.environment().clock;
        let (received, published_at) = (clock.now(), LogTime::new(clock.wall().as_nanos()));
        let count = bodies.len() as u64;
        let bytes: usize = bodies.iter().map(Bytes::len).sum();
        let admitted = self
            .broker
            .admission()
            .admit(bytes + bodies.len() * MESSAGE_OVERHEAD_BYTES)
            .await;
        let message = |body: Bytes| NewMessage {
            crc32c: crc32c::crc32c(&body),
            body,
            defer_ms,
            published_at,
            origin: None,
        };
        let messages = bodies.into_iter().map(message).collect();
        let ticket = match only {
            None => self.broker.publish(topic, messages, Some(admitted)),
            Some(channel) => self.broker.publish_to_channel(topic, channel, messages, Some(admitted)),
        };
        self.metrics.published_bytes.increment(bytes as u64);
        let result = tokio::time::timeout(self.config.publish_timeout, ticket).await;
        match result.unwrap_or(Err(PublishError::TimedOut)) {
            Ok(()) => {
                self.broker.outages().stored(topic, clock.now());
                self.metrics.publishes_ok.increment(1);
                self.metrics.published_messages.increment(count);
                self.metrics
                    .publish_seconds
                    .record(clock.now().since(received).as_secs_f64());
                Ok(Reply::Text("OK".to_owned()))
            }
            Err(error) => {
                self.metrics.publishes_failed.increment(1);
                tokio::time::sleep(self.broker.outages().failed(topic, error, clock.now())).await;
                Err(publish_error(error))
            }
        }
    }
}

/// Mostly 503: the same request may succeed later. Tools look at the status; the code tells people why.
fn publish_error(error: PublishError) -> HttpError {
    HttpError::unavailable(match error {
        PublishError::ChannelNotFound => return HttpError::not_found("CHANNEL_NOT_FOUND"),
        PublishError::TopicPaused => "TOPIC_PAUSED",
        PublishError::Exiting | PublishError::Stopping => "EXITING",
        PublishError::DiskFull => "DISK_FULL",
        PublishError::TooManyDeferred => "TOO_MANY_DEFERRED",
        PublishError::TimedOut => "TIMED_OUT",
        PublishError::Quarantined => "QUARANTINED",
    })
}

fn mpub_error(error: MpubBodyError) -> HttpError {
    let status = StatusCode::from_u16(MpubBodyError::HTTP_STATUS).unwrap_or(StatusCode::PAYLOAD_TOO_LARGE);
    HttpError {
        status,
        code: error.as_str(),
    }
}

/// The announced length of the body; 0 if there is none.
fn size_of(request: &Request) -> u64 {
    let length = request
        .headers()
        .get("content-length")
        .and_then(|value| value.to_str().ok());
    length.and_then(|value| value.parse().ok()).unwrap_or(0)
}
