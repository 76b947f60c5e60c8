//! One message after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use nsquorum_client::ClientError;
use nsquorum_protocol::TopicName;

use super::connect;
use super::journal::{Answer, Journal, Publish};

pub(super) struct Producing {
    pub(super) place: usize,
    pub(super) address: String,
    pub(super) topic: TopicName,
    pub(super) rest: Duration,
    pub(super) journal: Arc<Journal>,
    pub(super) goes_on: Arc<AtomicBool>,
}

impl Producing {
    pub(super) async fn run(self) -> Result<()> {
        let mut number = 0_u64;
        while let Some(connection) = connect(&self.address, &self.goes_on).await {
            let producer = connection.into_producer();
            while self.goes_on.load(Ordering::Relaxed) {
                number += 1;
                // Each body is sent once: what becomes of one whose answer was lost can be told.
                let body = format!("{}-{number:08}", self.place);
                let sent = Instant::now();
                let answer = match producer.publish(&self.topic, body.as_bytes()).await {
                    Ok(()) => Answer::Ok,
                    Err(ClientError::Server(error)) => Answer::Refused(error.text().to_owned()),
                    Err(error) => Answer::Lost(error.to_string()),
                };
                let is_ok = answer == Answer::Ok;
                self.journal.published(Publish {
                    place: self.place,
                    body,
                    sent,
                    answered: Instant::now(),
                    answer,
                });
                if !is_ok {
                    break;
                }
                tokio::time::sleep(self.rest).await;
            }
        }
        Ok(())
    }
}
