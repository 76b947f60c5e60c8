//! The program under the name `nsqlookupd`, beside what stock nsqlookupd 1.3.0 does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use nsquorum_node_tests::{ExitReason, Named, get, until};
use rustix::process::Signal;
use tempfile::TempDir;

#[tokio::test]
async fn flags_and_exit_codes_are_those_of_stock() {
    let folder = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let run = async |arguments: &[&str]| Named::run("nsqlookupd", folder.path(), arguments).await.unwrap();
    let version = run(&["-version"]).await;
    assert_eq!((version.exit, version.log.as_str()), (ExitReason::Code(0), ""));
    assert!(
        version.out.starts_with("nsqlookupd v1.3.0 (built w/"),
        "{}",
        version.out
    );
    let help = run(&["-h"]).await;
    assert_eq!(help.exit, ExitReason::Code(0));
    for part in [
        "Usage of nsqlookupd:\n",
        "  -tombstone-lifetime duration\n",
        "(default 5m0s)\n",
        "(default 45s)\n",
    ] {
        assert!(help.log.contains(part), "{part}: {}", help.log);
    }
    let wrong = run(&["--data-path=x"]).await;
    assert_eq!(wrong.exit, ExitReason::Code(2));
    assert!(
        wrong.log.starts_with("flag provided but not defined: -data-path\n"),
        "{}",
        wrong.log
    );
    for arguments in [
        &["--tcp-address", &taken, "--http-address=127.0.0.1:0"][..],
        &["--tcp-address=127.0.0.1:0", "--http-address", &taken],
        &["--tcp-address=nowhere"],
        &["--config=nowhere"],
    ] {
        let ended = run(arguments).await;
        assert_eq!(ended.exit, ExitReason::Code(1), "{arguments:?}: {}", ended.log);
        assert!(
            ended
                .log
                .lines()
                .any(|line| line.starts_with("[nsqlookupd] 20") && line.contains(" FATAL: ")),
            "{}",
            ended.log
        );
    }
}

/// One process is the nsqd and one the nsqlookupd that it registers with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_serves_until_a_signal() {
    let folder = TempDir::new().unwrap();
    std::fs::write(
        folder.path().join("x.toml"),
        "tcp_address = \"127.0.0.1:0\"\nlog_prefix = \"[l] \"\n",
    )
    .unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let line = ["-http-address", "127.0.0.1:0", "--config=x.toml"];
        let mut lookup = Named::start("nsqlookupd", folder.path(), &line).unwrap();
        let tcp = lookup.listening("TCP").await.unwrap();
        let http = lookup.listening("HTTP").await.unwrap();
        let answers = until("/ping says OK", Duration::from_secs(60), async || {
            Ok(get(&http, "/ping").await?.text == "OK")
        });
        answers.await.unwrap();
        tokio::net::TcpStream::connect(&tcp).await.unwrap();
        assert_eq!(
            lookup.end_by(signal).await.unwrap(),
            ExitReason::Code(0),
            "{}",
            lookup.log()
        );
        assert!(
            lookup.log().lines().all(|line| line.starts_with("[l] 20")),
            "{}",
            lookup.log()
        );
    }
}
