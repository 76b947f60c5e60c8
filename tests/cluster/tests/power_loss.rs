//! Acceptance 3 of "Three replicas": what was answered OK survives every loss of power, of all nodes at once and of one at the worst moment.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use nsquorum_cluster_tests::{CHANNELS, Clients, Plan, TOPIC, Trio};
use nsquorum_faults::{Action, Call, Fault, Metadata, MountOptions};
use nsquorum_node_tests::{Disk, Rule, count, seed, until};

/// Small tables, so that logs and tables turn over under load.
const FLAGS: [&str; 2] = ["--memory-budget", "32MiB"];

async fn cluster(options: &MountOptions, flags: &[&str]) -> Trio {
    let places = Trio::local_places().unwrap();
    let disk = || Disk::faulty(options.clone());
    let trio = Trio::found(places, disk, flags).await.unwrap();
    trio.create(TOPIC, &CHANNELS).await.unwrap();
    trio
}

/// All three end at the same moment, by SIGKILL or because their disks go, and all lose what they had not synced.
async fn all_at_once(kills: u64, options: MountOptions) {
    let seed = options.seed;
    println!("{kills} kills of all three on {options:?}; NSQUORUM_SEED={seed}");
    let mut trio = cluster(&options, &FLAGS).await;
    let mut load = Clients::new(seed);
    for kill in 0..kills {
        load.start(&trio, &Plan::hard());
        let oks = 200 + load.below(1500);
        load.until_oks(oks).await.unwrap();
        let power = load.below(2) == 0;
        if power {
            for node in &trio.nodes {
                let call = 1 + load.below(200);
                node.disk().faults().fail(Fault::power_off_at(call)).unwrap();
            }
            // The first end is as good a moment as any for the others to go, too.
            until("a disk goes", std::time::Duration::from_secs(30), async || {
                let fired = trio.nodes.iter().map(|node| node.disk().faults().stats());
                Ok(fired.flatten().any(|stats| stats.fired.values().sum::<u64>() > 0))
            })
            .await
            .unwrap();
        }
        trio.kill_all().unwrap();
        load.stop().await;
        for node in &trio.nodes {
            node.disk().power_cut().unwrap();
        }
        let reports = trio.verify().unwrap();
        load.check_majority(&reports).unwrap();
        let ends: Vec<_> = reports
            .iter()
            .map(|report| report.topic(TOPIC).unwrap().map_or(0, |topic| topic.next_seq))
            .collect();
        let (how, oks) = (if power { "disks went" } else { "SIGKILL" }, load.history().oks());
        println!("kill {kill}: {how}, {oks} messages answered OK so far, directories at {ends:?}");
        trio.start_all().unwrap();
        trio.until_serving().await.unwrap();
    }
    let violations = load.verdict(&mut trio).await.unwrap();
    assert!(violations.is_empty(), "NSQUORUM_SEED={seed} {violations:#?}");
    println!("figure: {kills} kills of all three nodes, nothing lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_all_lose_power_at_once() {
    let seed = seed();
    let options = MountOptions {
        seed,
        ..MountOptions::default()
    };
    all_at_once(count("NSQUORUM_KILLS", 3), options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_all_lose_power_at_once_on_strict_disks_with_torn_writes() {
    let seed = seed();
    let options = MountOptions {
        seed,
        metadata: Metadata::Strict,
        torn: true,
        ..MountOptions::default()
    };
    all_at_once(count("NSQUORUM_KILLS", 1), options).await;
}

/// The choreography that broke another queue: with one node away, the two others store and acknowledge; then one of these loses its power and the
/// other goes away, and the first comes back. Those two are a majority now, and only one disk has what was acknowledged: what was synced
/// must be on it. In the end the third loses its power, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_one_loses_power_while_the_others_are_paused_in_turn() {
    let seed = seed();
    let rounds = count("NSQUORUM_ROUNDS", 2);
    println!("{rounds} rounds; NSQUORUM_SEED={seed}");
    let options = MountOptions {
        seed,
        ..MountOptions::default()
    };
    let mut trio = cluster(&options, &FLAGS).await;
    let mut load = Clients::new(seed);
    load.start(&trio, &Plan::steady());
    for round in 0..rounds {
        load.until_oks(300).await.unwrap();
        let first = usize::try_from(load.below(3)).unwrap();
        let turn = 1 + usize::try_from(load.below(2)).unwrap();
        let (away, victim, last) = (first, (first + turn) % 3, (first + 2 * turn) % 3);
        trio.nodes[away].pause().unwrap();
        load.until_oks(100).await.unwrap();
        trio.nodes[victim].lose_power().unwrap();
        trio.nodes[last].pause().unwrap();
        trio.nodes[away].resume().unwrap();
        trio.nodes[victim].start().unwrap();
        load.until_oks(100).await.unwrap();
        trio.nodes[last].lose_power().unwrap();
        trio.nodes[last].start().unwrap();
        trio.until_serving().await.unwrap();
        load.until_all_accept(&trio).await.unwrap();
        let oks = load.history().oks();
        println!("round {round}: {away} away, {victim} without power, then {last}; {oks} messages answered OK so far");
    }
    let violations = load.verdict(&mut trio).await.unwrap();
    assert!(violations.is_empty(), "NSQUORUM_SEED={seed} {violations:#?}");
    println!("figure: {rounds} rounds of pauses and losses of power in turn, nothing lost");
}

/// What the tests above are worth: with disks whose sync of the log does nothing they fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_test_notices_missing_syncs() {
    let seed = seed();
    println!("NSQUORUM_SEED={seed}");
    let options = MountOptions {
        seed,
        ..MountOptions::default()
    };
    let mut trio = cluster(&options, &[]).await;
    // The note of how far the log is synced would be a lie too: it must not betray the loss before the clients do.
    for node in &trio.nodes {
        for file in ["*.log*", "synced"] {
            let lie = Fault::every(Call::Fsync, Action::Lie).on(file);
            node.disk().faults().fail(lie).unwrap();
        }
    }
    let mut load = Clients::new(seed);
    load.start(&trio, &Plan::gentle());
    load.until_oks(200).await.unwrap();
    trio.kill_all().unwrap();
    load.stop().await;
    for node in &trio.nodes {
        node.disk().power_cut().unwrap();
    }
    trio.start_all().unwrap();
    trio.until_serving().await.unwrap();
    let violations = load.verdict(&mut trio).await.unwrap();
    let lost = violations.iter().any(|violation| violation.rule == Rule::NothingLost);
    assert!(lost, "syncs were left out and nobody missed a message: {violations:#?}");
}
