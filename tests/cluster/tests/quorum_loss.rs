//! Acceptance 4 of "Three replicas": one node of three is left. Nothing is acknowledged and nothing breaks, and service comes back with the second node.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nsquorum_client::{ClientError, Connection, Consumer, Event, Heartbeat, IdentifyOptions, Producer};
use nsquorum_cluster_tests::{CHANNELS, Replica, TOPIC, TOPIC_GROUP, Trio};
use nsquorum_node_tests::{Disk, get, post, until};
use nsquorum_protocol::TopicName;

/// For hanging, not for slowness.
const DEADLINE: Duration = Duration::from_secs(60);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// A text of nsqd, and our cause.
const FAILED: &str = "E_PUB_FAILED PUB failed timed out waiting for the replicas";
/// What the bodies of publishes that fail begin with.
const FAILING: &str = "fails ";

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

/// Messages of failed publishes that came all the same.
type Unknown = BTreeSet<String>;

/// The body of the next message that is not from a failed publish; everything on the way to it is finished. A failure says that the outcome is not known:
/// such a message may come, once.
async fn take(consumer: &mut Consumer, unknown: &mut Unknown) -> String {
    loop {
        let event = tokio::time::timeout(DEADLINE, consumer.next()).await;
        if let Some(Event::Message(message)) = event.expect("a message comes").unwrap() {
            consumer.fin(message.id).unwrap();
            let body = String::from_utf8(message.body.to_vec()).unwrap();
            if !body.starts_with(FAILING) {
                return body;
            }
            assert!(unknown.insert(body.clone()), "{body} came twice");
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
async fn fails(producer: &Producer, topic: &TopicName, body: &str) -> Duration {
    let began = Instant::now();
    match producer.publish(topic, body.as_bytes()).await {
        Err(ClientError::Server(error)) => assert_eq!(error.to_string(), FAILED),
        other => panic!("{other:?}"),
    }
    began.elapsed()
}

/// Which node is left alone.
#[derive(Clone, Copy, PartialEq)]
enum Left {
    Leader,
    Follower,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_left_alone_acknowledges_nothing_and_lives_on() {
    let stored = one_is_left(Left::Follower).await;
    assert!(stored.is_empty(), "no leader ever had {stored:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_left_alone_acknowledges_nothing_and_lives_on() {
    // What is in its log may be stored when it leads again.
    one_is_left(Left::Leader).await;
}

/// Kills two of three and starts one of them again. Returns what was stored of the publishes that failed.
async fn one_is_left(which: Left) -> Unknown {
    let places = Trio::local_places().unwrap();
    let mut trio = Trio::found(places, Disk::plain, &[]).await.unwrap();
    trio.create(TOPIC, &CHANNELS).await.unwrap();
    let topic: TopicName = TOPIC.parse().unwrap();
    let leader = trio.leader(TOPIC_GROUP);
    trio.nodes.rotate_left(leader + usize::from(which == Left::Follower));
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
    let first = fails(&idle, &topic, "fails first").await;
    assert!(first >= PUBLISH_TIMEOUT, "{first:?}");
    let second = fails(&producer(left).await, &topic, "fails second").await;
    assert!(
        second >= PUBLISH_TIMEOUT + first / 2 - Duration::from_millis(100),
        "{second:?}"
    );
    // HTTP is the same topic's next failure, and a topic that does not exist cannot come to be.
    let began = Instant::now();
    let (known, unknown) = tokio::join!(
        post(&address, "/pub?topic=orders", b"fails third"),
        post(&address, "/pub?topic=never-seen", b"fails too"),
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
    let mut unknown = Unknown::new();
    assert_eq!(take(&mut consumer, &mut unknown).await, "waiting");
    assert_eq!(take(&mut consumer, &mut unknown).await, "while it comes back");
    assert_eq!(take(&mut consumer, &mut unknown).await, "after");
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
    unknown
}
