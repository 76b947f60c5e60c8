//! The program under the name `nsqd`, beside what stock nsqd 1.3.0 does: the texts and codes here were recorded from it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use nsquorum_client::{Connection, Event, IdentifyOptions};
use nsquorum_node_tests::{Ended, ExitReason, Named, get, post, until};
use rustix::process::Signal;
use tempfile::TempDir;

/// An address of this machine that no other test uses: a port of it that a process has left can only be taken again on purpose.
fn own_host() -> String {
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.77.{high}.{low}")
}

fn anywhere() -> [&'static str; 4] {
    ["-tcp-address", "127.0.0.1:0", "-http-address", "127.0.0.1:0"]
}

async fn run(directory: &Path, arguments: &[&str]) -> Ended {
    Named::run("nsqd", directory, arguments).await.unwrap()
}

async fn until_ping_is_ok(http: &str) {
    let ready = until("/ping says OK", std::time::Duration::from_secs(60), async || {
        Ok(get(http, "/ping").await?.text == "OK")
    });
    ready.await.unwrap();
}

#[tokio::test]
async fn a_wrong_command_line_ends_with_2_and_the_usage() {
    let folder = TempDir::new().unwrap();
    for (arguments, complaint) in [
        (&["--nope"][..], "flag provided but not defined: -nope"),
        (&["---x"], "bad flag syntax: ---x"),
        (&["--msg-timeout"], "flag needs an argument: -msg-timeout"),
        (
            &["--msg-timeout=60"],
            r#"invalid value "60" for flag -msg-timeout: parse error"#,
        ),
        (
            &["-mem-queue-size", "abc"],
            r#"invalid value "abc" for flag -mem-queue-size: parse error"#,
        ),
        (
            &["--verbose=yes"],
            r#"invalid boolean value "yes" for -verbose: parse error"#,
        ),
        (
            &["--log-level=loud"],
            r#"invalid value "loud" for flag -log-level: invalid log level 'loud' (debug, info, warn, error, fatal)"#,
        ),
        (
            &["--tls-required=maybe"],
            r#"invalid boolean value "maybe" for -tls-required: strconv.ParseBool: parsing "maybe": invalid syntax"#,
        ),
        (
            &["--tls-min-version=ssl3.0"],
            r#"invalid value "ssl3.0" for flag -tls-min-version: unknown tlsVersionOption "ssl3.0""#,
        ),
    ] {
        let ended = run(folder.path(), arguments).await;
        assert_eq!(ended.exit, ExitReason::Code(2), "{arguments:?}: {}", ended.log);
        let mut lines = ended.log.lines();
        assert_eq!((lines.next(), lines.next()), (Some(complaint), Some("Usage of nsqd:")));
        assert!(ended.log.contains("\n  -msg-timeout duration\n    \t") && ended.log.contains("(default 1m0s)\n"));
    }
}

#[tokio::test]
async fn help_and_version_end_with_0() {
    let folder = TempDir::new().unwrap();
    for arguments in [&["--help"][..], &["-h"], &["--verbose", "--help", "--nope"]] {
        let ended = run(folder.path(), arguments).await;
        assert_eq!((ended.exit, ended.out.as_str()), (ExitReason::Code(0), ""));
        assert!(
            ended.log.starts_with("Usage of nsqd:\n  -auth-http-address value\n"),
            "{}",
            ended.log
        );
    }
    let ended = run(
        folder.path(),
        &["--mem-queue-size=0x10", "--version", "ignored", "--nope"],
    )
    .await;
    assert_eq!((ended.exit, ended.log.as_str()), (ExitReason::Code(0), ""));
    assert!(
        ended.out.starts_with("nsqd v1.3.0 (built w/") && ended.out.ends_with(")\n"),
        "{}",
        ended.out
    );
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "nothing was started");
}

