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
    node.create("orders", &["ledger"]).await.unwrap();
    node.until_ping(200).await.unwrap();
    let publisher = producer(&node).await;
    for _ in 0..20 {
        publisher.publish(&topic(), b"before").await.unwrap();
    }
    let mut reader = consumer(&node).await;
    assert_eq!(take(&mut reader).await, 1);

    disk.faults().space(Some(32 * MIB)).unwrap();
    node.until_ping(500).await.unwrap();
    let refused = publisher.publish(&topic(), b"during").await;
    let Err(ClientError::Server(error)) = refused else {
        panic!("a publish without space: {refused:?}")
    };
    assert_eq!(error.code(), "E_PUB_FAILED", "{error}");
    let many = producer(&node).await.mpub(&topic(), &["during", "during"]).await;
    let Err(ClientError::Server(error)) = many else {
        panic!("an MPUB without space: {many:?}")
    };
    assert_eq!(error.code(), "E_MPUB_FAILED", "{error}");
    let deferred = producer(&node).await.dpub(&topic(), 1, b"during").await;
    let Err(ClientError::Server(error)) = deferred else {
        panic!("a DPUB without space: {deferred:?}")
    };
    assert_eq!(error.code(), "E_DPUB_FAILED", "{error}");
    let HttpAnswer { status, text } = post(node.http(), "/pub?topic=orders", b"during").await.unwrap();
    assert_eq!(status, 503, "{text}");
    // The consumer's connection is the one from before, and what it finishes is stored.
    for number in 2..=10 {
        assert_eq!(take(&mut reader).await, number);
    }
    until(
        "FINs are stored without space for publishes",
        NOTICE_DEADLINE,
        async || Ok(node.depth("orders", "ledger").await?.waiting <= 10),
    )
    .await
    .unwrap();

    disk.faults().space(Some(1024 * MIB)).unwrap();
    node.until_ping(200).await.unwrap();
    producer(&node).await.publish(&topic(), b"after").await.unwrap();
    let mut last = 0;
    while last < 21 {
        last = take(&mut reader).await;
    }
    assert_eq!(last, 21, "a refused publish was stored");
    until("everything is finished", NOTICE_DEADLINE, async || {
        Ok(node.depth("orders", "ledger").await?.is_empty())
    })
    .await
    .unwrap();
    node.kill().unwrap();
    disk.power_cut().unwrap();
    let report = verify(&disk.data()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let stored = report.topic("orders").unwrap().unwrap();
    assert_eq!((stored.next_seq, stored.channels[0].floor), (22, 22));
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
