//! Running random histories: the seeds that have failed before, always, and then as many others as are asked for.
//!
//! `NSQUORUM_HISTORIES` sets how many, `NSQUORUM_SEED` the seed of the first (0); history *i* has seed + *i*. A failure names its seed,
//! and how to run it again and keep it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

/// Runs histories; `kept` is the text of `seeds.txt`, which lies at `kept_at` in the crate's sources. Says how many ran beside those, and
/// the seed of the first.
pub(crate) fn run_all(kept: &str, kept_at: &str, default_count: u64, mut run: impl FnMut(u64)) -> (u64, u64) {
    let mut run = |seed| {
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            let test = thread::current().name().unwrap_or("histories").to_owned();
            eprintln!("history failed; run it again with:");
            eprintln!("  NSQUORUM_SEED={seed} NSQUORUM_HISTORIES=1 cargo test -p nsquorum-broker --lib {test}");
            eprintln!("and keep the seed: echo '{seed} # what went wrong' >> crates/broker/src/{kept_at}");
            resume_unwind(cause);
        }
    };
    for line in kept.lines() {
        let seed = line.split('#').next().unwrap_or_default().trim();
        if !seed.is_empty() {
            run(seed.parse().expect("a seed is a number"));
        }
    }
    let (first, count) = (
        number_from_env("NSQUORUM_SEED", 0),
        number_from_env("NSQUORUM_HISTORIES", default_count),
    );
    for seed in (0..count).map(|i| first.wrapping_add(i)) {
        run(seed);
    }
    (count, first)
}

fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}
