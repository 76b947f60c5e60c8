//! The publishing cases: closed loops, each connection with a fixed number of commands in flight.
//!
//! A closed loop says what the server does for publishers that wait for their answer, as these cases are meant to; it
//! does not show the queueing of arrivals that do not wait. That is the end-to-end case's subject.

use std::collections::VecDeque;
use std::time::Instant;

use nsquorum_client::{Producer, PublishAck};
use nsquorum_protocol::TopicName;
use tokio::task::JoinSet;

use super::latency::Latencies;
use super::target::Target;
use super::window::{Measured, Window};

/// How to publish.
#[derive(Clone, Copy, Debug)]
pub(super) struct PublishLoad {
    /// Connections, all to the same topic.
    pub(super) connections: usize,
    /// Unanswered commands per connection: 1 is a synchronous publisher.
    pub(super) in_flight: usize,
    /// Messages per command: 1 publishes by PUB, more by MPUB.
    pub(super) batch: usize,
    /// The size of a body.
    pub(super) message_bytes: usize,
}

/// What publishers did.
#[derive(Default, Debug)]
pub(super) struct Published {
    /// From PUB or MPUB to its answer, of the commands that were answered inside the window.
    pub(super) latencies: Latencies,
    /// All that were answered, the warm-up's too.
    pub(super) messages: u64,
}

/// Runs the load until the window is over.
pub(super) async fn run(
    target: &Target,
    topic: &TopicName,
    load: PublishLoad,
    window: impl FnOnce() -> Window,
) -> anyhow::Result<Measured> {
    let producers = connect(target, load).await?;
    // All connections stand before the time runs.
    let window = window();
    let cost = async { Ok(window.observe(&target.server).await) };
    let (published, cost) = tokio::try_join!(publish_all(producers, topic, load, window), cost)?;
    let latencies = published.latencies;
    Ok(Measured {
        messages: latencies.count() * load.batch as u64,
        elapsed: window.length(),
        latencies,
        publish_latencies: None,
        consumed: None,
        redeliveries: 0,
        cost,
    })
}

/// The connections of a load.
pub(super) async fn connect(target: &Target, load: PublishLoad) -> anyhow::Result<Vec<Producer>> {
    let mut producers = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        producers.push(target.connect().await?.into_producer());
    }
    Ok(producers)
}

/// Publishes over all connections until the window is over.
pub(super) async fn publish_all(
    producers: Vec<Producer>,
    topic: &TopicName,
    load: PublishLoad,
    window: Window,
) -> anyhow::Result<Published> {
    let mut workers = JoinSet::new();
    for producer in producers {
        workers.spawn(publish(producer, topic.clone(), load, window));
    }
    let mut all = Published::default();
    while let Some(worker) = workers.join_next().await {
        let one = worker??;
        all.latencies.merge(&one.latencies);
        all.messages += one.messages;
    }
    Ok(all)
}

/// One connection's loop: keeps its commands in flight and takes the answers in their order, which is that of sending.
async fn publish(producer: Producer, topic: TopicName, load: PublishLoad, window: Window) -> anyhow::Result<Published> {
    let bodies = vec![vec![b'x'; load.message_bytes]; load.batch];
    let mut published = Published::default();
    let mut unanswered: VecDeque<(Instant, PublishAck)> = VecDeque::with_capacity(load.in_flight);
    let mut now = Instant::now();
    loop {
        while unanswered.len() < load.in_flight && !window.is_over(now) {
            let ack = match &bodies[..] {
                [body] => producer.publish_async(&topic, body).await?,
                bodies => producer.mpub_async(&topic, bodies).await?,
            };
            unanswered.push_back((now, ack));
        }
        let Some((sent, ack)) = unanswered.pop_front() else {
            break;
        };
        ack.await?;
        now = Instant::now();
        published.messages += load.batch as u64;
        if window.contains(now) {
            published.latencies.record(now - sent);
        }
    }
    producer.close().await?;
    Ok(published)
}
