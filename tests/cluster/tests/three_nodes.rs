//! Three processes are one queue.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use nsquorum_client::{Connection, Consumer, Event, IdentifyOptions};
use nsquorum_cluster_tests::{Cluster, differences};
use nsquorum_node_tests::{VerifyReport, get, post, until};
use nsquorum_protocol::TopicName;

/// For hanging, not for slowness.
const DEADLINE: Duration = Duration::from_secs(60);

async fn connect(address: &str) -> Connection {
    Connection::connect(address, IdentifyOptions::default()).await.unwrap()
}

/// The next message of a consumer, finished.
async fn take(consumer: &mut Consumer) -> (u64, u16, String) {
    loop {
        let event = tokio::time::timeout(DEADLINE, consumer.next())
            .await
            .expect("a message comes")
            .unwrap();
        if let Some(Event::Message(message)) = event {
            consumer.fin(message.id).unwrap();
            let body = String::from_utf8(message.body.to_vec()).unwrap();
            return (message.id.to_seq().unwrap(), message.attempts, body);
        }
    }
}

fn assert_equal(reports: &[VerifyReport], next_seq: usize) {
    let differences = differences(reports, "orders", next_seq as u64).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_any_request_and_all_have_everything() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let nodes = cluster.nodes().unwrap();
    let topic: TopicName = "orders".parse().unwrap();
    assert_eq!(
        post(&nodes[1].http, "/topic/create?topic=orders", b"")
            .await
            .unwrap()
            .status,
        200
    );
    let mut consumers = Vec::new();
    for (node, channel) in nodes.iter().zip(["ledger", "archive", "audit"]) {
        let connection = connect(&node.tcp).await;
        consumers.push(
            connection
                .subscribe(&topic, &channel.parse().unwrap(), 10)
                .await
                .unwrap(),
        );
    }
    for round in 0..20 {
        for (place, node) in nodes.iter().enumerate() {
            let body = format!("{round}-{place}");
            let answer = post(&node.http, "/pub?topic=orders", body.as_bytes()).await.unwrap();
            assert_eq!((answer.status, answer.text.as_str()), (200, "OK"));
        }
    }
    for consumer in &mut consumers {
        for number in 0..60 {
            let (seq, attempts, body) = take(consumer).await;
            assert_eq!(
                (seq, attempts, body),
                (number + 1, 1, format!("{}-{}", number / 3, number % 3))
            );
        }
    }
    for node in &nodes {
        let lookup = get(&node.lookup_http, "/lookup?topic=orders").await.unwrap();
        let lookup: serde_json::Value = serde_json::from_str(&lookup.text).unwrap();
        let mut ports: Vec<_> = lookup["producers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["tcp_port"].to_string())
            .collect();
        ports.sort();
        let mut all: Vec<_> = nodes
            .iter()
            .map(|node| node.tcp.rsplit(':').next().unwrap().to_owned())
            .collect();
        all.sort();
        assert_eq!(ports, all, "/lookup at node {} names all replicas", node.id);
    }
    cluster.until_drained("orders").await.unwrap();
    cluster.stop().await.unwrap();
    assert_equal(&cluster.verify().unwrap(), 61);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_administers_any_topic() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let nodes = cluster.nodes().unwrap();
    // A topic is led where it is created. Each node acts for a topic of each.
    for (created_at, creator) in nodes.iter().enumerate() {
        for (place, node) in nodes.iter().enumerate() {
            let topic = format!("topic-{created_at}-{place}");
            let path = format!("/topic/create?topic={topic}");
            assert_eq!(post(&creator.http, &path, b"").await.unwrap().status, 200, "{path}");
            until("the node lists the topic", DEADLINE, async || {
                Ok(get(&node.lookup_http, "/topics").await?.text.contains(&topic))
            })
            .await
            .unwrap();
            for path in [
                format!("/topic/create?topic={topic}"),
                format!("/channel/create?topic={topic}&channel=ledger"),
                format!("/pub?topic={topic}"),
                format!("/channel/pause?topic={topic}&channel=ledger"),
                format!("/channel/empty?topic={topic}&channel=ledger"),
                format!("/channel/delete?topic={topic}&channel=ledger"),
                format!("/topic/delete?topic={topic}"),
            ] {
                let answer = post(&node.http, &path, b"body").await.unwrap();
                assert_eq!(answer.status, 200, "{path} at node {}: {}", node.id, answer.text);
            }
        }
    }
    for node in &nodes {
        // The node that answered knows; the others hear of it.
        until("the node lists no topic", DEADLINE, async || {
            let topics = get(&node.lookup_http, "/topics").await?;
            Ok(topics.text == r#"{"topics":[]}"#)
        })
        .await
        .unwrap();
    }
    cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_nodes_cost_no_message_and_surviving_producers_see_no_error() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let nodes = cluster.nodes().unwrap();
    let topic: TopicName = "orders".parse().unwrap();
    assert_eq!(
        post(&nodes[0].http, "/topic/create?topic=orders", b"")
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(
        post(&nodes[0].http, "/channel/create?topic=orders&channel=ledger", b"")
            .await
            .unwrap()
            .status,
        200
    );
    let mut acknowledged = Vec::new();
    // Each node in turn: at least one of them led the topic when it died.
    for victim in 0..3 {
        let producer = connect(&nodes[(victim + 1) % 3].tcp).await.into_producer();
        let killed = cluster.nodes().unwrap()[victim].pid;
        for number in 0..60 {
            if number == 20 {
                cluster.kill(victim).unwrap();
            }
            let body = format!("{victim}-{number}");
            let published = tokio::time::timeout(DEADLINE, producer.publish(&topic, body.as_bytes())).await;
            published
                .expect("a publish is answered")
                .expect("a survivor's producer sees no error");
            acknowledged.push(body);
        }
        producer.close().await.unwrap();
        cluster.until_back(victim, killed).await.unwrap();
    }
    let mut consumer = connect(&nodes[2].tcp)
        .await
        .subscribe(&topic, &"ledger".parse().unwrap(), 50)
        .await
        .unwrap();
    let mut delivered = BTreeMap::new();
    for body in &acknowledged {
        let (seq, _, got) = take(&mut consumer).await;
        assert_eq!(&got, body, "message {seq}");
        assert!(delivered.insert(seq, got).is_none(), "message {seq} came twice");
    }
    assert!(
        delivered.keys().copied().eq(1..=acknowledged.len() as u64),
        "ids are dense"
    );
    cluster.until_drained("orders").await.unwrap();
    consumer.close().await.unwrap();
    // FINs wait a moment for company before they go into the log; a publish takes them along, and its OK covers them.
    let after = post(&nodes[0].http, "/pub?topic=orders", b"after").await.unwrap();
    assert_eq!(after.status, 200);
    cluster.stop().await.unwrap();
    assert_equal(&cluster.verify().unwrap(), acknowledged.len() + 2);
    // Run again in the same directory it goes on with the data.
    cluster.resume().await.unwrap();
    let mut consumer = connect(&nodes[1].tcp)
        .await
        .subscribe(&topic, &"ledger".parse().unwrap(), 50)
        .await
        .unwrap();
    assert_eq!(
        take(&mut consumer).await,
        (acknowledged.len() as u64 + 1, 1, "after".to_owned())
    );
    drop(consumer);
    cluster.stop().await.unwrap();
}
