//! The consuming cases: end-to-end latency at a fixed rate, and draining a backlog. Every message carries its number,
//! so that a lost or repeated one is noticed: a benchmark of a server that loses messages must fail, not report.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nsquorum_client::{ClientError, Consumer, Event, Message, PublishAck};
use nsquorum_protocol::TopicName;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::latency::Latencies;
use super::pace::Pace;
use super::target::Target;
use super::window::{Measured, Meter, Window};

/// The number of the message and the time it was due, in front of each body.
pub(super) const STAMP_BYTES: usize = 16;

/// RDY of the consumers; the server's maximum if that is lower.
pub(super) const READY: u32 = 2_500;

/// Connections that fill and drain a backlog.
const DRAIN_CONNECTIONS: u64 = 4;

/// Messages per MPUB when a backlog is filled.
const FILL_BATCH: u64 = 200;

/// MPUBs in flight per connection when a backlog is filled.
const FILL_IN_FLIGHT: usize = 4;

/// What stands in front of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    /// Counts from 0 in each case.
    number: u64,
    /// Since a moment that both sides know: they are one process.
    due: Duration,
}

impl Stamp {
    fn write(self, body: &mut [u8]) {
        let nanos = u64::try_from(self.due.as_nanos()).unwrap_or(u64::MAX);
        body[..8].copy_from_slice(&self.number.to_le_bytes());
        body[8..STAMP_BYTES].copy_from_slice(&nanos.to_le_bytes());
    }

    fn read(body: &[u8]) -> anyhow::Result<Self> {
        let (number, rest) = body
            .split_first_chunk()
            .context("a body that this run did not publish")?;
        let nanos = rest.first_chunk().context("a body that this run did not publish")?;
        Ok(Self {
            number: u64::from_le_bytes(*number),
            due: Duration::from_nanos(u64::from_le_bytes(*nanos)),
        })
    }
}

/// Which numbers have come.
#[derive(Debug)]
struct Arrivals {
    seen: Vec<AtomicBool>,
    first_deliveries: AtomicU64,
    redeliveries: AtomicU64,
}

/// Whether a delivery is the first of its message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Arrival {
    First,
    Again,
}

impl Arrivals {
    fn of(messages: u64) -> Self {
        let seen = (0..messages).map(|_| AtomicBool::new(false)).collect();
        Self {
            seen,
            first_deliveries: AtomicU64::new(0),
            redeliveries: AtomicU64::new(0),
        }
    }

    fn arrived(&self, number: u64) -> anyhow::Result<Arrival> {
        let seen = usize::try_from(number).ok().and_then(|index| self.seen.get(index));
        let seen = seen.context("a message number that this run did not publish")?;
        if seen.swap(true, Ordering::Relaxed) {
            self.redeliveries.fetch_add(1, Ordering::Relaxed);
            return Ok(Arrival::Again);
        }
        self.first_deliveries.fetch_add(1, Ordering::Relaxed);
        Ok(Arrival::First)
    }

    fn count(&self) -> u64 {
        self.first_deliveries.load(Ordering::Relaxed)
    }
}

/// The shape of the end-to-end load.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndToEndLoad {
    /// Messages per second, on a schedule that does not wait for the server.
    pub(super) rate: f64,
    /// The size of a body, at least [`STAMP_BYTES`].
    pub(super) message_bytes: usize,
    pub(super) warm_up: Duration,
    pub(super) length: Duration,
    /// So long without any delivery while some are missing is a failure.
    pub(super) stall_max: Duration,
}

