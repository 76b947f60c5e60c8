//! `nsquorum status` says what is so.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use nsquorum_cluster_tests::Cluster;
use nsquorum_node_tests::{get, post, until};
use serde_json::Value;

/// For hanging, not for slowness.
const DEADLINE: Duration = Duration::from_secs(120);
const TOPICS: [&str; 3] = ["orders", "bills", "ledger"];

/// Asks a node until its answer has this exit code and satisfies a condition.
async fn until_status(cluster: &Cluster, address: &str, code: i32, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = (0, String::new());
    let mut found = Value::Null;
    let waited = until("the status is as expected", DEADLINE, async || {
        last = cluster.status(&["--json", "--http-address", address])?;
        if last.0 != code {
            return Ok(false);
        }
        found = serde_json::from_str(&last.1)?;
        Ok(holds(&found))
    });
    if let Err(error) = waited.await {
        panic!("{error}; wanted exit code {code}, last: {last:?}\n{}", cluster.logs());
    }
    found
}

fn topics(status: &Value) -> &Vec<Value> {
    status["topics"].as_array().unwrap()
}

/// The node with this HTTP address.
fn node<'a>(status: &'a Value, http: &str) -> &'a Value {
    let port: u64 = http.rsplit(':').next().unwrap().parse().unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["http_port"] == port).unwrap()
}

fn all_led(status: &Value) -> bool {
    topics(status).len() == TOPICS.len() && topics(status).iter().all(|topic| topic["leader"].is_u64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_dead_nodes_and_missing_replicas_are_shown_and_all_is_well_again_afterwards() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let nodes = cluster.nodes().unwrap();
    let asked = nodes[0].http.clone();
    for topic in TOPICS {
        let answer = post(&nodes[1].http, &format!("/pub?topic={topic}"), b"one")
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
    }

    let well = until_status(&cluster, &asked, 0, all_led).await;
    assert_eq!((&well["state"], &well["replication_factor"]), (&"ok".into(), &3.into()));
    assert_eq!(well["problems"], serde_json::json!([]));
    let ids: BTreeSet<u64> = nodes
        .iter()
        .map(|entry| node(&well, &entry.http)["id"].as_u64().unwrap())
        .collect();
    for topic in topics(&well) {
        assert!(ids.contains(&topic["leader"].as_u64().unwrap()));
        assert_eq!(
            (&topic["in_sync"], &topic["under_replicated"]),
            (&3.into(), &false.into())
        );
    }
    let leads = |status: &Value| -> u64 {
        let nodes = status["nodes"].as_array().unwrap().iter();
        nodes.map(|node| node["leads"].as_u64().unwrap()).sum()
    };
    assert_eq!(leads(&well), 4, "three topics and the metadata");
    for entry in &nodes {
        // Leaderships that settle after the start may differ for a moment, but not for long.
        let same = |status: &Value| all_led(status) && status["asked"]["node"] == node(status, &entry.http)["id"];
        until_status(&cluster, &entry.http, 0, same).await;
    }
    let dir = cluster.dir().to_str().unwrap().to_owned();
    let (code, page) = cluster.status(&["--dir", &dir]).unwrap();
    println!("{page}");
    assert_eq!(code, 0);
    assert!(TOPICS.iter().all(|topic| page.contains(topic)) && page.starts_with("OK"));
    let stats = get(&asked, "/stats?format=json&topic=orders").await.unwrap();
    let stats: Value = serde_json::from_str(&stats.text).unwrap();
    let replication = |key: &str| stats["topics"][0][key].as_u64();
    assert_eq!(
        (replication("replication_factor"), replication("in_sync_replicas")),
        (Some(3), Some(3))
    );

    // Each topic's numbers are shown by the node that leads it, and by no other.
    let mut lines = Vec::new();
    for entry in &nodes {
        let metrics = get(&entry.http, "/metrics").await.unwrap().text;
        let of_topics = metrics
            .lines()
            .filter(|line| line.starts_with("nsquorum_topic_messages_total{"));
        lines.extend(of_topics.map(str::to_owned));
    }
    lines.sort();
    let line = |topic| format!("nsquorum_topic_messages_total{{topic=\"{topic}\"}} 1");
    assert_eq!(lines, ["bills", "ledger", "orders"].map(line));

    // One of three dead: everything goes on, elsewhere, with a replica less.
    let victim = node(&well, &nodes[1].http)["id"].clone();
    cluster.stop_supervising().unwrap();
    cluster.kill(1).unwrap();
    let two_left = |status: &Value| {
        let short = |topic: &Value| topic["in_sync"] == 2 && topic["under_replicated"] == true;
        let elsewhere = |topic: &Value| topic["leader"] != victim;
        all_led(status) && topics(status).iter().all(|topic| short(topic) && elsewhere(topic))
    };
    let degraded = until_status(&cluster, &asked, 3, two_left).await;
    let dead = node(&degraded, &nodes[1].http);
    assert_eq!((&dead["alive"], &dead["state"]), (&false.into(), &"down".into()));
    assert_eq!(degraded["state"], "degraded");
    println!("{}", degraded["problems"]);
    assert!(degraded["problems"][0].as_str().unwrap().contains(&victim.to_string()));
    let (code, page) = cluster.status(&["--http-address", &asked]).unwrap();
    println!("{page}");
    assert!(code == 3 && page.starts_with("DEGRADED"));
    let metrics = get(&nodes[2].http, "/metrics").await.unwrap().text;
    assert!(metrics.contains("nsquorum_replication_factor 3"));

    // Two of three dead: nothing works, and the one that is left says so.
    cluster.kill(2).unwrap();
    let nobody = |status: &Value| topics(status).iter().all(|topic| topic["leader"].is_null());
    let gone = until_status(&cluster, &asked, 4, nobody).await;
    assert_eq!(gone["state"], "unavailable");

    cluster.supervise().unwrap();
    let again = until_status(&cluster, &asked, 0, all_led).await;
    let start = |status: &Value| node(status, &nodes[1].http)["incarnation"].as_u64();
    assert_eq!(start(&again), start(&well).map(|start| start + 1));
    cluster.stop().await.unwrap();
    let (code, text) = cluster.status(&["--http-address", &asked]).unwrap();
    assert_eq!(code, 1, "{text}");
}
