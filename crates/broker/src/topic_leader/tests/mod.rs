//! Tests of the topic leader as a step machine: the pipeline alone, single situations, and random histories.
//!
//! Everything is synchronous and owns its time. The group below the leader is a log in memory that refuses, delays and loses
//! leaderships as the dice say ([`group`]); above it are consumers that do everything a client may do ([`consumers`]); beside it stands a
//! naive model of what every channel may be given ([`model`]). [`history`] throws the dice for [`clients`] and [`upheavals`].

mod clients;
mod consumers;
mod cut_off;
mod group;
mod heal;
mod history;
mod model;
mod pipeline;
mod publishers;
mod runs;
mod situations;
mod upheavals;

use bytes::Bytes;
use nsquorum_environment::Monotonic;
use nsquorum_protocol::{ChannelName, TopicName};
use nsquorum_topic::{LogTime, NewMessage};

fn topic() -> TopicName {
    "orders".parse().expect("a valid name")
}

fn channel(name: &str) -> ChannelName {
    name.parse().expect("a valid name")
}

fn message(body: impl Into<Bytes>) -> NewMessage {
    NewMessage::new(body.into(), LogTime::new(1))
}

fn at_ms(ms: u64) -> Monotonic {
    Monotonic::from_nanos(ms * 1_000_000)
}
