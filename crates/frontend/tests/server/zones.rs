use nsquorum_broker::Topology;
use serde_json::Value;

use crate::http::request;
use crate::node::{Client, Settings, TestNode, ok};

async fn stats(node: &TestNode) -> Value {
    let answer = request(node, "GET", "/stats?format=json", b"").await;
    serde_json::from_str(&answer.body).expect("JSON")
}

async fn consumer(node: &TestNode, place: &str, ready: u32) -> Client {
    let mut client = Client::open(node).await;
    client.identify(&format!("{{\"client_id\":\"c\",{place}}}")).await;
    client.send(format!("SUB t c\nRDY {ready}\n").as_bytes()).await;
    assert_eq!(client.frame().await, Some(ok()));
    client
}

/// Until the leader knows the ready counts of all consumers.
async fn until_ready(node: &TestNode, ready: u64) {
    loop {
        let stats = stats(node).await;
        let clients = stats["topics"][0]["channels"][0]["clients"]
            .as_array()
            .expect("clients");
        if clients
            .iter()
            .map(|client| client["ready_count"].as_u64().expect("a count"))
            .sum::<u64>()
            == ready
        {
            return;
        }
    }
}

fn counts(of: &Value) -> [Option<u64>; 3] {
    ["zone_local_msg_count", "region_local_msg_count", "global_msg_count"].map(|key| of[key].as_u64())
}

#[tokio::test]
async fn consumers_of_the_zone_come_before_those_of_the_region_and_those_before_others() {
    let node = TestNode::with(Settings {
        topology: Some(Topology {
            zone: "z".to_owned(),
            region: "r".to_owned(),
        }),
        ..Settings::default()
    })
    .await;
    let mut far = consumer(&node, r#""topology_zone":"y","topology_region":"q""#, 10).await;
    let mut region = consumer(&node, r#""topology_zone":"y","topology_region":"r""#, 1).await;
    let mut near = consumer(&node, r#""topology_zone":"z","topology_region":"r""#, 2).await;
    until_ready(&node, 13).await;
    let mut producer = Client::open(&node).await;
    for _ in 0..4 {
        producer.publish(b"x").await;
    }
    assert_eq!(near.message().await.0, 1);
    assert_eq!(near.message().await.0, 2);
    assert_eq!(region.message().await.0, 3);
    assert_eq!(far.message().await.0, 4);
    // Whoever is near and has room again goes first again.
    near.send(b"FIN 0000000000000002\n").await;
    while stats(&node).await["topics"][0]["channels"][0]["in_flight_count"] != 3 {}
    producer.publish(b"x").await;
    assert_eq!(near.message().await.0, 5);
    let stats = stats(&node).await;
    let channel = &stats["topics"][0]["channels"][0];
    assert_eq!(counts(channel), [Some(3), Some(1), Some(1)]);
    let mut of_clients: Vec<_> = channel["clients"]
        .as_array()
        .expect("clients")
        .iter()
        .map(counts)
        .collect();
    of_clients.sort_unstable();
    assert_eq!(
        of_clients,
        [[None, None, Some(1)], [None, Some(1), None], [Some(3), None, None]]
    );
}

#[tokio::test]
async fn without_the_experiment_zones_mean_nothing() {
    let node = TestNode::start().await;
    let mut first = consumer(&node, r#""topology_zone":"y""#, 10).await;
    let mut second = consumer(&node, r#""topology_zone":"""#, 10).await;
    until_ready(&node, 20).await;
    let mut producer = Client::open(&node).await;
    for _ in 0..2 {
        producer.publish(b"x").await;
    }
    let mut seen = [first.message().await.0, second.message().await.0];
    seen.sort_unstable();
    assert_eq!(seen, [1, 2], "they take turns");
    let stats = stats(&node).await;
    let channel = &stats["topics"][0]["channels"][0];
    assert_eq!(
        (counts(channel), counts(&channel["clients"][0])),
        ([None; 3], [None; 3])
    );
}
