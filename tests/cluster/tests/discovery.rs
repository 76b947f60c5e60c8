//! What `/lookup` and `/nodes` say about nodes that are gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use nsquorum_cluster_tests::{Cluster, NodeEntry};
use nsquorum_node_tests::{get, post, until};
use serde_json::Value;

/// For hanging, not for slowness.
const DEADLINE: Duration = Duration::from_secs(120);

fn ports_of(nodes: &[&NodeEntry]) -> BTreeSet<u64> {
    let port = |node: &&NodeEntry| node.tcp.rsplit(':').next().unwrap().parse().unwrap();
    nodes.iter().map(port).collect()
}

/// The TCP ports of the producers in an answer.
async fn listed(node: &NodeEntry, path: &str) -> BTreeSet<u64> {
    let answer = get(&node.lookup_http, path).await.unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    let answer: Value = serde_json::from_str(&answer.text).unwrap();
    let producers = answer["producers"].as_array().unwrap().iter();
    producers
        .map(|producer| producer["tcp_port"].as_u64().unwrap())
        .collect()
}

/// Where an answer says that clients and tools find the nodes.
async fn addresses(node: &NodeEntry, path: &str) -> BTreeSet<(String, String)> {
    let answer: Value = serde_json::from_str(&get(&node.lookup_http, path).await.unwrap().text).unwrap();
    let address = |producer: &Value| {
        let host = producer["broadcast_address"].as_str().unwrap();
        ["tcp_port", "http_port"]
            .map(|port| format!("{host}:{}", producer[port]))
            .into()
    };
    answer["producers"].as_array().unwrap().iter().map(address).collect()
}

async fn until_listed(cluster: &Cluster, asked: &NodeEntry, path: &str, expected: &[&NodeEntry]) {
    let expected = ports_of(expected);
    let mut last = BTreeSet::new();
    let waited = until("the right nodes are listed", DEADLINE, async || {
        last = listed(asked, path).await;
        Ok(last == expected)
    });
    if let Err(error) = waited.await {
        panic!("{error}: {path} has {last:?}, not {expected:?}\n{}", cluster.logs());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_nodes_leave_the_lists_and_come_back() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let nodes = cluster.nodes().unwrap();
    let [first, second, third] = &nodes[..] else {
        panic!("three nodes")
    };
    let answer = post(&first.http, "/pub?topic=orders", b"one").await.unwrap();
    assert_eq!(answer.status, 200);
    let (lookup, all) = ("/lookup?topic=orders", "/nodes");
    for path in [lookup, all] {
        until_listed(&cluster, first, path, &[first, second, third]).await;
    }

    // Every lookup service spells the same addresses, and clients know a node by one name.
    let own: BTreeSet<_> = nodes.iter().map(|node| (node.tcp.clone(), node.http.clone())).collect();
    for asked in [first, second, third] {
        for path in [lookup, all] {
            until_listed(&cluster, asked, path, &[first, second, third]).await;
            assert_eq!(addresses(asked, path).await, own, "{path} of node {}", asked.id);
        }
    }

    cluster.stop_supervising().unwrap();
    cluster.kill(1).unwrap();
    for (asked, path) in [(first, lookup), (first, all), (third, lookup)] {
        until_listed(&cluster, asked, path, &[first, third]).await;
    }
    // The one that is left can deliver nothing, so consumers are not sent to it; tools still find it.
    cluster.kill(2).unwrap();
    until_listed(&cluster, first, all, &[first]).await;
    until_listed(&cluster, first, lookup, &[]).await;

    cluster.supervise().unwrap();
    for asked in [first, second, third] {
        cluster.until_back(asked.id - 1, None).await.unwrap();
        for path in [lookup, all] {
            until_listed(&cluster, asked, path, &[first, second, third]).await;
        }
    }
    cluster.stop().await.unwrap();
}
