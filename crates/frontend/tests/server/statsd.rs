use std::collections::BTreeMap;
use std::time::Duration;

use nsquorum_frontend::{StatsdPusher, StatsdSettings};
use tokio::net::UdpSocket;

use crate::node::{Client, TestNode, ok, within};

/// What a statsd server makes of packets: sums of counters, last values of gauges.
struct Server {
    socket: UdpSocket,
    counters: BTreeMap<String, u64>,
    gauges: BTreeMap<String, u64>,
    /// Complete pushes, by what stands last in each.
    pushes: u64,
}

impl Server {
    async fn new() -> Self {
        Self {
            socket: UdpSocket::bind("127.0.0.1:0").await.expect("a port"),
            counters: BTreeMap::new(),
            gauges: BTreeMap::new(),
            pushes: 0,
        }
    }

    async fn packet(&mut self) {
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).await.expect("a packet");
        assert!(length <= 508, "{length}");
        let text = std::str::from_utf8(&buffer[..length]).expect("text");
        assert!(text.ends_with('\n'), "{text:?}");
        for line in text.lines() {
            let line = line.strip_prefix("nsq.test.").expect("the prefix");
            let (name, value) = line.split_once(':').expect("a value");
            let (value, kind) = value.split_once('|').expect("a kind");
            let value: u64 = value.parse().expect("a number");
            self.pushes += u64::from(name == "mem.gc_runs");
            match kind {
                "c" => *self.counters.entry(name.to_owned()).or_default() += value,
                "g" => drop(self.gauges.insert(name.to_owned(), value)),
                other => panic!("{other}"),
            }
        }
    }

    async fn until_counted(&mut self, name: &str, count: u64) {
        let counted = async {
            while self.counters.get(name) != Some(&count) {
                self.packet().await;
            }
        };
        within(counted).await;
    }
}

async fn publish(client: &mut Client, topic: &str, count: usize) {
    for _ in 0..count {
        client.send(format!("PUB {topic}\n\0\0\0\x04body").as_bytes()).await;
        assert_eq!(client.frame().await, Some(ok()));
    }
}

#[tokio::test]
async fn figures_reach_a_statsd_server() {
    let node = TestNode::start().await;
    let mut client = Client::open(&node).await;
    publish(&mut client, "old", 7).await;
    let mut server = Server::new().await;
    let settings = StatsdSettings {
        address: server.socket.local_addr().expect("bound").to_string(),
        interval: Duration::from_millis(20),
        prefix: "nsq.test.".to_owned(),
        memory: true,
        packet_bytes_max: 508,
        exclude_ephemeral: false,
    };
    let pusher = StatsdPusher::new(&node.broker, settings);
    let pusher = tokio::spawn(pusher.run(node.broker.clone(), node.stopped.clone()));
    publish(&mut client, "new", 3).await;
    server.until_counted("topic.new.message_count", 3).await;
    publish(&mut client, "new", 2).await;
    server.until_counted("topic.new.message_count", 5).await;
    server.until_counted("topic.new.message_bytes", 20).await;
    // Another whole push changes nothing.
    let pushes = server.pushes + 2;
    while server.pushes < pushes {
        within(server.packet()).await;
    }
    assert!(
        server
            .gauges
            .get("mem.heap_in_use_bytes")
            .is_some_and(|bytes| *bytes > 0)
    );
    assert_eq!(server.gauges.get("topic.new.depth"), Some(&5));
    assert_eq!(
        server.counters.get("topic.new.message_count"),
        Some(&5),
        "nothing is counted twice"
    );
    assert_eq!(
        server.counters.get("topic.old.message_count"),
        Some(&0),
        "the past was counted before"
    );
    node.stop.stop();
    within(pusher).await.expect("it ends");
}

/// The clock runs by itself: whatever waits, waits no longer than it has to.
#[tokio::test]
async fn the_packets_of_a_push_are_spread_over_the_interval() {
    let node = TestNode::start().await;
    let mut client = Client::open(&node).await;
    for number in 0..10 {
        publish(&mut client, &format!("topic_with_a_rather_long_name_{number}"), 1).await;
    }
    let mut server = Server::new().await;
    let settings = StatsdSettings {
        address: server.socket.local_addr().expect("bound").to_string(),
        interval: Duration::from_secs(11),
        prefix: "nsq.test.".to_owned(),
        memory: true,
        packet_bytes_max: 508,
        exclude_ephemeral: false,
    };
    let pusher = StatsdPusher::new(&node.broker, settings);
    tokio::time::pause();
    tokio::spawn(pusher.run(node.broker.clone(), node.stopped.clone()));
    let mut arrived = Vec::new();
    while server.pushes == 0 {
        within(server.packet()).await;
        arrived.push(tokio::time::Instant::now());
    }
    assert!(arrived.len() > 3, "{} packets", arrived.len());
    let pause = Duration::from_secs(10) / u32::try_from(arrived.len()).expect("few");
    for pair in arrived.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(
            gap > pause / 2 && gap < pause * 2,
            "{gap:?}, and {} packets leave {pause:?}",
            arrived.len()
        );
    }
    tokio::time::resume();
    node.stop.stop();
}