/// Publishes on a schedule over one connection and consumes with FIN over another. The latency of a message counts from
/// the time it was due to its arrival at the consumer; messages that were due inside the window count.
pub(super) async fn end_to_end(target: &Target, topic: &TopicName, load: EndToEndLoad) -> anyhow::Result<Measured> {
    let consumer = target.subscribe(topic, READY).await?;
    let producer = target.connect().await?.into_producer();
    let base = Instant::now();
    let mut pace = Pace::start(load.rate)?;
    // After the schedule, so that no message of the window was due before there was a schedule.
    let window = Window::after(load.warm_up, load.length);
    // Room for the schedule and what a stalled generator makes up for.
    let messages_max = (load.rate * (load.warm_up + load.length).as_secs_f64() * 1.1) as u64 + 1000;
    let arrivals = Arrivals::of(messages_max);
    let (published, total) = oneshot::channel();

    let publish = async {
        let mut body = vec![b'x'; load.message_bytes.max(STAMP_BYTES)];
        let mut latencies = Latencies::default();
        let mut unanswered: VecDeque<(Instant, PublishAck)> = VecDeque::new();
        let mut sent = 0;
        let mut answered = |due: Instant| {
            if window.contains(due) {
                latencies.record(due.elapsed());
            }
        };
        'schedule: loop {
            tokio::select! {
                due = pace.due() => {
                    let due = due?;
                    while sent < due {
                        let due = pace.time_of(sent);
                        if window.is_over(due) || sent >= messages_max {
                            break 'schedule;
                        }
                        Stamp { number: sent, due: due - base }.write(&mut body);
                        unanswered.push_back((due, producer.publish_async(topic, &body).await?));
                        sent += 1;
                    }
                }
                answer = oldest(&mut unanswered) => answered(answer?),
            }
        }
        while !unanswered.is_empty() {
            answered(oldest(&mut unanswered).await?);
        }
        producer.close().await?;
        // The consumer's side ends by itself only in an error, which is then reported.
        let _ = published.send(sent);
        anyhow::Ok(latencies)
    };

    let consume = async {
        let mut latencies = Latencies::default();
        let mut events = Vec::new();
        let mut consumer = consumer;
        let mut total = total;
        let mut expected = None;
        while expected != Some(arrivals.count()) {
            tokio::select! {
                more = consumer.next_many(&mut events) => anyhow::ensure!(more?, "the subscription ended"),
                count = &mut total, if expected.is_none() => {
                    expected = Some(count.context("the publisher ended early")?);
                }
                () = tokio::time::sleep(load.stall_max) => {
                    let sent = expected.map_or_else(|| "an unknown number".to_owned(), |count| count.to_string());
                    anyhow::bail!("{} of {sent} messages came, then none in {:?}", arrivals.count(), load.stall_max);
                }
            }
            let now = Instant::now();
            for event in events.drain(..) {
                let message = message(event)?;
                let stamp = Stamp::read(&message.body)?;
                if arrivals.arrived(stamp.number)? == Arrival::First {
                    let due = base + stamp.due;
                    if window.contains(due) {
                        latencies.record(now.saturating_duration_since(due));
                    }
                }
                consumer.fin(message.id)?;
            }
        }
        consumer.close().await?;
        anyhow::Ok(latencies)
    };

    let cost = async { Ok(window.observe(&target.server).await) };
    let (publish_latencies, latencies, cost) = tokio::try_join!(publish, consume, cost)?;
    Ok(Measured {
        messages: latencies.count(),
        elapsed: window.length(),
        latencies,
        publish_latencies: Some(publish_latencies),
        consumed: None,
        redeliveries: arrivals.redeliveries.into_inner(),
        cost,
    })
}

/// The time at which the oldest unanswered publish was due, once it is answered; never returns if there is none. Safe
/// to cancel.
async fn oldest(unanswered: &mut VecDeque<(Instant, PublishAck)>) -> Result<Instant, ClientError> {
    let Some((due, ack)) = unanswered.front_mut() else {
        return std::future::pending().await;
    };
    let due = *due;
    ack.await?;
    unanswered.pop_front();
    Ok(due)
}

pub(super) fn message(event: Event) -> anyhow::Result<Message> {
    match event {
        Event::Message(message) => Ok(message),
        Event::Refused(error) => anyhow::bail!("the server refused a FIN: {error}"),
    }
}

/// Fills a backlog of `messages`, then consumes it all with FIN over several connections. What is measured is from the
/// first SUB to the last first delivery; the latencies are the gaps between arrivals on one connection, per message, so
/// that their maximum is the longest stall.
pub(super) async fn drain(
    target: &Target,
    topic: &TopicName,
    messages: u64,
    message_bytes: usize,
    stall_max: Duration,
) -> anyhow::Result<Measured> {
    fill(target, topic, messages, message_bytes).await?;
    let arrivals = Arc::new(Arrivals::of(messages));
    let (finished, all_arrived) = watch::channel(None);
    let finished = Arc::new(finished);
    let meter = Meter::start(&target.server).await;
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..DRAIN_CONNECTIONS {
        let consumer = target.subscribe(topic, READY).await?;
        workers.spawn(drain_one(
            consumer,
            Arc::clone(&arrivals),
            Arc::clone(&finished),
            all_arrived.clone(),
        ));
    }
    let mut latencies = Latencies::default();
    let mut count_before = None;
    loop {
        match tokio::time::timeout(stall_max, workers.join_next()).await {
            Ok(Some(worker)) => latencies.merge(&worker??),
            Ok(None) => break,
            Err(_) => {
                let count = Some(arrivals.count());
                anyhow::ensure!(
                    count != count_before,
                    "{} of {messages} messages came, then none in {stall_max:?}",
                    arrivals.count()
                );
                count_before = count;
            }
        }
    }
    let cost = meter.stop().await;
    let end: Instant = all_arrived
        .borrow()
        .context("a drain that ended before its last message")?;
    Ok(Measured {
        messages,
        elapsed: end - start,
        latencies,
        publish_latencies: None,
        consumed: None,
        redeliveries: arrivals.redeliveries.load(Ordering::Relaxed),
        cost,
    })
}

