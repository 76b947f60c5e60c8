//! Many connections: what each costs, that their heartbeats come in time, and that they can all be busy at once.
//!
//! With `NSQUORUM_STOCK_NSQD` (the path of an nsqd) the same is done with stock nsqd, for figures beside ours.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use nsquorum_client::{Connection, Event, IdentifyOptions};
use nsquorum_node_tests::{Disk, Node, NodeFlags, StockNsqd, count, until};
use nsquorum_protocol::{ChannelName, Frame, FrameDecoder, TopicName, encode, frame};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// The target for one idle connection, in bytes of resident memory.
const IDLE_CONNECTION_BYTES_MAX: u64 = 30_000;
/// What may be resident beyond that, however many connections there are: with few of them stacks and the allocator's slack weigh more.
const SLACK_BYTES: u64 = 4 << 20;
/// The idle connections' heartbeat interval. nsqd's default is ten times that: so often something is to be done for each.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Every connection gets so many before the verdict.
const HEARTBEATS: usize = 2;
/// What each is given to do, then.
const MESSAGES_EACH: usize = 10;
const BODY_BYTES: usize = 1000;
const TOPICS: usize = 10;
const CHANNELS: [&str; 10] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"];
/// Connections that are being made at once.
const CONNECTING: usize = 128;
const DEADLINE: Duration = Duration::from_secs(300);

enum Server {
    Ours(Node),
    Stock(StockNsqd),
}

impl Server {
    /// Ours, and stock nsqd if there is one.
    async fn each(data: &Path) -> Vec<Self> {
        let node = Node::start(data, &NodeFlags::default()).await.unwrap();
        node.until_ping(200).await.unwrap();
        let mut servers = vec![Self::Ours(node)];
        if let Some(program) = StockNsqd::program() {
            servers.push(Self::Stock(StockNsqd::start(&program).await.unwrap()));
        }
        servers
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) => "nsquorum",
            Self::Stock(_) => "stock nsqd",
        }
    }

    fn tcp(&self) -> &str {
        match self {
            Self::Ours(node) => node.tcp(),
            Self::Stock(nsqd) => nsqd.tcp(),
        }
    }

    async fn create(&self, topic: &TopicName, channels: &[&str]) {
        match self {
            Self::Ours(node) => node.create(topic.as_str(), channels).await.unwrap(),
            Self::Stock(nsqd) => nsqd.create(topic.as_str(), channels).await.unwrap(),
        }
    }

    fn resident(&self) -> (u64, u64) {
        match self {
            Self::Ours(node) => node.resident().unwrap(),
            Self::Stock(nsqd) => nsqd.resident().unwrap(),
        }
    }

    async fn end(self) {
        if let Self::Ours(node) = self {
            node.stop_cleanly().await.unwrap();
        }
    }
}

/// Every socket has its other end here.
fn raise_own_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

