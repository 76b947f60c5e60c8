//! Publishers: one connection each, unique bodies, and a note of every answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use nsquorum_client::{ClientError, Connection, IdentifyOptions, Outcome, Producer, PublishAck};
use nsquorum_protocol::TopicName;
use rand::Rng;
use rand::rngs::StdRng;

use crate::body::BodyId;
use crate::history::{Answer, History, PublishId};

/// How a publisher goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Publishes that it sends before it waits for the oldest answer. At least 1.
    pub in_flight: usize,
    /// Bytes of a body at most.
    pub length_max: usize,
    /// Of a hundred publishes, how many are MPUBs of up to [`batch_max`](Self::batch_max) messages.
    pub batches: u32,
    /// The most messages of an MPUB.
    pub batch_max: u64,
    /// Of a hundred publishes, how many are DPUBs of up to a second.
    pub deferred: u32,
    /// What it rests after each publish, so that a long test has a history of bearable length.
    pub rest: Duration,
}

impl Manner {
    /// One small message at a time, some deferred.
    #[must_use]
    pub fn lone() -> Self {
        Self {
            in_flight: 1,
            length_max: 400,
            batches: 10,
            batch_max: 5,
            deferred: 15,
            rest: Duration::ZERO,
        }
    }

    /// Many small ones, many in flight.
    #[must_use]
    pub fn pipelined() -> Self {
        Self {
            in_flight: 32,
            length_max: 2000,
            batches: 25,
            batch_max: 20,
            deferred: 5,
            rest: Duration::ZERO,
        }
    }

    /// The same at a measured pace.
    #[must_use]
    pub fn resting(self, rest: Duration) -> Self {
        Self { rest, ..self }
    }

    /// Large ones, so that logs, tables and checkpoints turn over.
    #[must_use]
    pub fn large() -> Self {
        Self {
            in_flight: 4,
            length_max: 150_000,
            batches: 30,
            batch_max: 8,
            deferred: 2,
            rest: Duration::ZERO,
        }
    }
}

/// Publishes until the connection ends, and notes how each publish ended. Returns what ended it.
pub async fn publish(
    address: String,
    topic: TopicName,
    history: Arc<History>,
    publisher: u32,
    manner: Manner,
    mut random: StdRng,
) -> ClientError {
    let producer = match Connection::connect(&address, IdentifyOptions::default()).await {
        Ok(connection) => connection.into_producer(),
        Err(error) => return error,
    };
    let mut waiting: VecDeque<(PublishId, PublishAck)> = VecDeque::new();
    let mut serial = 0;
    let mut ended = None;
    while ended.is_none() {
        match send(
            &producer,
            &topic,
            &history,
            BodyId { publisher, serial },
            manner,
            &mut random,
        )
        .await
        {
            Ok((sent, count)) => {
                serial += count;
                waiting.push_back(sent);
            }
            Err(error) => ended = Some(error),
        }
        if waiting.len() >= manner.in_flight {
            ended = settle_oldest(&mut waiting, &history).await.or(ended);
        }
        if !manner.rest.is_zero() {
            tokio::time::sleep(manner.rest).await;
        }
    }
    while !waiting.is_empty() {
        drop(settle_oldest(&mut waiting, &history).await);
    }
    ended.unwrap_or(ClientError::Closed)
}

async fn send(
    producer: &Producer,
    topic: &TopicName,
    history: &History,
    first: BodyId,
    manner: Manner,
    random: &mut StdRng,
) -> Result<((PublishId, PublishAck), u64), ClientError> {
    let draw = random.random_range(0..100);
    let length = |random: &mut StdRng| random.random_range(BodyId::LENGTH_MIN..=manner.length_max);
    let mut body = |serial| BodyId { serial, ..first }.body(length(random));
    let (id, sent, count) = if draw < manner.batches {
        let count = 1 + u64::from(draw) % manner.batch_max;
        let bodies: Vec<Vec<u8>> = (first.serial..first.serial + count).map(body).collect();
        let id = history.sending(first, count, Duration::ZERO);
        (id, producer.mpub_async(topic, &bodies).await, count)
    } else if draw < manner.batches + manner.deferred {
        let body = body(first.serial);
        let delay_ms = random.random_range(1..=1000);
        let id = history.sending(first, 1, Duration::from_millis(delay_ms));
        (id, producer.dpub_async(topic, delay_ms, &body).await, 1)
    } else {
        let body = body(first.serial);
        let id = history.sending(first, 1, Duration::ZERO);
        (id, producer.publish_async(topic, &body).await, 1)
    };
    match sent {
        Ok(ack) => Ok(((id, ack), count)),
        Err(error) => {
            history.answered(id, answer_of(&error));
            Err(error)
        }
    }
}

async fn settle_oldest(waiting: &mut VecDeque<(PublishId, PublishAck)>, history: &History) -> Option<ClientError> {
    let (id, ack) = waiting.pop_front()?;
    match ack.await {
        Ok(()) => {
            history.answered(id, Answer::Ok);
            None
        }
        Err(error) => {
            history.answered(id, answer_of(&error));
            Some(error)
        }
    }
}

fn answer_of(error: &ClientError) -> Answer {
    match error.outcome() {
        Outcome::Unknown => Answer::Unknown,
        Outcome::NotDone | Outcome::Rejected => Answer::Refused,
    }
}
