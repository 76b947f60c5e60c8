//! A node that registers with lookup services elsewhere.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nsquorum_broker::{AdminAction, Broker, BrokerConfig, ChannelSource};
use nsquorum_consensus::{ClusterNode, ConsensusOptions, NodeIdentity};
use nsquorum_environment::Environment;
use nsquorum_http::StopSource;
use nsquorum_lookup::{Announcer, Lifetimes, LookupService, LookupSettings, ProducerDescription, QuestionTimeouts};
use nsquorum_protocol::TopicName;
use nsquorum_storage::{Durability, MemoryStore, SpaceState};
use nsquorum_topic::{LogTime, NewMessage, NodeId, NodeIncarnation};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// For hanging, not for slowness.
const PATIENCE: Duration = Duration::from_secs(60);

async fn node() -> Broker {
    node_knowing(None).await
}

async fn node_knowing(known_channels: Option<Arc<dyn ChannelSource>>) -> Broker {
    let environment = Environment::system();
    let broker = Broker::new(BrokerConfig {
        known_channels,
        ephemeral_depth_max: 10_000,
        latency: None,
        environment: environment.clone(),
        publish_bytes_max: 1 << 20,
        tail_bytes_max: 1 << 20,
        space: Arc::new(|| SpaceState::Ok),
    });
    let options = ConsensusOptions {
        store: MemoryStore::new(Durability::Immediate),
        environment,
        identity: NodeIdentity {
            node: NodeId::new(1),
            incarnation: NodeIncarnation::new(1),
        },
        checkpoint_bytes: 1 << 20,
    };
    let cluster = ClusterNode::start(options, Arc::new(broker.clone())).await.unwrap();
    broker.connect(Arc::new(cluster));
    broker
}

struct Lookup {
    tcp: SocketAddr,
    http: SocketAddr,
    stop: StopSource,
    task: JoinHandle<()>,
}

impl Lookup {
    fn start(tcp: &str) -> Self {
        let settings = LookupSettings {
            tcp_address: tcp.parse().unwrap(),
            http_address: "127.0.0.1:0".parse().unwrap(),
            broadcast_address: "127.0.0.1".into(),
            hostname: "lookup1".into(),
            version: "1.3.0".into(),
            lifetimes: Lifetimes::default(),
        };
        let service = LookupService::bind(settings).unwrap();
        let (stop, stopped) = StopSource::new();
        Self {
            tcp: service.tcp_address(),
            http: service.http_address(),
            stop,
            task: tokio::spawn(service.run(Environment::system(), stopped)),
        }
    }

    async fn end(self) {
        self.stop.stop();
        self.task.await.unwrap();
    }

    async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) {
        let mut last = Value::Null;
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(&last) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                last = get(self.http, path).await;
            }
        });
        assert!(waited.await.is_ok(), "{path} stays {last}");
    }

    async fn until_node_holds(&self, topics: &[&str]) {
        self.until("/nodes", |answer| answer["producers"][0]["topics"] == json!(topics))
            .await;
    }
}

