//! POST /topic/… and /channel/….

use nsquorum_broker::{AdminAction, AdminError};
use nsquorum_http::{HttpError, Query, Reply};
use nsquorum_protocol::TopicName;

use super::routes::{ChannelAction, TopicAction};
use super::{Answer, HttpFrontend, channel_argument, topic_argument};

impl HttpFrontend {
    pub(super) async fn administer_topic(&self, action: TopicAction, arguments: &Query) -> Answer {
        let action = match action {
            TopicAction::Create => {
                let topic = topic_argument(arguments, "INVALID_TOPIC")?;
                self.broker.create_topic(&topic).await.map_err(admin_error)?;
                return Ok(Reply::Empty);
            }
            TopicAction::Empty => {
                let topic = topic_argument(arguments, "INVALID_TOPIC")?;
                return self.administer(&topic, AdminAction::EmptyTopic).await;
            }
            TopicAction::Delete => AdminAction::DeleteTopic,
            TopicAction::Pause => AdminAction::PauseTopic,
            TopicAction::Unpause => AdminAction::UnpauseTopic,
        };
        // These three do not judge the name in nsqd: one that cannot exist is simply not found.
        let name = arguments
            .get("topic")
            .ok_or(HttpError::bad_request("MISSING_ARG_TOPIC"))?;
        let topic = TopicName::try_from(name).map_err(|_| HttpError::not_found("TOPIC_NOT_FOUND"))?;
        self.administer(&topic, action).await
    }

    pub(super) async fn administer_channel(&self, action: ChannelAction, arguments: &Query) -> Answer {
        let topic = topic_argument(arguments, "INVALID_ARG_TOPIC")?;
        let channel = channel_argument(arguments)?;
        let action = match action {
            ChannelAction::Create => AdminAction::CreateChannel(channel),
            ChannelAction::Delete => AdminAction::DeleteChannel(channel),
            ChannelAction::Empty => AdminAction::EmptyChannel(channel),
            ChannelAction::Pause => AdminAction::PauseChannel(channel),
            ChannelAction::Unpause => AdminAction::UnpauseChannel(channel),
        };
        self.administer(&topic, action).await
    }

    async fn administer(&self, topic: &TopicName, action: AdminAction) -> Answer {
        self.broker.administer(topic, action).await.map_err(admin_error)?;
        Ok(Reply::Empty)
    }
}

pub(super) fn admin_error(error: AdminError) -> HttpError {
    match error {
        AdminError::TopicNotFound => HttpError::not_found("TOPIC_NOT_FOUND"),
        AdminError::ChannelNotFound => HttpError::not_found("CHANNEL_NOT_FOUND"),
        AdminError::Unavailable(cause) => {
            tracing::warn!(cause, "an administrative request failed");
            HttpError::unavailable("UNAVAILABLE")
        }
    }
}
