//! Starting, stopping, and directories that are not for this node.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nsquorum_client::{Connection, Consumer, Event, IdentifyOptions, Message};
use nsquorum_faults::MountOptions;
use nsquorum_node_tests::{
    Campaign, Disk, Ending, ExitReason, Load, Node, NodeFlags, StartFailure, count, get, nsquorum_program, post, seed,
};

/// A start or a stop that takes longer is broken, on however slow a machine.
const QUICK: Duration = Duration::from_secs(2);

async fn failure(data: &Path) -> StartFailure {
    let error = Node::start(data, &NodeFlags::default()).await.unwrap_err();
    error.downcast().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_with_0_and_loses_nothing() {
    let seed = seed();
    println!("NSQUORUM_SEED={seed}");
    let disk = Disk::faulty(MountOptions {
        seed,
        ..MountOptions::default()
    })
    .unwrap();
    let mut campaign = Campaign::begin(disk, NodeFlags::default(), seed).await.unwrap();
    for _ in 0..count("NSQUORUM_STOPS", 3) {
        let load = Load::mixed(100 + campaign.below(1000));
        let end = campaign.live(&load, &Ending::Terminate).await.unwrap();
        assert_eq!(end.exit, ExitReason::Code(0), "{}", end.log);
        assert!(end.report.is_clean(), "{:?}", end.report.findings);
    }
    let violations = campaign.verdict().await.unwrap();
    assert!(violations.is_empty(), "NSQUORUM_SEED={seed} {violations:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_and_stopping_are_quick() {
    let disk = Disk::plain().unwrap();
    for state in ["new", "existing"] {
        let node = Node::start(&disk.data(), &NodeFlags::default()).await.unwrap();
        let started = node.listening_after();
        node.create("orders", &["ledger"]).await.unwrap();
        let topic = "orders".parse().unwrap();
        // A consumer that hangs on must not hold up the stop.
        let connection = Connection::connect(node.tcp(), IdentifyOptions::default())
            .await
            .unwrap();
        let _consumer = connection
            .subscribe(&topic, &"ledger".parse().unwrap(), 10)
            .await
            .unwrap();
        let stopped = node.stop_cleanly().await.unwrap();
        println!("figure: serves a {state} directory after {started:?}, stops in {stopped:?}");
        assert!(started < QUICK && stopped < QUICK, "{started:?}, {stopped:?}");
    }
}

async fn consumer_of(node: &Node, topic: &str) -> Consumer {
    let connection = Connection::connect(node.tcp(), IdentifyOptions::default())
        .await
        .unwrap();
    connection
        .subscribe(&topic.parse().unwrap(), &"ledger".parse().unwrap(), 1)
        .await
        .unwrap()
}

async fn message(consumer: &mut Consumer) -> Message {
    let Some(Event::Message(message)) = consumer.next().await.unwrap() else {
        panic!("no message")
    };
    message
}

/// Each setting that an administrator made is there after a SIGKILL, and numbers of a deleted topic do not return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_administered_survives_a_kill() {
    let disk = Disk::faulty(MountOptions::default()).unwrap();
    let mut node = Node::start(&disk.data(), &NodeFlags::default()).await.unwrap();
    node.create("orders", &["ledger", "gone", "held"]).await.unwrap();
    node.create("dropped", &["ledger"]).await.unwrap();
    node.create("tried", &["ledger"]).await.unwrap();
    assert_eq!(
        post(node.http(), "/pub?topic=tried", b"again").await.unwrap().status,
        200
    );
    let mut consumer = consumer_of(&node, "tried").await;
    for attempts in 1..=2 {
        let message = message(&mut consumer).await;
        assert_eq!(message.attempts, attempts);
        consumer.req(message.id, 0).unwrap();
    }
    let third = message(&mut consumer).await;
    assert_eq!(third.attempts, 3);
    for body in ["1", "2", "3"] {
        assert_eq!(
            post(node.http(), "/pub?topic=dropped", body.as_bytes())
                .await
                .unwrap()
                .status,
            200
        );
    }
    for path in [
        "/channel/delete?topic=orders&channel=gone",
        "/channel/pause?topic=orders&channel=held",
        "/topic/pause?topic=orders",
        "/topic/delete?topic=dropped",
    ] {
        assert_eq!(post(node.http(), path, b"").await.unwrap().status, 200, "{path}");
    }
    node.kill().unwrap();
    disk.power_cut().unwrap();

    let node = Node::start(&disk.data(), &NodeFlags::default()).await.unwrap();
    let stats: serde_json::Value =
        serde_json::from_str(&get(node.http(), "/stats?format=json").await.unwrap().text).unwrap();
    let topics = stats["topics"].as_array().unwrap();
    let states: Vec<_> = topics
        .iter()
        .map(|topic| (&topic["topic_name"], &topic["paused"]))
        .collect();
    let expected = [(&"orders".into(), &true.into()), (&"tried".into(), &false.into())];
    assert_eq!(states, expected, "{stats}");
    let mut channels: Vec<(&str, bool)> = topics[0]["channels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|channel| {
            (
                channel["channel_name"].as_str().unwrap(),
                channel["paused"].as_bool().unwrap(),
            )
        })
        .collect();
    channels.sort_unstable();
    assert_eq!(channels, [("held", true), ("ledger", false)]);

    // Unlike nsqd's, counters go on.
    let tried = (&topics[1]["message_count"], &topics[1]["channels"][0]["requeue_count"]);
    assert_eq!(tried, (&1.into(), &2.into()), "{stats}");
    let again = message(&mut consumer_of(&node, "tried").await).await;
    assert_eq!((again.id, &again.body[..]), (third.id, &b"again"[..]));
    // Of the delivery that was under way nothing need be known any more.
    assert!((3..=4).contains(&again.attempts), "{}", again.attempts);

    node.create("dropped", &["ledger"]).await.unwrap();
    assert_eq!(post(node.http(), "/pub?topic=dropped", b"4").await.unwrap().status, 200);
    let message = message(&mut consumer_of(&node, "dropped").await).await;
    assert_eq!(
        (message.id.to_seq(), message.attempts, &message.body[..]),
        (Some(4), 1, &b"4"[..])
    );
    node.stop_cleanly().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use_is_refused() {
    let disk = Disk::plain().unwrap();
    let node = Node::start(&disk.data(), &NodeFlags::default()).await.unwrap();
    let refused = failure(&disk.data()).await;
    assert_eq!(refused.exit, ExitReason::Code(73), "{}", refused.log);
    assert!(refused.log.contains("in use"), "{}", refused.log);
    for command in ["verify", "repair"] {
        let output = Command::new(nsquorum_program().unwrap())
            .arg(command)
            .arg(disk.data())
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(73),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    node.until_ping(200).await.unwrap();
    node.stop_cleanly().await.unwrap();
    Node::start(&disk.data(), &NodeFlags::default())
        .await
        .unwrap()
        .stop_cleanly()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_directories_are_refused_and_left_alone() {
    let foreign: [(&[&str], &str); 2] = [
        (&["notes.txt"], "notes.txt"),
        (&["nsqd.dat", "orders.diskqueue.000000.dat"], "stock nsqd"),
    ];
    for (files, word) in foreign {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), file).unwrap();
        }
        let refused = failure(folder.path()).await;
        assert_eq!(refused.exit, ExitReason::Code(74), "{}", refused.log);
        assert!(refused.log.contains(word), "{}", refused.log);
        assert_eq!(names(folder.path()), files);
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [
        &["serve", "--no-such-flag"][..],
        &["serve", "--max-msg-size", "0"],
        &["serve", "--memory-budget", "much"],
        &["serve", "--msg-timeout", "30"],
        &["swerve"],
        &["verify"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let program = nsquorum_program().unwrap();
        let output = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {words}");
        assert!(!words.is_empty(), "{arguments:?} is refused without a word");
        assert_eq!(names(folder.path()), [""; 0], "{arguments:?} left something behind");
    }
}
