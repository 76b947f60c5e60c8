//! Producers and consumers at every node, what they saw, and what must hold of it.
//!
//! Each producer publishes one message after the other over one connection, each consumer holds what it gets for a moment and finishes it. When a connection
//! ends they say so and connect again to the same node. Everything goes into one [`Journal`], in the order in which it happened to this process;
//! [`Journal::judge`] holds it against the promises.

mod consumer;
mod journal;
mod producer;
mod verdict;

#[cfg(test)]
mod tests;

pub use journal::{Answer, ConnectionId, Journal, Pause, Publish, Record};
pub use verdict::Verdict;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use nsquorum_client::{Connection, IdentifyOptions};
use nsquorum_protocol::{ChannelName, TopicName};
use tokio::task::JoinSet;

use crate::cluster::NodeEntry;

/// Between two attempts to connect to a node that is down.
const RECONNECT: Duration = Duration::from_millis(20);

/// How a load behaves.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Between an answer and the next publish of the same producer.
    pub rest: Duration,
    /// How long a message is held at most; each is held for some part of it.
    pub hold: Duration,
    /// RDY of each consumer.
    pub ready: u32,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    journal: Arc<Journal>,
    topic: TopicName,
    habits: Habits,
    producing: Arc<AtomicBool>,
    consuming: Arc<AtomicBool>,
    producers: JoinSet<Result<()>>,
    consumers: JoinSet<Result<()>>,
}

impl Load {
    /// Nobody yet.
    #[must_use]
    pub fn new(topic: TopicName, habits: Habits) -> Self {
        Self {
            journal: Arc::default(),
            topic,
            habits,
            producing: Arc::new(AtomicBool::new(true)),
            consuming: Arc::new(AtomicBool::new(true)),
            producers: JoinSet::new(),
            consumers: JoinSet::new(),
        }
    }

    /// What has happened so far.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// A producer at the node with this place, from 0.
    pub fn produce_at(&mut self, place: usize, node: &NodeEntry) {
        let producer = producer::Producing {
            place,
            address: node.tcp.clone(),
            topic: self.topic.clone(),
            rest: self.habits.rest,
            journal: Arc::clone(&self.journal),
            goes_on: Arc::clone(&self.producing),
        };
        self.producers.spawn(producer.run());
    }

    /// A consumer of the channel at the node with this place, from 0.
    pub fn consume_at(&mut self, place: usize, node: &NodeEntry, channel: &ChannelName) {
        let consumer = consumer::Consuming {
            place,
            address: node.tcp.clone(),
            topic: self.topic.clone(),
            channel: channel.clone(),
            habits: self.habits.clone(),
            journal: Arc::clone(&self.journal),
            goes_on: Arc::clone(&self.consuming),
        };
        self.consumers.spawn(consumer.run());
    }

    /// Lets the producers finish what they are at.
    ///
    /// # Errors
    /// If one of them has failed in a way that clients should not.
    pub async fn stop_producing(&mut self) -> Result<()> {
        self.producing.store(false, Ordering::Relaxed);
        all_done(&mut self.producers).await
    }

    /// Lets the consumers leave. The channels should be drained by now.
    ///
    /// # Errors
    /// As [`Load::stop_producing`].
    pub async fn stop_consuming(&mut self) -> Result<()> {
        self.consuming.store(false, Ordering::Relaxed);
        all_done(&mut self.consumers).await
    }
}

async fn all_done(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Connects as soon as the node lets it; `None` when there is no need any more.
async fn connect(address: &str, goes_on: &AtomicBool) -> Option<Connection> {
    while goes_on.load(Ordering::Relaxed) {
        match Connection::connect(address, IdentifyOptions::default()).await {
            Ok(connection) => return Some(connection),
            Err(_) => tokio::time::sleep(RECONNECT).await,
        }
    }
    None
}
