//! Acceptance 7: a disk that fills up.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::time::Duration;

use nsquorum_client::{ClientError, Connection, Consumer, Event, IdentifyOptions, Producer};
use nsquorum_faults::MountOptions;
use nsquorum_node_tests::{
    Campaign, Disk, Ending, ExitReason, HttpAnswer, Load, Node, NodeFlags, count, post, seed, until, verify,
};
use nsquorum_protocol::TopicName;

const MIB: u64 = 1 << 20;
/// The node looks at the free space from time to time.
const NOTICE_DEADLINE: Duration = Duration::from_secs(60);

fn topic() -> TopicName {
    "orders".parse().unwrap()
}

async fn producer(node: &Node) -> Producer {
    Connection::connect(node.tcp(), IdentifyOptions::default())
        .await
        .unwrap()
        .into_producer()
}

async fn consumer(node: &Node) -> Consumer {
    let connection = Connection::connect(node.tcp(), IdentifyOptions::default())
        .await
        .unwrap();
    connection
        .subscribe(&topic(), &"ledger".parse().unwrap(), 1)
        .await
        .unwrap()
}

/// The next message, finished.
async fn take(consumer: &mut Consumer) -> u64 {
    let Some(Event::Message(message)) = consumer.next().await.unwrap() else {
        panic!("no message")
    };
    consumer.fin(message.id).unwrap();
    message.id.to_seq().unwrap()
}

async fn refusal(result: Result<(), ClientError>) -> String {
    match result {
        Err(ClientError::Server(error)) => error.code().to_owned(),
        other => panic!("a publish without space: {other:?}"),
    }
}

/// FINs have no answer. Once the node counts them, an answer to something later says that they are on disk.
async fn store_fins(node: &Node, unfinished: i64) {
    until("the FINs have arrived", NOTICE_DEADLINE, async || {
        let depth = node.depth("orders", "ledger").await?;
        Ok(depth.waiting + depth.in_flight == unfinished)
    })
    .await
    .unwrap();
    for change in ["pause", "unpause"] {
        let path = format!("/channel/{change}?topic=orders&channel=archive");
        assert_eq!(post(node.http(), &path, b"").await.unwrap().status, 200);
    }
}

fn floor(disk: &Disk) -> (u64, u64) {
    let report = verify(&disk.data()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let stored = report.topic("orders").unwrap().unwrap();
    let ledger = stored.channels.iter().find(|channel| channel.name == "ledger").unwrap();
    (stored.next_seq, ledger.floor)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_watermark_publishes_are_refused_and_deliveries_go_on() {
    let disk = Disk::faulty(MountOptions::default()).unwrap();
    disk.faults().space(Some(1024 * MIB)).unwrap();
    let flags = NodeFlags::new(&[
        "--disk-refuse-publishes-below",
        "64MiB",
        "--disk-refuse-all-below",
        "8MiB",
    ]);
    let mut node = Node::start(&disk.data(), &flags).await.unwrap();
    node.create("orders", &["ledger", "archive"]).await.unwrap();
    node.until_ping(200).await.unwrap();
    let publisher = producer(&node).await;
    for _ in 0..20 {
        publisher.publish(&topic(), b"before").await.unwrap();
    }
    let mut reader = consumer(&node).await;
    assert_eq!(take(&mut reader).await, 1);

    disk.faults().space(Some(32 * MIB)).unwrap();
    node.until_ping(500).await.unwrap();
    assert_eq!(
        refusal(publisher.publish(&topic(), b"during").await).await,
        "E_PUB_FAILED"
    );
    let many = producer(&node).await.mpub(&topic(), &["during", "during"]).await;
    assert_eq!(refusal(many).await, "E_MPUB_FAILED");
    let deferred = producer(&node).await.dpub(&topic(), 1, b"during").await;
    assert_eq!(refusal(deferred).await, "E_DPUB_FAILED");
    let HttpAnswer { status, text } = post(node.http(), "/pub?topic=orders", b"during").await.unwrap();
    assert_eq!(status, 503, "{text}");
    // The consumer's connection is the one from before.
    for number in 2..=10 {
        assert_eq!(take(&mut reader).await, number);
    }
    store_fins(&node, 10).await;
    node.kill().unwrap();
    disk.power_cut().unwrap();
    assert_eq!(floor(&disk), (21, 11), "what was finished without space for publishes");

    // A start needs no more space than there is, and publishing returns without another one.
    disk.faults().space(Some(32 * MIB)).unwrap();
    let mut node = Node::start(&disk.data(), &flags).await.unwrap();
    node.until_ping(500).await.unwrap();
    let mut reader = consumer(&node).await;
    assert_eq!(take(&mut reader).await, 11);
    disk.faults().space(Some(1024 * MIB)).unwrap();
    node.until_ping(200).await.unwrap();
    producer(&node).await.publish(&topic(), b"after").await.unwrap();
    for number in 12..=21 {
        assert_eq!(
            take(&mut reader).await,
            number,
            "a refused publish was stored, or a good one was not"
        );
    }
    store_fins(&node, 0).await;
    node.kill().unwrap();
    disk.power_cut().unwrap();
    assert_eq!(floor(&disk), (22, 22));
}

/// Without watermarks the disk runs full to the last byte: the node ends, and with space it has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_node_and_loses_nothing() {
    let seed = seed();
    println!("NSQUORUM_SEED={seed}");
    let disk = Disk::faulty(MountOptions {
        seed,
        ..MountOptions::default()
    })
    .unwrap();
    let flags = [
        "--disk-refuse-publishes-below",
        "0",
        "--disk-refuse-all-below",
        "0",
        "--memory-budget",
        "32MiB",
    ];
    let mut campaign = Campaign::begin(disk, NodeFlags::new(&flags), seed).await.unwrap();
    for round in 0..count("NSQUORUM_FULL_DISKS", 3) {
        let free = 4 * MIB + campaign.below(12 * MIB);
        let end = campaign
            .live(&Load::mixed(100), &Ending::FullDisk { free })
            .await
            .unwrap();
        println!(
            "round {round}: {free} bytes free, {:?}, {} answered OK so far",
            end.exit, end.oks
        );
        assert_eq!(end.exit, ExitReason::Code(71), "{}", end.log);
        assert!(end.report.is_clean(), "{:?}", end.report.findings);
    }
    let violations = campaign.verdict().await.unwrap();
    assert!(violations.is_empty(), "NSQUORUM_SEED={seed} {violations:#?}");
}