async fn get(at: SocketAddr, path: &str) -> Value {
    let mut socket = TcpStream::connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn post(at: SocketAddr, path: &str) {
    let mut socket = TcpStream::connect(at).await.unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn description() -> ProducerDescription {
    ProducerDescription {
        remote_address: String::new(),
        hostname: "h1".into(),
        broadcast_address: "n1".into(),
        tcp_port: 4150,
        http_port: 4151,
        version: "1.3.0".into(),
        topology_zone: "z".into(),
        topology_region: String::new(),
    }
}

fn topic(name: &str) -> TopicName {
    name.parse().unwrap()
}

/// What an nsqlookupd hears after IDENTIFY on one connection, and how long each took to come; `None` if the connection is lost.
async fn commands(listener: &TcpListener, count: usize) -> Option<Vec<(String, Duration)>> {
    let (mut socket, _) = listener.accept().await.ok()?;
    socket.set_nodelay(true).ok()?;
    let mut start = [0; b"  V1IDENTIFY\n".len()];
    socket.read_exact(&mut start).await.ok()?;
    assert_eq!(&start, b"  V1IDENTIFY\n");
    let length = socket.read_u32().await.ok()?;
    socket.read_exact(&mut vec![0; length as usize]).await.ok()?;
    let mut answer: &[u8] =
        br#"{"broadcast_address":"127.0.0.1","hostname":"lookup1","http_port":1,"tcp_port":1,"version":"1.3.0"}"#;
    let mut commands = Vec::new();
    while commands.len() < count {
        let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
        socket.write_all(&[&length, answer].concat()).await.ok()?;
        let answered = Instant::now();
        let mut command = Vec::new();
        while command.last() != Some(&b'\n') {
            command.push(socket.read_u8().await.ok()?);
        }
        commands.push((String::from_utf8(command).unwrap(), answered.elapsed()));
        answer = b"OK";
    }
    Some(commands)
}

/// The clock runs by itself, but not so fast that the ends of a socket have no time for each other. If they have none all the same, the node takes
/// the connection for lost and makes another.
#[tokio::test]
async fn a_registered_node_pings_every_fifteen_seconds() {
    let broker = node().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_addresses, watched) = watch::channel(vec![listener.local_addr().unwrap().to_string()]);
    let (_stop, stopped) = StopSource::new();
    tokio::spawn(Announcer::new(watched).run(broker.held_topics().unwrap(), description(), stopped));
    tokio::time::pause();
    tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    let heard = tokio::time::timeout(10 * PATIENCE, async {
        loop {
            if let Some(commands) = commands(&listener, 3).await {
                break commands;
            }
        }
    });
    for (command, after) in heard.await.expect("a connection that lasts") {
        assert_eq!(command, "PING\n");
        assert!((14_900..15_900).contains(&after.as_millis()), "{after:?}");
    }
}

#[tokio::test]
async fn a_node_is_registered_with_what_it_holds_wherever_it_is_told_to() {
    let broker = node().await;
    broker.create_topic(&topic("orders")).await.unwrap();
    let lookup = Lookup::start("127.0.0.1:0");
    let (addresses, watched) = watch::channel(vec![lookup.tcp.to_string()]);
    let announcer = Announcer::new(watched);
    let (stop, stopped) = StopSource::new();
    let running = tokio::spawn(announcer.run(broker.held_topics().unwrap(), description(), stopped));
    lookup.until_node_holds(&["orders"]).await;
    assert_eq!(announcer.http_addresses(), [lookup.http.to_string()]);
    let producer = get(lookup.http, "/lookup?topic=orders").await["producers"][0].take();
    let said = ["broadcast_address", "tcp_port", "topology_zone"].map(|key| producer[key].clone());
    assert_eq!(said, [json!("n1"), json!(4150), json!("z")]);

    for channel in ["a", "b"] {
        let create = AdminAction::CreateChannel(channel.parse().unwrap());
        broker.administer(&topic("orders"), create).await.unwrap();
    }
    let debug = |key: &'static str| move |answer: &Value| answer.get(key).is_some();
    lookup.until("/debug", debug("channel:orders:b")).await;
    let delete = AdminAction::DeleteChannel("a".parse().unwrap());
    broker.administer(&topic("orders"), delete).await.unwrap();
    lookup
        .until("/debug", |answer| !debug("channel:orders:a")(answer))
        .await;
    broker.create_topic(&topic("bills")).await.unwrap();
    lookup.until_node_holds(&["bills", "orders"]).await;
    broker
        .administer(&topic("orders"), AdminAction::DeleteTopic)
        .await
        .unwrap();
    lookup.until_node_holds(&["bills"]).await;
    lookup
        .until("/debug", |answer| !debug("channel:orders:b")(answer))
        .await;

    // It forgets everything, and is told again.
    let tcp = lookup.tcp.to_string();
    lookup.end().await;
    let lookup = Lookup::start(&tcp);
    lookup.until_node_holds(&["bills"]).await;

    let other = Lookup::start("127.0.0.1:0");
    addresses.send_replace(vec![other.tcp.to_string(), other.tcp.to_string()]);
    other.until_node_holds(&["bills"]).await;
    lookup.until("/nodes", |answer| answer["producers"] == json!([])).await;
    assert_eq!(
        get(other.http, "/nodes").await["producers"].as_array().unwrap().len(),
        1
    );
    stop.stop();
    running.await.unwrap();
    other.until("/nodes", |answer| answer["producers"] == json!([])).await;
}

/// A node that is told of these nsqlookupds and asks them for at most `total`.
async fn asking(addresses: &[SocketAddr], total: Duration) -> (Broker, (watch::Sender<Vec<String>>, StopSource)) {
    let (sender, watched) = watch::channel(addresses.iter().map(ToString::to_string).collect());
    let announcer = Announcer::new(watched);
    let timeouts = QuestionTimeouts {
        connect: total,
        request: total,
        total,
    };
    let broker = node_knowing(Some(announcer.channel_source(timeouts))).await;
    let (stop, stopped) = StopSource::new();
    tokio::spawn(announcer.run(broker.held_topics().unwrap(), description(), stopped));
    (broker, (sender, stop))
}

async fn publish(broker: &Broker, topic: &TopicName) {
    let message = NewMessage::new(bytes::Bytes::from_static(b"first"), LogTime::new(1));
    let published = broker.publish(topic, vec![message], None);
    tokio::time::timeout(PATIENCE, published).await.unwrap().unwrap();
}

/// The channels of a topic, and how many messages each of them has got.
async fn channels(broker: &Broker, topic: &TopicName) -> Vec<(String, u64)> {
    let stats = broker.stats(Some(topic), None).await.pop().unwrap();
    let of = |channel: nsquorum_broker::ChannelStats| (channel.name.to_string(), channel.message_count);
    stats.channels.into_iter().map(of).collect()
}

#[tokio::test]
async fn the_first_message_of_a_new_topic_reaches_all_channels_that_the_lookup_services_know() {
    let (one, other) = (Lookup::start("127.0.0.1:0"), Lookup::start("127.0.0.1:0"));
    let name = topic("orders");
    for (lookup, channel) in [(&one, "a"), (&other, "b"), (&other, "a"), (&one, "tail%23ephemeral")] {
        post(lookup.http, &format!("/channel/create?topic=orders&channel={channel}")).await;
    }
    // It is asked before it knows its lookup services: the first publish waits for that.
    let (broker, _running) = asking(&[one.tcp, other.tcp], PATIENCE).await;
    publish(&broker, &name).await;
    assert_eq!(
        channels(&broker, &name).await,
        [("a".to_owned(), 1), ("b".to_owned(), 1)]
    );

    // Later answers change nothing: the topic is not new any more.
    let ephemeral = topic("orders#ephemeral");
    post(one.http, "/channel/create?topic=orders%23ephemeral&channel=c").await;
    broker.create_topic(&ephemeral).await.unwrap();
    publish(&broker, &ephemeral).await;
    assert_eq!(channels(&broker, &ephemeral).await, [("c".to_owned(), 1)]);
}

#[tokio::test]
async fn a_new_topic_does_not_wait_for_ever_for_lookup_services_that_are_of_no_help() {
    let good = Lookup::start("127.0.0.1:0");
    post(good.http, "/channel/create?topic=orders&channel=a").await;
    let name = topic("orders");
    // One that says nothing, and one where nobody is.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let addresses = [silent.local_addr().unwrap(), nobody, good.tcp];
    let (broker, _running) = asking(&addresses, Duration::from_secs(20)).await;
    publish(&broker, &name).await;
    assert_eq!(channels(&broker, &name).await, [("a".to_owned(), 1)]);
}
