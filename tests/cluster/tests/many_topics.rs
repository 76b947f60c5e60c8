//! Acceptance 9 of "Three replicas": what many topics cost, created by their first use.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::time::{Duration, Instant};

use nsquorum_client::{Connection, IdentifyOptions, Producer};
use nsquorum_cluster_tests::{Replica, Trio};
use nsquorum_node_tests::{Disk, count, get, until};
use nsquorum_protocol::TopicName;

const DEADLINE: Duration = Duration::from_secs(120);
/// How long idle nodes are watched.
const WATCHED: Duration = Duration::from_secs(10);
/// Clock ticks per second of /proc: a constant of Linux's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Resident memory in MiB.
fn resident(node: &Replica) -> f64 {
    let process = node.process().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
    kib / 1024.0
}

/// Processor time so far, in seconds.
fn processor(node: &Replica) -> f64 {
    let process = node.process().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / TICKS_PER_SECOND
}

async fn producer(node: &Replica) -> Producer {
    let address = node.place().tcp();
    let connection = Connection::connect(&address, IdentifyOptions::default()).await;
    connection.unwrap().into_producer()
}

fn figures(what: &str, values: &[f64]) {
    let values: Vec<String> = values.iter().map(|value| format!("{value:.1}")).collect();
    println!("figure: {what}: {}", values.join(", "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_are_made_by_use_are_there_and_their_cost_is_stated() {
    let topics = usize::try_from(count("NSQUORUM_TOPICS", 30)).unwrap();
    let places = Trio::local_places().unwrap();
    let mut trio = Trio::found(places, Disk::plain, &[]).await.unwrap();
    let before: Vec<f64> = trio.nodes.iter().map(resident).collect();
    figures("MiB resident per node without topics", &before);
    let names: Vec<TopicName> = (0..topics)
        .map(|number| format!("topic-{number}").parse().unwrap())
        .collect();

    let began = Instant::now();
    let mut producers = Vec::new();
    for node in &trio.nodes {
        producers.push(producer(node).await);
    }
    let mut waits = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let first = Instant::now();
        let published = tokio::time::timeout(DEADLINE, producers[number % 3].publish(name, b"first")).await;
        published.expect("an answer").expect("OK");
        waits.push(first.elapsed().as_secs_f64() * 1000.0);
    }
    let took = began.elapsed();
    waits.sort_by(f64::total_cmp);
    println!(
        "figure: {topics} topics by first use, one after the other: {:.2} s; a first publish took {:.1} ms in the middle, {:.1} ms at most",
        took.as_secs_f64(),
        waits[topics / 2],
        waits[topics - 1]
    );
    let addresses: Vec<String> = trio.nodes.iter().map(|node| node.place().http()).collect();
    until(
        "every node has every topic, and one of them its message",
        DEADLINE,
        async || {
            let mut messages = 0;
            for address in &addresses {
                let stats = get(address, "/stats?format=json&include_clients=false").await?;
                let stats: serde_json::Value = serde_json::from_str(&stats.text)?;
                let known = stats["topics"].as_array().cloned().unwrap_or_default();
                if known.len() != topics {
                    return Ok(false);
                }
                messages += known.iter().filter(|topic| topic["message_count"] == 1).count();
            }
            Ok(messages == topics)
        },
    )
    .await
    .unwrap();
    figures(
        "MiB resident per node with all topics",
        &trio.nodes.iter().map(resident).collect::<Vec<_>>(),
    );
    // Elections, claims and barriers are over when the figures do not change any more; what is left is what idling costs.
    tokio::time::sleep(WATCHED / 2).await;
    let before: Vec<f64> = trio.nodes.iter().map(processor).collect();
    tokio::time::sleep(WATCHED).await;
    let after = trio.nodes.iter().map(processor);
    let percent = |(before, after): (f64, f64)| (after - before) / WATCHED.as_secs_f64() * 100.0;
    let idle: Vec<f64> = before.into_iter().zip(after).map(percent).collect();
    figures("percent of a core per idle node with all topics", &idle);

    let began = Instant::now();
    trio.kill_all().unwrap();
    trio.start_all().unwrap();
    trio.until_serving().await.unwrap();
    println!(
        "figure: all nodes killed and serving again: {:.2} s",
        began.elapsed().as_secs_f64()
    );
    let producer = producer(&trio.nodes[0]).await;
    for name in &names {
        let published = tokio::time::timeout(DEADLINE, producer.publish(name, b"second")).await;
        published.expect("an answer").expect("OK");
    }
    println!(
        "figure: and every topic has taken a publish: {:.2} s",
        began.elapsed().as_secs_f64()
    );
    figures(
        "MiB resident per node after that",
        &trio.nodes.iter().map(resident).collect::<Vec<_>>(),
    );
    trio.stop_all().await.unwrap();
    trio.verify().unwrap();
}
