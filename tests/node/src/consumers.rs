//! Consumers: one connection each, on one channel, some of them careless.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nsquorum_client::{ClientError, Connection, Consumer, Event, IdentifyOptions, Message};
use nsquorum_protocol::{ChannelName, TopicName};
use rand::Rng;
use rand::rngs::StdRng;

use crate::body::BodyId;
use crate::history::{Delivery, History, Life};

/// A message timeout that no run reaches: what is in flight under it is certainly still there when a REQ comes.
const LONG_TIMEOUT: Duration = Duration::from_secs(600);

/// What a consumer does with its messages; the rest of a hundred it finishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// Of a hundred messages, how many it requeues with a delay of up to half a second.
    pub requeued: u32,
    /// Of a hundred, how many it forgets until their timeout.
    pub forgotten: u32,
    /// Its message timeout.
    pub msg_timeout: Duration,
    /// Its RDY.
    pub ready: u32,
}

impl Habits {
    /// Finishes most and requeues some.
    #[must_use]
    pub fn careful() -> Self {
        Self {
            requeued: 10,
            forgotten: 0,
            msg_timeout: LONG_TIMEOUT,
            ready: 40,
        }
    }

    /// Lets some time out.
    #[must_use]
    pub fn forgetful() -> Self {
        Self {
            requeued: 0,
            forgotten: 10,
            msg_timeout: Duration::from_millis(700),
            ready: 20,
        }
    }

    /// Finishes everything.
    #[must_use]
    pub fn diligent() -> Self {
        Self {
            requeued: 0,
            forgotten: 0,
            msg_timeout: LONG_TIMEOUT,
            ready: 500,
        }
    }
}

/// Consumes until the connection ends, and notes what arrives and what is done with it. Returns what ended it.
pub async fn consume(
    address: String,
    (topic, channel): (TopicName, ChannelName),
    history: Arc<History>,
    (life, channel_place, consumer): (Life, usize, u32),
    habits: Habits,
    mut random: StdRng,
) -> ClientError {
    let options = IdentifyOptions {
        msg_timeout: Some(habits.msg_timeout),
        ..IdentifyOptions::default()
    };
    let connected = async {
        Connection::connect(&address, options)
            .await?
            .subscribe(&topic, &channel, habits.ready)
            .await
    };
    let mut connection = match connected.await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    loop {
        match connection.next().await {
            Ok(Some(Event::Message(message))) => {
                let number = number_of(&message);
                history.delivered(Delivery {
                    life,
                    channel: channel_place,
                    consumer,
                    number,
                    attempts: message.attempts,
                    body: BodyId::of(&message.body),
                    at: Instant::now(),
                });
                let draw = random.random_range(0..100);
                if draw < habits.requeued {
                    let delay_ms = random.random_range(0..500);
                    history.requeueing(life, channel_place, number, Duration::from_millis(delay_ms));
                    drop(connection.req(message.id, delay_ms));
                } else if draw >= habits.requeued + habits.forgotten {
                    finish(&connection, &history, channel_place, &message);
                }
            }
            Ok(Some(Event::Refused(_))) => {}
            Ok(None) => return ClientError::Closed,
            Err(error) => return error,
        }
    }
}

/// A FIN whose sending fails is one that the node never saw, which it must survive anyway.
fn finish(connection: &Consumer, history: &History, channel: usize, message: &Message) {
    history.finishing(channel, number_of(message));
    drop(connection.fin(message.id));
}

/// An id that is no number becomes 0, which no message has.
fn number_of(message: &Message) -> u64 {
    message.id.to_seq().unwrap_or(0)
}

/// The same with [`Habits::diligent`].
pub async fn drain(
    address: String,
    names: (TopicName, ChannelName),
    history: Arc<History>,
    place: (Life, usize, u32),
    random: StdRng,
) -> ClientError {
    consume(address, names, history, place, Habits::diligent(), random).await
}
