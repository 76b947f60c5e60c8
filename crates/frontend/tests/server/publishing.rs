use std::time::Duration;

use nsquorum_protocol::Frame;
use tokio::io::AsyncWriteExt as _;

use crate::http::request;
use crate::node::{Client, DEADLINE, Settings, TestNode, heartbeat, ok, publish, topic, within};

#[tokio::test]
async fn ok_comes_after_the_disk_and_heartbeats_do_not_wait_for_it() {
    let node = TestNode::start().await;
    node.warm_up().await;
    let mut client = Client::open(&node).await;
    client.identify("{\"heartbeat_interval\":1000}").await;
    node.stop_disk();
    client.publish(b"x").await;
    client.publish(b"y").await;
    // The publishes are a second old when this arrives, and nothing came before it.
    assert_eq!(client.frame().await, Some(heartbeat()));
    node.run_disk();
    let mut answers = Vec::new();
    while answers.len() < 2 {
        answers.extend(client.frame().await.filter(|frame| *frame != heartbeat()));
    }
    assert_eq!(answers, [ok(), ok()]);
}

#[tokio::test]
async fn commands_may_arrive_in_any_pieces() {
    let node = TestNode::start().await;
    let mut client = Client::open(&node).await;
    client.stream.set_nodelay(true).expect("a socket");
    let bytes = [&publish(b"a")[..], b"NOP\n", &publish(b"bc")[..]].concat();
    for byte in bytes {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!((client.frame().await, client.frame().await), (Some(ok()), Some(ok())));
    let mut consumer = Client::subscribed(&node, "c", 10).await;
    assert_eq!(consumer.message().await, (1, 1, b"a".to_vec()));
    assert_eq!(consumer.message().await, (2, 1, b"bc".to_vec()));
}

#[tokio::test]
async fn a_producer_faster_than_the_disk_is_held_back_and_loses_nothing() {
    const BOUND: usize = 256 * 1024;
    let node = TestNode::with(Settings {
        publish_bytes_max: BOUND,
        ..Settings::default()
    })
    .await;
    node.warm_up().await;
    node.stop_disk();
    let client = Client::open(&node).await;
    let (mut reading, mut writing) = {
        let Client { stream, .. } = client;
        stream.into_split()
    };
    const COUNT: usize = 400;
    let sender = tokio::spawn(async move {
        let one = publish(&vec![b'x'; 100_000]);
        for _ in 0..COUNT {
            writing.write_all(&one).await.expect("the node reads on");
        }
        writing
    });
    // 40 MB do not fit the sockets' buffers: the sender hangs as long as the disk does.
    let admission = node.broker.admission().clone();
    within(async {
        while admission.used_bytes() < BOUND / 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(admission.used_bytes() <= BOUND, "{} bytes", admission.used_bytes());
    }
    assert!(!sender.is_finished(), "the sender is held back");
    node.run_disk();
    let expected = COUNT * 10;
    let mut answers = vec![0; expected];
    within(tokio::io::AsyncReadExt::read_exact(&mut reading, &mut answers))
        .await
        .expect("every answer");
    assert!(answers.chunks(10).all(|answer| answer == b"\0\0\0\x06\0\0\0\0OK"));
    drop(within(sender).await.expect("sent"));
}

#[tokio::test]
async fn a_publish_that_is_not_answered_in_time_fails_and_closes() {
    let settings = Settings {
        publish_timeout: Duration::from_millis(200),
        ..Settings::default()
    };
    let node = TestNode::with(settings).await;
    node.warm_up().await;
    node.stop_disk();
    let mut client = Client::open(&node).await;
    // Bytes behind the failing command are unread when the error is written; the client must see it nevertheless.
    client
        .send(&[publish(b"x"), publish(&vec![b'y'; 500_000])].concat())
        .await;
    match client.frame().await {
        Some(Frame::Error(text)) => {
            assert_eq!(&text[..], b"E_PUB_FAILED PUB failed timed out waiting for the replicas");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn an_oversized_publish_is_refused_visibly() {
    let node = TestNode::start().await;
    let mut client = Client::open(&node).await;
    client.send(b"PUB t\n\x00\x20\x00\x00").await;
    client.send(&vec![b'x'; 1 << 20]).await;
    match client.frame().await {
        Some(Frame::Error(text)) => {
            assert_eq!(&text[..], b"E_BAD_MESSAGE PUB message too big 2097152 > 1048576");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn a_client_that_only_closes_its_half_gets_every_answer() {
    let node = TestNode::start().await;
    let mut client = Client::open(&node).await;
    for _ in 0..100 {
        client.publish(b"x").await;
    }
    client.stream.shutdown().await.expect("half closed");
    for _ in 0..100 {
        assert_eq!(client.frame().await, Some(ok()));
    }
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn stopping_answers_what_is_under_way() {
    let node = TestNode::start().await;
    node.warm_up().await;
    node.stop_disk();
    let mut client = Client::open(&node).await;
    client.publish(b"x").await;
    within(async {
        while node.broker.admission().used_bytes() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    node.stop.stop();
    node.run_disk();
    assert_eq!(client.frame().await, Some(ok()));
    assert_eq!(client.frame().await, None);
    within(node.server).await.expect("the server ends");
}

#[tokio::test]
async fn topic_deletion_leaves_producers_connected() {
    let node = TestNode::start().await;
    let mut client = Client::open(&node).await;
    client.publish(b"x").await;
    assert_eq!(client.frame().await, Some(ok()));
    node.broker
        .administer(&topic(), nsquorum_broker::AdminAction::DeleteTopic)
        .await
        .expect("deleted");
    client.publish(b"y").await;
    assert_eq!(client.frame().await, Some(ok()), "the topic is created again");
}

#[tokio::test]
async fn every_publish_makes_its_topic_and_a_refused_mpub_makes_none() {
    let node = TestNode::start().await;
    let mut client = Client::open(&node).await;
    client.send(b"MPUB many\n\0\0\0\x09\0\0\0\x01\0\0\0\x01x").await;
    assert_eq!(client.frame().await, Some(ok()));
    client.send(b"DPUB later 5\n\0\0\0\x01x").await;
    assert_eq!(client.frame().await, Some(ok()));
    // nsqd would have made this one before it looked at the body.
    client.send(b"MPUB refused\n\0\0\0\0").await;
    assert!(matches!(client.frame().await, Some(Frame::Error(_))));
    assert_eq!(client.frame().await, None);
    let mut topics: Vec<_> = node.broker.topics().iter().map(ToString::to_string).collect();
    topics.sort();
    assert_eq!(topics, ["later", "many"]);
}

/// Whoever publishes without a pause has a publish behind the deletion in the topic's log, now and then.
#[tokio::test]
async fn what_is_published_into_a_deletion_is_told_so() {
    let node = TestNode::start().await;
    let began = std::time::Instant::now();
    let (mut over_tcp, mut over_http) = (false, false);
    while !(over_tcp && over_http) {
        assert!(began.elapsed() < DEADLINE, "tcp {over_tcp}, http {over_http}");
        node.warm_up().await;
        let broker = node.broker.clone();
        let action = nsquorum_broker::AdminAction::DeleteTopic;
        let deleting = tokio::spawn(async move { broker.administer(&topic(), action).await });
        let producing = async {
            let mut client = Client::open(&node).await;
            while !deleting.is_finished() {
                client.publish(b"x").await;
                match client.frame().await {
                    Some(Frame::Error(text)) => {
                        assert_eq!(&text[..], b"E_PUB_FAILED PUB failed exiting");
                        assert_eq!(client.frame().await, None);
                        over_tcp = true;
                        break;
                    }
                    frame => assert_eq!(frame, Some(ok())),
                }
            }
        };
        let posting = async {
            while !deleting.is_finished() {
                let answer = request(&node, "POST", "/pub?topic=t", b"x").await;
                match (answer.status, &*answer.body) {
                    (200, "OK") => {}
                    (503, "{\"message\":\"EXITING\"}") => over_http = true,
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::join!(producing, posting);
        within(deleting).await.expect("no panic").expect("deleted");
    }
}

/// go-nsq gives up a connection on which a write takes longer than a second.
#[tokio::test]
async fn commands_are_read_on_while_publishes_wait() {
    const COUNT: usize = 80;
    const BYTES: usize = 100_000;
    let node = TestNode::start().await;
    node.warm_up().await;
    node.stop_disk();
    let mut client = Client::open(&node).await;
    let one = publish(&vec![b'x'; BYTES]);
    for _ in 0..COUNT {
        client.send(&one).await;
    }
    // More than the sockets' buffers hold is with the node, and nothing is answered.
    let admission = node.broker.admission().clone();
    within(async {
        while admission.used_bytes() < COUNT * BYTES {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    node.run_disk();
    for _ in 0..COUNT {
        assert_eq!(client.frame().await, Some(ok()));
    }
}
