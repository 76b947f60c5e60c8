//! Random histories of one topic on three nodes: routers, leaders and claims as step machines.
//!
//! The machines are the real ones and talk in real frames. Below them stands one log that elects, refuses and loses its uncommitted end
//! ([`group`]); between them links that reorder between lanes, repeat, lose and break ([`network`]); above them publishers and consumers that
//! keep account of what they were told ([`clients`]). [`history`] throws the dice, and then lets everything heal: what was answered OK must
//! be in the log once, nothing twice, every connection's publishes in its order; no consumer of a node that lives may be given what somebody
//! else holds or has finished; every message must be finished in the end, and no consumer may ever have been disconnected.
//!
//! `NSQUORUM_HISTORIES` sets how many (100), `NSQUORUM_SEED` the seed of the first (0). The seeds in `seeds.txt` run first, always.

mod clients;
mod group;
mod history;
mod network;
mod situations;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use history::{Census, History};

fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn run(seed: u64, census: &mut Census) {
    match catch_unwind(AssertUnwindSafe(|| History::run(seed))) {
        Ok(counted) => census.add(&counted),
        Err(cause) => {
            eprintln!("history failed; run it again with NSQUORUM_SEED={seed} NSQUORUM_HISTORIES=1");
            eprintln!(
                "and keep the seed: echo '{seed} # what went wrong' >> crates/broker/src/cluster_tests/seeds.txt"
            );
            resume_unwind(cause);
        }
    }
}

#[test]
fn promises_hold_over_leader_changes_deaths_and_bad_links() {
    let mut census = Census::default();
    for line in include_str!("seeds.txt").lines() {
        let seed = line.split('#').next().unwrap_or_default().trim();
        if !seed.is_empty() {
            run(seed.parse().expect("a seed is a number"), &mut census);
        }
    }
    let (base, histories) = (
        number_from_env("NSQUORUM_SEED", 0),
        number_from_env("NSQUORUM_HISTORIES", 100),
    );
    for seed in (0..histories).map(|i| base.wrapping_add(i)) {
        run(seed, &mut census);
    }
    println!("{histories} histories from seed {base}: {census:?}");
    if histories >= 50 {
        census.assert_rich(histories);
    }
}
