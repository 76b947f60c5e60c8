//! Three brokers over links and stores in memory: any node takes any request, and a leader's death is a pause.

mod cluster;

use std::time::Duration;

use cluster::{NODES, TestCluster, within};
use nsquorum_broker::{AdminAction, AdminError, PublishError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_publishes_and_delivers() {
    let cluster = TestCluster::start().await;
    let mut consumers = Vec::new();
    for node in NODES {
        consumers.push(cluster.subscribe(node, "ledger", 10).await);
    }
    let mut sent = Vec::new();
    for round in 0..5 {
        for node in NODES {
            let body = format!("{round} through {node}");
            cluster.publish(node, &[&body]).await.expect("stored");
            sent.push(body);
        }
    }
    let mut seen = Vec::new();
    while seen.len() < sent.len() {
        for consumer in &mut consumers {
            while let Some(delivery) = consumer.receive_within(Duration::from_millis(20)).await {
                assert_eq!(delivery.token.attempts.get(), 1);
                seen.push(String::from_utf8(delivery.body.to_vec()).expect("text"));
                consumer.finish(&delivery);
            }
        }
    }
    seen.sort();
    sent.sort();
    assert_eq!(seen, sent);
    cluster
        .wait_for_stats(|stats| {
            stats.channels.first().is_some_and(|channel| {
                channel.depth == 0 && channel.in_flight_count == 0 && channel.message_count == 15
            })
        })
        .await;
    let mut consumer_counts = Vec::new();
    for node in NODES {
        let stats = cluster.stats(node).await;
        consumer_counts.push(stats.channels[0].consumer_count);
        let clients: Vec<u64> = stats.channels[0]
            .clients
            .iter()
            .map(|client| client.ready_count.into())
            .collect();
        assert_eq!(clients, [10], "each client is shown by its own node");
    }
    consumer_counts.sort_unstable();
    assert_eq!(consumer_counts, [0, 0, 3], "the leader counts them all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_publishes_to_one_channel() {
    let cluster = TestCluster::start().await;
    let mut ledger = cluster.subscribe(NODES[0], "ledger", 10).await;
    let mut archive = cluster.subscribe(NODES[1], "archive", 10).await;
    for node in NODES {
        let refused = cluster.publish_to(node, "missing", "x").await;
        assert_eq!(refused, Err(PublishError::ChannelNotFound));
        cluster.publish_to(node, "ledger", "for ledger").await.expect("stored");
        cluster.publish(node, &["for both"]).await.expect("stored");
    }
    for (consumer, expected) in [
        (&mut ledger, &["for ledger", "for both"].repeat(3)),
        (&mut archive, &["for both"].repeat(3)),
    ] {
        for body in expected {
            let delivery = within(consumer.receive()).await;
            assert_eq!(delivery.body, body.as_bytes());
            consumer.finish(&delivery);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_administers() {
    let cluster = TestCluster::start().await;
    for (node, name) in NODES.into_iter().zip(["a", "b", "c"]) {
        let channel = cluster::name(name);
        cluster
            .administer(node, AdminAction::CreateChannel(channel.clone()))
            .await
            .expect("created");
        cluster
            .administer(node, AdminAction::PauseChannel(channel))
            .await
            .expect("paused");
    }
    for node in NODES {
        let names: Vec<String> = cluster
            .channels(node)
            .await
            .iter()
            .map(|name| name.as_str().to_owned())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
        let missing = AdminAction::DeleteChannel(cluster::name("missing"));
        assert_eq!(
            cluster.administer(node, missing).await,
            Err(AdminError::ChannelNotFound)
        );
    }
    for node in NODES {
        let stats = cluster.stats(node).await;
        assert!(stats.channels.iter().all(|channel| channel.paused));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaders_death_is_a_pause() {
    let mut cluster = TestCluster::start().await;
    cluster.publish(NODES[0], &["held"]).await.expect("stored");
    let leader = cluster.leader().await;
    let survivors: Vec<_> = NODES.into_iter().filter(|node| *node != leader).collect();
    let mut consumer = cluster.subscribe(survivors[0], "ledger", 10).await;
    let held = within(consumer.receive()).await;

    let publishing: Vec<_> = (0..50)
        .map(|i| cluster.start_publish(survivors[usize::from(i % 2 == 0)], &[&format!("{i:02}")]))
        .collect();
    cluster.kill(leader);
    for ticket in publishing {
        within(ticket).await.expect("a leader's death is no error");
    }

    let mut seen = Vec::new();
    while seen.len() < 50 {
        let delivery = within(consumer.receive()).await;
        assert_ne!(delivery.token.seq, held.token.seq, "a message that is still held");
        seen.push(String::from_utf8(delivery.body.to_vec()).expect("text"));
        consumer.finish(&delivery);
    }
    // Each once, and those of one connection in their order.
    let even: Vec<&String> = seen
        .iter()
        .filter(|body| body.as_bytes()[1].is_multiple_of(2))
        .collect();
    assert!(even.is_sorted(), "{even:?}");
    assert_eq!(even.len(), 25);
    consumer.finish(&held);
    cluster
        .wait_for_stats(|stats| {
            stats.message_count == 51
                && stats
                    .channels
                    .first()
                    .is_some_and(|channel| channel.depth == 0 && channel.in_flight_count == 0)
        })
        .await;
}

/// What one click makes a tool ask of every node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_of_every_node_is_done_once() {
    let cluster = TestCluster::start().await;
    let channel = cluster::name("ledger");
    let depth = |depth: u64| {
        move |stats: &nsquorum_broker::TopicStats| stats.channels.first().map(|of| of.depth) == Some(depth)
    };
    cluster
        .administer(NODES[0], AdminAction::CreateChannel(channel.clone()))
        .await
        .expect("created");
    cluster.publish(NODES[0], &["before the click"]).await.expect("stored");
    cluster.wait_for_stats(depth(1)).await;
    for (posted, node) in NODES.into_iter().enumerate() {
        cluster
            .administer(node, AdminAction::EmptyChannel(channel.clone()))
            .await
            .expect("200");
        cluster.wait_for_stats(depth(posted as u64)).await;
        cluster.publish(node, &["after the click"]).await.expect("stored");
        cluster.wait_for_stats(depth(posted as u64 + 1)).await;
    }
    // The same node means it.
    cluster
        .administer(NODES[0], AdminAction::EmptyChannel(channel.clone()))
        .await
        .expect("200");
    cluster.wait_for_stats(depth(0)).await;

    cluster.publish(NODES[0], &["before the click"]).await.expect("stored");
    cluster
        .administer(NODES[0], AdminAction::DeleteChannel(channel.clone()))
        .await
        .expect("200");
    cluster
        .administer(NODES[1], AdminAction::DeleteChannel(channel.clone()))
        .await
        .expect("200, and not 404");
    cluster
        .administer(NODES[1], AdminAction::CreateChannel(channel.clone()))
        .await
        .expect("created");
    cluster.publish(NODES[0], &["after the click"]).await.expect("stored");
    cluster
        .administer(NODES[2], AdminAction::DeleteChannel(channel))
        .await
        .expect("200");
    cluster.wait_for_stats(depth(1)).await;

    // The topic is used again while the click is still being carried out.
    for (posted, node) in NODES.into_iter().enumerate() {
        cluster.administer(node, AdminAction::DeleteTopic).await.expect("200");
        cluster.create_topic(node).await.expect("created");
        cluster.publish(node, &["after the click"]).await.expect("stored");
        cluster
            .wait_for_stats(|stats| stats.message_count == posted as u64 + 1)
            .await;
    }
    let again = cluster.administer(NODES[0], AdminAction::DeleteTopic).await;
    assert_eq!(
        (again, cluster.has_topic(NODES[0])),
        (Ok(()), false),
        "the same node means it"
    );
    assert_eq!(
        cluster.administer(NODES[0], AdminAction::DeleteTopic).await,
        Err(AdminError::TopicNotFound)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_not_deleted_through_a_node_that_is_tombstoned_for_it() {
    let cluster = TestCluster::start().await;
    cluster.publish(NODES[0], &["kept"]).await.expect("stored");
    // Whichever node replicates last what the first has decided: the one that is asked to delete knows it.
    for (through, node) in [(0, 1), (1, 2), (2, 0)] {
        cluster
            .tombstone(NODES[through], NODES[node], Duration::from_secs(3600))
            .await;
        cluster
            .administer(NODES[node], AdminAction::DeleteTopic)
            .await
            .expect("200");
        cluster.wait_for_stats(|stats| stats.message_count == 1).await;
    }
    let over = TestCluster::start().await;
    over.tombstone(NODES[0], NODES[1], Duration::ZERO).await;
    over.administer(NODES[1], AdminAction::DeleteTopic).await.expect("200");
    assert!(!over.has_topic(NODES[1]), "a tombstone ends with its time");
}
