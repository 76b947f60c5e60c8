//! Acceptance 7: memory stays bounded, whatever waits.
//!
//! Bounds are far above what is measured: they catch a queue that grows with the load, not a few megabytes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nsquorum_client::{Connection, Event, IdentifyOptions, Producer};
use nsquorum_faults::{Action, Call, Fault, MountOptions};
use nsquorum_node_tests::{Disk, Node, NodeFlags, count, until};
use nsquorum_protocol::TopicName;
use tokio::task::JoinSet;

const MIB: u64 = 1 << 20;
/// What a node may take beyond its memory budget: code, stacks, sockets, the allocator's slack.
const BEYOND_THE_BUDGET: u64 = 150 * MIB;

fn topic() -> TopicName {
    "orders".parse().unwrap()
}

async fn producer(node: &Node) -> Producer {
    Connection::connect(node.tcp(), IdentifyOptions::default())
        .await
        .unwrap()
        .into_producer()
}

fn mib(bytes: u64) -> u64 {
    bytes / MIB
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_node_is_small() {
    let disk = Disk::plain().unwrap();
    let node = Node::start(&disk.data(), &NodeFlags::default()).await.unwrap();
    node.until_ping(200).await.unwrap();
    let (fresh, _) = node.resident().unwrap();
    node.create("orders", &["ledger"]).await.unwrap();
    producer(&node).await.publish(&topic(), b"one").await.unwrap();
    let (used, peak) = node.resident().unwrap();
    println!(
        "figure: idle RSS {} MiB, with a topic and a message {} MiB, peak {} MiB",
        mib(fresh),
        mib(used),
        mib(peak)
    );
    assert!(fresh <= 60_000_000, "idle RSS is {fresh} bytes");
    node.stop_cleanly().await.unwrap();
}

/// Sixteen connections push what they can at a disk that takes 20 ms for a sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_faster_than_the_disk_are_slowed_down() {
    const CONNECTIONS: usize = 16;
    const BODY_BYTES: usize = 64 << 10;
    let total = count("NSQUORUM_SLOW_DISK_MIB", 192) * MIB;
    let disk = Disk::faulty(MountOptions::default()).unwrap();
    let flags = NodeFlags::new(&["--memory-budget", "64MiB", "--publish-timeout", "5m"]);
    let node = Node::start(&disk.data(), &flags).await.unwrap();
    node.create("orders", &["ledger"]).await.unwrap();
    let slow = Fault::every(Call::Fsync, Action::DelayMs(20));
    disk.faults().fail(slow).unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (producer, answered) = (producer(&node).await, Arc::clone(&answered));
        clients.spawn(async move {
            let body = vec![7; BODY_BYTES];
            let mut waiting = VecDeque::new();
            // The client itself holds 16 MiB of unanswered publishes, then it waits.
            while answered.load(SeqCst) < total {
                waiting.push_back(producer.publish_async(&topic(), &body).await.unwrap());
                while waiting.len() >= 256 {
                    waiting.pop_front().unwrap().await.unwrap();
                    answered.fetch_add(BODY_BYTES as u64, SeqCst);
                }
            }
            for ack in waiting {
                ack.await.unwrap();
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let seconds = started.elapsed().as_secs_f64();
    let (_, peak) = node.resident().unwrap();
    println!(
        "figure: {CONNECTIONS} producers with 16 MiB in flight each on a disk with 20 ms a sync: {} MiB answered in \
         {seconds:.1} s, peak RSS {} MiB with a budget of 64 MiB",
        mib(total),
        mib(peak)
    );
    assert!(peak <= 64 * MIB + BEYOND_THE_BUDGET, "peak RSS is {} MiB", mib(peak));
    node.stop_cleanly().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_on_disk_and_not_in_memory() {
    const BATCH: u64 = 200;
    let backlog = count("NSQUORUM_BACKLOG", 50_000).next_multiple_of(BATCH);
    let budget = 64 * MIB;
    let disk = Disk::plain().unwrap();
    let flags = NodeFlags::new(&["--memory-budget", "64MiB"]);
    let node = Node::start(&disk.data(), &flags).await.unwrap();
    node.create("orders", &["ledger"]).await.unwrap();
    let producer = producer(&node).await;
    let started = Instant::now();
    let bodies = vec![[7; 1000]; BATCH as usize];
    let mut waiting = VecDeque::new();
    for _ in 0..backlog / BATCH {
        waiting.push_back(producer.mpub_async(&topic(), &bodies).await.unwrap());
        if waiting.len() >= 16 {
            waiting.pop_front().unwrap().await.unwrap();
        }
    }
    for ack in waiting {
        ack.await.unwrap();
    }
    let filled = started.elapsed();
    let (resident, peak) = node.resident().unwrap();
    println!(
        "figure: a backlog of {backlog} messages of 1000 bytes, published in {:.1} s: RSS {} MiB, peak {} MiB with a \
         budget of {} MiB",
        filled.as_secs_f64(),
        mib(resident),
        mib(peak),
        mib(budget)
    );
    assert!(peak <= budget + BEYOND_THE_BUDGET, "peak RSS is {} MiB", mib(peak));

    // And it stays so while the backlog is read, by a consumer that finishes in batches.
    let started = Instant::now();
    let connection = Connection::connect(node.tcp(), IdentifyOptions::default())
        .await
        .unwrap();
    let mut consumer = connection
        .subscribe(&topic(), &"ledger".parse().unwrap(), 2500)
        .await
        .unwrap();
    let mut taken = 0;
    let mut events = Vec::new();
    while taken < backlog {
        assert!(consumer.next_many(&mut events).await.unwrap());
        for event in events.drain(..) {
            let Event::Message(message) = event else {
                panic!("{event:?}")
            };
            taken += 1;
            assert_eq!(
                (message.id.to_seq(), message.attempts, message.body.len()),
                (Some(taken), 1, 1000)
            );
            consumer.fin(message.id).unwrap();
        }
    }
    let drained = started.elapsed();
    until("everything is finished", Duration::from_secs(60), async || {
        Ok(node.depth("orders", "ledger").await?.is_empty())
    })
    .await
    .unwrap();
    let (resident, peak) = node.resident().unwrap();
    println!(
        "figure: the backlog was delivered in {:.1} s: RSS {} MiB, peak {} MiB",
        drained.as_secs_f64(),
        mib(resident),
        mib(peak)
    );
    assert!(peak <= budget + BEYOND_THE_BUDGET, "peak RSS is {} MiB", mib(peak));
    node.stop_cleanly().await.unwrap();
}
