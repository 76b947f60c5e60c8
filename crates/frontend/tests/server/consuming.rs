use std::num::NonZeroUsize;
use std::time::Duration;

use nsquorum_broker::AdminAction;
use nsquorum_protocol::{ChannelName, Frame};

use crate::http::request;
use crate::node::{Client, Settings, TestNode, ok, topic, within};

fn channel(name: &str) -> ChannelName {
    ChannelName::try_from(name).expect("valid")
}

#[tokio::test]
async fn messages_of_every_size_arrive_as_they_were_sent() {
    let node = TestNode::start().await;
    let mut producer = Client::open(&node).await;
    let mut consumer = Client::subscribed(&node, "c", 2500).await;
    let sizes = [1, 15, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 100_000, 1 << 20];
    for (at, size) in sizes.into_iter().enumerate() {
        let body: Vec<u8> = (0..size).map(|byte| (byte * 31 + at) as u8).collect();
        producer.publish(&body).await;
        assert_eq!(producer.frame().await, Some(ok()));
        let (seq, attempts, arrived) = consumer.message().await;
        assert_eq!((seq, attempts), (at as u64 + 1, 1));
        assert!(arrived == body, "a body of {size} bytes arrived changed");
    }
}

#[tokio::test]
async fn a_ready_count_is_a_ceiling_that_a_fin_frees() {
    let node = TestNode::start().await;
    let mut producer = Client::open(&node).await;
    for _ in 0..3 {
        producer.publish(b"x").await;
        assert_eq!(producer.frame().await, Some(ok()));
    }
    let mut consumer = Client::subscribed(&node, "c", 1).await;
    for seq in 1..=3 {
        assert_eq!(consumer.message().await.0, seq);
        // The next message needs this FIN; the answer to a foreign id shows that nothing came before.
        consumer.send(b"FIN ffffffffffffffff\n").await;
        match consumer.frame().await {
            Some(Frame::Error(text)) => {
                assert_eq!(&text[..], b"E_FIN_FAILED FIN ffffffffffffffff failed ID not in flight");
            }
            other => panic!("{other:?}"),
        }
        consumer.send(format!("FIN {seq:016x}\n").as_bytes()).await;
    }
}

#[tokio::test]
async fn a_channel_has_as_many_consumers_as_it_may() {
    let node = TestNode::with(Settings {
        max_channel_consumers: NonZeroUsize::new(1),
        ..Settings::default()
    })
    .await;
    let first = Client::subscribed(&node, "c", 0).await;
    let _elsewhere = Client::subscribed(&node, "d", 0).await;
    let mut second = Client::open(&node).await;
    second.send(b"SUB t c\nRDY 1\n").await;
    let refusal = b"E_SUB_FAILED SUB failed consumers for t:c exceeds limit of 1";
    assert_eq!(second.frame().await, Some(Frame::Error(refusal[..].into())));
    assert_eq!(second.frame().await, None);
    drop(first);
    // The place is free once the node has seen the end of the first.
    loop {
        let mut next = Client::open(&node).await;
        next.send(b"SUB t c\n").await;
        match next.frame().await {
            Some(Frame::Error(_)) => {}
            frame => break assert_eq!(frame, Some(ok())),
        }
    }
}

#[tokio::test]
async fn who_does_not_own_a_message_is_told_so() {
    let node = TestNode::start().await;
    let mut owner = Client::subscribed(&node, "c", 1).await;
    let mut other = Client::subscribed(&node, "c", 0).await;
    owner.publish(b"x").await;
    let mut seen = [owner.frame().await, owner.frame().await];
    seen.sort_by_key(|frame| *frame == Some(ok()));
    assert!(matches!(seen, [Some(Frame::Message { .. }), Some(_)]), "{seen:?}");
    other.send(b"FIN 0000000000000001\n").await;
    match other.frame().await {
        Some(Frame::Error(text)) => {
            assert_eq!(
                &text[..],
                b"E_FIN_FAILED FIN 0000000000000001 failed client does not own message"
            );
        }
        frame => panic!("{frame:?}"),
    }
}