fn kb(bytes: u64, connections: usize) -> f64 {
    bytes as f64 / 1000.0 / connections as f64
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// What all idle connections have seen.
#[derive(Default)]
struct Seen {
    subscribed: AtomicUsize,
    /// Of all connections.
    beats: AtomicUsize,
    /// Connections that have had their [`HEARTBEATS`].
    beaten: AtomicUsize,
    /// Between two heartbeats of a connection, or its IDENTIFY and the first, in microseconds.
    longest_us: AtomicU64,
    shortest_us: AtomicU64,
    messages: AtomicUsize,
}

/// A consumer that does nothing: it answers heartbeats and finishes what it gets. Ends only with an error.
async fn idle(
    address: String,
    topic: TopicName,
    channel: ChannelName,
    seen: Arc<Seen>,
    room: Arc<Semaphore>,
) -> Result<()> {
    let connecting = room.acquire().await?;
    let mut stream = TcpStream::connect(&address).await?;
    let mut outgoing = BytesMut::from(&encode::MAGIC_V2[..]);
    let identify = format!(
        r#"{{"client_id":"idle","heartbeat_interval":{}}}"#,
        HEARTBEAT.as_millis()
    );
    encode::identify(&mut outgoing, identify.as_bytes());
    encode::sub(&mut outgoing, &topic, &channel);
    encode::rdy(&mut outgoing, 1);
    let mut since = Instant::now();
    stream.write_all(&outgoing).await?;
    outgoing.clear();
    let (mut incoming, mut decoder) = (BytesMut::new(), FrameDecoder::new(1 << 20));
    let mut connecting = Some(connecting);
    let (mut answers, mut beats) = (0, 0);
    loop {
        match decoder.decode(&mut incoming)? {
            Some(Frame::Response(payload)) if payload[..] == *frame::HEARTBEAT => {
                let gap_us = u64::try_from(since.elapsed().as_micros())?;
                seen.longest_us.fetch_max(gap_us, SeqCst);
                seen.shortest_us.fetch_min(gap_us, SeqCst);
                since = Instant::now();
                beats += 1;
                seen.beats.fetch_add(1, SeqCst);
                if beats == HEARTBEATS {
                    seen.beaten.fetch_add(1, SeqCst);
                }
                encode::nop(&mut outgoing);
            }
            Some(Frame::Response(_)) => {
                answers += 1;
                if answers == 2 {
                    seen.subscribed.fetch_add(1, SeqCst);
                    connecting = None;
                }
            }
            Some(Frame::Message { id, .. }) => {
                seen.messages.fetch_add(1, SeqCst);
                encode::fin(&mut outgoing, id);
            }
            Some(Frame::Error(payload)) => bail!("{}", String::from_utf8_lossy(&payload)),
            None if outgoing.is_empty() => {
                // Small: thousands of these stand here, too.
                let mut chunk = [0; 512];
                let length = stream.read(&mut chunk).await?;
                if length == 0 {
                    bail!(
                        "the server closed an idle connection {}",
                        if connecting.is_some() { "too early" } else { "" }
                    );
                }
                incoming.extend_from_slice(&chunk[..length]);
            }
            None => {
                stream.write_all(&outgoing).await?;
                outgoing.clear();
            }
        }
    }
}

/// Waits until a count is reached; any connection that ends meanwhile fails it.
async fn reached(what: &str, connections: &mut JoinSet<Result<()>>, wanted: usize, counter: impl Fn() -> usize) {
    until(what, DEADLINE, async || {
        if let Some(ended) = connections.try_join_next() {
            bail!("a connection ended: {ended:?}");
        }
        Ok(counter() >= wanted)
    })
    .await
    .with_context(|| format!("{} of {wanted}", counter()))
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_small_and_get_their_heartbeats() {
    raise_own_limit();
    let total = usize::try_from(count("NSQUORUM_CONNECTIONS", 500)).unwrap();
    let disk = Disk::plain().unwrap();
    for server in Server::each(&disk.data()).await {
        idle_connections(&server, total).await;
        server.end().await;
    }
}

async fn idle_connections(server: &Server, total: usize) {
    let topics: Vec<TopicName> = (0..TOPICS)
        .map(|number| format!("idle-{number}").parse().unwrap())
        .collect();
    let producer = Connection::connect(server.tcp(), IdentifyOptions::default())
        .await
        .unwrap()
        .into_producer();
    for topic in &topics {
        server.create(topic, &CHANNELS).await;
    }
    let (before, _) = server.resident();
    let seen = Arc::new(Seen {
        shortest_us: AtomicU64::new(u64::MAX),
        ..Seen::default()
    });
    let room = Arc::new(Semaphore::new(CONNECTING));
    let mut connections = JoinSet::new();
    let started = Instant::now();
    for number in 0..total {
        let (topic, channel) = (
            topics[number % TOPICS].clone(),
            CHANNELS[number / TOPICS % CHANNELS.len()].parse().unwrap(),
        );
        connections.spawn(idle(
            server.tcp().to_owned(),
            topic,
            channel,
            Arc::clone(&seen),
            Arc::clone(&room),
        ));
    }
    reached("all are subscribed", &mut connections, total, || {
        seen.subscribed.load(SeqCst)
    })
    .await;
    let connected = started.elapsed();
    reached("all have had heartbeats", &mut connections, total, || {
        seen.beaten.load(SeqCst)
    })
    .await;
    let (after, _) = server.resident();
    // They are consumers still, and when all of them have had work they are as small as before.
    let copies = total.div_ceil(TOPICS).min(CHANNELS.len());
    let bodies = vec![[7; BODY_BYTES]; (MESSAGES_EACH * total).div_ceil(TOPICS * copies)];
    for topic in &topics {
        producer.mpub(topic, &bodies).await.unwrap();
    }
    let wanted = TOPICS * copies * bodies.len();
    reached("all channels have delivered", &mut connections, wanted, || {
        seen.messages.load(SeqCst)
    })
    .await;
    producer.close().await.unwrap();
    let beats = seen.beats.load(SeqCst);
    reached("all are idle again", &mut connections, beats + 2 * total, || {
        seen.beats.load(SeqCst)
    })
    .await;
    let (again, peak) = server.resident();
    connections.shutdown().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (closed, _) = server.resident();
    let (cost, cost_again) = (after.saturating_sub(before), again.saturating_sub(before));
    let (longest, shortest) = (
        seen.longest_us.load(SeqCst) as f64 / 1e6,
        seen.shortest_us.load(SeqCst) as f64 / 1e6,
    );
    println!(
        "figure: {}: {total} idle consumers, connected in {:.1} s: {:.1} kB each, after some work {:.1} kB (RSS {} MiB before, {} with \
         them, {} after work, {} at most, {} when they are gone), heartbeats every {shortest:.3} to {longest:.3} s where {HEARTBEAT:?} was asked",
        server.name(),
        connected.as_secs_f64(),
        kb(cost, total),
        kb(cost_again, total),
        mib(before),
        mib(after),
        mib(again),
        mib(peak),
        mib(closed),
    );
    if let Server::Ours(_) = server {
        let bound = total as u64 * IDLE_CONNECTION_BYTES_MAX + SLACK_BYTES;
        for cost in [cost, cost_again] {
            assert!(
                cost <= bound,
                "{total} idle connections take {cost} bytes, more than {bound}"
            );
        }
        // After two silent intervals clients give a server up.
        assert!(
            longest < 2.0 * HEARTBEAT.as_secs_f64(),
            "a heartbeat came after {longest} s"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_publish_and_consume_at_once_lose_nothing() {
    raise_own_limit();
    let total = usize::try_from(count("NSQUORUM_BUSY_CONNECTIONS", 200)).unwrap();
    let each = count("NSQUORUM_BUSY_MESSAGES", 20);
    let disk = Disk::plain().unwrap();
    for server in Server::each(&disk.data()).await {
        busy_connections(&server, total / 2, each).await;
        server.end().await;
    }
}

/// As many producers, each with one publish under way, as consumers of one channel.
async fn busy_connections(server: &Server, pairs: usize, each: u64) {
    let (topic, channel): (TopicName, ChannelName) = ("busy".parse().unwrap(), "all".parse().unwrap());
    server.create(&topic, &[channel.as_str()]).await;
    let (before, _) = server.resident();
    let (received, mut bodies) = mpsc::unbounded_channel();
    let mut consumers = JoinSet::new();
    for _ in 0..pairs {
        let connection = Connection::connect(server.tcp(), IdentifyOptions::default())
            .await
            .unwrap();
        let mut consumer = connection.subscribe(&topic, &channel, 10).await.unwrap();
        let received = received.clone();
        consumers.spawn(async move {
            while let Some(Event::Message(message)) = consumer.next().await.unwrap() {
                consumer.fin(message.id).unwrap();
                received.send((message.attempts, message.body)).unwrap();
            }
        });
    }
    let mut producers = Vec::new();
    for _ in 0..pairs {
        let connection = Connection::connect(server.tcp(), IdentifyOptions::default())
            .await
            .unwrap();
        producers.push(connection.into_producer());
    }
    let started = Instant::now();
    let mut publishing = JoinSet::new();
    for (number, producer) in producers.into_iter().enumerate() {
        let topic = topic.clone();
        publishing.spawn(async move {
            let mut times_us = Vec::new();
            for message in 0..each {
                let begun = Instant::now();
                producer
                    .publish(&topic, format!("{number} {message} {:100}", "").as_bytes())
                    .await
                    .unwrap();
                times_us.push(begun.elapsed().as_micros());
            }
            producer.close().await.unwrap();
            times_us
        });
    }
    let wanted = pairs * usize::try_from(each).unwrap();
    let mut taken = HashSet::new();
    while taken.len() < wanted {
        let next = tokio::time::timeout(DEADLINE, bodies.recv()).await;
        let Ok(Some((attempts, body))) = next else {
            panic!("{} of {wanted} messages have come", taken.len())
        };
        assert_eq!(attempts, 1);
        assert!(taken.insert(body), "a message came twice");
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut times_us: Vec<_> = publishing.join_all().await.concat();
    times_us.sort_unstable();
    let (after, peak) = server.resident();
    println!(
        "figure: {}: {pairs} producers and {pairs} consumers at once: {wanted} messages in {seconds:.1} s, {:.0}/s, publish p50 {:.1} ms, \
         p99 {:.1} ms; RSS {} MiB before, {} after, {} at most",
        server.name(),
        wanted as f64 / seconds,
        times_us[times_us.len() / 2] as f64 / 1e3,
        times_us[times_us.len() * 99 / 100] as f64 / 1e3,
        mib(before),
        mib(after),
        mib(peak),
    );
    consumers.shutdown().await;
}

#[tokio::test]
async fn a_node_takes_as_many_files_as_it_may() {
    // The node inherits a soft limit below the hard one, as from a usual shell.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let hard = maximum.unwrap_or(1 << 20);
    let lowered = Rlimit {
        current: Some(hard - 1),
        maximum,
    };
    setrlimit(Resource::Nofile, lowered).unwrap();
    let disk = Disk::plain().unwrap();
    let node = Node::start(&disk.data(), &NodeFlags::default()).await.unwrap();
    assert_eq!(node.open_files_limit().unwrap(), (hard, hard));
    node.stop_cleanly().await.unwrap();
}
