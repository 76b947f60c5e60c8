use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nsquorum_environment::SeededRandom;
use nsquorum_protocol::{ChannelName, TopicName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::tls::MinVersion;

fn topic(name: &str) -> TopicName {
    TopicName::try_from(name).expect("valid")
}

fn channel(name: &str) -> ChannelName {
    ChannelName::try_from(name).expect("valid")
}

fn grants(authorizations: &str) -> Grants {
    Grants::parse(format!(r#"{{"ttl":1,"authorizations":{authorizations}}}"#).as_bytes()).expect(authorizations)
}

#[test]
fn patterns_match_anywhere_and_publishing_needs_one_for_the_empty_name() {
    let all = r#"[{"topic":".*","channels":[".*"],"permissions":["subscribe","publish"]}]"#;
    assert!(grants(all).allow(&topic("t"), None) && grants(all).allow(&topic("t"), Some(&channel("c"))));

    let some = grants(r#"[{"topic":"voice","channels":["archive","^x$"],"permissions":["subscribe","publish"]}]"#);
    assert!(some.allow(&topic("invoices"), Some(&channel("my-archive-2"))));
    assert!(some.allow(&topic("invoices"), Some(&channel("x"))));
    assert!(!some.allow(&topic("invoices"), Some(&channel("xx"))));
    assert!(!some.allow(&topic("orders"), Some(&channel("archive"))));
    assert!(
        !some.allow(&topic("invoices"), None),
        "no pattern matches the empty name"
    );

    let one = grants(r#"[{"topic":"^t$","channels":[".*"],"permissions":["publish"]}]"#);
    assert!(one.allow(&topic("t"), None) && !one.allow(&topic("t"), Some(&channel("c"))));
    let two = r#"[{"topic":"^a$","channels":[".*"],"permissions":["publish"]},
                  {"topic":"^b$","channels":[".*"],"permissions":["subscribe"]}]"#;
    let two = grants(two);
    assert_eq!(two.count(), 2);
    assert!(two.allow(&topic("a"), None) && !two.allow(&topic("b"), None));
    assert!(two.allow(&topic("b"), Some(&channel("c"))) && !two.allow(&topic("a"), Some(&channel("c"))));
}

#[test]
fn what_the_fuzzer_found_is_read_or_refused() {
    let found = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/auth_answer");
    let files = std::fs::read_dir(found).expect("the corpus is there");
    let inputs: Vec<_> = files
        .map(|file| std::fs::read(file.expect("listed").path()).expect("readable"))
        .collect();
    assert!(inputs.len() > 10, "the corpus is missing");
    inputs.iter().for_each(|json| hostile::answer(json));
}

#[test]
fn an_answer_with_a_fault_is_worth_nothing() {
    for json in [
        "",
        "[]",
        "{}",
        r#"{"ttl":0,"authorizations":[]}"#,
        r#"{"ttl":-1}"#,
        r#"{"ttl":"60"}"#,
        r#"{"ttl":60,"authorizations":[{"topic":"t","channels":[],"permissions":["admin"]}]}"#,
        r#"{"ttl":60,"authorizations":[{"topic":"(","channels":[],"permissions":[]}]}"#,
        r#"{"ttl":60,"authorizations":[{"topic":"t","channels":["["],"permissions":[]}]}"#,
        r#"{"ttl":60,"authorizations":{}}"#,
    ] {
        assert!(Grants::parse(json.as_bytes()).is_err(), "{json}");
    }
    let bare = Grants::parse(br#"{"ttl":60,"identity":null,"authorizations":null,"more":1}"#).expect("lenient");
    assert_eq!((bare.count(), &*bare.identity), (0, ""));
}

/// Answers every request with the same bytes and remembers it.
async fn server(answer: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !complete(&request) {
                assert_ne!(stream.read_buf(&mut request).await.expect("a request"), 0);
            }
            seen.lock()
                .expect("no panic")
                .push(String::from_utf8(request).expect("text"));
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    (address, requests)
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    body.len()
        >= headers(head)
            .get("content-length")
            .map_or(0, |length| length.parse().expect("a number"))
}

fn headers(head: &str) -> HashMap<String, String> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect()
}

fn settings(addresses: Vec<String>, method: AuthMethod) -> AuthSettings {
    AuthSettings {
        addresses,
        method,
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        tls: ClientTls::load(None, MinVersion::Tls12).expect("no file to miss"),
    }
}

fn credentials() -> Credentials {
    Credentials {
        common_name: "client & co".to_owned(),
        remote_ip: "::1".to_owned(),
        secret: Bytes::from_static(b"a/b+\xff"),
        tls: true,
    }
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n{\"ttl\":60,\"authorizations\":[{\"topic\":\"t\",\"channels\":[\".\"],\"permissions\":[]}]}";

#[tokio::test]
async fn the_question_in_both_methods() {
    let (address, requests) = server(GOOD).await;
    let url = format!("http://{address}/custom?x=1");
    for (address, method) in [
        (address.clone(), AuthMethod::Get),
        (url, AuthMethod::Get),
        (address.clone(), AuthMethod::Post),
    ] {
        let grants = ask(&settings(vec![address], method), &credentials(), &SeededRandom::new(1)).await;
        assert_eq!(grants.expect("granted").count(), 1);
    }
    let requests = requests.lock().expect("no panic");
    let query = "common_name=client%20%26%20co&remote_ip=%3A%3A1&secret=a%2Fb%2B%FF&tls=true";
    assert!(
        requests[0].starts_with(&format!("GET /auth?{query} HTTP/1.1\r\n")),
        "{}",
        requests[0]
    );
    assert!(
        requests[1].starts_with(&format!("GET /custom?x=1&{query} HTTP/1.1\r\n")),
        "{}",
        requests[1]
    );
    let (head, body) = requests[2].split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("POST /auth HTTP/1.1\r\n"), "{head}");
    let headers = headers(head);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["accept"], "application/vnd.nsq; version=1.0");
    assert_eq!(headers["host"], address);
    let expected = r#"{"common_name":["client & co"],"remote_ip":["::1"],"secret":["a/b+�"],"tls":["true"]}"#;
    assert_eq!(body, expected);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    let (bad, _) = server("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n").await;
    let (garbled, _) = server("no HTTP at all\r\n\r\n").await;
    let (good, _) = server(GOOD).await;
    // Nobody listens at the port of a listener that is gone.
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nowhere = gone.local_addr().expect("bound").to_string();
    drop(gone);
    for seed in 0..8 {
        let addresses = vec![
            bad.clone(),
            garbled.clone(),
            nowhere.clone(),
            "ftp://x".to_owned(),
            good.clone(),
        ];
        let settings = settings(addresses, AuthMethod::Get);
        assert!(ask(&settings, &credentials(), &SeededRandom::new(seed)).await.is_ok());
    }
    let settings = settings(vec![bad, nowhere], AuthMethod::Get);
    assert!(ask(&settings, &credentials(), &SeededRandom::new(1)).await.is_err());
}

#[tokio::test]
async fn a_server_without_an_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let settings = AuthSettings {
        request_timeout: Duration::from_millis(50),
        ..settings(vec![address], AuthMethod::Get)
    };
    let error = ask(&settings, &credentials(), &SeededRandom::new(1))
        .await
        .expect_err("silence");
    assert!(matches!(error, AuthError::TimedOut), "{error}");
}

#[tokio::test]
async fn a_connection_that_nobody_takes_is_given_up() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(1).expect("a queue of one");
    let address = listener.local_addr().expect("bound");
    // The kernel leaves whoever comes to a full queue without an answer.
    let mut queue = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queue.push(stream);
        assert!(queue.len() < 100, "the queue is never full");
    }
    let settings = AuthSettings {
        connect_timeout: Duration::from_millis(50),
        request_timeout: Duration::from_secs(600),
        ..settings(vec![address.to_string()], AuthMethod::Get)
    };
    let asked = timeout(
        Duration::from_secs(60),
        ask(&settings, &credentials(), &SeededRandom::new(1)),
    )
    .await;
    let error = asked.expect("it is given up").expect_err("nobody answers");
    assert!(matches!(error, AuthError::TimedOut), "{error}");
}
