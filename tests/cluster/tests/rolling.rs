//! Restarts one node after the other are not noticed by clients of the others.
//!
//! `NSQUORUM_ROLLING_RESTARTS` sets how many rounds over all nodes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::time::{Duration, Instant};

use nsquorum_client::{Connection, Event, IdentifyOptions};
use nsquorum_cluster_tests::{Answer, Cluster, Habits, Load, differences, figure};
use nsquorum_node_tests::{count, post};
use nsquorum_protocol::{ChannelName, TopicName};

/// For hanging, not for slowness.
const DEADLINE: Duration = Duration::from_secs(60);

async fn create(cluster: &Cluster, channels: &[ChannelName]) {
    let http = &cluster.nodes().unwrap()[0].http;
    let mut paths = vec!["/topic/create?topic=orders".to_owned()];
    paths.extend(
        channels
            .iter()
            .map(|channel| format!("/channel/create?topic=orders&channel={channel}")),
    );
    for path in paths {
        assert_eq!(post(http, &path, b"").await.unwrap().status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_fail_no_publish_and_take_nothing_from_consumers_that_stay() {
    let rounds = count("NSQUORUM_ROLLING_RESTARTS", 2);
    let mut cluster = Cluster::start(3).await.unwrap();
    let topic: TopicName = "orders".parse().unwrap();
    let channels: Vec<ChannelName> = ["ledger", "archive"].map(|name| name.parse().unwrap()).to_vec();
    create(&cluster, &channels).await;
    let mut load = Load::new(
        topic,
        Habits {
            rest: Duration::from_millis(2),
            hold: Duration::from_millis(300),
            ready: 200,
        },
    );
    for (place, node) in cluster.nodes().unwrap().iter().enumerate() {
        load.produce_at(place, node);
        for channel in &channels {
            load.consume_at(place, node, channel);
        }
    }
    let mut stops: Vec<(usize, Instant, Instant)> = Vec::new();
    let mut times = Vec::new();
    for round in 0..rounds {
        for place in 0..3 {
            let pid = cluster.pid(place).unwrap();
            let began = Instant::now();
            cluster.terminate(place).unwrap();
            cluster.until_back(place, Some(pid)).await.unwrap();
            stops.push((place, began, Instant::now()));
            times.push(began.elapsed());
        }
        println!("round {round}: {} publishes so far", load.journal().publishes().len());
    }
    load.stop_producing().await.unwrap();
    cluster.until_drained("orders").await.unwrap();
    load.stop_consuming().await.unwrap();
    cluster.until_quiet().await.unwrap();
    cluster.stop().await.unwrap();

    let publishes = load.journal().publishes();
    println!("{}", figure("from SIGTERM until the node serves again", &times));
    // The longest that a publish took at a node that was not the one that restarted.
    let waits: Vec<Duration> = publishes
        .iter()
        .map(|publish| publish.answered - publish.sent)
        .collect();
    println!("{}", figure("publishes under rolling restarts", &waits));
    let mut closed = 0;
    for publish in publishes.iter().filter(|publish| publish.answer != Answer::Ok) {
        let is_at_stopping_node = stops
            .iter()
            .any(|(place, from, to)| *place == publish.place && publish.sent <= *to && publish.answered >= *from);
        // NSQ has no way to say that a connection is going to end: what the node had not read by then was never published. An error frame would
        // be a failed publish, wherever.
        assert!(
            is_at_stopping_node && matches!(publish.answer, Answer::Lost(_)),
            "a failed publish: {publish:?}"
        );
        closed += 1;
    }
    let verdict = load.journal().judge(&channels, &[]);
    println!(
        "figure: {} restarts, {} publishes, 0 failed; {closed} had not been read when their connection was closed ({} of them stored)",
        stops.len(),
        publishes.len(),
        verdict.unknown_stored
    );
    println!(
        "figure: 0 redeliveries at connections that stayed; of closed connections' messages {} came again that were held, {} that had been finished",
        verdict.held_came_again, verdict.finished_came_again
    );
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    let differences = differences(&cluster.verify().unwrap(), "orders", verdict.stored as u64 + 1).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
}

/// FIN has no answer, and waits a few milliseconds for company. A node that is told to stop in that time has to store it first, whether it leads or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_finished_right_before_a_node_stops_does_not_come_again() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let topic: TopicName = "orders".parse().unwrap();
    let channel: ChannelName = "ledger".parse().unwrap();
    create(&cluster, std::slice::from_ref(&channel)).await;
    // Each node twice: at least one of them led when it stopped.
    for stop in 0..6 {
        let place = stop % 3;
        let nodes = cluster.nodes().unwrap();
        let subscribe = async |place: usize| {
            let connection = Connection::connect(&nodes[place].tcp, IdentifyOptions::default())
                .await
                .unwrap();
            connection.subscribe(&topic, &channel, 1).await.unwrap()
        };
        let body = format!("before stop {stop}");
        let answer = post(&nodes[place].http, "/pub?topic=orders", body.as_bytes())
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        let mut consumer = subscribe(place).await;
        let Some(Event::Message(message)) = tokio::time::timeout(DEADLINE, consumer.next()).await.unwrap().unwrap()
        else {
            panic!("no message")
        };
        assert_eq!(message.body, body.as_bytes());
        consumer.fin(message.id).unwrap();
        // When this returns the node has read the FIN.
        consumer.close().await.unwrap();
        cluster.terminate(place).unwrap();
        // Comes first if the one before is finished.
        let other = (place + 1) % 3;
        let body = format!("after stop {stop}");
        let answer = post(&nodes[other].http, "/pub?topic=orders", body.as_bytes())
            .await
            .unwrap();
        assert_eq!((answer.status, answer.text.as_str()), (200, "OK"));
        cluster.until_back(place, nodes[place].pid).await.unwrap();
        let mut consumer = subscribe(other).await;
        let Some(Event::Message(message)) = tokio::time::timeout(DEADLINE, consumer.next()).await.unwrap().unwrap()
        else {
            panic!("no message")
        };
        assert_eq!(
            String::from_utf8_lossy(&message.body),
            body,
            "stop {stop} of node {}",
            place + 1
        );
        consumer.fin(message.id).unwrap();
        consumer.close().await.unwrap();
    }
    cluster.stop().await.unwrap();
}
