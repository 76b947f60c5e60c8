//! Acceptance 5, on real processes: calls of the disk fail at every place, and nothing is acknowledged that is not stored.
//!
//! A failed write or sync must end the node with its own code. That nothing was acknowledged after it is shown by what
//! the disk does then: the bytes of a failed sync are gone, as on Linux, and so is everything that was not synced.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

use std::time::Duration;

use nsquorum_faults::{Action, Call, ErrorCode, Fault, MountOptions};
use nsquorum_node_tests::{Campaign, Disk, Ending, ExitReason, Load, Manner, NodeFlags, count, seed};

/// Long enough for the rarest of the calls to come, and for a slow machine to end a process.
const PATIENCE: Duration = Duration::from_secs(40);

/// A place where a call fails.
#[derive(Clone, Copy, Debug)]
struct Site {
    call: Call,
    path: Option<&'static str>,
    /// The failing call is one of this many first ones.
    among: u64,
    /// Armed before the node starts.
    from_the_start: bool,
    /// The node must end: nothing may go on without this call.
    ends_the_node: bool,
}

const fn site(call: Call, path: &'static str, among: u64) -> Site {
    Site {
        call,
        path: Some(path),
        among,
        from_the_start: false,
        ends_the_node: true,
    }
}

impl Site {
    const fn at_start(self) -> Self {
        Self {
            from_the_start: true,
            ..self
        }
    }

    /// Something may go on without it; whether the node ends is its own affair, what it loses is not.
    const fn may_be_survived(self) -> Self {
        Self {
            ends_the_node: false,
            ..self
        }
    }
}

/// Writes and syncs of the log, each of which an answer waits for.
const LOG: [Site; 3] = [
    site(Call::Write, "*.log", 300),
    site(Call::Fsync, "*.log", 300),
    site(Call::Create, "*.log", 2),
];

/// What turns the log into tables: it goes on behind the answers.
const TABLES: [Site; 8] = [
    site(Call::Create, "*.sst", 4),
    site(Call::Write, "*.sst", 4),
    site(Call::Fsync, "*.sst", 4),
    site(Call::Create, "*.blob", 2),
    site(Call::Write, "*.blob", 20),
    site(Call::Fsync, "*.blob", 2),
    site(Call::Write, "MANIFEST-*", 3),
    site(Call::Fsync, "MANIFEST-*", 3),
];

/// Everything that a start does, and what keeps house.
const ANYWHERE: [Site; 12] = [
    site(Call::Rename, "nsquorum.json*", 1).at_start(),
    site(Call::Rename, "CURRENT", 1).at_start(),
    site(Call::Rename, "*", 3).at_start().may_be_survived(),
    site(Call::Create, "*", 8).at_start().may_be_survived(),
    site(Call::Write, "*", 20).at_start().may_be_survived(),
    site(Call::Fsync, "*", 10).at_start().may_be_survived(),
    site(Call::Fsyncdir, "*", 5).at_start().may_be_survived(),
    site(Call::Unlink, "*", 3).may_be_survived(),
    site(Call::Link, "*", 3).may_be_survived(),
    site(Call::Rename, "*", 3).may_be_survived(),
    site(Call::Truncate, "*", 3).may_be_survived(),
    site(Call::Fsyncdir, "*", 3).may_be_survived(),
];

/// Large messages turn logs and tables over; the small ones are many.
fn load(oks: u64) -> Load {
    let mut load = Load::mixed(oks);
    load.publishers.push(Manner::large());
    load
}

/// Fails calls at these sites in turn, `rounds` times each, and restarts in the same directory.
async fn fail_at(sites: &[Site], rounds: u64) {
    let seed = seed();
    println!("{} sites {rounds} times each; NSQUORUM_SEED={seed}", sites.len());
    let disk = Disk::faulty(MountOptions {
        seed,
        ..MountOptions::default()
    })
    .unwrap();
    let flags = NodeFlags::new(&["--memory-budget", "32MiB"]);
    let mut campaign = Campaign::begin(disk, flags, seed).await.unwrap();
    let (mut ended, mut missed) = (0, 0);
    for round in 0..rounds {
        for site in sites {
            let (code, expected) = match campaign.below(2) {
                0 => (ErrorCode::Eio, ExitReason::Code(70)),
                _ => (ErrorCode::Enospc, ExitReason::Code(71)),
            };
            let mut fault = Fault::nth(site.call, 1 + campaign.below(site.among), Action::Error(code));
            fault.path = site.path.map(str::to_owned);
            let ending = Ending::Fault {
                fault,
                from_the_start: site.from_the_start,
                patience: PATIENCE,
            };
            let load = load(50 + campaign.below(200));
            let end = campaign.live(&load, &ending).await.unwrap();
            println!(
                "round {round}: {code:?} at {site:?}: {:?}, {} answered OK so far",
                end.exit, end.oks
            );
            let log = &end.log;
            assert!(
                end.report.is_clean(),
                "verify finds {:?}; the node's log:\n{log}",
                end.report.findings
            );
            match (end.exit, end.fired > 0, site.ends_the_node) {
                (exit, true, _) if exit == expected => ended += 1,
                // Killed by the test, because it did not end by itself.
                (ExitReason::Signal(9), true, false) => {}
                (ExitReason::Signal(9), false, _) => missed += 1,
                (exit, fired, _) => panic!("{exit:?} instead of {expected:?}, fired: {fired}; the node's log:\n{log}"),
            }
        }
    }
    let violations = campaign.verdict().await.unwrap();
    assert!(violations.is_empty(), "NSQUORUM_SEED={seed} {violations:#?}");
    println!("{ended} calls ended the node, {missed} never came");
    assert!(
        ended > 0 && missed * 2 <= rounds * sites.len() as u64,
        "the faults miss what they are meant for"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log() {
    fail_at(&LOG, count("NSQUORUM_FAILURES", 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_manifest() {
    fail_at(&TABLES, count("NSQUORUM_FAILURES", 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_and_keeping_house() {
    fail_at(&ANYWHERE, count("NSQUORUM_FAILURES", 1)).await;
}