#[tokio::test]
async fn what_cannot_start_ends_with_1_and_says_fatal() {
    let folder = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (file, text) in [
        ("bad.toml", "tcp_address = \n"),
        ("loud.toml", "log_level = \"loud\"\n"),
        ("tls.toml", "tls_required = \"maybe\"\n"),
        ("time.toml", "msg_timeout = \"60\"\n"),
    ] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::create_dir(folder.path().join("stock")).unwrap();
    std::fs::write(folder.path().join("stock/nsqd.dat"), "{}").unwrap();
    for (arguments, complaint) in [
        (
            &["-data-path", "nowhere"][..],
            "failed to instantiate nsqd - failed to lock data-path: open nowhere: no such file or directory",
        ),
        (
            &["-max-deflate-level", "10"],
            "failed to instantiate nsqd - --max-deflate-level must be [1,9]",
        ),
        (
            &["-node-id=1024"],
            "failed to instantiate nsqd - --node-id must be [0,1024)",
        ),
        (
            &["-tls-required"],
            "failed to instantiate nsqd - cannot require TLS client connections without TLS key and cert",
        ),
        (
            &["-tls-client-auth-policy=require"],
            "failed to instantiate nsqd - cannot require TLS client connections without TLS key and cert",
        ),
        (
            &["-tls-cert=x", "-tls-key=y"],
            "failed to instantiate nsqd - failed to build TLS config",
        ),
        (
            &["-e2e-processing-latency-percentile=0.9,1.5"],
            "failed to instantiate nsqd - invalid E2E processing latency percentile: 1.5",
        ),
        (&["-e2e-processing-latency-percentile=0.9,x"], "Could not parse: x"),
        (
            &["-config=nowhere"],
            "failed to load config file nowhere - open nowhere: ",
        ),
        (&["-config=bad.toml"], "failed to load config file bad.toml - "),
        (
            &["-config=loud.toml", "-log-level=info"],
            "failed parsing log_level loud",
        ),
        (&["-config=tls.toml"], "failed parsing tls_required maybe"),
        (
            &["-config=time.toml"],
            "failed to load config file time.toml - msg_timeout = \"60\": ",
        ),
        (
            &["-tcp-address", &taken],
            &format!("failed to instantiate nsqd - listen ({taken}) failed"),
        ),
        (&["-data-path", "stock"], "failed to instantiate nsqd - "),
    ] {
        let mut line = vec!["-data-path", "data"];
        line.extend(anywhere());
        line.extend(arguments);
        let ended = run(folder.path(), &line).await;
        assert_eq!(ended.exit, ExitReason::Code(1), "{arguments:?}: {}", ended.log);
        let last = ended
            .log
            .lines()
            .find(|line| line.contains("FATAL"))
            .unwrap_or_default();
        let (before, text) = last.split_once(" FATAL: ").unwrap_or_default();
        assert!(
            before.starts_with("[nsqd] 20") && text.starts_with(complaint),
            "{arguments:?}: {}",
            ended.log
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_lives_in_the_current_directory_and_returns_to_its_ports_after_a_sigkill() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let host = own_host();
    let any_port = format!("{host}:0");
    let line = [
        "--tcp-address",
        &any_port,
        "--http-address",
        &any_port,
        "--broadcast-address=127.0.0.1",
    ];
    let mut first = Named::start("nsqd", folder.path(), &line).unwrap();
    let tcp = first.listening("TCP").await.unwrap();
    let http = first.listening("HTTP").await.unwrap();
    assert!(tcp.starts_with(&host) && !tcp.ends_with(":0"), "the real port: {tcp}");
    until_ping_is_ok(&http).await;
    for path in [
        "/topic/create?topic=orders",
        "/channel/create?topic=orders&channel=ledger",
    ] {
        assert_eq!(post(&http, path, b"").await.unwrap().status, 200);
    }
    assert_eq!(post(&http, "/pub?topic=orders", b"one").await.unwrap().text, "OK");

    // Under other ports, but in the same directory.
    let second = run(folder.path(), &anywhere()).await;
    assert_eq!(second.exit, ExitReason::Code(1));
    assert!(
        second.log.contains("FATAL: failed to instantiate nsqd - "),
        "{}",
        second.log
    );

    assert_eq!(first.end_by(Signal::KILL).await.unwrap(), ExitReason::Signal(9));
    let line = ["-tcp-address", &tcp, "-http-address", &http];
    let mut again = Named::start("nsqd", folder.path(), &line).unwrap();
    assert_eq!(again.listening("TCP").await.unwrap(), tcp);
    until_ping_is_ok(&http).await;
    let stats = get(&http, "/stats?format=json&topic=orders&channel=ledger")
        .await
        .unwrap()
        .text;
    assert!(stats.contains(r#""depth":1"#), "{stats}");
    assert_eq!(
        again.end_by(Signal::INT).await.unwrap(),
        ExitReason::Code(0),
        "{}",
        again.log()
    );
    let mut last = Named::start("nsqd", folder.path(), &line).unwrap();
    last.listening("HTTP").await.unwrap();
    until_ping_is_ok(&http).await;
    assert_eq!(
        last.end_by(Signal::TERM).await.unwrap(),
        ExitReason::Code(0),
        "{}",
        last.log()
    );
    assert_eq!(std::fs::read(folder.path().join("notes.txt")).unwrap(), b"mine");
}

/// The identity of the directory is a pipe into which nobody writes: recovery cannot end, however slow or fast the machine is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_listens_before_it_has_recovered() {
    let folder = TempDir::new().unwrap();
    let identity = folder.path().join("nsquorum.json");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &identity, mode).unwrap();
    let mut node = Named::start("nsqd", folder.path(), &anywhere()).unwrap();
    let tcp = node.listening("TCP").await.unwrap();
    let http = node.listening("HTTP").await.unwrap();
    let ping = get(&http, "/ping").await.unwrap();
    assert_eq!(ping.status, 500, "{}", ping.text);
    assert!(ping.text.starts_with("NOK - "), "{}", ping.text);
    tokio::net::TcpStream::connect(&tcp).await.unwrap();
    // What is in there now is no identity.
    let broken = tokio::task::spawn_blocking(move || std::fs::write(identity, "{}"));
    broken.await.unwrap().unwrap();
    assert_eq!(node.until_ended().await.unwrap(), ExitReason::Code(1));
    assert!(
        node.log().contains(" FATAL: failed to instantiate nsqd - "),
        "{}",
        node.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_goes_before_the_file_and_the_file_before_the_defaults() {
    let folder = TempDir::new().unwrap();
    let config = r#"
        tcp_address = "127.0.0.1:0"
        http_address = "127.0.0.1:1"
        broadcast_address = "queue.example"
        max_msg_size = 10
        max_output_buffer_timeout = "3s"
        id = 7
        log_prefix = "[mine] "
        mem_queue_size = 20
        nobody_knows_this = { at = "all" }
    "#;
    std::fs::write(folder.path().join("nsqd.cfg"), config).unwrap();
    let line = [
        "-config",
        "nsqd.cfg",
        "-http-address=127.0.0.1:0",
        "--max-msg-size",
        "20",
        "-verbose",
        "--sync-every=1",
    ];
    let mut node = Named::start("nsqd", folder.path(), &line).unwrap();
    let http = node.listening("HTTP").await.unwrap();
    until_ping_is_ok(&http).await;
    assert_eq!(post(&http, "/pub?topic=t", &[b'x'; 20]).await.unwrap().status, 200);
    assert_eq!(post(&http, "/pub?topic=t", &[b'x'; 21]).await.unwrap().status, 413);
    let info = get(&http, "/info").await.unwrap().text;
    for part in [
        r#""broadcast_address":"queue.example""#,
        r#""max_output_buffer_timeout":3000000000"#,
        r#""max_heartbeat_interval":60000000000"#,
    ] {
        assert!(info.contains(part), "{part}: {info}");
    }
    let log = node.log();
    assert!(log.lines().all(|line| line.starts_with("[mine] 20")), "{log}");
    for part in [
        "INFO: nsqd v1.3.0 (built w/",
        "INFO: --mem-queue-size: ",
        "INFO: --sync-every: ",
        "INFO: --node-id: ",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("--sync-timeout"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ephemeral_channel_keeps_as_many_messages_as_mem_queue_size_says() {
    let folder = TempDir::new().unwrap();
    let mut line = vec!["-mem-queue-size=5"];
    line.extend(anywhere());
    let mut node = Named::start("nsqd", folder.path(), &line).unwrap();
    let (tcp, http) = (
        node.listening("TCP").await.unwrap(),
        node.listening("HTTP").await.unwrap(),
    );
    until_ping_is_ok(&http).await;
    assert_eq!(get(&http, "/config/mem_queue_size").await.unwrap().text, "5");
    let (topic, channel) = ("orders".parse().unwrap(), "tail#ephemeral".parse().unwrap());
    let connection = Connection::connect(&tcp, IdentifyOptions::default()).await.unwrap();
    let mut consumer = connection.subscribe(&topic, &channel, 1).await.unwrap();
    // Another channel keeps everything.
    let path = "/channel/create?topic=orders&channel=ledger";
    assert_eq!(post(&http, path, b"").await.unwrap().status, 200);
    let is_ready = until(
        "the consumer is ready",
        std::time::Duration::from_secs(60),
        async || {
            let stats = get(&http, "/stats?format=json&topic=orders").await?.text;
            Ok(stats.contains(r#""ready_count":1"#))
        },
    );
    is_ready.await.unwrap();
    let bodies: Vec<String> = (1..=10).map(|number| number.to_string()).collect();
    let published = post(&http, "/mpub?topic=orders", bodies.join("\n").as_bytes()).await;
    assert_eq!(published.unwrap().status, 200);
    for body in ["1", "6", "7", "8", "9", "10"] {
        let Some(Event::Message(message)) = consumer.next().await.unwrap() else {
            panic!("no message")
        };
        assert_eq!(message.body, body.as_bytes());
        consumer.fin(message.id).unwrap();
    }
    let stats = get(&http, "/stats?format=json&topic=orders&channel=ledger")
        .await
        .unwrap();
    assert!(stats.text.contains(r#""depth":10"#), "{}", stats.text);
    let metrics = get(&http, "/metrics").await.unwrap().text;
    assert!(
        metrics.contains("nsquorum_ephemeral_messages_dropped_total 4\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_of_the_log_is_kept_and_http_can_be_left_out() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("nsqd.sock");
    let socket = path.to_str().unwrap();
    let line = ["--log-level=WARN", "-tcp-address", socket, "-http-address="];
    let mut node = Named::start("nsqd", folder.path(), &line).unwrap();
    let connected = until("somebody listens", std::time::Duration::from_secs(60), async || {
        Ok(tokio::net::UnixStream::connect(&path).await.is_ok())
    });
    connected.await.unwrap();
    assert_eq!(node.end_by(Signal::TERM).await.unwrap(), ExitReason::Code(0));
    assert_eq!(node.log(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn special_keys_of_the_file_and_the_broadcast_ports_take_effect() {
    let folder = TempDir::new().unwrap();
    let mut lookup = Named::start("nsqlookupd", folder.path(), &anywhere()).unwrap();
    let (lookup_tcp, lookup_http) = (
        lookup.listening("TCP").await.unwrap(),
        lookup.listening("HTTP").await.unwrap(),
    );
    let config = format!(
        r#"
        nsqlookupd_tcp_addresses = ["{lookup_tcp}"]
        auth_http_addresses = ["127.0.0.1:1", "127.0.0.1:2"]
        e2e_processing_latency_percentiles = [0.5, 0.99]
        broadcast_tcp_port = 11
    "#
    );
    std::fs::write(folder.path().join("nsqd.cfg"), config).unwrap();
    let mut line = vec!["-config=nsqd.cfg", "-broadcast-http-port=12"];
    line.extend(anywhere());
    let mut node = Named::start("nsqd", folder.path(), &line).unwrap();
    let (tcp, http) = (
        node.listening("TCP").await.unwrap(),
        node.listening("HTTP").await.unwrap(),
    );
    until_ping_is_ok(&http).await;
    for (option, value) in [
        ("nsqlookupd_tcp_addresses", format!(r#"["{lookup_tcp}"]"#)),
        ("auth_http_addresses", r#"["127.0.0.1:1","127.0.0.1:2"]"#.to_owned()),
    ] {
        assert_eq!(
            get(&http, &format!("/config/{option}")).await.unwrap().text,
            value,
            "{option}"
        );
    }
    // Where nothing is said the host's name is told, and the ports that are listened at.
    let info: serde_json::Value = serde_json::from_str(&get(&http, "/info").await.unwrap().text).unwrap();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap()
        .trim()
        .to_owned();
    assert_eq!(info["broadcast_address"], hostname);
    let port = |address: &str| address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    assert_eq!(
        (&info["tcp_port"], &info["http_port"]),
        (&port(&tcp).into(), &port(&http).into())
    );
    assert_eq!(
        post(&http, "/channel/create?topic=t&channel=c", b"")
            .await
            .unwrap()
            .status,
        404
    );
    assert_eq!(post(&http, "/topic/create?topic=t", b"").await.unwrap().status, 200);
    assert_eq!(
        post(&http, "/channel/create?topic=t&channel=c", b"")
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(post(&http, "/pub?topic=t", b"x").await.unwrap().status, 200);
    let stats: serde_json::Value = serde_json::from_str(&get(&http, "/stats?format=json").await.unwrap().text).unwrap();
    let quantiles = stats["topics"][0]["e2e_processing_latency"]["percentiles"]
        .as_array()
        .unwrap();
    let quantiles: Vec<_> = quantiles.iter().map(|one| one["quantile"].as_f64().unwrap()).collect();
    assert_eq!(quantiles, [0.99, 0.5], "{stats}");

    let mut found = serde_json::Value::Null;
    let registered = until(
        "the node is registered",
        std::time::Duration::from_secs(60),
        async || {
            let answer = get(&lookup_http, "/lookup?topic=t").await?;
            if answer.status == 200 {
                found = serde_json::from_str(&answer.text)?;
            }
            Ok(found["producers"]
                .as_array()
                .is_some_and(|producers| !producers.is_empty()))
        },
    );
    registered.await.unwrap();
    let producer = &found["producers"][0];
    let told = (
        &producer["broadcast_address"],
        &producer["tcp_port"],
        &producer["http_port"],
    );
    assert_eq!(told, (&hostname.into(), &11.into(), &12.into()), "{found}");
}
