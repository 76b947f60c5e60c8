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

/// Long enough for a slow machine to end a process.
const TO_END: Duration = Duration::from_secs(40);
/// Long enough to see that a node goes on.
const TO_GO_ON: Duration = Duration::from_millis(500);

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
    /// Whether the call is made by a flush or a compaction, behind the answers.
    fn is_in_background(&self) -> bool {
        self.path.is_some_and(|path| {
            ["*.sst", "*.blob", "MANIFEST"]
                .iter()
                .any(|start| path.starts_with(start))
        })
    }

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

/// Writes and syncs of the log (whose files may have a second name by which they are freed slowly), each of which an answer waits for.
const LOG: [Site; 3] = [
    site(Call::Write, "*.log*", 300),
    site(Call::Fsync, "*.log*", 300),
    site(Call::Create, "*.log*", 2),
];

/// What turns the log into tables: it goes on behind the answers.
const TABLES: [Site; 8] = [
    site(Call::Create, "*.sst*", 4),
    site(Call::Write, "*.sst*", 4),
    site(Call::Fsync, "*.sst*", 4),
    site(Call::Create, "*.blob*", 2),
    site(Call::Write, "*.blob*", 20),
    site(Call::Fsync, "*.blob*", 2),
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

/// What the call meets.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Error(ErrorCode),
    /// The power goes just before it, and with it everything unsynced.
    PowerOff,
}

impl Failure {
    fn action(self) -> Action {
        match self {
            Self::Error(code) => Action::Error(code),
            Self::PowerOff => Action::PowerOff,
        }
    }

    /// Whether this is how a node should end by itself. Without power every call fails, and which of them it meets first is
    /// chance; only success, or a claim that the data are damaged, would be wrong.
    fn explains(self, exit: ExitReason, site: &Site) -> bool {
        match self {
            // The database does not tell why a flush or compaction failed that did not stop its writes.
            Self::Error(ErrorCode::Enospc) if site.is_in_background() => matches!(exit, ExitReason::Code(70 | 71)),
            Self::Error(ErrorCode::Enospc) => exit == ExitReason::Code(71),
            Self::Error(_) => exit == ExitReason::Code(70),
            Self::PowerOff => matches!(exit, ExitReason::Code(1 | 70)),
        }
    }
}

/// Fails a call at each of these sites in turn and restarts in the same directory; `rounds` times, each in a new one.
async fn fail_at(sites: &[Site], rounds: u64) {
    let seed = seed();
    println!("{} sites {rounds} times each; NSQUORUM_SEED={seed}", sites.len());
    let (mut ended, mut missed) = (0, 0);
    for round in 0..rounds {
        let seed = seed + round;
        let options = MountOptions {
            seed,
            ..MountOptions::default()
        };
        let flags = NodeFlags::new(&["--memory-budget", "32MiB"]);
        let mut campaign = Campaign::begin(Disk::faulty(options).unwrap(), flags, seed)
            .await
            .unwrap();
        for site in sites {
            let failure = match campaign.below(3) {
                0 => Failure::Error(ErrorCode::Eio),
                1 => Failure::Error(ErrorCode::Enospc),
                _ => Failure::PowerOff,
            };
            let mut fault = Fault::nth(site.call, 1 + campaign.below(site.among), failure.action());
            fault.path = site.path.map(str::to_owned);
            // What keeps house need not come by under this load; what an answer stands on must.
            let (patience, grace) = match site.ends_the_node {
                true => (TO_END, TO_END),
                false => (Duration::from_secs(5), TO_GO_ON),
            };
            let ending = Ending::Fault {
                fault,
                from_the_start: site.from_the_start,
                patience,
                grace,
            };
            let load = load(50 + campaign.below(200));
            let end = campaign.live(&load, &ending).await.unwrap();
            println!(
                "round {round}: {failure:?} at {site:?}: {:?}, {} answered OK so far",
                end.exit, end.oks
            );
            let (log, seed) = (&end.log, format!("NSQUORUM_SEED={seed}"));
            assert!(
                end.report.is_clean(),
                "{seed} verify finds {:?}; the log:\n{log}",
                end.report.findings
            );
            match (end.exit, end.fired > 0) {
                (exit, true) if failure.explains(exit, site) => ended += 1,
                // Killed by the test, because it did not end by itself.
                (ExitReason::Signal(9), true) if !site.ends_the_node => {}
                (ExitReason::Signal(9), false) => missed += 1,
                (exit, fired) => panic!("{seed} {failure:?} ends in {exit:?}, fired: {fired}; the log:\n{log}"),
            }
        }
        let violations = campaign.verdict().await.unwrap();
        assert!(violations.is_empty(), "NSQUORUM_SEED={seed} {violations:#?}");
    }
    println!("figure: {ended} failed calls ended the node, {missed} never came");
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
