//! Publishing while consumers take everything: what a queue does all day. Its log grows at one end and is deleted at the other, which publishing
//! alone does not show.
//!
//! The run ends when everything that was answered with OK has come, so a server that falls behind its consumers, or loses a message, fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nsquorum_client::Consumer;
use nsquorum_protocol::TopicName;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::deliver::{READY, message};
use super::publish::{self, PublishLoad};
use super::target::Target;
use super::window::{Measured, Window};

/// Connections that consume.
const CONSUMERS: usize = 4;

/// What the consumers got, all together.
#[derive(Default, Debug)]
struct Deliveries {
    first: AtomicU64,
    first_in_window: AtomicU64,
    again: AtomicU64,
}

/// Publishes until the window is over, and consumes with FIN until nothing is left.
pub(super) async fn run(
    target: &Target,
    topic: &TopicName,
    load: PublishLoad,
    window: impl FnOnce() -> Window,
    stall_max: Duration,
) -> anyhow::Result<Measured> {
    let mut consumers = Vec::with_capacity(CONSUMERS);
    for _ in 0..CONSUMERS {
        consumers.push(target.subscribe(topic, READY).await?);
    }
    let producers = publish::connect(target, load).await?;
    // All connections stand before the time runs.
    let window = window();
    let deliveries = Arc::new(Deliveries::default());
    let (all_came, may_end) = watch::channel(false);
    let mut workers = JoinSet::new();
    for consumer in consumers {
        workers.spawn(consume(consumer, Arc::clone(&deliveries), window, may_end.clone()));
    }
    let publish = async {
        let published = publish::publish_all(producers, topic, load, window).await?;
        drained(&deliveries, published.messages, stall_max).await?;
        all_came.send_replace(true);
        anyhow::Ok(published)
    };
    let consume = async {
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        anyhow::Ok(())
    };
    let cost = async { Ok(window.observe(&target.server).await) };
    let (published, (), cost) = tokio::try_join!(publish, consume, cost)?;
    Ok(Measured {
        messages: published.latencies.count() * load.batch as u64,
        elapsed: window.length(),
        latencies: published.latencies,
        publish_latencies: None,
        consumed: Some(deliveries.first_in_window.load(Ordering::Relaxed)),
        redeliveries: deliveries.again.load(Ordering::Relaxed),
        cost,
    })
}

/// Waits until all of `messages` have come.
async fn drained(deliveries: &Deliveries, messages: u64, stall_max: Duration) -> anyhow::Result<()> {
    let (mut before, mut since) = (0, Instant::now());
    loop {
        let count = deliveries.first.load(Ordering::Relaxed);
        if count >= messages {
            return Ok(());
        }
        if count != before {
            (before, since) = (count, Instant::now());
        }
        anyhow::ensure!(
            since.elapsed() < stall_max,
            "{count} of {messages} messages came, then none in {stall_max:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn consume(
    mut consumer: Consumer,
    deliveries: Arc<Deliveries>,
    window: Window,
    mut may_end: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut events = Vec::new();
    loop {
        tokio::select! {
            more = consumer.next_many(&mut events) => anyhow::ensure!(more?, "the subscription ended"),
            end = may_end.wait_for(|end| *end) => {
                end.context("the publishers failed")?;
                break;
            }
        }
        let (mut first, mut again) = (0, 0);
        for event in events.drain(..) {
            let message = message(event)?;
            if message.attempts == 1 {
                first += 1;
            } else {
                again += 1;
            }
            consumer.fin(message.id)?;
        }
        deliveries.first.fetch_add(first, Ordering::Relaxed);
        deliveries.again.fetch_add(again, Ordering::Relaxed);
        if window.contains(Instant::now()) {
            deliveries.first_in_window.fetch_add(first, Ordering::Relaxed);
        }
    }
    consumer.close().await?;
    Ok(())
}