async fn drain_one(
    mut consumer: Consumer,
    arrivals: Arc<Arrivals>,
    finished: Arc<watch::Sender<Option<Instant>>>,
    mut all_arrived: watch::Receiver<Option<Instant>>,
) -> anyhow::Result<Latencies> {
    let expected = arrivals.seen.len() as u64;
    let mut latencies = Latencies::default();
    let mut events = Vec::new();
    let mut before = Instant::now();
    loop {
        tokio::select! {
            more = consumer.next_many(&mut events) => anyhow::ensure!(more?, "the subscription ended"),
            end = all_arrived.wait_for(Option::is_some) => {
                end.context("the other connections ended early")?;
                break;
            }
        }
        let now = Instant::now();
        latencies.record_many(now - before, events.len() as u64);
        before = now;
        for event in events.drain(..) {
            let message = message(event)?;
            arrivals.arrived(Stamp::read(&message.body)?.number)?;
            consumer.fin(message.id)?;
        }
        if arrivals.count() == expected {
            finished.send_if_modified(|end| {
                let first = end.is_none();
                *end = Some(end.unwrap_or(now));
                first
            });
        }
    }
    consumer.close().await?;
    Ok(latencies)
}

/// Publishes the messages 0..`messages` by MPUB.
async fn fill(target: &Target, topic: &TopicName, messages: u64, message_bytes: usize) -> anyhow::Result<()> {
    let mut workers = JoinSet::new();
    let share = messages.div_ceil(DRAIN_CONNECTIONS);
    for worker in 0..DRAIN_CONNECTIONS {
        let (from, to) = ((worker * share).min(messages), ((worker + 1) * share).min(messages));
        let producer = target.connect().await?.into_producer();
        let topic = topic.clone();
        workers.spawn(async move {
            let mut unanswered: VecDeque<PublishAck> = VecDeque::new();
            for first in (from..to).step_by(usize::try_from(FILL_BATCH)?) {
                if unanswered.len() >= FILL_IN_FLIGHT
                    && let Some(ack) = unanswered.pop_front()
                {
                    ack.await?;
                }
                let bodies: Vec<Vec<u8>> = (first..to.min(first + FILL_BATCH))
                    .map(|number| {
                        let mut body = vec![b'x'; message_bytes.max(STAMP_BYTES)];
                        Stamp {
                            number,
                            due: Duration::ZERO,
                        }
                        .write(&mut body);
                        body
                    })
                    .collect();
                unanswered.push_back(producer.mpub_async(&topic, &bodies).await?);
            }
            for ack in unanswered {
                ack.await?;
            }
            producer.close().await?;
            anyhow::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker?.context("filling the backlog")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_and_a_foreign_body_is_refused() {
        let stamp = Stamp {
            number: 7,
            due: Duration::from_nanos(123_456_789),
        };
        let mut body = [0; 20];
        stamp.write(&mut body);
        assert_eq!(Stamp::read(&body).unwrap(), stamp);
        assert!(Stamp::read(b"short").is_err());
    }

    #[test]
    fn repeats_are_counted_apart_and_unknown_numbers_refused() {
        let arrivals = Arrivals::of(2);
        assert_eq!(arrivals.arrived(1).unwrap(), Arrival::First);
        assert_eq!(arrivals.arrived(1).unwrap(), Arrival::Again);
        assert_eq!(
            (arrivals.count(), arrivals.redeliveries.load(Ordering::Relaxed)),
            (1, 1)
        );
        assert!(arrivals.arrived(2).is_err());
    }
}
