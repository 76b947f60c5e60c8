//! Acceptance 4 of "Three replicas": one node of three is left. Nothing is acknowledged and nothing breaks, and service comes back with the second node.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::time::{Duration, Instant};

use nsquorum_client::{ClientError, Connection, Consumer, Event, Heartbeat, IdentifyOptions, Producer};
use nsquorum_cluster_tests::{CHANNELS, Replica, TOPIC, Trio};
use nsquorum_node_tests::{Disk, get, post, until};
use nsquorum_protocol::TopicName;

/// For hanging, not for slowness.
const DEADLINE: Duration = Duration::from_secs(60);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// A text of nsqd, and our cause.
const FAILED: &str = "E_PUB_FAILED PUB failed timed out waiting for the replicas";

async fn connect(node: &Replica) -> Connection {
    let options = IdentifyOptions {
        heartbeat: Heartbeat::Every(Duration::from_secs(3)),
        ..IdentifyOptions::default()
    };
    Connection::connect(&node.place().tcp(), options).await.unwrap()
}

async fn producer(node: &Replica) -> Producer {
    connect(node).await.into_producer()
}

/// The next message's body, finished.
async fn take(consumer: &mut Consumer) -> String {
    loop {
        let event = tokio::time::timeout(DEADLINE, consumer.next()).await;
        if let Some(Event::Message(message)) = event.expect("a message comes").unwrap() {
            consumer.fin(message.id).unwrap();
            return String::from_utf8(message.body.to_vec()).unwrap();
        }
    }
}

/// Waits until /ping says this, and then looks whether /stats does.
async fn until_health(address: &str, status: u16, text: &str) {
    until("another health", DEADLINE, async || {
        let answer = get(address, "/ping").await?;
        Ok((answer.status, answer.text.as_str()) == (status, text))
    })
    .await
    .unwrap();
    let stats = get(address, "/stats?format=json").await.unwrap().text;
    assert!(stats.contains(&format!("\"health\":\"{text}\"")), "{stats}");
}

/// A publish that must fail as nsqd's do. Returns how long that took.
async fn fails(producer: &Producer, topic: &TopicName) -> Duration {
    let began = Instant::now();
    match producer.publish(topic, b"nobody stores this").await {
        Err(ClientError::Server(error)) => assert_eq!(error.to_string(), FAILED),
        other => panic!("{other:?}"),
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_acknowledges_nothing_and_lives_on() {
    let places = Trio::local_places().unwrap();
    let mut trio = Trio::found(places, Disk::plain, &[]).await.unwrap();
    trio.create(TOPIC, &CHANNELS).await.unwrap();
    let topic: TopicName = TOPIC.parse().unwrap();
    let (left, others) = trio.nodes.split_first_mut().unwrap();
    let process = left.process();
    let ready = connect(left).await;
    let mut consumer = ready.subscribe(&topic, &CHANNELS[0].parse().unwrap(), 1).await.unwrap();
    let idle = producer(left).await;
    idle.publish(&topic, b"before").await.unwrap();
    let held = loop {
        if let Some(Event::Message(message)) = consumer.next().await.unwrap() {
            break message;
        }
    };
    // With RDY 1 this one waits.
    idle.publish(&topic, b"waiting").await.unwrap();
    for other in others.iter_mut() {
        other.kill().unwrap();
    }

    let address = left.place().http();
    until_health(&address, 500, "NOK - no majority of the cluster's nodes answers").await;

    // Each failure ends its connection, and so does the delay of the next one grow over connections.
    let first = fails(&idle, &topic).await;
    assert!(first >= PUBLISH_TIMEOUT, "{first:?}");
    let second = fails(&producer(left).await, &topic).await;
    assert!(
        second >= PUBLISH_TIMEOUT + first / 2 - Duration::from_millis(100),
        "{second:?}"
    );
    // HTTP is the same topic's next failure, and a topic that does not exist cannot come to be.
    let began = Instant::now();
    let (known, unknown) = tokio::join!(
        post(&address, "/pub?topic=orders", b"nobody stores this"),
        post(&address, "/pub?topic=never-seen", b"nobody stores this"),
    );
    let third = began.elapsed();
    for answer in [known.unwrap(), unknown.unwrap()] {
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (503, r#"{"message":"TIMED_OUT"}"#)
        );
    }
    assert!(third >= second, "{third:?} after {second:?}");
    println!("figure: publishes with one node of three left failed after {first:?}, {second:?}, {third:?}");

    // The consumer's connection has outlived more than two heartbeat intervals of 3 s, may finish what it holds, and gets nothing new.
    consumer.fin(held.id).unwrap();
    let more = tokio::time::timeout(Duration::from_secs(3), consumer.next()).await;
    assert!(more.is_err(), "{more:?} without a majority");
    let waiting = producer(left).await;
    let pending = waiting.publish_async(&topic, b"while it comes back").await.unwrap();

    others[0].start().unwrap();
    tokio::time::timeout(DEADLINE, pending)
        .await
        .expect("an answer")
        .expect("a publish that waits when the majority comes back is stored");
    waiting.publish(&topic, b"after").await.unwrap();
    until_health(&address, 200, "OK").await;
    assert_eq!(take(&mut consumer).await, "waiting");
    assert_eq!(take(&mut consumer).await, "while it comes back");
    assert_eq!(take(&mut consumer).await, "after");
    // Delays end with the outage.
    assert!(
        get(&address, "/metrics")
            .await
            .unwrap()
            .text
            .contains("nsquorum_failing_topics 1")
    );
    let created = post(&address, "/pub?topic=never-seen", b"now it is").await.unwrap();
    assert_eq!(created.status, 200);
    assert!(
        get(&address, "/metrics")
            .await
            .unwrap()
            .text
            .contains("nsquorum_failing_topics 0")
    );
    assert_eq!(
        (left.process(), left.ended().unwrap()),
        (process, None),
        "nobody restarted it"
    );
    others[1].start().unwrap();
    trio.until_serving().await.unwrap();
    let logs = trio.logs();
    until("the third has caught up", DEADLINE, async || {
        let answer = post(&trio.nodes[2].place().http(), "/pub?topic=orders", b"at the third").await?;
        Ok(answer.status == 200)
    })
    .await
    .expect(&logs);
    let reports = trio.end_equal(TOPIC).await.unwrap();
    let state = reports[0].topic(TOPIC).unwrap().unwrap();
    assert!(state.next_seq >= 6, "five messages were answered OK: {state:?}");
}
