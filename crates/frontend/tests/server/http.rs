use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::node::{Client, TestNode, ok, within};

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One request on a connection of its own.
pub(crate) async fn request(node: &TestNode, method: &str, path: &str, body: &[u8]) -> Answer {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    raw(node, &[head.as_bytes(), body].concat()).await
}

async fn raw(node: &TestNode, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(node.http).await.expect("the node listens");
    stream.write_all(bytes).await.expect("the node reads");
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.expect("not reset");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn refusals_have_nsqds_codes_in_nsqds_order() {
    let node = TestNode::start().await;
    let max = vec![b'x'; (1 << 20) + 1];
    let empty: &[u8] = b"";
    let table: &[(&str, &str, &[u8], u16, &str)] = &[
        ("POST", "/pub?topic=t$", &max, 413, "MSG_TOO_BIG"),
        ("POST", "/pub?topic=t$", empty, 400, "MSG_EMPTY"),
        ("POST", "/pub", b"x", 400, "MISSING_ARG_TOPIC"),
        ("POST", "/pub?topic=", b"x", 400, "INVALID_TOPIC"),
        ("POST", "/topic/delete?topic=", empty, 404, "TOPIC_NOT_FOUND"),
        ("POST", "/channel/create?topic=", empty, 400, "INVALID_ARG_TOPIC"),
        (
            "POST",
            "/channel/create?topic=t&channel=",
            empty,
            400,
            "INVALID_ARG_CHANNEL",
        ),
        ("PUT", "/config/max_rdy_count", b"1", 400, "INVALID_OPTION"),
        ("PUT", "/config/nothing", empty, 413, "INVALID_VALUE"),
        ("PUT", "/config/log_level", &max, 413, "INVALID_VALUE"),
        ("PUT", "/config/log_level", b"loud", 400, "INVALID_VALUE"),
        ("GET", "/config/nothing", empty, 400, "INVALID_OPTION"),
        ("POST", "/pub?topic=t$", b"x", 400, "INVALID_TOPIC"),
        ("POST", "/pub?topic=%zz", b"x", 400, "INVALID_REQUEST"),
        ("POST", "/pub?topic=t&defer=x", b"x", 400, "INVALID_DEFER"),
        ("POST", "/pub?topic=t&defer=-1", b"x", 400, "INVALID_DEFER"),
        ("POST", "/pub?topic=t&defer=3600001", b"x", 400, "INVALID_DEFER"),
        ("POST", "/mpub", b"x", 400, "MISSING_ARG_TOPIC"),
        ("POST", "/mpub?topic=t", &max, 413, "MSG_TOO_BIG"),
        ("POST", "/mpub?topic=t&binary=true", b"x", 413, "BAD_BODY"),
        ("POST", "/channel/mpub?channel=c", b"x", 400, "MISSING_ARG_TOPIC"),
        ("POST", "/channel/mpub?topic=t", b"x", 400, "MISSING_ARG_CHANNEL"),
        (
            "POST",
            "/channel/mpub?topic=none&channel=c",
            b"x",
            404,
            "TOPIC_NOT_FOUND",
        ),
        ("POST", "/topic/create", empty, 400, "MISSING_ARG_TOPIC"),
        ("POST", "/topic/create?topic=t$", empty, 400, "INVALID_TOPIC"),
        ("POST", "/topic/delete?topic=t$", empty, 404, "TOPIC_NOT_FOUND"),
        ("POST", "/topic/pause?topic=none", empty, 404, "TOPIC_NOT_FOUND"),
        ("POST", "/topic/empty?topic=t$", empty, 400, "INVALID_TOPIC"),
        ("POST", "/topic/empty?topic=none", empty, 404, "TOPIC_NOT_FOUND"),
        ("POST", "/channel/create?channel=c", empty, 400, "MISSING_ARG_TOPIC"),
        ("POST", "/channel/create?topic=t$", empty, 400, "INVALID_ARG_TOPIC"),
        ("POST", "/channel/create?topic=t", empty, 400, "MISSING_ARG_CHANNEL"),
        (
            "POST",
            "/channel/create?topic=t&channel=c$",
            empty,
            400,
            "INVALID_ARG_CHANNEL",
        ),
        (
            "POST",
            "/channel/create?topic=none&channel=c",
            empty,
            404,
            "TOPIC_NOT_FOUND",
        ),
        (
            "POST",
            "/channel/pause?topic=t&channel=none",
            empty,
            404,
            "CHANNEL_NOT_FOUND",
        ),
        ("GET", "/pub", empty, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/put", empty, 404, "NOT_FOUND"),
    ];
    for (method, path, body, status, code) in table {
        let answer = request(&node, method, path, body).await;
        assert_eq!(
            (answer.status, &*answer.body),
            (*status, &*format!("{{\"message\":\"{code}\"}}")),
            "{path}"
        );
        assert!(
            answer.head.contains("X-Nsq-Content-Type: nsq; version=1.0"),
            "{}",
            answer.head
        );
        assert!(
            answer.head.contains("Content-Type: application/json; charset=utf-8"),
            "{}",
            answer.head
        );
    }
}

#[tokio::test]
async fn published_messages_arrive_and_deferred_ones_later() {
    let node = TestNode::start().await;
    for (path, body) in [
        ("/pub?topic=t", &b"one"[..]),
        ("/mpub?topic=t", b"two\n\nthree\r\n"),
        ("/mpub?topic=t&binary=yes", b"\0\0\0\x01\0\0\0\x04four"),
        ("/mpub?topic=t", b""),
        ("/pub?topic=t&defer=1", b"five"),
    ] {
        let answer = request(&node, "POST", path, body).await;
        assert_eq!((answer.status, &*answer.body), (200, "OK"), "{path}");
        assert!(
            answer.head.contains("Content-Type: text/plain; charset=utf-8"),
            "{}",
            answer.head
        );
    }
    let mut consumer = Client::subscribed(&node, "c", 10).await;
    let mut bodies = Vec::new();
    while bodies.len() < 5 {
        bodies.push(String::from_utf8(consumer.message().await.2).expect("text"));
    }
    assert_eq!(bodies, ["one", "two", "three\r", "four", "five"]);
}

#[tokio::test]
async fn one_channel_alone_can_be_published_to() {
    let node = TestNode::start().await;
    let mut first = Client::subscribed(&node, "first", 10).await;
    let mut second = Client::subscribed(&node, "second", 10).await;
    let binary = b"\0\0\0\x02\0\0\0\x01a\0\0\0\x01b";
    let table: &[(&str, &[u8], u16, &str)] = &[
        (
            "/channel/mpub?topic=t&channel=none",
            binary,
            404,
            "{\"message\":\"CHANNEL_NOT_FOUND\"}",
        ),
        (
            "/channel/mpub?topic=t&channel=first",
            b"x",
            413,
            "{\"message\":\"BAD_BODY\"}",
        ),
        ("/channel/mpub?topic=t&channel=first", binary, 200, "OK"),
        ("/topic/pause?topic=t", b"", 200, ""),
        (
            "/channel/mpub?topic=t&channel=first",
            binary,
            503,
            "{\"message\":\"TOPIC_PAUSED\"}",
        ),
        ("/topic/unpause?topic=t", b"", 200, ""),
        ("/pub?topic=t", b"c", 200, "OK"),
    ];
    for (path, body, status, said) in table {
        let answer = request(&node, "POST", path, body).await;
        assert_eq!((answer.status, &*answer.body), (*status, *said), "{path}");
    }
    for body in ["a", "b", "c"] {
        assert_eq!(first.message().await.2, body.as_bytes());
    }
    assert_eq!(second.message().await.2, b"c");
}

#[tokio::test]
async fn stats_distinguish_null_from_empty() {
    let node = TestNode::start().await;
    node.warm_up().await;
    let parsed = |answer: Answer| -> serde_json::Value { serde_json::from_str(&answer.body).expect("JSON") };
    let stats = parsed(request(&node, "GET", "/stats?format=json&topic=none", b"").await);
    assert!(stats["topics"].is_null());
    let stats = parsed(request(&node, "GET", "/stats?format=json&topic=t&channel=none", b"").await);
    assert_eq!(stats["topics"], serde_json::json!([]));
    let answer = request(&node, "GET", "/stats?format=json&include_mem=false", b"").await;
    assert!(
        answer
            .body
            .starts_with("{\"version\":\"1.3.0\",\"health\":\"OK\",\"start_time\":"),
        "{}",
        answer.body
    );
    assert!(!answer.body.contains("\"memory\""));
    let stats = parsed(answer);
    assert_eq!(
        (&stats["topics"][0]["topic_name"], &stats["topics"][0]["message_count"]),
        (&"t".into(), &1.into())
    );
}

#[tokio::test]
async fn stats_show_consumers_and_producers() {
    let node = TestNode::start().await;
    let mut client = Client::subscribed(&node, "c", 0).await;
    client.publish(b"x").await;
    assert_eq!(client.frame().await, Some(ok()));
    let answer = request(&node, "GET", "/stats?format=json", b"").await;
    let stats: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let address = client.stream.local_addr().expect("connected").to_string();
    let consumer = &stats["topics"][0]["channels"][0]["clients"][0];
    assert_eq!(
        (&consumer["remote_address"], &consumer["state"]),
        (&(*address).into(), &3.into())
    );
    let producer = &stats["producers"][0];
    assert_eq!(producer["remote_address"], address);
    assert_eq!(
        producer["pub_counts"],
        serde_json::json!([{ "topic": "t", "count": 1 }])
    );
    let answer = request(&node, "GET", "/stats?format=json&include_clients=false", b"").await;
    let stats: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let channel = &stats["topics"][0]["channels"][0];
    assert!(channel["clients"].is_null() && stats["producers"].is_null());
    assert_eq!(channel["client_count"], 1);
}

#[tokio::test]
async fn administration_takes_effect_and_is_idempotent() {
    let node = TestNode::start().await;
    for path in [
        "/topic/create?topic=t",
        "/topic/create?topic=t",
        "/channel/create?topic=t&channel=c%23ephemeral",
        "/channel/create?topic=t&channel=c%23ephemeral",
        "/channel/pause?topic=t&channel=c%23ephemeral",
        "/channel/pause?topic=t&channel=c%23ephemeral",
        "/channel/unpause?topic=t&channel=c%23ephemeral",
        "/channel/empty?topic=t&channel=c%23ephemeral",
        "/topic/pause?topic=t",
        "/topic/unpause?topic=t",
        "/topic/empty?topic=t",
        "/channel/delete?topic=t&channel=c%23ephemeral",
        "/topic/delete?topic=t",
    ] {
        let answer = request(&node, "POST", path, b"").await;
        assert_eq!((answer.status, &*answer.body), (200, ""), "{path}");
        assert!(answer.head.contains("Content-Length: 0"), "{}", answer.head);
    }
    assert_eq!(node.broker.topics(), []);
}

#[tokio::test]
async fn ping_is_plain_and_near_misses_are_redirected() {
    let node = TestNode::start().await;
    let answer = request(&node, "GET", "/ping", b"").await;
    assert_eq!((answer.status, &*answer.body), (200, "OK"));
    assert!(!answer.head.contains("X-Nsq"), "{}", answer.head);
    let answer = request(&node, "GET", "/stats/?format=json", b"").await;
    assert_eq!(answer.status, 301);
    assert!(answer.head.contains("Location: /stats?format=json"), "{}", answer.head);
    let answer = request(&node, "HEAD", "/ping", b"").await;
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("Allow: GET, OPTIONS"), "{}", answer.head);
}

#[tokio::test]
async fn what_is_not_http_gets_a_400_in_text() {
    let node = TestNode::start().await;
    let answer = raw(&node, b"  V2IDENTIFY\n\0\0\0\x02{}").await;
    assert_eq!(answer.status, 400);
    assert!(answer.head.starts_with("HTTP/1.1 400"), "{}", answer.head);
}

#[tokio::test]
async fn settings_are_shown_as_go_writes_them() {
    let node = TestNode::start().await;
    for (name, text) in [
        ("broadcast_address", "node.example"),
        ("tls_cert", ""),
        ("max_rdy_count", "2500"),
        ("msg_timeout", "60000000000"),
        ("snappy", "true"),
        ("auth_http_addresses", r#"["a:1"]"#),
        ("e2e_processing_latency_percentiles", "[0.99]"),
        ("log_level", "2"),
    ] {
        let answer = request(&node, "GET", &format!("/config/{name}"), b"").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, text), "{name}");
        let is_json = answer.head.contains("Content-Type: application/json; charset=utf-8");
        assert_eq!(is_json, name != "broadcast_address" && name != "tls_cert", "{name}");
    }
    let answer = request(&node, "PUT", "/config/log_level", b"WARN").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "3"));
    assert_eq!(request(&node, "GET", "/config/log_level", b"").await.body, "3");
}

