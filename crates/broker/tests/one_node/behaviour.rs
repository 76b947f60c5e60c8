//! What a node promises while nothing goes wrong, and over a clean restart.

use std::sync::Arc;
use std::time::Duration;

use nsquorum_broker::{AdminAction, AdminError, PublishError, SubscribeError, SubscriptionEvent};
use nsquorum_protocol::TopicName;
use nsquorum_storage::{Durability, MemoryStore, SpaceState};
use nsquorum_topic::Seq;

use crate::harness::{Node, PATIENCE, message, name, options, topic, within};

fn store() -> MemoryStore {
    MemoryStore::new(Durability::Immediate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_reach_every_channel_once_and_in_order() {
    let node = Node::start(&store(), 1).await;
    let mut ledger = node.subscribe("ledger", 10).await;
    let mut archive = node.subscribe("archive", 10).await;
    node.publish(&["a"]).await;
    node.publish(&["b", "c"]).await;
    let expected = vec![(1, 1, "a".to_owned()), (2, 1, "b".to_owned()), (3, 1, "c".to_owned())];
    assert_eq!(ledger.take(3).await, expected);
    assert_eq!(archive.take(3).await, expected);
    let stats = node
        .wait_for_stats(|stats| stats.channels.iter().all(|c| c.in_flight_count == 0))
        .await;
    assert!(
        stats
            .channels
            .iter()
            .all(|channel| channel.depth == 0 && channel.message_count == 3),
        "{stats:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_for_one_channel_reach_no_other() {
    let store = store();
    let node = Node::start(&store, 1).await;
    let mut ledger = node.subscribe("ledger", 10).await;
    let mut archive = node.subscribe("archive", 10).await;
    // It has read nothing when the messages come.
    let mut lags = node.subscribe("lags", 0).await;
    let mut sleeps = node.subscribe("sleeps", 0).await;
    node.publish(&["a"]).await;
    node.publish_to("ledger", &["b", "c"]).await.expect("published");
    node.publish_to("archive", &["d"]).await.expect("published");
    node.publish(&["e"]).await;
    let seen = |seqs: &[(u64, &str)]| -> Vec<(u64, u16, String)> {
        seqs.iter().map(|(seq, body)| (*seq, 1, (*body).to_owned())).collect()
    };
    assert_eq!(ledger.take(4).await, seen(&[(1, "a"), (2, "b"), (3, "c"), (5, "e")]));
    assert_eq!(archive.take(3).await, seen(&[(1, "a"), (4, "d"), (5, "e")]));
    lags.subscription.handle.ready(10);
    assert_eq!(lags.take(2).await, seen(&[(1, "a"), (5, "e")]));
    node.wait_for_stats(|stats| {
        let depths: Vec<u64> = stats.channels.iter().map(|channel| channel.depth).collect();
        depths == [0, 0, 0, 2] && stats.channels.iter().all(|channel| channel.in_flight_count == 0)
    })
    .await;
    node.cluster.stop().await;
    drop(sleeps);
    let node = Node::start(&store, 2).await;
    sleeps = node.subscribe("sleeps", 10).await;
    assert_eq!(
        sleeps.take(2).await,
        seen(&[(1, "a"), (5, "e")]),
        "also after a restart"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_for_one_channel_need_it_and_a_topic_that_flows() {
    let node = Node::start(&store(), 1).await;
    let mut ledger = node.subscribe("ledger", 10).await;
    let refused = node.publish_to("missing", &["a"]).await;
    assert_eq!(refused, Err(PublishError::ChannelNotFound));
    node.administer(AdminAction::PauseTopic).await.expect("paused");
    assert_eq!(node.publish_to("ledger", &["b"]).await, Err(PublishError::TopicPaused));
    node.administer(AdminAction::UnpauseTopic).await.expect("unpaused");
    node.publish_to("ledger", &["c"]).await.expect("published");
    assert_eq!(ledger.take(1).await, [(1, 1, "c".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_channel_gets_what_accumulated_and_a_later_one_does_not() {
    let node = Node::start(&store(), 1).await;
    node.publish(&["a", "b"]).await;
    assert_eq!(node.stats().await.depth, 2);
    let mut first = node.subscribe("first", 10).await;
    assert_eq!(first.take(2).await.len(), 2);
    let mut second = node.subscribe("second", 10).await;
    node.publish(&["c"]).await;
    assert_eq!(second.take(1).await, [(3, 1, "c".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_is_a_ceiling_and_not_a_credit() {
    let node = Node::start(&store(), 1).await;
    let mut consumer = node.subscribe("c", 1).await;
    node.publish(&["a", "b", "c"]).await;
    let first = consumer.receive().await;
    let stats = node.stats().await;
    assert_eq!((stats.channels[0].in_flight_count, stats.channels[0].depth), (1, 2));
    consumer.finish(&first);
    assert_eq!(consumer.receive().await.token.seq, Seq::new(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requeued_message_goes_to_the_tail_with_one_attempt_more() {
    let node = Node::start(&store(), 1).await;
    let mut consumer = node.subscribe("c", 1).await;
    node.publish(&["0", "1", "2"]).await;
    let first = consumer.receive().await;
    consumer.requeue(&first, 0);
    let seen = consumer.take(3).await;
    let expected = [(2, 1, "1".to_owned()), (3, 1, "2".to_owned()), (1, 2, "0".to_owned())];
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deferred_messages_come_at_their_time_and_not_before() {
    let node = Node::start(&store(), 1).await;
    let mut consumer = node.subscribe("c", 10).await;
    let start = node.now();
    node.try_publish(&["later"], 300).await.expect("published");
    node.publish(&["now"]).await;
    assert_eq!(consumer.take(1).await, [(2, 1, "now".to_owned())]);
    assert_eq!(node.stats().await.channels[0].deferred_count, 1);
    assert_eq!(consumer.take(1).await, [(1, 1, "later".to_owned())]);
    assert!(node.now().since(start) >= Duration::from_millis(300));
    node.publish(&["again"]).await;
    let delivery = consumer.receive().await;
    let requeued = node.now();
    consumer.requeue(&delivery, 200);
    assert_eq!(consumer.take(1).await, [(3, 2, "again".to_owned())]);
    assert!(node.now().since(requeued) >= Duration::from_millis(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_consumer_held_comes_back_at_its_deadline_and_the_rest_at_once() {
    let node = Node::start(&store(), 1).await;
    let mut lost = node.subscribe_with_timeout("c", 2, Duration::from_millis(200)).await;
    node.publish(&["written", "unwritten"]).await;
    assert_eq!(lost.receive().await.token.seq, Seq::new(1));
    node.wait_for_stats(|stats| stats.channels[0].in_flight_count == 2)
        .await;
    lost.disconnect();
    let mut other = node.subscribe("c", 10).await;
    assert_eq!(
        other.take(1).await,
        [(2, 1, "unwritten".to_owned())],
        "never written: no attempt is counted"
    );
    assert_eq!(other.take(1).await, [(1, 2, "written".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_empty_and_delete_do_what_they_say() {
    let node = Node::start(&store(), 1).await;
    let mut consumer = node.subscribe("c", 10).await;
    node.administer(AdminAction::PauseChannel(name("c")))
        .await
        .expect("paused");
    node.publish(&["a", "b"]).await;
    node.wait_for_stats(|stats| stats.channels[0].depth == 2 && stats.channels[0].paused)
        .await;
    node.administer(AdminAction::EmptyChannel(name("c")))
        .await
        .expect("emptied");
    node.administer(AdminAction::UnpauseChannel(name("c")))
        .await
        .expect("unpaused");
    node.publish(&["c"]).await;
    loop {
        match within(consumer.subscription.deliveries.next()).await {
            Some(SubscriptionEvent::Emptied) => {}
            Some(SubscriptionEvent::Deliver(delivery)) => {
                assert_eq!(delivery.token.seq, Seq::new(3));
                break;
            }
            None => panic!("closed"),
        }
    }
    node.administer(AdminAction::DeleteChannel(name("c")))
        .await
        .expect("deleted");
    assert!(
        within(consumer.subscription.deliveries.next()).await.is_none(),
        "its consumers are closed"
    );
    let missing = node.administer(AdminAction::PauseChannel(name("c"))).await;
    assert_eq!(missing, Err(AdminError::ChannelNotFound));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_comes_back_with_higher_numbers() {
    let node = Node::start(&store(), 1).await;
    let mut consumer = node.subscribe("c", 10).await;
    node.publish(&["a", "b"]).await;
    assert_eq!(consumer.take(2).await.len(), 2);
    node.administer(AdminAction::DeleteTopic).await.expect("deleted");
    assert!(node.broker.topics().is_empty());
    assert!(within(consumer.subscription.deliveries.next()).await.is_none());
    node.publish(&["c"]).await;
    let mut consumer = node.subscribe("c", 10).await;
    assert_eq!(consumer.take(1).await, [(3, 1, "c".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_messages_channels_attempts_and_finished_numbers() {
    let store = store();
    let node = Node::start(&store, 1).await;
    let mut consumer = node.subscribe("c", 10).await;
    node.publish(&["a", "b", "c", "d"]).await;
    node.try_publish(&["e"], 100).await.expect("published");
    let first = consumer.receive().await;
    let second = consumer.receive().await;
    consumer.finish(&second);
    consumer.requeue(&first, 0);
    node.wait_for_stats(|stats| stats.channels[0].requeue_count == 1 && stats.channels[0].in_flight_count > 0)
        .await;
    // The FIN waits for company at most some milliseconds; the publish takes it along.
    node.publish(&["f"]).await;
    node.cluster.stop().await;
    let node = Node::start(&store, 2).await;
    let mut consumer = node.subscribe("c", 10).await;
    let mut seen = consumer.take(5).await;
    seen.sort();
    let expected: Vec<(u64, u16, String)> = [(1, 2, "a"), (3, 1, "c"), (4, 1, "d"), (5, 1, "e"), (6, 1, "f")]
        .map(|(s, a, b)| (s, a, b.to_owned()))
        .into();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_far_behind_reads_the_log() {
    let store = store();
    let node = Node::start(&store, 1).await;
    let mut keeps = node.subscribe("keeps", 2500).await;
    let mut lags = node.subscribe("lags", 0).await;
    let body = "x".repeat(10_000);
    // More than the memory window of a topic.
    for _ in 0..100 {
        let bodies: Vec<&str> = (0..10).map(|_| body.as_str()).collect();
        node.publish(&bodies).await;
        assert_eq!(keeps.take(10).await.len(), 10);
    }
    lags.subscription.handle.ready(7);
    let seen = lags.take(1000).await;
    let seqs: Vec<u64> = seen.iter().map(|(seq, _, _)| *seq).collect();
    assert_eq!(seqs, (1..=1000).collect::<Vec<_>>());
    assert!(seen.iter().all(|(_, attempts, _)| *attempts == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_watermark_publishes_are_refused_and_deliveries_go_on() {
    let node = Node::start(&store(), 1).await;
    let mut consumer = node.subscribe("c", 0).await;
    node.publish(&["a"]).await;
    *node.space.lock() = SpaceState::RefusePublishes;
    assert_eq!(node.try_publish(&["b"], 0).await, Err(PublishError::DiskFull));
    consumer.subscription.handle.ready(1);
    assert_eq!(consumer.take(1).await.len(), 1);
    *node.space.lock() = SpaceState::Ok;
    node.publish(&["c"]).await;
    assert_eq!(consumer.take(1).await, [(2, 1, "c".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ephemeral_channel_goes_with_its_last_consumer() {
    let node = Node::start(&store(), 1).await;
    let consumer = node.subscribe("tail#ephemeral", 1).await;
    assert_eq!(node.stats().await.channels.len(), 1);
    consumer.disconnect();
    node.wait_for_stats(|stats| stats.channels.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ephemeral_topic_goes_with_its_last_consumer_and_the_next_one_begins_it_anew() {
    let node = Node::start(&store(), 1).await;
    let topic: TopicName = "orders#ephemeral".parse().expect("valid");
    for round in 1..=20 {
        // The last one has just gone, and the topic is about to.
        let mut consumer = node
            .subscribe_to(&topic, "tail#ephemeral", options(PATIENCE))
            .await
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        consumer.subscription.handle.ready(1);
        let ticket = node.broker.publish(&topic, vec![message("m", 0)], None);
        within(ticket).await.expect("published");
        consumer.receive().await;
        consumer.disconnect();
        let deadline = node.now() + PATIENCE;
        while round % 4 == 0 && node.broker.has_topic(&topic) {
            assert!(node.now() < deadline, "it stays");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let published = node.broker.publish(&topic, vec![message("m", 0)], None);
    within(published).await.expect("published");
    assert!(node.broker.has_topic(&topic), "without a channel it stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishers_and_many_topics_at_once() {
    let node = Arc::new(Node::start(&store(), 1).await);
    let mut tasks = Vec::new();
    for task in 0..50 {
        let node = Arc::clone(&node);
        tasks.push(tokio::spawn(async move {
            for round in 0..20 {
                let topic = TopicName::try_from(format!("t{}", (task + round) % 10).as_str()).expect("valid");
                let ticket = node.broker.publish(&topic, vec![message("m", 0)], None);
                within(ticket).await.expect("published");
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    let stats = node.broker.stats(None, None).await;
    assert_eq!(stats.len(), 10);
    assert_eq!(stats.iter().map(|topic| topic.message_count).sum::<u64>(), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribing_while_a_topic_is_deleted_ends_in_a_typed_error_or_a_new_topic() {
    let node = Node::start(&store(), 1).await;
    node.publish(&["a"]).await;
    let client = node.subscribe("c", 1).await.subscription;
    drop(client);
    let (deleted, subscribed) = tokio::join!(node.administer(AdminAction::DeleteTopic), async {
        let options = options(PATIENCE);
        within(node.broker.subscribe(&topic(), &name("c"), options)).await
    });
    deleted.expect("deleted");
    match subscribed {
        Ok(_) | Err(SubscribeError::Deleted) => {}
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_answers_as_soon_as_its_creation_has_resolved() {
    let node = Node::start(&store(), 1).await;
    for round in 0..50 {
        let topic = TopicName::try_from(format!("t{round}").as_str()).expect("valid");
        within(node.broker.create_topic(&topic)).await.expect("created");
        let create = AdminAction::CreateChannel(name("c"));
        within(node.broker.administer(&topic, create))
            .await
            .expect("its group may still be starting");
        assert_eq!(within(node.broker.channels(&topic)).await, Some(vec![name("c")]));
        assert_eq!(within(node.broker.stats(Some(&topic), None)).await.len(), 1);
    }
    let missing = TopicName::try_from("missing").expect("valid");
    assert_eq!(within(node.broker.channels(&missing)).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_deferred_before_there_was_a_channel_comes_without_another_event() {
    let node = Node::start(&store(), 1).await;
    node.try_publish(&["later"], 1).await.expect("published");
    let mut consumer = node.subscribe("c", 10).await;
    assert_eq!(consumer.take(1).await, [(1, 1, "later".to_owned())]);
}
