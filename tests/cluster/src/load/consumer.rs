//! Holds each message for a moment, then finishes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nsquorum_client::{Consumer, Event};
use nsquorum_protocol::{ChannelName, MessageId, TopicName};

use super::journal::{ConnectionId, Journal, Record};
use super::{Habits, connect};

/// How soon an idle consumer notices that it may leave.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Consuming {
    pub(super) place: usize,
    pub(super) address: String,
    pub(super) topic: TopicName,
    pub(super) channel: ChannelName,
    pub(super) habits: Habits,
    pub(super) journal: Arc<Journal>,
    pub(super) goes_on: Arc<AtomicBool>,
}

impl Consuming {
    pub(super) async fn run(self) -> Result<()> {
        while let Some(connection) = connect(&self.address, &self.goes_on).await {
            let id = self.journal.connection(self.place);
            let subscribed = connection.subscribe(&self.topic, &self.channel, self.habits.ready);
            let lost = match subscribed.await {
                Ok(consumer) => self.serve(id, consumer).await?,
                Err(_) => true,
            };
            if lost {
                self.journal.record(Record::Ended {
                    connection: id,
                    at: Instant::now(),
                });
            }
        }
        Ok(())
    }

    /// Until the connection ends; says whether that was against its will.
    async fn serve(&self, id: ConnectionId, mut consumer: Consumer) -> Result<bool> {
        let mut held: BTreeMap<(Instant, u64), MessageId> = BTreeMap::new();
        while self.goes_on.load(Ordering::Relaxed) {
            let due = held.first_key_value().map(|((due, _), _)| *due);
            let wait = due.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
            match tokio::time::timeout(wait, consumer.next()).await {
                Err(_) => {}
                Ok(Ok(Some(Event::Message(message)))) => {
                    let seq = message.id.to_seq().context("an id is a number")?;
                    let at = Instant::now();
                    held.insert((at + self.hold(seq), seq), message.id);
                    self.journal.record(Record::Delivered {
                        connection: id,
                        channel: self.channel.clone(),
                        seq,
                        attempts: message.attempts,
                        body: String::from_utf8_lossy(&message.body).into_owned(),
                        at,
                    });
                }
                Ok(Ok(Some(Event::Refused(error)))) => self.journal.record(Record::Refused {
                    connection: id,
                    text: error.text().to_owned(),
                }),
                Ok(Ok(None) | Err(_)) => return Ok(true),
            }
            while let Some(((due, seq), message)) = held.pop_first() {
                if due > Instant::now() {
                    held.insert((due, seq), message);
                    break;
                }
                let at = Instant::now();
                if consumer.fin(message).is_err() {
                    return Ok(true);
                }
                self.journal.record(Record::Finished {
                    connection: id,
                    channel: self.channel.clone(),
                    seq,
                    at,
                });
            }
        }
        Ok(false)
    }

    /// Some part of the longest time, different for neighbours.
    fn hold(&self, seq: u64) -> Duration {
        let part = (seq + self.place as u64).wrapping_mul(0x9E37_79B9) % 1000;
        self.habits.hold.mul_f64(part as f64 / 1000.0)
    }
}