#[tokio::test]
async fn what_a_lost_consumer_never_got_goes_to_the_next_at_once_and_costs_no_attempt() {
    const COUNT: u64 = 100;
    let node = TestNode::start().await;
    let mut producer = Client::open(&node).await;
    for _ in 0..COUNT {
        producer.publish(&vec![b'x'; 1 << 20]).await;
        assert_eq!(producer.frame().await, Some(ok()));
    }
    // 100 MB do not fit the sockets' buffers; this consumer reads one message and is gone.
    let mut lost = Client::subscribed(&node, "c", 2500).await;
    assert_eq!(lost.message().await.0, 1);
    drop(lost);
    let mut next = Client::subscribed(&node, "c", 2500).await;
    let (first, attempts, _) = next.message().await;
    assert!(first > 1, "the first was delivered and waits for its timeout");
    assert_eq!(attempts, 1);
    let mut last = first;
    while last < COUNT {
        let (seq, attempts, _) = next.message().await;
        assert_eq!((seq, attempts), (last + 1, 1));
        last = seq;
    }
}

#[tokio::test]
async fn deleting_a_channel_closes_its_consumers_without_a_word() {
    let node = TestNode::start().await;
    let mut consumer = Client::subscribed(&node, "c", 1).await;
    let mut unconcerned = Client::subscribed(&node, "d", 1).await;
    node.broker
        .administer(&topic(), AdminAction::DeleteChannel(channel("c")))
        .await
        .expect("deleted");
    assert_eq!(consumer.frame().await, None);
    unconcerned.publish(b"x").await;
    assert!(unconcerned.frame().await.is_some());
}

#[tokio::test]
async fn emptying_a_channel_frees_its_consumers() {
    let node = TestNode::start().await;
    let mut consumer = Client::subscribed(&node, "c", 1).await;
    let mut producer = Client::open(&node).await;
    producer.publish(b"a").await;
    assert_eq!(consumer.message().await.0, 1);
    node.broker
        .administer(&topic(), AdminAction::EmptyChannel(channel("c")))
        .await
        .expect("emptied");
    producer.publish(b"b").await;
    assert_eq!(
        consumer.message().await.0,
        2,
        "the slot is free although nothing was finished"
    );
    consumer.send(b"FIN 0000000000000001\n").await;
    match consumer.frame().await {
        Some(Frame::Error(text)) => {
            assert_eq!(&text[..], b"E_FIN_FAILED FIN 0000000000000001 failed ID not in flight");
        }
        frame => panic!("{frame:?}"),
    }
}

#[tokio::test]
async fn after_cls_the_consumer_finishes_what_it_has() {
    let node = TestNode::start().await;
    let mut consumer = Client::subscribed(&node, "c", 1).await;
    let mut producer = Client::open(&node).await;
    producer.publish(b"a").await;
    assert_eq!(consumer.message().await.0, 1);
    consumer.send(b"CLS\n").await;
    assert_eq!(consumer.frame().await, Some(Frame::Response(b"CLOSE_WAIT"[..].into())));
    producer.publish(b"b").await;
    consumer.send(b"FIN 0000000000000001\nFIN 0000000000000001\n").await;
    match consumer.frame().await {
        Some(Frame::Error(text)) => assert!(text.ends_with(b"ID not in flight"), "{text:?}"),
        frame => panic!("the second message must not come: {frame:?}"),
    }
    let mut next = Client::subscribed(&node, "c", 1).await;
    assert_eq!(next.message().await.0, 2);
}

async fn administer(node: &TestNode, path: &str) {
    assert_eq!(request(node, "POST", path, b"").await.status, 200, "{path}");
}

/// What /stats says of the one channel of topic `t`.
async fn channel_stats(node: &TestNode) -> serde_json::Value {
    let body = request(node, "GET", "/stats?format=json&topic=t", b"").await.body;
    let mut stats: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    stats["topics"][0]["channels"][0].take()
}

#[tokio::test]
async fn a_message_does_not_wait_for_company() {
    let node = TestNode::start().await;
    let mut consumer = Client::open(&node).await;
    consumer
        .identify("{\"output_buffer_size\":65536,\"output_buffer_timeout\":30000}")
        .await;
    consumer.send(b"SUB t c\nRDY 100\n").await;
    assert_eq!(consumer.frame().await, Some(ok()));
    let mut producer = Client::open(&node).await;
    producer.publish(b"x").await;
    // A third of what the buffer may wait, and far more than a delivery takes.
    let message = tokio::time::timeout(Duration::from_secs(10), consumer.message()).await;
    assert_eq!(message.expect("before the buffer's timeout"), (1, 1, b"x".to_vec()));
}