#[tokio::test]
async fn what_go_refuses_by_itself_is_refused() {
    let node = TestNode::start().await;
    for (bytes, status, body) in [
        (
            "GET /ping HTTP/1.1\r\n\r\n",
            400,
            "400 Bad Request: missing required Host header",
        ),
        (
            "GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            400,
            "400 Bad Request",
        ),
        ("GET /ping% HTTP/1.1\r\nHost: x\r\n\r\n", 400, "400 Bad Request"),
        ("GET /ping HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", 417, ""),
    ] {
        let answer = raw(&node, bytes.as_bytes()).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{bytes}");
        assert!(answer.head.contains("Connection: close"), "{}", answer.head);
    }
}

#[tokio::test]
async fn nobody_is_asked_for_a_body_that_is_not_wanted() {
    let node = TestNode::start().await;
    for target in ["/pub?topic=t", "/mpub?topic=t", "/nothing"] {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            100 << 20
        );
        let answer = raw(&node, head.as_bytes()).await;
        assert!(matches!(answer.status, 404 | 413), "{}", answer.head);
    }
}

#[tokio::test]
async fn stats_of_a_topic_have_only_what_was_published_to_it() {
    let node = TestNode::start().await;
    let mut client = Client::open(&node).await;
    for topic in ["one", "two"] {
        client.send(format!("PUB {topic}\n\0\0\0\x01x").as_bytes()).await;
        assert_eq!(client.frame().await, Some(ok()));
    }
    let pub_counts = async |query: &str| {
        let body = request(&node, "GET", &format!("/stats?format=json{query}"), b"")
            .await
            .body;
        let stats: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        stats["producers"][0]["pub_counts"].clone()
    };
    let all = serde_json::json!([{"topic": "one", "count": 1}, {"topic": "two", "count": 1}]);
    assert_eq!(pub_counts("").await, all);
    assert_eq!(
        pub_counts("&topic=two").await,
        serde_json::json!([{"topic": "two", "count": 1}])
    );
    assert!(pub_counts("&topic=none").await.is_null());
}
