//! Acceptance 3: nothing that was answered OK is lost by SIGKILL or a power cut.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::time::{Duration, Instant};

use nsquorum_client::{Connection, Event, IdentifyOptions};
use nsquorum_faults::{Action, Call, Fault, Metadata, MountOptions};
use nsquorum_node_tests::{Campaign, Disk, Ending, Load, Node, NodeFlags, Rule, VerifyReport, count, seed};

/// How far logs are purged and covered by checkpoints, so that a reader sees that kills meet these, too.
fn log_of(report: &VerifyReport) -> String {
    let groups = report.groups.iter().map(|group| {
        let checkpoint = &group["checkpoints"][0]["applied"]["index"];
        format!(
            "log {}: purged {}, checkpoint {checkpoint}",
            group["group"], group["purged"]["index"]
        )
    });
    groups.collect::<Vec<_>>().join("; ")
}

/// Kills at random moments and power cuts at random calls, restart in the same directory each time.
async fn kills(kills: u64, seed: u64, options: MountOptions) {
    println!("{kills} kills on {options:?}; NSQUORUM_SEED={seed}");
    let disk = Disk::faulty(options).unwrap();
    // Small tables, so that logs and tables turn over under load.
    let flags = NodeFlags::new(&["--memory-budget", "32MiB"]);
    let mut campaign = Campaign::begin(disk, flags, seed).await.unwrap();
    for kill in 0..kills {
        let oks = 100 + campaign.below(900);
        let load = match kill % 3 {
            1 => Load::catching_up(oks),
            _ => Load::mixed(oks),
        };
        let ending = match campaign.below(2) {
            0 => Ending::Kill,
            _ => Ending::PowerOff {
                call: 1 + campaign.below(400),
            },
        };
        let end = campaign.live(&load, &ending).await.unwrap();
        println!(
            "kill {kill}: {ending:?}, {:?}, {} messages answered OK so far; {}",
            end.exit,
            end.oks,
            log_of(&end.report)
        );
        assert!(
            end.report.is_clean(),
            "verify after kill {kill} finds {:?}",
            end.report.findings
        );
    }
    let violations = campaign.verdict().await.unwrap();
    assert!(violations.is_empty(), "NSQUORUM_SEED={seed} {violations:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_that_was_answered() {
    let seed = seed();
    kills(
        count("NSQUORUM_KILLS", 4),
        seed,
        MountOptions {
            seed,
            ..MountOptions::default()
        },
    )
    .await;
}

/// The same where directories forget what was not synced, and the last writes are torn in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_on_a_strict_disk_with_torn_writes() {
    let seed = seed();
    let options = MountOptions {
        seed,
        metadata: Metadata::Strict,
        torn: true,
        ..MountOptions::default()
    };
    kills(count("NSQUORUM_KILLS", 2), seed, options).await;
}

/// What the test above is worth: on a disk whose sync of the log does nothing, it fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_test_notices_a_missing_sync() {
    let seed = seed();
    println!("NSQUORUM_SEED={seed}");
    let disk = Disk::faulty(MountOptions {
        seed,
        ..MountOptions::default()
    })
    .unwrap();
    let mut campaign = Campaign::begin(disk, NodeFlags::default(), seed).await.unwrap();
    // The note of how far the log is synced would be a lie too: it must not betray the loss before the clients do.
    for file in ["*.log*", "synced"] {
        campaign
            .disk()
            .faults()
            .fail(Fault::every(Call::Fsync, Action::Lie).on(file))
            .unwrap();
    }
    let end = campaign.live(&Load::mixed(300), &Ending::Kill).await.unwrap();
    assert!(end.fired > 0, "no sync was left out");
    let violations = campaign.verdict().await.unwrap();
    let lost = violations.iter().any(|violation| violation.rule == Rule::NothingLost);
    assert!(lost, "syncs were left out and nobody missed a message: {violations:#?}");
}

/// The clock that deferrals are measured with starts again in each life. Had the first life's clock been late, by as much as
/// the disk was slow when it started, then a second life whose clock is less late would deliver too early.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deferral_is_not_shortened_by_a_slow_start_and_a_kill() {
    const DELAY: Duration = Duration::from_secs(3);
    let (topic, channel) = ("orders".parse().unwrap(), "ledger".parse().unwrap());
    let disk = Disk::faulty(MountOptions::default()).unwrap();
    let flags = NodeFlags::default();
    let node = Node::start(&disk.data(), &flags).await.unwrap();
    node.create("orders", &["ledger"]).await.unwrap();
    node.stop_cleanly().await.unwrap();

    disk.faults()
        .fail(Fault::every(Call::Fsync, Action::DelayMs(700)).on("*.log*"))
        .unwrap();
    let mut node = Node::start(&disk.data(), &flags).await.unwrap();
    let producer = Connection::connect(node.tcp(), IdentifyOptions::default())
        .await
        .unwrap()
        .into_producer();
    producer.publish(&topic, b"the topic has a leader").await.unwrap();
    disk.faults().clear().unwrap();
    let sent = Instant::now();
    producer
        .dpub(&topic, u64::try_from(DELAY.as_millis()).unwrap(), b"later")
        .await
        .unwrap();
    node.kill().unwrap();
    disk.power_cut().unwrap();

    let node = Node::start(&disk.data(), &flags).await.unwrap();
    let connection = Connection::connect(node.tcp(), IdentifyOptions::default())
        .await
        .unwrap();
    let mut consumer = connection.subscribe(&topic, &channel, 10).await.unwrap();
    for body in [&b"the topic has a leader"[..], b"later"] {
        let Some(Event::Message(message)) = consumer.next().await.unwrap() else {
            panic!("no message")
        };
        assert_eq!(message.body, body);
        consumer.fin(message.id).unwrap();
    }
    let waited = sent.elapsed();
    assert!(waited >= DELAY, "deferred by {DELAY:?}, it came after {waited:?}");
}