#[tokio::test]
async fn a_client_that_comes_back_no_longer_owns_what_it_had() {
    let node = TestNode::start().await;
    let mut consumer = Client::subscribed(&node, "c", 1).await;
    let mut producer = Client::open(&node).await;
    producer.publish(b"x").await;
    assert_eq!(consumer.message().await.0, 1);
    drop(consumer);
    within(async { while channel_stats(&node).await["client_count"] != 0 {} }).await;
    let mut again = Client::subscribed(&node, "c", 1).await;
    for command in [
        "FIN 0000000000000001",
        "REQ 0000000000000001 0",
        "TOUCH 0000000000000001",
    ] {
        again.send(format!("{command}\n").as_bytes()).await;
        let verb = command.split(' ').next().expect("a verb");
        let refusal = format!("E_{verb}_FAILED {verb} 0000000000000001 failed client does not own message");
        assert_eq!(again.frame().await, Some(Frame::Error(refusal.into_bytes().into())));
    }
    assert_eq!(channel_stats(&node).await["in_flight_count"], 1);
}

#[tokio::test]
async fn there_is_no_greatest_number_of_attempts() {
    const TRIES: u16 = 300;
    let node = TestNode::start().await;
    let mut consumer = Client::subscribed(&node, "c", 1).await;
    let mut producer = Client::open(&node).await;
    producer.publish(b"x").await;
    for attempt in 1..=TRIES {
        assert_eq!(consumer.message().await, (1, attempt, b"x".to_vec()));
        consumer.send(b"REQ 0000000000000001 0\n").await;
    }
}

#[tokio::test]
async fn a_paused_channel_goes_on_with_what_is_in_flight_and_with_its_consumers() {
    let node = TestNode::start().await;
    let mut consumer = Client::open(&node).await;
    consumer.identify("{\"msg_timeout\":1000}").await;
    consumer.send(b"SUB t c\nRDY 2\n").await;
    assert_eq!(consumer.frame().await, Some(ok()));
    let mut producer = Client::open(&node).await;
    for body in [b"a", b"b"] {
        producer.publish(body).await;
        assert_eq!(producer.frame().await, Some(ok()));
    }
    assert_eq!((consumer.message().await.0, consumer.message().await.0), (1, 2));
    administer(&node, "/channel/pause?topic=t&channel=c").await;
    producer.publish(b"c").await;
    assert_eq!(producer.frame().await, Some(ok()));
    consumer.send(b"FIN 0000000000000001\n").await;
    within(async {
        loop {
            let stats = channel_stats(&node).await;
            let seen = ["in_flight_count", "timeout_count", "depth"].map(|key| stats[key].as_u64().expect("a number"));
            if seen == [0, 1, 2] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The answer to a foreign id shows that the connection lives and that nothing came before.
    consumer.send(b"FIN ffffffffffffffff\n").await;
    assert!(matches!(consumer.frame().await, Some(Frame::Error(_))));
    let stats = channel_stats(&node).await;
    assert_eq!((&stats["client_count"], &stats["paused"]), (&1.into(), &true.into()));
    administer(&node, "/channel/unpause?topic=t&channel=c").await;
    let mut came = [consumer.message().await, consumer.message().await];
    came.sort();
    assert_eq!(came, [(2, 2, b"b".to_vec()), (3, 1, b"c".to_vec())]);
}

#[tokio::test]
async fn consumers_that_come_back_make_what_was_deleted() {
    let node = TestNode::start().await;
    for (path, body) in [
        ("/channel/delete?topic=t&channel=c", b"a"),
        ("/topic/delete?topic=t", b"b"),
    ] {
        let mut consumer = Client::subscribed(&node, "c", 1).await;
        administer(&node, path).await;
        assert_eq!(consumer.frame().await, None, "{path}");
        let mut consumer = Client::subscribed(&node, "c", 1).await;
        let mut producer = Client::open(&node).await;
        producer.publish(body).await;
        let (seq, attempts, arrived) = consumer.message().await;
        assert_eq!((attempts, &arrived[..]), (1, &body[..]));
        consumer.send(format!("FIN {seq:016x}\n").as_bytes()).await;
    }
}
