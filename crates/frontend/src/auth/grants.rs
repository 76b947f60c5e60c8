//! What an auth server has granted.

use std::time::Duration;

use nsquorum_protocol::{ChannelName, TopicName};
use regex::Regex;
use serde::{Deserialize, Deserializer};

use super::AuthError;

/// The permissions of a client.
#[derive(Clone, Debug)]
pub(crate) struct Grants {
    pub(crate) time_to_live: Duration,
    pub(crate) identity: String,
    pub(crate) identity_url: String,
    grants: Vec<Grant>,
}

/// Some topics and channels, and what may be done there. The patterns match anywhere in a name, as Go's do.
#[derive(Clone, Debug)]
struct Grant {
    topic: Regex,
    channels: Vec<Regex>,
    may_subscribe: bool,
    may_publish: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, deserialize_with = "or_default")]
    ttl: i64,
    #[serde(default, deserialize_with = "or_default")]
    identity: String,
    #[serde(default, deserialize_with = "or_default")]
    identity_url: String,
    #[serde(default, deserialize_with = "or_default")]
    authorizations: Vec<Authorization>,
}

#[derive(Deserialize)]
struct Authorization {
    #[serde(default, deserialize_with = "or_default")]
    topic: String,
    #[serde(default, deserialize_with = "or_default")]
    channels: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    permissions: Vec<String>,
}

/// `null` is nothing, as in Go.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Grants {
    /// Reads an auth server's answer. One fault makes all of it worthless: what it was meant to allow cannot be known.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, AuthError> {
        let answer: Answer = serde_json::from_slice(json)?;
        let seconds = u64::try_from(answer.ttl).ok().filter(|seconds| *seconds > 0);
        Ok(Self {
            time_to_live: Duration::from_secs(seconds.ok_or(AuthError::TimeToLive(answer.ttl))?),
            identity: answer.identity,
            identity_url: answer.identity_url,
            grants: answer
                .authorizations
                .into_iter()
                .map(Grant::new)
                .collect::<Result<_, _>>()?,
        })
    }

    /// How many there are; none means that the client is unknown.
    pub(crate) fn count(&self) -> usize {
        self.grants.len()
    }

    /// Whether the client may subscribe to the channel, or, without one, publish to the topic. For publishing one of the channels' patterns
    /// has to match the empty name: nsqd's way, which makes `.*` allow it and `archive` not.
    pub(crate) fn allow(&self, topic: &TopicName, channel: Option<&ChannelName>) -> bool {
        let name = channel.map_or("", |channel| channel.as_str());
        self.grants.iter().any(|grant| {
            let permitted = match channel {
                Some(_) => grant.may_subscribe,
                None => grant.may_publish,
            };
            permitted
                && grant.topic.is_match(topic.as_str())
                && grant.channels.iter().any(|pattern| pattern.is_match(name))
        })
    }
}

impl Grant {
    fn new(authorization: Authorization) -> Result<Self, AuthError> {
        let known = ["subscribe", "publish"];
        if let Some(unknown) = authorization
            .permissions
            .iter()
            .find(|permission| !known.contains(&permission.as_str()))
        {
            return Err(AuthError::UnknownPermission(unknown.clone()));
        }
        let has = |permission: &str| authorization.permissions.iter().any(|has| has == permission);
        Ok(Self {
            topic: Regex::new(&authorization.topic)?,
            channels: authorization
                .channels
                .iter()
                .map(|pattern| Regex::new(pattern))
                .collect::<Result<_, _>>()?,
            may_subscribe: has("subscribe"),
            may_publish: has("publish"),
        })
    }
}
